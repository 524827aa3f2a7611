"""Known flips in the committed sandbox: what a selector keeps is cleaner than what chance keeps.

2404 training pairs whose answers differ in gold helpfulness are put in gold order and one in five
is turned round at known places. Two scorers see the gold margin (standard deviation 0.27) through
noise of their own of standard deviation 0.7, so that either alone is wrong on every third pair.
240 pairs are kept, of which chance turns 48 round.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dpo_diag import registry

DATA = Path(__file__).parents[2] / "data" / "sandbox" / "pairs.jsonl"
KEPT = 240
MARGINS = ("bees", "margin_sum", "margin_product", "external_margin", "implicit_margin")


@dataclass(frozen=True)
class Planted:
    """Inputs of the selectors and which labels are wrong, (n,) bool."""

    table: pd.DataFrame
    is_flipped: np.ndarray

    def flips_kept(self, name: str, **parameters: float) -> int:
        """Wrong labels among the KEPT pairs of highest score."""
        scores = registry.build("selectors", name, parameters).scores(self.table)
        return int(self.is_flipped[np.argsort(-scores, kind="stable")[:KEPT]].sum())

    def chance_of_so_few(self, n_flips: int) -> float:
        """P(a random choice of KEPT pairs holds at most so many): hypergeometric."""
        n, k = len(self.is_flipped), int(self.is_flipped.sum())
        return float(stats.hypergeom.cdf(n_flips, n, k, KEPT))


@pytest.fixture(scope="module")
def planted() -> Planted:
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    sides = ("gold_helpfulness_chosen", "gold_helpfulness_rejected")
    train = pd.DataFrame([row for row in rows if row["split"] == "train"])
    gold = (train[sides[0]] - train[sides[1]]).abs().to_numpy()
    ids, gold = train["pair_id"][gold > 0].to_numpy(), gold[gold > 0]
    rng = np.random.default_rng(11)
    is_flipped = rng.random(len(gold)) < 0.2
    seen = {
        f"{source}_margin": np.where(is_flipped, -1, 1) * (gold + rng.normal(size=len(gold)) * 0.7)
        for source in ("external", "implicit")
    }
    return Planted(pd.DataFrame({"pair_id": ids, **seen}), is_flipped)


def test_the_world_is_as_hard_as_it_says(planted: Planted) -> None:
    assert len(planted.table) == 2404 and 430 < planted.is_flipped.sum() < 530
    wrong = (planted.table["external_margin"] < 0) != planted.is_flipped
    assert 0.28 < wrong.mean() < 0.38


@pytest.mark.parametrize("name", MARGINS)
def test_what_a_margin_keeps_has_far_fewer_flips_than_chance(name: str, planted: Planted) -> None:
    """1 to 8 of 240 here, where chance gives 48; 1e-12 leaves no room for luck."""
    assert planted.chance_of_so_few(planted.flips_kept(name)) < 1e-12


def test_the_random_baseline_keeps_what_chance_keeps(planted: Planted) -> None:
    """Ten seeds: 0.001 to 0.999 each, so that one in 50 honest baselines would fail."""
    for seed in range(10):
        chance = planted.chance_of_so_few(planted.flips_kept("random", seed=seed))
        assert 0.001 < chance < 0.999


def test_two_independent_witnesses_keep_fewer_flips_than_either(planted: Planted) -> None:
    single = min(planted.flips_kept(name) for name in ("external_margin", "implicit_margin"))
    for name in ("bees", "margin_sum", "margin_product"):
        assert planted.flips_kept(name) < single


def test_fusing_a_source_with_itself_adds_nothing(planted: Planted) -> None:
    """Its bias is not seen: the order is that of the one source between its bounds."""
    table = planted.table.assign(implicit_margin=planted.table["external_margin"])
    scores = registry.build("selectors", "bees", {}).scores(table)
    low, high = table["external_margin"].quantile([0.02, 0.98])
    inside = table["external_margin"].between(low, high, inclusive="neither").to_numpy()
    order = np.argsort(scores[inside])
    assert (np.diff(table["external_margin"].to_numpy()[inside][order]) >= 0).all()
