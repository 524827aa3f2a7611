"""How far length alone tells the label: the shortest way for a model to look right.

Length is counted in words (one Chinese or Japanese character each). The longer answer is predicted
to be the chosen one; equal lengths count one half. The correlation is that of the label with the
logarithm of length over all answers, with the influence of each pair as its variance.
"""

import numpy as np

from dpo_diag.pair_checks._base import CLEAN, KNOW, LOOK, Check, Checked, Measure, PairData
from dpo_diag.pair_checks._measures import by_column, examples, mean, percent, share
from dpo_diag.stats.intervals import clustered_mean

LOOK_AT = 0.10  # distance of the accuracy from one half; ours
COLUMNS = ("annotator", "domain", "split")


class Length(Check):
    """Length alone as a predictor of the label, also by annotator, domain and split."""

    question = "How well does length alone predict the label?"
    reading = (
        "At 50 % length says nothing. A trained model's reward accuracy must be read against this "
        "number, not against 50 %."
    )
    misleads = (
        "Longer answers can be better for good reasons; the number shows what can be learnt "
        "without them, not what is."
    )
    headline = ("length_accuracy", "length_correlation")

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Accuracy of length, its correlation with the label, the mean ratio."""
        longer, gap = longer_chosen(data), log_ratio(data)
        accuracy = share("length_accuracy", longer, data, better="neither")
        measures = [
            accuracy,
            correlation(data),
            mean("length_log_ratio", gap, data, unit="log of chosen over rejected words"),
        ]
        for column in COLUMNS:
            measures += by_column("length_accuracy", longer, data, column, better="neither")
        found = accuracy.interval
        if np.isnan(found.low) or found.low <= 0.5 <= found.high:
            said = f"Length does not predict the label: {percent(found)} of the longer are chosen."
            return Checked(CLEAN, said, measures=tuple(measures))
        distance = abs(found.estimate - 0.5)
        which = "longer" if found.estimate > 0.5 else "shorter"
        ratio = np.exp(abs(np.nanmean(gap)))
        note = f"the chosen answer is {which} by much"
        return Checked(
            LOOK if distance >= LOOK_AT else KNOW,
            f"Length alone predicts the label: in {percent(found)} of the pairs the longer answer "
            f"is chosen; the chosen ones are {which} by a factor of {ratio:.2f} on average.",
            "Train with a length-aware method (dpo-diag train simpo, or a length penalty), read "
            f"every reward accuracy against {100 * max(found.estimate, 1 - found.estimate):.0f} %, "
            "and slice results by length (dpo-diag reversals --slices length).",
            tuple(measures),
            examples(data, np.abs(gap) > 1, "length_gap", note, gap * np.sign(found.estimate - 0.5))
            if data.n
            else (),
            weight=distance,
        )


CHECK = Length


def lengths(data: PairData) -> np.ndarray:
    """Words of chosen and rejected answers, (2, n)."""
    return data.words.lengths[data.answers] if data.n else np.zeros((2, 0), np.int64)


def longer_chosen(data: PairData) -> np.ndarray:
    """1 where the chosen answer is longer, 0 where it is shorter, one half for a tie, (n,)."""
    chosen, rejected = lengths(data)
    return np.where(chosen == rejected, 0.5, chosen > rejected).astype(float)


def log_ratio(data: PairData) -> np.ndarray:
    """Log of one more than the words, chosen less rejected, (n,)."""
    chosen, rejected = np.log1p(lengths(data))
    return chosen - rejected


def correlation(data: PairData) -> Measure:
    """Correlation of label and log length over all 2n answers, clustered by prompt.

    With labels of +1 and -1 it is ``m / (2 s)``: m the mean difference within a pair, s the
    standard deviation of all log lengths. Its variance is that of the pairs' influences
    ``(d - m) / (2 s) - m (v - s^2) / (4 s^3)``, v a pair's mean squared distance from the middle.
    """
    logs = np.log1p(lengths(data))
    spread = float(logs.std()) if data.n else 0.0
    values = np.full(data.n, np.nan)
    if spread > 0.0:
        gap = logs[0] - logs[1]
        middle = gap.mean()
        squares = ((logs - logs.mean()) ** 2).mean(axis=0)
        values = middle / (2 * spread) + (gap - middle) / (2 * spread)
        values = values - middle * (squares - spread**2) / (4 * spread**3)
    interval = clustered_mean(values, data.prompts, level=data.ci_level)
    return Measure("length_correlation", interval, "correlation, -1 to 1", "neither")
