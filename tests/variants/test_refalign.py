import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import SampleLogps
from dpo_diag.variants.refalign import Refalign


def samples(reward: list[float], lengths: list[int], prompts: list[int]) -> SampleLogps:
    n = len(reward)
    nan = torch.full((n,), torch.nan, dtype=torch.float64)
    return SampleLogps(
        policy=torch.arange(-1.0, -1.0 - n, -1.0, dtype=torch.float64),
        behaviour=nan,
        ref=nan,
        n_tokens=torch.tensor(lengths),
        reward=torch.tensor(reward, dtype=torch.float64),
        cost=nan,
        prompt_index=torch.tensor(prompts),
    )


def test_advantage_of_two_samples_by_hand() -> None:
    """C = 8: (1 + 1/10) * .6 = .66 and (1 + 1/20) * .5 = .525; half their difference is .0675."""
    batch, variant = samples([0.6, 0.5], [2, 12], [7, 7]), Refalign(length_constant=8.0)
    assert variant.adjusted(batch).tolist() == pytest.approx([0.66, 0.525])
    assert variant.advantages(batch).tolist() == pytest.approx([0.0675, -0.0675])


def test_loss_by_hand_is_minus_advantage_times_log_prob() -> None:
    """Log-probs -1 and -2: -.0675 * -1 = .0675 and .0675 * -2 = -.135."""
    batch = samples([0.6, 0.5], [2, 12], [7, 7])
    value = Refalign(length_constant=8.0).sample_losses(batch)
    assert value.tolist() == pytest.approx([0.0675, -0.135])


def test_leave_one_out_by_hand() -> None:
    """Similarities .9 .6 .3 of equal length 10, C = 10, factor 1.05: less the others' mean.

    .9 - .45 = .45, 0, .3 - .75 = -.45, times 1.05; the group mean gives 2/3 of it.
    """
    batch = samples([0.9, 0.6, 0.3], [10] * 3, [1] * 3)
    others = Refalign(baseline="leave_one_out").advantages(batch)
    assert others.tolist() == pytest.approx([0.4725, 0.0, -0.4725])
    assert Refalign().advantages(batch).tolist() == pytest.approx((others * 2 / 3).tolist())


def test_advantages_are_clipped_and_the_share_is_logged() -> None:
    """Rewards 1.05 * (1, 0, .5): advantages .525, -.525, 0, clipped at .5."""
    batch, variant = samples([1.0, 0.0, 0.5], [10] * 3, [1] * 3), Refalign()
    assert variant.advantages(batch).tolist() == pytest.approx([0.5, -0.5, 0.0])
    logged = variant.sample_metrics(batch)
    assert logged["advantage_clipped"].tolist() == [1.0, 1.0, 0.0]
    assert logged["reward_length_adjusted"].tolist() == pytest.approx([1.05, 0.0, 0.525])


def test_of_two_equally_similar_answers_the_shorter_gains() -> None:
    batch = samples([0.5, 0.5], [3, 30], [0, 0])
    first, second = Refalign().advantages(batch).tolist()
    assert first > 0 > second


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
def test_prompts_are_compared_within_themselves_and_advantages_sum_to_zero(baseline: str) -> None:
    one = samples([0.9, 0.1], [5, 5], [0, 0])
    both = samples([0.9, 0.1, 0.2, 0.7], [5, 5, 9, 2], [0, 0, 4, 4])
    variant = Refalign(baseline=baseline)
    assert variant.advantages(both)[:2].tolist() == pytest.approx(variant.advantages(one).tolist())
    assert variant.advantages(both)[2:].sum().item() == pytest.approx(0.0, abs=1e-12)


def test_a_lone_sample_has_no_advantage() -> None:
    for baseline in ("group_mean", "leave_one_out"):
        advantages = Refalign(baseline=baseline).advantages(samples([0.9], [5], [0]))
        assert advantages.tolist() == [0.0]


def test_implicit_reward_is_the_summed_log_prob() -> None:
    assert Refalign().rewards(-10.0, float("nan"), 3) == -10.0


@pytest.mark.parametrize(
    ("field", "value"), [("length_constant", 0.0), ("eps", 0.0), ("baseline", "mean")]
)
def test_values_out_of_range_are_refused(field: str, value: float | str) -> None:
    with pytest.raises(RecipeError, match=f"refalign: {field} must be"):
        Refalign(**{field: value})
