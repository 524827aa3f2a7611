"""Selection as it is typed: which pairs are kept, what is written, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dpo_diag import registry, tables
from dpo_diag.checkpoints import fingerprint
from dpo_diag.pairs import read_pairs
from dpo_diag.pipeline.select import PAIR_SELECTION

RUN = {
    "bees": ("--checkpoint", "--external"),
    "margin_sum": ("--checkpoint", "--external"),
    "margin_product": ("--checkpoint", "--external"),
    "implicit_margin": ("--checkpoint",),
    "external_margin": ("--external",),
    "ches": ("--model",),
    "random": (),
}


@pytest.fixture
def select(world, cli: Callable, tmp_path: Path) -> Callable:
    """Runs ``select NAME`` on the small world with the sources that it needs."""
    given = {
        "--checkpoint": world.dpo,
        "--external": "columns:gold_helpfulness_chosen,gold_helpfulness_rejected",
        "--model": world.base,
    }

    def run(selector: str, *options: object, out: str = "kept.jsonl", pairs: object = None):
        name = selector.partition(":")[0]
        sources = [part for option in RUN[name] for part in (option, given[option])]
        return cli(
            *("select", selector, "--pairs", pairs or world.pairs, "--out", tmp_path / out),
            *("--store", tmp_path / "store", *sources, *options),
        )

    return run


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def scores_of(folder: Path, name: str = "kept") -> pd.DataFrame:
    return tables.read_table(folder / f"{name}.selection.parquet", PAIR_SELECTION)


def test_every_selector_has_its_sources_here() -> None:
    assert RUN.keys() == set(registry.names("selectors"))


@pytest.mark.parametrize("name", registry.names("selectors"))
def test_a_selection_is_a_pair_table_with_every_score_beside_it(
    name: str, select, world, tmp_path: Path
) -> None:
    """24 training pairs of which a quarter is kept; 12 and 20 of other splits pass through."""
    ended = select(name, "--keep", "0.25")
    assert ended.status == 0, ended.err
    assert ended.out.split() == [
        str(tmp_path / f"kept{end}") for end in (".jsonl", ".selection.parquet", ".selection.json")
    ]
    before, kept = rows_of(world.pairs), rows_of(tmp_path / "kept.jsonl")
    table = scores_of(tmp_path)
    assert table["pair_id"].tolist() == [row["pair_id"] for row in before]
    chosen = set(table.loc[table["is_kept"], "pair_id"])
    assert kept == [row for row in before if row["pair_id"] in chosen]  # all columns, same order
    ours = table[table["split"] == "train"]
    assert ours["is_kept"].sum() == 6 and len(kept) == 6 + 32
    assert set(ours.loc[ours["is_kept"], "rank"]) == {1, 2, 3, 4, 5, 6}
    assert sorted(ours["rank"]) == list(range(1, 25))
    assert ours.loc[ours["is_kept"], "score"].min() >= ours.loc[~ours["is_kept"], "score"].max()
    others = table[table["split"] != "train"]
    assert others["is_kept"].all() and others["score"].isna().all()
    assert set(others["reason"]) == {
        "of the split test, passed through",
        "of the split validation, passed through",
    }
    assert "kept 6 of 24 pairs (25.0%)" in ended.err
    assert "32 pairs of other splits passed through" in ended.err
    needs = registry.load("selectors", name).needs
    assert set(needs) <= set(table.columns)


def test_scores_are_the_selectors_of_margins_computed_elsewhere(
    select, world, cli, tmp_path: Path
) -> None:
    """BeeS from the gold columns and the log-probs that ``score`` writes for policy and base."""
    assert select("bees").status == 0
    logps = []
    for model in (world.dpo, world.base):
        out = tmp_path / "logps.parquet"
        scored = cli(
            *("score", model, "--pairs", world.pairs, "--split", "train"),
            *("--store", tmp_path / "other", "--out", out),
        )
        assert scored.status == 0, scored.err
        rows = tables.read_table(out, tables.SCORED_PAIRS).set_index("pair_id")
        logps.append(rows["logp_chosen"] - rows["logp_rejected"])
    table = scores_of(tmp_path).set_index("pair_id").loc[logps[0].index]
    implicit = 0.1 * (logps[0] - logps[1])  # world.dpo is trained with beta 0.1
    np.testing.assert_allclose(table["implicit_margin"], implicit, atol=1e-5)
    gold = {row["pair_id"]: row for row in rows_of(world.pairs)}
    external = [
        gold[key]["gold_helpfulness_chosen"] - gold[key]["gold_helpfulness_rejected"]
        for key in table.index
    ]
    chances = []
    for margins in (np.array(external), implicit.to_numpy()):
        low, high = np.quantile(margins, [0.02, 0.98])
        share = (np.clip(margins, low, high) - low) / (high - low)
        chances.append(np.clip(share, 1e-6, 1 - 1e-6))
    odds = chances[0] / (1 - chances[0]) * chances[1] / (1 - chances[1])
    np.testing.assert_allclose(table["score"], odds / (1 + odds), rtol=1e-3, atol=1e-9)


def direct_ches(folder: Path, row: dict) -> tuple[float, float]:
    """CHES and CHESn of one pair: a prefix at a time in float64, loops, no padding anywhere."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    means, sums = [], []
    for side in ("chosen", "rejected"):
        ids = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        answer = tokenizer(row[side], add_special_tokens=False)["input_ids"]
        total, n = None, 0
        for token in [*answer, tokenizer.eos_token_id]:
            with torch.no_grad():
                output = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
            state = output.hidden_states[-1][0, -1].tolist()
            total = state if total is None else [a + b for a, b in zip(total, state, strict=True)]
            n += 1
            ids = [*ids, token]
        sums.append(total)
        means.append([value / n for value in total])
    return tuple(
        sum(a * b for a, b in zip(*pair, strict=True)) - sum(a * a for a in pair[0])
        for pair in (sums, means)
    )


