"""Words that alone tell the label, and how well a model does that never reads the prompt.

A word (or two neighbouring ones) is telltale where it is in one answer of a pair only and that
answer is the chosen one, or the rejected one, more often than a coin would have it. Pairs of a
prompt are not independent: each prompt has one vote, the sign of its pairs' sum, and the test is
the exact sign test of these votes, corrected for all words tested by Holm's method, so that with
labels by coin any word at all is reported in at most 5 % of data sets. Only words with enough
votes to be able to pass are tested, which does not look at the labels.

The summary is the accuracy, on prompts it has not seen, of a logistic model of the answers' words
alone. Longer answers have more words, so it contains the effect of length.

Large sets are sampled by prompt, and the first words of long answers are read; both are said.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from dpo_diag.pair_checks._base import CLEAN, KNOW, LOOK, Case, Check, Checked, Measure, PairData
from dpo_diag.pair_checks._measures import percent, share
from dpo_diag.pair_checks.length import longer_chosen
from dpo_diag.stats.intervals import clustered_proportion
from dpo_diag.stats.multiplicity import holm
from dpo_diag.stats.pair_logistic import held_out_scores

MAX_PAIRS = 20_000  # pairs that are looked at; the whole of a smaller set
MAX_WORDS = 256  # first words of an answer that are read
MIN_VOTES = 10  # prompts in which a word is on one side only
MAX_FEATURES = 5_000  # of the model, the most frequent
LEVEL = 0.05
STRONG, COMMON = 0.9, 0.05  # a word right in 90 % of the 5 % of pairs it is in calls for a look
SHOWN = 10


@dataclass(frozen=True)
class Features:
    """Words of answers as signed presence.

    Attributes:
        signs: (n, F) +1 where only the chosen answer has the word, -1 where only the rejected one.
        names: of the columns.
        is_single: (F,) one word, not two.
    """

    signs: sparse.csr_array
    names: tuple[str, ...]
    is_single: np.ndarray


class Telltale(Check):
    """Telltale words, and the accuracy of a model of words alone."""

    question = "How well can a model do that never reads the prompt?"
    reading = (
        "A telltale word's share is that of the prompts, among those where it is on one side only, "
        "in which it is on the chosen side. The words' model is tested on prompts it has not seen."
    )
    misleads = (
        "Words may carry what people truly prefer (a refusal is bad everywhere); the model's "
        "interval holds the fits as they are and the prompts as drawn."
    )
    headline = ("word_model_accuracy", "pairs_with_telltale_words")

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Every telltale word, the share of pairs they decide, the words' model."""
        rows, notes = sampled(data, rng)
        features = presence(data, rows)
        words = telltale_words(features, data.prompts[rows])
        fitted = _model_features(features)
        scores = held_out_scores(fitted, data.prompts[rows], rng=rng)
        right = np.where(np.isnan(scores), np.nan, np.where(scores == 0, 0.5, scores > 0))
        accuracy = _over(data, rows, right)
        held = np.zeros(len(rows)) if not words else _any_of(features, [w.column for w in words])
        found = (
            share("word_model_accuracy", accuracy, data, better="neither"),
            share("pairs_with_telltale_words", _over(data, rows, held), data, better="neither"),
        )
        measures = (*found, *(_measure(word, data.ci_level) for word in words[:SHOWN]))
        model = found[0].interval
        if not words and not model.low > 0.5:
            said = f"No word tells the label; a model of words alone is right in {percent(model)}."
            return Checked(CLEAN, said, measures=measures, notes=notes)
        length = share("", _over(data, rows, longer_chosen(data)[rows]), data).interval
        listed = "; ".join(word.said() for word in words[:3])
        is_strong = any(word.is_strong for word in words)
        return Checked(
            LOOK if is_strong else KNOW,
            f"A model that reads no prompt, only the answers' words, is right in {percent(model)} "
            f"of pairs of unseen prompts (length alone: {percent(length)}); {len(words):,} words "
            "tell the label" + (f", first {listed}." if words else "."),
            _ADVICE[is_strong],
            measures,
            _cases(data, rows, features, words),
            notes=notes,
            weight=max(model.estimate - 0.5, 0.0) if model.n else 0.0,
        )


CHECK = Telltale

