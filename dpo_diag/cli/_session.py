"""From parsed options to the objects the pipeline wants, and from results to the screen.

Underscore file: not a command. Everything but click is imported inside the functions, so that
``--help`` stays fast.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpo_diag.errors import DpoDiagError

if TYPE_CHECKING:
    from dpo_diag.checkpoints import Checkpoint
    from dpo_diag.costs._base import Cost
    from dpo_diag.oracles._base import Oracle
    from dpo_diag.pairs import PairSet, PromptSet
    from dpo_diag.pipeline.work import EngineChoice, Work


def say(line: str) -> None:
    """One line for the user on standard error, control characters made visible."""
    from tqdm import tqdm

    from dpo_diag.reporting.escape import line as escaped

    tqdm.write(escaped(line), file=sys.stderr)  # above a progress bar that may be shown


@contextmanager
def bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; quiet lines where it is not a terminal."""
    from tqdm import tqdm

    from dpo_diag.reporting.escape import line as escaped

    with tqdm(
        total=total,
        desc=escaped(label),
        file=sys.stderr,
        leave=False,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
    ) as shown:
        yield lambda n: shown.update(n) and None


def work_from(options: Mapping[str, Any]) -> Work:
    """Store, cache and voice from ``--store``."""
    from dpo_diag.pipeline.work import Work
    from dpo_diag.store import RowStore

    root = options.get("store") or Path(click.get_app_dir("dpo-diag", force_posix=True)) / "store"
    return Work(RowStore(root), root / "merged", say, bar)


def engine_from(options: Mapping[str, Any]) -> EngineChoice:
    """Engine name, settings, template and truncation.

    Raises:
        UnknownName: no such engine, with the nearest name.
    """
    from dpo_diag import registry
    from dpo_diag.engines._base import EngineOptions
    from dpo_diag.pipeline.work import EngineChoice

    if options["engine"] != "auto":
        registry.summary("engines", options["engine"])  # unknown name: say so before any work
    return EngineChoice(
        options["engine"],
        EngineOptions(
            dtype=options["dtype"],
            device=options["device"],
            batch_tokens=options["batch_tokens"],
            max_length=options["max_length"],
            tensor_parallel=options["tensor_parallel"],
            pipeline_parallel=options["pipeline_parallel"],
            data_parallel=options["data_parallel"],
            trust_remote_code=options["trust_remote_code"],
        ),
        options["template"],
        options["truncate"],
    )


def checkpoints_from(options: Mapping[str, Any]) -> list[Checkpoint]:
    """Every checkpoint named on the command line, what was found said aloud."""
    from dpo_diag import registry
    from dpo_diag.checkpoints import resolve_checkpoint

    if options.get("variant"):
        registry.summary("variants", options["variant"])
    resolved = []
    for source in options["checkpoints"]:
        checkpoint = resolve_checkpoint(
            source,
            reference=options.get("reference"),
            beta=options.get("beta"),
            variant=options.get("variant"),
            pairs=options.get("pairs"),
            steps="all" if options.get("steps") else "final",
        )
        for line in checkpoint.found:
            say(f"{checkpoint.model.name}: {line}")
        resolved.append(checkpoint)
    return resolved


def pairs_from(
    options: Mapping[str, Any], checkpoints: Sequence[Checkpoint] = (), *, split: str | None = None
) -> PairSet:
    """The pairs of ``--pairs``, or those a checkpoint's run recorded, notes said aloud.

    Raises:
        CheckpointError: neither is there; names the option.
    """
    from dpo_diag.checkpoints import require_pairs
    from dpo_diag.pairs import read_pairs

    source = options.get("pairs") or require_pairs(checkpoints[0])
    read = functools.partial(
        read_pairs,
        source,
        format=options.get("pair_format", "auto"),
        label=options.get("label", "better"),
        limit=options.get("limit", 0),
        drop_invalid=options.get("drop_invalid", False),
    )
    return _of_split(read, split or options.get("split") or "all")


def prompts_from(options: Mapping[str, Any], checkpoints: Sequence[Checkpoint] = ()) -> PromptSet:
    """The prompts of ``--prompts``, else those of the pairs, notes said aloud."""
    from dpo_diag.checkpoints import require_pairs
    from dpo_diag.pairs import read_prompts

    source = options.get("prompts") or options.get("pairs") or require_pairs(checkpoints[0])
    read = functools.partial(read_prompts, source, limit=options.get("limit", 0))
    return _of_split(read, options.get("split") or "all")


