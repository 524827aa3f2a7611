"""Do the training pairs that are blamed for reversals really cause them?

An experiment, not a correlation: a run is trained, its reversed held-out pairs are the targets;
some training pairs are left out, the run is repeated, and the targets are looked at again. Each
way of leaving out is an arm (a ``model_id`` of the table), each repetition with pairs and training
seed of its own is a ``seed``. ``still_reversed`` is the share of a seed's targets with
``margin < 0`` in the arm, ``target_margin`` their mean margin; ``reversal_rate`` and
``reward_accuracy`` are over all held-out pairs with a clean label, targets among them, so that
reversals made elsewhere count too.

Targets are chosen because they came out reversed, so some would turn back by chance alone: only
the difference from an arm that leaves out as many random pairs is an effect. Every number is a
mean over seeds of the seed's own number, and its interval is Student's t over the seeds: pairs of
a seed share one training run and are not independent.

Misleads: with few seeds the intervals are wide; pairs that are left out also take with them what
they taught beside the reversal, which ``reward_accuracy`` shows. Start reading at ``Removal.run``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _compare, _rows
from dpo_diag.analyzers._base import (
    Analyzer,
    AnalyzerResult,
    Figure,
    Tables,
    finding,
    findings_frame,
)
from dpo_diag.analyzers._pairs import order_score
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.stats.intervals import clustered_mean

NAME = "removal"
STATISTICS = (
    Statistic("still_reversed", "share of targets, mean over seeds", "lower", is_share=False),
    Statistic("target_margin", "reward", "higher", is_share=False),
    Statistic("reversal_rate", "share of clean pairs, mean over seeds", "lower", is_share=False),
    Statistic("reward_accuracy", "share of clean pairs, mean over seeds", "higher", is_share=False),
    Statistic("n_left_out", "training pairs", "neither", is_share=False),
)
_OVER_TARGETS = ("still_reversed", "target_margin")


@dataclass(frozen=True)
class Parameters:
    """Options of the removal analysis.

    Attributes:
        baseline_id: arm that the others are compared with, empty for none; an arm that leaves out
            as many pairs at random is the fair one.
        ci_level: nominal coverage, in (0, 1).
    """

    baseline_id: str = ""
    ci_level: float = 0.95


FIGURES = (
    Figure(
        name="still_reversed",
        kind="intervals",
        curve="still_reversed@*",
        x_label="share of the targets still reversed",
        y_label="training pairs left out",
        title="Reversed pairs after training again without some training pairs",
    ),
)


class Removal(Analyzer):
    """Targets of every arm, and each arm against the baseline arm; see the module."""

    question: ClassVar[str] = "Do the training pairs that are blamed for reversals cause them?"
    reading: ClassVar[str] = (
        "Each arm leaves out other training pairs and trains again; the targets are the pairs that "
        "the full run reversed. Only the difference from leaving out random pairs is an effect."
    )
    misleads: ClassVar[str] = (
        "Targets were picked because they came out reversed, so some turn back in any other run; "
        "few seeds make wide intervals."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "RemovalOutcomes": (
            *("model_id", "seed", "pair_id", "prompt_id"),
            *("margin", "is_target", "n_left_out"),
        )
    }
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = ("still_reversed", "reversal_rate", "reward_accuracy")

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Numbers of every arm, and its difference from the baseline arm over the seeds."""
        self.check(tables)
        seed = int(rng.integers(2**63))
        outcomes = tables["RemovalOutcomes"]
        arms = sorted(outcomes["model_id"].unique())
        _rows.check_baseline(NAME, arms, params.baseline_id)
        scored = {arm: seed_numbers(outcomes[outcomes["model_id"] == arm]) for arm in arms}
        rows = [row for arm in arms for row in _own(arm, scored[arm], params)]
        family = _compare.paired_family(NAME, STATISTICS[:-1], scored, params=params, seed=seed)
        for entry in family:  # the unit behind an arm's number is a run, not a prompt
            entry.row["flag"] = entry.difference.flag
        rows += _compare.judge(family, params.ci_level)
        notes = () if arms else ("No runs were given.",)
        return AnalyzerResult(findings=findings_frame(rows), figures=FIGURES, notes=notes)


def seed_numbers(outcomes: pd.DataFrame) -> pd.DataFrame:
    """One row per seed of an arm: its statistics, and how many pairs and targets are behind them.

    Args:
        outcomes: RemovalOutcomes of one arm.

    Returns:
        A frame indexed by seed, with the seed as ``prompt_id``: a run is what is independent. A
        seed without targets has NaN there.
    """
    rows = []
    for seed, part in outcomes.sort_values(["seed", "pair_id"]).groupby("seed"):
        margin = part["margin"].to_numpy(float)
        is_target = part["is_target"].to_numpy(bool)
        aimed = margin[is_target]
        rows.append(
            {
                "seed": int(seed),
                "prompt_id": str(seed),
                "still_reversed": float(np.mean(aimed < 0.0)) if len(aimed) else np.nan,
                "target_margin": float(np.mean(aimed)) if len(aimed) else np.nan,
                "reversal_rate": float(np.mean(margin < 0.0)),
                "reward_accuracy": float(np.mean(order_score(margin))),
                "n_left_out": float(part["n_left_out"].iloc[0]),
                "n_pairs": len(part),
                "n_targets": int(is_target.sum()),
            }
        )
    columns = ["seed", "prompt_id", *(s.name for s in STATISTICS), "n_pairs", "n_targets"]
    return pd.DataFrame(rows, columns=columns).set_index("seed")


def _own(arm: str, numbers: pd.DataFrame, params: Parameters) -> list[dict[str, Any]]:
    rows = []
    for statistic in STATISTICS:
        values = numbers[statistic.name].to_numpy(float)
        interval = clustered_mean(values, np.arange(len(values)), level=params.ci_level)
        behind = "n_targets" if statistic.name in _OVER_TARGETS else "n_pairs"
        n = int(numbers.loc[~np.isnan(values), behind].sum())
        flags = [] if interval.n > 1 else ["fewer than two seeds: no interval"]
        if not n:
            flags = ["no targets" if statistic.name in _OVER_TARGETS else "no rows"]
        columns = _rows.estimate_columns(interval, params.ci_level) | {"n": n}
        if statistic.unit.startswith("share"):  # Student's t knows no bounds, a share does
            limits = np.clip([columns["ci_low"], columns["ci_high"]], 0.0, 1.0)
            columns |= {"ci_low": float(limits[0]), "ci_high": float(limits[1])}
        if interval.n:
            columns["method"] = "t over seeds"
        rows.append(
            finding(
                NAME,
                statistic.name,
                arm,
                params=params,
                unit=statistic.unit,
                better=statistic.better,
                flag="; ".join(flags),
                **columns,
            )
        )
    return rows


ANALYZER = Removal
