"""What was measured of one model beside its pairs: sampled answers, judges, hidden states.

Behind ``displacement``; not a plug-in. Start reading at ``Measured``.
"""

from typing import Any

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _answers, _rows
from dpo_diag.analyzers._alarm import Bounds
from dpo_diag.analyzers._base import Tables, finding
from dpo_diag.stats.compare import Difference
from dpo_diag.stats.intervals import Interval
from dpo_diag.stats.rank_correlation import rank_correlation

NAME = "displacement"
NO_SAMPLES = "no sampled answers: needs SampleLogps (--answers N)"
NO_STATES = "no hidden states: needs PairStates (--states)"


class Measured:
    """What was measured beside the pairs of one model.

    Args:
        model: its rows of ImplicitRewards.
        columns: ``fall_columns`` of them.
        tables: of which SampleLogps, SampleCosts and PairStates are read where they are.
        params: the analyzer's.
        seed: of the permutation checks.
    """

    def __init__(
        self,
        model: pd.DataFrame,
        columns: pd.DataFrame,
        tables: Tables,
        params: Any,
        seed: int,
    ) -> None:
        self.model, self.columns, self.params, self.seed = model, columns, params, seed
        self.model_id = str(model["model_id"].iloc[0])
        logps = tables.get("SampleLogps")
        self.samples = _own_samples(logps, self.model_id)
        self.answers = _answers.answer_columns(self.samples)
        self.gap = _answers.support_gap(
            self.answers, self.samples, model, level=params.ci_level, seed=seed
        )
        self.ches = _answers.ches_columns(model, tables.get("PairStates"))
        costs = tables.get("SampleCosts")
        self.judged = self._judge(costs, params.ci_level)
        # the alarm asks all judges at once
        strict = 1.0 - (1.0 - params.ci_level) / max(len(self.judged), 1)
        self.judged_at_once = self._judge(costs, strict)

    def _judge(self, costs: pd.DataFrame | None, level: float) -> list[_answers.Judged]:
        if costs is None:
            return []
        return _answers.judge_costs(
            costs,
            self.model,
            displaced_share=self.params.displaced_share,
            tolerance=self.params.tolerance,
            level=level,
            seed=self.seed,
        )

    def findings(self) -> list[dict[str, Any]]:
        """Rows of the samples, the judges and CHES."""
        part = [_rows.Slice("all", np.ones(len(self.samples), bool))]
        rows = _rows.mean_findings(
            NAME,
            self.model_id,
            self.answers,
            part,
            statistics=_answers.STATISTICS,
            clusters=pd.factorize(self.samples["prompt_id"])[0],
            params=self.params,
            reasons=_rows.Reasons(lambda part: "", lambda name: "sampled by nobody asked about"),
        )
        for row in rows:
            if row["n"] == 0:
                row["flag"] = NO_SAMPLES
        gap = _difference_row(self, "support_gap", self.gap, unit="nats per token", better="higher")
        rows.append({**gap, "flag": gap["flag"] if self.gap.n else NO_SAMPLES})
        for judged in self.judged:
            for name, change in (
                ("cost_change", judged.overall),
                ("cost_change_displaced", judged.displaced),
            ):
                unit = "cost, policy's answers minus the reference's"
                row = _difference_row(self, name, change, unit=unit, better="lower")
                rows.append({**row, "slice": f"cost={judged.cost}"})
        return [*rows, *self._ches_rows()]

    def _ches_rows(self) -> list[dict[str, Any]]:
        fall = self.columns["mean_fall_of_chosen"].to_numpy(float)
        clusters = pd.factorize(self.model["prompt_id"])[0]
        scores = {
            "ches": self.ches["ches"].to_numpy(float),
            "ches_per_token": self.ches["ches_per_token"].to_numpy(float),
            "chosen_length": self.model["n_tokens_chosen"].to_numpy(float),
        }
        rows = []
        for name, score in scores.items():
            interval = rank_correlation(score, fall, clusters, level=self.params.ci_level)
            missing = "nothing varies" if name == "chosen_length" else NO_STATES
            if np.isnan(fall).all():
                missing = "no reference"
            flag = _rows.flags_of(interval, "" if interval.n else missing)
            rows.append(
                finding(
                    NAME,
                    f"{name}_rank_correlation",
                    self.model_id,
                    params=self.params,
                    unit="Spearman's rho with the fall of the chosen answer",
                    flag=flag,
                    **_rows.estimate_columns(interval, self.params.ci_level),
                )
            )
        return rows

    def needs(self) -> list[str]:
        """What further data would say, in words."""
        notes = []
        if not len(self.samples):
            notes.append(
                "Where the mass went is not measured: --answers N samples N answers per prompt of "
                "policy and reference."
            )
        elif not self.judged:
            notes.append(
                "Nobody judged the sampled answers: --cost NAME compares the policy's with the "
                "reference's."
            )
        if self.ches["ches"].isna().all():
            notes.append("CHES needs the reference's hidden states: --states.")
        return notes

    def prompt_cases(self) -> list[dict[str, Any]]:
        """Prompts on which a judge finds the policy's answers worst where the chosen fell most."""
        cases = []
        for judged in self.judged:
            for prompt_id, rise in judged.worst.head(self.params.n_cases).items():
                if rise > 0.0:
                    cases.append(
                        {
                            "analyzer": NAME,
                            "kind": f"worse_answers_{judged.cost}",
                            "model_id": self.model_id,
                            "row_key": str(prompt_id),
                            "severity": float(rise),
                            "note": f"mean {judged.cost} {rise:+.3g} against the reference's",
                        }
                    )
        return cases


def _own_samples(logps: pd.DataFrame | None, model_id: str) -> pd.DataFrame:
    columns = ["model_id", "reference_id", "sampled_by", "prompt_id", "sample_index"]
    if logps is None:
        blank = {name: pd.Series(dtype="str") for name in columns}
        numbers = {name: pd.Series(dtype=float) for name in ("logp", "ref_logp", "n_tokens")}
        return pd.DataFrame(blank | numbers)
    own = logps[logps["model_id"] == model_id]
    return own.sort_values(columns, ignore_index=True)


def bounds_of(difference: Difference) -> Bounds:
    """A difference as the alarm reads it."""
    return Bounds(difference.estimate, difference.low, difference.high)


def _difference_row(
    measured: Measured, name: str, difference: Difference, *, unit: str, better: str
) -> dict[str, Any]:
    level = measured.params.ci_level
    interval = Interval(
        difference.estimate,
        difference.low,
        difference.high,
        difference.se,
        difference.n,
        difference.n_clusters,
        difference.method,
        difference.is_guarantee,
    )
    return finding(
        NAME,
        name,
        measured.model_id,
        params=measured.params,
        unit=unit,
        better=better,
        flag=_rows.flags_of(interval, difference.flag),
        **_rows.estimate_columns(interval, level),
    )
