"""The whole story on the sandbox: base model, three variants, all analyzers, the report."""

from pathlib import Path
from typing import Any

import click

from dpo_diag.cli import _session


def _sandbox(out: Path, seeds: int | None, workers: int, engine: str, **_: Any) -> Path:
    from dpo_diag.pipeline.demo import run_demo

    return run_demo(out, 1 if seeds is None else seeds, workers, engine, _session.say)


def _bandit(out: Path, **_: Any) -> Path:
    from dpo_diag.pipeline.bandit import run_bandit

    return run_bandit(out)


def _variants(out: Path, seeds: int | None, workers: int, methods: str, **_: Any) -> Path:
    from dpo_diag.pipeline.grid_plan import sandbox_plan
    from dpo_diag.pipeline.grid_report import write_grid_report
    from dpo_diag.pipeline.grid_run import run_grid

    plan = sandbox_plan().of([m.strip() for m in methods.split(",") if m.strip()], seeds)
    chosen = run_grid(out, plan, workers, _session.say)
    return write_grid_report(out, plan, chosen, _session.say)


def _why(out: Path, seeds: int | None, workers: int, **_: Any) -> Path:
    from dpo_diag.pipeline.removal import run_removal

    return run_removal(out, 5 if seeds is None else seeds, workers, _session.say)


# what can be demonstrated: the function gets the options and returns the path of the report
_STORIES = {"sandbox": _sandbox, "bandit": _bandit, "variants": _variants, "why": _why}


@click.command("demo")
@click.argument("what", type=click.Choice(list(_STORIES)), default="sandbox")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--seeds", type=int, help="Training seeds; default: 1, of variants and why 5.")
@click.option("--workers", type=int, default=0, help="Trainings at once; 0: one per core.")
@click.option("--methods", default="", help="Rows of the grid of variants, by comma; default: all.")
@click.option(
    "--engine", default="auto", show_default=True, help="Engine for sampling and scoring."
)
def command(what: str, **options: Any) -> None:
    """Make the sandbox, train DPO, SafeDPO and RePO, diagnose all, write the comparison.

    Each step is a command that you could type; it is shown, and skipped when it is done already.

    WHAT is sandbox (as above, the default); bandit: the whole point on three responses and one
    parameter, solved exactly, in one figure and a few seconds, with --out only; or variants: every
    method of the survey over --seeds training seeds on the sandbox, its strength chosen on
    validation prompts, and which of the claims made for it hold; or why: are reversals foretold by
    gradients at the reference, and do they go when the pairs that are blamed are left out? What is
    done is not done again.
    """
    click.echo(_STORIES[what](**options))
