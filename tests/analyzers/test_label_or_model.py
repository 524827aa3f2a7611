"""Label or model: verdicts by hand, planted wrong labels and chance reversals, their worth."""

import math

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers._label_evidence import judge
from dpo_diag.analyzers.label_or_model import (
    NO_TRAINING,
    LabelOrModel,
    Parameters,
    evidence_table,
)


def run(rewards, pairs=None, **parameters):
    tables = {"ImplicitRewards": rewards}
    if pairs is not None:
        tables["PreferencePairs"] = pairs
    return LabelOrModel().run(tables, Parameters(**parameters), np.random.default_rng(0))


def evidence(**columns) -> pd.DataFrame:
    silent = {
        "vote_share": np.nan, "n_votes": np.nan, "twins": np.nan, "label_right": 0.9,
        "models_reversing": 1.0, "steps_reversing": np.nan,
    }  # fmt: skip
    return pd.DataFrame([{**silent, **columns}], index=["pair"])


@pytest.mark.parametrize(
    ("columns", "verdict", "because"),
    [({}, "undecided", "no evidence"),
     ({"vote_share": 0.4, "n_votes": 5}, "label", "votes against the label"),
     ({"vote_share": 0.8, "n_votes": 5}, "model", "votes for the label"),
     ({"vote_share": 1.0, "n_votes": 2}, "undecided", "no evidence"),
     ({"vote_share": 0.6, "n_votes": 5}, "undecided", "no evidence"),
     ({"twins": 1}, "label", "the same answers labelled the other way round"),
     ({"label_right": 0.3}, "label", "posterior of the label below 0.75"),
     ({"models_reversing": 0.4}, "model", "other models order it as labelled"),
     ({"steps_reversing": 0.5}, "model", "earlier steps ordered it as labelled"),
     ({"twins": 1, "models_reversing": 0.2}, "undecided",
      "the same answers labelled the other way round, other models order it as labelled"),
     ({"vote_share": 0.8, "n_votes": 5, "label_right": 0.1}, "model",
      "posterior of the label below 0.75, votes for the label")],
)  # fmt: skip
def test_the_rule_by_hand(columns, verdict, because) -> None:
    found = judge(evidence(**columns), Parameters(), n_models=5, n_steps=4).loc["pair"]
    assert (found["verdict"], found["because"]) == (verdict, because)


def test_too_few_models_or_steps_do_not_speak() -> None:
    table = evidence(models_reversing=0.4, steps_reversing=0.0)
    assert judge(table, Parameters(), n_models=2, n_steps=2)["verdict"].tolist() == ["undecided"]


@pytest.fixture
def planted(make) -> tuple[pd.DataFrame, pd.DataFrame]:
    """1,000 training pairs under four seeds. 100 labels are wrong: every seed turns them, far.

    Each seed besides turns 50 right pairs of its own, by chance. Reward is .1 times the log-ratio.
    """
    rng = np.random.default_rng(0)
    wrong = np.arange(1000) < 100
    gold = np.where(wrong, -1.0, 1.0)
    frames = []
    for seed in range(4):
        true = np.abs(rng.normal(30.0, 5.0, 1000))
        true[100 + 50 * seed : 150 + 50 * seed] *= -0.3
        shift = true * gold
        frames.append(
            make.rewards(
                np.c_[shift / 2, -shift / 2], np.full((1000, 2), -40.0), model_id=f"run{seed}"
            ).assign(split="train")
        )
    rewards = pd.concat(frames, ignore_index=True)
    return rewards, make.pairs(frames[0], gold_margin=gold, annotator="ann")


def test_planted_wrong_labels_and_chance_reversals_are_told_apart(planted, own) -> None:
    findings = run(*planted).findings
    assert own(findings, "reversed_training_pairs", model="run0")["estimate"] == 0.15
    assert own(findings, "label_verdict_share", model="run0")["estimate"] == pytest.approx(2 / 3)
    assert own(findings, "model_verdict_share", model="run0")["estimate"] == pytest.approx(1 / 3)
    for verdict in ("label", "model"):
        row = own(findings, f"{verdict}_verdict_precision", model="run0")
        assert row["estimate"] == 1.0 and row["ci_low"] > 0.9
    assert own(findings, "auc_models_reversing", model="run0")["estimate"] == 1.0
    share = own(findings, "holder_mislabelled_share", model="run0")["estimate"]
    assert share == pytest.approx(0.1, abs=0.02)


