import dataclasses
import math

import numpy as np
import pytest
import torch

from dpo_diag.errors import DataError, RecipeError
from dpo_diag.variants._base import PairLogps, TrainingFacts
from dpo_diag.variants.sspo import Sspo, kde_threshold, silverman

FACTS = TrainingFacts(n_pairs=25, n_steps=10, n_unlabelled=75)


def batch(chosen: list[float], rejected: list[float], unlabelled: list[float]) -> PairLogps:
    """Answers of two tokens whose rewards at beta 2 are the given numbers."""

    def tensor(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64, requires_grad=True)

    nan = torch.full((len(chosen),), torch.nan, dtype=torch.float64)
    two = torch.full((len(chosen),), 2)
    return PairLogps(
        *(tensor(chosen), tensor(rejected), nan, nan, two, two, torch.arange(len(chosen))),
        unlabelled_policy=tensor(unlabelled),
        unlabelled_ref=torch.full((len(unlabelled),), torch.nan),
        unlabelled_n_tokens=torch.full((len(unlabelled),), 2),
    )


def test_threshold_by_hand() -> None:
    """One winner at 1, one loser at 0, bandwidth .5, prior .6: .5 - .25 log(.6/.4) = .398634."""
    one, zero = torch.tensor([1.0]), torch.tensor([0.0])
    found = kde_threshold(one, zero, prior=0.6, bandwidth=0.5)
    assert found == pytest.approx(0.398634, abs=4e-5)


def test_pseudo_label_and_its_loss_by_hand() -> None:
    """.6 * -log sigmoid(.9 - .398634) = .6 * .473561 = .284137; 1 - g = .75 of it is .213103."""
    variant = Sspo(beta=2.0, prior=0.6, bandwidth=0.5, g_init=0.25)
    state = variant.init_state(FACTS)
    value = variant.penalty(batch([1.0], [0.0], [0.9]), state)
    assert value.item() == pytest.approx(0.75 * 0.284137, abs=2e-5)


def test_a_pseudo_loser_is_pushed_down_with_the_other_prior() -> None:
    """At reward .1: (1 - .6) * -log sigmoid(.398634 - .1) = .4 * .554937 = .221975."""
    variant = Sspo(beta=2.0, prior=0.6, bandwidth=0.5, g_init=0.25)
    given = batch([1.0], [0.0], [0.1])
    value = variant.penalty(given, variant.init_state(FACTS))
    expected = 0.4 * math.log1p(math.exp(-(0.5 - 0.25 * math.log(1.5) - 0.1)))
    assert value.item() == pytest.approx(0.75 * expected, abs=2e-5)
    value.backward()
    assert given.unlabelled_policy.grad.item() > 0  # descent lowers it
    assert given.policy_chosen.grad is None  # the threshold is held fixed


def test_labelled_loss_by_hand() -> None:
    """G of .25 times -log sigmoid(1 - 0 - 2) = .25 * 1.313262 = .328315."""
    variant = Sspo(beta=2.0, margin=2.0, g_init=0.25)
    value = variant.losses(batch([1.0], [0.0], [0.5]), variant.init_state(FACTS))
    assert value.item() == pytest.approx(0.328315, abs=1e-6)


def test_a_held_out_pair_is_not_weighted() -> None:
    variant = Sspo(beta=2.0, margin=2.0, g_init=0.25)
    held_out = dataclasses.replace(batch([1.0], [0.0], [0.5]), pair_index=torch.tensor([-1]))
    value = variant.losses(held_out, variant.init_state(FACTS))
    assert value.item() == pytest.approx(1.313262, abs=1e-6)


def test_weight_falls_from_one_to_the_labelled_share() -> None:
    """exp(-.5 t) until it meets 25 / (25 + 75) = .25: 1, .606531, .367879, .25."""
    variant = Sspo(beta=2.0, decay=0.5)
    state, given = variant.init_state(FACTS), batch([1.0], [0.0], [0.5])
    weights = []
    for _ in range(5):
        weights.append(state["labelled_weight"])
        state = variant.update_state(given, state)
    assert weights == pytest.approx([1.0, 0.606531, 0.367879, 0.25, 0.25], abs=1e-6)
    assert Sspo(g_min=0.4).init_state(FACTS)["least_weight"] == 0.4