_ADVICE = {
    True: "Find out where these words come from (a signature, a marker, one source's habit) and "
    "remove them from both answers, or balance the sources, before training.",
    False: "Read your reward accuracy against this number, not against 50 %: what is not above it "
    "may be style. No common word gives the label away by itself.",
}


@dataclass(frozen=True)
class Word:
    """A telltale word: its feature's column, prompts for and against, pairs, p-values, strength."""

    column: int
    name: str
    n_for: int
    n_against: int
    n_pairs: int
    p_value: float
    p_adjusted: float
    is_strong: bool

    @property
    def accuracy(self) -> float:
        """Share of its votes on the side it tells."""
        return max(self.n_for, self.n_against) / (self.n_for + self.n_against)

    def said(self) -> str:
        """In words: what it tells, how often."""
        side = "chosen" if self.n_for > self.n_against else "rejected"
        return (
            f"'{self.name}' (in one answer only of {self.n_pairs:,} pairs, {side} in "
            f"{100 * self.accuracy:.0f} %)"
        )


def sampled(data: PairData, rng: np.random.Generator) -> tuple[np.ndarray, tuple[str, ...]]:
    """Rows to look at, whole prompts of them, and what to say about it."""
    cut = int((data.words.lengths > MAX_WORDS).sum()) if data.n else 0
    said = (f"Of {cut:,} long answers the first {MAX_WORDS} words were read.",) if cut else ()
    if data.n <= MAX_PAIRS:
        return np.arange(data.n), said
    order = rng.permutation(data.prompts.max() + 1)[data.prompts]
    rows = np.sort(np.argsort(order, kind="stable")[:MAX_PAIRS])
    drawn = f"Words were looked at in {MAX_PAIRS:,} of {data.n:,} pairs, drawn by prompt."
    return rows, (drawn, *said)


def presence(data: PairData, rows: np.ndarray) -> Features:
    """Words and neighbouring words that one answer of a pair has and the other lacks.

    Args:
        data: the pairs.
        rows: (k,) positions of the pairs to look at.
    """
    words, n_words = data.words, len(data.words.vocabulary) if data.n else 0
    empty = Features(sparse.csr_array((len(rows), 0)), (), np.zeros(0, bool))
    if not len(rows) or not n_words:
        return empty
    keys = [_sided_keys(data, rows, side, n_words) for side in (0, 1)]
    codes = np.concatenate([key[1] for key in keys])
    lines = np.concatenate([key[0] for key in keys])
    signs = np.repeat(np.array([1, -1], np.int8), [len(keys[0][1]), len(keys[1][1])])
    known, columns = np.unique(codes, return_inverse=True)
    matrix = sparse.coo_array((signs, (lines, columns)), shape=(len(rows), len(known))).tocsr()
    matrix.sum_duplicates()  # a word that both answers have is 1 - 1 = 0
    matrix.eliminate_zeros()
    enough = np.flatnonzero(np.bincount(matrix.indices, minlength=len(known)) >= MIN_VOTES)
    first, second = np.divmod(known[enough], n_words + 1)
    spelled = words.vocabulary
    names = [
        spelled[b] if a == n_words else f"{spelled[a]} {spelled[b]}"
        for a, b in zip(first, second, strict=True)
    ]
    return Features(matrix[:, enough].astype(np.float64), tuple(names), first == n_words)


def _sided_keys(
    data: PairData, rows: np.ndarray, side: int, n_words: int
) -> tuple[np.ndarray, np.ndarray]:
    """Line and code of each different word and neighbouring pair of one side's answers."""
    lines, codes = [], []
    for line, answer in enumerate(data.answers[side, rows]):
        ids = data.words.of(answer)[:MAX_WORDS].astype(np.int64)
        # a single word is coded as a pair whose first word does not exist
        both = np.concatenate([n_words * (n_words + 1) + ids, ids[:-1] * (n_words + 1) + ids[1:]])
        different = np.unique(both)
        codes.append(different)
        lines.append(np.full(len(different), line, np.int32))
    return np.concatenate(lines), np.concatenate(codes)


