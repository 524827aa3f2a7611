"""What every variant meets, run over every file of the folder; a new file is covered as it is."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dpo_diag import registry
from dpo_diag.variants._base import PairLogps, SampleLogps, TrainingFacts, Variant

NAMES = registry.names("variants")
VARIANTS = {name: registry.load("variants", name) for name in NAMES}
PAIRWISE = [name for name in NAMES if not VARIANTS[name].needs.samples]
ONLINE = [name for name in NAMES if VARIANTS[name].needs.samples]
COLUMNS = sorted({c for name in NAMES for c in VARIANTS[name].needs.columns})
FACTS = TrainingFacts(
    n_pairs=64,
    n_steps=10,
    n_annotators=3,
    n_unlabelled=6,
    columns={name: (torch.arange(64) + 2) % 3 / 2 for name in COLUMNS},  # 1, 0, .5, 1, ...
)


def make_pairs(n: int, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> PairLogps:
    """A batch of n pairs with every field that a variant may read; 5 tokens at most."""
    rng = np.random.default_rng(seed)
    width = 5
    lengths = {side: rng.integers(1, width + 1, n) for side in ("chosen", "rejected")}
    fields: dict[str, Any] = {}
    for side in ("chosen", "rejected"):
        mask = np.arange(width) < lengths[side][:, None]
        for who in ("", "ref_"):
            tokens = torch.tensor(-rng.uniform(0.1, 3.0, (n, width)) * mask, dtype=dtype)
            fields[f"{who}token_logps_{side}"] = tokens
            fields[f"{who or 'policy_'}{side}"] = tokens.sum(1)
        fields[f"mask_{side}"] = torch.tensor(mask)
        fields[f"n_tokens_{side}"] = torch.tensor(lengths[side])
        fields[f"history_{side}"] = torch.tensor(rng.uniform(-9, -1, (3, n)), dtype=dtype)
        fields[f"is_{side}_safe"] = torch.tensor(rng.random(n) < 0.6)
        fields[f"is_reasoning_{side}"] = torch.tensor(np.arange(width) < 2) & fields[f"mask_{side}"]
        importance = torch.tensor(rng.uniform(0.1, 2, (n, width)) * mask, dtype=dtype)
        fields[f"attribution_{side}"] = importance
    for who in ("", "ref_"):
        anchor = torch.tensor(-rng.uniform(0.1, 3.0, (n, width)), dtype=dtype)
        fields[f"{who}anchor_token_logps"] = anchor
        fields[f"unlabelled_{who.rstrip('_') or 'policy'}"] = anchor[:, :2].sum(1)
    fields["mask_anchor"] = torch.ones((n, width), dtype=torch.bool)
    fields["unlabelled_n_tokens"] = torch.full((n,), 2)
    fields["extra"] = {name: torch.tensor(rng.random(n), dtype=dtype) for name in COLUMNS}
    fields["extra"]["annotator"] = torch.tensor(rng.integers(0, 3, n))
    return PairLogps(pair_index=torch.arange(n), **fields)


def make_samples(n: int, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> SampleLogps:
    """Return n samples of prompts with two samples each (the last prompt may have one)."""
    rng = np.random.default_rng(seed)
    behaviour = torch.tensor(rng.uniform(-9, -1, n), dtype=dtype)
    return SampleLogps(
        policy=behaviour + torch.tensor(rng.normal(0, 0.05, n), dtype=dtype),
        behaviour=behaviour,
        ref=behaviour + torch.tensor(rng.normal(0, 0.5, n), dtype=dtype),
        n_tokens=torch.tensor(rng.integers(1, 6, n)),
        reward=torch.tensor(rng.random(n), dtype=dtype),
        cost=torch.tensor(rng.uniform(-0.5, 0.5, n), dtype=dtype),
        prompt_index=torch.arange(n) // 2,
    )


def losses(variant: Variant, batch: PairLogps | SampleLogps) -> torch.Tensor:
    """The variant's losses on a batch of its kind, with a fresh state."""
    if isinstance(batch, SampleLogps):
        return variant.sample_losses(batch, variant.init_state(FACTS))
    return variant.losses(batch, variant.init_state(FACTS))


def make_batch(name: str, n: int, **options: Any) -> PairLogps | SampleLogps:
    return (make_samples if name in ONLINE else make_pairs)(n, **options)


def tensors(batch: PairLogps | SampleLogps) -> Iterator[tuple[str, torch.Tensor]]:
    for item in dataclasses.fields(batch):
        value = getattr(batch, item.name)
        if isinstance(value, torch.Tensor):
            yield item.name, value


def with_policy(batch: PairLogps, **sums: torch.Tensor) -> PairLogps:
    """The batch with other summed log-probs of the policy, spread evenly over the tokens."""
    changes = dict(sums)
    for side in ("chosen", "rejected"):
        tokens, mask = getattr(batch, f"token_logps_{side}"), getattr(batch, f"mask_{side}")
        share = (sums[f"policy_{side}"] - tokens.sum(1)) / mask.sum(1)
        changes[f"token_logps_{side}"] = tokens + share[:, None] * mask
    return dataclasses.replace(batch, **changes)


def with_margin(batch: PairLogps, margin: float) -> PairLogps:
    """The batch with policy log-probs that make every unscaled margin the given one."""
    return with_policy(
        batch,
        policy_chosen=(batch.ref_chosen + margin / 2).requires_grad_(),
        policy_rejected=(batch.ref_rejected - margin / 2).requires_grad_(),
    )


@pytest.mark.parametrize("name", NAMES)
def test_class_file_and_name_agree(name: str) -> None:
    variant = VARIANTS[name]
    assert variant.__name__.lower() == name.replace("_", "") == variant().name.replace("_", "")


