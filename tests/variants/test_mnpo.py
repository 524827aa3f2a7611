"""MNPO: numbers by hand, special cases as identities, weights that are read, cyclic games."""

import json
import math

import numpy as np
import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps, build
from dpo_diag.variants.dpo import Dpo
from dpo_diag.variants.inpo import Inpo
from dpo_diag.variants.ipo import Ipo
from dpo_diag.variants.mnpo import Mnpo
from tests.variants.tabular_game import gap, minimum, mirror_descent, played
from tests.variants.test_contract import make_pairs


def hand_made(n_chosen: int = 1, n_rejected: int = 1) -> PairLogps:
    return PairLogps(
        torch.tensor([-1.0]),
        torch.tensor([-4.0]),
        torch.tensor([-2.0]),
        torch.tensor([-3.0]),
        torch.tensor([n_chosen]),
        torch.tensor([n_rejected]),
        torch.tensor([0]),
        history_chosen=torch.tensor([[-1.0], [-1.0]]),
        history_rejected=torch.tensor([[-2.0], [-4.0]]),
    )


def test_squared_loss_is_the_number_worked_by_hand() -> None:
    """Mixture 0.75 * 1 + 0.25 * 3 = 1.5; h = 3 - 0.5 - 0.75 = 1.75; (1.75 - 1)^2 = 0.5625."""
    variant = Mnpo(eta=0.5, ratio=0.5, history_weights=(0.75, 0.25))
    assert variant.losses(hand_made()).item() == pytest.approx(0.5625)


def test_bernoulli_loss_is_the_number_worked_by_hand() -> None:
    """KL(Bern(sigmoid(0.5)) || Bern(sigmoid(0.875))) = 0.01595."""
    variant = Mnpo(eta=0.5, ratio=0.5, history_weights=(0.75, 0.25), divergence="bernoulli_kl")
    p, q = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(-0.875))
    by_hand = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert by_hand == pytest.approx(0.01595, abs=1e-5)
    assert variant.losses(hand_made()).item() == pytest.approx(by_hand, rel=1e-4)


def test_averaged_loss_is_the_number_worked_by_hand() -> None:
    """2 and 4 tokens. D policy = -1/2 + 4/4 = 1/2; ref = -2/2 + 3/4 = -1/4.

    Opponents: -1/2 + 2/4 = 0 and -1/2 + 4/4 = 1/2, mixed 0.75 * 0 + 0.25 * 0.5 = 0.125.
    h = 0.5 + 0.5 * 0.25 - 0.5 * 0.125 = 0.5625; (0.5625 - 1)^2 = 0.19140625.
    """
    variant = Mnpo(eta=0.5, ratio=0.5, history_weights=(0.75, 0.25), average=True)
    assert variant.losses(hand_made(2, 4)).item() == pytest.approx(0.19140625)


def test_averaged_margin_leaves_the_gradient_nearly_constant() -> None:
    """The published eta: the target is 66.7, averaged margins stay within a few nats of 0.

    A margin of 5 instead of 0 changes the gradient 2 (h - 66.7) by 5 / 66.7 = 7.5 %.
    """
    variant, gradients = Mnpo(average=True, ratio=1.0, history_weights=()), []
    for margin in (0.0, 5.0):
        policy = torch.tensor([margin * 10.0], requires_grad=True)
        zero, ten = torch.zeros(1), torch.tensor([10])
        batch = PairLogps(policy, zero, zero, zero, ten, ten, torch.tensor([0]))
        variant.losses(batch).backward()
        gradients.append(policy.grad.item())
    assert 1 - gradients[1] / gradients[0] == pytest.approx(5 / (0.5 / 0.0075), rel=1e-5)


def test_inpo_is_mnpo_with_one_opponent() -> None:
    batch = make_pairs(7, dtype=torch.float64)
    inpo, mnpo = Inpo(eta=0.4, tau=0.1), Mnpo(eta=0.4, ratio=0.25, history_weights=(1.0,))
    torch.testing.assert_close(mnpo.losses(batch), inpo.losses(batch))
    logp, ref = np.array([-1.0, -2.0]), np.array([-2.0, -1.5])
    np.testing.assert_allclose(mnpo.rewards(logp, ref, None), inpo.rewards(logp, ref, None))
    assert mnpo.kl_price == pytest.approx(inpo.kl_price)


def test_ipo_is_mnpo_against_the_reference_alone() -> None:
    batch = make_pairs(7, dtype=torch.float64)
    mnpo = Mnpo(eta=0.1, ratio=1.0, history_weights=())
    torch.testing.assert_close(mnpo.losses(batch), Ipo(tau=0.1).losses(batch))


