"""The explicit reward's loss on numbers worked by hand."""

import dataclasses
import math

import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps
from dpo_diag.variants.reward import Reward


def batch(chosen: float, rejected: float) -> PairLogps:
    """One pair with these scores and no reference."""
    nan, one = torch.tensor([math.nan]), torch.ones(1, dtype=torch.int64)
    scores = [torch.tensor([value], dtype=torch.float64) for value in (chosen, rejected)]
    return PairLogps(*scores, nan, nan, one, one, torch.zeros(1, dtype=torch.int64))


def test_loss_by_hand() -> None:
    """Scores 1 and -1: -log sigmoid(2) = log(1 + e^-2) = 0.126928."""
    assert Reward().losses(batch(1.0, -1.0)).item() == pytest.approx(0.126928, abs=1e-6)


def test_centring_by_hand() -> None:
    """Scores 2 and 1, centre 0.01: log(1 + e^-1) + 0.01 * 9 = 0.313262 + 0.09."""
    value = Reward(centre=0.01).losses(batch(2.0, 1.0)).item()
    assert value == pytest.approx(0.403262, abs=1e-6)


def test_a_constant_added_to_both_scores_moves_only_the_centring() -> None:
    one, other = batch(2.0, 1.0), batch(5.0, 4.0)
    assert torch.equal(Reward().losses(one), Reward().losses(other))
    assert Reward(centre=0.1).losses(other) > Reward(centre=0.1).losses(one)


def test_reward_is_the_score_and_no_reference_is_read() -> None:
    scores = torch.tensor([0.5, -2.0])
    assert torch.equal(Reward().rewards(scores, torch.full((2,), math.nan), scores), scores)
    assert dataclasses.replace(Reward.needs, score_head=False).reference is False


def test_negative_centring_is_refused() -> None:
    with pytest.raises(RecipeError, match="centre must be 0 or more"):
        Reward(centre=-0.1)
