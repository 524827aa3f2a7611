"""What a round's own samples say of the policy's duality gap, at little cost beyond the oracle's.

The deviations are two: the best of half of the policy's own samples, and the policy that answered
the same prompts in an earlier round. Both are crude, so the gap is a lower bound and a small one
proves nothing. Start reading at ``round_gap``.
"""

from dataclasses import dataclass

import numpy as np

from dpo_diag.stats.games import best_of_n, duality_gap

MIN_SAMPLES = 4  # below, nothing is left to choose and to judge by


@dataclass(frozen=True)
class RoundView:
    """P prompts with K samples each, as judged at the start of a round.

    Attributes:
        wins: (P, K, K) chance that one sample beats another.
        logratio: (P, K) nats, policy over reference.
        earlier_wins: (P,) chance that an answer of an earlier round's policy beats one of this
            round's; NaN where there is none.
        earlier_logratio: (P,) nats, mean over that policy's answers of its own log-ratio.
    """

    wins: np.ndarray
    logratio: np.ndarray
    earlier_wins: np.ndarray
    earlier_logratio: np.ndarray


def round_gap(view: RoundView, *, kl_price: float, rng: np.random.Generator) -> dict[str, float]:
    """The estimates to log, in win probability; what cannot be estimated is left out.

    ``duality_gap`` with limits ``_low`` and ``_high``; ``best_of_n_win_rate`` and
    ``earlier_win_rate`` are the two deviations' chances against the policy (1/2 is even).

    Args:
        view: of the round.
        kl_price: win probability per nat of divergence from the reference in the game's value.
        rng: splits the prompts into halves.
    """
    own = view.logratio.mean(1)  # (P,) unbiased for KL(policy || ref) at the prompt
    wins, penalties, found = [], [], {}
    if view.wins.shape[1] >= MIN_SAMPLES:
        best = best_of_n(view.wins)
        rows = np.arange(len(own))
        chosen = view.logratio[rows, np.maximum(best.chosen, 0)]
        wins.append(best.win_rate)
        # KL(best || ref) = KL(best || policy) + E_best log(policy / ref)
        penalties.append(kl_price * (best.kl_bound + chosen - own))
        found["best_of_n_win_rate"] = best.win_rate
    if np.isfinite(view.earlier_wins).any():
        wins.append(view.earlier_wins)
        penalties.append(kl_price * (view.earlier_logratio - own))
        found["earlier_win_rate"] = view.earlier_wins
    if not wins:
        return {}
    gap = duality_gap(np.stack(wins), penalties=np.stack(penalties), rng=rng)
    values = {key: _mean(column) for key, column in found.items()}
    values |= {
        "duality_gap": gap.estimate,
        "duality_gap_low": gap.low,
        "duality_gap_high": gap.high,
    }
    return {key: float(value) for key, value in values.items() if np.isfinite(value)}


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
