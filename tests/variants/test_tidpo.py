"""TI-DPO worked by hand: weights under three normalisations, the loss, the triplet term."""

from typing import Any

import pytest
import torch

from dpo_diag.errors import RecipeError
from dpo_diag.variants._base import PairLogps
from dpo_diag.variants.dpo import Dpo
from dpo_diag.variants.tidpo import TiDpo


def tensor(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def one_pair(**changes: Any) -> PairLogps:
    """The pair of the module's docstring; the reference gives every token -1 nat."""
    ref = tensor([-1.0, -1.0])
    logratios = {"chosen": tensor([1.0, -0.2]), "rejected": tensor([0.2, -0.4])}
    fields: dict[str, Any] = {
        "anchor_token_logps": tensor([-0.5]),
        "ref_anchor_token_logps": tensor([-1.0]),
        "mask_anchor": torch.ones((1, 1), dtype=torch.bool),
        "attribution_chosen": tensor([3.0, 1.0]),
        "attribution_rejected": tensor([1.0, 1.0]),
        "pair_index": torch.arange(1),
    }
    for side, values in logratios.items():
        fields[f"token_logps_{side}"] = ref + values
        fields[f"ref_token_logps_{side}"] = ref
        fields[f"mask_{side}"] = torch.ones((1, 2), dtype=torch.bool)
        fields[f"n_tokens_{side}"] = torch.tensor([2])
        fields[f"policy_{side}"] = (ref + values).sum(1)
        fields[f"ref_{side}"] = ref.sum(1)
    return PairLogps(**{**fields, **changes})


def test_loss_by_hand() -> None:
    """Margin 1.35 * 1 - .65 * .2 - (.2 - .4) = 1.42; log(1 + exp(-.142)) = .6246656.

    The anchor's log-ratios are (.5, 0): .5^2 + .2^2 = .29 to the chosen, .3^2 + .4^2 = .25 to the
    rejected, so the triplet term is .29 - .25 + .01 = .05 and a tenth of it is added.
    """
    assert TiDpo().losses(one_pair()).item() == pytest.approx(0.6246656 + 0.005, abs=1e-7)
    assert TiDpo(gamma=0).losses(one_pair()).item() == pytest.approx(0.6246656, abs=1e-7)


def test_weights_of_three_tokens_by_hand() -> None:
    """I = (2, 1, 1), lam = .5, T = 3: mu = 1, s = .75, P = (e, 1, e) with e = exp(-8/9) = .411112.

    literal: .5 (.5, .25, .25) + .5 P = (.455556, .625, .330556). P to the sum 1 is (.225610,
    .548780, .225610), the mix (.362805, .399390, .237805): times three for a mean of 1, over
    .399390 for a largest of 1. The fourth place is padding.
    """
    attribution = tensor([2.0, 1.0, 1.0, 0.0])
    mask = torch.tensor([[True, True, True, False]])
    expected = {
        "literal": [0.455556, 0.625, 0.330556, 0.0],
        "mean_one": [1.088415, 1.198171, 0.713415, 0.0],
        "max_one": [0.908397, 1.0, 0.595420, 0.0],
    }
    for normalise, values in expected.items():
        weights = TiDpo(lam=0.5, normalise=normalise).token_weights(attribution, mask)
        torch.testing.assert_close(weights, tensor(values), rtol=0, atol=2e-6)


def random_answers() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    n = torch.tensor([1, 2, 17, 40])
    mask = torch.arange(40) < n[:, None]
    return torch.rand((4, 40), generator=generator, dtype=torch.float64) * mask, mask


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_weights_have_mean_or_largest_one_and_know_no_scale(lam: float) -> None:
    attribution, mask = random_answers()
    weights = TiDpo(lam=lam).token_weights(attribution, mask)
    torch.testing.assert_close(weights.sum(1), mask.sum(1).double())
    assert (weights[~mask] == 0).all()
    largest = TiDpo(lam=lam, normalise="max_one").token_weights(attribution, mask)
    torch.testing.assert_close(largest.amax(1), torch.ones(4, dtype=torch.float64))
    for normalise in ("mean_one", "literal", "max_one"):
        variant = TiDpo(lam=lam, normalise=normalise)
        torch.testing.assert_close(
            variant.token_weights(1000 * attribution, mask),
            variant.token_weights(attribution, mask),
        )


def test_read_literally_the_prior_drowns_the_attribution() -> None:
    """Of a long answer's weights the attribution makes .7 in all, the prior .3 * T/4 * sqrt(2 pi).

    At T = 40, cut off at two standard deviations (.9545): 7.18, ten times as much.
    """
    attribution, mask = random_answers()
    literal = TiDpo(normalise="literal").token_weights(attribution, mask)[3]
    assert literal.sum().item() == pytest.approx(0.7 + 0.3 * 10 * 2.5066 * 0.9545, abs=0.02)


def test_an_answer_without_attributions_takes_them_for_equal() -> None:
    mask = torch.tensor([[True, True, False]])
    weights = TiDpo(lam=1.0).token_weights(tensor([0.0, 0.0, 0.0]), mask)
    assert weights.tolist() == [[1.0, 1.0, 0.0]]


def test_uniform_weights_without_triplet_are_dpo() -> None:
    variant = TiDpo(gamma=0, lam=0, prior_width=1e9)
    torch.testing.assert_close(variant.losses(one_pair()), Dpo().losses(one_pair()))


def test_no_gradient_goes_through_the_weights() -> None:
    attribution = tensor([3.0, 1.0]).requires_grad_()
    policy = (tensor([0.0, -1.2])).requires_grad_()
    batch = one_pair(attribution_chosen=attribution, token_logps_chosen=policy)
    TiDpo(gamma=0).losses(batch).sum().backward()
    assert attribution.grad is None
    # d/dl_t = -beta * sigmoid(-.142) * w_t
    slope = -0.1 * torch.sigmoid(torch.tensor(-0.142, dtype=torch.float64)).item()
    torch.testing.assert_close(policy.grad, slope * tensor([1.35, 0.65]))


def test_triplet_by_hand_and_flat_where_it_is_satisfied() -> None:
    """B = (1, 0), c = (0, 1), d = (.5, .5, .5): .75 - .75 + .2 = .2; at d = b: 0 - 2 + .2 < 0."""
    variant = TiDpo(margin=0.2)
    near, far = tensor([1.0, 0.0]), tensor([0.0, 1.0])
    assert variant.triplet(near, far, tensor([0.5, 0.5, 0.5])).item() == pytest.approx(0.2)
    anchor = tensor([1.0, 0.0]).requires_grad_()
    value = variant.triplet(near, far, anchor)
    value.sum().backward()
    assert value.item() == 0
    assert anchor.grad is not None
    assert (anchor.grad == 0).all()


def test_triplet_draws_the_anchor_to_the_chosen_answer() -> None:
    """d/dd of (d-b)^2 - (c-d)^2 is 2 (c - b): one step down goes towards b, away from c."""
    anchor = tensor([0.5, 0.5]).requires_grad_()
    TiDpo().triplet(tensor([1.0, 0.0]), tensor([0.0, 1.0]), anchor).sum().backward()
    torch.testing.assert_close(anchor.grad, tensor([-2.0, 2.0]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta", 0.0),
        ("gamma", -0.1),
        ("lam", 1.1),
        ("margin", float("nan")),
        ("normalise", "sum_one"),
        ("prior_width", 0.0),
        ("anchor_every", 0),
        ("anchor_tokens", 0),
        ("anchor_temperature", float("inf")),
        ("anchor_top_p", 0.0),
    ],
)
def test_values_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=f"tidpo: {name} must be"):
        TiDpo(**{name: value})