def test_threshold_is_smoothed_from_its_first_value() -> None:
    """Midpoints .5, then 2.5: the first stands, the second enters with .05: .5 * .95 + .125."""
    variant = Sspo(beta=2.0, bandwidth=0.5)
    state = variant.update_state(batch([1.0], [0.0], [0.9]), variant.init_state(FACTS))
    assert variant.metrics(state)["threshold"] == pytest.approx(0.5, abs=4e-5)
    state = variant.update_state(batch([3.0], [2.0], [0.9, 0.2]), state)
    assert variant.metrics(state)["threshold"] == pytest.approx(0.6, abs=1e-4)
    assert variant.metrics(state)["pseudo_winner_rate"] == 0.5


def test_the_codes_threshold_is_the_least_chosen_reward() -> None:
    """Chosen at 3 and -1, unpaired at 0 and 1: all of these are winners; the kernels' say none."""
    given = batch([3.0, -1.0], [-2.0, -3.0], [0.0, -0.5])
    code = Sspo(beta=2.0, threshold="min_chosen", smoothing=0.0)
    state = code.update_state(given, code.init_state(FACTS))
    assert (state["threshold"], state["pseudo_winner_rate"]) == (-1.0, 1.0)
    paper = Sspo(beta=2.0, smoothing=0.0, bandwidth=0.1)
    assert paper.update_state(given, paper.init_state(FACTS))["threshold"] < -1.0


def test_threshold_agrees_with_a_slow_search() -> None:
    """Twenty planted worlds; the least risk by brute force over a grid, scipy's normal law."""
    from scipy.stats import norm

    for seed in range(20):
        rng = np.random.default_rng(seed)
        winners, losers = rng.normal(1, 1, 9), rng.normal(-0.5, 1.5, 9)
        prior = rng.uniform(0.2, 0.8)
        low, high = min(*winners, *losers), max(*winners, *losers)
        widths = []
        for side in (winners, losers):
            quartiles = np.subtract(*np.quantile(side, [0.75, 0.25])) / 1.34
            widths.append(0.9 * min(side.std(ddof=1), quartiles) * 9**-0.2)
        grid = np.linspace(low, high, 20001)
        risk = prior * norm.cdf((grid[:, None] - winners) / widths[0]).mean(1)
        risk += (1 - prior) * norm.sf((grid[:, None] - losers) / widths[1]).mean(1)
        found = kde_threshold(torch.tensor(winners), torch.tensor(losers), prior=prior)
        at = np.interp(found, grid, risk)
        assert at <= risk.min() + 1e-6
        assert low <= found <= high


def test_separated_rewards_are_separated_by_the_threshold() -> None:
    """The paper's theorem in small: winners near 3, losers near -3, none on the wrong side."""
    rng = np.random.default_rng(0)
    winners = torch.tensor(rng.normal(3, 0.5, 64))
    losers = torch.tensor(rng.normal(-3, 0.5, 64))
    found = kde_threshold(winners, losers, prior=0.5)
    assert losers.max() < found < winners.min()


def test_bandwidth_is_silvermans_and_never_zero() -> None:
    """1, 2, 3, 4: s 1.290994, IQR 1.5 / 1.34 = 1.119403; .9 * 1.119403 * 4^-.2 = .763513."""
    assert silverman(torch.tensor([1.0, 2.0, 3.0, 4.0]), floor=0.1) == pytest.approx(
        0.763513, abs=1e-6
    )
    assert silverman(torch.tensor([2.0]), floor=0.1) == 0.1
    assert silverman(torch.tensor([2.0, 2.0]), floor=0.1) == 0.1


def test_equal_rewards_have_a_threshold_too() -> None:
    one = torch.tensor([1.0, 1.0])
    assert kde_threshold(one, one, prior=0.5) == 1.0


def test_a_batch_without_unpaired_answers_is_named() -> None:
    given = batch([1.0], [0.0], [0.5])
    bare = PairLogps(**{**vars(given), "unlabelled_policy": None})
    with pytest.raises(DataError, match="answers without preferences"):
        Sspo().penalty(bare, Sspo().init_state(FACTS))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("beta", 0.0),
        ("margin", -1.0),
        ("prior", 1.0),
        ("threshold", "mean"),
        ("bandwidth", -1.0),
        ("smoothing", 1.0),
        ("g_init", 1.5),
        ("g_min", -0.1),
        ("decay", -1.0),
        ("unlabelled_per_batch", 0),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(RecipeError, match=field):
        Sspo(**{field: value})


def test_a_least_weight_above_the_first_one_is_refused() -> None:
    """The weight falls from g_init to g_min; the other way round one would count for nothing."""
    assert Sspo(g_init=0.5, g_min=0.5).init_state(FACTS)["labelled_weight"] == 0.5
    with pytest.raises(RecipeError, match=r"g_min is 0\.6, above g_init 0\.5"):
        Sspo(g_init=0.5, g_min=0.6)
