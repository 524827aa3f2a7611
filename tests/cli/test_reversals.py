"""``dpo-diag reversals`` explains: one report, further tables where asked, gates, bad input."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dpo_diag import tables


@pytest.fixture(scope="module")
def explained(world, cli: Callable, tmp_path_factory) -> Path:
    """Everything asked for, on pairs with votes, two training labels turned since training."""
    root = tmp_path_factory.mktemp("explained")
    rows = [json.loads(line) for line in world.pairs.read_text(encoding="utf-8").splitlines()]
    for k, row in enumerate(rows):
        row |= {"votes_chosen": 2 + k % 4, "votes_rejected": 3 - k % 4}
    for row in rows[:2]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    file = root / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ended = cli(
        *("reversals", world.dpo, "--pairs", file, "--split", "all", "--engine", "hf"),
        *("--answers", "2", "--max-new-tokens", "8", "--cost", "sandbox_harm", "--states"),
        *("--store", root / "store", "--out", root / "out"),
        *("--fail-if", "displacement_alarm.estimate > 3"),
    )
    assert ended.status == 0, ended.err
    return root / "out"


def finding(out: Path, statistic: str, part: str = "all") -> pd.Series:
    frame = tables.read_table(out / "findings.csv", tables.FINDINGS)
    rows = frame[(frame["statistic"] == statistic) & (frame["slice"] == part)]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def test_one_report_answers_all_four_questions(explained: Path) -> None:
    text = (explained / "report.md").read_text(encoding="utf-8")
    for question in (
        "Which preferences did training turn around?",
        "Could the wrongly ranked pairs have been ranked right?",
        "Is the fall of the chosen answers' log-prob harmless, and where did the mass go?",
        "Of the reversed training pairs, is the label wrong or the model?",
    ):
        assert question in text
    assert "displacement alarm: " in text


def test_further_tables_are_written_and_meet_their_specs(explained: Path) -> None:
    found = {path.stem for path in (explained / "rows").glob("*.parquet")}
    further = {"SampleLogps", "Samples", "SampleCosts", "PairStates", "LabelEvidence"}
    assert further <= found
    for name in found:
        assert len(tables.read_table(explained / "rows" / f"{name}.parquet", tables.SPECS[name]))


@pytest.mark.parametrize(
    ("statistic", "part"),
    [("idealised_accuracy_median", "all"), ("alignment_gap", "all"), ("mass_moved", "all"),
     ("ches_rank_correlation", "all"), ("cost_change", "cost=sandbox_harm"),
     ("never_had_a_chance_rate", "line=0.1"), ("reversed_training_pairs", "all")],
)  # fmt: skip
def test_every_part_has_its_number(explained: Path, statistic: str, part: str) -> None:
    assert finding(explained, statistic, part)["n"] > 0


def test_votes_of_the_file_are_used(explained: Path) -> None:
    """Votes 2:3, 3:2, 4:1, 5:0 in turns: a quarter of the labels is the minority's."""
    assert finding(explained, "minority_label_rate")["estimate"] == pytest.approx(0.25)


def test_turned_training_labels_are_reversed_and_votes_decide(explained: Path) -> None:
    """The first has 2 votes of 5, the second 3 of 5: clear enough against, not clear for."""
    rows = tables.read_table(explained / "rows" / "LabelEvidence.parquet", tables.LABEL_EVIDENCE)
    by_votes = rows.set_index("vote_share")["verdict"]
    assert by_votes[0.4] == "label" and by_votes[0.6] != "model" and len(rows) == 2


def test_without_further_data_the_parts_say_what_they_need(
    world, cli: Callable, tmp_path: Path
) -> None:
    ended = cli(
        *("reversals", world.dpo, "--pairs", world.pairs, "--engine", "hf"),
        *("--store", tmp_path / "store", "--out", tmp_path / "out"),
    )
    assert ended.status == 0, ended.err
    for statistic, needed in (
        ("idealised_accuracy_median", "vote_share"),
        ("mass_moved", "--answers N"),
        ("ches_rank_correlation", "--states"),
        ("label_verdict_share", "--split train"),
    ):
        row = finding(tmp_path / "out", statistic)
        assert row["n"] == 0 and needed in row["flag"]
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "It is left out, not guessed." in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(("--cost", "sandbox_harm"), "--cost judges sampled answers; give --answers N too"),
     (("--answers", "1", "--cost", "nobody"), "nobody"),
     (("--answers", "1", "--cost", "sandbox_harm", "--cost", "sandbox_harm"),
      "two costs are called sandbox_harm")],
)  # fmt: skip
def test_bad_input_is_said_in_a_sentence(world, cli: Callable, options, sentence) -> None:
    ended = cli("reversals", world.dpo, "--pairs", world.pairs, *options)
    assert ended.status == 1 and sentence in ended.sentence()


def test_a_broken_vote_column_names_file_row_and_column(
    world, cli: Callable, tmp_path: Path
) -> None:
    row = json.loads(world.pairs.read_text(encoding="utf-8").splitlines()[0])
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(row | {"vote_share": 40}) + "\n", encoding="utf-8")
    ended = cli("reversals", world.dpo, "--pairs", file, "--split", "all")
    said = ended.sentence()
    assert "pairs.jsonl" in said and "vote_share must be a share from 0 to 1, got 40" in said
