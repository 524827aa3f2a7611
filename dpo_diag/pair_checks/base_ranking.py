"""Which pairs the base model ranks wrong, and what DPO would have to reach to turn them round.

With ``c = log ref(rejected) - log ref(chosen)`` a pair is ranked right after DPO exactly when its
loss is at most ``-log sigma(beta c)`` (Theorem 4.1). For c above 0 that is less than log 2: at
beta 0.1 a base that is wrong by 5 nats needs a loss of 0.474, by 30 nats 0.049. In the paper fewer
than 10 % of the training pairs that its Pythia model ranked wrong were turned at the lowest
validation loss.

Measured on the sandbox (one DPO run at beta 0.03, 2,580 training pairs): 25 % of the pairs ranked
wrong were turned, none of those wrong by more than 22.5 nats; the gap c told the pairs ranked wrong
afterwards with an AUC of 0.94 (0.93 to 0.95), and those of negative implicit reward with 0.51.

Source: Chen et al., arXiv 2405.19534, Theorem 4.1 and section 4.
"""

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import KNOW, LOOK, UNSEEN, Check, Checked, Measure, PairData
from dpo_diag.pair_checks._measures import by_column, examples, mean, percent, share

HARD_LOSS = 0.1  # a loss that most runs do not reach on held-out pairs; ours
LOOK_ABOVE = 0.2  # share of pairs that need less; ours
COLUMNS = ("domain", "annotator")


class BaseRanking(Check):
    """Pairs ranked wrong by the base, by how much, and the loss each would need."""

    question = "Which pairs does the base model rank wrong, and can DPO turn them?"
    reading = (
        "Ranked right: the chosen answer is at least as likely as the rejected one. The needed "
        f"loss is the largest at which the pair is ranked right; below {HARD_LOSS:g} few runs get."
    )
    misleads = (
        "Sums of log-probs favour short answers; the number per token does not. That a pair stays "
        "ranked wrong does not hurt where only its margin matters: the gap says nothing of the "
        "sign of the implicit reward."
    )
    headline = ("base_ranking_accuracy", "base_ranking_accuracy_per_token", "pairs_out_of_reach")
    about_model = True

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Pairs by how far the base is from ranking them right."""
        scored = data.tables.get("ScoredPairs")
        if scored is None:
            return Checked(
                UNSEEN,
                "Reversals were not predicted: there is no base model.",
                "Give the model that training starts from with --model BASE.",
            )
        wrong_by, per_token = gaps(data, scored)
        needed = needed_loss(wrong_by, beta=data.beta)
        is_wrong = wrong_by > 0
        hard = np.where(np.isnan(needed), np.nan, needed < HARD_LOSS)
        measures = [
            share("base_ranking_accuracy", _right(wrong_by), data, better="higher"),
            share("base_ranking_accuracy_per_token", _right(per_token), data, better="higher"),
            share("pairs_out_of_reach", hard, data),
            mean("base_gap", wrong_by, data, unit="nats, rejected less chosen", better="lower"),
            _needed_where_wrong(needed[is_wrong], data, is_wrong),
        ]
        for column in COLUMNS:
            measures += by_column(
                "base_ranking_accuracy", _right(wrong_by), data, column, better="higher"
            )
        wrong = share("", np.where(np.isnan(wrong_by), np.nan, is_wrong), data).interval
        found = f"The base model ranks {percent(wrong)} of pairs wrong"
        if is_wrong.any():
            found += (
                f"; at beta {data.beta:g} half of these need a DPO loss of at most "
                f"{np.median(needed[is_wrong]):.2f}, and {percent(measures[2].interval)} of all "
                f"pairs one below {HARD_LOSS:g}: these are unlikely to be turned"
            )
        share_hard = measures[2].interval.estimate
        notes = pd.Series(
            [
                f"wrong by {c:.1f} nats, needs a loss of {v:.3g}"
                for c, v in zip(wrong_by, needed, strict=True)
            ]
        )
        return Checked(
            LOOK if share_hard > LOOK_ABOVE else KNOW,
            f"{found}.",
            "Read the pairs that are wrong by most for wrong labels; train on the chosen answers "
            "first (SFT), since DPO seldom turns such pairs; afterwards dpo-diag reversals says "
            "which stayed.",
            tuple(measures),
            examples(data, is_wrong, "ranked_wrong_by_base", notes, wrong_by),
            weight=float(share_hard) if share_hard == share_hard else 0.0,
        )


CHECK = BaseRanking


def gaps(data: PairData, scored: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Log-prob of rejected less chosen, summed and per token, (n,) each; NaN where not scored."""
    columns = ["logp_chosen", "logp_rejected", "n_tokens_chosen", "n_tokens_rejected"]
    found = scored.drop_duplicates("pair_id").set_index("pair_id")[columns]
    chosen, rejected, n_chosen, n_rejected = found.reindex(data.rows["pair_id"]).to_numpy(float).T
    return rejected - chosen, rejected / n_rejected - chosen / n_chosen


def needed_loss(wrong_by: np.ndarray, *, beta: float) -> np.ndarray:
    """Largest DPO loss at which a pair is ranked right, ``-log sigma(beta c)``.

    At beta 0.1 and c = 5 it is log(1 + exp(-0.5)) = 0.474.

    Args:
        wrong_by: (n,) c in nats, above 0 where the base is wrong.
        beta: of the run.
    """
    with np.errstate(invalid="ignore"):  # a pair that was not scored stays missing
        return np.logaddexp(0.0, -beta * wrong_by)


def _right(wrong_by: np.ndarray) -> np.ndarray:
    """1 where ranked right, 0 where wrong, one half for a tie, NaN where unknown."""
    return np.where(np.isnan(wrong_by), np.nan, (1.0 - np.sign(wrong_by)) / 2.0)


def _needed_where_wrong(needed: np.ndarray, data: PairData, is_wrong: np.ndarray) -> Measure:
    values = np.full(data.n, np.nan)
    values[is_wrong] = needed
    return mean("needed_loss", values, data, unit="nats, of pairs ranked wrong", better="higher")
