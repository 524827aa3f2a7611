"""Preference data looked over before training: every check, ranked, as findings and a report.

Start reading at ``check_pairs``. Without a base model nothing here runs a model.
"""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dpo_diag import __version__, registry
from dpo_diag.analyzers._base import finding, findings_frame
from dpo_diag.analyzers._rows import estimate_columns, flags_of
from dpo_diag.checkpoints import Checkpoint
from dpo_diag.errors import DataError
from dpo_diag.pair_checks._base import CONCERNS, Checked, Measure, PairData
from dpo_diag.pairs import EveryPair, PairSet, frame_hash
from dpo_diag.pipeline.analyze import versions
from dpo_diag.pipeline.score import score_models
from dpo_diag.pipeline.states import state_rows
from dpo_diag.pipeline.work import EngineChoice, Work
from dpo_diag.reporting.cases import TEXT_COLUMNS
from dpo_diag.reporting.document import DataEntry, ModelEntry, ReportInput, Section
from dpo_diag.tables import CASES, SPECS, empty, write_table

FAMILY = "pair_checks"
OPENING = 400  # characters of an answer in which a refusal is looked for
EXAMPLES_SHOWN = 2  # of each check on the screen; the report has more


@dataclass(frozen=True)
class CheckedPairs:
    """What the checks found.

    Attributes:
        pairs: what was checked, the evaluation pairs given besides included.
        data: what the checks saw.
        found: check -> what it found, the most pressing first.
        n_own: rows of the data themselves; those after them are the evaluation pairs.
        n_unread: rows of the data themselves that make no pair.
        base: the model whose rows were used, if any.
        seed: of samples and folds.
    """

    pairs: EveryPair
    data: PairData
    found: Mapping[str, Checked]
    n_own: int
    n_unread: int
    base: Checkpoint | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        """The data's name, for tables."""
        return Path(self.pairs.source).name or self.pairs.source

    def said(self) -> str:
        """What was looked at, one sentence."""
        splits = self.pairs.frame["split"].value_counts()
        parts = ", ".join(f"{name} {n:,}" for name, n in splits.items())
        n_prompts = self.pairs.frame["prompt_id"].nunique()
        n_read = sum(bool(found.measures) for found in self.found.values())
        return (
            f"{self.pairs.source}: {self.data.n:,} pairs on {n_prompts:,} prompts ({parts}), "
            f"{n_read} of {len(self.found)} checks made."
        )


@dataclass(frozen=True)
class BaseModel:
    """The model that training is to start from, and how to run it."""

    checkpoint: Checkpoint
    choice: EngineChoice
    work: Work


def check_pairs(
    pairs: EveryPair,
    test: EveryPair | None = None,
    *,
    base: BaseModel | None = None,
    more: Mapping[str, pd.DataFrame] | None = None,
    beta: float = 0.1,
    seed: int = 0,
) -> CheckedPairs:
    """Every check of the family on some pairs.

    Args:
        pairs: to train on, with or without evaluation splits.
        test: further evaluation pairs; all of them count as the split ``test``.
        base: whose log-probs and states are measured; None leaves those checks out.
        more: further tables by the name of their spec, e.g. ReversalPredictions.
        beta: of the planned run, above 0.
        seed: of samples and folds.

    Raises:
        DataError: beta is not above 0.
        CheckpointError, EngineError: as scoring.
    """
    if not beta > 0:
        raise DataError(f"--beta must be above 0, got {beta:g}.")
    whole = pairs if test is None else joined(pairs, test)
    tables = dict(more or {})
    if base is not None:
        tables |= model_tables(whole, base)
    data = PairData(whole.frame, tables, whole.unread, _refusals(whole.frame), beta=beta)
    found = {
        name: registry.load(FAMILY, name)().run(data, np.random.default_rng(seed))
        for name in registry.names(FAMILY)
    }
    ranked = sorted(found, key=lambda k: (CONCERNS.index(found[k].concern), -found[k].weight, k))
    checkpoint = base.checkpoint if base is not None else None
    ordered = {name: found[name] for name in ranked}
    return CheckedPairs(whole, data, ordered, len(pairs.frame), len(pairs.unread), checkpoint, seed)


def joined(pairs: EveryPair, test: EveryPair) -> EveryPair:
    """Both sets as one; every row of the second is of the split ``test``."""
    second = test.frame.assign(split="test", row=test.frame["row"] + len(pairs.frame))
    frame = pd.concat([pairs.frame, second], ignore_index=True)
    return dataclasses.replace(
        pairs,
        frame=frame,
        notes=(*pairs.notes, *test.notes),
        unread=(*pairs.unread, *test.unread),
        content_hash=frame_hash(frame, "row"),
    )


def model_tables(pairs: EveryPair, base: BaseModel) -> dict[str, pd.DataFrame]:
    """ScoredPairs and PairStates of a base model on every pair that can be scored.

    Raises:
        DataError: no pair can be scored.
    """
    frame = pairs.frame[PairData(pairs.frame).is_usable].drop_duplicates("pair_id")
    if frame.empty:
        raise DataError(f"{pairs.source}: no pair with two different answers to score.")
    frame = frame.drop(columns=["row", "place"]).reset_index(drop=True)
    usable = PairSet(
        frame, pairs.format, pairs.source, (), {"n_pairs": len(frame)}, frame_hash(frame, "pair_id")
    )
    return {
        "ScoredPairs": score_models([base.checkpoint], usable, base.choice, base.work),
        "PairStates": state_rows(base.checkpoint, usable, base.choice, base.work),
    }


