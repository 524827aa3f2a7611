import dataclasses
import math

import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import SampleLogps, TrainingFacts
from dpo_diag.variants.repo_offline import RepoOffline


def samples(
    reward: list[float],
    cost: list[float],
    *,
    prompts: list[int] | None = None,
    logratio: list[float] | None = None,
    drift: list[float] | None = None,
) -> SampleLogps:
    """Log-ratios to the reference, and of the policy to what drew the samples."""
    n = len(reward)

    def tensor(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    ref = torch.full((n,), -5.0, dtype=torch.float64)
    policy = ref + tensor(logratio or [0.0] * n)
    return SampleLogps(
        policy=policy,
        behaviour=policy - tensor(drift or [0.0] * n),
        ref=ref,
        n_tokens=torch.full((n,), 4),
        reward=tensor(reward),
        cost=tensor(cost),
        prompt_index=torch.tensor(prompts or [0] * n),
    )


def test_loss_by_hand() -> None:
    """A_R = +-.4, A_C = +-.3, A_lr = +-1 at lambda 2, kappa .1: e = (.4 - .6 - .1)/3 = -.1."""
    batch = samples([0.9, 0.5], [0.3, -0.1], logratio=[1.0, 0.0])
    value = RepoOffline(kappa=0.1).sample_losses(batch, {"lambda": 2.0})
    assert value.tolist() == pytest.approx([0.005, 0.005])


def test_loss_is_zero_where_the_log_ratio_is_the_rectified_reward() -> None:
    """Kappa lr = R - lambda [C]+ + 7, of the two prompts with constants of their own."""
    reward, cost = [0.9, 0.5, 0.1, 0.8], [0.3, -0.1, -2.0, 0.2]
    prompts = [0, 0, 0, 1]
    wanted = [r - 1.5 * max(c, 0.0) for r, c in zip(reward, cost, strict=True)]
    logratio = [w / 0.05 + 7.0 + 30.0 * p for w, p in zip(wanted, prompts, strict=True)]
    batch = samples(reward, cost, prompts=prompts, logratio=logratio)
    value = RepoOffline().sample_losses(batch, {"lambda": 1.5})
    assert value.tolist() == pytest.approx([0.0] * 4, abs=1e-15)


def test_descent_reaches_that_optimum() -> None:
    batch = samples([0.9, 0.5, 0.1], [0.3, -0.1, -2.0])
    policy = batch.policy.clone().requires_grad_()
    optimizer = torch.optim.Adam([policy], lr=0.2)
    for _ in range(500):
        moved = dataclasses.replace(batch, policy=policy)
        loss = RepoOffline().sample_losses(moved, {"lambda": 1.0}).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    implied = 0.05 * (policy.detach() - batch.ref)
    # R - [C]+ = .6, .5, .1
    assert (implied[0] - implied[1]).item() == pytest.approx(0.1, abs=1e-3)
    assert (implied[1] - implied[2]).item() == pytest.approx(0.4, abs=1e-3)


def test_a_very_safe_sample_cannot_pay_for_an_unsafe_one() -> None:
    """Costs .4 and -.4, lambda 1: per sample A_C = +-.4 and e = -+.2; per prompt a mean of 0."""
    batch = samples([0.0, 0.0], [0.4, -0.4])
    assert RepoOffline().sample_losses(batch).tolist() == pytest.approx([0.02, 0.02])
    assert RepoOffline(rectify="prompt").sample_losses(batch).tolist() == [0.0, 0.0]


def test_multiplier_grows_by_the_cost_that_the_policy_of_now_would_have() -> None:
    """Costs .4 and -1, the policy three times as likely as the table's on the safe one.

    Weights 1/4 and 3/4: .1; lambda 1 + .5 * .1 = 1.05. Undrifted weights would give .2.
    """
    drift = [0.0, math.log(3.0)]
    batch = samples([0.0, 0.0], [0.4, -1.0], drift=drift)
    variant = RepoOffline(eta=0.5)
    state = variant.update_state(batch, {"lambda": 1.0})
    assert state["lambda"] == pytest.approx(1.05)
    assert variant.metrics(state)["policy_rectified_cost"] == pytest.approx(0.1)
    still = samples([0.0, 0.0], [0.4, -1.0])
    assert variant.rectified_cost(still) == pytest.approx(0.2)


def test_prompt_form_rectifies_each_prompts_expected_cost() -> None:
    """Means .1 and -.3: the positive part of the first, .1, over two prompts: .05."""
    batch = samples([0.0] * 4, [0.4, -0.2, -0.6, 0.0], prompts=[0, 0, 1, 1])
    assert RepoOffline(rectify="prompt").rectified_cost(batch) == pytest.approx(0.05)


def test_weights_far_from_the_table_stay_finite() -> None:
    batch = samples([0.0, 0.0], [0.4, 0.0], drift=[1e4, -1e4])
    assert RepoOffline().rectified_cost(batch) == pytest.approx(0.4)


def test_multiplier_stops_at_its_cap_and_nothing_is_logged_before_the_first_step() -> None:
    variant = RepoOffline(eta=1.0, lambda_max=1.1)
    state = variant.init_state(TrainingFacts(2))
    assert variant.metrics(state) == {"lambda": 1.0}
    assert variant.update_state(samples([0.0, 0.0], [5.0, 5.0]), state)["lambda"] == 1.1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kappa", 0.0),
        ("rectify", "batch"),
        ("lambda_init", 11.0),
        ("lambda_max", 0.0),
        ("eta", -0.1),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: float | str) -> None:
    with pytest.raises(RecipeError, match=f"repo_offline: {field} must be"):
        RepoOffline(**{field: value})
