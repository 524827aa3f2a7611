"""The cells of the validation: which interval or test, in which world, against which truth.

A cell gives one 0 or 1 per data set: whether the interval held the truth, or the test raised an
alarm. Start reading at ``SECTIONS``.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import worlds as made
from scipy import stats

from dpo_diag.stats.compare import paired_difference
from dpo_diag.stats.contrast import Group, share_sum_against_zero, weighted_share_sum
from dpo_diag.stats.intervals import clustered_mean, clustered_proportion
from dpo_diag.stats.kappa import kappa, repeat_rate
from dpo_diag.stats.multiplicity import holm
from dpo_diag.stats.ranks import symmetric_auc
from dpo_diag.stats.selection import cross_fit, simultaneous_band, since_chosen

SIZES = (20, 50, 200, 1000)
SHARES = (0.01, 0.05, 0.5, 0.95, 0.99)
LAYOUTS = {  # name -> rows of a prompt, correlation within it, ties
    "one pair per prompt": (1, 0.0, 0.0),
    "one pair, ties": (1, 0.0, 0.4),
    "4 pairs per prompt": (4, 0.3, 0.0),
    "1 to 8 pairs, ties": (0, 0.3, 0.4),
}


class Cell(NamedTuple):
    """One place of the table: column (layout), row (slice), and its data sets' answers."""

    column: str
    row: str
    n: int
    answers: Callable[[np.random.Generator, int], Iterator[bool]]


@dataclass(frozen=True)
class Section:
    """Cells of one kind: ``coverage``, ``false_alarms`` or ``power``, with the range aimed at."""

    name: str
    statistic: str
    question: str
    reading: str
    low: float
    high: float
    cells: tuple[Cell, ...]
    better: str = "neither"


def _holds(interval, truth: float) -> bool:
    """Whether an interval covers; one that is not given covers nothing."""
    return bool(interval.low - 1e-12 <= truth <= interval.high + 1e-12)


def share_cells() -> Iterator[Cell]:
    """``clustered_proportion``: rates of every analyzer of pairs."""
    for n, share in itertools.product(SIZES, SHARES):
        for name, (size, icc, ties) in LAYOUTS.items():

            def answers(rng, worlds, n=n, share=share, size=size, icc=icc, ties=ties):
                sets = made.shares(
                    rng, n=n, share=share, worlds=worlds, size=size, icc=icc, ties=ties
                )
                for values, codes in sets:
                    yield _holds(clustered_proportion(values, codes), share)

            yield Cell(name, f"n, true share={n}, {share:g}", n, answers)


def drop_cells() -> Iterator[Cell]:
    """``weighted_share_sum``: a drop between two sets of pairs, true shares p and p - .1."""
    for n, share in itertools.product(SIZES, (0.99, 0.95, 0.6)):
        for name, (size, icc, ties) in LAYOUTS.items():

            def answers(rng, worlds, n=n, share=share, size=size, icc=icc, ties=ties):
                options = {"n": n, "worlds": worlds, "size": size, "icc": icc, "ties": ties}
                inside = made.shares(rng, share=share, **options)
                shifted = made.shares(rng, share=share - 0.1, **options)
                for one, two in zip(inside, shifted, strict=True):
                    groups = [Group(1.0, *one), Group(-1.0, *two)]
                    yield _holds(weighted_share_sum(groups), 0.1)

            yield Cell(name, f"n a side, share in distribution={n}, {share:g}", n, answers)


def paired_cells() -> Iterator[Cell]:
    """``paired_difference``: two models on the same pairs, the truth a difference of shares."""
    for n, (one, two) in itertools.product(SIZES, ((0.7, 0.65), (0.95, 0.95), (0.5, 0.3))):
        for name in ("one pair per prompt", "4 pairs per prompt", "1 to 8 pairs, ties"):
            size, icc, _ = LAYOUTS[name]

            def answers(rng, worlds, n=n, one=one, two=two, size=size, icc=icc):
                sets = made.couples(
                    rng, n=n, first=one, second=two, worlds=worlds, size=size, icc=icc
                )
                check = np.random.default_rng(0)
                for first, second, codes in sets:
                    found = paired_difference(first, second, codes, rng=check)
                    yield _holds(found, one - two)

            column = name.removesuffix(", ties")
            yield Cell(column, f"n, true shares={n}, {one:g} and {two:g}", n, answers)


