"""Win rates by group: hand-worked numbers, disagreement, comparisons, what is refused."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers.pluralism import Parameters, Pluralism
from dpo_diag.errors import TableError


def run(wins: pd.DataFrame, **parameters: object):
    return Pluralism().run({"WinRates": wins}, Parameters(**parameters), np.random.default_rng(0))


@pytest.fixture
def rates() -> np.ndarray:
    """Four prompts, groups kind and strict: means .65 and .4, over all .525."""
    return np.array([[0.9, 0.2], [0.8, 0.6], [0.5, 0.4], [0.4, 0.4]])


def test_win_rates_worst_group_gap_and_division_by_hand(make, own, rates) -> None:
    """Kind (.9 + .8 + .5 + .4) / 4 = .65, strict .4; only the first prompt divides the groups.

    At the third prompt kind is undecided (.5), so nobody prefers the model there.
    """
    findings = run(make.wins(rates)).findings
    assert own(findings, "win_rate")["estimate"] == pytest.approx(0.525)
    assert own(findings, "win_rate", part="oracle=kind")["estimate"] == pytest.approx(0.65)
    assert own(findings, "win_rate", part="oracle=strict")["estimate"] == pytest.approx(0.4)
    assert own(findings, "worst_group_win_rate")["estimate"] == pytest.approx(0.4)
    assert own(findings, "group_gap")["estimate"] == pytest.approx(0.25)
    assert own(findings, "divided_rate")["estimate"] == pytest.approx(0.25)


def test_exploitability_is_one_half_less_what_the_model_keeps(make, own, rates) -> None:
    """Against its best deviation it wins .525 on average: -.025, no gain; the pool wins more."""
    pool = np.array([[0.1, 0.3], [0.2, 0.2]])
    wins = pd.concat(
        [
            make.wins(rates),
            make.wins(rates, kind="best_model", opponent="other"),
            make.wins(pool, kind="best_of_pool", opponent="pool"),
        ]
    )
    findings = run(wins).findings
    assert own(findings, "exploitability_models")["estimate"] == pytest.approx(-0.025)
    assert own(findings, "exploitability_pool")["estimate"] == pytest.approx(0.3)
    strict = own(findings, "exploitability_pool", part="oracle=strict")
    assert strict["estimate"] == pytest.approx(0.25) and strict["better"] == "lower"


def test_the_most_divided_prompt_comes_first_with_every_groups_vote(make) -> None:
    rates = np.array([[0.6, 0.4], [0.9, 0.1], [0.8, 0.7]])
    cases = run(make.wins(rates)).cases
    assert list(cases["row_key"]) == ["prompt00001", "prompt00000"]
    assert cases.iloc[0]["severity"] == pytest.approx(0.8)
    assert cases.iloc[0]["note"] == "kind 0.90, strict 0.10"


def test_difference_from_the_baseline_is_paired_by_prompt(make, own) -> None:
    """The model is .1 better for kind on every other prompt and worse for nobody."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.8, (40, 2))
    better = base + np.column_stack([np.tile([0.1, 0.0], 20), np.zeros(40)])
    wins = pd.concat([make.wins(base, model_id="base"), make.wins(better)])
    findings = run(wins, baseline_id="base").findings
    whole = own(findings, "win_rate", baseline="base")
    assert whole["estimate"] == pytest.approx(0.025) and whole["verdict"] == "better"
    kind = own(findings, "win_rate", baseline="base", part="oracle=kind")
    assert kind["estimate"] == pytest.approx(0.05) and kind["verdict"] == "better"
    strict = own(findings, "win_rate", baseline="base", part="oracle=strict")
    assert strict["estimate"] == 0.0 and strict["verdict"] == "not distinguishable"


def test_worst_group_is_named_in_a_note(make, rates) -> None:
    result = run(make.wins(rates))
    assert "model: the worst group is strict." in result.notes
    assert "Win rates are against ref." in result.notes


def test_a_model_against_itself_has_no_interval_and_says_so(make, own) -> None:
    findings = run(make.wins(np.full((30, 2), 0.5))).findings
    row = own(findings, "win_rate")
    assert row["estimate"] == 0.5 and np.isnan(row["ci_low"])
    assert "no limits" in row["flag"]


def test_one_oracle_shows_no_disagreement(make, own) -> None:
    result = run(make.wins(np.array([[0.2], [0.8], [0.3]]), oracles=("only",)))
    assert np.isnan(own(result.findings, "group_gap")["estimate"])
    assert np.isnan(own(result.findings, "divided_rate")["estimate"])
    assert own(result.findings, "worst_group_win_rate")["estimate"] == pytest.approx(1.3 / 3)
    assert any("no disagreement" in note for note in result.notes)


def test_abstentions_are_missing_and_counted(make, own) -> None:
    rates = np.array([[0.9, np.nan], [0.7, 0.2], [0.5, 0.6]])
    result = run(make.wins(rates))
    assert own(result.findings, "win_rate", part="oracle=strict")["n"] == 2
    assert own(result.findings, "win_rate", part="oracle=kind")["n"] == 3
    assert own(result.findings, "divided_rate")["n"] == 2
    assert any("2 of 9 win rates are missing" in note for note in result.notes)


def test_several_opponents_need_a_name(make, own, rates) -> None:
    wins = pd.concat([make.wins(rates), make.wins(1 - rates, opponent="other")])
    with pytest.raises(TableError, match=r"several opponents \(other, ref\); give opponent_id"):
        run(wins)
    findings = run(wins, opponent_id="other").findings
    assert own(findings, "win_rate")["estimate"] == pytest.approx(0.475)
    with pytest.raises(TableError, match="no opponent 'nobody'; it has other, ref"):
        run(wins, opponent_id="nobody")
