"""Which preferences did training turn around, and why?"""

from typing import Any

import click

from dpo_diag.cli import _report, _session
from dpo_diag.cli import options as shared

ANALYZERS = ("reversals", "attainable", "displacement", "label_or_model")


@click.command("reversals")
@shared.checkpoints
@shared.reference_options
@shared.pair_options
@click.option(
    "--answers",
    type=shared.COUNT,
    default=0,
    show_default=True,
    help="Answers sampled per prompt from each CKPT and its reference, to see where the "
    "probability went; 0 samples none.",
)
@click.option("--max-new-tokens", type=shared.SIZE, default=64, show_default=True)
@click.option(
    "--cost",
    "costs",
    multiple=True,
    help="With --answers: who judges them, a file of dpo_diag/costs, higher is worse; repeat.",
)
@click.option("--states", is_flag=True, help="Read the reference's hidden states, for CHES.")
@shared.engine_options
@shared.output_options
@click.option("--baseline", type=int, help="Compare with checkpoint number N (1 is the first).")
def command(**options: Any) -> None:
    """Which preferences did training turn around, and why?

    Orders against labels and reference; pairs that lost their chance and pairs that had none;
    whether falling log-probs are harmless; for reversed training pairs (--split all), label or
    model. Several seeds of a run as CKPTs tell chance from agreement.
    """
    from dpo_diag.pipeline.analyze import analyze
    from dpo_diag.pipeline.compare import Request
    from dpo_diag.pipeline.explain import Further, gather_explained

    work, engine = _session.work_from(options), _session.engine_from(options)
    further = Further(
        options["answers"],
        options["max_new_tokens"],
        tuple(_session.cost_from(text) for text in options["costs"]),
        options["states"],
        options["seed"],
    )
    checkpoints = _session.checkpoints_from(options)
    request = Request(
        _session.pairs_from(options, checkpoints),
        baseline=_session.position(options, len(checkpoints)),
        engine=engine,
    )
    evidence = gather_explained(checkpoints, request, further, work)
    names = (*ANALYZERS, "timeline") if any(c.steps for c in checkpoints) else ANALYZERS
    analysis = analyze(
        names, evidence, {}, slices=_session.slices_from(options), seed=options["seed"]
    )
    _report.finish(options, "Preference reversals", evidence, analysis)
