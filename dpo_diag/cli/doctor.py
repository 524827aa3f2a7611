"""What looks wrong about a training run's folder, and why, without a GPU?"""

from pathlib import Path
from typing import Any

import click

from dpo_diag.cli import _session

EXAMPLES = """\b
Examples:
  dpo-diag doctor outputs/my-dpo-run
  dpo-diag doctor outputs/my-dpo-run --pairs prefs.jsonl --test heldout.jsonl
  dpo-diag doctor outputs/my-dpo-run --fail-on error --out diagnosis.md
"""


@click.command("doctor", epilog=EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--pairs", help="Its training pairs: file, folder or hub id.")
@click.option("--test", help="Its test pairs, where --pairs has no test part.")
@click.option("--format", "pair_format", default="auto", help="Format of the pairs.")
@click.option("--json", "as_json", is_flag=True, help="The diagnosis as JSON on stdout.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Markdown report to write."
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    help="Exit 3 if a finding is as bad as this, or worse.",
)
def command(**options: Any) -> None:
    """Explain the folder RUN of TRL, LLaMA-Factory, axolotl, OpenRLHF or dpo-diag.

    Reads logs, configurations, adapters, tokenizer and template; opens no weights and no pickle,
    needs no GPU. Findings are ranked, each with its evidence, what it means, the fix, its source.
    """
    import json
    import sys

    from dpo_diag.cli._report import command_line
    from dpo_diag.pipeline.doctor import diagnose
    from dpo_diag.pipeline.doctor_report import as_values, markdown, screen
    from dpo_diag.symptoms._base import SEVERITIES
    from dpo_diag.tables import write_text

    pairs, test = (_read(options, name) for name in ("pairs", "test"))
    diagnosis = diagnose(options["run"], pairs=pairs, test=test)
    if options["as_json"]:
        click.echo(json.dumps(as_values(diagnosis), indent=2, allow_nan=False))
    else:
        click.echo(screen(diagnosis))
    if options["out"]:
        options["out"].parent.mkdir(parents=True, exist_ok=True)
        _session.say(f"Wrote {write_text(options['out'], markdown(diagnosis, command_line()))}")
    limit = options["fail_on"]
    worst = diagnosis.worst()
    if limit and worst and SEVERITIES.index(worst) <= SEVERITIES.index(limit):
        _session.say(f"gate failed: {diagnosis.findings[0].title}")
        sys.exit(3)


def _read(options: dict[str, Any], name: str) -> Any:
    """The pairs of an option, None where it is not given.

    Raises:
        DpoDiagError: ``--test`` without ``--pairs``.
    """
    from dpo_diag.errors import DpoDiagError
    from dpo_diag.pairs import read_pairs

    if options[name] is None:
        return None
    if options["pairs"] is None:
        raise DpoDiagError("--test is compared with the training pairs; give --pairs too.")
    found = read_pairs(options[name], format=options["pair_format"], drop_invalid=True)
    for note in found.notes:
        _session.say(note)
    return found
