"""Only the rows: answers sampled from some checkpoints, scored for training where asked."""

import math
from pathlib import Path
from typing import Any

import click

from dpo_diag.cli import _session
from dpo_diag.cli import options as shared
from dpo_diag.errors import DpoDiagError


@click.command("sample")
@shared.checkpoints
@shared.sampling_options
@shared.pair_options
@shared.engine_options
@click.option(
    "--reward",
    help="With one --cost: a cost model whose upper end minus its value is the reward; the samples "
    "of one CKPT are written with both, as JSON lines for `train --samples`.",
)
@click.option("--store", type=click.Path(path_type=Path, file_okay=False), envvar="DPO_DIAG_STORE")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
def command(**options: Any) -> None:
    """Write a Samples table (Parquet) of every CKPT on the prompts.

    With --reward, --cost and an --out that ends in .jsonl: a table of one CKPT's samples with both
    scores, the cost less --threshold, for a variant that learns from a fixed table.
    """
    from dpo_diag.pipeline.sample import sample_models
    from dpo_diag.tables import SAMPLES, write_table

    work, engine = _session.work_from(options), _session.engine_from(options)
    checkpoints = _session.checkpoints_from(options)
    scoring = _scoring(options, len(checkpoints)) if options["reward"] else None
    prompts = _session.prompts_from(options, checkpoints)
    settings = _session.settings_from(options)
    if scoring is None:
        rows = sample_models(checkpoints, prompts, settings, engine, work)
        click.echo(write_table(rows, options["out"], SAMPLES))
        return
    from dpo_diag.pipeline.sample_table import sample_table, write_samples

    table = sample_table(checkpoints[0], prompts, settings, scoring, engine, work)
    click.echo(write_samples(table, options["out"]))


def _scoring(options: dict[str, Any], n_checkpoints: int) -> Any:
    """What samples are scored by.

    Raises:
        DpoDiagError: not one cost, or not one checkpoint, or another ending than .jsonl.
    """
    from dpo_diag.pipeline.sample_table import Scoring

    if len(options["costs"]) != 1:
        raise DpoDiagError(f"--reward goes with one --cost, got {len(options['costs'])}.")
    if n_checkpoints != 1:
        raise DpoDiagError(
            f"a table for training holds the samples of one CKPT, got {n_checkpoints}."
        )
    if options["out"].suffix != ".jsonl":
        raise DpoDiagError(f"{options['out']}: with --reward, --out must end in .jsonl.")
    threshold = options["threshold"]
    return Scoring(
        _session.cost_from(options["reward"]),
        _session.cost_from(options["costs"][0]),
        math.nan if threshold is None else threshold,
    )
