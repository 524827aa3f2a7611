"""Train a checkpoint with one of the variants."""

from pathlib import Path
from typing import Any

import click

from dpo_diag.cli import _session


@click.command("train")
@click.argument("recipe", metavar="VARIANT-or-RECIPE")
@click.option("--model", help="Model to start from: folder or hub id.")
@click.option("--reference", help="Reference; default: the starting model.")
@click.option("--pairs", required=True, help="Preference pairs: file, folder or hub id.")
@click.option("--pair-format", default="auto", help="Format of the pairs, if not by columns.")
@click.option("--drop-invalid", is_flag=True, help="Leave out invalid rows, counted.")
@click.option("--label", type=click.Choice(["better", "safer"]), default="better")
@click.option("--prompts", help="Prompts of an on-policy variant; default: the training pairs'.")
@click.option("--unlabelled", help="Answers without preferences, for a variant that needs them.")
@click.option("--samples", help="Scored samples, for a variant that learns from a fixed table.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="DPO_DIAG_STORE",
    help="Folder of stored rows; reference log-probs are shared with the analyses through it.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="e.g. variant.beta=0.2; repeat."
)
@click.option("--seed", type=int, help="Seed of data order, dropout and sampling.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint-* in --out.")
def command(**options: Any) -> None:
    """Train VARIANT with its defaults, or a RECIPE file, on preference pairs.

    Writes a folder that transformers, TRL and every other dpo-diag command read. VARIANT `reward`
    trains no policy but an explicit reward, a sequence classifier for `ood --explicit`. A recipe
    with [players] trains several policies in turns, each answering to its own oracle, into
    OUT/PLAYER; no convergence or Nash guarantee is known for that, and OUT/players.json says what
    each could still gain by deviating.
    """
    from dpo_diag.pipeline.train import run_training

    path = run_training(options, _session.work_from(options))
    click.echo(path)
