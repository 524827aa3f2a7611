"""Sets of pairs put together: in distribution or shifted, of which kind, what overlaps."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dpo_diag.cli._shifted import check_match
from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet, read_pairs
from dpo_diag.pipeline.shifted import KINDS, Shifted, joined, overlap_notes


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., PairSet]:
    """A set of pairs from prompts, by name, with further columns where they are given."""

    def make(name: str, *prompts: str, **columns: str) -> PairSet:
        common = {"chosen": "a", "rejected": "b", **columns}
        rows = [{"prompt": p, **common} for p in prompts]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_pairs(path)

    return make


def test_shifted_sets_stand_under_their_names(pairs: Callable) -> None:
    sets = [Shifted(pairs("s", "y"), "s"), Shifted(pairs("t", "z"), "t")]
    frame = joined(pairs("own", "x"), sets).frame
    assert frame["domain"].tolist() == ["in_domain", "s", "t"]
    assert "shift_kind" not in frame.columns


def test_pairs_with_domains_of_their_own_are_the_in_distribution_set(pairs: Callable) -> None:
    frame = joined(pairs("own", "x", domain="math"), [Shifted(pairs("s", "y"), "s")]).frame
    assert frame["domain"].tolist() == ["in_domain", "s"]
    assert frame["original_domain"].tolist()[0] == "math"


def test_shifted_set_with_domains_keeps_them(pairs: Callable) -> None:
    frame = joined(pairs("own", "x"), [Shifted(pairs("s", "y", domain="slang"), "s")]).frame
    assert frame["domain"].tolist() == ["in_domain", "slang"]


@pytest.mark.parametrize("first", ["own", "s"])
def test_set_of_pairs_that_another_holds_is_refused_with_both_named(
    pairs: Callable, first: str
) -> None:
    sets = {"own": pairs("own", "x"), "s": pairs("s", "y")}
    again = pairs("t", {"own": "x", "s": "y"}[first])
    with pytest.raises(DataError, match=rf"t\.jsonl: 1 of its pairs are also in .*{first}\.jsonl"):
        joined(sets["own"], [Shifted(sets["s"], "s"), Shifted(again, "t")])


def test_shifted_set_cannot_be_called_in_domain(pairs: Callable) -> None:
    with pytest.raises(DataError, match="cannot be called in_domain"):
        joined(pairs("own", "x"), [Shifted(pairs("s", "y"), "in_domain")])


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_named_is_every_rows_of_the_set(pairs: Callable, kind: str) -> None:
    frame = joined(pairs("own", "x"), [Shifted(pairs("s", "y", "z"), "s", kind)]).frame
    assert frame["shift_kind"].fillna("").tolist() == ["", kind, kind]


def test_a_kind_that_the_pairs_carry_is_kept(pairs: Callable) -> None:
    extra = pairs("s", "y", shift_kind="prompt")
    assert joined(pairs("own", "x"), [Shifted(extra, "s")]).frame["shift_kind"][1] == "prompt"
    assert (
        joined(pairs("own", "x"), [Shifted(extra, "s", "prompt")]).frame["shift_kind"][1]
        == "prompt"
    )


def test_an_unknown_kind_is_refused_with_the_four_names(pairs: Callable) -> None:
    for extra in (
        Shifted(pairs("s", "y"), "s", "wording"),
        Shifted(pairs("s", "y", shift_kind="wording"), "s"),
    ):
        with pytest.raises(DataError, match="'wording' is no kind.*" + ".*".join(KINDS)):
            joined(pairs("own", "x"), [extra])


def test_a_kind_against_the_pairs_own_is_refused(pairs: Callable) -> None:
    extra = Shifted(pairs("s", "y", shift_kind="prompt"), "s", "domain")
    with pytest.raises(DataError, match="called a domain shift, but its pairs say prompt"):
        joined(pairs("own", "x"), [extra])


def test_pairs_of_the_training_set_are_left_out_counted_and_named(pairs: Callable) -> None:
    own, training = pairs("own", "x"), pairs("train", "y", "w")
    extra = pairs("s", "y", "z")
    whole = joined(own, [Shifted(extra, "s")], training)
    assert whole.frame["prompt"].tolist() == ["x", "z"]
    (note,) = overlap_notes(whole, own, extra)
    assert "1 of 2 shifted pairs are left out: 1 are also in the training pairs" in note
    assert extra.frame.loc[extra.frame["prompt"] == "y", "pair_id"].iloc[0] in note


def test_a_pair_that_differs_in_case_marks_or_order_is_left_out(pairs: Callable) -> None:
    own, training = pairs("own", "x"), pairs("train", "Is it so?", chosen="Yes.", rejected="no")
    same = pairs("s", "is it  so", "is it not so", chosen="no!", rejected="yes")
    whole = joined(own, [Shifted(same, "s")], training)
    assert whole.frame["prompt"].tolist() == ["x", "is it not so"]
    (note,) = overlap_notes(whole, own, same)
    assert "0 are also in the training pairs" in note and "and 1 are but for case" in note


def test_signs_that_mean_something_are_no_marks(pairs: Callable) -> None:
    training = pairs("train", "code", chosen="a + b", rejected="c")
    extra = Shifted(pairs("s", "code", chosen="a - b", rejected="c"), "s")
    assert len(joined(pairs("own", "x"), [extra], training).frame) == 2


def test_shared_prompts_are_kept_counted_and_named(pairs: Callable) -> None:
    own, training = pairs("own", "x"), pairs("train", "y", "w")
    extra = pairs("s", "y", "z", chosen="other")
    whole = joined(own, [Shifted(extra, "s")], training)
    assert len(whole.frame) == 3
    (note,) = overlap_notes(whole, own, extra)
    assert "1 prompts of 1 shifted pairs are also in the training pairs" in note


def test_sets_without_overlap_say_nothing(pairs: Callable) -> None:
    own, extra = pairs("own", "x"), pairs("s", "y")
    assert overlap_notes(joined(own, [Shifted(extra, "s")], pairs("train", "w")), own, extra) == ()


def test_a_stratum_that_no_pair_has_is_refused_with_the_columns(pairs: Callable) -> None:
    own = pairs("own", "x", domain="math")
    check_match({"match": ("domain", "difficulty", "length")}, own)
    check_match({}, own)
    with pytest.raises(DataError, match=r"--match topik: the pairs have no such column; .*domain"):
        check_match({"match": ("domain", "topik")}, own)