def test_ches_is_that_of_a_direct_computation_without_padding(
    select, world, tmp_path: Path
) -> None:
    """Answers of unlike lengths share batches here; true lengths decide all the same."""
    assert select("ches").status == 0
    table = scores_of(tmp_path).set_index("pair_id")
    train = [row for row in rows_of(world.pairs) if row["split"] == "train"]
    lengths = [abs(len(row["chosen"].split()) - len(row["rejected"].split())) for row in train]
    assert max(lengths) > 5
    for row in train[::4]:
        found = table.loc[row["pair_id"]]
        ches, per_token = direct_ches(world.base, row)
        # float32 states against float64 ones; sums of up to 30 states of size 10
        assert found["ches"] == pytest.approx(ches, rel=1e-4, abs=0.05)
        assert found["ches_per_token"] == pytest.approx(per_token, rel=1e-4, abs=1e-3)
        assert found["score"] == -found["ches_per_token"]


def test_states_are_read_once_and_do_not_hang_on_batches(
    select, tmp_path: Path, engine_starts
) -> None:
    assert select("ches").status == 0
    assert select("ches:form=summed", out="again.jsonl").status == 0
    assert engine_starts == ["hf"]  # the second selection reads the stored products
    small = ("--batch-tokens", "40", "--store", tmp_path / "small")
    assert select("ches", *small, out="small.jsonl").status == 0
    one, other = scores_of(tmp_path), scores_of(tmp_path, "small")
    np.testing.assert_allclose(one["score"], other["score"], rtol=1e-4)


def test_the_same_command_writes_the_same_bytes_and_row_order_does_not_matter(
    select, world, tmp_path: Path
) -> None:
    turned = written(tmp_path / "turned.jsonl", rows_of(world.pairs)[::-1])
    for name, pairs in (("a", world.pairs), ("b", world.pairs), ("c", turned)):
        assert select("external_margin", out=f"{name}.jsonl", pairs=pairs).status == 0
    for end in (".jsonl", ".selection.json", ".selection.parquet"):
        first, second = ((tmp_path / f"{name}{end}").read_bytes() for name in "ab")
        assert first == second
    other = rows_of(tmp_path / "c.jsonl")[::-1]
    assert other == rows_of(tmp_path / "a.jsonl")


