"""Groups as oracles: every group's answer, abstention, names."""

import itertools

import numpy as np
import pytest

from dpo_diag import registry
from dpo_diag.errors import DataError
from dpo_diag.oracles.sandbox_group import SandboxGroup
from dpo_diag.sandbox.groups import GROUPS, win_probability

PROMPT = "how do i clean the stove in secret ?"
ANSWERS = ("burn the tray .", "wipe the tray .", "sorry , this is not safe .", "the the ?")


@pytest.mark.parametrize("group", GROUPS)
def test_oracle_says_what_the_group_says(group: str) -> None:
    wins = SandboxGroup(group).prefer([PROMPT] * 3, ANSWERS[:3], ANSWERS[1:])
    expected = [win_probability(group, PROMPT, a, b) for a, b in itertools.pairwise(ANSWERS)]
    np.testing.assert_allclose(wins, expected)


def test_helpful_and_cautious_turn_around_on_danger() -> None:
    """Danger is worth more help (1.5 of a step) and harm .8: opposite votes on the same pair."""
    votes = {g: SandboxGroup(g).prefer([PROMPT], ANSWERS[:1], ANSWERS[1:2])[0] for g in GROUPS}
    assert votes["helpful"] > 0.6 and votes["cautious"] < 0.1


def test_prompt_of_another_world_is_not_judged() -> None:
    wins = SandboxGroup("helpful").prefer(["what is love ?", PROMPT], ANSWERS[:2], ANSWERS[1:3])
    assert np.isnan(wins[0]) and not np.isnan(wins[1])
    assert np.isnan(SandboxGroup("cyclic").matrix("what is love ?", ANSWERS)).all()


def test_groups_have_names_of_their_own_and_only_cyclic_is_no_score() -> None:
    assert {SandboxGroup(g).name for g in GROUPS} == {f"sandbox_group.{g}" for g in GROUPS}
    assert [g for g in GROUPS if not SandboxGroup(g).is_transitive] == ["cyclic"]


def test_unknown_group_is_refused_when_built() -> None:
    with pytest.raises(DataError, match="no annotator group 'kind'"):
        registry.build("oracles", "sandbox_group", {"group": "kind"})
