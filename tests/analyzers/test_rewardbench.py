"""RewardBench's totals on published rows, its Ties score by hand, what is missing."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers import _rewardbench as bench
from dpo_diag.analyzers import rewardbench
from dpo_diag.analyzers._base import AnalyzerResult
from dpo_diag.analyzers.rewardbench import Parameters, Rewardbench

# methods.md, section 12.3: score of June 2024 and its five sections
JUNE = {
    "stablelm-2-12b-chat": (77.4, 96.6, 55.5, 82.6, 89.4, 48.4),
    "tulu-2-dpo-70b": (76.1, 97.5, 60.5, 83.9, 74.1, 52.8),
    "Nous-Hermes-2-Mistral-7B-DPO": (74.8, 92.2, 60.5, 82.3, 73.8, 55.5),
    "tulu-2-dpo-13b": (73.4, 95.8, 58.3, 78.2, 73.2, 49.5),
    "zephyr-7b-alpha": (73.4, 91.6, 62.5, 74.3, 75.1, 53.5),
    "zephyr-7b-beta": (71.8, 95.3, 62.7, 61.0, 77.9, 52.2),
    "tulu-2-dpo-7b": (71.7, 97.5, 56.1, 73.3, 71.8, 47.7),
    "Qwen1.5-14B-Chat": (69.8, 57.3, 70.2, 76.3, 89.6, 41.2),
    "Qwen1.5-72B-Chat": (68.2, 62.3, 66.0, 72.0, 85.5, 42.3),
    "Qwen1.5-7B-Chat": (68.7, 53.6, 69.1, 74.8, 90.4, 42.9),
    "OLMo-7B-Instruct": (66.7, 89.7, 50.7, 62.3, 71.7, 51.7),
    "zephyr-7b-gemma-v0.1": (66.4, 95.8, 49.6, 52.9, 74.6, 51.7),
    "ArmoRM-8B": (89.0, 96.9, 76.8, 92.2, 97.3, 74.3),
}
MARCH = {"stablelm-2-zephyr-1.6b": (65.9, 96.6, 46.6, 60.0, 77.4, 48.7)}


def items_of(sections: tuple[float, ...]) -> pd.DataFrame:
    """Two items in every subset, each worth its section's published percentage."""
    rows = [
        (f"{name}{i}", name, f"{name}{i}", value / 100.0)
        for (_, names), value in zip(bench.SECTIONS.items(), sections, strict=True)
        for name in names
        for i in range(2)
    ]
    return pd.DataFrame(rows, columns=["key", "term", "cluster", "value"])


@pytest.mark.parametrize("model", sorted(JUNE))
def test_june_total_reproduces_the_published_row(model: str) -> None:
    published, *sections = JUNE[model]
    found = rewardbench.total(items_of(tuple(sections)), bench.TOTALS_V1["rewardbench_score"])
    assert 100.0 * found.estimate == pytest.approx(published, abs=0.0501 + 0.05)


def test_march_total_reproduces_the_published_row() -> None:
    published, *sections = MARCH["stablelm-2-zephyr-1.6b"]
    items = items_of(tuple(sections))
    march = rewardbench.total(items, bench.TOTALS_V1["rewardbench_score_march"])
    june = rewardbench.total(items, bench.TOTALS_V1["rewardbench_score"])
    assert 100.0 * march.estimate == pytest.approx(published, abs=0.0501)
    assert 100.0 * june.estimate > published + 1.0


def test_subsets_are_the_published_ones() -> None:
    """2,985 pairs in 23 subsets: Chat 358, Chat Hard 456, Safety 740, Reasoning 1,431."""
    sizes = {s: sum(bench.COUNTS[name] for name in bench.SECTIONS[s]) for s in bench.CORE}
    assert sizes == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1431}
    assert len(bench.COUNTS) == 23
    weights = bench.section_weights("Reasoning")
    assert weights["math-prm"] == pytest.approx(0.5)
    assert weights["hep-go"] == pytest.approx(164 / 1968)


