"""``demo bandit``: its numbers are those committed, page and figure are drawn from them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dpo_diag.cli.main import group
from dpo_diag.pipeline.bandit import METHODS
from dpo_diag.reporting.bandit import figure, page

COMMITTED = Path(__file__).parents[2] / "reports" / "bandit"


@pytest.fixture(scope="module")
def numbers() -> pd.DataFrame:
    return pd.read_csv(COMMITTED / "numbers.csv")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command writes."""
    out = tmp_path_factory.mktemp("bandit")
    ended = CliRunner().invoke(group, ["demo", "bandit", "--out", str(out)])
    assert ended.exit_code == 0, ended.output
    assert ended.output.strip() == str(out / "report.md")
    return out


def test_committed_numbers_are_computed_again(written: Path, numbers: pd.DataFrame) -> None:
    """Written with six digits, so the last may differ by rounding."""
    made = pd.read_csv(written / "numbers.csv")
    assert list(made.columns) == list(numbers.columns)
    words = ["part", "method"]
    assert made[words].equals(numbers[words])
    np.testing.assert_allclose(
        made.drop(columns=words).to_numpy(float),
        numbers.drop(columns=words).to_numpy(float),
        atol=1.5e-6,
    )


def test_page_and_figure_are_drawn_from_the_committed_numbers(numbers: pd.DataFrame) -> None:
    assert page(numbers) == (COMMITTED / "report.md").read_text(encoding="utf-8")
    assert figure(numbers, "svg") == (COMMITTED / "bandit.svg").read_bytes()


def test_every_number_follows_from_its_theta(numbers: pd.DataFrame) -> None:
    weights = np.exp(np.outer(numbers["theta"], [1, -1, 0]))
    masses = weights / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(numbers.filter(like="mass_"), masses, atol=2e-6)
    np.testing.assert_allclose(numbers["expected_reward"], masses @ [1, 2, 0], atol=3e-6)


def test_sweep_has_every_method_at_rising_counts(numbers: pd.DataFrame) -> None:
    sweep = numbers[numbers["part"] == "sweep"]
    for method in METHODS:
        rows = sweep[sweep["method"] == method]
        assert len(rows) == 61
        assert (np.diff(rows["n_13"]) > 0).all()
    dpo = sweep[sweep["method"] == "dpo"]
    assert (np.diff(dpo["expected_reward"]) < 0).all()
    assert ((dpo["expected_reward"] < 1) == (dpo["n_13"] > 3.648)).all()


def test_command_writes_page_numbers_and_both_pictures(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {
        "report.md",
        "numbers.csv",
        "bandit.svg",
        "bandit.png",
    }
    assert (written / "bandit.png").read_bytes().startswith(b"\x89PNG")
    made = pd.read_csv(written / "numbers.csv")
    assert page(made) == (written / "report.md").read_text(encoding="utf-8")
    assert figure(made, "svg") == (written / "bandit.svg").read_bytes()


def test_unknown_demonstration_is_a_usage_error_and_the_sandbox_stays_the_default() -> None:
    ended = CliRunner().invoke(group, ["demo", "casino", "--out", "x"])
    assert ended.exit_code == 2
    assert "'casino' is not one of 'sandbox', 'bandit'" in ended.output
    context = group.get_command(None, "demo").make_context("demo", ["--out", "x"])
    assert context.params["what"] == "sandbox"
