"""AuxDPO by hand, against dense linear algebra, and on the bandit whose optimum is known."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps, TrainingFacts
from dpo_diag.variants.auxdpo import AuxDpo
from dpo_diag.variants.dpo import Dpo

COUNTS = [(1, 1, 10), (1, 1, 1), (100, 1, 1)]


class Dense:
    """Inner products from a stored matrix of gradients, (B, 2, d), and a count of the calls."""

    def __init__(self, gradients: torch.Tensor) -> None:
        self.gradients, self.n_calls = gradients, 0

    def __call__(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.n_calls += 1
        vector = torch.einsum("bs,bsd->d", weights, self.gradients)
        return vector.square().sum(), self.gradients @ vector


def batch_of(margins: torch.Tensor, gradients: Any = None) -> PairLogps:
    """Pairs whose unscaled implicit margins are the given ones, numbered from 0."""
    zero = torch.zeros_like(margins)
    counts = torch.ones(len(margins), dtype=torch.int64)
    return PairLogps(
        policy_chosen=margins,
        policy_rejected=zero,
        ref_chosen=zero,
        ref_rejected=zero,
        n_tokens_chosen=counts,
        n_tokens_rejected=counts,
        pair_index=torch.arange(len(margins)),
        gradients=gradients,
    )


def state_of(offsets: torch.Tensor, step: int = 0) -> dict[str, Any]:
    return {"step": step, "raw": offsets.clone().requires_grad_()}


def hand_batch() -> PairLogps:
    """The pair of the module's docstring."""
    return batch_of(torch.tensor([2.0]), Dense(torch.tensor([[[1.0, 0.0], [1.0, 2.0]]])))


def test_offsets_stand_outside_beta() -> None:
    """0.5 * 2 + (0.3 + 0.2) = 1.5; log(1 + exp(-1.5)) = log(1.22313) = 0.20141."""
    state = state_of(torch.tensor([[0.3, -0.2]]))
    assert AuxDpo(beta=0.5).losses(hand_batch(), state).item() == pytest.approx(0.20141, abs=1e-5)


def test_offsets_inside_beta_are_the_official_notebooks() -> None:
    """0.5 * (2 + 0.5) = 1.25; log(1 + exp(-1.25)) = log(1.28650) = 0.25193."""
    state, variant = state_of(torch.tensor([[0.3, -0.2]])), AuxDpo(beta=0.5, offset_place="inside")
    assert variant.losses(hand_batch(), state).item() == pytest.approx(0.25193, abs=1e-5)


def test_penalty_is_the_squared_norm_of_the_mean_and_moves_the_offsets_alone() -> None:
    """Mean (0.05, -0.2): square 0.0425; 2 <g, mean> / 2 = 0.05 and 0.05 - 0.4."""
    state = state_of(torch.tensor([[0.3, -0.2]]))
    penalty = AuxDpo(penalty_every=1).penalty(hand_batch(), state)
    assert penalty is not None
    penalty.backward()
    assert penalty.item() == pytest.approx(0.0425)
    assert state["raw"].grad.tolist()[0] == pytest.approx([0.05, -0.35])


@pytest.mark.parametrize("scale", ["mean", "sum"])
@pytest.mark.parametrize("cap", [0.0, 0.7])
def test_penalty_agrees_with_autograd_through_the_dense_sum(scale: str, cap: float) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(5, 2, 9, generator=generator)
    raw = torch.randn(5, 2, generator=generator)
    variant = AuxDpo(lambda_null=0.3, penalty_every=1, penalty_scale=scale, cap=cap, lambda_amp=0.2)
    state = state_of(raw)
    got = variant.penalty(batch_of(torch.zeros(5), Dense(gradients)), state)
    assert got is not None
    got.backward()

    free = raw.clone().requires_grad_()
    offsets = cap * torch.tanh(free) if cap else free
    total = torch.einsum("bs,bsd->d", offsets, gradients) / (10 if scale == "mean" else 1)
    amplitude = (offsets[:, 0].pow(2).mean() + offsets[:, 1].pow(2).mean()) / 2
    expected = 0.3 * total.pow(2).sum() - 0.2 * amplitude
    expected.backward()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(state["raw"].grad, free.grad)