def frames(
    make, logratio: np.ndarray, **columns: object
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    rewards = make.rewards(logratio, np.full(logratio.shape, -20.0))
    return {"ImplicitRewards": rewards, "PreferencePairs": make.pairs(rewards, **columns)}, rewards


def run(tables: dict[str, pd.DataFrame], baseline: str = "") -> AnalyzerResult:
    return Rewardbench().run(tables, Parameters(baseline), np.random.default_rng(0))


def value(result: AnalyzerResult, statistic: str, label: str = "all") -> pd.Series:
    found = result.findings
    rows = found[(found["statistic"] == statistic) & (found["slice"] == label)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_section_is_weighted_by_subset_and_ties_are_shown_both_ways(make) -> None:
    """Reasoning, hep-* all right, math-prm one right, one tie: 1/2 * 1 + 1/2 * 3/4 (or 1/2)."""
    subsets = [name for name in bench.SECTIONS["Reasoning"] if name != "math-prm"] * 2
    gaps = [1.0] * len(subsets) + [1.0, 0.0]
    logratio = np.column_stack([gaps, np.zeros(len(gaps))])
    tables, _ = frames(make, logratio, subset=[*subsets, "math-prm", "math-prm"])
    result = run(tables)
    assert value(result, "section_accuracy", "section=Reasoning")["estimate"] == pytest.approx(
        0.875
    )
    wrong = value(result, "section_accuracy_ties_wrong", "section=Reasoning")
    assert wrong["estimate"] == pytest.approx(0.75)


def test_a_missing_section_is_named_and_no_total_is_given(make) -> None:
    subsets = [n for s in bench.CORE for n in bench.SECTIONS[s] for _ in range(2)]
    logratio = np.column_stack([np.ones(len(subsets)), np.zeros(len(subsets))])
    tables, _ = frames(make, logratio, subset=subsets)
    result = run(tables)
    score = value(result, "rewardbench_score")
    assert np.isnan(score["estimate"])
    assert score["n"] == 0
    assert "without Prior Sets" in score["flag"]
    core = value(result, "rewardbench_core_mean")
    assert core["estimate"] == pytest.approx(1.0)
    assert core["ci_low"] < 1.0
    assert "partial subsets: 2 of 100 pairs of alpacaeval-easy and 22 more" in core["flag"]


def test_a_missing_subset_of_a_section_is_named(make) -> None:
    names = bench.SECTIONS["Chat"][:-1] * 2
    logratio = np.column_stack([np.ones(len(names)), np.zeros(len(names))])
    tables, _ = frames(make, logratio, subset=list(names))
    chat = value(run(tables), "section_accuracy", "section=Chat")
    assert np.isnan(chat["estimate"])
    assert "without mt-bench-med of Chat" in chat["flag"]


def best_of_4(make, margins: list[tuple[float, float, float]]) -> dict[str, pd.DataFrame]:
    """Items of one right and three wrong answers, by the right one's lead over each."""
    lead = np.array(margins).ravel()
    ids = [f"g{i}" for i in range(len(margins)) for _ in range(3)]
    rewards = make.rewards(
        np.column_stack([lead, np.zeros(len(lead))]), np.full((len(lead), 2), -9.0),
        prompt_ids=ids,
    )  # fmt: skip
    pairs = make.pairs(rewards, subset="Math", group_id=ids, num_correct=1, num_incorrect=3)
    return {"ImplicitRewards": rewards, "PreferencePairs": pairs}


def test_best_of_4_counts_a_shared_top_as_its_share(make) -> None:
    """Won, lost to one, tied with one (1/2), tied with three (1/4): 1.75 / 4."""
    tables = best_of_4(make, [(1, 2, 3), (1, -1, 2), (0, 1, 1), (0, 0, 0)])
    row = value(run(tables), "subset_accuracy", "subset=Math")
    assert row["estimate"] == pytest.approx(1.75 / 4)
    assert (row["n"], row["n_clusters"]) == (4, 4)


def test_an_incomplete_group_is_left_out_and_counted(make) -> None:
    tables = best_of_4(make, [(1, 2, 3), (1, 1, 1)])
    tables["ImplicitRewards"] = tables["ImplicitRewards"].iloc[1:].reset_index(drop=True)
    result = run(tables)
    assert value(result, "subset_accuracy", "subset=Math")["n"] == 1
    assert "1 incomplete groups left out" in value(result, "rewardbench2_score")["flag"]


def answers_as_pairs(kind: str, number: int, good: list[float], bad: list[float]) -> list[tuple]:
    size = (len(good), len(bad))
    return [(f"{kind}:{number}", g, b, *size) for g in good for b in bad]


def test_ties_score_by_hand(make) -> None:
    """Two prompts.

    0: ref gap 3 - 1 = 2; tied right (5, 4), wrong 1: gap 3, spread 1. Accurate both, 3 > 1,
    min(2, 3) = 2 > 1, margin tanh(2/1 - 1) = 0.761594.
    1: ref gap 1 - 2 = -1; tied right (6, 2), wrong 1: gap 1, spread 4. Tied accurate, ref not,
    1 > 4 no, -1 > 4 no, margin tanh(-1/4 - 1) = -0.848284.
    Score 0.3 * 1 + 0.3 * 1/2 + 0.2 * 1/2 + 0.2 * 1/2 + 0.01 * mean(0.761594, -0.848284)
    = 0.65 - 0.000433 = 0.649567.
    """
    rows = [
        *answers_as_pairs("ref", 0, [3.0], [1.0, 0.5]),
        *answers_as_pairs("tied", 0, [5.0, 4.0], [1.0, 0.0]),
        *answers_as_pairs("ref", 1, [1.0], [2.0]),
        *answers_as_pairs("tied", 1, [6.0, 2.0], [1.0]),
    ]
    ids, good, bad, n_good, n_bad = (list(column) for column in zip(*rows, strict=True))
    rewards = make.rewards(
        np.column_stack([good, bad]), np.full((len(ids), 2), -9.0), prompt_ids=ids
    )
    pairs = make.pairs(
        rewards, subset="Ties", group_id=ids, num_correct=n_good, num_incorrect=n_bad
    )
    result = run({"ImplicitRewards": rewards, "PreferencePairs": pairs})
    assert value(result, "ties_tied_accuracy")["estimate"] == 1.0
    assert value(result, "ties_ref_accuracy")["estimate"] == 0.5
    assert value(result, "ties_preferred_hard")["estimate"] == 0.5
    assert value(result, "ties_score")["estimate"] == pytest.approx(0.649567, abs=1e-6)
    assert "without Factuality" in value(result, "rewardbench2_score")["flag"]


def test_ties_margin_at_no_spread() -> None:
    """0/0 is 0, a gap above no spread is 1, below it -1: as published."""
    found = bench.ties_margin(np.array([0.0, 2.0, -2.0, 1.0]), np.array([0.0, 0.0, 0.0, 1.0]))
    np.testing.assert_array_equal(found, [0.0, 1.0, -1.0, 0.0])


def test_version_2_is_the_mean_of_six(make) -> None:
    tables = [best_of_4(make, [(1, 1, 1)] * 4 + [(-1, 1, 1)] * (i == 4)) for i in range(5)]
    parts = []
    for name, part in zip(bench.BEST_OF_4, tables, strict=True):
        pairs = part["PreferencePairs"].assign(subset=name)
        for column in ("pair_id", "prompt_id", "group_id"):
            pairs[column] = name + pairs[column]
        rewards = part["ImplicitRewards"].copy()
        for column in ("pair_id", "prompt_id"):
            rewards[column] = name + rewards[column]
        parts.append((rewards, pairs))
    ids = ["ref:0", "tied:0", "tied:0"]
    rewards = make.rewards(
        np.array([[2.0, 0.0], [3.0, 0.0], [2.0, 0.0]]), np.full((3, 2), -9.0), prompt_ids=ids
    ).assign(pair_id=["a", "b", "c"])
    pairs = make.pairs(
        rewards, subset="Ties", group_id=ids, num_correct=[1, 2, 2], num_incorrect=[1, 1, 1]
    )
    both = {
        "ImplicitRewards": pd.concat([*(r for r, _ in parts), rewards], ignore_index=True),
        "PreferencePairs": pd.concat([*(p for _, p in parts), pairs], ignore_index=True),
    }
    result = run(both)
    ties = value(result, "ties_score")["estimate"]
    assert ties == pytest.approx(1.0 + 0.01 * np.tanh(1.0))  # gap 2, spread 1
    expected = (4 + 4 / 5 + ties) / 6
    assert value(result, "rewardbench2_score")["estimate"] == pytest.approx(expected)


def test_scores_without_a_reference_are_slices_of_their_own(make) -> None:
    """Raw log-probs point the other way than the log-ratio: sum 0, log-ratio 1."""
    subsets = [n for s in bench.CORE for n in bench.SECTIONS[s] for _ in range(2)]
    n = len(subsets)
    rewards = make.rewards(
        np.column_stack([np.ones(n), np.zeros(n)]), np.tile([-30.0, -10.0], (n, 1))
    )
    norms = rewards[["model_id", "pair_id"]].assign(logp_norm_chosen=1.0, logp_norm_rejected=2.0)
    tables = {
        "ImplicitRewards": rewards,
        "PreferencePairs": make.pairs(rewards, subset=subsets),
        "PairNorms": norms,
    }
    result = run(tables)
    core = {
        kind: value(result, "rewardbench_core_mean", f"score={kind}")["estimate"]
        for kind in ("variant", "sum", "avg", "norm")
    }
    assert core == {"variant": 1.0, "sum": 0.0, "avg": 0.0, "norm": 1.0}
    assert value(result, "rewardbench_core_mean")["estimate"] == 1.0


def test_models_are_compared_on_the_same_items(make) -> None:
    """Two models 2 points apart on shared noise: the paired interval is far narrower."""
    rng = np.random.default_rng(3)
    subsets = [n for s in bench.CORE for n in bench.SECTIONS[s] for _ in range(20)]
    noise = rng.normal(0.5, 1.0, len(subsets))
    better = noise.copy()
    better[rng.choice(np.flatnonzero(noise < 0), 12, replace=False)] = 1.0
    both = []
    for name, gap in (("base", noise), ("new", better)):
        logratio = np.column_stack([gap, np.zeros(len(gap))])
        both.append(make.rewards(logratio, np.full((len(gap), 2), -9.0), model_id=name))
    tables = {
        "ImplicitRewards": pd.concat(both, ignore_index=True),
        "PreferencePairs": make.pairs(both[0], subset=subsets),
    }
    found = run(tables, "base").findings
    rows = found[(found["baseline_id"] == "base") & (found["statistic"] == "rewardbench_core_mean")]
    own = found[(found["model_id"] == "new") & (found["statistic"] == "rewardbench_core_mean")]
    own = own[(own["slice"] == "all") & (own["baseline_id"] == "")].iloc[0]
    (gap,) = rows["estimate"]
    assert gap > 0
    assert rows["verdict"].item() == "better"
    paired_width = rows["ci_high"].item() - rows["ci_low"].item()
    assert paired_width < 0.7 * (own["ci_high"] - own["ci_low"])
