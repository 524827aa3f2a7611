"""How does the implicit reward decay off-distribution?"""

from typing import Any

import click

from dpo_diag.cli import _report, _session
from dpo_diag.cli import options as shared


@click.command("ood")
@shared.checkpoints
@click.option(
    "--shifted",
    multiple=True,
    help="Shifted pairs, as FILE or NAME=FILE; repeat. Pairs with a domain column keep it.",
)
@shared.explicit_options
@shared.reference_options
@shared.pair_options
@shared.engine_options
@shared.output_options
@click.option("--baseline", type=int, help="Compare with checkpoint number N (1 is the first).")
def command(**options: Any) -> None:
    """How does the implicit reward decay off-distribution, by kind of shift and by step?

    The pairs of --pairs are the in-distribution set; --steps adds every checkpoint-* folder.
    """
    from dpo_diag.pipeline.analyze import analyze
    from dpo_diag.pipeline.compare import Request, gather

    work, engine = _session.work_from(options), _session.engine_from(options)
    checkpoints = _session.checkpoints_from(options)
    pairs = _session.with_shifted(_session.pairs_from(options, checkpoints), options)
    request = Request(
        _session.with_explicit(pairs, options, work, engine),
        baseline=_session.position(options, len(checkpoints)),
        engine=engine,
    )
    evidence = gather(checkpoints, request, work)
    analysis = analyze(
        ["ood"], evidence, {}, slices=_session.slices_from(options), seed=options["seed"]
    )
    _report.finish(options, "Implicit reward off-distribution", evidence, analysis)
