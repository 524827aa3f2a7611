"""Values of methods over seeds: tables, intervals, paired differences; not a plug-in."""

import numpy as np
import pandas as pd
from scipy import stats

from dpo_diag.analyzers._rows import Statistic, interval_of
from dpo_diag.stats.compare import Difference, no_difference
from dpo_diag.stats.intervals import Interval, clustered_mean

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
        Statistic("gold_reward_accuracy", _SHARE, "higher"),
        Statistic("gold_reward_accuracy_shifted", _SHARE, "higher"),
        Statistic("gold_ranking_accuracy", _SHARE, "higher"),
        Statistic("gold_broken_rate", _SHARE, "lower"),
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
    found = interval_of(kind, unit_means, _prompts(table), level)
    # a unit's mean over seeds varies less than a vote of its own: the exact interval is then wide
    averaged = found.method.replace("ties one half", "conservative for means over seeds")
    return found._replace(method=averaged)


def bound_of(statistic: str) -> float:
    """Largest absolute difference that the statistic can have: shares and scores lie in [0, 1]."""
    return np.inf if statistic == "training_seconds" or statistic not in STATISTICS else 1.0


def difference_of(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    level: float,
    margin: float = 0.0,
    bound: float = np.inf,
) -> tuple[Difference, np.ndarray]:
    """First method minus second plus ``margin``, and each seed of it on its own.

    Args:
        first: as ``table_of`` gives it.
        second: of the method compared with; without columns it stands for 0.
        level: nominal coverage.
        margin: added to the second method's number.
        bound: largest absolute difference that is possible; few seeds would promise more.

    Returns:
        The difference, paired on units and seeds (see ``two_way``), or Welch's t over seeds for
        numbers of the whole model; and (S,) each seed's own difference.
    """
    if not len(first):
        return no_difference("no rows"), np.zeros(0)
    is_value = not second.shape[1]
    if is_whole(first):
        against = np.zeros(0) if is_value else seed_means(second)
        found, seeds = _over_seeds(seed_means(first), against, level, margin)
        return _within(found, -bound - margin, bound - margin), seeds
    if is_value:
        paired = first
    else:
        shared = first.index.intersection(second.index).sort_values()
        seeds = first.columns.intersection(second.columns).sort_values()
        if not len(shared) or not len(seeds):
            return no_difference("no row in both methods"), np.zeros(0)
        paired = first.loc[shared, seeds] - second.loc[shared, seeds]
    difference = _within(two_way(paired, level=level), -bound, bound)
    return moved(difference, margin), seed_means(paired) - margin


def _within(difference: Difference, low: float, high: float) -> Difference:
    limits = np.clip([difference.low, difference.high], low, high)  # NaN stays
    return difference._replace(low=float(limits[0]), high=float(limits[1]))


def two_way(paired: pd.DataFrame, *, level: float) -> Difference:
    """Mean of a (units, seeds) table with both sources of chance in its error.

    Prompts and seeds are crossed: ``value = mean + prompt + seed + rest``. The variance of the
    mean is that over prompts (clustered) plus that over seeds, less the rest, which both contain;
    never less than either. Student's t with Satterthwaite's degrees of freedom: few seeds count
    for what they are where the seeds decide, and hardly where the prompts do.

    Args:
        paired: (units, seeds) differences without NaN.
        level: nominal coverage, in (0, 1).

    Returns:
        NaN limits and p-value where nothing varies; with one seed the error is the prompts' alone,
        flagged.

    Source: crossed random effects; the same sum as two-way clustering (Cameron, Gelbach and Miller
    2011, from memory).
    """
    values, prompts = paired.to_numpy(float), _prompts(paired)
    n_units, n_seeds = values.shape
    by_prompt = clustered_mean(values.mean(axis=1), prompts, level=level)
    over_prompts = 0.0 if np.isnan(by_prompt.se) else by_prompt.se**2
    row = no_difference("")._replace(
        estimate=float(values.mean()),
        n=n_units,
        n_clusters=by_prompt.n_clusters,
        method="paired on prompts and training seeds, both in the error",
    )
    over_seeds = rest = 0.0
    if n_seeds > 1:
        over_seeds = float(np.var(values.mean(axis=0), ddof=1)) / n_seeds
        if n_units > 1:
            rest = _rest(values) / (n_units * n_seeds)
    else:
        row = row._replace(flag="one seed: its own chance is not in the interval")
    variance = max(over_prompts + over_seeds - rest, over_prompts, over_seeds)
    if not variance > 0.0:
        return row._replace(flag=row.flag or "no difference varies")
    spread = over_seeds**2 / max(n_seeds - 1, 1) + over_prompts**2 / max(row.n_clusters - 1, 1)
    df, se = (over_prompts + over_seeds) ** 2 / spread, float(np.sqrt(variance))
    half = float(stats.t.isf((1.0 - level) / 2.0, df)) * se
    return row._replace(
        low=row.estimate - half,
        high=row.estimate + half,
        p_value=float(2.0 * stats.t.sf(abs(row.estimate) / se, df)),
        se=se,
        df=float(df),
    )


def _rest(values: np.ndarray) -> float:
    """Variance that neither the unit nor the seed explains."""
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    return float(np.sum(left**2)) / ((values.shape[0] - 1) * (values.shape[1] - 1))


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
