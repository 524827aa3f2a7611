"""Values of methods over seeds: tables, intervals, paired differences; not a plug-in."""

import numpy as np
import pandas as pd
from scipy import stats

from dpo_diag.analyzers._rows import Statistic, interval_of
from dpo_diag.stats.compare import Difference, no_difference, paired_difference
from dpo_diag.stats.intervals import Interval

MAIN = "main"
_SHARE = "share of pairs"

# what the grid measures: unit and direction
STATISTICS = {
    s.name: s
    for s in (
        Statistic("mean_helpfulness", "helpfulness", "higher", is_share=False),
        Statistic("mean_cost", "cost", "lower", is_share=False),
        Statistic("trap_cost", "cost", "lower", is_share=False),
        Statistic("cost_cvar", "cost", "lower", is_share=False),
        Statistic("cost_max_confirmed", "cost", "lower", is_share=False),
        Statistic("benign_refusal_rate", "share of answers", "lower"),
        Statistic("unparsed_rate", "share of answers", "lower"),
        Statistic("reward_accuracy", _SHARE, "higher"),
        Statistic("reward_accuracy_shifted", _SHARE, "higher"),
        Statistic("ranking_accuracy", _SHARE, "higher"),
        Statistic("broken_rate", _SHARE, "lower"),
        Statistic("displacement_rate", _SHARE, "neither"),
        Statistic("win_rate:helpful", "share of answers", "higher"),
        Statistic("win_rate:cautious", "share of answers", "higher"),
        Statistic("win_rate:concise", "share of answers", "higher"),
        Statistic("win_rate:cyclic", "share of answers", "higher"),
        Statistic("worst_group_win_rate", "share of answers", "higher", is_share=False),
        Statistic("exploitability", "win rate above one half", "lower", is_share=False),
        Statistic("training_seconds", "CPU seconds", "lower", is_share=False),
    )
}


def table_of(values: pd.DataFrame, statistic: str, model: str) -> pd.DataFrame:
    """(units, seeds) values of one method, indexed by (unit_id, prompt_id).

    Units that some seed lacks are left out, so that every seed's mean is over the same units.
    """
    rows = values[(values["statistic"] == statistic) & (values["model_id"] == model)]
    if not len(rows):
        return pd.DataFrame(index=pd.MultiIndex.from_tuples([], names=["unit_id", "prompt_id"]))
    table = rows.pivot_table(
        index=["unit_id", "prompt_id"], columns="seed", values="value", aggfunc="mean"
    )
    return table.dropna().sort_index()


def is_whole(table: pd.DataFrame) -> bool:
    """Whether the number is one of the whole model, with no prompts behind it."""
    return len(table) == 1 and table.index[0][0] == ""


def seed_means(table: pd.DataFrame) -> np.ndarray:
    """(S,) the statistic of each seed."""
    return table.mean(axis=0).to_numpy(float) if len(table) else np.zeros(0)


def interval_over(table: pd.DataFrame, kind: Statistic, level: float) -> Interval:
    """Over prompts for the mean over seeds; over seeds for a number of the whole model."""
    if is_whole(table):
        means = seed_means(table)
        n, mean = len(means), float(means.mean())
        if n < 2:
            return Interval(mean, np.nan, np.nan, np.nan, n, n, "one seed: no interval", False)
        se = float(np.std(means, ddof=1) / np.sqrt(n))
        if se == 0.0:
            return Interval(mean, np.nan, np.nan, se, n, n, "all seeds equal: no interval", False)
        half = float(stats.t.isf((1.0 - level) / 2.0, n - 1)) * se
        return Interval(mean, mean - half, mean + half, se, n, n, "t over training seeds", False)
    unit_means = table.mean(axis=1).to_numpy(float) if table.shape[1] else np.zeros(0)
    return interval_of(kind, unit_means, _prompts(table), level)


def difference_of(
    first: pd.DataFrame, second: pd.DataFrame, *, level: float, seed: int, margin: float = 0.0
) -> tuple[Difference, np.ndarray]:
    """First method minus second plus ``margin``, and each seed of the first on its own.

    Args:
        first: as ``table_of`` gives it.
        second: of the method compared with; without columns it stands for 0.
        level: nominal coverage.
        seed: of the permutation check.
        margin: added to the second method's number.

    Returns:
        The difference (paired on units, prompt-clustered; Welch's t over seeds for numbers of the
        whole model, Student's where there is no second method) and (S,) each seed's own difference
        from the second's mean over its seeds.
    """
    if not len(first):
        return no_difference("no rows"), np.zeros(0)
    if is_whole(first):
        return _over_seeds(seed_means(first), seed_means(second), level, margin)
    against = second if second.shape[1] else first * 0.0
    shared = first.index.intersection(against.index).sort_values()
    if not len(shared):
        return no_difference("no row in both methods"), np.zeros(0)
    first, against = first.loc[shared], against.loc[shared]
    difference = paired_difference(
        first.mean(axis=1).to_numpy(float),
        against.mean(axis=1).to_numpy(float),
        _prompts(first),
        level=level,
        rng=np.random.default_rng(seed),
    )
    seeds = seed_means(first) - against.to_numpy(float).mean() - margin
    return moved(difference, margin), seeds


def _over_seeds(
    first: np.ndarray, second: np.ndarray, level: float, margin: float
) -> tuple[Difference, np.ndarray]:
    """``second`` is empty where the first is compared with the margin itself."""
    seeds = first - (second.mean() if len(second) else 0.0) - margin
    estimate = float(seeds.mean() + margin)
    sides = [side for side in (first, second) if len(side)]
    n = sum(len(side) for side in sides)
    name = "Welch's t" if len(sides) == 2 else "t"
    row = no_difference("too few seeds")._replace(
        estimate=estimate - margin, n=n, n_clusters=n, method=f"{name} over training seeds"
    )
    squares = [np.var(side, ddof=1) / len(side) if len(side) > 1 else np.nan for side in sides]
    se = float(np.sqrt(sum(squares)))
    if not se > 0:
        return row, seeds
    df = se**4 / sum(s**2 / (len(side) - 1) for s, side in zip(squares, sides, strict=True))
    half = float(stats.t.isf((1.0 - level) / 2.0, df)) * se
    p_value = float(2.0 * stats.t.sf(abs(estimate) / se, df)) if not margin else np.nan
    found = row._replace(
        low=row.estimate - half, high=row.estimate + half, p_value=p_value, se=se, df=df, flag=""
    )
    return found, seeds


def moved(difference: Difference, margin: float) -> Difference:
    """The difference from the second number plus a margin; the test was of no difference."""
    if not margin:
        return difference
    return difference._replace(
        estimate=difference.estimate - margin,
        low=difference.low - margin,
        high=difference.high - margin,
        p_value=np.nan,
    )


def _prompts(table: pd.DataFrame) -> np.ndarray:
    return table.index.get_level_values("prompt_id").to_numpy()
