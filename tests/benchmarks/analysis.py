"""Start-up of the command line, analysis plus report from 100,000 pairs, a million rows analysed.

The rows are made by hand (two models on the same pairs); what is timed is what a re-run costs when
every row is there: analyzers, findings, figures, report. The million scored rows are two models on
the same pairs for every analyzer of pairs, and one run of ten steps for the timeline, each in a
process of its own whose peak memory is measured. Prints the result as JSON:

    python tests/benchmarks/analysis.py --pairs 100000 --rows 1000000
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# every analyzer that reads implicit rewards alone
ON_PAIRS = ("reversals", "attainable", "displacement", "label_or_model", "ood")


def make_rows(n_pairs: int) -> tuple[Any, Any]:
    """ImplicitRewards of two models and their PreferencePairs, five pairs per prompt at most."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    ids = np.array([f"{i:016x}" for i in range(n_pairs)])
    prompts = np.array([f"p{i:015x}" for i in rng.integers(0, n_pairs // 2, n_pairs)])
    domains = rng.choice(["in_domain", "paraphrase", "domain"], n_pairs, p=[0.6, 0.2, 0.2])
    reference = rng.normal(-60, 15, (2, n_pairs))
    lengths = rng.integers(10, 80, (2, n_pairs))
    frames = []
    for model, gain in (("first-00000000", 1.0), ("second-00000000", 1.3)):
        policy = reference + rng.normal([[gain], [0.0]], 3.0, (2, n_pairs))
        ratio = policy - reference
        frames.append(
            pd.DataFrame(
                {
                    "model_id": model, "reference_id": "base-00000000",
                    "reward_def": "dpo(beta=0.1)", "pair_id": ids, "prompt_id": prompts,
                    "reward_chosen": 0.1 * ratio[0], "reward_rejected": 0.1 * ratio[1],
                    "margin": 0.1 * (ratio[0] - ratio[1]),
                    "logratio_chosen": ratio[0], "logratio_rejected": ratio[1],
                    "logp_chosen": policy[0], "logp_rejected": policy[1],
                    "ref_logp_chosen": reference[0], "ref_logp_rejected": reference[1],
                    "n_tokens_chosen": lengths[0], "n_tokens_rejected": lengths[1],
                    "truncated": False, "margin_noise": np.nan,
                    "domain": domains, "split": "test", "step": -1,
                }
            )
        )  # fmt: skip
    pairs = pd.DataFrame(
        {
            "pair_id": ids, "prompt_id": prompts, "prompt": "prompt", "chosen": "one",
            "rejected": "two", "domain": domains, "split": "test", "source": "made",
            "annotator": rng.choice(["a", "b", "c"], n_pairs),
            "stratum": rng.choice(["easy", "hard"], n_pairs),
        }
    )  # fmt: skip
    return pd.concat(frames, ignore_index=True), pairs


def render(n_pairs: int) -> dict[str, Any]:
    """Seconds from rows in memory to a written report, and the process's peak memory."""
    import numpy as np

    from dpo_diag import registry
    from dpo_diag.pipeline.analyze import Analysis
    from dpo_diag.reporting.document import FigureEntry, ReportInput
    from dpo_diag.reporting.saved import write_report
    from dpo_diag.tables import CASES, CURVES, FINDINGS

    rewards, pairs = make_rows(n_pairs)
    started = time.perf_counter()
    results = {}
    for name in ("reversals", "ood"):
        analyzer = registry.load("analyzers", name)()
        rows = rewards[rewards["domain"] == "in_domain"] if name == "reversals" else rewards
        params = analyzer.Parameters(baseline_id="first-00000000")
        tables = {"ImplicitRewards": rows, "PreferencePairs": pairs}
        results[name] = analyzer.run(tables, params, np.random.default_rng(0))
    analysed = time.perf_counter()
    analysis = Analysis(results)
    report = ReportInput(
        title="Benchmark",
        findings=analysis.table(FINDINGS),
        curves=analysis.table(CURVES),
        cases=analysis.table(CASES).head(0),
        figures=tuple(
            FigureEntry(analyzer=name, **vars(figure))
            for name, result in results.items()
            for figure in result.figures
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        write_report(Path(folder), report)
    return {
        "pairs": n_pairs,
        "models": 2,
        "analysis_seconds": analysed - started,
        "report_seconds": time.perf_counter() - analysed,
        "total_seconds": time.perf_counter() - started,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def with_steps(rewards: Any, n_steps: int) -> tuple[Any, Any]:
    """ImplicitRewards of one run: the first model's pairs at ``n_steps`` steps, and RunSteps."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(1)
    final = rewards[rewards["model_id"] == "first-00000000"]
    frames, places = [], []
    for step in range(1, n_steps + 1):
        is_final = step == n_steps
        model = "first-00000000" if is_final else f"first-step{step}-{step:08x}"
        moved = final["margin"].to_numpy() * step / n_steps + rng.normal(0.0, 0.1, len(final))
        logp = final["ref_logp_chosen"] + final["logratio_chosen"] * step / n_steps
        frames.append(
            final.assign(
                model_id=model, step=-1 if is_final else step, margin=moved, logp_chosen=logp
            )
        )
        places.append(("first-00000000", model, float(step), False, "first"))
    places.append(("first-00000000", "base-00000000", 0.0, True, "first"))
    columns = ["run_id", "model_id", "step", "is_start", "seed_group"]
    return pd.concat(frames, ignore_index=True), pd.DataFrame(places, columns=columns)


def analyse(kind: str, n_rows: int) -> dict[str, Any]:
    """Seconds of every analyzer on scored rows in memory, and the process's peak memory.

    Args:
        kind: ``models`` (two models on half as many pairs, all analyzers of pairs) or ``steps``
            (one run of ten steps, the timeline).
        n_rows: scored rows.
    """
    import numpy as np

    from dpo_diag import registry
    from dpo_diag.pipeline.analyze import tables_for

    if kind == "models":
        rewards, pairs = make_rows(n_rows // 2)
        tables, names = {"ImplicitRewards": rewards, "PreferencePairs": pairs}, ON_PAIRS
    else:
        rewards, pairs = make_rows(n_rows // 10)
        rewards, places = with_steps(rewards, 10)
        tables = {"ImplicitRewards": rewards, "PreferencePairs": pairs, "RunSteps": places}
        names = ("timeline",)
    rows, seconds, busy = len(rewards), {}, {}
    for name in names:
        analyzer = registry.load("analyzers", name)()
        baseline = "first-00000000" if kind == "models" else ""
        started, worked = time.perf_counter(), time.process_time()
        params = analyzer.Parameters(baseline_id=baseline)
        analyzer.run(tables_for(analyzer, tables), params, np.random.default_rng(0))
        seconds[name] = time.perf_counter() - started
        busy[name] = time.process_time() - worked
    return {
        "rows": rows,
        "seconds": seconds,
        "cpu_seconds": busy,  # what a shared machine does not stretch
        "total_seconds": sum(seconds.values()),
        "total_cpu_seconds": sum(busy.values()),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def analysed_apart(kind: str, n_rows: int) -> dict[str, Any]:
    """``analyse`` in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--only", kind, "--rows", str(n_rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def start_up(repeats: int) -> dict[str, Any]:
    """Seconds of ``dpo-diag --help`` as a process of its own, after one run to warm the cache."""
    command = [sys.executable, "-m", "dpo_diag", "--help"]
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return {"help_seconds": statistics.median(seconds[1:]), "all": seconds[1:]}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000, help="scored rows; 0 for none")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("models", "steps"), help="one analysis of --rows")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(analyse(options.only, options.rows)))
        return
    result = {"start_up": start_up(options.repeats), "report": render(options.pairs)}
    if options.rows:
        kinds = ("models", "steps")
        result["rows"] = {kind: analysed_apart(kind, options.rows) for kind in kinds}
    print(json.dumps({"benchmark": "analysis", "machine": platform.machine(), **result}, indent=1))


if __name__ == "__main__":
    main()
