"""Reference rows are computed once and kept by content; labels act after that."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dpo_diag.engines._base import EngineOptions, ScoreRequest
from dpo_diag.engines.hf import HfEngine
from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet
from dpo_diag.store import RowStore
from dpo_diag.tables import SCORED_PAIRS
from dpo_diag.training.pair_data import PairData, exchanged_sides, flips, pair_logps
from dpo_diag.training.policy import Policy, load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.variants.dpo import Dpo
from dpo_diag.variants.safedpo import SafeDpo


@pytest.fixture
def policy(recipe: Callable[..., Recipe], tmp_path: Path) -> Policy:
    return load_policy(recipe(), tmp_path)


def refuse_to_score(requests: object) -> None:
    raise AssertionError("the reference was asked again")


def test_second_run_asks_the_reference_nothing(
    prepared: Callable[..., PairData],
    policy: Policy,
    pairs: PairSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = RowStore(tmp_path)
    first = prepared(pairs.frame, policy, Dpo(), store)
    monkeypatch.setattr(policy, "reference_scores", refuse_to_score)
    again = prepared(pairs.frame.sample(frac=1, random_state=0), policy, SafeDpo(), store)
    assert len(again) == 10
    one = dict(zip(first.pair_ids, first.ref_chosen - first.ref_rejected, strict=True))
    for pair_id, chosen, rejected in zip(
        again.pair_ids, again.ref_chosen, again.ref_rejected, strict=True
    ):
        assert abs(one[pair_id]) == pytest.approx(abs(chosen - rejected))


def test_only_missing_pairs_are_scored(
    prepared: Callable[..., PairData],
    policy: Policy,
    pairs: PairSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, asked = RowStore(tmp_path), []
    prepared(pairs.frame.iloc[:6], policy, Dpo(), store)
    score = policy.reference_scores
    monkeypatch.setattr(
        policy, "reference_scores", lambda requests: asked.append(len(requests)) or score(requests)
    )
    prepared(pairs.frame, policy, Dpo(), store)
    assert asked == [2 * 4]


def test_reference_log_probs_are_the_engines(
    prepared: Callable[..., PairData], policy: Policy, pairs: PairSet, tmp_path: Path, base: Path
) -> None:
    data = prepared(pairs.frame, policy, Dpo(), RowStore(tmp_path))
    requests = [ScoreRequest(r.prompt_ids, r.response_ids) for r in data.chosen]
    with HfEngine(base, EngineOptions()) as engine:
        np.testing.assert_allclose(data.ref_chosen, engine.score(requests).logp, atol=1e-4)


def test_policy_at_the_start_gives_the_reference_values(
    prepared: Callable[..., PairData], policy: Policy, pairs: PairSet, tmp_path: Path
) -> None:
    data = prepared(pairs.frame, policy, Dpo(), RowStore(tmp_path))
    with torch.no_grad():
        batch = pair_logps(policy.model, replace(data, keep_tokens=True), np.arange(10))
    np.testing.assert_allclose(batch.policy_rejected.numpy(), data.ref_rejected, atol=1e-4)
    torch.testing.assert_close(batch.token_logps_chosen.sum(1), batch.policy_chosen.float())
    assert (batch.mask_chosen.sum(1) == batch.n_tokens_chosen).all()


def test_swapped_pairs_exchange_everything_and_dropped_ones_are_gone(
    prepared: Callable[..., PairData], policy: Policy, pairs: PairSet, tmp_path: Path
) -> None:
    """Pairs 0..3 become safe/safe, safe/unsafe, unsafe/safe, unsafe/unsafe."""
    frame = pairs.frame.iloc[:4].assign(
        is_chosen_safe=[True, True, False, False], is_rejected_safe=[True, False, True, False]
    )
    store = RowStore(tmp_path)
    before = prepared(frame, policy, Dpo(), store)
    after = prepared(frame, policy, SafeDpo(), store)
    assert after.pair_ids == before.pair_ids[:3]
    assert after.chosen == (*before.chosen[:2], before.rejected[2])
    assert after.rejected == (*before.rejected[:2], before.chosen[2])
    assert after.ref_chosen.tolist() == [*before.ref_chosen[:2], before.ref_rejected[2]]
    assert after.frame["is_chosen_safe"].all()
    assert after.frame["is_rejected_safe"].tolist() == [True, False, False]
    assert (after.counts["kept"], after.counts["swapped"], after.counts["dropped"]) == (2, 1, 1)


def test_rows_are_scored_pairs_of_the_reference(
    prepared: Callable[..., PairData], policy: Policy, pairs: PairSet, tmp_path: Path
) -> None:
    prepared(pairs.frame, policy, Dpo(), RowStore(tmp_path))
    folders = list((tmp_path / SCORED_PAIRS.name).iterdir())
    assert len(folders) == 1
    text = (folders[0] / "address.json").read_text(encoding="utf-8")
    assert policy.reference.fingerprint in text
    assert policy.encoder.hash in text


def test_a_missing_label_is_named_with_its_pair(
    prepared: Callable[..., PairData], policy: Policy, pairs: PairSet, tmp_path: Path
) -> None:
    frame = pairs.frame.assign(
        is_chosen_safe=[True, None, *[True] * 8], is_rejected_safe=[True] * 10
    )
    message = f"1 are missing, first at pair_id {frame['pair_id'].iloc[1]}"
    with pytest.raises(DataError, match=message):
        prepared(frame, policy, SafeDpo(), RowStore(tmp_path))


def test_flipped_labels_exchange_sides_and_references_and_grow_with_the_rate(
    prepared: Callable[..., PairData], policy: Policy, pairs: PairSet, tmp_path: Path
) -> None:
    store = RowStore(tmp_path)
    before = prepared(pairs.frame, policy, Dpo(), store)
    after = prepared(pairs.frame, policy, Dpo(), store, flip_labels=0.5)
    swap = flips(before.pair_ids, 0.5, 0)
    assert 0 < swap.sum() == after.counts["flipped"] < len(swap)
    for i, turned in enumerate(swap):
        sides = ("rejected", "chosen") if turned else ("chosen", "rejected")
        assert after.chosen[i] == getattr(before, sides[0])[i]
        assert after.ref_rejected[i] == getattr(before, f"ref_{sides[1]}")[i]
        assert after.frame["chosen"][i] == before.frame[sides[0]][i]
    assert (swap | ~flips(before.pair_ids, 0.2, 0)).all()
    held_out = prepared(pairs.frame, policy, Dpo(), store, flip_labels=0.5, is_training=False)
    assert held_out.chosen == before.chosen


def test_a_quarter_of_many_labels_is_flipped() -> None:
    """Of 4,000 pairs at rate .25: 1,000 +- 5 standard deviations (27.4)."""
    assert abs(flips([str(i) for i in range(4000)], 0.25, 0).sum() - 1000) < 137


def test_shares_who_agree_with_the_label_are_turned_with_it() -> None:
    """Of the first pair .9 of a group prefer what is chosen; once swapped, .1 do."""
    given = pd.DataFrame(
        {
            "chosen": ["a", "c"],
            "rejected": ["b", "d"],
            "gold_margin": [0.5, 0.25],
            "judge_agreement": [0.8, 0.6],
            "prefers_chosen_helpful": [0.9, 0.7],
            "prefers_chosen_cyclic": [0.2, 0.3],
        }
    )
    swapped = exchanged_sides(given, np.array([True, False]))
    assert swapped["chosen"].tolist() == ["b", "c"]
    assert swapped["gold_margin"].tolist() == [-0.5, 0.25]
    for name in ("judge_agreement", "prefers_chosen_helpful", "prefers_chosen_cyclic"):
        expected = [1.0 - given[name][0], given[name][1]]
        assert swapped[name].to_numpy() == pytest.approx(expected)
