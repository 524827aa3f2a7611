"""What is wrong with preference pairs, before training on them?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpo_diag.cli import _report, _session
from dpo_diag.cli import options as shared

if TYPE_CHECKING:
    from dpo_diag.pipeline.pair_checks import BaseModel, CheckedPairs

GROUPS = {
    "repair": "Repair before training",
    "look": "Look at",
    "know": "Know",
    "clean": "Nothing found",
    "not checked": "Not checked",
}
EXAMPLES = """\b
Examples:
  dpo-diag pairs prefs.jsonl
  dpo-diag pairs train.jsonl --test test.jsonl --model base/ --out report/
  dpo-diag pairs prefs.jsonl --write-clean clean.jsonl --drop leakage
  dpo-diag pairs prefs.jsonl --fail-if "leaked_prompts.estimate > 0"
"""


@click.command("pairs", epilog=EXAMPLES)
@click.argument("data")
@click.option("--test", help="Further pairs that are evaluated on; all count as the split test.")
@click.option(
    "--format", "pair_format", default="auto", help="Format of the pairs, if not by columns."
)
@click.option("--label", type=click.Choice(["better", "safer"]), default="better")
@click.option("--limit", type=shared.COUNT, default=0, help="At most so many rows; 0: all.")
@click.option("--model", help="Model that training starts from: predicts what will go wrong.")
@click.option(
    "--beta", type=float, default=0.1, show_default=True, help="Of the planned run, with --model."
)
@click.option(
    "--write-clean",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the pairs without exact copies, contradictions and unusable rows (JSONL).",
)
@click.option(
    "--drop",
    "drops",
    multiple=True,
    help="Leave out more with --write-clean: duplicates_near, near_identical, cycles, leakage, "
    "artefacts; repeat for more.",
)
@shared.engine_options
@shared.output_options
def command(**options: Any) -> None:
    """Look preference DATA over before training: what is wrong, how much, what to do about it.

    Nothing is changed and no model is run, unless --write-clean or --model asks for it. Every
    number carries its interval; the report of --out has them all, with examples.
    """
    from dpo_diag.pipeline.pair_checks import check_pairs, report_of, write_rows

    _refuse(options)
    pairs = _read(options["data"], options)
    test = _read(options["test"], options) if options["test"] else None
    checked = check_pairs(
        pairs, test, base=_base(options), beta=options["beta"], seed=options["seed"]
    )
    report = report_of(checked, commands=(_report.command_line(),))
    if options["write_clean"]:
        _write_clean(options, checked)
    _report.conclude(options, report, _screen(checked), lambda folder: write_rows(folder, checked))


def _refuse(options: dict[str, Any]) -> None:
    """Refuse options that contradict each other, before any work.

    Raises:
        DpoDiagError: names the options.
    """
    from dpo_diag.errors import DpoDiagError
    from dpo_diag.pipeline.pair_cleaning import check_names

    target, source = options["write_clean"], Path(options["data"])
    if options["drops"] and not target:
        raise DpoDiagError("--drop says what --write-clean leaves out, and it is not given.")
    check_names(options["drops"])
    if target and target.suffix != ".jsonl":
        raise DpoDiagError(f"--write-clean {target}: the pairs are written as .jsonl.")
    if target and target.exists() and source.exists() and target.samefile(source):
        raise DpoDiagError(f"--write-clean {target}: is the data itself; give another file.")
    if options["slices"]:
        raise DpoDiagError(
            "--slices: the checks slice by domain, split and annotator by themselves."
        )


def _read(source: str, options: dict[str, Any]) -> Any:
    from dpo_diag.pairs import read_every_pair

    pairs = read_every_pair(
        source,
        format=options["pair_format"],
        label=options["label"],
        limit=options["limit"],
    )
    for note in pairs.notes:
        _session.say(note)
    return pairs


def _base(options: dict[str, Any]) -> "BaseModel | None":
    from dpo_diag.checkpoints import resolve_checkpoint
    from dpo_diag.pipeline.pair_checks import BaseModel

    if not options["model"]:
        return None
    checkpoint = resolve_checkpoint(options["model"])  # a base needs neither reference nor beta
    return BaseModel(checkpoint, _session.engine_from(options), _session.work_from(options))


def _write_clean(options: dict[str, Any], checked: "CheckedPairs") -> None:
    from dpo_diag.pipeline.pair_cleaning import cleaned, write_cleaned

    found = cleaned(checked, options["drops"])
    path = write_cleaned(found, options["write_clean"])
    _session.say(f"Wrote {path}: {found.sentence()}")


def _screen(checked: "CheckedPairs") -> str:
    from dpo_diag.pipeline.pair_checks import advice_of, first_cases
    from dpo_diag.reporting.ranked import Entry, Example, ranked_text

    entries = [
        Entry(
            name,
            GROUPS[found.concern],
            found.summary,
            advice_of(found, checked),
            tuple(Example(note, texts) for note, texts in first_cases(found, checked)),
        )
        for name, found in checked.found.items()
    ]
    return ranked_text(checked.said(), entries, brief=(GROUPS["clean"],))
