import dataclasses
import math

import numpy as np
import pytest
import torch

from dpo_diag.errors import DataError, RecipeError
from dpo_diag.variants._base import PairLogps, TrainingFacts
from dpo_diag.variants.re_po import RePo


def pairs(margins: torch.Tensor, annotator: torch.Tensor, index: torch.Tensor) -> PairLogps:
    """Pairs whose unscaled margins are given, all of it in the chosen answer."""
    zero, n = torch.zeros_like(margins), torch.ones(len(margins), dtype=torch.int64)
    return PairLogps(
        *(margins, zero, zero, zero, n, n, index),
        extra={"annotator": annotator},
    )


def one_pair(margin: float = 5.0) -> PairLogps:
    zero = torch.zeros(1, dtype=torch.int64)
    return pairs(torch.tensor([margin], dtype=torch.float64), zero, zero)


def test_loss_by_hand() -> None:
    """At .5, p = .622459; w = .560213 / (.560213 + .0377541) = .936863; the loss is .505646."""
    variant = RePo(beta=0.1)
    state = variant.init_state(TrainingFacts(1, n_annotators=1))
    assert variant.label_weights(one_pair(), state).item() == pytest.approx(0.936863, abs=5e-7)
    assert variant.losses(one_pair(), state).item() == pytest.approx(0.505646, abs=5e-7)


def test_reliability_after_one_step_by_hand() -> None:
    """.9 * .9 + .1 * .936863 = .903686; the annotator without a pair keeps .9."""
    variant = RePo(beta=0.1)
    state = variant.update_state(one_pair(), variant.init_state(TrainingFacts(1, n_annotators=2)))
    assert state["reliability"].tolist() == pytest.approx([0.903686, 0.9], abs=5e-7)
    metrics = variant.metrics(state)
    assert metrics["reliability/mean"] == pytest.approx(0.901843, abs=1e-6)
    assert metrics["reliability/min"] == pytest.approx(0.9)
    assert metrics["reliability/max"] == pytest.approx(0.903686, abs=5e-7)
    assert metrics["label_weight"] == pytest.approx(0.936863, abs=5e-7)


@pytest.mark.parametrize("margin", [-30.0, -3.0, 0.0, 8.0])
def test_gradient_is_that_of_the_likelihood_of_the_noisy_label(margin: float) -> None:
    """EM's identity: the M-step's gradient equals that of -log(eta p + (1 - eta)(1 - p))."""
    variant, eta = RePo(beta=0.2, eta_init=0.8), 0.8
    policy = torch.tensor([margin], dtype=torch.float64, requires_grad=True)
    batch = dataclasses.replace(one_pair(), policy_chosen=policy)
    state = variant.init_state(TrainingFacts(1, n_annotators=1))
    (given,) = torch.autograd.grad(variant.losses(batch, state).sum(), policy)
    p = torch.sigmoid(0.2 * policy)
    (wanted,) = torch.autograd.grad(-torch.log(eta * p + (1 - eta) * (1 - p)).sum(), policy)
    assert given.item() == pytest.approx(wanted.item(), rel=1e-9)


def test_confident_disagreement_turns_the_label_round() -> None:
    """At beta m = -6 and eta .9 the label is held wrong and the gradient is nearly gone."""
    variant = RePo(beta=0.1)
    weight = variant.label_weights(one_pair(-60.0), None).item()
    assert weight == pytest.approx(1 / (1 + math.exp(6) / 9), rel=1e-9)
    assert weight < 0.03


def test_planted_reliabilities_come_back() -> None:
    """Twelve answers to one prompt, true scores -5 .. 5, three annotators of 4,000 labels each.

    The clean preference is Bradley-Terry in the scores, then turned round by the annotator. A
    tabular policy (a free log-prob per answer) starts at the reference. The standard error of a
    rate of 4,000 labels is at most .008; wide gaps tell an annotator's slips from close calls.
    """
    planted, rng = (0.95, 0.8, 0.65), np.random.default_rng(0)
    scores, n = np.linspace(-5, 5, 12), 4000
    first = rng.integers(0, 12, 3 * n)
    second = (first + rng.integers(1, 12, 3 * n)) % 12
    annotator = np.repeat(np.arange(3), n)
    prefers_first = rng.random(3 * n) < 1 / (1 + np.exp(scores[second] - scores[first]))
    prefers_first ^= rng.random(3 * n) > np.asarray(planted)[annotator]
    chosen = torch.tensor(np.where(prefers_first, first, second))
    rejected = torch.tensor(np.where(prefers_first, second, first))
    table = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([table], lr=0.1)
    variant, who = RePo(beta=1.0), torch.tensor(annotator)
    state = variant.init_state(TrainingFacts(3 * n, n_annotators=3))
    for _ in range(400):
        batch = pairs(table[chosen] - table[rejected], who, torch.arange(3 * n))
        optimizer.zero_grad()
        variant.losses(batch, state).mean().backward()
        optimizer.step()
        detached = dataclasses.replace(batch, policy_chosen=batch.policy_chosen.detach())
        state = variant.update_state(detached, state)
    assert state["reliability"].tolist() == pytest.approx(planted, abs=0.03)
    learned = table.detach().numpy() - table.detach().numpy().mean()
    np.testing.assert_allclose(learned, scores, atol=0.5)


def test_without_attribution_there_is_one_virtual_annotator() -> None:
    variant = RePo(attributed=False)
    assert RePo.needs.annotators
    assert not variant.needs.annotators
    state = variant.init_state(TrainingFacts(4, n_annotators=0))
    assert state["reliability"].shape == (1,)
    bare = dataclasses.replace(one_pair(), extra={})
    assert variant.losses(bare, state).item() == pytest.approx(0.505646, abs=5e-7)
    assert variant.update_state(bare, state)["reliability"].item() == pytest.approx(0.903686)


def test_a_held_out_pair_is_judged_with_the_mean_reliability() -> None:
    """Its annotator's code may stand for somebody else among the training pairs, or be unknown."""
    variant = RePo(beta=0.1)
    state = {"reliability": torch.tensor([0.6, 0.8], dtype=torch.float64), "label_weight": 0.7}
    seven = torch.tensor([7])
    batch = pairs(torch.zeros(1, dtype=torch.float64), seven, torch.tensor([-1]))
    assert variant.label_weights(batch, state).item() == pytest.approx(0.7)


def test_reliability_never_reaches_a_point_of_no_return() -> None:
    variant = RePo(beta=1.0, momentum=1.0)
    state = variant.init_state(TrainingFacts(1, n_annotators=1))
    state = variant.update_state(one_pair(1e4), state)
    assert state["reliability"].item() == pytest.approx(1 - 1e-4)
    state = variant.update_state(one_pair(-1e4), state)
    assert state["reliability"].item() == pytest.approx(1e-4)


def test_missing_annotators_are_named_with_the_way_out() -> None:
    bare = dataclasses.replace(one_pair(), extra={})
    state = RePo().init_state(TrainingFacts(1))
    with pytest.raises(DataError, match=r"column annotator .* variant.attributed to false"):
        RePo().losses(bare, state)


@pytest.mark.parametrize(
    ("field", "value"), [("beta", 0.0), ("eta_init", 0.5), ("eta_init", 1.0), ("momentum", 0.0)]
)
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(RecipeError, match=field):
        RePo(**{field: value})
