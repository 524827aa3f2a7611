"""Planted circles of preferences; an independent search by walking on 40 random graphs."""

import itertools

import numpy as np

from dpo_diag.pair_checks.cycles import CHECK, on_circles

RNG = np.random.default_rng(0)


def test_three_and_four_answers_in_a_circle_are_found_whole(made) -> None:
    circle = [("p", "a", "b"), ("p", "b", "c"), ("p", "c", "a"), ("p", "a", "z")]
    four = [("q", x, y) for x, y in itertools.pairwise("abcda")]
    chain = [("r", "a", "b"), ("r", "b", "c"), ("r", "a", "c")]
    cyclic, can_be = on_circles(made([*circle, *four, *chain]))
    assert cyclic.tolist() == [True] * 3 + [False] + [True] * 4 + [False] * 3
    assert can_be.all()


def test_a_circle_over_two_prompts_is_none(made) -> None:
    pairs = [("p", "a", "b"), ("p", "b", "c"), ("q", "c", "a")]
    assert not on_circles(made(pairs))[0].any()


def test_a_contradiction_alone_is_no_circle(made) -> None:
    pairs = [("p", "a", "b"), ("p", "b", "a"), ("p", "b", "c"), ("p", "c", "b")]
    assert not on_circles(made(pairs))[0].any()


def test_agrees_with_walking_from_every_answer(made) -> None:
    rng = np.random.default_rng(4)
    for _ in range(40):
        kept = {}
        for _ in range(8):  # one direction per pair of answers: contradictions are apart
            x, y = rng.choice(list("abcdef"), 2, replace=False)
            kept[frozenset((x, y))] = ("p", str(x), str(y))
        pairs = list(kept.values())
        below = {x: {c for _, b, c in pairs if b == x} for x in "abcdef"}

        def reaches(start: str, goal: str, below: dict = below) -> bool:
            seen, open_ = set(), [start]
            while open_:
                here = open_.pop()
                if here == goal:
                    return True
                if here not in seen:
                    seen.add(here)
                    open_ += below[here]
            return False

        expected = [reaches(loser, winner) for _, winner, loser in pairs]
        assert on_circles(made(pairs))[0].tolist() == expected


def test_rows_on_a_circle_are_counted(made, values) -> None:
    pairs = [("p", "a", "b"), ("p", "b", "c"), ("p", "c", "a"), ("q", "a", "b")]
    found = CHECK().run(made(pairs), RNG)
    assert values(found)["cyclic_pairs"] == 0.75 and found.drops["cycles"].sum() == 3
