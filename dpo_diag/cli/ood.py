"""How does the implicit reward decay off-distribution?"""

from typing import Any

import click

from dpo_diag.cli import _report, _session, _shifted
from dpo_diag.cli import options as shared


@click.command("ood")
@shared.checkpoints
@_shifted.shifted_options
@click.option(
    "--distances/--no-distances",
    default=True,
    show_default=True,
    help="Measure how far each prompt is from the training prompts, by the reference's states.",
)
@click.option(
    "--distance-model", help="Sentence encoder (folder or hub id) to measure distances by."
)
@shared.explicit_options
@shared.reference_options
@shared.pair_options
@shared.engine_options
@shared.output_options
@click.option("--baseline", type=int, help="Compare with checkpoint number N (1 is the first).")
def command(**options: Any) -> None:
    """How does the implicit reward decay off-distribution, by kind of shift and by step?

    The pairs of --pairs are the in-distribution set; --steps adds every checkpoint-* folder. Name
    the kind of each shifted set: kinds are never mixed into one number to read.
    """
    from dpo_diag.pipeline.analyze import analyze
    from dpo_diag.pipeline.compare import Request, gather, shown_headline
    from dpo_diag.pipeline.distances import sentence_encoder

    if options["distance_model"]:
        sentence_encoder(options["distance_model"])  # refuse it before any work
    parameters = _shifted.parameters_from(options)
    work, engine = _session.work_from(options), _session.engine_from(options)
    checkpoints = _session.checkpoints_from(options)
    pairs = _session.pairs_from(options, checkpoints)
    training = _shifted.training_from(options, pairs, checkpoints)
    pairs = _shifted.with_shifted(pairs, options, training)
    _shifted.check_match(parameters, pairs)
    request = Request(
        _session.with_explicit(pairs, options, work, engine),
        baseline=_session.position(options, len(checkpoints)),
        engine=engine,
    )
    evidence = gather(checkpoints, request, work)
    evidence = _shifted.with_distances(evidence, options, training, work, engine)
    analysis = analyze(
        ["ood"],
        evidence,
        {"ood": parameters},
        slices=_session.slices_from(options),
        seed=options["seed"],
    )
    headline = shown_headline(analysis)
    _report.finish(options, "Implicit reward off-distribution", evidence, analysis, headline)
