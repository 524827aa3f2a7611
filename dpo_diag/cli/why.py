"""Why were these pairs reversed, and which training pairs pushed them there?"""

from pathlib import Path
from typing import Any

import click

from dpo_diag.cli import _report, _session
from dpo_diag.cli import options as shared


@click.command("why")
@shared.checkpoints
@shared.reference_options
@shared.pair_options
@shared.engine_options
@shared.output_options
@click.option(
    "--sketch",
    type=shared.COUNT,
    default=16384,
    show_default=True,
    help="Columns that a gradient is sketched into; 0 keeps it whole (small models only).",
)
@click.option(
    "--lora-rank",
    type=shared.COUNT,
    default=0,
    help="Gradients of an adapter of this rank at its start; 0: of all weights.",
)
@click.option("--workers", type=shared.COUNT, default=0, help="Processes; 0: one per core.")
@click.option(
    "--named", type=shared.SIZE, default=100, show_default=True, help="Training pairs per pair."
)
@click.option("--max-train", type=shared.SIZE, help="Training pairs that may push.")
@click.option(
    "--write-without",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the training pairs without the --leave-out most blamed ones, to train again.",
)
@click.option(
    "--leave-out", type=shared.SIZE, default=100, show_default=True, help="See --write-without."
)
def command(**options: Any) -> None:
    """Why were pairs reversed: foreseeable from the base model, and pushed by which training pairs?

    Takes the pairs that CKPT was trained on (split train) and others that it was not. Computes each
    pair's gradient at the reference, which takes about one training epoch, and keeps it in the
    store: a second run on the same reference and pairs starts from there.
    """
    from dpo_diag.pipeline.analyze import analyze
    from dpo_diag.pipeline.why import explain, why_options, write_without

    work, engine = _session.work_from(options), _session.engine_from(options)
    checkpoints = _session.checkpoints_from(options)
    if options["split"] == "auto":  # the training pairs are what pushes
        options["split"] = "all"
    pairs = _session.pairs_from(options, checkpoints)
    asked = why_options(options, engine)
    why = explain(checkpoints, pairs, engine, asked, work)
    analysis = analyze(["misspecification", "conflicts"], why.evidence, {}, seed=options["seed"])
    if options["write_without"]:
        write_without(options["write_without"], why, pairs, options["leave_out"], work)
        if options["limit"]:
            _session.say(
                f"--limit {options['limit']}: the rows after the first {options['limit']} are not "
                f"in {options['write_without']}; leave --limit out to train on it."
            )
    _report.finish(options, "Why pairs were reversed", why.evidence, analysis)
