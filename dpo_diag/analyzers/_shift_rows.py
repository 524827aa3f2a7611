"""Rows of the off-distribution analysis: one model's scored pairs, its sets and kinds of shift.

Not a plug-in. Start reading at ``gathered`` (tables to rows of all models), then ``score``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _pairs, _rows, _shift_covariates, _shift_scores
from dpo_diag.analyzers._base import Tables, finding
from dpo_diag.analyzers._rows import Statistic

NAME = "ood"
UNSPECIFIED = "unspecified"
KINDS = ("prompt", "domain", "response_source", "token_level", UNSPECIFIED)
OPTIONAL_COLUMNS = (
    "stratum",
    "group_id",
    "shift_kind",
    "explicit_reward_chosen",
    "explicit_reward_rejected",
)
_DISTANCE_COLUMNS = ("distance", "seen_share", "prompt_surprise")


class Scored(NamedTuple):
    """One model's rows with everything that is known of each pair.

    Attributes:
        rows: ImplicitRewards columns, a column per statistic and covariate, 0 to n - 1.
        inside: (n,) mask of the in-distribution rows.
        clusters: (n,) integer prompt codes; a prompt of two sets has one code.
        kinds: kind of shift -> its sets, in the order of ``KINDS``.
        flag: what speaks against the in-distribution rows.
        is_final: whether the rows are a final model's, not a step's.
    """

    rows: pd.DataFrame
    inside: np.ndarray
    clusters: np.ndarray
    kinds: dict[str, list[str]]
    flag: str
    is_final: bool

    @property
    def domains(self) -> list[str]:
        """The shifted sets, by name."""
        return sorted(domain for members in self.kinds.values() for domain in members)

    def members(self, label: str) -> list[str]:
        """The shifted sets behind a slice: ``domain=...``, ``kind=...`` or ``all``."""
        column, _, value = label.partition("=")
        if column == "kind":
            return self.kinds[value]
        return [value] if column == "domain" else self.domains


def gathered(tables: Tables, match: Sequence[str]) -> pd.DataFrame:
    """ImplicitRewards with every column of the pairs and of the prompts that the analysis reads."""
    pairs = tables.get("PreferencePairs")
    if pairs is not None and {"chosen", "rejected"} <= set(pairs.columns):
        pairs = pairs.assign(answer_overlap=_shift_covariates.answer_overlap(pairs))
    columns = (*OPTIONAL_COLUMNS, *match, "answer_overlap")
    frame = _pairs.with_pair_columns(tables["ImplicitRewards"], pairs, columns)
    distances = tables.get("PromptDistances")
    if distances is None or not len(distances):
        return frame
    key = ["reference_id", "prompt_id"]
    if distances["reference_id"].nunique() == 1:  # serves models without a reference as well
        key = ["prompt_id"]
    kept = distances[[*key, *_DISTANCE_COLUMNS]].drop_duplicates(key)
    return frame.merge(kept, on=key, how="left")


def kinds_of(frame: pd.DataFrame, in_domain: str) -> dict[str, list[str]]:
    """Kind of shift -> names of its sets; a set without a kind is ``unspecified``.

    A set with pairs of several kinds counts as the kind of most of them, the first in the order of
    ``KINDS`` where two are as many.
    """
    shifted = frame[frame["domain"] != in_domain]
    given = np.full(len(shifted), "", dtype=object)
    if "shift_kind" in shifted.columns:
        given = _rows.as_text(shifted["shift_kind"])
    given = np.where(np.isin(given, KINDS), given, UNSPECIFIED)
    found: dict[str, list[str]] = {}
    counts = pd.crosstab(shifted["domain"].to_numpy(), given)
    for domain in sorted(counts.index):
        row = counts.loc[domain]
        kind = max(
            (k for k in KINDS if k in row.index), key=lambda k, row=row: (row[k], -KINDS.index(k))
        )
        found.setdefault(kind, []).append(str(domain))
    return {kind: found[kind] for kind in KINDS if kind in found}


def score(model: pd.DataFrame, in_domain: str, *, gold_gap: float) -> Scored:
    """A model's rows scored; in-distribution pairs that it was trained on left out if possible.

    Args:
        model: (n,) rows of ``gathered`` of one model.
        in_domain: value of ``domain`` that is the in-distribution set.
        gold_gap: see ``_pairs.pair_columns``.
    """
    columns = _shift_scores.ood_columns(model, gold_gap=gold_gap)
    columns = pd.concat([columns, _shift_covariates.covariates(model)], axis=1)
    kept = [c for c in model.columns if c not in columns.columns]
    rows = pd.concat([model[kept], columns], axis=1)
    inside, flag = (rows["domain"] == in_domain).to_numpy(), ""
    trained = inside & (rows["split"] == "train").to_numpy()
    if trained.any():
        if (inside & ~trained).any():
            rows = rows[~trained].reset_index(drop=True)
            inside = (rows["domain"] == in_domain).to_numpy()
        else:
            flag = "in-distribution pairs were trained on"
    is_final = not (rows["step"] != -1).any()
    clusters = pd.factorize(rows["prompt_id"])[0]
    return Scored(rows, inside, clusters, kinds_of(rows, in_domain), flag, is_final)


def row_of(
    statistic: Statistic,
    model_id: str,
    label: str,
    interval: Any,
    params: Any,
    reasons: Sequence[str],
) -> dict[str, Any]:
    """A finding of the analyzer from an interval or a difference."""
    return finding(
        NAME,
        statistic.name,
        model_id,
        params=params,
        slice=label,
        unit=statistic.unit,
        better=statistic.better,
        flag=_rows.flags_of(interval, *reasons),
        **_rows.estimate_columns(interval, params.ci_level),
    )


def ties_flag(rows: pd.DataFrame) -> str:
    """What ties speak against a model's rows."""
    if not len(rows):
        return ""
    if rows["tie_share"].eq(1.0).all():
        return "policy equals reference: every margin is 0"
    return "ties>20%" if rows["tie_share"].mean() > 0.2 else ""