def test_penalty_comes_every_so_many_steps_with_its_full_weight_on_average() -> None:
    variant, batch = AuxDpo(penalty_every=3), hand_batch()
    values = []
    state = state_of(torch.tensor([[0.3, -0.2]]))
    for _ in range(6):
        penalty = variant.penalty(batch, state)
        values.append(0.0 if penalty is None else penalty.item())
        state = variant.update_state(batch, state)
    assert values == pytest.approx([3 * 0.0425, 0, 0, 3 * 0.0425, 0, 0])
    assert batch.gradients.n_calls == 2


def test_offsets_of_zero_cost_no_gradients() -> None:
    variant, batch = AuxDpo(penalty_every=1), hand_batch()
    assert variant.penalty(batch, state_of(torch.zeros(1, 2))) is None
    assert batch.gradients.n_calls == 0


def test_offsets_in_the_null_space_are_free_of_penalty() -> None:
    """Gradients (1, 0) and (-2, 0) cancel at offsets 2 to 1."""
    batch = batch_of(torch.zeros(1), Dense(torch.tensor([[[1.0, 0.0], [-2.0, 0.0]]])))
    state = state_of(torch.tensor([[2.0, 1.0]]))
    penalty = AuxDpo(penalty_every=1).penalty(batch, state)
    assert penalty is not None
    penalty.backward()
    assert penalty.item() == 0.0
    assert not state["raw"].grad.any()


def test_amplitude_is_a_reward_for_large_offsets() -> None:
    """-0.5 * (0.3^2 + 0.2^2) / 2 = -0.0325, and more offset makes it less."""
    state = state_of(torch.tensor([[0.3, -0.2]]))
    value = AuxDpo(lambda_amp=0.5, lambda_null=0.0).penalty(hand_batch(), state)
    assert value is not None
    value.backward()
    assert value.item() == pytest.approx(-0.0325)
    assert state["raw"].grad.tolist()[0] == pytest.approx([-0.15, 0.1])


def test_fresh_state_is_dpo_and_the_offsets_move_at_once() -> None:
    margins = torch.tensor([2.0, -1.0, 0.3])
    state = AuxDpo().init_state(TrainingFacts(n_pairs=3))
    values = AuxDpo().losses(batch_of(margins), state)
    torch.testing.assert_close(values, Dpo().losses(batch_of(margins)))
    values.sum().backward()
    assert (state["raw"].grad[:, 0] < 0).all()
    assert (state["raw"].grad[:, 1] > 0).all()


@pytest.mark.parametrize("null_space", ["penalty", "exact"])
def test_pairs_that_are_not_trained_on_have_no_offset(null_space: str) -> None:
    variant = AuxDpo(null_space=null_space)
    state = variant.init_state(TrainingFacts(3, null_space=torch.ones(3, 2, 1)))
    key = "raw" if null_space == "penalty" else "coordinates"
    state[key] = torch.full_like(state[key], 5.0) * torch.tensor([1.0])
    if null_space == "penalty":
        state[key][:, 1] = 0.0
    else:
        state["basis"][:, 1] = 0.0
    margins = torch.tensor([2.0, -1.0, 0.3])
    held_out = dataclasses.replace(batch_of(margins), pair_index=torch.tensor([-1, 1, -1]))
    plain, values = Dpo().losses(batch_of(margins)), variant.losses(held_out, state)
    torch.testing.assert_close(values[[0, 2]], plain[[0, 2]])
    assert values[1] < plain[1] - 0.5


def test_rewards_leave_the_offsets_out() -> None:
    logp, ref = torch.tensor([-3.0]), torch.tensor([-5.0])
    assert AuxDpo(beta=0.5).rewards(logp, ref, torch.tensor([4])).item() == 1.0


def test_metrics_tell_the_size_of_the_offsets_and_how_near_the_cap_they_are() -> None:
    state = state_of(torch.tensor([[0.5, -0.5], [0.0, 1.0]]))
    assert AuxDpo().metrics(state) == {"mean_abs_offset": pytest.approx(0.5)}
    large = state_of(torch.full((2, 2), 40.0))
    capped = AuxDpo(cap=0.3).metrics(large)
    assert capped["mean_abs_offset"] == pytest.approx(0.3)
    assert capped["offset_over_cap"] == pytest.approx(1.0)


