"""Regenerate the sandbox data set: ``python data/sandbox/make.py [--out FOLDER] [--seed 0]``.

Writes ``pairs.jsonl``, ``ood.jsonl``, ``reworded.jsonl``, ``prompts.jsonl`` and ``manifest.json``,
which are committed, and beside them the larger tables that the manifest lists under ``generated``,
which are not; the same seed gives the same content on every machine.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from dpo_diag.pipeline.sandbox import panel_tables
from dpo_diag.sandbox.world import WORLD_VERSION, make_world
from dpo_diag.tables import content_hash, write_text


def make(out: Path, *, seed: int = 0) -> dict[str, Any]:
    """Write the data set's files to a folder and return its manifest."""
    world = make_world(seed)
    tables = {
        "pairs.jsonl": world.pairs,
        "ood.jsonl": world.shifted_pairs,
        "reworded.jsonl": world.reworded_pairs,
        "prompts.jsonl": world.prompts,
    }
    manifest = {
        "generator": WORLD_VERSION,
        "seed": seed,
        "files": {name: _write(out / name, frame) for name, frame in tables.items()},
        "generated": {
            name: _write(out / name, frame) for name, frame in panel_tables(world, seed).items()
        },
    }
    write_text(out / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    return manifest


def _write(path: Path, frame: pd.DataFrame) -> dict[str, Any]:
    rows = frame.to_dict("records")
    write_text(path, "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    entry = {
        "content_hash": content_hash(rows),
        "n_rows": len(rows),
        "n_prompts": int(frame["prompt_id"].nunique()),
    }
    if "split" in frame:  # answers without labels belong to no split
        counts = frame.groupby(["domain", "split"], sort=False).size()
        entry["rows"] = {f"{domain}/{split}": int(n) for (domain, split), n in counts.items()}
    return entry


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(make(options.out, seed=options.seed), indent=2))
