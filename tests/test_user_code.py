"""A user's function by name: found in files and packages, errors placed in the user's code."""

from pathlib import Path

import pytest

from dpo_diag.errors import DataError
from dpo_diag.user_code import load_function, where_raised


def test_function_of_a_package_and_of_a_file_are_found(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def double(x):\n    return 2 * x\n")
    assert load_function(f"{file}:double", "test")(4) == 8
    assert load_function("math:sqrt", "test")(9.0) == 3.0


@pytest.mark.parametrize("target", ["", "math", ":sqrt", "math:"])
def test_target_of_another_form_says_who_asked(target: str) -> None:
    with pytest.raises(DataError, match=r"cost python_callable: target .* is not of the form"):
        load_function(target, "cost python_callable")


def test_module_that_raises_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("x = 1\nraise KeyError('nothing')\n")
    with pytest.raises(DataError, match=r"raised KeyError \('nothing'\) in broken\.py, line 2"):
        load_function(f"{file}:f", "test")


def test_last_place_of_an_error_is_told() -> None:
    try:
        int("seven")
    except ValueError as error:
        text = where_raised(error)
    assert text.startswith("ValueError (invalid literal") and "test_user_code.py" in text
