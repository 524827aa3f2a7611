import pandas as pd

from dpo_diag.reporting.cases import with_text
from dpo_diag.tables import CASES

CASE = ("safety", "worst_prompt", "m", "p1", 0.9, "note")


def _cases(*rows):
    return pd.DataFrame(rows, columns=list(CASES.column_names))


PAIRS = pd.DataFrame(
    {"pair_id": ["q1"], "prompt": ["Ask"], "chosen": ["good"], "rejected": ["bad"]}
)
PROMPTS = pd.DataFrame({"prompt_id": ["p1"], "prompt": ["Question"]})
SAMPLES = pd.DataFrame(
    {
        "model_id": ["m", "m", "other", "m"],
        "prompt_id": ["p1", "p1", "p1", "p2"],
        "sample_index": [0, 1, 0, 0],
        "response": ["mild", "worst", "of another", "elsewhere"],
    }
)
COSTS = SAMPLES.drop(columns="response").assign(value=[0.1, 0.9, 1.0, 1.0])


def test_pair_case_gets_the_pairs_texts():
    found = with_text(
        _cases(("reversals", "broken_pair", "m", "q1", 1.0, "")), {"PreferencePairs": PAIRS}
    )
    assert found.loc[0, ["prompt", "chosen", "rejected"]].tolist() == ["Ask", "good", "bad"]
    assert found.loc[0, "response"] == ""


def test_prompt_case_gets_the_models_worst_answer():
    tables = {"Prompts": PROMPTS, "Samples": SAMPLES}
    found = with_text(_cases(CASE), tables, costs=COSTS)
    assert found.loc[0, "prompt"] == "Question"
    assert found.loc[0, "response"] == "worst"


def test_without_costs_the_first_answer_stands():
    found = with_text(_cases(CASE), {"Samples": SAMPLES})
    assert found.loc[0, "response"] == "mild"


def test_only_the_most_severe_cases_of_each_kind_stay():
    rows = [("a", "k", "m", f"r{i}", float(i), "") for i in range(5)]
    found = with_text(_cases(*rows, ("a", "k", "n", "r9", 0.0, "")), {}, limit=2)
    assert list(found["row_key"]) == ["r4", "r3", "r9"]


def test_text_that_an_analyzer_brought_is_kept():
    cases = _cases(("reversals", "broken_pair", "m", "q1", 1.0, "")).assign(chosen="its own")
    found = with_text(cases, {"PreferencePairs": PAIRS})
    assert found.loc[0, "chosen"] == "its own"
    assert found.loc[0, "rejected"] == "bad"


def test_no_cases_stay_no_cases():
    tables = {"PreferencePairs": PAIRS, "Prompts": PROMPTS, "Samples": SAMPLES}
    assert with_text(_cases(), tables).empty


def test_inputs_are_unchanged():
    cases = _cases(CASE)
    with_text(cases, {"Prompts": PROMPTS, "Samples": SAMPLES}, costs=COSTS)
    assert list(cases.columns) == list(CASES.column_names)


def test_further_pairs_bring_their_texts_on_lines_that_no_text_can_break():
    pairs = pd.DataFrame(
        {
            "pair_id": ["q1", "q2", "q3"],
            "prompt": ["Ask", "Ask\npair q9", "x" * 500],
            "chosen": ["good", "fine", "a"],
            "rejected": ["bad", "poor", "b"],
        }
    )
    cases = _cases(("conflicts", "pushed_by", "m", "q1", 1.0, ""))
    found = with_text(cases.assign(other_ids="q2 q8 q3"), {"PreferencePairs": pairs})
    lines = found.loc[0, "other_pairs"].split("\n")
    assert lines[:4] == ["pair q2", "  prompt: Ask pair q9", "  chosen: fine", "  rejected: poor"]
    assert lines[4:6] == ["pair q3", f"  prompt: {'x' * 400}..."]
    assert found.loc[0, "prompt"] == "Ask"


def test_cases_without_further_pairs_have_no_such_text():
    first = _cases(("conflicts", "pushed_by", "m", "q1", 1.0, "")).assign(other_ids="q1")
    mixed = pd.concat([first, _cases(CASE)], ignore_index=True)
    found = with_text(mixed, {"PreferencePairs": PAIRS})
    assert found.set_index("row_key")["other_pairs"].to_dict() == {
        "q1": "pair q1\n  prompt: Ask\n  chosen: good\n  rejected: bad",
        "p1": "",
    }
    assert "other_pairs" not in with_text(_cases(CASE), {"PreferencePairs": PAIRS})
