"""Pairs by hand and at random, as the checks see them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dpo_diag.content import content_id
from dpo_diag.pair_checks._base import PairData
from dpo_diag.tables import PAIR_ROWS, empty

Made = Callable[..., PairData]


def made(pairs: Iterable[tuple[str, str, str]], **columns: Any) -> PairData:
    """PairData of (prompt, chosen, rejected) triples; further columns by name."""
    tables: Mapping[str, pd.DataFrame] = columns.pop("tables", {})
    given = {k: columns.pop(k) for k in ("unread", "refusals", "n_cases") if k in columns}
    records = [
        {
            "row": row,
            "place": f"line {row + 1}",
            "pair_id": content_id(prompt, chosen, rejected),
            "prompt_id": content_id(prompt),
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "domain": "in_domain",
            "split": "train",
            "source": "made",
        }
        for row, (prompt, chosen, rejected) in enumerate(pairs)
    ]
    frame = pd.DataFrame(records) if records else empty(PAIR_ROWS)
    return PairData(frame.assign(**columns), tables, **given)


def coin_pairs(rng: np.random.Generator, n: int) -> list[tuple[str, str, str]]:
    """Pairs whose labels are coins: both answers drawn alike, no two the same."""
    words = np.array([f"word{k}" for k in range(60)])
    pairs = []
    for number in range(n):
        sizes = rng.integers(8, 16, 2)
        drawn = [" ".join(rng.choice(words, size)) for size in sizes]
        answers = [f"{text} u{number}{side}." for text, side in zip(drawn, "ab", strict=True)]
        pairs.append((f"prompt {' '.join(rng.choice(words, 9))} {number}", *answers))
    return pairs


@pytest.fixture(name="made")
def made_fixture() -> Made:
    return made


@pytest.fixture
def coins() -> Callable[..., PairData]:
    return lambda seed, n=200, **columns: made(
        coin_pairs(np.random.default_rng(seed), n), **columns
    )


@pytest.fixture
def values() -> Callable[..., dict[str, float]]:
    """Estimates of a result by statistic, of all rows or of one part."""
    return lambda checked, part="all": {
        m.statistic: m.interval.estimate for m in checked.measures if m.part == part
    }
