"""Whom does the model serve when judges disagree, and how easily is it beaten?

Every answer was put before several oracles (groups of annotators) against those of a named
opponent. With ``w_g(x)`` the chance at prompt x that an answer of the model is preferred to one of
the opponent by group g: ``win_rate`` of a group is its mean over prompts (slice ``oracle=g``; slice
``all`` is the mean of the groups); ``worst_group_win_rate`` the least of the groups' win rates;
``group_gap`` the largest less the least; ``divided_rate`` the share of prompts at which one group
prefers the model and another the opponent. ``exploitability_models`` is the best other model's win
rate against the model, above 1/2, ``exploitability_pool`` the same for the best single answer out
of everybody's answers to the prompt; both were picked on other prompts or samples than they are
measured on, per group and for the mean of groups.

Misleads: the least of several noisy win rates is too low, the gap too large (their limits are
simultaneous over the groups and hold); an exploitability counts only the deviations that were
offered, so it is a lower bound in expectation and a small one proves nothing; the answer picked
from the pool knows the oracle, and a policy could hardly do as well on every prompt.

Source: the gap against the best deviation is that of MNPO, arXiv 2509.23102, section on the duality
gap (second-hand); the worst group as a goal is that of group-robust preference optimisation (from
memory, unverified); estimators ours. Start reading at ``Pluralism.run``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _compare, _rows
from dpo_diag.analyzers._base import (
    Analyzer,
    AnalyzerResult,
    Figure,
    Tables,
    finding,
    findings_frame,
)
from dpo_diag.errors import TableError
from dpo_diag.stats.group_rates import group_gap, is_divided, worst_group
from dpo_diag.stats.intervals import Interval, clustered_mean
from dpo_diag.tables import CASES, empty

NAME = "pluralism"
MEAN = "mean"
AGAINST = "against"
WIN_RATE = _rows.Statistic("win_rate", "share of comparisons won", "higher", is_share=False)
DIVIDED = _rows.Statistic("divided_rate", "share of prompts", "neither")
# kind of row -> the statistic that it feeds
EXPLOITABILITY = {
    "best_model": _rows.Statistic(
        "exploitability_models", "win probability above one half", "lower", is_share=False
    ),
    "best_of_pool": _rows.Statistic(
        "exploitability_pool", "win probability above one half", "lower", is_share=False
    ),
}


@dataclass(frozen=True)
class Parameters:
    """Options of the analysis.

    Attributes:
        baseline_id: model the others are compared with, empty for none.
        ci_level: nominal coverage, in (0, 1).
        opponent_id: opponent of the win rates; may be empty where there is one only.
        n_cases: most divided prompts listed per model.
    """

    baseline_id: str = ""
    ci_level: float = 0.95
    opponent_id: str = ""
    n_cases: int = 10


FIGURES = (
    Figure(
        name="group_win_rates",
        kind="intervals",
        curve="win_rate",
        x_label="share of comparisons won against the opponent",
        y_label="group of judges",
        title="Whose preference the model meets: win rate by group",
    ),
    Figure(
        name="worst_group",
        kind="scatter",
        curve="win_rate|worst_group_win_rate",
        x_label="win rate, mean of groups",
        y_label="win rate, worst group",
        title="The mean of groups against the worst group",
    ),
    Figure(
        name="exploitability",
        kind="intervals",
        curve="exploitability_pool",
        x_label="win probability above one half of the best answer in the pool",
        y_label="group of judges",
        title="How easily the model is beaten, by group",
    ),
)


class Pluralism(Analyzer):
    """Win rates by group, the worst group, disagreement, exploitability; see the module."""

    question: ClassVar[str] = "Whom does the model serve when judges disagree?"
    reading: ClassVar[str] = (
        "Read the worst group beside the mean: a model can gain on average by losing one group."
    )
    misleads: ClassVar[str] = (
        "Exploitability counts only the deviations that were offered; a small one proves nothing."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "WinRates": ("model_id", "kind", "opponent_id", "oracle", "prompt_id", "win_rate")
    }
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = (
        "win_rate",
        "worst_group_win_rate",
        "group_gap",
        "divided_rate",
        "exploitability_models",
        "exploitability_pool",
    )

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Findings and the most divided prompts of every model in WinRates."""
        self.check(tables)
        seed = int(rng.integers(2**63))
        wins = tables["WinRates"]
        models = sorted(wins["model_id"].unique())
        _rows.check_baseline(NAME, models, params.baseline_id)
        opponent = _opponent(wins, params.opponent_id)
        oracles = sorted(set(wins["oracle"]) - {MEAN})
        by_model = {
            model: _columns(wins[wins["model_id"] == model], opponent, oracles) for model in models
        }
        rows: list[dict[str, Any]] = []
        cases: list[dict[str, Any]] = []
        for model, columns in by_model.items():
            rows += _means(model, columns, oracles, params)
            rows += _over_groups(model, columns["win_rate"], oracles, params)
            cases += _divided_prompts(model, columns["win_rate"], oracles, params.n_cases)
        rows += _comparisons(by_model, oracles, params, seed)
        return AnalyzerResult(
            findings=findings_frame(rows),
            cases=pd.DataFrame(cases) if cases else empty(CASES),
            figures=FIGURES,
            notes=_notes(wins, opponent, by_model, oracles),
        )


