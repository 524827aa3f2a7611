"""Make the built-in world with known truth: pairs, prompts and a tiny base model."""

from pathlib import Path

import click

from dpo_diag.cli import _session


@click.command("sandbox")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--steps", type=int, default=0, help="Pre-training steps; 0: the usual number.")
def command(out: Path, seed: int, steps: int) -> None:
    """Write pairs, shifted pairs, prompts and base/, a tiny pre-trained model.

    Everything is in the usual formats, so that every other command runs on it. Beside them what
    some variants ask for: panel.jsonl, labelled_few.jsonl, unlabelled.jsonl,
    reference_answers.jsonl and pair_reference_answers.jsonl.
    """
    from dpo_diag.pipeline.sandbox import make_sandbox

    for path in make_sandbox(out, seed=seed, steps=steps, bar=_session.bar):
        click.echo(path)
