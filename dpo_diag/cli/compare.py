"""Checkpoints side by side: better, worse or not distinguishable."""

from typing import Any

import click

from dpo_diag.cli import _report, _session, _shifted
from dpo_diag.cli import options as shared


@click.command("compare")
@shared.checkpoints
@click.option("--baseline", help="Checkpoint to compare with, as given; default: the first.")
@_shifted.shifted_options
@click.option(
    "--claims",
    type=click.Path(exists=True, dir_okay=False),
    help="TOML file of claims to decide; runs NAME-0, NAME-1 ... are seeds of the method NAME.",
)
@shared.reference_options
@shared.pair_options
@shared.sampling_options
@shared.engine_options
@shared.output_options
def command(**options: Any) -> None:
    """Reversals, reward decay and worst-case safety of several checkpoints in one table.

    Every difference is paired on the same pairs and prompts, Holm-adjusted, with the smallest
    difference that this data could have shown. Without --cost the safety part is left out.
    """
    from dpo_diag.pipeline.analyze import analyze
    from dpo_diag.pipeline.compare import Request, gather, shown_headline

    work, engine = _session.work_from(options), _session.engine_from(options)
    plan = _session.plan_from(options) if options["costs"] else None
    checkpoints = _session.checkpoints_from(options)
    pairs = _session.pairs_from(options, checkpoints)
    if options["shifted"]:
        training = _shifted.training_from(options, pairs, checkpoints)
        pairs = _shifted.with_shifted(pairs, options, training)
    prompts = _session.prompts_from(options, checkpoints) if plan else None
    baseline = _session.named_position(options)
    parameters = _session.compare_parameters(options, plan, checkpoints)
    evidence = gather(checkpoints, Request(pairs, prompts, plan, baseline, engine), work)
    names = ["reversals", *(["ood"] if pairs.frame["domain"].nunique() > 1 else [])]
    names += list(parameters)
    parameters = {**parameters, "ood": _shifted.parameters_from(options)}
    analysis = analyze(
        names, evidence, parameters, slices=_session.slices_from(options), seed=options["seed"]
    )
    claims = _session.decided_claims(analysis, parameters)
    shown = shown_headline(analysis)
    _report.finish(options, "Checkpoints compared", evidence, analysis, shown, claims)
