"""Select pairs before training: the best by BeeS, by one margin, by CHES, or at random."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpo_diag.cli import _session
from dpo_diag.cli import options as shared

if TYPE_CHECKING:
    from dpo_diag.pipeline.selection_inputs import CostMargin, ScoreColumns, Sources


EXAMPLES = """\b
Examples:
  dpo-diag select random --keep 0.3 --pairs prefs.jsonl --out seed.jsonl
  dpo-diag train dpo --model base/ --pairs seed.jsonl --out seed-run/
  dpo-diag select bees --checkpoint seed-run/ --pairs prefs.jsonl --out kept.jsonl
  dpo-diag select ches --model base/ --keep 0.05 --pairs prefs.jsonl --out kept.jsonl
"""


@click.command("select", epilog=EXAMPLES)
@click.argument("selector")
@click.option("--pairs", required=True, help="Preference pairs: file, folder or hub id.")
@click.option("--pair-format", default="auto", help="Format of the pairs, if not by columns.")
@click.option("--drop-invalid", is_flag=True, help="Leave out invalid rows, counted.")
@click.option("--label", type=click.Choice(["better", "safer"]), default="better")
@click.option(
    "--split", default="train", show_default=True, help="The split to select from, or `all`."
)
@click.option(
    "--keep",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Share of the pairs with a score to keep; default 0.1.",
)
@click.option("--keep-n", type=shared.SIZE, help="Number of pairs to keep, instead of a share.")
@click.option("--checkpoint", help="Run whose implicit margins are taken (bees, implicit_margin).")
@click.option("--reference", help="Its reference, where its folder does not say.")
@click.option("--beta", type=float, help="Beta of its implicit reward.")
@click.option("--variant", help="Method that trained it (dpo-diag show variants).")
@click.option("--model", help="Model whose hidden states are read (ches): the one to be trained.")
@click.option(
    "--external",
    help="Source of the external margin: columns:CHOSEN,REJECTED or cost:NAME[:key=value,...]; "
    "default columns:score_chosen,score_rejected.",
)
@shared.engine_options
@click.option("--store", type=click.Path(path_type=Path, file_okay=False), envvar="DPO_DIAG_STORE")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--scores",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Table of every pair's score, Parquet or CSV; default: OUT's name with "
    ".selection.parquet.",
)
def command(**options: Any) -> None:
    """Write the pairs that SELECTOR keeps to --out (JSONL), to train on.

    SELECTOR is a name of `dpo-diag show selectors`, with parameters as name:key=value,... Only
    --split is selected from; other splits pass through. Beside --out lie the score of every pair
    with the reason why it was kept or not, and a record of what was selected by what.
    """
    from dpo_diag import registry
    from dpo_diag.pipeline.select import SelectionPlan, select, write_selection
    from dpo_diag.pipeline.selection_inputs import check_given

    _refuse(options)
    name, parameters = _session.named_parameters(options["selector"], "SELECTOR")
    selector = registry.build("selectors", name, parameters)
    named = {"external": "external", "implicit": "checkpoint", "states": "model"}
    check_given(selector, {origin for origin, option in named.items() if options[option]})
    plan = SelectionPlan(
        selector,
        _sources(options),
        share=options["keep"] or 0.1,
        n=options["keep_n"] or 0,
        split=options["split"],
    )
    pairs = _session.pairs_from(options, split="all")
    selection = select(pairs, plan, _session.engine_from(options), _session.work_from(options))
    for path in write_selection(selection, options["out"], options["scores"]):
        click.echo(path)


def _refuse(options: dict[str, Any]) -> None:
    """Refuse options that contradict each other, before any work.

    Raises:
        DpoDiagError: names the options.
    """
    from dpo_diag.errors import DpoDiagError

    if options["keep"] and options["keep_n"]:
        raise DpoDiagError("--keep and --keep-n say the same in two ways; give one of them.")
    if options["out"].suffix != ".jsonl":
        raise DpoDiagError(f"--out {options['out']}: the pairs are written as .jsonl.")
    if options["scores"] and options["scores"].suffix not in (".parquet", ".csv"):
        raise DpoDiagError(f"--scores {options['scores']}: must end in .parquet or .csv.")
    source = Path(options["pairs"])
    if options["out"].exists() and source.exists() and options["out"].samefile(source):
        raise DpoDiagError(f"--out {options['out']}: is the pairs themselves; give another file.")
    alone = [name for name in ("reference", "beta", "variant") if options[name] is not None]
    if alone and not options["checkpoint"]:
        raise DpoDiagError(f"--{alone[0]} belongs to a --checkpoint, and there is none.")


def _sources(options: dict[str, Any]) -> "Sources":
    from dpo_diag.checkpoints import resolve_checkpoint
    from dpo_diag.pipeline.selection_inputs import Sources

    seed_run = model = None
    if options["checkpoint"]:
        (seed_run,) = _session.checkpoints_from({**options, "checkpoints": [options["checkpoint"]]})
    if options["model"]:
        model = resolve_checkpoint(options["model"])  # states need neither reference nor beta
    return Sources(_external(options["external"]), seed_run, model)


def _external(text: str | None) -> "ScoreColumns | CostMargin | None":
    from dpo_diag.errors import DataError
    from dpo_diag.pipeline.selection_inputs import CostMargin, ScoreColumns

    if text is None:
        return None
    kind, _, rest = text.partition(":")
    if kind == "cost" and rest:
        return CostMargin(_session.cost_from(rest))
    columns = [column.strip() for column in rest.split(",")]
    if kind == "columns" and len(columns) == 2 and all(columns):
        return ScoreColumns(*columns)
    raise DataError(
        f"--external {text}: expected columns:CHOSEN,REJECTED or cost:NAME[:key=value,...]."
    )