def _opponent(wins: pd.DataFrame, wanted: str) -> str:
    known = sorted(wins.loc[wins["kind"] == AGAINST, "opponent_id"].unique())
    if wanted and wanted not in known:
        raise TableError(
            f"{NAME}: WinRates has no opponent {wanted!r}; it has {', '.join(known) or 'none'}."
        )
    if not wanted and len(known) > 1:
        raise TableError(
            f"{NAME}: WinRates has several opponents ({', '.join(known)}); give opponent_id."
        )
    return wanted or (known[0] if known else "")


def _columns(wins: pd.DataFrame, opponent: str, oracles: list[str]) -> dict[str, pd.DataFrame]:
    """Statistic to its values, prompts in rows, an oracle (and the mean) per column."""

    def wide(rows: pd.DataFrame) -> pd.DataFrame:
        table = rows.pivot(index="prompt_id", columns="oracle", values="win_rate")
        return table.reindex(columns=[*oracles, MEAN]).sort_index().astype(float)

    kind = wins["kind"]
    found = {"win_rate": wide(wins[(kind == AGAINST) & (wins["opponent_id"] == opponent)])}
    for name, statistic in EXPLOITABILITY.items():
        found[statistic.name] = 0.5 - wide(wins[kind == name])
    return found


def _means(
    model: str, columns: Mapping[str, pd.DataFrame], oracles: list[str], params: Parameters
) -> list[dict[str, Any]]:
    rows = []
    for statistic in (WIN_RATE, *EXPLOITABILITY.values()):
        table = columns[statistic.name]
        for oracle in (MEAN, *oracles):
            values = table[oracle].to_numpy(float)
            interval = clustered_mean(values, np.arange(len(values)), level=params.ci_level)
            rows.append(_finding(statistic, model, oracle, interval, params))
    return rows


def _over_groups(
    model: str, table: pd.DataFrame, oracles: list[str], params: Parameters
) -> list[dict[str, Any]]:
    rates = table[oracles].to_numpy(float)
    level = params.ci_level
    divided = is_divided(rates)
    worst = _rows.Statistic("worst_group_win_rate", WIN_RATE.unit, "higher", is_share=False)
    gap = _rows.Statistic("group_gap", "difference of shares", "lower", is_share=False)
    found = (
        (worst, worst_group(rates, level=level)),
        (gap, group_gap(rates, level=level)),
        (DIVIDED, _rows.interval_of(DIVIDED, divided, np.arange(len(divided)), level)),
    )
    return [_finding(statistic, model, MEAN, interval, params) for statistic, interval in found]


def _finding(
    statistic: _rows.Statistic, model: str, oracle: str, interval: Interval, params: Parameters
) -> dict[str, Any]:
    no_spread = "no limits" if interval.n > 1 and np.isnan(interval.low) else ""
    return finding(
        NAME,
        statistic.name,
        model,
        params=params,
        slice="all" if oracle == MEAN else f"oracle={oracle}",
        unit=statistic.unit,
        better=statistic.better,
        flag=_rows.flags_of(interval, no_spread),
        **_rows.estimate_columns(interval, params.ci_level),
    )


def _divided_prompts(
    model: str, table: pd.DataFrame, oracles: list[str], n_cases: int
) -> list[dict[str, Any]]:
    rates = table[oracles]
    if len(oracles) < 2:
        return []
    spread = (rates.max(axis=1) - rates.min(axis=1))[is_divided(rates.to_numpy(float)) == 1.0]
    worst = spread.sort_values(ascending=False, kind="stable").head(n_cases)
    return [
        {
            "analyzer": NAME,
            "kind": "divided_prompt",
            "model_id": model,
            "row_key": prompt_id,
            "severity": float(severity),
            "note": ", ".join(f"{oracle} {rates.loc[prompt_id, oracle]:.2f}" for oracle in oracles),
        }
        for prompt_id, severity in worst.items()
    ]


def _comparisons(
    by_model: Mapping[str, Mapping[str, pd.DataFrame]],
    oracles: list[str],
    params: Parameters,
    seed: int,
) -> list[dict[str, Any]]:
    """Differences from the baseline on the same prompts: one family of means, one of groups."""
    families = []
    for chosen in ((MEAN,), tuple(oracles)):
        family: list[_compare.Comparison] = []
        for oracle in chosen:
            scored = {model: _one_oracle(columns, oracle) for model, columns in by_model.items()}
            family += _compare.paired_family(
                NAME,
                [WIN_RATE, *EXPLOITABILITY.values()],
                scored,
                params=params,
                seed=seed,
                label="all" if oracle == MEAN else f"oracle={oracle}",
            )
        families += _compare.judge(family, params.ci_level)
    return families


def _one_oracle(columns: Mapping[str, pd.DataFrame], oracle: str) -> pd.DataFrame:
    table = pd.DataFrame({name: frame[oracle] for name, frame in columns.items()})
    return table.assign(prompt_id=table.index)


def _notes(
    wins: pd.DataFrame,
    opponent: str,
    by_model: Mapping[str, Mapping[str, pd.DataFrame]],
    oracles: list[str],
) -> tuple[str, ...]:
    notes = [f"Win rates are against {opponent}."] if opponent else []
    for model, columns in by_model.items():
        means = columns["win_rate"][oracles].mean()
        if means.max() - means.min() > 1e-9:  # equal groups have no worst one
            notes.append(f"{model}: the worst group is {means.idxmin()}.")
    if len(oracles) == 1:
        notes.append("One oracle only: there is no disagreement to see.")
    n_missing = int(wins["win_rate"].isna().sum())
    if n_missing:
        notes.append(f"{n_missing} of {len(wins)} win rates are missing: an oracle abstained.")
    return tuple(notes)


ANALYZER = Pluralism
