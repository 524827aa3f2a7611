"""What does each training method buy, over training seeds, against the method compared with?

The rows hold one value per method, seed and prompt (or pair), all methods on the same prompts. Two
variances are kept apart. The interval of a method's number is over prompts, for these seeds: a
prompt's value is first averaged over the seeds. ``seed_sd_...`` beside it is the standard deviation
over seeds of the whole number. A number of the whole model (CVaR, the confirmed worst prompt, the
least content group) has no prompts behind it: its interval is Student's over the seeds.

A difference between two methods is paired on prompts and on seeds, and its error holds both: the
spread over prompts and that over seeds, with degrees of freedom that count few seeds for what they
are (``two_way``). It is called ``better`` or ``worse`` by Holm's p-value over all methods; a claim
is decided by an interval of the same kind, all claims at once (Bonferroni): see
``_method_claims``.

Misleads: five seeds say little about the spread over all seeds, and the error allows for that, so
that small true differences often come out as not distinguishable; the base model and the data are
the same for all, so nothing here speaks for other ones.

Source: Miller 2411.00640 (paired, clustered differences); statistics.md on seeds as a second
level. Start reading at ``difference_of``.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _rows
from dpo_diag.analyzers._base import Analyzer, AnalyzerResult, Figure, Tables, findings_frame
from dpo_diag.analyzers._base import finding as _finding
from dpo_diag.analyzers._compare import comparison, judge
from dpo_diag.analyzers._method_claims import MethodClaim, claim_row
from dpo_diag.analyzers._method_values import (
    MAIN,
    STATISTICS,
    bound_of,
    difference_of,
    interval_over,
    is_whole,
    seed_means,
    table_of,
)

NAME = "methods"


@dataclass(frozen=True)
class Parameters:
    """What is compared.

    Attributes:
        baseline_id: method that the others are compared with, empty for none.
        ci_level: nominal coverage, in (0, 1).
        claims: what to decide.
    """

    baseline_id: str = ""
    ci_level: float = 0.95
    claims: tuple[MethodClaim, ...] = ()


@dataclass(frozen=True)
class _Recorded:
    ci_level: float


class Methods(Analyzer):
    """Numbers, seed spread, differences and claims of training methods."""

    question: ClassVar[str] = "What does each training method buy, and what does it cost?"
    reading: ClassVar[str] = (
        "Each number is a mean over seeds and prompts; its interval is over prompts for these "
        "seeds. seed_sd is the spread of the whole number over seeds. Differences are paired on "
        "prompts and seeds, and their intervals hold the chance of both."
    )
    misleads: ClassVar[str] = (
        "One base model and one data set: seeds of the training vary, these do not. With few seeds "
        "a small true difference is seldom distinguishable."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "MethodValues": ("model_id", "arm", "seed", "statistic", "unit_id", "prompt_id", "value"),
    }
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = ("mean_helpfulness", "mean_cost")

    def run(self, tables: Tables, params: Any, rng: np.random.Generator) -> AnalyzerResult:
        """Numbers of every method, differences from the baseline, decisions on the claims."""
        self.check(tables)
        values = tables["MethodValues"]
        models = sorted(values["model_id"].unique())
        wanted = [*STATISTICS, *sorted(set(values["statistic"]) - set(STATISTICS))]
        arms = sorted({MAIN, *values["arm"]}, key=lambda arm: (arm != MAIN, arm))
        rows, families = [], []
        for arm in arms:
            part = values[values["arm"] == arm]
            for statistic in wanted:
                own = {m: table_of(part, statistic, m) for m in models}
                if arm == MAIN or any(len(table) for table in own.values()):
                    rows += _own_rows(statistic, own, arm, params)
                    families.append(_family(statistic, own, arm, params))
        for family in families:
            rows += family
        notes = []
        level = 1.0 - (1.0 - params.ci_level) / max(len(params.claims), 1)
        for claim in params.claims:
            row, note = claim_row(NAME, claim, values, level=level)
            rows.append(row)
            notes.append(note)
        return AnalyzerResult(
            findings=findings_frame(rows), figures=_FIGURES, notes=tuple(filter(None, notes))
        )


_FIGURES = (
    Figure(
        "methods_safety",
        "scatter",
        "mean_helpfulness|cost_max_confirmed",
        "gold helpfulness, mean over prompts",
        "gold harm of the confirmed worst prompt",
        "What safety at the worst prompt costs in helpfulness",
    ),
    Figure(
        "methods_mean",
        "scatter",
        "mean_helpfulness|mean_cost",
        "gold helpfulness, mean over prompts",
        "gold harm, mean over prompts",
        "Helpfulness and harm in the mean",
    ),
)

ANALYZER = Methods


def _label(arm: str) -> str:
    return "all" if arm == MAIN else f"flipped labels={arm}"


def _own_rows(
    statistic: str, own: Mapping[str, pd.DataFrame], arm: str, params: Any
) -> list[dict[str, Any]]:
    kind, recorded = STATISTICS.get(statistic, _UNKNOWN), _Recorded(params.ci_level)
    rows = []
    for model, table in own.items():
        interval = interval_over(table, kind, params.ci_level)
        common = {"slice": _label(arm), "unit": kind.unit, "params": recorded}
        rows.append(
            _finding(
                NAME,
                statistic,
                model,
                **common,
                better=kind.better,
                flag=_flags(interval, table),
                **_rows.estimate_columns(interval, params.ci_level),
            )
        )
        means = seed_means(table)
        several = len(means) > 1
        rows.append(
            _finding(
                NAME,
                f"seed_sd_{statistic}",
                model,
                **common,
                better="neither",
                estimate=float(np.std(means, ddof=1)) if several else np.nan,
                method="standard deviation over training seeds",
                n=len(means),
                n_clusters=len(means),
                flag="" if several else "fewer than two seeds: no spread",
            )
        )
    return rows


_UNKNOWN = _rows.Statistic("", "value", "neither", is_share=False)


def _flags(interval: Any, table: pd.DataFrame) -> str:
    if interval.n == 0:
        return "no rows"
    return "fewer than two seeds" if table.shape[1] < 2 else ""


def _family(
    statistic: str, own: Mapping[str, pd.DataFrame], arm: str, params: Any
) -> list[dict[str, Any]]:
    """Every method against the baseline on one statistic, Holm over the methods."""
    if params.baseline_id not in own:
        return []
    kind = dataclasses.replace(STATISTICS.get(statistic, _UNKNOWN), name=statistic)
    entries = []
    for model, table in own.items():
        if model == params.baseline_id:
            continue
        difference, _ = difference_of(
            table, own[params.baseline_id], level=params.ci_level, bound=bound_of(statistic)
        )
        entry = comparison(
            NAME,
            kind,
            model,
            params.baseline_id,
            difference=difference,
            params=_Recorded(params.ci_level),
            label=_label(arm),
        )
        if is_whole(table):  # seeds are what is few there, not prompts
            entry.row["flag"] = difference.flag
        entries.append(entry)
    return judge(entries, params.ci_level)