def test_one_seed_alone_cannot_tell_and_says_what_would(planted, own) -> None:
    rewards, pairs = planted
    alone = rewards[rewards["model_id"] == "run0"]
    result = run(alone, pairs)
    assert own(result.findings, "model_verdict_share", model="run0")["estimate"] == 0.0
    assert any("one model; naming further seeds" in note for note in result.notes)


def test_votes_decide_where_there_are_any(planted, own) -> None:
    rewards, pairs = planted
    findings = run(rewards, pairs.assign(vote_share=1.0, n_votes=5)).findings
    assert own(findings, "model_verdict_share", model="run0")["estimate"] == 1.0


def test_a_contradiction_in_the_data_speaks_against_the_label(make, own) -> None:
    """Three pairs, the second is the first turned round; the model sides with the second."""
    shift = np.array([[-4.0, 4.0], [4.0, -4.0], [-1.0, 1.0]])
    rewards = make.rewards(shift, np.full((3, 2), -9.0), prompt_ids=["p", "p", "q"])
    rewards = rewards.assign(split="train")
    pairs = make.pairs(rewards).assign(chosen=["a", "b", "a"], rejected=["b", "a", "b"])
    result = run(rewards, pairs, label_below=0.0)
    assert own(result.findings, "label_verdict_share")["estimate"] == 0.5
    case = result.cases.set_index("row_key").loc["pair00000"]
    assert case["kind"] == "verdict_label" and "1 labelled the other way round" in case["note"]


def test_steps_of_the_run_count_and_those_of_another_do_not(planted, own) -> None:
    rewards, pairs = planted
    final = rewards[rewards["model_id"] == "run0"].assign(model_id="run-00000000")
    early = [
        final.assign(model_id=f"run-step{k}-0000000{k}", step=k, margin=final["margin"].abs())
        for k in range(1, 5)
    ]
    other = early[0].assign(model_id="else-step1-00000009", margin=-1.0)
    result = run(pd.concat([final, *early, other]), pairs, label_below=0.0)
    models = set(result.findings["model_id"])
    assert models == {"run-00000000"}
    assert own(result.findings, "model_verdict_share", model="run-00000000")["estimate"] == 1.0
    assert "by 0 % of 4 steps" in result.cases["note"].iloc[0]


def test_every_reversed_training_pair_is_in_the_table_with_its_evidence(planted) -> None:
    table = evidence_table(*planted)
    own = table[table["model_id"] == "run0"]
    assert len(own) == 150 and (own["margin"] < 0).all()
    assert own["verdict"].value_counts().to_dict() == {"label": 100, "model": 50}
    assert (own["models_reversing"] == 1.0).sum() == 100 and (own["n_models"] == 4).all()
    assert len(evidence_table(planted[0].assign(split="test"), planted[1])) == 0


def test_cases_say_what_speaks_for_their_verdict(planted) -> None:
    cases = run(*planted).cases
    own = cases[(cases["model_id"] == "run0") & (cases["kind"] == "verdict_label")]
    assert len(own) == 20
    assert own["note"].str.contains("reversed by 100 % of 4 models").all()


def test_without_training_pairs_nothing_is_said_and_why(planted, own) -> None:
    rewards, pairs = planted
    result = run(rewards.assign(split="test"), pairs)
    row = own(result.findings, "label_verdict_share", model="run0")
    assert (row["n"], row["flag"]) == (0, NO_TRAINING) and math.isnan(row["estimate"])
    assert len(result.cases) == 0


def test_without_gold_nothing_is_measured(planted, own) -> None:
    rewards, pairs = planted
    findings = run(rewards, pairs.drop(columns="gold_margin")).findings
    assert own(findings, "label_verdict_precision", model="run0")["n"] == 0
    assert not findings["statistic"].str.startswith("auc_").any()