def test_selected_pairs_are_read_back_and_trained_on(select, world, cli, tmp_path: Path) -> None:
    assert select("random", "--keep-n", "8").status == 0
    before, after = read_pairs(world.pairs), read_pairs(tmp_path / "kept.jsonl")
    assert after.format == "dpo_diag" and "n_other_ids" not in after.counts
    expected = before.frame[before.frame["pair_id"].isin(after.frame["pair_id"])]
    pd.testing.assert_frame_equal(after.frame, expected.reset_index(drop=True))
    trained = cli(
        *("train", "dpo", "--model", world.base, "--pairs", tmp_path / "kept.jsonl"),
        *("--out", tmp_path / "run", "--set", "optimizer.max_steps=1"),
        *("--store", tmp_path / "store"),
    )
    assert trained.status == 0, trained.err


def test_conversations_and_foreign_columns_survive(cli, tmp_path: Path) -> None:
    """UltraFeedback's turns, scores and a column of its own, read and selected without options."""

    def turns(question: str, answer: str) -> list[dict]:
        return [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]

    rows = [
        {
            "chosen": turns(f"q{i}", "yes"),
            "rejected": turns(f"q{i}", "no"),
            "score_chosen": float(i),
            "score_rejected": 4.5,
            "tags": ["a", str(i)],
        }
        for i in range(10)
    ]
    pairs = written(tmp_path / "ultra.jsonl", rows)
    out = tmp_path / "kept.jsonl"
    ended = cli("select", "external_margin", "--pairs", pairs, "--keep", "0.2", "--out", out)
    assert ended.status == 0, ended.err
    kept = read_pairs(out).frame
    assert sorted(kept["score_chosen"]) == [8.0, 9.0]
    assert kept["prompt_messages"].str.contains("q9").sum() == 1
    assert sorted(kept["tags"]) == ['["a","8"]', '["a","9"]']
    assert "disagrees with the label of 5 of 10 pairs (50.0%)" in ended.err


def test_the_record_says_what_was_selected_by_what(select, world, tmp_path: Path) -> None:
    assert select("bees:low=0.1,high=0.9", "--keep-n", "5").status == 0
    record = json.loads((tmp_path / "kept.selection.json").read_text())
    assert record["selector"] == "bees(low=0.1, high=0.9, eps=1e-06)"
    assert record["keep_n"] == 5 and record["split"] == "train"
    implicit = record["inputs"]["implicit"]
    assert implicit["model"]["fingerprint"] == fingerprint(world.dpo)
    assert implicit["reference"]["fingerprint"] == fingerprint(world.base)
    assert implicit["reward_def"] == "dpo(beta=0.1)" and implicit["is_reference_recorded"]
    assert record["inputs"]["external"] == "gold_helpfulness_chosen - gold_helpfulness_rejected"
    assert record["counts"]["n_kept"] == 5 and record["counts"]["n_passed_through"] == 32
    assert record["pairs"]["content_hash"] == read_pairs(world.pairs).content_hash
    assert record["selected"]["content_hash"] == read_pairs(tmp_path / "kept.jsonl").content_hash


def test_ties_missing_scores_and_drops_are_counted_aloud(select, world, tmp_path: Path) -> None:
    """Of 24 two lack a score; the others have margin 1 or 0: all of the first, 4 of the second."""
    rows = rows_of(world.pairs)
    train = [row for row in rows if row["split"] == "train"]
    for i, row in enumerate(train):
        row["score_chosen"] = None if i < 2 else float(i % 12 < 5) + 2.0
        row["score_rejected"] = 2.0
    n_high = sum(row["score_chosen"] == 3.0 for row in train)
    pairs = written(tmp_path / "pairs.jsonl", rows)
    columns = ("--external", "columns:score_chosen,score_rejected", "--keep-n", n_high + 4)
    ended = select("external_margin", *columns, pairs=pairs, out="t.jsonl")
    assert ended.status == 0, ended.err
    assert "2 pairs dropped, no score: external_margin missing." in ended.err
    n_low = 22 - n_high
    assert f"{n_low} pairs tie at the cut; 4 of them are kept, by the order of ids." in ended.err
    table = scores_of(tmp_path, "t")
    reasons = table["reason"].value_counts()
    assert reasons["above the cut"] == n_high
    assert reasons["tied at the cut, kept by its pair_id"] == 4
    assert reasons["tied at the cut, left out by its pair_id"] == n_low - 4
    assert reasons["no score: external_margin missing"] == 2
    tied = table[table["reason"].str.startswith("tied")]
    first = set(tied["pair_id"].sort_values().head(4))
    assert set(tied.loc[tied["is_kept"], "pair_id"]) == first
    assert not table.loc[table["score"].isna() & (table["split"] == "train"), "is_kept"].any()


