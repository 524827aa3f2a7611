"""Anchors: who gets one and when, from which policy, with which reference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpo_diag.engines._base import ScoreRequest
from dpo_diag.pairs import PairSet
from dpo_diag.store import RowStore
from dpo_diag.training.batches import step_units
from dpo_diag.training.pair_data import PairData, pair_logps
from dpo_diag.training.policy import Policy, load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.sources.anchors import Anchors
from dpo_diag.variants.tidpo import TiDpo

Make = Callable[..., PairData]


@pytest.fixture
def policy(recipe: Callable[..., Recipe], tmp_path: Path) -> Policy:
    return load_policy(recipe("tidpo"), tmp_path)


@pytest.fixture
def make(
    prepared: Make, policy: Policy, pairs: PairSet, tmp_path: Path
) -> Callable[..., tuple[PairData, Anchors]]:
    """The training (or validation) pairs and their source of anchors; 4 pairs make a step."""

    def made(*, is_training: bool = True, seed: int = 0, **values: Any) -> tuple[PairData, Anchors]:
        rows = pairs.frame.iloc[:8] if is_training else pairs.frame.iloc[8:]
        data = prepared(
            rows,
            policy,
            TiDpo(**{"anchor_tokens": 6, **values}),
            RowStore(tmp_path),
            is_training=is_training,
            batch_size=4,
            seed=seed,
        )
        source = data.sources["anchors"]
        assert isinstance(source, Anchors)
        return data, source

    return made


def drawn(source: Anchors, index: np.ndarray) -> list[tuple[int, ...]]:
    return [answer.response_ids for answer in source.answers(index)]


def shift(policy: Policy) -> None:
    """Move every weight, as training would."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in policy.model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))


def test_the_pairs_of_the_coming_steps_get_one_each(make: Any) -> None:
    """Every step: the four pairs of that step; every two: all eight, once per epoch of two."""
    data, source = make(anchor_every=1)
    source.begin(1)
    due = step_units(0, 1, n=8, batch_size=4)
    assert set(source.state_dict()["anchors"]) == set(due.tolist())
    for place, answer in zip(due, source.answers(due), strict=True):
        assert answer.prompt_ids == data.chosen[place].prompt_ids
        assert 1 <= len(answer.response_ids) <= 6
    _, source = make(anchor_every=2)
    source.begin(2)
    assert set(source.state_dict()["anchors"]) == set(range(8))


def test_anchors_are_held_between_drawings_and_new_in_the_next(make: Any, policy: Policy) -> None:
    _, source = make(anchor_every=2)
    source.begin(0)
    first = drawn(source, np.arange(8))
    shift(policy)
    source.begin(1)
    assert drawn(source, np.arange(8)) == first
    source.begin(2)
    assert drawn(source, np.arange(8)) != first


def test_anchors_depend_on_the_seed_and_on_the_drawing_alone(make: Any) -> None:
    """The weights stay, so only random numbers tell drawings apart; a jump asks for none before."""
    found = []
    for seed, step in ((0, 4), (0, 4), (1, 4), (0, 2)):
        _, source = make(anchor_every=2, seed=seed)
        source.begin(step)
        found.append(drawn(source, np.arange(8)))
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found[0] != found[3]


def test_log_probs_are_the_policys_of_now_and_the_references_of_the_start(
    make: Any, policy: Policy
) -> None:
    data, source = make(anchor_every=2)
    shift(policy)
    source.begin(0)
    index = np.array([5, 2, 7])
    requests = [ScoreRequest(a.prompt_ids, a.response_ids) for a in source.answers(index)]
    start = policy.reference_scores(requests, keep_tokens=True).token_logps
    batch = pair_logps(policy.model, data, index)
    now = policy.engine().score(requests, keep_tokens=True).token_logps
    for row, request in enumerate(requests):
        n = len(request.response_ids)
        assert batch.mask_anchor[row].tolist() == [i < n for i in range(batch.mask_anchor.shape[1])]
        for values, expected in (
            (batch.anchor_token_logps, now),
            (batch.ref_anchor_token_logps, start),
        ):
            np.testing.assert_allclose(values[row, :n].detach().numpy(), expected[row], atol=1e-4)
            assert (values[row, n:] == 0).all()
    assert batch.anchor_token_logps.requires_grad
    assert not batch.ref_anchor_token_logps.requires_grad
    assert abs(now[0] - start[0]).max() > 0.1


def test_state_holds_all_that_a_resumed_run_needs(make: Any, policy: Policy) -> None:
    data, source = make(anchor_every=2)
    source.begin(3)
    state, expected = source.state_dict(), drawn(source, np.arange(8))
    shift(policy)  # a new drawing would differ
    _, other = make(anchor_every=2)
    other.load_state_dict(state)
    other.begin(3)
    assert drawn(other, np.arange(8)) == expected
    one, again = (
        s.fields_of_pass(np.arange(8), _pass(policy, data, s))["ref_anchor_token_logps"]
        for s in (source, other)
    )
    assert torch.equal(one, again)


def _pass(policy: Policy, data: PairData, source: Anchors) -> Any:
    from dpo_diag.training.batches import pack
    from dpo_diag.training.forward import response_logps
    from dpo_diag.training.sources._base import Pass

    beside = response_logps(policy.model, pack(source.answers(np.arange(8))))
    return Pass(beside, beside, beside)


def test_validation_pairs_get_theirs_from_the_policy_of_the_moment(
    make: Any, policy: Policy
) -> None:
    _, source = make(is_training=False, anchor_tokens=12)
    before = drawn(source, np.arange(2))
    assert drawn(source, np.arange(2)) == before
    shift(policy)
    assert drawn(source, np.arange(2)) != before


def test_an_anchor_is_cut_where_the_window_ends(
    make: Any, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window of two tokens beyond the longest prompt; shorter prompts leave more room."""
    data, source = make(anchor_every=2, anchor_tokens=50)
    longest = max(len(answer.prompt_ids) for answer in data.chosen)
    monkeypatch.setattr(policy.model.config, "max_position_embeddings", longest + 2)
    source.begin(0)
    answers = source.answers(np.arange(8))
    assert all(len(a.prompt_ids) + len(a.response_ids) <= longest + 2 for a in answers)
    assert max(len(a.response_ids) for a in answers) >= 2


def test_nothing_is_drawn_where_the_loss_reads_no_anchor(make: Any, policy: Policy) -> None:
    data, source = make(gamma=0.0)
    source.begin(0)
    assert not source.answers(np.arange(4))
    assert policy.reference_model is None
    assert pair_logps(policy.model, data, np.arange(4)).anchor_token_logps is None
