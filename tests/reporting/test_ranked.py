"""The ranked list: order, brevity, width, and text that a terminal must not obey."""

from dpo_diag.reporting.ranked import Entry, Example, ranked_text

ENTRIES = (
    Entry("leakage", "Repair", "2 of 9 leak.", "Take them out.", (Example("line 3", {"p": "x"}),)),
    Entry("cycles", "Clean", "No circle.", "Nothing to do."),
)


def test_groups_in_order_with_summary_advice_and_example() -> None:
    text = ranked_text("prefs: 9 pairs", ENTRIES)
    order = [
        "prefs: 9 pairs",
        "Repair",
        "leakage: 2 of 9",
        "What to do: Take",
        "e.g. line 3",
        "p: x",
    ]
    places = [text.index(words) for words in [*order, "Clean", "No circle."]]
    assert places == sorted(places)


def test_brief_groups_have_one_line_each() -> None:
    assert "Nothing to do" not in ranked_text("h", ENTRIES, brief=("Clean",))


def test_hostile_text_is_made_harmless_and_long_text_cut() -> None:
    bad = "\x1b]0;owned\x07\x1b[31mred\u202e\u200b\nnext"
    entry = Entry(bad, bad, bad, bad, (Example(bad, {bad: bad + "x" * 500}),))
    text = ranked_text(bad, [entry])
    assert not set("\x1b\x07\u202e\u200b") & set(text) and "owned" not in text
    assert "x" * 100 not in text


def test_lines_keep_to_the_width() -> None:
    entry = Entry("name", "Group", "many words " * 40, "more words " * 40)
    assert max(map(len, ranked_text("head " * 40, [entry], width=80).splitlines())) <= 80
