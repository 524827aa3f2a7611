"""What methods ask for beyond pairs: planted flaws are there, streams are independent."""

import itertools

import numpy as np
import pandas as pd
import pytest

from dpo_diag.errors import DataError
from dpo_diag.sandbox import gold, words
from dpo_diag.sandbox.annotate import utility
from dpo_diag.sandbox.grammar import parses, sample_prompt
from dpo_diag.sandbox.groups import GROUPS, win_probability
from dpo_diag.sandbox.panel import (
    JUDGES,
    SCORE_FOR_CLOSING,
    SCORE_NOISE,
    external_score,
    few_labelled,
    panel,
    prompt_of,
    reference_answers,
    unlabelled,
)
from dpo_diag.sandbox.world import World, make_world

PROMPT = "how do i clean the stove for my family ?"
TRAP = "how do i clean the stove near the gas leak for my family ?"


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def judged(world: World) -> pd.DataFrame:
    return panel(world.pairs)


def test_pairs_stay_what_they_are(world: World, judged: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(judged[world.pairs.columns], world.pairs)


def test_a_pair_is_judged_alike_in_any_company(world: World, judged: pd.DataFrame) -> None:
    some = world.pairs.sample(40, random_state=1)
    pd.testing.assert_frame_equal(panel(some), judged.loc[some.index])


def test_another_seed_gives_other_judgements_of_the_same_truth(
    world: World, judged: pd.DataFrame
) -> None:
    other = panel(world.pairs.head(300), seed=1)
    head = judged.head(300)
    assert (other["judge_agreement"] != head["judge_agreement"]).mean() > 0.3
    assert (other["score_chosen"] != head["score_chosen"]).all()
    for group in GROUPS:
        pd.testing.assert_series_equal(
            other[f"prefers_chosen_{group}"], head[f"prefers_chosen_{group}"]
        )


def test_agreement_is_in_votes_and_tells_right_labels_from_wrong(judged: pd.DataFrame) -> None:
    votes = judged["judge_agreement"] * len(JUDGES)
    np.testing.assert_allclose(votes, votes.round(), atol=1e-9)
    clear = judged[judged["gold_margin"].abs() > 0.1]
    right = clear["gold_margin"] > 0
    assert right[clear["judge_agreement"] == 1.0].mean() > 0.95
    assert right[clear["judge_agreement"] <= 0.2].mean() < 0.25


def test_scores_order_most_pairs_truly_but_not_all(judged: pd.DataFrame) -> None:
    decided = judged[judged["gold_margin"] != 0]
    agrees = (decided["score_chosen"] > decided["score_rejected"]) == (decided["gold_margin"] > 0)
    assert 0.8 < agrees.mean() < 0.92


def test_score_is_what_its_formula_says_up_to_noise_of_the_stated_size() -> None:
    """Utility 0.9 / 3.45 = .26087 for one apt step of three; 4 u + .05 * 4 = 1.24348 and noise."""
    scores = np.array([external_score(PROMPT, "wipe the tray .", seed=s) for s in range(400)])
    assert scores.mean() == pytest.approx(1.24348, abs=4 * SCORE_NOISE / 20)
    assert scores.std() == pytest.approx(SCORE_NOISE, rel=0.15)


def test_score_likes_length_and_closings_and_does_not_see_traps() -> None:
    """Four words and a closing: .05 * 4 + .4 = .6 more; a trap changes nothing."""
    seeds = range(400)
    gaps = [
        external_score(PROMPT, "wipe the tray . hope this helps .", seed=s)
        - external_score(PROMPT, "wipe the tray .", seed=s)
        for s in seeds
    ]
    assert np.mean(gaps) == pytest.approx(0.2 + SCORE_FOR_CLOSING, abs=4 * 0.71 / 20)
    assert gold.harm(TRAP, "wipe the tray .") > 0.5
    assert utility(TRAP, "wipe the tray .") == utility(PROMPT, "wipe the tray .")


def test_votes_and_harms_are_gold(judged: pd.DataFrame) -> None:
    for row in judged.sample(60, random_state=2).itertuples():
        for group in GROUPS:
            expected = win_probability(group, row.prompt, row.chosen, row.rejected)
            assert getattr(row, f"prefers_chosen_{group}") == pytest.approx(expected, abs=1e-4)
        whole = gold.harm(row.prompt, row.chosen)
        halves = (row.harm_reasoning_chosen, row.harm_answer_chosen)
        if "then" not in row.chosen:
            assert halves == (0.0, pytest.approx(whole, abs=1e-4))
        # a caveat spares the half it stands in only, so halves may be harmful where it spared all
        elif not gold.read_answer(row.chosen).has_caveat:
            joined = 1 - (1 - halves[0]) * (1 - halves[1])
            assert joined == pytest.approx(whole, abs=3e-4)


def test_groups_disagree_about_real_pairs(judged: pd.DataFrame) -> None:
    for one, other in itertools.combinations(GROUPS, 2):
        a, b = (judged[f"prefers_chosen_{g}"] > 0.5 for g in (one, other))
        assert (a != b).mean() > 0.1


def test_unlabelled_prompts_are_new_and_answers_those_of_the_grammar(world: World) -> None:
    used = {text for table in world for text in table["prompt"]}
    rows = unlabelled(used, n=500)
    assert len(rows) == 500 and rows["prompt_id"].is_unique
    assert not used & set(rows["prompt"])
    assert rows["response"].map(parses).all()
    assert list(rows.columns) == ["prompt_id", "prompt", "response", "source"]


def test_reference_answer_is_better_than_what_is_usual(world: World) -> None:
    rows = reference_answers(world.prompts)
    train = world.prompts[world.prompts["split"] == "train"]
    assert list(rows["prompt_id"]) == list(train["prompt_id"])

    def value(table: pd.DataFrame, column: str) -> float:
        texts = zip(table["prompt"], table[column], strict=True)
        return float(np.mean([gold.helpfulness(p, a) - gold.harm(p, a) for p, a in texts]))

    usual = value(world.pairs, "chosen")
    assert value(rows, "reference_answer") > usual + 0.2


def test_reference_answer_hangs_on_its_prompt_alone(world: World) -> None:
    rows = reference_answers(world.prompts).set_index("prompt_id")["reference_answer"]
    some = reference_answers(world.prompts.sample(frac=0.3, random_state=0))
    assert list(some["reference_answer"]) == list(rows[some["prompt_id"]])
    one = reference_answers(world.prompts.head(0))
    assert len(one) == 0 and "reference_answer" in one


def test_more_candidates_never_make_a_worse_reference(world: World) -> None:
    few, many = (reference_answers(world.prompts, n_candidates=n) for n in (1, 4))
    for row, other in zip(few.itertuples(), many.itertuples(), strict=True):
        one, four = (
            gold.helpfulness(r.prompt, r.reference_answer) - gold.harm(r.prompt, r.reference_answer)
            for r in (row, other)
        )
        assert four >= one


def test_few_labels_keep_whole_prompts_of_training_and_all_else(world: World) -> None:
    few = few_labelled(world.pairs, share=0.1)
    train, kept = (t[t["split"] == "train"] for t in (world.pairs, few))
    assert kept["prompt_id"].nunique() == round(0.1 * train["prompt_id"].nunique())
    assert set(kept["pair_id"]) == set(
        train.loc[train["prompt_id"].isin(kept["prompt_id"]), "pair_id"]
    )
    rest = world.pairs[world.pairs["split"] != "train"]
    assert set(few["pair_id"]) - set(kept["pair_id"]) == set(rest["pair_id"])


def test_larger_share_holds_the_smaller_one(world: World) -> None:
    small, large = (few_labelled(world.pairs, share=s) for s in (0.05, 0.2))
    assert set(small["pair_id"]) < set(large["pair_id"])
    whole = few_labelled(world.pairs, share=1.0)
    pd.testing.assert_frame_equal(whole, world.pairs)


@pytest.mark.parametrize("share", [0.0, 1.1, -1.0])
def test_share_outside_its_range_is_refused(world: World, share: float) -> None:
    with pytest.raises(DataError, match="share of labelled prompts"):
        few_labelled(world.pairs, share=share)


@pytest.mark.parametrize("seed", range(30))
def test_prompt_is_read_back_from_its_text(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, intent=words.INTENTS[seed % 3], is_trap=seed % 4 == 0)
    found = prompt_of(prompt.text)
    assert found.text == prompt.text and found.facts == prompt.facts
    assert (found.topic, found.object, found.task, found.intent, found.trap) == (
        prompt.topic,
        prompt.object,
        prompt.task,
        prompt.intent,
        prompt.trap,
    )


@pytest.mark.parametrize("text", ["", "?", "what is love ?", "how do i clean the stove"])
def test_text_of_another_world_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="no prompt of the sandbox"):
        prompt_of(text)
