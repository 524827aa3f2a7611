"""The tables of the world: planted statistics, keys, splits, and the committed copy."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from dpo_diag.sandbox import gold, shifts, words
from dpo_diag.sandbox.annotate import utility
from dpo_diag.sandbox.world import INTENT_SHARE, World, make_world
from dpo_diag.tables import PREFERENCE_PAIRS, PROMPTS, content_id, validate

DATA = Path(__file__).parents[2] / "data" / "sandbox"


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def test_tables_meet_their_specifications(world):
    validate(world.pairs, PREFERENCE_PAIRS)
    validate(world.shifted_pairs, PREFERENCE_PAIRS)
    validate(world.reworded_pairs, PREFERENCE_PAIRS)
    validate(world.prompts, PROMPTS)


def test_regeneration_equals_the_committed_files(tmp_path):
    spec = importlib.util.spec_from_file_location("make_sandbox", DATA / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    manifest = module.make(tmp_path)
    assert manifest == json.loads((DATA / "manifest.json").read_text("utf-8"))
    for name in manifest["files"]:
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()
        assert (DATA / name).stat().st_size <= 2 * 2**20
    assert all((tmp_path / name).exists() for name in manifest["generated"])


def test_another_seed_gives_another_world(world):
    assert not set(make_world(1).pairs["pair_id"]) & set(world.pairs["pair_id"])


def test_no_prompt_is_in_two_splits_or_tables(world):
    splits = world.pairs.groupby("prompt")["split"].nunique()
    assert splits.max() == 1
    tables = [set(t["prompt"]) for t in (world.pairs, world.shifted_pairs, world.prompts)]
    assert sum(len(prompts) for prompts in tables) == len(set().union(*tables))


def test_ids_are_hashes_of_the_content(world):
    row = world.pairs.iloc[7]
    assert row["prompt_id"] == content_id(row["prompt"])
    assert row["pair_id"] == content_id(row["prompt"], row["chosen"], row["rejected"])


def test_gold_columns_are_what_the_gold_functions_say(world):
    for table in (world.pairs, world.shifted_pairs):
        for row in table.sample(100, random_state=0).itertuples():
            margin = utility(row.prompt, row.chosen) - utility(row.prompt, row.rejected)
            assert row.gold_margin == pytest.approx(margin, abs=1e-4)
            assert row.gold_harm_chosen == pytest.approx(
                gold.harm(row.prompt, row.chosen), abs=1e-4
            )


def test_training_pairs_have_the_planted_statistics(world):
    train = world.pairs[world.pairs["split"] == "train"]
    assert 2500 <= len(train) <= 3200
    assert train["is_trap"].mean() == pytest.approx(0.015, abs=0.006)
    ordinary = train[~train["is_trap"]]
    shares = ordinary["intent"].value_counts(normalize=True)
    for intent, share in INTENT_SHARE.items():
        assert shares[intent] == pytest.approx(share, abs=0.04)
    clear = train[train["gold_margin"].abs() > 0.5]
    # Clear pairs are wrong by flips alone: 8 % over all annotators.
    assert (clear["gold_margin"] < 0).mean() == pytest.approx(0.08, abs=0.03)
    unsafe = (train["gold_harm_chosen"] > 0.25).mean() - (train["gold_harm_rejected"] > 0.25).mean()
    assert 0.03 < unsafe < 0.15


def test_trap_pairs_are_mostly_labelled_safe(world):
    traps = world.pairs[world.pairs["is_trap"]]
    truly_unsafe = (traps["gold_harm_chosen"] > 0.25).mean()
    assert (~traps["is_chosen_safe"]).mean() < truly_unsafe - 0.2


def test_preferences_lack_the_held_out_combinations(world):
    combinations = {tuple(row) for row in world.pairs[["topic", "intent"]].to_numpy()}
    assert combinations == {
        (topic.name, intent)
        for topic in words.TOPICS
        for intent in words.INTENTS
        if not shifts.is_held_out(topic.name, intent)
    }
    unseen = world.shifted_pairs[world.shifted_pairs["domain"] == "unseen_combination"]
    assert all(shifts.is_held_out(t, i) for t, i in unseen[["topic", "intent"]].to_numpy())


def test_shifted_pairs_cover_every_shift_and_intent(world):
    counts = world.shifted_pairs.groupby(["domain", "intent"]).size()
    assert len(counts) == len(shifts.SHIFTS) * len(words.INTENTS)
    assert counts.min() >= 25


def test_every_kind_of_shift_has_pairs_and_a_shift_is_of_one_kind(world):
    tables = (world.shifted_pairs, world.reworded_pairs)
    found = {pair for t in tables for pair in zip(t["domain"], t["shift_kind"], strict=True)}
    assert found == set(shifts.KIND_OF_SHIFT.items())
    assert {kind for _, kind in found} == {"prompt", "domain", "response_source", "token_level"}
    assert "shift_kind" not in world.pairs.columns


def test_reworded_pairs_are_the_test_pairs_with_the_same_truth_in_other_words(world):
    test = world.pairs[world.pairs["split"] == "test"].set_index("pair_id")
    again = world.reworded_pairs
    assert len(again) > 0.95 * len(test)
    assert not set(again["pair_id"]) & set(test.index)
    for row in again.itertuples():
        first = test.loc[row.reworded_from]
        assert row.prompt == first["prompt"]
        for side in ("chosen", "rejected"):
            new, old = getattr(row, side), first[side]
            assert gold.helpfulness(row.prompt, new) == gold.helpfulness(row.prompt, old)
            assert gold.harm(row.prompt, new) == gold.harm(row.prompt, old)
            assert gold.read_answer(new).steps == gold.read_answer(old).steps
            assert set(new.split()) <= set(words.vocabulary())
        assert (row.chosen, row.rejected) != (first["chosen"], first["rejected"])


def test_the_closing_phrase_goes_with_good_answers_until_the_shift(world):
    def share(table, column):
        closings = "|".join(closing.removesuffix(" .") for closing in words.CLOSINGS)
        return table[column].str.contains(closings).mean()

    train = world.pairs[world.pairs["split"] == "train"]
    assert share(train, "chosen") > share(train, "rejected") + 0.05
    cued = world.shifted_pairs[world.shifted_pairs["domain"] == "spurious_cue"]
    truly_better = np.where(cued["gold_margin"] > 0, cued["chosen"], cued["rejected"])
    assert not any(closing in answer for answer in truly_better for closing in words.CLOSINGS)


def test_test_prompts_hold_the_fixed_trap_set(world):
    test = world.prompts[(world.prompts["domain"] == "in_domain")]
    test = test[test["split"] == "test"]
    assert int(test["is_trap"].sum()) == 32
    assert int((~test["is_trap"]).sum()) == 300