def bandit(counts: tuple[int, int, int]) -> tuple[PairLogps, torch.Tensor, Callable]:
    """Every ordered comparison of three responses once, its weight, and the policy's margins.

    True rewards 2, 3, 1; policy softmax of (t, -t, 0); reference uniform.
    """
    truth = torch.tensor([2.0, 3.0, 1.0], dtype=torch.float64)
    winners, losers, weights = [], [], []
    for (i, j), n in zip([(0, 1), (1, 2), (0, 2)], counts, strict=True):
        for a, b in ((i, j), (j, i)):
            winners.append(a)
            losers.append(b)
            weights.append(n * torch.sigmoid(truth[a] - truth[b]))

    def policy(theta: torch.Tensor) -> torch.Tensor:
        logits = torch.stack([theta, -theta, torch.zeros_like(theta)])
        return torch.log_softmax(logits, 0)

    def batch(theta: torch.Tensor) -> PairLogps:
        logp = policy(theta)
        return batch_of(logp[winners] - logp[losers])

    offsets_of = torch.tensor([winners, losers]).T  # (6, 2) responses of each comparison
    return batch, torch.stack(weights), (policy, offsets_of)


def optimum(parameters: list[torch.Tensor], loss: Callable[[], torch.Tensor]) -> None:
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn=None
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


@pytest.mark.parametrize("counts", COUNTS)
def test_bandits_optimum_is_the_golden_one_whatever_the_counts(
    counts: tuple[int, int, int],
) -> None:
    """At t = -1/2 the policy is softmax(-.5, .5, 0) = (.1863, .5065, .3072): E[r] - 1 = 1.1993.

    The offsets lie in span{(1, 1, 0), (0, 0, 1)}, the null space of the gradients (1, -1, 0); the
    first exceeds the last by 3/2. Rewards are 1, 2, 0 on the scale on which the reference has 1.
    """
    batch, weights, (policy, responses) = bandit(counts)
    null_space = torch.tensor([[1.0, 0], [1, 0], [0, 1]], dtype=torch.float64)
    variant = AuxDpo(beta=1.0, null_space="exact")
    state = variant.init_state(TrainingFacts(6, null_space=null_space[responses]))
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        return (weights * variant.losses(batch(theta), state)).sum() / weights.sum()

    optimum([theta, state["coordinates"]], loss)
    expected = policy(theta.detach()).exp() @ torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    offsets = null_space @ state["coordinates"].detach()
    assert theta.item() == pytest.approx(-0.5, abs=1e-6)
    assert expected.item() == pytest.approx(1.1993, abs=5e-5)
    assert (offsets - offsets[2]).tolist() == pytest.approx([1.5, 1.5, 0.0], abs=1e-5)


def test_bandit_without_offsets_is_dpos_reversal() -> None:
    """The same loss with no null space gives DPO's 0.8956 at counts 1, 1, 10."""
    batch, weights, (policy, _) = bandit(COUNTS[0])
    variant = AuxDpo(beta=1.0, null_space="exact")
    state = variant.init_state(TrainingFacts(6, null_space=torch.zeros(6, 2, 0)))
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimum([theta], lambda: (weights * variant.losses(batch(theta), state)).sum())
    expected = policy(theta.detach()).exp() @ torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    assert expected.item() == pytest.approx(0.8956, abs=5e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta": 0.0}, "beta must be greater than 0"),
        ({"delta_learning_rate": 0.0}, "delta_learning_rate must be greater than 0"),
        ({"lambda_null": -1.0}, "lambda_null must be 0 or more"),
        ({"cap": -1.0}, "cap must be 0 or more"),
        ({"penalty_every": 0}, "penalty_every must be 1 or more"),
        ({"null_space": "none"}, "null_space must be penalty or exact"),
        ({"penalty_scale": "max"}, "penalty_scale must be mean or sum"),
        ({"offset_place": "beta"}, "offset_place must be outside or inside"),
        ({"null_space": "exact", "cap": 1.0}, "do not go with null_space exact"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        AuxDpo(**values)


def test_exact_form_without_a_basis_is_refused() -> None:
    with pytest.raises(RecipeError, match="needs a basis"):
        AuxDpo(null_space="exact").init_state(TrainingFacts(3))
