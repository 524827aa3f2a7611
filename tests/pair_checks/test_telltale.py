"""Planted words are found with their side; coins raise a false alarm in at most 5 % of sets."""

import numpy as np
import pytest

from dpo_diag.pair_checks._base import KNOW, LOOK
from dpo_diag.pair_checks.telltale import CHECK, presence, sampled, telltale_words

RNG = np.random.default_rng(0)


def planted(coins, made, rate: float, *, share: float = 0.5):
    """Coins, ``zzz`` put into one answer of a share of pairs: the chosen one at a rate."""
    rng = np.random.default_rng(9)
    pairs = []
    for row in coins(0, 300).rows.itertuples():
        chosen, rejected = row.chosen, row.rejected
        if rng.random() < share:
            is_chosen = rng.random() < rate
            chosen, rejected = (
                (chosen + " zzz", rejected) if is_chosen else (chosen, rejected + " zzz")
            )
        pairs.append((row.prompt, chosen, rejected))
    return made(pairs)


def test_presence_by_hand(made) -> None:
    """``a b`` against ``b c``: a and "a b" only chosen, c and "b c" only rejected, b on neither."""
    features = presence(made([(f"p{k}", "a b", "b c") for k in range(12)]), np.arange(12))
    signs = dict(zip(features.names, features.signs.toarray()[0], strict=True))
    assert signs == {"a": 1.0, "c": -1.0, "a b": 1.0, "b c": -1.0}
    assert dict(zip(features.names, features.is_single, strict=True))["a b"] == False  # noqa: E712


def test_labels_by_coin_seldom_raise_an_alarm(coins) -> None:
    """At most 10 of 200 sets; the sign test is discrete, so that there are fewer."""
    alarms = 0
    for seed in range(200):
        data = coins(seed, 120)
        alarms += bool(telltale_words(presence(data, np.arange(data.n)), data.prompts))
    assert alarms <= 10


def test_pairs_of_one_prompt_are_one_vote(made) -> None:
    """A word in all 60 pairs of one prompt is one vote, and one vote shows nothing."""
    pairs = [("p", f"zzz a{k}", f"b{k}") for k in range(60)]
    data = made(pairs)
    assert telltale_words(presence(data, np.arange(60)), data.prompts) == []


@pytest.mark.parametrize(("rate", "side"), [(0.97, "chosen"), (0.03, "rejected")])
def test_a_planted_word_is_first_and_says_its_side(coins, made, rate, side) -> None:
    data = planted(coins, made, rate)
    words = telltale_words(presence(data, np.arange(data.n)), data.prompts)
    assert "zzz" in words[0].name and side in words[0].said() and words[0].accuracy > 0.9
    found = CHECK().run(data, np.random.default_rng(0))
    assert found.concern == LOOK
    picked = [m for m in found.measures if m.statistic == "chosen_side_share"]
    assert picked and not any(m.interval.is_guarantee for m in picked)


def test_the_words_model_finds_as_much_as_is_there(coins, made, values) -> None:
    """Half of the pairs have zzz, which is right in 97 % of them; the others are coins."""
    found = CHECK().run(planted(coins, made, 0.97), np.random.default_rng(0))
    assert abs(values(found)["word_model_accuracy"] - (0.485 + 0.25)) < 0.08


def test_a_weak_word_is_known_but_calls_for_no_look(coins, made) -> None:
    found = CHECK().run(planted(coins, made, 0.75, share=0.9), np.random.default_rng(0))
    assert found.concern == KNOW


def test_words_that_only_come_together_are_one_finding(made) -> None:
    pairs = [(f"p{k}", f"as an x{k}", f"y{k}") for k in range(40)]
    words = telltale_words(presence(made(pairs), np.arange(40)), np.arange(40))
    assert [word.name for word in words] == ["as an"]


def test_words_of_equal_counts_in_other_pairs_are_findings_of_their_own(made) -> None:
    pairs = [(f"p{k}", f"{'xx' if k % 2 else 'yy'} a{k}", f"b{k}") for k in range(80)]
    words = telltale_words(presence(made(pairs), np.arange(80)), np.arange(80))
    assert sorted(word.name for word in words) == ["xx", "yy"]


def test_large_sets_are_sampled_by_prompt_and_that_is_said(coins, monkeypatch) -> None:
    monkeypatch.setattr("dpo_diag.pair_checks.telltale.MAX_PAIRS", 50)
    rows, notes = sampled(coins(0, 120), np.random.default_rng(0))
    assert len(rows) == 50 and "50 of 120" in notes[0]


def test_a_sure_word_comes_before_a_weaker_one_that_is_in_more_pairs(made) -> None:
    """``zzz`` is right in all of 40 pairs, ``yyy`` in 150 of 200: 40 against 100 prompts."""
    pairs = []
    for k in range(200):
        chosen, rejected = ("yyy", f"no{k}") if k % 4 else (f"no{k}", "yyy")
        sure = "zzz" if k < 40 else f"c{k}"
        pairs.append((f"p{k}", f"{chosen} {sure} a{k}", f"{rejected} b{k}"))
    words = telltale_words(presence(made(pairs), np.arange(200)), np.arange(200))
    assert words[0].is_strong and "zzz" in words[0].name
    assert [word.name for word in words if not word.is_strong] == ["yyy"]