def test_an_external_margin_from_a_cost_is_the_rejected_answers_less_the_chosens(
    cli, world, tmp_path: Path
) -> None:
    out = tmp_path / "kept.jsonl"
    ended = cli(
        *("select", "external_margin", "--external", "cost:sandbox_harm", "--split", "all"),
        *("--pairs", world.pairs, "--out", out, "--scores", tmp_path / "s.csv"),
    )
    assert ended.status == 0, ended.err
    table = tables.read_table(tmp_path / "s.csv", PAIR_SELECTION).set_index("pair_id")
    for row in rows_of(world.pairs):
        margin = row["gold_harm_rejected"] - row["gold_harm_chosen"]
        assert table.loc[row["pair_id"], "score"] == pytest.approx(margin, abs=1e-4)
    assert "passed through" not in ended.err


def test_a_taste_for_length_is_said_aloud(cli, tmp_path: Path) -> None:
    """Four pairs, chosen longer by 0, 0, 2 and 6 words, scored by that: the last has +6, all +2."""
    rows = [
        {
            "prompt": f"q{i}",
            "chosen": " ".join(["yes"] * (2 + more)),
            "rejected": "no no",
            "score_chosen": float(more),
            "score_rejected": 0.0,
        }
        for i, more in enumerate((0, 0, 2, 6))
    ]
    pairs = written(tmp_path / "pairs.jsonl", rows)
    out = ("--pairs", pairs, "--out", tmp_path / "kept.jsonl")
    ended = cli("select", "external_margin", "--keep-n", "1", *out)
    assert "+6.0 words on average among the kept pairs, +2.0 among all." in ended.err


def test_a_source_that_says_the_same_of_every_pair_is_said_aloud(select, world) -> None:
    ended = select("external_margin", "--external", "cost:sandbox_unparsed")
    assert ended.status == 0, ended.err
    assert "external_margin is 0 for every pair: it decides nothing." in ended.err


@pytest.mark.parametrize(
    ("selector", "options", "named"),
    [
        ("bees:low=0.9,high=0.1", (), ("low 0.9 and high 0.1",)),
        ("bees:lo=0.1", (), ("no parameter 'lo'", "low, high, eps")),
        ("bees:low", (), ("SELECTOR", "'low' is not key=value")),
        ("ches:form=mean", (), ("per_token or summed", "'mean'")),
        ("random:seed=-1", (), ("seed", "-1")),
        ("random", ("--model", "nowhere"), ("--model is of no use to random",)),
        ("ches", ("--external", "cost:refusal"), ("--external is of no use to ches", "states")),
        ("random", ("--keep", "0.1", "--keep-n", "3"), ("--keep and --keep-n",)),
        ("random", ("--keep", "0.01"), ("0.01 of 24 pairs keeps none", "--keep 0.021")),
        ("random", ("--keep-n", "25"), ("25 pairs were to be kept, and only 24",)),
        ("random", ("--split", "dev"), ("no pair of the split 'dev'", "test, train, validation")),
        ("random", ("--reference", "base"), ("--reference belongs to a --checkpoint",)),
        ("random", ("--scores", "s.txt"), ("s.txt", ".parquet or .csv")),
        ("random", ("--pairs", "nowhere.jsonl"), ("nowhere.jsonl",)),
        ("external_margin", ("--external", "columns:a"), ("columns:CHOSEN,REJECTED",)),
        ("external_margin", ("--external", "cost:harm"), ("No cost called 'harm'",)),
        ("external_margin", ("--external", "columns:prompt,chosen"), ("numbers", "prompt")),
        ("ches", ("--model", "nowhere/at/all/"), ("nowhere/at/all",)),
        ("ches", ("--max-length", "5"), ("window of 5", "--truncate")),
    ],
)
def test_what_cannot_be_selected_is_one_sentence(selector, options, named, select, tmp_path):
    sentence = select(selector, *options).sentence()
    assert all(word in sentence for word in named), sentence
    assert not (tmp_path / "kept.jsonl").exists()


