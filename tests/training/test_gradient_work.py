"""Many pairs' features: resumed, in any order, by any number of processes the same rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpo_diag.encoded import EncodedResponse
from dpo_diag.engines._base import EngineOptions
from dpo_diag.engines._weights import load_model
from dpo_diag.errors import CheckpointError, EngineError, RecipeError
from dpo_diag.training import gradient_work
from dpo_diag.training.gradient_features import MarginGradients, Pair
from dpo_diag.training.gradient_parts import Gathered, Parts
from dpo_diag.training.gradient_sketch import CountSketch
from dpo_diag.training.gradient_work import GradientJob, estimate_squares, write_features
from dpo_diag.training.movement import linear_margins
from dpo_diag.training.recipe import LoraSection
from tests.training.conftest import write_tiny_model
from tests.training.test_gradient_features import oracle, oracle_logp


def made_pairs(n: int) -> list[tuple[str, Pair]]:
    rng = np.random.default_rng(0)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(3, 200, rng.integers(low, high)).tolist())

    rows = []
    for i in range(n):
        prompt = ids(2, 6)
        pair = EncodedResponse(prompt, ids(2, 7)), EncodedResponse(prompt, ids(2, 7))
        rows.append((f"pair-{i:02d}", pair))
    return rows


PAIRS = made_pairs(10)
IDS = [pair_id for pair_id, _ in PAIRS]


@pytest.fixture
def job(base: Path) -> Callable[..., GradientJob]:
    def make(**changes: Any) -> GradientJob:
        return GradientJob(model=base, probe=(PAIRS[0][1],), k=64, **changes)

    return make


def rows_of(
    job: GradientJob, folder: Path, pairs: list[tuple[str, Pair]] = PAIRS, **options: Any
) -> Gathered:
    write_features(job, pairs, Parts(folder), n_workers=options.pop("n_workers", 1), **options)
    return Parts(folder).gather(IDS)


def double(folder: Path) -> Any:
    return load_model(folder, EngineOptions()).double().requires_grad_(True)


def dense(folder: Path) -> np.ndarray:
    model = double(folder)
    return np.stack([oracle(model, pair) for _, pair in PAIRS])


def test_exact_rows_are_the_gradients_of_a_plain_loop(job: Callable, base: Path, tmp_path) -> None:
    expected = dense(base)
    found = rows_of(job(kind="exact"), tmp_path)
    np.testing.assert_allclose(found.plain, expected, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found.squares, np.square(expected).sum(1), rtol=1e-4)
    assert found.adam is None and found.adam_squares is None


def test_sketched_products_are_the_exact_ones_within_the_stated_error(
    job: Callable, base: Path, tmp_path: Path
) -> None:
    """45 products of 10 pairs: none beyond 5 of its standard errors, one in ten beyond 1.65."""
    exact = dense(base) @ dense(base).T
    rows = rows_of(job(), tmp_path).plain.astype(float)
    norms = np.diag(exact)
    error = np.sqrt((np.outer(norms, norms) + exact**2) / 64)
    scores = ((rows @ rows.T - exact) / error)[np.triu_indices(10, 1)]
    assert np.abs(scores).max() < 5
    assert 0.2 < np.sqrt(np.mean(scores**2)) < 1.5


def test_order_and_neighbours_do_not_show(job: Callable, tmp_path: Path) -> None:
    first = rows_of(job(), tmp_path / "one")
    turned = rows_of(job(), tmp_path / "two", PAIRS[::-1])
    assert np.array_equal(first.plain, turned.plain)
    for one in PAIRS[:3]:
        write_features(job(), [one], Parts(tmp_path / "three"), n_workers=1)
    assert np.array_equal(Parts(tmp_path / "three").gather(IDS[:3]).plain, first.plain[:3])


def test_two_processes_write_the_rows_of_one(
    job: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_work, "CHUNK_PAIRS", 3)
    told: list[int] = []
    one = rows_of(job(), tmp_path / "one")
    two = rows_of(job(), tmp_path / "two", n_workers=2, progress=told.append)
    np.testing.assert_allclose(two.plain, one.plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(two.squares, one.squares, rtol=1e-5)
    assert sorted(told) == [1, 3, 3, 3]


class Stop(Exception):
    pass


def test_a_stopped_run_keeps_its_parts_and_ends_with_the_same_rows(
    job: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_work, "CHUNK_PAIRS", 3)
    whole = rows_of(job(), tmp_path / "whole")
    parts, told = Parts(tmp_path / "stopped"), []

    def stop(n: int) -> None:
        told.append(n)
        if len(told) == 2:
            raise Stop

    with pytest.raises(Stop):
        write_features(job(), PAIRS, parts, n_workers=1, progress=stop)
    kept = parts.known()
    assert sorted(kept) == IDS[:6]
    # what a killed process may leave behind: a part half written, and one cut off
    (parts.folder / ".part-0.npz.partial").write_bytes(b"PK")
    path = max(path for path, _ in kept.values())
    path.write_bytes(path.read_bytes()[:100])
    assert sorted(parts.known()) == IDS[:3]
    missing = [(pair_id, pair) for pair_id, pair in PAIRS if pair_id not in parts.known()]
    write_features(job(), missing, parts, n_workers=1)
    assert np.array_equal(parts.gather(IDS).plain, whole.plain)


def test_squares_are_those_of_a_loop_over_batches(
    job: Callable, base: Path, tmp_path: Path
) -> None:
    """v: the mean over batches of 4, 4 and 2 pairs of the squared mean gradient."""
    gradients = dense(base)
    expected = np.mean([np.square(gradients[i : i + 4].mean(0)) for i in (0, 4, 8)], axis=0)
    batches = [[pair for _, pair in PAIRS[i : i + 4]] for i in (0, 4, 8)]
    estimate_squares(job(), batches, tmp_path / "v.npy", n_workers=1)
    found = np.load(tmp_path / "v.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * expected.max())
    assert [file.name for file in tmp_path.iterdir()] == ["v.npy"]


def test_squares_are_resumed_by_groups(job: Callable, tmp_path: Path) -> None:
    batches = [[pair] for _, pair in PAIRS]
    estimate_squares(job(), batches, tmp_path / "v.npy", n_workers=1)

    def stop(n: int) -> None:
        raise Stop

    again = tmp_path / "again" / "v.npy"
    with pytest.raises(Stop):
        estimate_squares(job(), batches, again, n_workers=1, progress=stop)
    assert [file.name for file in again.parent.iterdir()] == ["v-group-00.npy"]
    estimate_squares(job(), batches, again, n_workers=1)
    assert np.array_equal(np.load(again), np.load(tmp_path / "v.npy"))


def test_preconditioned_products_are_the_first_order_effect_of_a_step_of_adam(
    job: Callable, base: Path, tmp_path: Path
) -> None:
    """<a_i, a_j> against <g_i, step> with the step of Adam on pair j written out."""
    gradients = dense(base)
    batches = [[pair for _, pair in PAIRS]]
    estimate_squares(job(), batches, tmp_path / "v.npy", n_workers=1)
    found = rows_of(job(kind="exact", squares=tmp_path / "v.npy", epsilon=1e-3), tmp_path / "rows")
    v = np.square(gradients.mean(0))
    steps = np.where(v > 0, gradients / (np.sqrt(v) + 1e-3), 0.0)
    expected = gradients @ steps.T
    rows = found.adam.astype(float)
    np.testing.assert_allclose(rows @ rows.T, expected, rtol=2e-3, atol=1e-3 * expected.max())
    np.testing.assert_allclose(found.adam_squares, np.diag(expected), rtol=2e-3)
    np.testing.assert_allclose(found.squares, np.square(gradients).sum(1), rtol=1e-4)


def test_an_adapter_at_its_start_has_gradients_in_b_alone(job: Callable, tmp_path: Path) -> None:
    lora = LoraSection(rank=2, target_modules=("q_proj", "down_proj"))
    inner = gradient_work._gradients(job(lora=lora))
    assert inner.n_parameters == 2 * (2 * (32 + 32) + 2 * (48 + 32))
    for name, part in zip(inner.names, inner.flat([PAIRS[0][1]]), strict=True):
        assert np.any(part) == ("lora_B" in name), name
    found = rows_of(job(kind="exact", lora=lora), tmp_path)
    expected = np.stack([oracle(inner.model.double(), pair) for _, pair in PAIRS])
    np.testing.assert_allclose(found.plain, expected, atol=2e-5 * np.abs(expected).max())


def test_another_seed_draws_another_adapter(job: Callable, tmp_path: Path) -> None:
    lora = LoraSection(rank=1, target_modules=("q_proj",))
    squares = [
        rows_of(job(lora=lora, lora_seed=seed), tmp_path / str(seed)).squares for seed in (0, 1)
    ]
    assert not np.allclose(*squares, rtol=0.01)


def test_too_many_exact_numbers_are_refused(
    job: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_work, "MAX_NUMBERS", 100_000)
    with pytest.raises(RecipeError, match=r"exact gradients of 10 pairs.*take a sketch"):
        rows_of(job(kind="exact"), tmp_path)


def test_a_gradient_that_is_no_number_is_refused(
    job: Callable, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of 1e30 are finite, their logits are not."""
    model = load_model(base, EngineOptions())
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.fill_(1e30)
        model.model.layers[0].mlp.up_proj.weight.fill_(1e30)
    real = gradient_work._gradients
    model.requires_grad_(True)
    monkeypatch.setattr(gradient_work, "_gradients", lambda job: MarginGradients(model, job.probe))
    with pytest.raises(EngineError, match=r"gradient of pair pair-00 .* NaN or infinite"):
        rows_of(job(), tmp_path)
    assert real is not gradient_work._gradients and not Parts(tmp_path).known()
    with pytest.raises(EngineError, match=r"gradients of training pairs .* NaN or infinite"):
        estimate_squares(job(), [[PAIRS[0][1]]], tmp_path / "v.npy", n_workers=1)


