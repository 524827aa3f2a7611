"""From prompts to judged pairs: what becomes a label, what is counted, validation, the command."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpo_diag.errors import DataError
from dpo_diag.oracles.language_model import LanguageModel
from dpo_diag.oracles.python_callable import PythonCallable
from dpo_diag.pairs import PairSet, PromptSet, read_pairs
from dpo_diag.pipeline import judge
from dpo_diag.pipeline.work import EngineChoice, Work
from dpo_diag.store import RowStore
from tests.conftest import World, write_rows

ANSWERS = {
    "p0": ["long and good answer", "bad"],
    "p1": ["same", "same "],
    "p2": ["", "something"],
    "p3": ["refuse me", "x"],
    "p4": ["tiny", "a much longer answer"],
    "p5": ["first wins", "whatever the order"],
}


def samples() -> pd.DataFrame:
    rows = [
        {
            "model_id": "policy",
            "prompt_id": prompt_id,
            "sample_index": i,
            "response": text,
            "domain": "in_domain",
            "split": "test",
        }
        for prompt_id, texts in ANSWERS.items()
        for i, text in enumerate(texts)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def prompts() -> PromptSet:
    frame = pd.DataFrame({"prompt_id": list(ANSWERS), "prompt": [f"ask {p}" for p in ANSWERS]})
    return PromptSet(frame.assign(domain="in_domain", split="test", source="t"), "t", (), {}, "")


def longer(questions: Sequence[str]) -> list[str]:
    """Takes the longer answer, refuses "refuse me", and takes the first place at "first wins"."""
    replies = []
    for question in questions:
        if "refuse me" in question:
            replies.append("I would rather not say.")
        elif "first wins" in question:
            replies.append("A")
        else:
            answers = question.split("Answer A:\n")[1].split("Answer B:\n")
            replies.append("A" if len(answers[0]) > len(answers[1].split("Which")[0]) else "B")
    return replies


@pytest.fixture
def judged(prompts: PromptSet) -> pd.DataFrame:
    oracle = LanguageModel(model="judge", ask=longer)
    return judge.judged_pairs(samples(), prompts.frame, [oracle])


def test_only_decided_pairs_become_labels_and_the_rest_is_counted(
    judged: pd.DataFrame, prompts: PromptSet
) -> None:
    states = dict(zip(judged["prompt_id"], judged["state"], strict=True))
    assert states == {
        "p0": "decided", "p1": "identical", "p2": "empty", "p3": "abstained", "p4": "decided",
        "p5": "wavered",
    }  # fmt: skip
    pairs = judge.as_pairs(judged, prompts, "judge")
    chosen = dict(zip(pairs.frame["prompt_id"], pairs.frame["chosen"], strict=True))
    assert chosen == {"p0": "long and good answer", "p4": "a much longer answer"}
    assert pairs.frame["is_first_chosen"].tolist() == [True, False]
    assert pairs.frame["vote_share"].tolist() == [1.0, 1.0]
    assert pairs.counts == {
        "decided": 2, "identical": 1, "empty": 1, "abstained": 1, "wavered": 1
    }  # fmt: skip
    assert "1 abstained, 2 decided, 1 empty" in pairs.notes[0]


def test_order_agreement_is_known_of_language_models_only(judged: pd.DataFrame) -> None:
    agreement = dict(zip(judged["prompt_id"], judged["order_agreement"], strict=True))
    assert agreement["p0"] == 1.0
    assert agreement["p5"] == 0.0
    assert np.isnan(agreement["p3"])


def test_several_judges_vote_and_a_split_vote_is_no_label(
    tmp_path: Path, prompts: PromptSet
) -> None:
    """One takes the longer answer, one the shorter: split wherever both speak."""
    file = tmp_path / "shorter.py"
    file.write_text(
        "def shorter(prompts, first, second):\n"
        "    return [float(len(a) < len(b)) for a, b in zip(first, second)]\n",
        encoding="utf-8",
    )
    oracles = [LanguageModel(model="judge", ask=longer), PythonCallable(target=f"{file}:shorter")]
    judged = judge.judged_pairs(samples(), prompts.frame, oracles)
    rows = judged.set_index("prompt_id")
    assert rows.loc["p0", ["state", "n_votes", "win_first"]].tolist() == ["tied", 2, 0.5]
    # the language model declines, the other's vote stands
    assert rows.loc["p3", ["state", "n_votes", "win_first"]].tolist() == ["decided", 1, 0.0]
    assert rows["judge"].unique().tolist() == ["language_model.judge + python_callable.shorter"]


def test_a_judge_that_decides_nothing_is_an_error_with_the_counts(prompts: PromptSet) -> None:
    mute = LanguageModel(model="judge", ask=lambda questions: ["?"] * len(questions))
    judged = judge.judged_pairs(samples(), prompts.frame, [mute])
    with pytest.raises(DataError, match=r"decided none of 6 pairs .*4 abstained.*; ask another"):
        judge.as_pairs(judged, prompts, "the judge")
    alike = judged.assign(state=judge.IDENTICAL)
    with pytest.raises(DataError, match=r"6 identical\); sample at a higher temperature, or ask"):
        judge.as_pairs(alike, prompts, "the judge")


@pytest.fixture
def pairs(judged: pd.DataFrame, prompts: PromptSet) -> PairSet:
    return judge.as_pairs(judged, prompts, "judge")


def test_written_pairs_are_read_back_by_every_command(pairs: PairSet, tmp_path: Path) -> None:
    path = judge.write_pairs(pairs, tmp_path / "pairs.jsonl")
    read = read_pairs(path)
    assert read.format == "dpo_diag"
    columns = ["pair_id", "chosen", "rejected", "judge", "vote_share", "is_first_chosen"]
    expected = pairs.frame.sort_values("pair_id", ignore_index=True)[columns]
    found = read.frame.sort_values("pair_id", ignore_index=True)[columns]
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_validated_labels_join_by_pair(pairs: PairSet, tmp_path: Path) -> None:
    one, other = pairs.frame["pair_id"]
    rows = [{"pair_id": one, "gold_label": "rejected"}, {"pair_id": other, "gold_label": None}]
    file = write_rows(tmp_path / "gold.jsonl", [*rows, {"pair_id": "x", "gold_label": "chosen"}])
    found = judge.with_validated(pairs, file)
    assert found.frame["gold_label"][0] == "rejected"
    assert found.frame["gold_label"].isna().tolist() == [False, True]
    assert "1 pairs are validated" in found.notes[-1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"gold_label": "better"}, "gold_label that is chosen or rejected"),
        ({"pair_id": "nowhere", "gold_label": "chosen"}, "none of its 1 labelled pairs"),
    ],
)
def test_validated_labels_that_make_no_sense_are_refused(
    row: dict, message: str, pairs: PairSet, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "gold.jsonl", [{"pair_id": pairs.frame["pair_id"][0], **row}])
    with pytest.raises(DataError, match=message):
        judge.with_validated(pairs, file)
    file.write_text("no json\n", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as JSON lines"):
        judge.with_validated(pairs, file)


def test_command_with_a_judge_and_validated_pairs(
    tmp_path: Path, world: World, cli: Callable
) -> None:
    """Twice: the second time with labels for what the first wrote; the pairs are the same."""
    oracle = tmp_path / "longer.py"
    oracle.write_text(
        "def longer(prompts, first, second):\n"
        "    return [0.5 if len(a) == len(b) else float(len(a) > len(b))"
        " for a, b in zip(first, second)]\n",
        encoding="utf-8",
    )
    command = (
        *("judge", world.dpo, "--prompts", world.prompts, "--engine", "hf", "-n", "4"),
        *("--oracle", f"python_callable:target={oracle}:longer", "--max-new-tokens", "12"),
        *("--store", tmp_path / "store"),
    )
    ended = cli(*command, "--out", tmp_path / "one")
    assert ended.status == 0, ended.err
    rows = [json.loads(x) for x in (tmp_path / "one" / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) >= 2
    gold = [
        {"pair_id": row["pair_id"], "gold_label": "rejected" if i == 0 else "chosen"}
        for i, row in enumerate(rows)
    ]
    file = write_rows(tmp_path / "gold.jsonl", gold)
    ended = cli(*command, "--out", tmp_path / "two", "--validated", file)
    assert ended.status == 0, ended.err
    found = pd.read_csv(tmp_path / "two" / "findings.csv", keep_default_na=False, na_values=[""])
    values = found[found["slice"] == "all"].set_index("statistic")
    assert values.loc["judge_accuracy", "estimate"] == pytest.approx(1 - 1 / len(rows))
    assert values.loc["reward_accuracy_corrected", "n"] == len(rows)
    assert (tmp_path / "two" / "rows" / "JudgedPairs.parquet").is_file()
    report = (tmp_path / "one" / "report.md").read_text(encoding="utf-8")
    assert "agreement with the judge, not accuracy" in report


@pytest.fixture(scope="module")
def babbler(make_base: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a window long enough for a question."""
    return make_base(tmp_path_factory.mktemp("babbler"), seed=3, max_position_embeddings=1024)