def _of_split(read: Callable[..., Any], wanted: str) -> Any:
    """Pairs or prompts of a split; ``auto`` is the test split, or all where there is none."""
    from dpo_diag.pair_formats._base import NoSuchSplit

    try:
        found = read(split={"all": None, "auto": "test"}.get(wanted, wanted))
    except NoSuchSplit:
        if wanted != "auto":
            raise
        found = read(split=None)
        names = ", ".join(sorted(found.frame["split"].unique()))
        say(f"{found.source}: no test split, so all is read ({names}).")
    for note in found.notes:
        say(note)
    return found


def cost_from(text: str) -> Cost:
    """A cost from ``name`` or ``name:key=value,key=value``.

    Raises:
        UnknownName: no such cost, with the nearest name.
        DataError: a parameter that the cost does not have, or a value of the wrong type.
    """
    from dpo_diag import registry
    from dpo_diag.costs._base import build

    name, parameters = named_parameters(text, "--cost")
    return build(registry.load("costs", name), parameters)


def oracles_from(options: Mapping[str, Any]) -> tuple[Oracle, ...]:
    """The oracles of every ``--oracle NAME`` or ``NAME:key=value,key=value``.

    Raises:
        DpoDiagError: none was named, no such oracle, a parameter that it does not have.
    """
    from dpo_diag import registry

    if not options["oracles"]:
        known = ", ".join(registry.names("oracles"))
        raise DpoDiagError(f"give --oracle NAME; there are {known}.")
    return tuple(
        registry.build("oracles", *named_parameters(text, "--oracle"))
        for text in options["oracles"]
    )


