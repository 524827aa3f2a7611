"""Is the implicit reward right on answers that only a judge labels?"""

from pathlib import Path
from typing import Any

import click

from dpo_diag.cli import _report, _session
from dpo_diag.cli import options as shared
from dpo_diag.errors import DpoDiagError


@click.command("judge", context_settings={"default_map": {"samples": 2}})
@shared.checkpoints
@click.option(
    "--oracle",
    "oracles",
    multiple=True,
    help="A judge: a file of dpo_diag/oracles, with parameters as name:key=value, e.g. "
    "language_model:model=FOLDER or cost:cost=NAME; several vote.",
)
@click.option(
    "--from",
    "sampled_from",
    type=click.Choice(["policy", "reference"]),
    default="policy",
    show_default=True,
    help="Whose answers are judged: the first CKPT's, or its reference's.",
)
@click.option(
    "--validated",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="JSON lines with pair_id and gold_label (chosen or rejected) of a random part of the "
    "pairs: the judge's error goes into the intervals.",
)
@click.option(
    "--reply-tokens",
    type=shared.SIZE,
    default=8,
    show_default=True,
    help="A judge's longest reply.",
)
@shared.draw_options
@shared.reference_options
@shared.pair_options
@shared.engine_options
@shared.output_options
@click.option("--baseline", type=int, help="Compare with checkpoint number N (1 is the first).")
def command(**options: Any) -> None:
    """Is the implicit reward of every CKPT right on answers that only a judge labels?

    Samples answers to --prompts, two by two, asks every --oracle which is better, and writes
    OUT/pairs.jsonl, which ood and reversals read. What a judge does not decide is counted, and
    never a label. Without --validated the number is agreement with the judge, not accuracy.
    """
    if options["slices"]:
        raise DpoDiagError("judge reports all decided pairs; --slices does not apply to it.")
    import dataclasses

    from dpo_diag.pipeline import judge
    from dpo_diag.pipeline.analyze import analyze
    from dpo_diag.pipeline.compare import Request, gather

    work, engine = _session.work_from(options), _session.engine_from(options)
    oracles = judge.connected(
        _session.oracles_from(options), engine, work, max_new_tokens=options["reply_tokens"]
    )
    checkpoints = _session.checkpoints_from(options)
    sampler = checkpoints[0]
    if options["sampled_from"] == "reference":
        sampler = _session.opponent_from({}, checkpoints)
    prompts = _session.prompts_from(options, checkpoints)
    judged = judge.judge_samples(
        sampler,
        prompts,
        oracles,
        settings=_session.settings_from(options),
        choice=engine,
        work=work,
    )
    pairs = judge.as_pairs(judged, prompts, " + ".join(oracle.name for oracle in oracles))
    if options["validated"]:
        pairs = judge.with_validated(pairs, options["validated"])
    for note in pairs.notes:
        _session.say(note)
    if options["out"]:
        _session.say(f"Wrote {judge.write_pairs(pairs, options['out'] / 'pairs.jsonl')}")
    request = Request(pairs, baseline=_session.position(options, len(checkpoints)), engine=engine)
    evidence = gather(checkpoints, request, work)
    evidence = dataclasses.replace(evidence, more={**evidence.more, "JudgedPairs": judged})
    analysis = analyze(["judged"], evidence, {}, seed=options["seed"])
    _report.finish(options, "Answers labelled by a judge", evidence, analysis)
