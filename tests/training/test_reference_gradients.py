"""Inner products and null spaces of the reference's gradients against per-response autograd."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import load_file

from dpo_diag.errors import RecipeError
from dpo_diag.pairs import PairSet
from dpo_diag.store import RowStore
from dpo_diag.training.batches import Tokens, pack
from dpo_diag.training.forward import response_logps
from dpo_diag.training.loop import train
from dpo_diag.training.pair_data import PairData
from dpo_diag.training.policy import Policy, load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.sources import reference_gradients
from dpo_diag.training.sources.reference_gradients import (
    BatchProducts,
    ReferencePoint,
    null_space_basis,
    response_gradient,
)
from dpo_diag.variants.auxdpo import AuxDpo
from tests.training.conftest import make_pairs
from tests.training.test_forward import CHOSEN, REJECTED, make_model
from tests.training.test_loop import Stop, stop_after

MakeRecipe = Callable[..., Recipe]
LORA = {"rank": 1, "target_modules": ["0.self_attn.q_proj"]}
# seven pairs in passes of two: a mix-up of sides or pairs within a pass would show
GOOD, BAD = (CHOSEN * 3)[:7], (REJECTED * 3)[:7]


def policy_of(model: Any) -> Policy:
    base = SimpleNamespace(fingerprint="base")
    return Policy(model, base, base, encoder=None, stop_ids=())


def dense(model: Any, items: Sequence[Tokens]) -> torch.Tensor:
    """Per-response gradients in the trained parameters, one autograd pass each, (N, d) float64."""
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for item in items:
        total = response_logps(model, pack([item])).sums[0]
        parts = torch.autograd.grad(total, trained, allow_unused=True)
        filled = [
            torch.zeros_like(p) if g is None else g for g, p in zip(parts, trained, strict=True)
        ]
        rows.append(torch.cat([g.reshape(-1).double() for g in filled]))
    return torch.stack(rows)


def expected(gradients: torch.Tensor, weights: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The products from the dense matrix; its rows are chosen, then rejected."""
    vector = weights.double().T.reshape(-1) @ gradients
    return vector.square().sum().item(), (gradients @ vector).reshape(2, -1).T.float()


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("llama", True),
        *((kind, False) for kind in ("llama", "gpt2", "gemma2", "cohere", "opt")),
    ],
)
def test_products_equal_those_of_the_dense_gradients(kind: str, share: bool) -> None:
    """To 1e-4 of the largest: the head's logits pass through float32."""
    model = make_model(kind)
    weights = torch.randn(7, 2, generator=torch.Generator().manual_seed(1))
    point = ReferencePoint(policy_of(model), share_prompts=share)
    square, products = BatchProducts(point, GOOD, BAD)(weights)
    norm, inner = expected(dense(model, [*GOOD, *BAD]), weights)
    assert square.item() == pytest.approx(norm, rel=1e-4)
    torch.testing.assert_close(products, inner, rtol=1e-4, atol=1e-4 * inner.abs().max().item())


def test_products_leave_the_model_as_it_was_and_ignore_its_dropout() -> None:
    model = make_model("gpt2").float().train()  # gpt2 has dropout
    point = ReferencePoint(policy_of(model))
    weights = torch.ones(3, 2)
    first = BatchProducts(point, CHOSEN, REJECTED)(weights)
    again = BatchProducts(point, CHOSEN, REJECTED)(weights)
    assert torch.equal(first[1], again[1])
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_products_stay_at_the_reference_when_the_policy_moves() -> None:
    model = make_model("llama")
    point = ReferencePoint(policy_of(model))
    gradients, weights = dense(model, [*CHOSEN, *REJECTED]), torch.ones(3, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    square, _ = BatchProducts(point, CHOSEN, REJECTED)(weights)
    assert square.item() == pytest.approx(expected(gradients, weights)[0], rel=1e-4)


def test_adapters_are_differentiated_at_their_start(recipe: MakeRecipe) -> None:
    """There one factor is zero, so the other's gradient is; the policy moves on, they stay."""
    policy = load_policy(recipe("auxdpo", rank=2), Path("unused"))
    gradients = dense(policy.model, CHOSEN + REJECTED)
    point = ReferencePoint(policy)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.1 if parameter.requires_grad else 0.0)
    weights = torch.randn(3, 2, generator=torch.Generator().manual_seed(2))
    square, products = BatchProducts(point, CHOSEN, REJECTED)(weights)
    norm, inner = expected(gradients, weights)
    assert square.item() == pytest.approx(norm, rel=1e-4)
    torch.testing.assert_close(products, inner, rtol=1e-3, atol=1e-4 * inner.abs().max().item())
    for item in CHOSEN:
        point.add_gradient(pack([item]), torch.ones(1))
        sizes = {name: float(g.abs().sum()) for name, g in point.taken().items()}
        assert all((size == 0) == ("lora_A" in name) for name, size in sizes.items())