def test_judge_is_asked_greedily_once_per_question_and_kept(
    tmp_path: Path, babbler: Path, engine_starts: list[str]
) -> None:
    """The replies are transformers' own greedy ones; asking again starts no engine."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    questions = ["how do i clean the stove ?", "check the soil .", "how do i clean the stove ?"]
    work = Work(RowStore(tmp_path / "store"), tmp_path / "cache")
    asked = LanguageModel(model=str(babbler))
    (oracle,) = judge.connected([asked], EngineChoice("hf"), work, max_new_tokens=3)
    replies = oracle.ask(questions)
    model = AutoModelForCausalLM.from_pretrained(babbler).eval()
    tokenizer = AutoTokenizer.from_pretrained(babbler)
    for question, reply in zip(questions, replies, strict=True):
        ids = torch.tensor([tokenizer(question, add_special_tokens=False)["input_ids"]])
        whole = model.generate(ids, do_sample=False, max_new_tokens=3)
        assert reply == tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
    assert engine_starts == ["hf"]
    assert oracle.ask(questions) == replies
    assert engine_starts == ["hf"]


def test_command_with_a_language_model_that_babbles_says_that_nothing_was_decided(
    tmp_path: Path, world: World, babbler: Path, cli: Callable
) -> None:
    """A random model as judge: its replies are no letters, so no label comes of them."""
    ended = cli(
        *("judge", world.dpo, "--prompts", world.prompts, "--engine", "hf", "--limit", "3"),
        *("--oracle", f"language_model:model={babbler}", "--max-new-tokens", "4"),
        *("--store", tmp_path / "store", "--reply-tokens", "2"),
    )
    assert "decided none of 3 pairs of answers (3 abstained)" in ended.sentence()


def test_odd_number_of_answers_and_slices_are_refused(
    tmp_path: Path, world: World, cli: Callable
) -> None:
    shared = ("judge", world.dpo, "--prompts", world.prompts, "--oracle", "cost:cost=sandbox_harm")
    ended = cli(*shared, "-n", "3", "--engine", "hf", "--store", tmp_path / "store")
    assert "two by two" in ended.sentence()
    assert "--slices does not apply" in cli(*shared, "--slices", "domain").sentence()
