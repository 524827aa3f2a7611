"""A user's function as an oracle: order taken out, and what each mistake says."""

from pathlib import Path

import numpy as np
import pytest

from dpo_diag.errors import DataError
from dpo_diag.oracles.python_callable import PythonCallable

SOURCE = """
VALUE = 3
def first_wins(prompts, first, second):
    return [1.0] * len(prompts)
def longer_or_first(prompts, first, second):
    return [0.9 if len(a) >= len(b) else 0.4 for a, b in zip(first, second)]
def one_short(prompts, first, second):
    return [0.5] * (len(prompts) - 1)
def words(prompts, first, second):
    return first
def none(prompts, first, second):
    return [0.5, None]
def percent(prompts, first, second):
    return [80.0] * len(prompts)
def broken(prompts, first, second):
    return 1 / 0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def run(file: Path, name: str, **parameters: object) -> np.ndarray:
    oracle = PythonCallable(target=f"{file}:{name}", **parameters)
    return oracle.prefer(["p", "q"], ["ccc", "d"], ["e", "ff"])


def test_a_judge_that_always_likes_the_first_likes_nothing(file: Path) -> None:
    np.testing.assert_array_equal(run(file, "first_wins"), [0.5, 0.5])


def test_favour_for_the_first_place_cancels(file: Path) -> None:
    """Longer first: .9 there, .4 back, (.9 + 1 - .4) / 2 = .75; the shorter one has .25."""
    np.testing.assert_allclose(run(file, "longer_or_first"), [0.75, 0.25])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one_short", r"shape \(1,\) for 2 pairs"),
        ("words", "not numbers"),
        ("none", "no number for pair 1 .* abstains=true"),
        ("percent", r"gave 80\.0 for pair 0, expected the probability"),
        ("broken", r"raised ZeroDivisionError .* in mine\.py, line 16"),
        ("missing", "has no function 'missing'; it has first_wins"),
        ("VALUE", "has no function 'VALUE'"),
    ],
)
def test_bad_values_are_refused(file: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(file, name)


def test_abstaining_is_allowed_when_declared(file: Path) -> None:
    np.testing.assert_array_equal(run(file, "none", abstains=True), [0.5, np.nan])


def test_target_that_leads_nowhere_names_the_family() -> None:
    with pytest.raises(DataError, match="oracle python_callable: target 'nothing' is not of"):
        PythonCallable(target="nothing").prefer(["a"], ["b"], ["c"])


def test_two_functions_have_two_names() -> None:
    names = {PythonCallable(target=f"judge.py:{f}").name for f in ("style", "truth")}
    assert names == {"python_callable.style", "python_callable.truth"}
