"""The demonstration on three responses: optima of each method over the counts, page and figure.

Start reading at ``run_bandit``. Nothing is sampled and nothing is random.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag import registry
from dpo_diag.reporting.bandit import MASSES, figure, page
from dpo_diag.sandbox import bandit
from dpo_diag.sandbox.bandit import Counts
from dpo_diag.tables import write_text
from dpo_diag.training.population import population_optimum

# beta = tau = 1 and lambda = 1 give the rewards that the paper's appendix is said to report
METHODS: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 1.0},
    "ipo": {"tau": 1.0},
    "dpop": {"beta": 1.0, "lam": 1.0},
    "auxdpo": {"beta": 1.0, "null_space": "exact"},
}
DIGITS = 6  # of what is written; optima are good to about eight
_SWEEP = np.logspace(-1, 2, 61)  # n_13 for n_12 = n_23 = 1


def run_bandit(out: Path) -> Path:
    """Solve, draw, write; the path of the page.

    Writes ``numbers.csv``, ``bandit.svg``, ``bandit.png`` and ``report.md``.

    Args:
        out: folder for everything.
    """
    out.mkdir(parents=True, exist_ok=True)
    text = optima().to_csv(index=False, lineterminator="\n")
    write_text(out / "numbers.csv", text)
    numbers = pd.read_csv(io.StringIO(text))  # as written: page and figure show no other digits
    write_text(out / "bandit.svg", figure(numbers, "svg").decode("utf-8"))
    (out / "bandit.png").write_bytes(figure(numbers, "png"))
    write_text(out / "report.md", page(numbers))
    return out / "report.md"


def optima() -> pd.DataFrame:
    """Every number of the demonstration.

    Returns:
        Rows with ``part`` (``fixed`` for what needs no counts, ``setting``, ``sweep``), ``method``,
        the counts, ``theta``, the mass of each response, the expected gold reward and the learned
        offsets of a1 and a2 (that of a3 is 0; NaN where none are learned).
    """
    rows = [
        _row("fixed", "base", None, 0.0),
        _row("fixed", "kl_optimum", None, bandit.kl_optimum(1.0)),
        _row("fixed", "kl_optimum_beta_10", None, bandit.kl_optimum(10.0)),
    ]
    for counts in bandit.SETTINGS:
        rows += _solved("setting", counts)
    for n_13 in _SWEEP:
        rows += _solved("sweep", Counts(1, 1, float(n_13)))
    frame = pd.DataFrame(rows)
    numeric = frame.columns[2:]
    frame[numeric] = frame[numeric].round(DIGITS) + 0.0  # no -0.0
    return frame


def _solved(part: str, counts: Counts) -> Iterator[dict[str, Any]]:
    for method, parameters in METHODS.items():
        variant = registry.load("variants", method)(**parameters)
        found = population_optimum(variant, counts)
        offsets = found.offsets if variant.needs.pair_state else None
        yield _row(part, method, counts, found.theta, offsets)


def _row(
    part: str,
    method: str,
    counts: Counts | None,
    theta: float,
    offsets: np.ndarray | None = None,
) -> dict[str, Any]:
    return {
        "part": part,
        "method": method,
        "n_12": counts.n_12 if counts else np.nan,
        "n_23": counts.n_23 if counts else np.nan,
        "n_13": counts.n_13 if counts else np.nan,
        "theta": theta,
        **dict(zip(MASSES, bandit.policy(theta), strict=True)),
        "expected_reward": float(bandit.expected_reward(theta)),
        "offset_a1": np.nan if offsets is None else offsets[0],
        "offset_a2": np.nan if offsets is None else offsets[1],
    }
