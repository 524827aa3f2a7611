import dataclasses

import pytest
import torch

from dpo_diag.errors import DataError, RecipeError
from dpo_diag.variants._base import PairLogps, TrainingFacts
from dpo_diag.variants.awdpo import AwDpo

HARMS = ("reasoning_chosen", "reasoning_rejected", "answer_chosen", "answer_rejected")


def pair(
    harms: tuple[float, ...] = (0.2, 0.5, 0.0, 0.9),
    *,
    chosen: tuple[int, ...] = (1, 1, 0),
    rejected: tuple[int, ...] = (1, 0, 0),
) -> PairLogps:
    """One pair of log-ratios 1, 1, 3 and -1, -2, 0; the reference has -4 on every token."""
    tokens = {
        "chosen": torch.tensor([[-3.0, -3.0, -1.0]], dtype=torch.float64),
        "rejected": torch.tensor([[-5.0, -6.0, -4.0]], dtype=torch.float64),
    }
    reference = torch.full((1, 3), -4.0, dtype=torch.float64)
    mask, three = torch.ones(1, 3, dtype=torch.bool), torch.tensor([3])
    return PairLogps(
        *(tokens["chosen"].sum(1), tokens["rejected"].sum(1)),
        *(reference.sum(1), reference.sum(1), three, three, torch.tensor([0])),
        token_logps_chosen=tokens["chosen"].requires_grad_(),
        token_logps_rejected=tokens["rejected"].requires_grad_(),
        ref_token_logps_chosen=reference,
        ref_token_logps_rejected=reference,
        mask_chosen=mask,
        mask_rejected=mask,
        is_reasoning_chosen=torch.tensor([chosen], dtype=torch.bool),
        is_reasoning_rejected=torch.tensor([rejected], dtype=torch.bool),
        extra={f"harm_{name}": torch.tensor([h]) for name, h in zip(HARMS, harms, strict=True)},
    )


def test_loss_by_hand() -> None:
    """Weights .25, .75: .25 * .554355 + .75 * .474077 = .494147; alpha .5 halves it."""
    assert AwDpo(beta=0.1).losses(pair()).item() == pytest.approx(0.494147, abs=1e-6)
    halved = AwDpo(beta=0.1, alpha=0.5).losses(pair()).item()
    assert halved == pytest.approx(0.494147 / 2, abs=1e-6)


def test_a_more_harmful_segment_of_the_chosen_gets_no_push() -> None:
    """Reasoning of the chosen is worse (.6 against .5): all weight is on the answer."""
    batch = pair((0.6, 0.5, 0.0, 0.9))
    loss = AwDpo(beta=0.1).losses(batch)
    assert loss.item() == pytest.approx(0.474077, abs=5e-7)
    loss.backward()
    assert batch.token_logps_chosen.grad[0].tolist()[:2] == [0.0, 0.0]
    assert batch.token_logps_chosen.grad[0, 2] < 0


@pytest.mark.parametrize("harms", [(0.5, 0.5, 0.3, 0.3), (0.9, 0.5, 0.8, 0.0)])
def test_without_a_less_harmful_half_both_count_one_half(harms: tuple[float, ...]) -> None:
    """.5 * .554355 + .5 * .474077 = .514216."""
    variant = AwDpo(beta=0.1)
    assert variant.losses(pair(harms)).item() == pytest.approx(0.514216, abs=1e-6)
    state = variant.update_state(pair(harms), variant.init_state(TrainingFacts(1)))
    assert variant.metrics(state) == {"equal_weights_rate": 1.0}
    assert variant.metrics(variant.update_state(pair(), state)) == {"equal_weights_rate": 0.0}


def test_no_step_is_no_rate() -> None:
    assert AwDpo().metrics(AwDpo().init_state(TrainingFacts(1))) == {}


@pytest.mark.parametrize("masks", [((0, 0, 0), (1, 0, 0)), ((1, 1, 0), (0, 0, 0))])
def test_a_pair_without_the_tag_on_either_side_is_dpo(masks: tuple[tuple[int, ...], ...]) -> None:
    """Margin 5 - (-3) = 8 of whole outputs: -log sigmoid(.8) = .371101."""
    batch = pair(chosen=masks[0], rejected=masks[1])
    assert AwDpo(beta=0.1).losses(batch).item() == pytest.approx(0.371101, abs=5e-7)


def test_equal_weights_on_equal_segments_are_dpos_halves() -> None:
    """With all of the margin in the answer the reasoning costs log 2, whatever beta is."""
    batch = pair((0.5, 0.5, 0.5, 0.5))
    reference = batch.token_logps_chosen.detach().clone()
    reference[0, 2] = -4.0
    batch = dataclasses.replace(
        batch,
        ref_token_logps_chosen=reference,
        ref_token_logps_rejected=batch.token_logps_rejected.detach(),
    )
    value = AwDpo(beta=0.1).losses(batch).item()  # answer margin 3: -log sigmoid(.3) = .554355
    assert value == pytest.approx(0.5 * 0.693147 + 0.5 * 0.554355, abs=1e-6)


def test_pairs_without_the_tag_are_dropped_on_demand_only() -> None:
    labels = {
        "has_tag_chosen": torch.tensor([True, True, False]),
        "has_tag_rejected": torch.tensor([True, False, True]),
    }
    assert AwDpo().relabel(labels) is None
    actions = AwDpo(missing_tag="drop").relabel(labels)
    assert actions.keep.tolist() == [True, False, False]
    assert not actions.swap.any()


def test_missing_segments_are_named() -> None:
    bare = dataclasses.replace(pair(), is_reasoning_chosen=None)
    with pytest.raises(DataError, match="before the tag '</think>'"):
        AwDpo().losses(bare)


@pytest.mark.parametrize(
    ("field", "value"),
    [("beta", 0.0), ("alpha", 0.0), ("tag", " "), ("missing_tag", "keep")],
)
def test_values_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(RecipeError, match=field):
        AwDpo(**{field: value})
