"""The removal experiment: which pairs an arm leaves out, and what is written down of its run."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dpo_diag.pipeline import removal


@pytest.fixture
def frame() -> pd.DataFrame:
    """40 training pairs of which every fourth is wrongly labelled, 6 held-out ones."""
    gold = [(-0.5 if i % 4 == 0 else 0.5) for i in range(40)] + [0.5, 0.05, -0.5, 0.3, 0.2, 0.4]
    return pd.DataFrame(
        {
            "pair_id": [f"p{i:02d}" for i in range(46)],
            "prompt_id": [f"q{i:02d}" for i in range(46)],
            "split": ["train"] * 40 + ["test"] * 6,
            "gold_margin": gold,
        }
    )


@pytest.fixture
def why() -> SimpleNamespace:
    blamed = np.array([f"p{i:02d}" for i in range(39, -1, -1)])
    return SimpleNamespace(blamed={"run": blamed}, targets={"run": np.array(["p40", "p44"])})


def test_arms_leave_out_equally_many_training_pairs(frame, why) -> None:
    """5 % of 40 pairs are 2."""
    found = removal.arms(why, SimpleNamespace(frame=frame), seed=3)
    assert list(found) == list(removal.ARMS)
    assert [len(ids) for ids in found.values()] == [0, 0, 2, 2, 2]
    assert list(found[removal.BLAMED]) == ["p39", "p38"]
    gold = frame.set_index("pair_id")["gold_margin"]
    assert (gold[found[removal.WRONG]] < 0).all()
    assert set(found[removal.RANDOM]) <= set(frame["pair_id"][:40])


def test_the_same_seed_leaves_out_the_same_pairs(frame, why) -> None:
    one, two = (removal.arms(why, SimpleNamespace(frame=frame), seed=3) for _ in range(2))
    assert all(list(one[arm]) == list(two[arm]) for arm in one)


def test_outcomes_are_of_clean_held_out_pairs_only(frame, why) -> None:
    """p41 is too close a call, p42 wrongly labelled; p40 and p44 are the targets."""
    margins = pd.Series(np.arange(46.0), index=frame["pair_id"])
    rows = removal.outcomes("arm", 3, margins, why, frame, 2)
    assert list(rows["pair_id"]) == ["p40", "p43", "p44", "p45"]
    assert list(rows["is_target"]) == [True, False, True, False]
    assert list(rows["margin"]) == [40.0, 43.0, 44.0, 45.0]
    assert (rows["n_left_out"] == 2).all()


def test_one_repetition_shows_no_effect(cli, tmp_path) -> None:
    ended = cli("demo", "why", "--out", tmp_path / "why", "--seeds", "1")
    assert "--seeds must be 2 or more" in ended.sentence()
    assert not (tmp_path / "why").exists()