def test_missing_score_columns_are_named_with_the_data_that_carry_them(
    world, cli, tmp_path
) -> None:
    given = ("--pairs", world.pairs, "--out", tmp_path / "kept.jsonl", "--store", tmp_path)
    sentence = cli("select", "bees", "--checkpoint", world.dpo, *given).sentence()
    for word in ("score_chosen", "UltraFeedback", "--external columns:", "--external cost:"):
        assert word in sentence


@pytest.mark.parametrize(
    ("name", "option"),
    [("bees", "--checkpoint"), ("implicit_margin", "--checkpoint"), ("ches", "--model")],
)
def test_a_source_that_is_missing_is_asked_for_by_its_option(
    name, option, world, cli, tmp_path
) -> None:
    command = ("select", name, "--pairs", world.pairs, "--out", tmp_path / "kept.jsonl")
    assert f"give {option}" in cli(*command).sentence()


def test_a_run_without_a_reference_asks_for_it_and_another_than_the_recorded_is_refused(
    select, world, cli, make_base, tmp_path
) -> None:
    """``base`` is a plain model: nothing records a reference of it."""
    command = ("select", "implicit_margin", "--pairs", world.pairs, "--store", tmp_path / "s")
    command += ("--out", tmp_path / "kept.jsonl")
    assert "--reference" in cli(*command, "--checkpoint", world.base).sentence()
    other = make_base(tmp_path / "other", seed=5)
    refused = cli(*command, "--checkpoint", world.dpo, "--reference", other).sentence()
    assert "is not the reference of" in refused
    trusted = cli(*command, "--checkpoint", world.base, "--reference", other)
    assert trusted.status == 0 and "the reference is taken on trust" in trusted.err


@pytest.mark.parametrize("share", ["0", "1.5", "-1", "x"])
def test_a_share_out_of_range_is_wrong_usage(share, select) -> None:
    ended = select("random", "--keep", share)
    assert ended.status == 2 and "--keep" in ended.err


def test_no_score_at_all_leaves_nothing_and_says_why(select, world, tmp_path) -> None:
    rows = [row | {"score_chosen": None, "score_rejected": 1.0} for row in rows_of(world.pairs)]
    columns = ("--external", "columns:score_chosen,score_rejected")
    pairs = written(tmp_path / "empty.jsonl", rows)
    sentence = select("external_margin", *columns, pairs=pairs).sentence()
    assert "no pair has a score" in sentence and "24 have no score: external_margin" in sentence


def test_the_pairs_themselves_are_not_overwritten(select, world, tmp_path) -> None:
    pairs = written(tmp_path / "mine.jsonl", rows_of(world.pairs))
    before = pairs.read_bytes()
    assert "is the pairs themselves" in select("random", pairs=pairs, out="mine.jsonl").sentence()
    assert "written as .jsonl" in select("random", out="kept.parquet").sentence()
    assert pairs.read_bytes() == before


def test_an_engine_without_states_says_so(world, tmp_path) -> None:
    from dpo_diag.engines._base import Engine, ScoreRequest
    from dpo_diag.errors import EngineError

    class Bare(Engine):
        name = "bare"
        score = sample = swap = close = lambda *a, **o: None

    with pytest.raises(EngineError, match="bare gives no hidden states; take --engine hf"):
        Bare(world.base, None).state_sums([ScoreRequest((1,), (2,))])