def mean_cells() -> Iterator[Cell]:
    """``clustered_mean``: margins and shifts in nats."""
    for n, kind in itertools.product(SIZES, ("normal", "heavy", "skew")):
        for name in ("one pair per prompt", "4 pairs per prompt"):
            size, icc, _ = LAYOUTS[name]

            def answers(rng, worlds, n=n, kind=kind, size=size, icc=icc):
                for values, codes in made.means(
                    rng, n=n, kind=kind, worlds=worlds, size=size, icc=icc
                ):
                    yield _holds(clustered_mean(values, codes), 1.0)

            yield Cell(name, f"n, values={n}, {kind}", n, answers)


def rank_cells() -> Iterator[Cell]:
    """``symmetric_auc`` of normal margins: the truth is Phi(sqrt(2) * mean / sd)."""
    for n, mean in itertools.product(SIZES, (0.0, 0.5, 1.0)):

        def answers(rng, worlds, n=n, mean=mean):
            truth = float(stats.norm.cdf(np.sqrt(2.0) * mean))
            for _ in range(worlds):
                yield _holds(symmetric_auc(rng.normal(mean, 1.0, n), np.arange(n)), truth)

        yield Cell("reward_auc", f"n, mean over sd={n}, {mean:g}", n, answers)


def seed_cells() -> Iterator[Cell]:
    """``kappa`` and ``repeat_rate`` of five seeds: half of the pairs right with chance .2, .9."""
    agreed, rate = (0.2**2 + 0.8**2 + 0.9**2 + 0.1**2) / 2.0, 0.55
    expected = rate**2 + (1.0 - rate) ** 2
    truths = {
        "seed_kappa": (kappa, (agreed - expected) / (1.0 - expected)),
        "reversal_repeat_rate": (repeat_rate, (0.8**2 + 0.1**2) / (0.8 + 0.1)),
    }
    for n in SIZES:
        for name, (statistic, truth) in truths.items():

            def answers(rng, worlds, n=n, statistic=statistic, truth=truth, name=name):
                for _ in range(worlds):
                    right = rng.random((n, 5)) < rng.choice([0.2, 0.9], (n, 1))
                    value = right if name == "seed_kappa" else ~right
                    yield _holds(statistic(value.astype(float), np.arange(n)), truth)

            yield Cell(name, f"n={n}", n, answers)


def step_cells() -> Iterator[Cell]:
    """``since_chosen`` and the simultaneous band over eight steps of correlation .7."""
    for n, gain in itertools.product((50, 200, 1000), (0.0, 0.1)):
        accuracy = np.full(8, 0.6)
        accuracy[3] += gain
        limits = stats.norm.ppf(accuracy)

        def steps_of(rng, n=n, limits=limits):
            latent = np.sqrt(0.7) * rng.normal(size=(n, 1)) + np.sqrt(0.3) * rng.normal(size=(n, 8))
            return (latent < limits).astype(float)

        def fitted(rng, worlds, n=n, accuracy=accuracy, steps_of=steps_of):
            codes = np.arange(n)
            for _ in range(worlds):
                scores = steps_of(rng)
                choice = cross_fit(scores, codes, rng=rng)
                truth = float(np.mean(accuracy[-1] - accuracy[choice.of_row]))
                yield _holds(since_chosen(scores, choice, codes, rng=rng), truth)

        def band(rng, worlds, n=n, accuracy=accuracy, steps_of=steps_of):
            for _ in range(worlds):
                scores = steps_of(rng)
                found = simultaneous_band(scores[:, :-1] - scores[:, -1:], np.arange(n), rng=rng)
                truth = accuracy[:-1] - accuracy[-1]
                yield bool(np.all((found.low <= truth) & (truth <= found.high)))

        row = f"n, gain of the best step={n}, {gain:g}"
        yield Cell("since best, cross-fitted", row, n, fitted)
        yield Cell("band over all steps", row, n, band)


def alarm_cells() -> Iterator[Cell]:
    """5 % tests of two models that are equally good, and Holm's family of seven of them."""
    for n, share in itertools.product(SIZES, (0.5, 0.7, 0.95)):
        for name, (size, icc, _) in (
            ("exact McNemar", LAYOUTS["one pair per prompt"]),
            ("clustered t", LAYOUTS["4 pairs per prompt"]),
        ):

            def paired(rng, worlds, n=n, share=share, size=size, icc=icc):
                check = np.random.default_rng(0)
                for first, second, codes in made.couples(
                    rng, n=n, first=share, second=share, worlds=worlds, size=size, icc=icc
                ):
                    yield bool(paired_difference(first, second, codes, rng=check).p_value < 0.05)

            yield Cell(name, f"n, share of both={n}, {share:g}", n, paired)

        def family(rng, worlds, n=n, share=share):
            options = {"n": n, "first": share, "second": share, "worlds": worlds}
            sets = zip(*(made.couples(rng, **options) for _ in range(7)), strict=True)
            check = np.random.default_rng(0)
            for tables in sets:
                p = [paired_difference(a, b, c, rng=check).p_value for a, b, c in tables]
                yield bool(holm(np.array(p)).min() < 0.05)

        def drop(rng, worlds, n=n, share=share):
            one, two = (made.shares(rng, n=n, share=share, worlds=worlds) for _ in range(2))
            for inside, shifted in zip(one, two, strict=True):
                groups = [Group(1.0, *inside), Group(-1.0, *shifted)]
                yield bool(share_sum_against_zero(groups).p_value < 0.05)

        yield Cell("drop between sets", f"n, share of both={n}, {share:g}", n, drop)
        if n < 1000:
            yield Cell("any of seven, Holm", f"n, share of both={n}, {share:g}", n, family)


