"""Planted leaks by kind, what the repair takes out of train, and the search for near texts."""

import numpy as np

from dpo_diag.pair_checks._base import CLEAN, REPAIR, UNSEEN
from dpo_diag.pair_checks._similar import nearest
from dpo_diag.pair_checks._words import tokenised
from dpo_diag.pair_checks.leakage import CHECK

RNG = np.random.default_rng(0)
LONG = " ".join(f"word{k}" for k in range(40))


def test_each_planted_kind_is_counted_once(made, values) -> None:
    train = [("p0", "a", "b"), ("p1", "c", "d"), ("How are you?", "e", "f"), (LONG, "g", "h")]
    test = [
        ("p0", "b", "a"),  # the pair itself, turned round
        ("p1", "x", "y"),  # the prompt by its id
        ("how are you", "x", "y"),  # the prompt but for form
        (LONG.replace("word20", "else"), "x", "y"),  # 38 three-word runs each, 35 shared of 41
        ("another thing", "g", "y"),  # the chosen answer alone
        ("nothing of it", "x", "y"),
    ]
    data = made([*train, *test], split=["train"] * 4 + ["test"] * 5 + ["validation"])
    found = CHECK().run(data, RNG)
    shown = values(found)
    assert shown["leaked_pairs"] == 1 / 6 and shown["leaked_prompts"] == 2 / 6
    assert shown["nearly_leaked_prompts"] == 1 / 6 and shown["leaked_answers"] == 1 / 6
    assert found.concern == REPAIR
    assert found.drops["leakage"].tolist() == [True] * 4 + [False] * 6
    assert values(found, "split=validation")["leaked_prompts"] == 0.0


def test_one_split_is_said_to_be_unchecked(made) -> None:
    found = CHECK().run(made([("p", "a", "b"), ("p", "a", "b")]), RNG)
    assert found.concern == UNSEEN and "--test" in found.advice and not found.measures


def test_nothing_shared_is_clean(coins) -> None:
    data = coins(0, 90, split=np.tile(["train", "train", "test"], 30))
    assert CHECK().run(data, RNG).concern == CLEAN


def test_near_texts_are_those_of_comparing_all_with_all() -> None:
    """A slow oracle: Jaccard of the sets of three words over all pairs of 60 and 200 texts."""
    rng = np.random.default_rng(2)
    base = [list(rng.integers(0, 50, 30)) for _ in range(200)]
    changed = []
    for k in range(60):
        text = list(base[k])
        for place in rng.integers(0, 30, k % 6):
            text[place] = 99
        changed.append(text)
    words = tokenised(" ".join(f"w{k}" for k in text) for text in changed + base)

    def runs(text: list) -> set:
        return {tuple(text[k : k + 3]) for k in range(28)}

    best, overlap = nearest(words, np.arange(60), np.arange(60, 260), least=0.8)
    for k, text in enumerate(changed):
        likeness = [len(runs(text) & runs(o)) / len(runs(text) | runs(o)) for o in base]
        top = int(np.argmax(likeness))
        if likeness[top] >= 0.8:
            assert best[k] == 60 + top and abs(overlap[k] - likeness[top]) < 1e-12
        else:
            assert best[k] == -1


def test_empty_and_one_word_prompts_do_not_meet_by_accident() -> None:
    words = tokenised(["", "hi", "", "ho"])
    assert nearest(words, np.array([0, 1]), np.array([2, 3]), least=0.8)[0].tolist() == [-1, -1]