def test_dpo_is_mnpo_against_the_reference_alone_with_a_certain_target() -> None:
    batch = make_pairs(7, dtype=torch.float64)
    mnpo = Mnpo(eta=0.1, ratio=1.0, history_weights=(), divergence="bernoulli_kl", target=math.inf)
    torch.testing.assert_close(mnpo.losses(batch), Dpo(beta=0.1).losses(batch))


def test_history_weights_are_read_in_order() -> None:
    """All weight on one opponent reads that row and no other."""
    batch = make_pairs(7, dtype=torch.float64)
    policy = batch.policy_chosen - batch.policy_rejected
    ref = batch.ref_chosen - batch.ref_rejected
    past = batch.history_chosen - batch.history_rejected
    for row, weights in enumerate([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]):
        found = Mnpo(ratio=0.25, history_weights=weights).margin(batch)
        torch.testing.assert_close(found, policy - 0.25 * ref - 0.75 * past[row])


def test_weights_read_back_from_a_run_record_name_the_same_reward() -> None:
    variant = Mnpo(history_weights=(0.75, 0.25))
    record = json.loads(json.dumps(vars(variant)))
    assert build(Mnpo, record).reward_def == variant.reward_def


def test_equal_opponents_are_one_opponent() -> None:
    """The author's default, uniform weights, is one opponent if all rows are the same."""
    batch = make_pairs(4, dtype=torch.float64)
    past = {
        f"history_{side}": getattr(batch, f"history_{side}")[:1].expand(3, -1)
        for side in ("chosen", "rejected")
    }
    same = PairLogps(**{**vars(batch), **past})
    torch.testing.assert_close(
        Mnpo(history_weights=(1 / 3, 1 / 3, 1 / 3)).losses(same),
        Mnpo(history_weights=(1.0,)).losses(same),
    )


def test_a_margin_beyond_the_target_costs_again() -> None:
    variant = Mnpo(eta=0.5, ratio=1.0, history_weights=())
    zero, one = torch.zeros(3), torch.ones(3, dtype=torch.int64)
    batch = PairLogps(torch.tensor([0.0, 1.0, 2.0]), zero, zero, zero, one, one, one)
    assert variant.losses(batch).tolist() == [1.0, 0.0, 1.0]


def test_mixture_of_opponents_is_a_step_from_their_geometric_mean() -> None:
    """Opponents enter through their mean log-prob; the pairs come from the first of them."""
    past = [
        torch.log_softmax(torch.tensor(values, dtype=torch.float64), 0)
        for values in ([0.2, -0.5, 1.0], [1.0, 0.3, -0.2])
    ]
    variant = Mnpo(eta=1.0, ratio=0.2, history_weights=(0.75, 0.25))
    step = mirror_descent(past[0], eta=1.0, tau=0.2)
    moved = step + 0.8 * 0.25 * (past[1] - past[0])
    torch.testing.assert_close(
        minimum(variant, past), torch.log_softmax(moved, 0), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("weights", [(1.0,), (0.7, 0.3)])
def test_average_policy_of_a_cyclic_game_settles_while_the_last_goes_in_circles(
    weights: tuple[float, ...],
) -> None:
    """Nearly no price of divergence: tau = 0.001. The gap is exact, over all deviations."""
    policies = played(Mnpo(eta=1.0, ratio=1e-3, history_weights=weights), 200)
    probabilities = torch.stack(policies).exp()
    gaps = [gap(probabilities[:n].mean(0)) for n in (10, 100, 200)]
    assert gaps[0] > 2 * gaps[1] > 3 * gaps[2]
    assert gaps[2] < 0.04
    assert np.mean([gap(p) for p in probabilities[-50:]]) > 0.2


def test_hyper_parameters_out_of_range_are_refused() -> None:
    for parameters, words in [
        ({"history_weights": (0.5, 0.4)}, "must sum to 1, got .* with sum 0.9"),
        ({"history_weights": (1.5, -0.5)}, "each be 0 or more"),
        ({"history_weights": ()}, "needs ratio 1"),
        ({"ratio": 0.0}, "above 0 and at most 1"),
        ({"eta": -1.0}, "eta must be greater than 0"),
        ({"divergence": "l1"}, "squared, bernoulli_kl"),
        ({"target": 0.0}, "target must be greater than 0"),
        ({"target": math.inf}, "needs divergence bernoulli_kl"),
    ]:
        with pytest.raises(RecipeError, match=words):
            Mnpo(**parameters)
