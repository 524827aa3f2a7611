"""Which pairs are likely to push their chosen answer down: CHES under the model to be trained.

``CHES = <S+, S-> - |S+|^2`` of summed last-layer states and, per token, ``CHESn = <S+/n+, S-/n->
- |S+/n+|^2``, with true lengths. Higher is more alike to the model and, the paper found, displaced
more. The paper gives a rank, not a limit: it kept the lowest 5 % (15 % still worked). So pairs are
ranked and domains compared; that a pair's CHESn is above 0 (the rejected answer's mean state
reaches further along the chosen one's than that itself) is a natural mark, not a proven limit.

Measured on the sandbox (one DPO run, 2,580 training pairs, 68 % of chosen log-probs fell): the
summed form ranked the pairs that fell with an AUC of 0.59 (0.56 to 0.61), the form per token with
0.39 (0.36 to 0.41), short answers first with 0.67. So the rank is a claim to be tested on the run,
not a prediction to act on alone.

Source: Razin et al., ICLR 2025, arXiv 2410.08847 (see ``selectors/ches`` for what was read).
"""

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import KNOW, LOOK, UNSEEN, Check, Checked, PairData
from dpo_diag.pair_checks._measures import by_column, examples, mean, of_ranks, percent, share

LOOK_GAP = 0.1  # of a domain's share in the upper half from one half; ours
_COLUMNS = ("state_product", "state_square", "n_tokens_chosen", "n_tokens_rejected")


class Displacement(Check):
    """CHES and CHESn of every pair under a base model, by domain."""

    question = "Which pairs are likely to push their own chosen answer down?"
    reading = (
        "CHESn ranks pairs: the highest displace most. The upper half is that of all pairs; a "
        "domain with more than half of its pairs there is at more risk than the others."
    )
    misleads = (
        "Above which value displacement does harm is not known, and a rank holds for one model. On "
        "the built-in sandbox the form per token did not rank the pairs whose chosen log-prob fell "
        "(AUC 0.39; the summed form 0.59): compare runs before dropping pairs by it."
    )
    headline = ("ches_above_zero", "mean_ches_per_token")
    about_model = True

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Pairs ranked by CHESn."""
        states = data.tables.get("PairStates")
        if states is None:
            return Checked(
                UNSEEN,
                "Displacement was not predicted: there is no base model.",
                "Give the model that training starts from with --model BASE.",
            )
        summed, per_token = ches(data, states)
        upper = np.where(np.isnan(per_token), np.nan, per_token > _median(per_token))
        above = np.where(np.isnan(per_token), np.nan, per_token > 0)
        measures = [
            share("ches_above_zero", above, data),
            mean("mean_ches_per_token", per_token, data, unit="squared state", better="lower"),
            mean("mean_ches", summed, data, unit="squared state", better="lower"),
        ]
        parts = by_column("ches_in_upper_half", upper, data, "domain", better="lower")
        by_domain = [of_ranks(part) for part in parts]
        risky = [
            m for m in by_domain if m.interval.low > 0.5 and m.interval.estimate > 0.5 + LOOK_GAP
        ]
        found = (
            f"{percent(measures[0].interval)} of pairs have a CHES per token above 0: to the model "
            "their rejected answer is more like the chosen one than that itself"
        )
        if risky:
            names = ", ".join(m.part.partition("=")[2] for m in risky)
            found += f"; the domains {names} lie higher than the others"
        notes = pd.Series([f"CHES per token {value:.4g}" for value in per_token])
        known = ~np.isnan(per_token)
        return Checked(
            LOOK if risky else KNOW,
            f"{found}.",
            "Leave the highest out and compare: dpo-diag select ches --model {model} --keep 0.9 "
            "--pairs {data} --out kept.jsonl; watch the chosen log-prob in training (dpo-diag "
            "reversals, displacement_rate) or train with dpop.",
            (*measures, *by_domain),
            examples(data, known, "likely_displaced", notes, np.where(known, per_token, -np.inf)),
            notes=_unscored(known, data),
            weight=measures[0].interval.estimate if known.any() else 0.0,
        )


CHECK = Displacement


def ches(data: PairData, states: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """CHES and CHES per token of each row, (n,) each, NaN where the pair has no states."""
    found = states.drop_duplicates("pair_id").set_index("pair_id")[list(_COLUMNS)]
    columns = found.reindex(data.rows["pair_id"]).to_numpy(float).T
    product, square, n_chosen, n_rejected = columns
    return product - square, product / (n_chosen * n_rejected) - square / n_chosen**2


def _median(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else np.nan


def _unscored(known: np.ndarray, data: PairData) -> tuple[str, ...]:
    n = int((~known).sum())
    return (f"{n:,} of {data.n:,} pairs have no states (unusable rows).",) if n else ()
