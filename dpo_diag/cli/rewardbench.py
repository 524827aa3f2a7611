"""What would RewardBench say of a model's implicit reward?"""

from typing import Any

import click

from dpo_diag.cli import _report, _session
from dpo_diag.cli import options as shared


@click.command("rewardbench")
@shared.checkpoints
@click.option("--data", required=True, help="RewardBench or RewardBench 2: file, folder, hub id.")
@click.option(
    "--prior",
    multiple=True,
    help="A prior set as NAME=FILE, NAME one of anthropic_helpful, anthropic_hhh, shp, summarize.",
)
@click.option("--norm", "norms", is_flag=True, help="Score by the norm of token log-probs too.")
@click.option("--drop-invalid", is_flag=True, help="Leave out invalid rows, counted, not an error.")
@click.option("--limit", type=shared.COUNT, default=0, help="At most so many pairs; 0: all.")
@shared.explicit_options
@shared.reference_options
@shared.engine_options
@shared.output_options
@click.option("--baseline", type=int, help="Compare with checkpoint number N (1 is the first).")
def command(**options: Any) -> None:
    """What would RewardBench say of the implicit reward of every CKPT, with error bars?

    Both totals of version 1 and all of version 2, Ties included. With --out, OUT/rewardbench has
    the files that RewardBench itself writes.
    """
    from dpo_diag.pipeline.analyze import analyze
    from dpo_diag.pipeline.compare import Request
    from dpo_diag.pipeline.rewardbench import gather_bench, write_bench_files
    from dpo_diag.tables import FINDINGS

    work, engine = _session.work_from(options), _session.engine_from(options)
    checkpoints = _session.checkpoints_from(options)
    pairs = _session.with_explicit(_session.bench_pairs_from(options), options, work, engine)
    request = Request(pairs, baseline=_session.position(options, len(checkpoints)), engine=engine)
    evidence = gather_bench(checkpoints, request, work, norms=options["norms"])
    analysis = analyze(["rewardbench"], evidence, {}, seed=options["seed"])
    if options["out"]:
        folder = options["out"] / "rewardbench"
        for path in write_bench_files(folder, evidence, analysis.table(FINDINGS), engine):
            _session.say(f"Wrote {path}")
    _report.finish(options, "RewardBench", evidence, analysis)
