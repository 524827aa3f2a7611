"""Form that is on one side more often than on the other: a habit of the source, not a preference.

Refusals, answers that seem cut off (no closing mark at the end), lists, code, headings: the share
among chosen and among rejected answers, and the exact sign test of prompts in which one side alone
has it (each prompt one vote, Holm over the forms). A set in which only rejected answers refuse
teaches to answer everything; one in which only rejected answers are cut teaches punctuation.
"""

import re

import numpy as np
from scipy import stats

from dpo_diag.pair_checks._base import CLEAN, KNOW, LOOK, Check, Checked, Measure, PairData
from dpo_diag.pair_checks._measures import examples, share
from dpo_diag.stats.intervals import cluster_sums
from dpo_diag.stats.multiplicity import holm

LEVEL = 0.05
LOOK_GAP = 0.05  # difference of the two sides' shares that calls for a look; ours
MIN_CUT_WORDS = 8  # an answer of fewer words need not be a sentence
_ENDS = frozenset(".!?:;)]}>\"'`*_~|\u2026\u3002\uff01\uff1f\u201d\u2019\u00bb")
_LIST = re.compile(r"^[ \t]*(?:[-*\u2022]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} \S", re.MULTILINE)
_BOLD = re.compile(r"\*\*\S[^*]{0,200}\*\*")


def is_cut_off(text: str) -> bool:
    """Whether a text of some words ends without a closing mark."""
    return text.rstrip()[-1:] not in _ENDS and len(text.split()) >= MIN_CUT_WORDS


FORMS = {
    "cut_off": is_cut_off,
    "has_list": lambda text: _LIST.search(text) is not None,
    "has_code": lambda text: "```" in text,
    "has_heading": lambda text: _HEADING.search(text) is not None,
    "has_bold": lambda text: _BOLD.search(text) is not None,
}
_WORDS = {
    "refuses": "refuse",
    "cut_off": "seem cut off",
    "has_list": "hold a list",
    "has_code": "hold a block of code",
    "has_heading": "hold a heading",
    "has_bold": "hold bold words",
}


class OneSided(Check):
    """Forms whose share differs between chosen and rejected answers."""

    question = "Which forms are on one side only?"
    reading = (
        "Shares are of the pairs in which one side alone has the form: how often that is the "
        "chosen one. 50 % is balance."
    )
    misleads = (
        "Refusals are read from the opening, in English only; a cut is guessed from the last "
        "character. A form may be what people prefer."
    )
    headline = ("chosen_side_of_refuses", "chosen_side_of_cut_off")

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Each form's side, with the test."""
        forms = _forms(data)
        p_values = holm(np.array([sign_test(has, data.prompts) for has in forms.values()]))
        measures, found, cases, weight = [], [], [], 0.0
        for (name, has), p_value in zip(forms.items(), p_values, strict=True):
            measures += _measures(name, has, data, p_value)
            if not p_value < LEVEL:
                continue
            chosen, rejected = has.mean(axis=1)
            gap = chosen - rejected
            side = "chosen" if gap > 0 else "rejected"
            shares = f"{100 * chosen:.0f} % of the chosen and {100 * rejected:.0f} % of the"
            found.append((abs(gap), f"{shares} rejected answers {_WORDS[name]}"))
            weight = max(weight, abs(gap))
            alone = (has[0] > has[1]) if gap > 0 else (has[1] > has[0])
            cases += examples(data, alone, f"{name}_{side}", f"only the {side} answer: {name}")
        if not found:
            said = "Refusals, cut endings, lists, code, headings: none leans to one side."
            return Checked(CLEAN, said, measures=tuple(measures))
        found.sort(reverse=True)
        return Checked(
            LOOK if weight >= LOOK_GAP else KNOW,
            f"{'; '.join(words for _, words in found)}.",
            "Ask whether that is the preference you mean; if not, make the form alike on both "
            "sides (same length limit and same source for both answers) or add pairs that have it "
            "the other way round.",
            tuple(measures),
            tuple(cases),
            weight=weight,
        )


CHECK = OneSided


def _forms(data: PairData) -> dict[str, np.ndarray]:
    """Which chosen and which rejected answers have each form, (2, n) bool."""
    texts = data.texts
    found = {} if data.refusals is None else {"refuses": data.refusals.astype(bool)}
    for name, has in FORMS.items():
        known = np.array([bool(has(text)) for text in texts], bool)
        found[name] = known[data.answers] if data.n else np.zeros((2, 0), bool)
    return found


def sign_test(has: np.ndarray, prompts: np.ndarray) -> float:
    """Two-sided p-value that a form is as often on one side as on the other.

    Args:
        has: (2, n) bool, chosen and rejected answers.
        prompts: (n,) prompt of each row: one vote each, the sign of its pairs' sum.

    Returns:
        NaN where no prompt has a vote.
    """
    votes = np.sign(cluster_sums(has[0].astype(float) - has[1], prompts))
    n_for, n_votes = int((votes > 0).sum()), int((votes != 0).sum())
    if not n_votes:
        return np.nan
    return float(stats.binomtest(n_for, n_votes, 0.5).pvalue)


def _measures(name: str, has: np.ndarray, data: PairData, p_value: float) -> list[Measure]:
    """Share on the chosen side among one-sided pairs, and the share of each side."""
    one_sided = has[0] != has[1]
    which = np.where(one_sided, has[0].astype(float), np.nan)
    leaning = share(f"chosen_side_of_{name}", which, data, better="neither")
    leaning = Measure(
        leaning.statistic,
        leaning.interval,
        "share of one-sided pairs",
        "neither",
        p_adjusted=p_value,
    )
    sides = [
        share(f"{side}_{name}", values, data, unit="share of answers", better="neither")
        for side, values in zip(("chosen", "rejected"), has, strict=True)
    ]
    return [leaning, *sides]
