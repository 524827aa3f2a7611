"""RewardBench from its files to its files: both versions on a tiny model."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import World, write_rows

SUBSETS = ("hep-go", "math-prm", "llmbar-natural")


@pytest.fixture(scope="module")
def first(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of the world's pairs as RewardBench version 1."""
    rows = [json.loads(line) for line in world.pairs.read_text().splitlines()][:12]
    kept = [
        {
            **{key: row[key] for key in ("prompt", "chosen", "rejected")},
            "chosen_model": "a",
            "rejected_model": "b",
            "subset": SUBSETS[i % 3],
            "id": i,
        }
        for i, row in enumerate(rows)
    ]
    return write_rows(tmp_path_factory.mktemp("bench") / "filtered.jsonl", kept)


@pytest.fixture(scope="module")
def second(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four best-of-4 items and a Ties prompt with its reference, as RewardBench version 2."""
    rows = [json.loads(line) for line in world.pairs.read_text().splitlines()]
    answers = list(dict.fromkeys(row["chosen"] for row in rows))

    def item(name: str, subset: str, at: int, good: int, bad: int) -> dict:
        texts = answers[at : at + good + bad]
        return {
            "id": name,
            "prompt": rows[at]["prompt"],
            "chosen": texts[:good],
            "rejected": texts[good:],
            "num_correct": good,
            "num_incorrect": bad,
            "total_completions": good + bad,
            "models": ["m"],
            "subset": subset,
            "additional_metadata": None,
        }

    items = [item(str(i), "Math", i, 1, 3) for i in range(4)]
    items += [item("ref:0", "Ties", 8, 1, 2), item("tied:0", "Ties", 9, 2, 2)]
    return write_rows(tmp_path_factory.mktemp("bench2") / "test.jsonl", items)


def findings(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "findings.csv", keep_default_na=False, na_values=[""])


def test_version_1_report_and_the_benchmarks_own_files(
    tmp_path: Path, world: World, first: Path, cli: Callable
) -> None:
    out = tmp_path / "report"
    ended = cli(
        *("rewardbench", world.dpo, "--data", first, "--norm", "--engine", "hf"),
        *("--out", out, "--store", tmp_path / "store"),
    )
    assert ended.status == 0, ended.err
    found = findings(out)
    score = found[(found["statistic"] == "rewardbench_score") & (found["slice"] == "all")].iloc[0]
    assert pd.isna(score["estimate"])
    assert "without Chat, " in score["flag"] and "Prior Sets" in score["flag"]
    kinds = found[found["statistic"] == "rewardbench_core_mean"]["slice"]
    assert set(kinds) == {"all", "score=avg", "score=norm", "score=sum", "score=variant"}
    (results,) = (out / "rewardbench").glob("*_results.json")
    saved = json.loads(results.read_text(encoding="utf-8"))
    assert list(saved) == [
        *("accuracy", "num_prompts", "model", "ref_model", "tokenizer", "chat_template"),
        "extra_results",
    ]
    (outputs,) = (out / "rewardbench").glob("*_outputs.jsonl")
    lines = [json.loads(line) for line in outputs.read_text(encoding="utf-8").splitlines()]
    assert saved["num_prompts"] == len(lines) == 12
    assert saved["accuracy"] == pytest.approx(sum(line["results"] for line in lines) / 12)
    for line in lines:
        assert line["results"] == int(line["scores_chosen"] > line["scores_rejected"])
    by_subset = [line["results"] for line in lines if line["subset"] == "hep-go"]
    assert saved["extra_results"]["hep-go"] == pytest.approx(sum(by_subset) / len(by_subset))
    assert saved["extra_results"]["rewardbench_score"] is None


def test_version_2_gives_best_of_4_and_ties(
    tmp_path: Path, world: World, second: Path, cli: Callable
) -> None:
    out = tmp_path / "report"
    ended = cli(
        *("rewardbench", world.dpo, "--data", second, "--engine", "hf"),
        *("--out", out, "--store", tmp_path / "store"),
    )
    assert ended.status == 0, ended.err
    found = findings(out)
    math = found[found["slice"] == "subset=Math"].iloc[0]
    assert (math["n"], math["n_clusters"]) == (4, 4)
    ties = found[(found["statistic"] == "ties_score") & (found["slice"] == "all")].iloc[0]
    assert -0.01 <= ties["estimate"] <= 1.01
    total = found[(found["statistic"] == "rewardbench2_score") & (found["slice"] == "all")].iloc[0]
    assert "without Factuality, Precise IF, Safety, Focus" in total["flag"]


def test_prior_sets_join_under_their_names(
    tmp_path: Path, world: World, first: Path, cli: Callable
) -> None:
    out = tmp_path / "report"
    ended = cli(
        *("rewardbench", world.dpo, "--data", first, "--prior", f"shp={world.shifted}"),
        *("--engine", "hf", "--out", out, "--store", tmp_path / "store"),
    )
    assert ended.status == 0, ended.err
    found = findings(out)
    assert found[found["slice"] == "subset=shp"]["n"].item() == 24
    prior = found[found["slice"] == "section=Prior Sets"].iloc[0]
    assert "without anthropic_helpful of Prior Sets" in prior["flag"]


def test_unknown_prior_set_and_data_without_subsets_are_refused(
    tmp_path: Path, world: World, first: Path, cli: Callable
) -> None:
    ended = cli("rewardbench", world.dpo, "--data", first, "--prior", f"other={world.pairs}")
    assert "NAME one of anthropic_helpful" in ended.sentence()
    ended = cli(
        *("rewardbench", world.dpo, "--data", world.pairs, "--engine", "hf"),
        *("--store", tmp_path / "store"),
    )
    assert "no column subset" in ended.sentence()


def test_a_model_without_a_reference_is_scored_by_its_log_probs_and_says_so(
    tmp_path: Path, world: World, first: Path, cli: Callable
) -> None:
    """SimPO has no reference: the total is missing with the reason, its own reward a slice."""
    out = tmp_path / "report"
    ended = cli(
        *("rewardbench", world.dpo, "--variant", "simpo", "--data", first, "--engine", "hf"),
        *("--out", out, "--store", tmp_path / "store"),
    )
    assert ended.status == 0, ended.err
    found = findings(out)
    score = found[(found["statistic"] == "rewardbench_core_mean") & (found["slice"] == "all")]
    assert "no reference: see the slices score=..." in score["flag"].item()
    saved = json.loads(next((out / "rewardbench").glob("*_results.json")).read_text())
    assert saved["ref_free_type"] == "sum"
    lines = next((out / "rewardbench").glob("*_outputs.jsonl")).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert saved["accuracy"] == pytest.approx(
        sum(row["scores_chosen"] > row["scores_rejected"] for row in rows) / 12
    )