def opponent_from(options: Mapping[str, Any], checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The opponent of ``--against``, else the first checkpoint's reference.

    Raises:
        DpoDiagError: neither is there.
    """
    from dpo_diag.checkpoints import resolve_checkpoint

    source = options.get("against")
    if not source:
        reference = checkpoints[0].reference
        if reference is None:
            raise DpoDiagError(
                f"{checkpoints[0].model.name} does not say what it was trained from; give "
                "--against CKPT, the model to win against."
            )
        source = reference.adapter or reference.path
        say(f"Win rates are against the reference {reference.name}.")
    found = resolve_checkpoint(str(source))
    same = [c for c in checkpoints if c.model.fingerprint == found.model.fingerprint]
    return same[0] if same else found


def named_parameters(text: str, where: str) -> tuple[str, dict[str, Any]]:
    """A plug-in's name and its parameters from ``name`` or ``name:key=value,key=value``.

    Raises:
        DataError: something is not key=value; ``where`` is the option named.
    """
    from dpo_diag.errors import DataError

    name, _, rest = text.partition(":")
    parameters: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise DataError(f"{where} {text}: {item!r} is not key=value.")
        parameters[key.strip()] = _number_or_text(value.strip())
    return name, parameters


def _number_or_text(value: str) -> Any:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def position(options: Mapping[str, Any], n: int) -> int | None:
    """``--baseline N``, counted from 1, as an index; None where it is not given.

    Raises:
        DpoDiagError: no such checkpoint.
    """
    number = options.get("baseline")
    if number is None:
        return None
    if not 1 <= number <= n:
        raise DpoDiagError(f"--baseline {number}: there are checkpoints 1 to {n}.")
    return number - 1


def named_position(options: Mapping[str, Any]) -> int:
    """``--baseline CKPT`` as an index into the checkpoints, 0 where it is not given.

    Raises:
        DpoDiagError: the baseline is not among the checkpoints.
    """
    given = options.get("baseline")
    names = [str(source).rstrip("/") for source in options["checkpoints"]]
    if not given:
        return 0
    if given.rstrip("/") not in names:
        raise DpoDiagError(
            f"--baseline {given} is not among the checkpoints {', '.join(names)}; "
            "name it there too."
        )
    return names.index(given.rstrip("/"))


def bench_pairs_from(options: Mapping[str, Any]) -> PairSet:
    """The pairs of ``--data`` with those of every ``--prior NAME=FILE``, notes said aloud.

    Raises:
        DpoDiagError: a prior set without a name that the benchmark knows.
    """
    from dpo_diag.analyzers._rewardbench import PRIOR_SETS
    from dpo_diag.pairs import read_pairs
    from dpo_diag.pipeline.rewardbench import with_prior_sets

    read = functools.partial(
        read_pairs, limit=options["limit"], drop_invalid=options["drop_invalid"]
    )
    sets = {}
    for text in options["prior"]:
        name, _, source = text.partition("=")
        if name not in PRIOR_SETS or not source:
            raise DpoDiagError(
                f"--prior {text}: expected NAME=FILE, NAME one of {', '.join(PRIOR_SETS)}."
            )
        sets[name] = read(source)
    pairs = with_prior_sets(read(options["data"]), sets)
    for note in pairs.notes:
        say(note)
    return pairs


def with_explicit(
    pairs: PairSet, options: Mapping[str, Any], work: Work, engine: EngineChoice
) -> PairSet:
    """The pairs with the scores of ``--explicit REWARD_MODEL``, as they are where none is given."""
    if not options.get("explicit"):
        return pairs
    from dpo_diag.pipeline.explicit import ExplicitChoice, with_explicit_rewards

    chosen = ExplicitChoice(
        options["explicit"], options["explicit_label"], options["explicit_template"]
    )
    return with_explicit_rewards(pairs, chosen, engine, work)


def settings_from(options: Mapping[str, Any]) -> Any:
    """Sampling settings from the sampling options."""
    from dpo_diag.engines._base import SamplingSettings

    return SamplingSettings(
        options["samples"],
        options["max_new_tokens"],
        options["temperature"],
        options["top_p"],
        options["seed"],
    )


def plan_from(options: Mapping[str, Any]) -> Any:
    """How to sample and what to pay for, from ``--cost`` and the sampling options.

    Raises:
        DpoDiagError: no cost was named.
    """
    from dpo_diag import registry
    from dpo_diag.pipeline.sample import SafetyPlan

    if not options["costs"]:
        known = ", ".join(registry.names("costs"))
        raise DpoDiagError(f"give --cost NAME; there are {known}.")
    costs = tuple(cost_from(text) for text in options["costs"])
    harm = next((cost for cost in costs if cost.role == "harm"), costs[0])
    return SafetyPlan(settings_from(options), options["finalists"], options["confirm"], harm, costs)


def safety_parameters(options: Mapping[str, Any], plan: Any) -> dict[str, Any]:
    """Parameters of the safety analyzer that follow from the plan."""
    given = options.get("threshold")
    return {
        "cost": plan.harm.name,
        "cost_low": plan.harm.low,
        "cost_high": plan.harm.high,
        "threshold": plan.harm.zero if given is None else given,
        "roles": roles_of(plan),
        "ranges": {cost.name: (cost.low, cost.high) for cost in plan.costs},
    }


def compare_parameters(
    options: Mapping[str, Any], plan: Any, checkpoints: Sequence[Checkpoint]
) -> dict[str, dict[str, Any]]:
    """Parameters of the analyzers that ``compare`` adds where there are costs and claims.

    Raises:
        DpoDiagError: claims without a cost to decide them on, or an unreadable file of claims.
    """
    from dpo_diag.pipeline.claims import read_claims
    from dpo_diag.pipeline.run_steps import groups_of

    if plan is None:
        if options["claims"]:
            raise DpoDiagError("--claims are decided on costs; give --cost NAME too.")
        return {}
    parameters = {"safety": safety_parameters(options, plan)}
    if options["claims"]:
        # groups by run name; the ranges of the costs bound what a mean can be
        parameters["training_seeds"] = {
            "groups": groups_of(checkpoints),
            "claims": read_claims(options["claims"]),
            "roles": roles_of(plan),
            "ranges": {cost.name: (cost.low, cost.high) for cost in plan.costs},
        }
    return parameters


def decided_claims(analysis: Any, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
    """The claims with their verdicts, none where no claims were given."""
    from dpo_diag.pipeline.claims import decided

    specs = parameters.get("training_seeds", {}).get("claims", ())
    return decided(analysis, specs) if specs else ()


def slices_from(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns of ``--slices``, empty where the analyzers choose."""
    given = options.get("slices") or ""
    return tuple(column.strip() for column in given.split(",") if column.strip())


def roles_of(plan: Any) -> dict[str, str]:
    """Role to cost name; the first cost of a role plays it."""
    return {cost.role: cost.name for cost in reversed(plan.costs)}
