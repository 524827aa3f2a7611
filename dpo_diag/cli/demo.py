"""The whole story on the sandbox: base model, three variants, all analyzers, the report."""

from pathlib import Path
from typing import Any

import click

from dpo_diag.cli import _session


def _sandbox(out: Path, seeds: int, workers: int, engine: str) -> Path:
    from dpo_diag.pipeline.demo import run_demo

    return run_demo(out, seeds, workers, engine, _session.say)


def _bandit(out: Path, **_: Any) -> Path:
    from dpo_diag.pipeline.bandit import run_bandit

    return run_bandit(out)


# what can be demonstrated: the function gets the options and returns the path of the report
_STORIES = {"sandbox": _sandbox, "bandit": _bandit}


@click.command("demo")
@click.argument("what", type=click.Choice(list(_STORIES)), default="sandbox")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--seeds", type=int, default=1, show_default=True, help="Training seeds per variant.")
@click.option("--workers", type=int, default=0, help="Trainings at once; 0: one per core.")
@click.option(
    "--engine", default="auto", show_default=True, help="Engine for sampling and scoring."
)
def command(what: str, **options: Any) -> None:
    """Make the sandbox, train DPO, SafeDPO and RePO, diagnose all, write the comparison.

    Each step is a command that you could type; it is shown, and skipped when it is done already.

    WHAT is sandbox (as above, the default) or bandit: the whole point on three responses and one
    parameter, solved exactly, in one figure and a few seconds; it takes --out only.
    """
    click.echo(_STORIES[what](**options))