def power_cells(is_paired: bool) -> Iterator[Cell]:
    """Finding 5 points at n = 500, models near one half right, by how often they disagree."""

    def paired(rng, worlds, disagreeing):
        check = np.random.default_rng(0)
        for one, two in made.discordant(
            rng, n=500, gain=0.05, disagreeing=disagreeing, worlds=worlds
        ):
            yield bool(paired_difference(one, two, np.arange(500), rng=check).p_value < 0.05)

    def unpaired(rng, worlds, disagreeing):
        for one, two in made.discordant(
            rng, n=500, gain=0.05, disagreeing=disagreeing, worlds=worlds
        ):
            pooled = (one.mean() + two.mean()) / 2.0
            z = (one.mean() - two.mean()) / np.sqrt(2.0 * pooled * (1.0 - pooled) / 500)
            yield bool(abs(z) > 1.959964)

    name, answers = ("paired", paired) if is_paired else ("two separate shares, z", unpaired)
    for disagreeing in (0.06, 0.08):

        def fixed(rng, worlds, disagreeing=disagreeing):
            return answers(rng, worlds, disagreeing)

        yield Cell(name, f"share of pairs on which the models disagree={disagreeing:g}", 500, fixed)


COVERED = (
    "Share of simulated data sets whose 95 % interval holds the truth; the aim is 93 to 97.5 %. "
    "Above it an interval is wider than it had to be, below it the interval is wrong."
)
SECTIONS = (
    Section(
        "shares",
        "coverage",
        "Do the intervals of shares hold the true share?",
        COVERED + " With one pair per prompt and no ties the interval is Clopper and Pearson's, a "
        "guarantee of at least 95 % that has to be wider where the share is near 0 or 1.",
        0.93,
        0.975,
        tuple(share_cells()),
    ),
    Section(
        "drops",
        "coverage",
        "Do the intervals of a drop between two sets of pairs hold the true drop of 10 points?",
        COVERED,
        0.93,
        0.975,
        tuple(drop_cells()),
    ),
    Section(
        "paired_differences",
        "coverage",
        "Do the intervals of paired differences hold the true difference of two models?",
        COVERED,
        0.93,
        0.975,
        tuple(paired_cells()),
    ),
    Section(
        "means",
        "coverage",
        "Do the intervals of mean margins hold the true mean?",
        COVERED,
        0.93,
        0.975,
        tuple(mean_cells()),
    ),
    Section(
        "ranks_and_seeds",
        "coverage",
        "Do the intervals of areas and of agreement between seeds hold the truth?",
        COVERED,
        0.93,
        0.975,
        (*rank_cells(), *seed_cells()),
    ),
    Section(
        "best_step",
        "coverage",
        "Do the interval of what was lost since the best of eight steps, and the band, hold?",
        COVERED
        + " The truth is the loss since the steps that the halves of the prompts chose; the band "
        "has to hold at all steps at once.",
        0.93,
        0.975,
        tuple(step_cells()),
    ),
    Section(
        "false_alarms",
        "false_alarms",
        "How often do 5 % tests see a difference where there is none?",
        "Share of simulated data sets with p below .05; at most 6 % is the aim.",
        0.0,
        0.06,
        tuple(alarm_cells()),
        better="lower",
    ),
    Section(
        "power_paired",
        "power",
        "How often does the paired comparison find 5 points with 500 pairs?",
        "Two models that are right on 52.5 and on 47.5 % of the pairs; at least 70 % is the aim.",
        0.7,
        1.0,
        tuple(power_cells(is_paired=True)),
        better="higher",
    ),
    Section(
        "power_unpaired",
        "power",
        "How often would the two shares by themselves show it?",
        "The same data sets compared without the pairing, by the z test of two shares; the aim is "
        "a world in which that finds it in at most 20 % while the paired comparison finds it.",
        0.0,
        0.2,
        tuple(power_cells(is_paired=False)),
    ),
)