@pytest.mark.parametrize("name", NAMES)
def test_source_names_a_paper_and_every_hyper_parameter_has_a_range(name: str) -> None:
    variant = VARIANTS[name]
    assert "arXiv" in variant.source
    assert set(variant.ranges) == {f.name for f in dataclasses.fields(variant)}
    assert all(len(words) > 5 for words in variant.ranges.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_losses_have_one_finite_value_per_unit_in_the_input_dtype(
    name: str, n: int, dtype: torch.dtype
) -> None:
    batch = make_batch(name, n, dtype=dtype)
    before = {key: value.clone() for key, value in tensors(batch)}
    values = losses(VARIANTS[name](), batch)
    assert values.shape == (n,)
    assert values.dtype == dtype
    assert torch.isfinite(values).all()
    for key, value in tensors(batch):
        assert torch.equal(value, before[key]), f"{key} was changed"


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("sign", [-1.0, 0.0, 1.0])
def test_loss_and_gradient_are_finite_at_the_reference_and_far_from_it(
    name: str, sign: float
) -> None:
    variant = VARIANTS[name]()
    batch = with_margin(make_pairs(7), sign * variant.working_range)
    values = losses(variant, batch)
    values.sum().backward()
    assert torch.isfinite(values).all()
    for side in (batch.policy_chosen, batch.policy_rejected):
        assert side.grad is not None
        assert torch.isfinite(side.grad).all()


@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_sample_loss_and_gradient_are_finite_far_from_the_behaviour(
    name: str, shift: float
) -> None:
    batch = make_samples(7)
    policy = (batch.behaviour + shift).requires_grad_()
    values = losses(VARIANTS[name](), dataclasses.replace(batch, policy=policy))
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert policy.grad is not None
    assert torch.isfinite(policy.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_order_of_units_does_not_matter(name: str) -> None:
    variant, batch = VARIANTS[name](), make_batch(name, 7)
    if variant.needs.couples_batch:
        return
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    moved = dataclasses.replace(
        batch,
        **{
            key: value[:, order] if key.startswith("history") else value[order]
            for key, value in tensors(batch)
        },
    )
    if isinstance(moved, PairLogps):
        extra = {key: value[order] for key, value in moved.extra.items()}
        moved = dataclasses.replace(moved, extra=extra)
    torch.testing.assert_close(losses(variant, moved), losses(variant, batch)[order])


@pytest.mark.parametrize("name", PAIRWISE)
def test_raising_chosen_or_lowering_rejected_does_not_raise_the_loss(name: str) -> None:
    variant = VARIANTS[name]()
    if "direction" in variant.exceptions:
        assert variant.exceptions["direction"]
        return
    batch = with_margin(make_pairs(7), 0.0)
    losses(variant, batch).sum().backward()
    assert batch.policy_chosen.grad is not None
    assert batch.policy_rejected.grad is not None
    assert (batch.policy_chosen.grad <= 0).all()
    assert (batch.policy_rejected.grad >= 0).all()


@pytest.mark.parametrize("name", ONLINE)
def test_the_best_sample_is_pushed_up_and_the_worst_down(name: str) -> None:
    batch = make_samples(2)
    policy = batch.behaviour.clone().requires_grad_()
    batch = dataclasses.replace(
        batch,
        policy=policy,
        ref=batch.behaviour,
        reward=torch.tensor([1.0, 0.0]),
        cost=torch.tensor([-1.0, 1.0]),
    )
    losses(VARIANTS[name](), batch).sum().backward()
    assert policy.grad is not None
    assert policy.grad[0] < 0 < policy.grad[1]


@pytest.mark.parametrize("name", NAMES)
def test_reference_matters_exactly_where_it_is_needed(name: str) -> None:
    variant, batch = VARIANTS[name](), make_batch(name, 7)
    nan = torch.full((7,), torch.nan)
    absent = {
        key: nan if value.ndim == 1 else nan[:, None].expand_as(value)
        for key, value in tensors(batch)
        if key == "ref" or key.startswith("ref_")
    }
    values = losses(variant, dataclasses.replace(batch, **absent))
    assert torch.isfinite(values).all() != variant.needs.reference


@pytest.mark.parametrize("name", NAMES)
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    variant, batch = VARIANTS[name](), make_batch(name, 3, dtype=torch.float64)
    if "gradcheck" in variant.exceptions:
        assert variant.exceptions["gradcheck"]
        return
    keys = ["policy"] if name in ONLINE else ["policy_chosen", "policy_rejected"]
    inputs = [getattr(batch, key).clone().requires_grad_() for key in keys]

    def f(*values: torch.Tensor) -> torch.Tensor:
        given = dict(zip(keys, values, strict=True))
        if isinstance(batch, PairLogps):
            return losses(variant, with_policy(batch, **given))
        return losses(variant, dataclasses.replace(batch, **given))

    assert torch.autograd.gradcheck(f, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_rewards_agree_on_tensors_and_arrays_and_vanish_at_the_reference(name: str) -> None:
    variant, rng = VARIANTS[name](), np.random.default_rng(1)
    logp, ref, n = rng.uniform(-9, -1, 7), rng.uniform(-9, -1, 7), rng.integers(1, 9, 7)
    array = variant.rewards(logp, ref, n)
    tensor = variant.rewards(*(torch.from_numpy(v) for v in (logp, ref, n)))
    np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-12)
    assert array.shape == (7,)
    if variant.needs.reference:
        assert (variant.rewards(ref, ref, n) == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_reward_definition_names_the_variant_and_every_value(name: str) -> None:
    variant = VARIANTS[name]()
    assert variant.reward_def.startswith(f"{name}(")
    for item in dataclasses.fields(variant):
        assert f"{item.name}={getattr(variant, item.name)!r}" in variant.reward_def
