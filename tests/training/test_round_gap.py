"""A round's estimate of the duality gap from its own samples."""

import numpy as np
import pytest

from dpo_diag.stats.games import best_of_n
from dpo_diag.training.round_gap import RoundView, round_gap


def view(n: int = 40, k: int = 6, **changes: np.ndarray) -> RoundView:
    nan = np.full(n, np.nan)
    fields = {
        "wins": np.full((n, k, k), 0.5),
        "logratio": np.zeros((n, k)),
        "earlier_wins": nan,
        "earlier_logratio": nan,
    }
    return RoundView(**{**fields, **changes})


def found(seen: RoundView, price: float = 0.0) -> dict[str, float]:
    return round_gap(seen, kl_price=price, rng=np.random.default_rng(0))


def test_policy_whose_samples_are_all_even_has_no_gap() -> None:
    values = found(view())
    assert values["best_of_n_win_rate"] == 0.5
    assert values["duality_gap"] == 0.0
    assert "earlier_win_rate" not in values


def test_earlier_policy_that_wins_makes_a_gap() -> None:
    """0.7 everywhere: 2 * 0.7 - 1 = 0.4."""
    n = 40
    values = found(view(earlier_wins=np.full(n, 0.7), earlier_logratio=np.zeros(n)))
    assert values["earlier_win_rate"] == pytest.approx(0.7)
    assert values["duality_gap"] == pytest.approx(0.4)


def test_price_is_of_divergence_beyond_the_policys_own() -> None:
    """The earlier policy is 3 nats from the reference, the policy 1: 0.1 a nat costs 2 * 0.2."""
    n = 40
    seen = view(
        earlier_wins=np.full(n, 0.9),
        earlier_logratio=np.full(n, 3.0),
        logratio=np.ones((n, 6)),
    )
    assert found(seen, 0.1)["duality_gap"] == pytest.approx(2 * 0.9 - 1 - 2 * 0.2)


def test_best_of_n_pays_its_divergence_from_the_policy_and_what_it_picks() -> None:
    """Sample 0 always wins; its log-ratio is 2 while the mean is 2 / 6.

    Half of 6 are candidates: n = 3. Gain 2 * 1 - 1 less 2 * price * (log 3 - 2/3 + 2 - 1/3).
    """
    n, k = 40, 6
    wins = np.full((n, k, k), 0.5)
    wins[:, 0, 1:], wins[:, 1:, 0] = 1.0, 0.0
    logratio = np.zeros((n, k))
    logratio[:, 0] = 2.0
    bound = best_of_n(wins).kl_bound
    values = found(view(wins=wins, logratio=logratio), 0.05)
    assert values["best_of_n_win_rate"] == 1.0
    assert values["duality_gap"] == pytest.approx(1 - 2 * 0.05 * (bound + 2 - 1 / 3))


def test_few_samples_and_no_earlier_round_give_nothing() -> None:
    assert found(view(k=3)) == {}


def test_what_cannot_be_estimated_is_left_out() -> None:
    values = found(view(n=1))
    assert values == {"best_of_n_win_rate": 0.5}