def test_linear_margins_are_the_slope_of_margins_along_the_change(base: Path, moved: Path) -> None:
    """Central differences, a hundredth of the way to either side: the norms round to float32."""
    start, end = double(base), double(moved)
    delta = [
        b.detach() - a.detach() for a, b in zip(start.parameters(), end.parameters(), strict=True)
    ]

    def margins(share: float) -> np.ndarray:
        model = double(base)
        with torch.no_grad():
            for parameter, change in zip(model.parameters(), delta, strict=True):
                parameter.add_(share * change)
            return np.array(
                [float(oracle_logp(model, c) - oracle_logp(model, r)) for _, (c, r) in PAIRS]
            )

    near, far = ((margins(h) - margins(-h)) / (2 * h) for h in (1e-2, 2e-2))
    slope = (4 * near - far) / 3  # Richardson: the curvature's share falls with h^4
    product = dense(base) @ torch.cat([d.reshape(-1) for d in delta]).numpy()
    scale = np.full(sum(d.numel() for d in delta), 4.0)
    found = linear_margins(base, moved, [pair for _, pair in PAIRS], scale=scale)
    np.testing.assert_allclose(found.margins, slope, atol=1e-4 * np.abs(slope).max())
    np.testing.assert_allclose(found.margins, product, atol=1e-5 * np.abs(product).max())
    norm = float(torch.cat([d.reshape(-1) for d in delta]).norm())
    assert (found.norm, found.adam_norm) == pytest.approx((norm, 2 * norm), rel=1e-5)


def test_a_run_of_another_shape_is_refused(base: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base)
    config.intermediate_size = 40
    folder = write_tiny_model(tmp_path / "other")
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"gate_proj.* is missing or of another shape"):
        linear_margins(base, folder, [PAIRS[0][1]])


def test_sketch_of_a_job_is_that_of_its_gradients(job: Callable, tmp_path: Path) -> None:
    gradients = gradient_work._gradients(job(seed=3))
    row = CountSketch(gradients.sizes, 64, 3)(gradients.flat([PAIRS[4][1]]))
    found = rows_of(job(seed=3), tmp_path)
    np.testing.assert_allclose(found.plain[4], row.plain, rtol=1e-6)