def telltale_words(features: Features, prompts: np.ndarray, *, level: float = LEVEL) -> list[Word]:
    """Features that pass Holm's test at a level, the most telling first.

    Args:
        features: from ``presence``.
        prompts: (n,) prompt of each row.
        level: chance of any false report, in (0, 1).
    """
    if not features.names:
        return []
    _, codes = np.unique(prompts, return_inverse=True)
    by_prompt = sparse.csr_array(
        (np.ones(len(codes)), (codes, np.arange(len(codes)))),
        shape=(int(codes.max()) + 1, len(codes)),
    )
    votes = (by_prompt @ features.signs).sign().tocsc()
    n_for = np.asarray((votes > 0).sum(axis=0)).ravel().astype(int)
    n_against = np.asarray((votes < 0).sum(axis=0)).ravel().astype(int)
    total = n_for + n_against
    p_values = np.full(len(total), np.nan)
    tested = total >= MIN_VOTES
    fewer = np.minimum(n_for, n_against)[tested]
    p_values[tested] = np.minimum(2 * stats.binom.cdf(fewer, total[tested], 0.5), 1.0)
    adjusted = holm(p_values)
    passed = np.flatnonzero(adjusted < level)
    n_pairs = np.bincount(features.signs.indices, minlength=len(total))
    strength = np.abs(n_for - n_against)  # prompts decided beyond chance
    sure = (strength >= (2 * STRONG - 1) * total) & (n_pairs >= COMMON * len(prompts))
    order = sorted(passed, key=lambda k: (not sure[k], -strength[k], features.names[k]))
    found = [
        Word(
            int(k),
            features.names[k],
            int(n_for[k]),
            int(n_against[k]),
            int(n_pairs[k]),
            float(p_values[k]),
            float(adjusted[k]),
            bool(sure[k]),
        )
        for k in order
    ]
    return _without_echoes(found, features)


def _without_echoes(words: list[Word], features: Features) -> list[Word]:
    """Words that only come together are one finding, under the longest of their names."""
    turned = features.signs.tocsc()
    turned.sort_indices()
    kept: dict[tuple[bytes, bytes], Word] = {}
    for word in words:
        own = slice(turned.indptr[word.column], turned.indptr[word.column + 1])
        key = (turned.indices[own].tobytes(), turned.data[own].tobytes())  # in which pairs, where
        if key not in kept or len(word.name) > len(kept[key].name):
            kept[key] = word
    return list(kept.values())


def _model_features(features: Features) -> sparse.csr_array:
    """Single words, the most frequent ones."""
    counts = np.bincount(features.signs.indices, minlength=len(features.names))
    counts = np.where(features.is_single, counts, -1)
    kept = np.argsort(-counts, kind="stable")[: min(MAX_FEATURES, int(features.is_single.sum()))]
    return features.signs[:, np.sort(kept)]


def _any_of(features: Features, columns: list[int]) -> np.ndarray:
    return (abs(features.signs[:, columns]).sum(axis=1) > 0).astype(float)


def _over(data: PairData, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of some rows as a column of all, NaN for the others."""
    column = np.full(data.n, np.nan)
    column[rows] = values
    return column


def _measure(word: Word, level: float) -> Measure:
    votes = np.repeat([1.0, 0.0], [word.n_for, word.n_against])
    interval = clustered_proportion(votes, np.arange(len(votes)), level=level)
    interval = interval._replace(is_guarantee=False)  # the word was picked by these votes
    return Measure(
        "chosen_side_share",
        interval,
        "share of prompts",
        "neither",
        f"word={word.name}",
        "picked as the most telling: leans away from 50 %",
        word.p_value,
        word.p_adjusted,
    )


def _cases(
    data: PairData, rows: np.ndarray, features: Features, words: list[Word]
) -> tuple[Case, ...]:
    """One pair for each of the most telling words."""
    cases, used = [], set()
    turned = features.signs.tocsc()
    for word in words[: data.n_cases]:
        start, end = turned.indptr[word.column], turned.indptr[word.column + 1]
        sign = 1.0 if word.n_for > word.n_against else -1.0
        lines = turned.indices[start:end][turned.data[start:end] == sign]
        row = next((int(rows[k]) for k in np.sort(lines) if int(rows[k]) not in used), None)
        if row is None:
            continue
        used.add(row)
        note = f"{data.rows['place'].iloc[row]}: {word.said()}"
        cases.append(Case(row, "telltale_word", float(abs(word.n_for - word.n_against)), note))
    return tuple(cases)
