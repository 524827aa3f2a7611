"""Gradient features of a checkpoint's pairs: stored, found again, used as kernels."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dpo_diag.checkpoints import Checkpoint, resolve_checkpoint
from dpo_diag.engines._base import EngineOptions
from dpo_diag.engines._weights import load_model
from dpo_diag.errors import CheckpointError, DataError, RecipeError
from dpo_diag.pairs import PairSet
from dpo_diag.pipeline import gradients
from dpo_diag.pipeline.gradients import GradientOptions, gradient_features, movement
from dpo_diag.pipeline.work import EngineChoice, Work
from dpo_diag.store import RowStore
from dpo_diag.text import TextEncoder, encode_pairs, load_tokenizer
from tests.training.conftest import make_pairs, write_tiny_model
from tests.training.test_gradient_features import oracle

EXACT = GradientOptions(kind="exact", batch_size=4, n_workers=1)
SKETCH = GradientOptions(k=256, batch_size=4, n_workers=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Checkpoint:
    moved = write_tiny_model(tmp_path_factory.mktemp("run"), noise=0.02)
    return resolve_checkpoint(moved, reference=base, beta=0.1, variant="dpo")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(RowStore(tmp_path / "store"), tmp_path / "cache")


@pytest.fixture
def pairs() -> PairSet:
    return make_pairs(10, 3)


@pytest.fixture
def no_new_gradients(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, nothing but stored rows may be used."""

    def forbid() -> None:
        def fail(*arguments: object, **options: object) -> None:
            raise AssertionError("gradients were computed again")

        for name in ("write_features", "estimate_squares", "count_parameters"):
            monkeypatch.setattr(gradients, name, fail)

    return forbid


def ids(pairs: PairSet, *splits: str) -> list[str]:
    frame = pairs.frame
    return frame["pair_id"][frame["split"].isin(splits or ["train", "validation"])].tolist()


def dense(base: Path, frame: pd.DataFrame, **options: object) -> np.ndarray:
    model = load_model(base, EngineOptions()).double().requires_grad_(True)
    both = encode_pairs(frame, TextEncoder(load_tokenizer(base), template="plain", **options))
    return np.stack([oracle(model, pair) for pair in zip(both.chosen, both.rejected, strict=True)])


def test_kernel_is_that_of_a_loop_of_plain_autograd(
    run: Checkpoint, base: Path, pairs: PairSet, work: Work
) -> None:
    found = gradient_features(run, pairs, EXACT, work)
    expected = dense(base, pairs.frame)
    exact = expected @ expected.T
    every = ids(pairs)
    kernel = found.kernel(every[:4], every, preconditioned=False)
    np.testing.assert_allclose(kernel, exact[:4], atol=1e-4 * exact.max())
    norms = np.sqrt(np.diag(exact))
    cosines = found.cosines(every, every, preconditioned=False)
    np.testing.assert_allclose(cosines, exact / np.outer(norms, norms), atol=1e-4)
    assert (found.kind, found.space, found.seed) == ("exact", "all", 0)
    assert found.n_parameters == found.k == expected.shape[1]
    assert found.plain.dtype == np.float32 and found.squares.dtype == np.float64


def test_preconditioned_kernel_takes_v_from_training_pairs_and_epsilon_over_half_beta(
    run: Checkpoint, base: Path, pairs: PairSet, work: Work
) -> None:
    """One batch of all 10 training pairs; epsilon .01 over beta / 2 = .05 is .2 beside v's root."""
    options = dataclasses.replace(EXACT, batch_size=10, epsilon=0.01)
    found = gradient_features(run, pairs, options, work)
    features = dense(base, pairs.frame)
    v = np.square(features[:10].mean(0))
    expected = features @ np.where(v > 1e-20, features / (np.sqrt(v) + 0.2), 0.0).T
    every = ids(pairs)
    kernel = found.kernel(every, every, preconditioned=True)
    np.testing.assert_allclose(kernel, expected, atol=1e-3 * expected.max())
    np.testing.assert_allclose(found.adam_squares, np.diag(expected), rtol=1e-3)


