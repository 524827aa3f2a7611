"""Heavy prompts, effective prompts, domains that are evaluated but not trained."""

import numpy as np

from dpo_diag.pair_checks._base import KNOW, LOOK
from dpo_diag.pair_checks.balance import CHECK

RNG = np.random.default_rng(0)


def test_a_prompt_with_most_of_the_pairs_is_seen(made, values) -> None:
    """40 pairs of one prompt and 20 of others: 60^2 / (1600 + 20) = 2.2 even prompts."""
    pairs = [("heavy", f"a{k}", f"b{k}") for k in range(40)]
    pairs += [(f"p{k}", "a", "b") for k in range(20)]
    found = CHECK().run(made(pairs), RNG)
    assert values(found)["pairs_on_heavy_prompts"] == 40 / 60
    assert "weigh like 2 even" in found.summary and found.concern == LOOK and found.advice


def test_domains_outside_train_are_counted(coins, values) -> None:
    data = coins(0, 30, split=["train"] * 20 + ["test"] * 10, domain=["a"] * 25 + ["b"] * 5)
    found = CHECK().run(data, RNG)
    assert values(found)["pairs_of_untrained_domains"] == 5 / 30 and found.concern == KNOW
    assert values(found, "domain=b")["share_of_data"] == 5 / 30
