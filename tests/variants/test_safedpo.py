import dataclasses

import pytest
import torch

from dpo_diag.errors import DataError, RecipeError
from dpo_diag.variants._base import PairLogps
from dpo_diag.variants.dpo import Dpo
from dpo_diag.variants.safedpo import SafeDpo

SAFE, UNSAFE = True, False


def one_pair(chosen_safe: bool, rejected_safe: bool) -> PairLogps:
    """Margin 5 nats: log-ratios 2 and -3."""

    def tensor(value: float) -> torch.Tensor:
        return torch.tensor([value], dtype=torch.float64)

    return PairLogps(
        *(tensor(v) for v in (-10.0, -11.0, -12.0, -8.0)),
        n_tokens_chosen=torch.tensor([3]),
        n_tokens_rejected=torch.tensor([4]),
        pair_index=torch.tensor([0]),
        is_chosen_safe=torch.tensor([chosen_safe]),
        is_rejected_safe=torch.tensor([rejected_safe]),
    )


def test_loss_of_a_safe_and_an_unsafe_answer_by_hand() -> None:
    """-log sigmoid(.1 * 5 - 2) = log(1 + exp(1.5)) = log(5.481689) = 1.701413."""
    value = SafeDpo(beta=0.1, delta=2.0).losses(one_pair(SAFE, UNSAFE))
    assert value.item() == pytest.approx(1.701413, abs=5e-7)


def test_loss_of_two_safe_answers_is_dpo_loss() -> None:
    """-log sigmoid(.1 * 5) = .474077, whatever delta is."""
    value = SafeDpo(beta=0.1, delta=2.0).losses(one_pair(SAFE, SAFE))
    assert value.item() == pytest.approx(0.474077, abs=5e-7)


def test_relabelling_follows_the_papers_table() -> None:
    """(chosen, rejected): safe/safe and safe/unsafe stay, unsafe/safe swaps, unsafe/unsafe goes."""
    chosen = torch.tensor([SAFE, SAFE, UNSAFE, UNSAFE])
    rejected = torch.tensor([SAFE, UNSAFE, SAFE, UNSAFE])
    actions = SafeDpo().relabel({"is_chosen_safe": chosen, "is_rejected_safe": rejected})
    assert actions.keep.tolist() == [True, True, True, False]
    assert actions.swap.tolist() == [False, False, True, False]


def test_offset_alone_relabels_nothing() -> None:
    labels = torch.tensor([SAFE, UNSAFE])
    bits = {"is_chosen_safe": labels, "is_rejected_safe": ~labels}
    assert SafeDpo(transform=False).relabel(bits) is None


def test_offset_alone_neither_mutes_nor_teaches_an_unsafe_chosen_answer() -> None:
    """On (unsafe, safe) loss and gradient equal DPO's; the raw formula's offset is -delta there."""
    batch = one_pair(UNSAFE, SAFE)
    results = []
    for variant in (SafeDpo(beta=0.1, delta=2.0, transform=False), Dpo(beta=0.1)):
        policy = batch.policy_chosen.clone().requires_grad_()
        loss = variant.losses(dataclasses.replace(batch, policy_chosen=policy))
        loss.sum().backward()
        results.append((loss.item(), policy.grad.item()))
    assert results[0] == pytest.approx(results[1])


def test_offset_alone_still_widens_the_margin_where_the_chosen_is_the_safe_one() -> None:
    value = SafeDpo(beta=0.1, delta=2.0, transform=False).losses(one_pair(SAFE, UNSAFE))
    assert value.item() == pytest.approx(1.701413, abs=5e-7)


def test_reward_has_no_offset() -> None:
    assert SafeDpo(beta=0.2, delta=5.0).rewards(-10.0, -12.0, 3) == pytest.approx(0.4)


def test_missing_labels_are_named() -> None:
    batch = dataclasses.replace(one_pair(SAFE, SAFE), is_chosen_safe=None)
    with pytest.raises(DataError, match="is_chosen_safe and is_rejected_safe"):
        SafeDpo().losses(batch)


@pytest.mark.parametrize(("field", "value"), [("beta", 0.0), ("delta", -1.0)])
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(RecipeError, match=field):
        SafeDpo(**{field: value})
