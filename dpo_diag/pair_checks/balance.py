"""What the data are made of: domains, splits, and how evenly prompts share the pairs.

A prompt with many pairs weighs as much as many prompts; the effective number of prompts is
``n^2 / sum of squared pairs per prompt``, the number that would share the pairs evenly.
"""

import numpy as np

from dpo_diag.pair_checks._base import EVALUATION, KNOW, LOOK, Check, Checked, PairData
from dpo_diag.pair_checks._measures import counted, parts_of, share

HEAVY = 10  # times the average prompt's pairs
LOOK_ABOVE = 0.2  # share of pairs on heavy prompts; ours


class Balance(Check):
    """Shares of domains and splits, heavy prompts, domains that are evaluated but not trained."""

    question = "Do a few prompts or domains make up the data?"
    reading = (
        f"A heavy prompt has {HEAVY} times the pairs of the average one. A domain outside train "
        "is evaluated but was never trained on: shifted, whether meant so or not."
    )
    misleads = "Whether a share is too large depends on what the model is to be used for."
    headline = ("pairs_on_heavy_prompts",)

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Shares by column, and prompts that carry much."""
        per_prompt = np.bincount(data.prompts) if data.n else np.zeros(0, int)
        heavy = per_prompt[data.prompts] >= HEAVY * max(per_prompt.mean(), 1) if data.n else _none()
        untrained = _untrained(data)
        measures = [share("pairs_on_heavy_prompts", heavy, data)]
        if untrained.any():
            measures.append(share("pairs_of_untrained_domains", untrained, data, better="neither"))
        for column in ("domain", "split"):
            for value, mask in parts_of(data, column):
                part = f"{column}={value}"
                measures.append(share("share_of_data", mask, data, part=part, better="neither"))
        effective = data.n**2 / float(np.sum(per_prompt**2)) if data.n else 0.0
        found = (
            f"{data.n:,} pairs on {len(per_prompt):,} prompts, which weigh like {effective:,.0f} "
            f"even ones; {counted(heavy)} are on heavy prompts"
        )
        if untrained.any():
            found += f"; {int(untrained.sum()):,} are of domains that train does not have"
        is_heavy = bool(data.n) and float(np.mean(heavy)) > LOOK_ABOVE
        advice = "Cap the pairs per prompt, or weight each pair by one over its prompt's number."
        return Checked(
            LOOK if is_heavy else KNOW,
            f"{found}.",
            advice if is_heavy else "",
            tuple(measures),
            weight=float(np.mean(heavy)) if data.n else 0.0,
        )


CHECK = Balance


def _none() -> np.ndarray:
    return np.zeros(0, bool)


def _untrained(data: PairData) -> np.ndarray:
    """Rows of evaluation splits whose domain no training row has, (n,); none without both."""
    split, domain = data.rows["split"], data.rows["domain"]
    is_evaluated = split.isin(EVALUATION)
    trained = set(domain[~is_evaluated])
    none = np.zeros(data.n, bool)
    return (is_evaluated & ~domain.isin(trained)).to_numpy() if trained else none