def test_sketched_cosines_are_the_exact_ones_within_five_errors(
    run: Checkpoint, pairs: PairSet, work: Work
) -> None:
    """The error of a cosine is at most sqrt((1 + cos^2) / k): .088 at 256."""
    every = ids(pairs)
    exact, sketched = (gradient_features(run, pairs, options, work) for options in (EXACT, SKETCH))
    for preconditioned in (False, True):
        true = exact.cosines(every, every, preconditioned=preconditioned)
        near = sketched.cosines(every, every, preconditioned=preconditioned)
        assert (np.abs(near - true) < 5 * np.sqrt((1 + true**2) / 256)).all()
    np.testing.assert_allclose(sketched.squares, exact.squares, rtol=1e-5)
    np.testing.assert_allclose(sketched.adam_squares, exact.adam_squares, rtol=1e-4)
    assert sketched.plain.shape == (13, 256) and sketched.n_parameters == exact.k


def test_rows_are_found_again_for_any_order_and_only_missing_pairs_are_computed(
    run: Checkpoint, pairs: PairSet, work: Work, no_new_gradients: Callable[[], None]
) -> None:
    train = ids(pairs, "train")
    fewer = dataclasses.replace(pairs, frame=pairs.frame.head(11))
    gradient_features(run, fewer, SKETCH, work, train_ids=train)
    told: list[int] = []
    first = gradient_features(run, pairs, SKETCH, dataclasses.replace(work, bar=_bar(told)))
    assert sum(told) == 2
    no_new_gradients()
    order = np.random.default_rng(1).permutation(len(pairs.frame))
    mixed = dataclasses.replace(pairs, frame=pairs.frame.iloc[order].reset_index(drop=True))
    again = gradient_features(run, mixed, SKETCH, work)
    assert again.pair_ids.tolist() == mixed.frame["pair_id"].tolist()
    assert np.array_equal(again.plain, first.plain[order])
    assert np.array_equal(again.adam, first.adam[order])
    assert np.array_equal(again.squares, first.squares[order])
    every = ids(pairs)
    kernels = [f.kernel(every, every, preconditioned=True) for f in (first, again)]
    np.testing.assert_allclose(*kernels, rtol=1e-6)


def _bar(told: list[int]):
    import contextlib

    @contextlib.contextmanager
    def bar(label: str, total: int):
        yield told.append

    return bar


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"k": 128}, {"batch_size": 5}, {"preconditioned": False}]
)
def test_other_settings_have_rows_of_their_own(
    run: Checkpoint, pairs: PairSet, work: Work, changes: dict
) -> None:
    first = gradient_features(run, pairs, SKETCH, work)
    other = gradient_features(run, pairs, dataclasses.replace(SKETCH, **changes), work)
    folders = list((work.store.root / "GradientFeatures").iterdir())
    assert len(folders) == 2 and all((folder / "address.json").exists() for folder in folders)
    if "batch_size" in changes:
        assert not np.array_equal(first.adam, other.adam)
        assert np.array_equal(first.plain, other.plain)
    elif "preconditioned" in changes:
        assert other.adam is None and np.array_equal(first.plain, other.plain)
    else:
        assert not np.array_equal(first.plain.ravel()[:99], other.plain.ravel()[:99])


def test_truncation_is_that_of_the_choice(
    run: Checkpoint, base: Path, pairs: PairSet, work: Work
) -> None:
    choice = EngineChoice(options=EngineOptions(max_length=12), truncate="response")
    options = dataclasses.replace(EXACT, preconditioned=False, choice=choice)
    found = gradient_features(run, pairs, options, work)
    cut = dense(base, pairs.frame, max_length=12, truncate="response")
    assert not np.allclose(cut, dense(base, pairs.frame))
    np.testing.assert_allclose(found.plain, cut, atol=2e-5 * np.abs(cut).max())
    with pytest.raises(DataError, match="12"):
        error = dataclasses.replace(choice, truncate="error")
        gradient_features(run, pairs, dataclasses.replace(options, choice=error), work)


def test_an_adapters_space_has_its_own_length_and_kernel(
    run: Checkpoint, pairs: PairSet, work: Work
) -> None:
    options = dataclasses.replace(EXACT, space="lora", lora_rank=2, lora_targets=("q_proj",))
    found = gradient_features(run, pairs, options, work)
    assert (found.space, found.n_parameters) == ("lora", 2 * 2 * (32 + 32))
    whole = gradient_features(run, pairs, EXACT, work)
    assert (found.squares < whole.squares).all() and (found.squares > 0).all()


