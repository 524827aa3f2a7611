"""Since when are preferences turned around, and what was lost after the best step?"""

from typing import Any

import click

from dpo_diag.cli import _report, _session
from dpo_diag.cli import options as shared


@click.command("timeline")
@click.argument("checkpoints", nargs=-1, required=True, metavar="RUN...")
@click.option("--reference", help="Reference model, where the folder does not say.")
@click.option("--beta", type=float, help="Beta of the implicit reward.")
@click.option("--variant", help="Method that trained the run (dpo-diag show variants).")
@shared.pair_options
@shared.engine_options
@shared.output_options
@click.option("--baseline", type=int, help="Compare with run number N (1 is the first).")
@click.option(
    "--from-step",
    type=shared.COUNT,
    default=1,
    show_default=True,
    help="A pair counts as having been right only from this step on.",
)
def command(**options: Any) -> None:
    """Since when are preferences turned around, and what was lost after the best step?

    Reads every checkpoint-* folder of each RUN and its final model; runs of one name that end in
    -0, -1 ... are seeds of one method, and their agreement is shown.
    """
    from dataclasses import replace

    from dpo_diag.pipeline.analyze import analyze
    from dpo_diag.pipeline.compare import Request, gather
    from dpo_diag.pipeline.timelines import pair_timelines, require_steps

    work, engine = _session.work_from(options), _session.engine_from(options)
    checkpoints = _session.checkpoints_from({**options, "steps": True})
    request = Request(
        _session.pairs_from(options, checkpoints),
        baseline=_session.position(options, len(checkpoints)),
        engine=engine,
    )
    require_steps(checkpoints)
    evidence = gather(checkpoints, request, work)
    timelines = pair_timelines(evidence, from_step=options["from_step"])
    evidence = replace(evidence, more={**evidence.more, "PairTimelines": timelines})
    analysis = analyze(
        ["timeline"],
        evidence,
        {"timeline": {"from_step": options["from_step"]}},
        slices=_session.slices_from(options),
        seed=options["seed"],
    )
    _report.finish(options, "Preferences along training", evidence, analysis)
