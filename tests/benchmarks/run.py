"""Every benchmark, one after the other, rendered to ``reports/benchmarks``.

    make benchmarks

Each measures us and its named peer in the same run, in turns. ``results.json`` holds the raw
numbers, ``report.md`` is rendered from it by ``markdown``, which a test repeats.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPORT = HERE.parents[1] / "reports" / "benchmarks"
PARTS = {
    "scoring": ["scoring.py", "--pairs", "24", "--repeats", "3"],
    "training": ["training.py", "--repeats", "3", "--steps", "3"],
    "analysis": ["analysis.py", "--pairs", "100000"],
    "gradients": ["gradients.py", "--pairs", "10000"],
}
PAIRWISE = ("ipo", "simpo", "dpop", "cdpo", "rdpo", "drdpo", "holder_dpo", "safedpo", "re_po")
WITH_MORE = ("semidpo_port", "awdpo", "sspo", "tidpo", "auxdpo")
AIMS = {**dict.fromkeys(PAIRWISE, 1.05), "tidpo": 2.2, "auxdpo": 2.2}  # times DPO's step
PACKAGES = ("torch", "transformers", "trl", "numpy", "pandas")


def measure(name: str) -> dict[str, Any]:
    """The JSON that one benchmark prints, with one thread, which small machines share best."""
    script, *arguments = PARTS[name]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout[done.stdout.index("{") :])


def measure_variants(sandbox: Path) -> dict[str, Any]:
    """The step of every variant on pairs against DPO's, on the sandbox's base model.

    Args:
        sandbox: folder that ``dpo-diag sandbox`` wrote; made where it is missing.
    """
    if not (sandbox / "base").exists():
        subprocess.run([sys.executable, "-m", "dpo_diag", "sandbox", "--out", sandbox], check=True)
    PARTS["variants"] = [
        *("variants.py", *PAIRWISE, *WITH_MORE, "--model", str(sandbox / "base")),
        *("--pairs", str(sandbox / "panel.jsonl")),
        *("--unlabelled", str(sandbox / "unlabelled.jsonl")),
        # a block holds a whole period of everything that is not done in every step
        *("--block", "16", "--blocks", "3", "--repeats", "1"),
    ]
    return measure("variants")


def conditions() -> dict[str, str]:
    """What the numbers depend on."""
    cores = str(os.cpu_count())
    facts = {
        "date": date.today().isoformat(),
        "cores": cores,
        "machine": platform.machine(),
        "threads": "1",
    }
    return {**facts, "python": platform.python_version(), **{p: version(p) for p in PACKAGES}}


def markdown(results: dict[str, Any]) -> str:
    """The report's text from the saved results."""
    facts = ", ".join(f"{key} {value}" for key, value in results["conditions"].items())
    lines = [
        "# Benchmarks",
        "",
        "Medians of runs in turns on one machine; quote the ratios, since absolute figures drift.",
        f"Measured with: {facts}.",
        "",
        "| work | against | aim | measured | reached |",
        "|---|---|---|---|---|",
        *(_row(*row) for row in _comparisons(results)),
        "",
        *_variants(results),
        "Scoring and training: 15M parameters, 32k vocabulary for scoring, float32, CPU, fresh",
        "processes; TRL at its default settings unless the row says otherwise. Raw numbers:",
        "`results.json`. Again: `make benchmarks`; the demonstration's time and peak memory are",
        "measured apart, once, and handed to it.",
        "",
    ]
    return "\n".join(lines)


