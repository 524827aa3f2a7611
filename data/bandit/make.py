"""Write the bandit's tables: ``python data/bandit/make.py [--out FOLDER]``.

Writes ``responses.jsonl``, ``counts.jsonl`` and ``manifest.json``; nothing in it is random.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from dpo_diag.sandbox import bandit
from dpo_diag.tables import content_hash, write_text


def make(out: Path) -> dict[str, Any]:
    """Write the data set's files to a folder and return its manifest."""
    tables = {"responses.jsonl": responses(), "counts.jsonl": counts()}
    for name, rows in tables.items():
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
        write_text(out / name, text)
    manifest = {
        "generator": "bandit-1",
        "files": {
            name: {"content_hash": content_hash(rows), "n_rows": len(rows)}
            for name, rows in tables.items()
        },
    }
    write_text(out / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    return manifest


def responses() -> list[dict[str, Any]]:
    """The three responses."""
    columns = zip(bandit.RESPONSES, bandit.GOLD, bandit.REFERENCE, bandit.FEATURES, strict=True)
    return [
        {
            "response": response,
            "gold_reward": float(gold),
            "ref_probability": round(float(mass), 12),
            "feature": float(feature),
        }
        for response, gold, mass, feature in columns
    ]


def counts() -> list[dict[str, Any]]:
    """The counts of each setting with the exact share of labels in favour of the better one."""
    return [
        {
            "setting": str(setting),
            "first": bandit.RESPONSES[i],
            "second": bandit.RESPONSES[j],
            "n": float(n),
            "first_preferred_probability": round(float(bandit.preference(i, j)), 12),
        }
        for setting in bandit.SETTINGS
        for (i, j), n in zip(bandit.PAIRS, (setting.n_12, setting.n_23, setting.n_13), strict=True)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    print(json.dumps(make(parser.parse_args().out), indent=2))