def test_another_reference_is_differentiated_at_its_own_weights(
    recipe: MakeRecipe, moved: Path
) -> None:
    policy = load_policy(recipe("auxdpo", reference=str(moved)), Path("unused"))
    weights = torch.ones(3, 2)
    square, _ = BatchProducts(ReferencePoint(policy), CHOSEN, REJECTED)(weights)
    other = policy.reference_model.requires_grad_(True)
    norm, _ = expected(dense(other, CHOSEN + REJECTED), weights)
    assert square.item() == pytest.approx(norm, rel=1e-4)


def test_adapters_with_another_reference_are_refused(recipe: MakeRecipe, moved: Path) -> None:
    policy = load_policy(recipe("auxdpo", reference=str(moved), rank=2), Path("unused"))
    with pytest.raises(RecipeError, match=r"own architecture, without adapters.*lora"):
        ReferencePoint(policy)


@pytest.mark.parametrize(("n_cells", "n_parameters", "rank"), [(9, 4, 4), (6, 30, 3), (5, 9, 5)])
def test_basis_spans_the_weighted_null_space(n_cells: int, n_parameters: int, rank: int) -> None:
    rng = np.random.default_rng(0)
    planted = rng.normal(size=(n_cells, rank)) @ rng.normal(size=(rank, n_parameters))
    weights = rng.uniform(1, 3, n_cells)
    basis = null_space_basis(torch.tensor(planted), torch.tensor(weights)).numpy()
    known = scipy.linalg.null_space(planted.T * weights)
    assert basis.shape == (n_cells, n_cells - rank)
    np.testing.assert_allclose(basis @ basis.T, known @ known.T, atol=1e-9)
    np.testing.assert_allclose(basis.T @ basis, np.eye(n_cells - rank), atol=1e-9)


def test_basis_of_the_bandit_is_the_one_of_the_paper() -> None:
    """Gradients 1, -1, 0 of the three responses: the null space is span{(1, 1, 0), (0, 0, 1)}."""
    basis = null_space_basis(torch.tensor([[1.0], [-1.0], [0.0]]), torch.full((3,), 1 / 3))
    projection = basis @ basis.T
    known = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(projection, known)


@pytest.fixture
def exact(prepared: Callable[..., PairData], recipe: MakeRecipe, tmp_path: Path) -> Any:
    """Pairs with many repeated responses, and the point at which they are differentiated."""
    policy = load_policy(recipe("auxdpo", **LORA), tmp_path)
    frame = make_pairs(30, 2).frame
    variant = AuxDpo(null_space="exact")
    data = prepared(frame[frame["split"] == "train"], policy, variant, RowStore(tmp_path))
    return policy, data, data.sources["reference_gradients"].null_space


def test_exact_offsets_cancel_the_gradients_and_belong_to_responses(exact: Any) -> None:
    """A rank-1 adapter of one layer has few directions, so most offsets are free."""
    policy, data, basis = exact
    answers = [*data.chosen, *data.rejected]
    cells = {(a.prompt_ids, a.response_ids) for a in answers}
    gradients = dense(policy.model, answers)
    rank = int(torch.linalg.matrix_rank(dense(policy.model, _first(answers)), rtol=1e-5))
    assert basis.shape == (30, 2, len(cells) - rank)
    offsets = basis.double() @ torch.randn(basis.shape[-1], dtype=torch.float64)  # (30, 2)
    flat = offsets.T.reshape(-1)
    scale = (flat.abs() @ gradients.abs()).max()
    assert (flat @ gradients).abs().max() < 1e-5 * scale
    by_cell: dict[Any, set[float]] = {}
    for answer, value in zip(answers, flat.tolist(), strict=True):
        by_cell.setdefault((answer.prompt_ids, answer.response_ids), set()).add(value)
    assert all(len(values) == 1 for values in by_cell.values())
    assert len(by_cell) < len(answers)


def _first(answers: Sequence[Tokens]) -> list[Tokens]:
    return list({(a.prompt_ids, a.response_ids): a for a in answers}.values())


def test_response_gradient_is_that_of_autograd(exact: Any) -> None:
    policy, data, _ = exact
    got = response_gradient(ReferencePoint(policy), data.chosen[0])
    torch.testing.assert_close(got.double(), dense(policy.model, data.chosen[:1])[0])


def test_exact_run_learns_offsets_in_the_null_space(
    tmp_path: Path, recipe: MakeRecipe, base: Path
) -> None:
    run = train(
        recipe("auxdpo", null_space="exact", epochs=1, **LORA),
        make_pairs(30, 2),
        out=tmp_path / "run",
    )
    last = [row for row in log_of(run) if "mean_abs_offset" in row][-1]
    assert last["null_space_dimension"] >= 10
    assert last["mean_abs_offset"] > 1e-3