def report_of(checked: CheckedPairs, *, commands: Sequence[str] = ()) -> ReportInput:
    """Everything a report of the checks is rendered from, the most pressing check first."""
    shown = [name for name, found in checked.found.items() if found.measures]
    return ReportInput(
        title=f"Preference pairs before training: {checked.name}",
        findings=findings_frame(
            [row for name in shown for row in _findings(name, checked.found[name], checked)]
        ),
        cases=_cases(checked),
        models=_models(checked),
        data=(_data_entry(checked),),
        sections=tuple(_section(name, checked.found[name], checked) for name in shown),
        notes=tuple(f"{f.concern}: {n}: {f.summary}" for n, f in checked.found.items()),
        commands=tuple(commands),
        versions=versions(),
        settings={"seed": str(checked.seed), "beta": f"{checked.data.beta:g}"},
    )


def advice_of(found: Checked, checked: CheckedPairs) -> str:
    """What to do, with the names that were given on the command line."""
    model = str(checked.base.model.path) if checked.base is not None else "BASE"
    advice = found.advice.replace("{data}", shlex.quote(checked.pairs.source))
    return advice.replace("{model}", shlex.quote(model))


def first_cases(found: Checked, checked: CheckedPairs) -> list[tuple[str, dict[str, str]]]:
    """The gravest case of each kind: its line, and the texts of its row."""
    first = {case.kind: case for case in reversed(found.cases)}
    kinds = list(dict.fromkeys(case.kind for case in found.cases))[:EXAMPLES_SHOWN]
    rows = checked.pairs.frame
    return [
        (
            first[kind].note,
            {name: rows[name].iloc[first[kind].row] for name in ("prompt", "chosen", "rejected")},
        )
        for kind in kinds
    ]


def write_rows(folder: Path, checked: CheckedPairs) -> list[Path]:
    """The pairs as they stand, the base model's tables and the list of flagged rows."""
    provenance = {"dpo_diag": __version__, "pairs": checked.pairs.content_hash}
    tables = {"PairRows": checked.pairs.frame, **checked.data.tables}
    paths = [
        write_table(frame, folder / f"{name}.parquet", SPECS[name], provenance)
        for name, frame in tables.items()
    ]
    path = folder / "FlaggedRows.parquet"
    flagged_rows(checked).to_parquet(path, index=False)
    return [*paths, path]


def flagged_rows(checked: CheckedPairs) -> pd.DataFrame:
    """Every row that a repair would leave out: row, place, pair_id, reason; one line a reason."""
    rows = checked.pairs.frame[["row", "place", "pair_id"]]
    parts = [
        rows[mask].assign(reason=reason)
        for found in checked.found.values()
        for reason, mask in found.drops.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else rows[:0].assign(reason="")


def _refusals(frame: pd.DataFrame) -> np.ndarray:
    """Which chosen and which rejected answers decline, (2, n) bool, by how they open."""
    both = pd.concat([frame["chosen"], frame["rejected"]], ignore_index=True)
    codes, texts = pd.factorize(both)
    cost = registry.build("costs", "refusal", {})
    openings = [text[:OPENING] for text in texts]
    declines = np.asarray(cost.cost([""] * len(texts), openings), float) > 0.5
    return declines[codes].reshape(2, -1)


def _findings(name: str, found: Checked, checked: CheckedPairs) -> list[dict]:
    about = _about(name, checked)
    level = checked.data.ci_level
    return [_finding(name, about, measure, level) for measure in found.measures]


def _finding(name: str, about: str, measure: Measure, level: float) -> dict:
    return finding(
        name,
        measure.statistic,
        about,
        slice=measure.part,
        unit=measure.unit,
        better=measure.better,
        flag=flags_of(measure.interval, measure.flag if measure.interval.n else ""),
        p_value=measure.p_value,
        p_adjusted=measure.p_adjusted,
        **estimate_columns(measure.interval, level),
    )


def _about(name: str, checked: CheckedPairs) -> str:
    """The model a check is about, the data's name where it is about none."""
    is_about_model = registry.load(FAMILY, name).about_model and checked.base is not None
    return checked.base.model.model_id if is_about_model else checked.name


def _cases(checked: CheckedPairs) -> pd.DataFrame:
    """CASES with the texts of each row; one case per check, kind and pair."""
    frame, rows = checked.pairs.frame, []
    for name, found in checked.found.items():
        for case in found.cases:
            line = frame.iloc[case.row]
            rows.append(
                {
                    "analyzer": name,
                    "kind": case.kind,
                    "model_id": _about(name, checked),
                    "row_key": line["pair_id"],
                    "severity": case.severity,
                    "note": case.note,
                    **{column: line[column] for column in ("prompt", "chosen", "rejected")},
                    "response": "",
                }
            )
    if not rows:
        return empty(CASES).assign(**{column: "" for column in TEXT_COLUMNS})
    return pd.DataFrame(rows).drop_duplicates(list(CASES.key), ignore_index=True)


def _section(name: str, found: Checked, checked: CheckedPairs) -> Section:
    check = registry.load(FAMILY, name)
    advice = advice_of(found, checked)
    notes = (
        f"{found.concern}: {found.summary}",
        *((f"What to do: {advice}",) if advice else ()),
        *found.notes,
    )
    return Section(name, check.question, check.reading, check.misleads, notes, check.headline)


def _models(checked: CheckedPairs) -> tuple[ModelEntry, ...]:
    if checked.base is None:
        return ()
    model, scored = checked.base.model, checked.data.tables["ScoredPairs"]
    engine, dtype = (str(scored[column].iloc[0]) for column in ("engine", "dtype"))
    return (ModelEntry(model.model_id, model.name, model.fingerprint, engine=engine, dtype=dtype),)


def _data_entry(checked: CheckedPairs) -> DataEntry:
    pairs = checked.pairs
    note = " ".join(pairs.notes)
    n = len(pairs.frame)
    return DataEntry("pairs", pairs.source, pairs.format, n, pairs.content_hash, note)
