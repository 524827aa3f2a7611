"""Whom does the model serve when judges disagree, and how easily is it beaten?"""

from typing import Any

import click

from dpo_diag.cli import _report, _session
from dpo_diag.cli import options as shared
from dpo_diag.errors import DpoDiagError


@click.command("winrates")
@shared.checkpoints
@click.option(
    "--oracle",
    "oracles",
    multiple=True,
    help="A file of dpo_diag/oracles, with parameters as name:key=value; one per group of judges.",
)
@click.option("--against", help="Opponent: folder or hub id; default: the first one's reference.")
@shared.draw_options
@shared.pair_options
@shared.engine_options
@shared.output_options
def command(**options: Any) -> None:
    """Whom does the model serve when judges disagree, and how easily is it beaten?

    Samples answers of every CKPT and the opponent, puts them before each --oracle, and reports
    win rates by group, the worst group, and what beats the model.
    """
    if options["slices"]:
        raise DpoDiagError("winrates reports by oracle; --slices does not apply to it.")
    from dpo_diag.pipeline.analyze import analyze
    from dpo_diag.pipeline.winrates import gather_wins

    work, engine = _session.work_from(options), _session.engine_from(options)
    oracles = _session.oracles_from(options)
    checkpoints = _session.checkpoints_from(options)
    evidence = gather_wins(
        checkpoints,
        _session.opponent_from(options, checkpoints),
        _session.prompts_from(options, checkpoints),
        oracles,
        settings=_session.settings_from(options),
        choice=engine,
        work=work,
    )
    analysis = analyze(["pluralism"], evidence, {}, seed=options["seed"])
    _report.finish(options, "Win rates by group", evidence, analysis)