def test_movement_is_the_gradients_times_the_change_of_weights(
    run: Checkpoint, base: Path, pairs: PairSet, work: Work
) -> None:
    before = movement(run, pairs, EXACT, work)
    assert np.isnan(before.adam_norm)
    found = gradient_features(run, pairs, dataclasses.replace(EXACT, epsilon=0.01), work)
    start, end = (load_model(folder, EngineOptions()) for folder in (base, run.model.path))
    change = [b - a for a, b in zip(start.parameters(), end.parameters(), strict=True)]
    flat = torch.cat([part.reshape(-1) for part in change]).double().numpy()
    moved = movement(run, pairs, dataclasses.replace(EXACT, epsilon=0.01), work)
    expected = found.plain.astype(float) @ flat
    np.testing.assert_allclose(moved.linear_margin, expected, atol=1e-4 * np.abs(expected).max())
    assert moved.norm == pytest.approx(np.linalg.norm(flat), rel=1e-6)
    # D is what divides a preconditioned gradient's square: D = (g / a)^2, in any pair's row
    ratio = found.plain[0].astype(float) / np.where(found.adam[0] == 0, np.nan, found.adam[0])
    size = np.sqrt(np.nansum(np.square(flat * ratio)))
    assert moved.adam_norm == pytest.approx(size, rel=1e-2)
    assert moved.pair_ids.tolist() == ids(pairs)


def test_the_runs_recipe_says_batch_size_and_epsilon(
    run: Checkpoint, base: Path, pairs: PairSet, tmp_path: Path
) -> None:
    said: list[str] = []
    work = Work(RowStore(tmp_path / "store"), tmp_path / "cache", said.append)
    options = GradientOptions(k=16, n_workers=1)
    gradient_features(run, pairs, options, work)
    assert any("no recipe.toml" in line and "batches of 32" in line for line in said)
    copy = write_tiny_model(tmp_path / "copy", noise=0.02)
    recipe = '[variant]\nname = "dpo"\n[optimizer]\nlearning_rate = 1e-3\nbatch_size = 5\n'
    (copy / "recipe.toml").write_text(recipe + "epsilon = 0.5\n", encoding="utf-8")
    said.clear()
    known = resolve_checkpoint(copy, reference=base, beta=0.1, variant="dpo")
    found = gradient_features(known, pairs, options, work)
    asked = dataclasses.replace(options, batch_size=5, epsilon=0.5)
    assert np.array_equal(found.adam, gradient_features(run, pairs, asked, work).adam)
    assert said == []


def test_a_checkpoint_without_reference_is_refused(base: Path, pairs: PairSet, work: Work) -> None:
    with pytest.raises(CheckpointError, match=r"reference .* --reference"):
        gradient_features(resolve_checkpoint(base), pairs, SKETCH, work)


def test_features_for_adam_need_training_pairs(run: Checkpoint, work: Work) -> None:
    frame = make_pairs(2, 4).frame.query("split == 'validation'").reset_index(drop=True)
    pairs = dataclasses.replace(make_pairs(2, 4), frame=frame)
    with pytest.raises(DataError, match="none of the pairs is a training pair"):
        gradient_features(run, pairs, SKETCH, work)
    alone = dataclasses.replace(SKETCH, preconditioned=False)
    assert gradient_features(run, pairs, alone, work).adam is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "lora"}, r"space lora with lora_rank 0.*rank of at least 1"),
        ({"lora_rank": 4}, r"space all with lora_rank 4"),
        ({"space": "head"}, r"space must be all or lora, got 'head'"),
        ({"kind": "dense"}, r"kind must be sketch or exact, got 'dense'"),
        ({"k": 0}, r"k must be at least 1, got 0"),
    ],
)
def test_impossible_options_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        GradientOptions(**changes)


def test_pairs_without_features_and_variants_without_rows_are_named(
    run: Checkpoint, pairs: PairSet, work: Work
) -> None:
    found = gradient_features(run, pairs, dataclasses.replace(SKETCH, preconditioned=False), work)
    every = ids(pairs)
    with pytest.raises(DataError, match=r"1 of 14 pairs have no gradient features, first nobody"):
        found.kernel([*every, "nobody"], every, preconditioned=False)
    with pytest.raises(DataError, match="no preconditioned variant"):
        found.cosines(every, every, preconditioned=True)


def test_a_pair_of_equal_answers_has_no_cosine(run: Checkpoint, pairs: PairSet, work: Work) -> None:
    found = gradient_features(run, pairs, SKETCH, work)
    none = dataclasses.replace(found, squares=np.where(np.arange(13) == 2, 0.0, found.squares))
    cosines = none.cosines(ids(pairs), ids(pairs), preconditioned=False)
    assert np.isnan(cosines[2]).all() and np.isnan(cosines[:, 2]).all()
    assert np.isfinite(np.delete(np.delete(cosines, 2, 0), 2, 1)).all()
