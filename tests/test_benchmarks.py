"""The benchmark report is what its raw numbers render to; measuring is not a test."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_benchmark_report_is_rendered_from_its_numbers() -> None:
    path = ROOT / "tests" / "benchmarks" / "run.py"
    spec = importlib.util.spec_from_file_location("benchmarks_run", path)
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    folder = ROOT / "reports" / "benchmarks"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert run.markdown(results) == (folder / "report.md").read_text(encoding="utf-8")


def test_a_missed_aim_is_printed_as_missed() -> None:
    path = ROOT / "tests" / "benchmarks" / "run.py"
    spec = importlib.util.spec_from_file_location("benchmarks_run", path)
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    results = json.loads((ROOT / "reports/benchmarks/results.json").read_text(encoding="utf-8"))
    results["analysis"]["report"]["total_seconds"] = 11.0
    assert "| 10 s | 11.0 s | **no** |" in run.markdown(results)


def test_a_step_that_is_too_slow_or_too_large_is_printed_as_missed() -> None:
    path = ROOT / "tests" / "benchmarks" / "run.py"
    spec = importlib.util.spec_from_file_location("benchmarks_run", path)
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    results = json.loads((ROOT / "reports/benchmarks/results.json").read_text(encoding="utf-8"))
    table = {
        "ipo": {"time_ratio_in_turns": 1.06, "memory_ratio": 1.0},
        "tidpo": {"time_ratio_in_turns": 2.1, "memory_ratio": 1.6},
    }
    text = run.markdown({**results, "variants": {"variants": table}})
    assert "| `ipo` | 1.06 x | 1.05 x | **no** | 1.00 x | yes |" in text
    assert "| `tidpo` | 2.10 x | 2.2 x | yes | 1.60 x | **no** |" in text


def test_ratios_of_variants_are_to_dpo_in_the_same_run() -> None:
    """Medians 2 of 1, 2, 9 and 4 of 4, 3, 27: ratio 2; in turns 4, 1.5, 3: 3; memory 3 to 2."""
    path = ROOT / "tests" / "benchmarks" / "variants.py"
    spec = importlib.util.spec_from_file_location("benchmarks_variants", path)
    variants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(variants)
    seconds = {"dpo": [1.0, 2.0, 9.0], "auxdpo": [4.0, 3.0, 27.0]}
    table = variants.results(seconds, {"dpo": [2.0], "auxdpo": [3.0]}, 32)["variants"]["auxdpo"]
    assert (table["time_ratio"], table["time_ratio_in_turns"]) == (2.0, 3.0)
    assert table["memory_ratio"] == 1.5


def test_gradient_features_have_rows_of_time_and_memory_and_say_what_is_extrapolated() -> None:
    path = ROOT / "tests" / "benchmarks" / "run.py"
    spec = importlib.util.spec_from_file_location("benchmarks_run", path)
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    results = json.loads((ROOT / "reports/benchmarks/results.json").read_text(encoding="utf-8"))
    part = {"pairs": 10_000, "minutes_of_10000": 31.2, "peak_gib": 3.96}
    text = run.markdown({**results, "gradients": part})
    assert "15M, 2 cores | — | 30 min | 31.2 min | **no** |" in text
    assert "15M, peak memory | — | 4 GiB | 4.0 GiB | yes |" in text
    text = run.markdown({**results, "gradients": {**part, "pairs": 200, "minutes_of_10000": 20.0}})
    assert "| 30 min | 20.0 min extrapolated | yes |" in text


def test_a_million_rows_are_summed_over_their_parts() -> None:
    """31 s of five analyzers and 30 s of the timeline are over a minute; 2 GiB are not over 4."""
    path = ROOT / "tests" / "benchmarks" / "run.py"
    spec = importlib.util.spec_from_file_location("benchmarks_run", path)
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    results = json.loads((ROOT / "reports/benchmarks/results.json").read_text(encoding="utf-8"))
    part = {"rows": 1_000_000, "seconds": {"ood": 31.0}, "total_seconds": 31.0, "peak_mib": 2048}
    steps = {**part, "seconds": {"timeline": 30.0}, "total_seconds": 30.0}
    results["analysis"]["rows"] = {"models": part, "steps": steps}
    text = run.markdown(results)
    assert "| ood, timeline on 1,000,000 scored rows | — | 60 s | 61.0 s | **no** |" in text
    assert "peak memory of 1,000,000 rows | — | 4 GiB | 2.0 GiB | yes |" in text