def _variants(results: dict[str, Any]) -> list[str]:
    """The table of training steps relative to DPO's."""
    if "variants" not in results:
        return []
    lines = [
        "## A training step against DPO's",
        "",
        "The sandbox's base model (0.6M), batches of 32 pairs, one thread; all in turns in one",
        "process, median of blocks of 16 steps. Memory: growth of a process of its own.",
        "",
        "| variant | time | aim | reached | memory | at most 1.5 |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in results["variants"]["variants"].items():
        time, memory = row["time_ratio_in_turns"], row["memory_ratio"]
        aim = AIMS.get(name)
        reached = "" if aim is None else ("yes" if time <= aim else "**no**")
        fits = "yes" if memory <= 1.5 else "**no**"
        shown = f"{aim:g} x" if aim else "none"
        lines.append(f"| `{name}` | {time:.2f} x | {shown} | {reached} | {memory:.2f} x | {fits} |")
    return [*lines, ""]


def _row(work: str, peer: str, aim: str, measured: str, reached: bool) -> str:
    return f"| {work} | {peer} | {aim} | {measured} | {'yes' if reached else '**no**'} |"


def _comparisons(results: dict[str, Any]) -> list[tuple[str, str, str, str, bool]]:
    rows = []
    peer = "TRL's reference-log-prob pass"
    for part in results["scoring"]["results"]:
        speed, memory = part["speed_ratio"], part["memory_ratio"]
        what = f"scoring pairs, {part['shape']} lengths"
        rows.append((what, peer, "at least 2 x pairs/s", f"{speed:.2f} x", speed >= 2))
        rows.append(
            (f"{what}, memory growth", peer, "at most 0.5 x", f"{memory:.2f} x", memory <= 0.5)
        )
    peers = {
        "trl": ("TRL DPOTrainer, its defaults", 1.8),
        "trl_plain": ("the same without activation checkpointing", 1.0),
        "trl_precomputed": ("the same, reference log-probs precomputed", 1.3),
    }
    for side, ratio in results["training"]["ratio_wall"].items():
        peer, aim = peers[side]
        rows.append(("training DPO", peer, f"at least {aim} x", f"{ratio:.2f} x", ratio >= aim))
    report = results["analysis"]["report"]["total_seconds"]
    start = results["analysis"]["start_up"]["help_seconds"]
    n = f"{results['analysis']['report']['pairs']:,}"
    rows.append((f"report from rows of {n} pairs", "—", "10 s", f"{report:.1f} s", report <= 10))
    rows += _million_rows(results["analysis"])
    rows.append(("`dpo-diag --help`", "—", "0.5 s", f"{start:.2f} s", start <= 0.5))
    gradients = results.get("gradients")
    if gradients:
        what, minutes = "gradient features of 10,000 pairs, 15M", gradients["minutes_of_10000"]
        shown = f"{minutes:.1f} min" + ("" if gradients["pairs"] == 10_000 else " extrapolated")
        rows.append((f"{what}, 2 cores", "—", "30 min", shown, minutes <= 30))
        gib = gradients["peak_gib"]
        rows.append((f"{what}, peak memory", "—", "4 GiB", f"{gib:.1f} GiB", gib <= 4))
    demo = results.get("demo")
    if demo:
        minutes, gib = demo["minutes"], demo["peak_gib"]
        rows.append(("`make demo`, 2 cores", "—", "12 min", f"{minutes:.1f} min", minutes <= 12))
        rows.append(("`make demo`, peak memory", "—", "6 GiB", f"{gib:.1f} GiB", gib <= 6))
    return rows


def _million_rows(analysis: dict[str, Any]) -> list[tuple[str, str, str, str, bool]]:
    """All statistics of a million scored rows; none where they were not measured."""
    parts = analysis.get("rows", {})
    if not parts:
        return []
    seconds = sum(part["total_seconds"] for part in parts.values())
    gib = max(part["peak_mib"] for part in parts.values()) / 1024
    n = f"{max(part['rows'] for part in parts.values()):,}"
    names = ", ".join(name for part in parts.values() for name in part["seconds"])
    return [
        (f"{names} on {n} scored rows", "—", "60 s", f"{seconds:.1f} s", seconds <= 60),
        (f"the same, peak memory of {n} rows", "—", "4 GiB", f"{gib:.1f} GiB", gib <= 4),
    ]


def main() -> None:
    """Measure what is named (everything by default) and write the report's two files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--demo-minutes", type=float, help="of a `make demo` after installation")
    parser.add_argument("--sandbox", type=Path, default=REPORT.parents[1] / "benchmark-sandbox")
    parser.add_argument("--demo-peak-gib", type=float, help="its peak memory, all processes")
    options = parser.parse_args()
    saved = REPORT / "results.json"
    results = json.loads(saved.read_text()) if saved.exists() else {}
    known = (*PARTS, "variants")
    if unknown := set(options.parts) - set(known):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    for name in options.parts or known:
        is_variants = name == "variants"
        results[name] = measure_variants(options.sandbox) if is_variants else measure(name)
    if options.demo_minutes is not None:
        results["demo"] = {"minutes": options.demo_minutes, "peak_gib": options.demo_peak_gib}
    results["conditions"] = conditions()
    saved.write_text(json.dumps(results, indent=1) + "\n")
    (REPORT / "report.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
