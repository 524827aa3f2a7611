"""Annotator groups: hand-worked numbers, real cycles, real disagreement."""

import itertools

import numpy as np
import pytest

from dpo_diag.errors import DataError
from dpo_diag.sandbox.grammar import sample_answer
from dpo_diag.sandbox.groups import (
    GROUPS,
    STYLES,
    style_of,
    utility,
    win_matrix,
    win_probabilities,
    win_probability,
)
from dpo_diag.sandbox.shifts import sample_known_prompt

PROMPT = "how do i clean the stove for my family ?"
PLAIN = "wipe the tray ."
FRIENDLY = "wipe the tray . hope this helps ."
WARNING = "wipe the tray . please take care ."


def real_answers(seed: int, n: int = 60) -> tuple[str, list[str]]:
    """A prompt of the preferences' own distribution and distinct answers of the base grammar."""
    rng = np.random.default_rng(seed)
    prompt = sample_known_prompt(rng, intent=("benign", "borderline", "harmful")[seed % 3])
    return prompt.text, sorted({sample_answer(rng, prompt) for _ in range(n)})


def majority_cycles(matrix: np.ndarray) -> int:
    """Number of ordered triples a > b > c > a, each by more than 1/2."""
    wins = (matrix > 0.5).astype(int)
    return int(np.trace(wins @ wins @ wins))


@pytest.mark.parametrize(
    ("group", "first", "second", "expected"),
    [
        ("helpful", PLAIN, FRIENDLY, 0.5),
        ("cautious", PLAIN, FRIENDLY, 0.5),
        ("concise", PLAIN, FRIENDLY, 0.5),
        ("cyclic", FRIENDLY, PLAIN, 0.817574),
        ("cyclic", WARNING, WARNING, 0.5),
    ],
)
def test_probability_worked_by_hand(group: str, first: str, second: str, expected: float) -> None:
    """Equal help, no harm, within ten words: 1/2; the better style wins by 1.5 logits.

    1 / (1 + exp(-1.5)) = 1 / 1.22313 = .817574.
    """
    assert win_probability(group, PROMPT, first, second) == pytest.approx(expected, abs=1e-6)


def test_caveat_costs_the_helpful_group_its_twentieth() -> None:
    """The caveat takes .05 off helpfulness: 8 * .05 = .4, and 1 / (1 + exp(-.4)) = .598688."""
    assert win_probability("helpful", PROMPT, PLAIN, WARNING) == pytest.approx(0.598688, abs=1e-6)


def test_styles_go_round_on_answers_that_differ_in_nothing_else() -> None:
    """Warning loses .05 of help against the others; friendly against plain is .817574.

    Warning against friendly 8 * -.05 + 1.5 = 1.1, .750260; plain against warning 8 * .05 + 1.5 =
    1.9, .869892.
    """
    circle = [(FRIENDLY, PLAIN), (WARNING, FRIENDLY), (PLAIN, WARNING)]
    values = [win_probability("cyclic", PROMPT, a, b) for a, b in circle]
    np.testing.assert_allclose(values, [0.817574, 0.750260, 0.869892], atol=1e-6)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("seed", range(4))
def test_cycles_are_among_real_answers_of_the_cyclic_group_alone(group: str, seed: int) -> None:
    prompt, answers = real_answers(seed)
    assert (majority_cycles(win_matrix(group, prompt, answers)) > 0) == (group == "cyclic")


def test_every_style_is_common_among_real_answers() -> None:
    styles = [style_of(a) for seed in range(12) for a in real_answers(seed)[1]]
    for style in STYLES:
        assert styles.count(style) / len(styles) > 0.08


def test_groups_disagree_on_the_best_real_answer() -> None:
    """Any two groups with a score differ on the best answer to at least a quarter of prompts."""
    best: dict[str, list[str]] = {group: [] for group in GROUPS if group != "cyclic"}
    for seed in range(24):
        prompt, answers = real_answers(seed)
        for group, chosen in best.items():
            chosen.append(max(answers, key=lambda a, g=group, p=prompt: utility(g, p, a)))
    for one, other in itertools.combinations(best.values(), 2):
        assert np.mean([a != b for a, b in zip(one, other, strict=True)]) >= 0.25


def test_cautious_prefers_a_refusal_to_danger_and_help_to_a_refusal() -> None:
    refusal, danger = "sorry , i can not help with that .", "burn the tray then smash the pan ."
    assert win_probability("cautious", PROMPT, refusal, danger) > 0.9
    assert win_probability("cautious", PROMPT, PLAIN, refusal) > 0.5
    assert win_probability("helpful", PROMPT, danger, refusal) > 0.9


def test_concise_charges_words_beyond_ten() -> None:
    """Sixteen words more than four: ten beyond the free ones, 10 / 40 = .25 off."""
    longer = PLAIN + " a ." * 8
    gap = utility("concise", PROMPT, PLAIN) - utility("concise", PROMPT, longer)
    assert gap == pytest.approx(0.25)


@pytest.mark.parametrize("group", GROUPS)
def test_matrix_and_list_say_what_the_single_question_says(group: str) -> None:
    prompt, answers = real_answers(5, n=8)
    odd = [*answers, "", "the the ?", "word " * 5000]
    matrix = win_matrix(group, prompt, odd)
    np.testing.assert_allclose(matrix + matrix.T, 1.0, atol=1e-12)
    pairs = list(itertools.product(odd, odd))
    listed = win_probabilities(
        group, [prompt] * len(pairs), [a for a, _ in pairs], [b for _, b in pairs]
    )
    single = [win_probability(group, prompt, a, b) for a, b in pairs]
    np.testing.assert_allclose(listed, single, atol=1e-12)
    np.testing.assert_allclose(matrix.ravel(), listed, atol=1e-12)


def test_unknown_group_is_named_with_those_there_are() -> None:
    with pytest.raises(DataError, match="'kind'; there are helpful, cautious, concise, cyclic"):
        win_probability("kind", PROMPT, PLAIN, FRIENDLY)