def test_more_parameters_than_responses_leave_no_null_space_and_that_is_said(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, caplog: pytest.LogCaptureFixture
) -> None:
    made = recipe("auxdpo", null_space="exact", epochs=1)
    run = train(made, pairs, out=tmp_path / "run")
    plain = train(recipe(epochs=1), pairs, out=tmp_path / "plain")
    assert "null space: 0 of 16 dimensions; all offsets stay 0" in caplog.text
    assert same(run, plain)


def test_exact_form_is_refused_for_a_model_that_is_too_large(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_gradients, "MAX_ENTRIES", 1000)
    made = recipe("auxdpo", null_space="exact")
    with pytest.raises(RecipeError, match=r"16 responses times \d+ trained parameters are more"):
        train(made, pairs, out=tmp_path / "run")


def log_of(folder: Path) -> list[dict[str, Any]]:
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return state["log_history"]


def same(one: Path, other: Path) -> bool:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return all(torch.equal(a[key], b[key]) for key in a)


def test_first_epoch_trains_the_policy_exactly_as_dpo_and_the_second_does_not(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet
) -> None:
    """An offset moves only after its pair was used, and each pair is used once per epoch."""
    options = {"schedule": "constant", "learning_rate": 1e-3}
    for epochs, is_same in ((1, True), (2, False)):
        aux = train(
            recipe("auxdpo", epochs=epochs, delta_learning_rate=0.5, **options),
            pairs,
            out=tmp_path / f"aux{epochs}",
        )
        dpo = train(recipe(epochs=epochs, **options), pairs, out=tmp_path / f"dpo{epochs}")
        assert same(aux, dpo) is is_same


def test_penalty_holds_the_offsets_down(tmp_path: Path, recipe: MakeRecipe, pairs: PairSet) -> None:
    sizes = []
    for weight in (0.0, 100.0):
        made = recipe(
            "auxdpo", lambda_null=weight, penalty_every=1, delta_learning_rate=0.1, epochs=12
        )
        run = train(made, pairs, out=tmp_path / str(weight))
        sizes.append([r["mean_abs_offset"] for r in log_of(run) if "mean_abs_offset" in r][-1])
    assert sizes[1] < 0.5 * sizes[0]


def test_evaluation_and_accuracies_are_those_of_the_policy_alone(
    tmp_path: Path, recipe: MakeRecipe
) -> None:
    """With one validation pair, the plain loss follows from its logged margin."""
    made = recipe("auxdpo", epochs=3, delta_learning_rate=0.5)
    run = train(made, make_pairs(8, 1), out=tmp_path / "run")
    row = [r for r in log_of(run) if "eval_loss" in r][-1]
    margin = row["eval_rewards/margins"]
    assert row["eval_loss"] == pytest.approx(np.log1p(np.exp(-margin)), rel=1e-5)
    assert row["eval_rewards/accuracies"] == float(margin > 0)
    assert [r["mean_abs_offset"] for r in log_of(run) if "mean_abs_offset" in r][-1] > 0.1


@pytest.mark.parametrize("options", [{}, {"null_space": "exact", **LORA}, {"cap": 1.0}])
def test_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, recipe: MakeRecipe, options: dict[str, Any]
) -> None:
    pairs = make_pairs(24, 2)
    made = recipe("auxdpo", max_steps=14, save_every=5, delta_learning_rate=0.05, **options)
    whole = train(made, pairs, out=tmp_path / "whole")
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "parts", progress=stop_after(12))
    parts = train(made, pairs, out=tmp_path / "parts", resume=True)

    def rows(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in r.items() if k != "seconds_per_step"} for r in log_of(folder)]

    assert rows(whole) == rows(parts)


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"gradient_checkpointing": True}])
def test_other_ways_of_running_stay_near_the_plain_one(
    tmp_path: Path, recipe: MakeRecipe, pairs: PairSet, options: dict[str, Any]
) -> None:
    """Checkpointing is exact; bfloat16 has three digits, and Adam's steps hide the scale."""
    common = {"epochs": 4, "penalty_every": 1, "delta_learning_rate": 0.1, "lambda_null": 10.0}
    plain = log_of(train(recipe("auxdpo", **common), pairs, out=tmp_path / "plain"))
    other = log_of(train(recipe("auxdpo", **common, **options), pairs, out=tmp_path / "other"))
    sizes = [
        [r["mean_abs_offset"] for r in rows if "mean_abs_offset" in r] for rows in (plain, other)
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1 if "precision" in options else 1e-5)


def test_batches_may_not_be_split_for_a_penalty_over_the_batch(recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match="auxdpo couples the pairs of a batch"):
        dataclasses.replace(recipe("auxdpo"), optimizer=recipe(micro_batch_size=2).optimizer)
