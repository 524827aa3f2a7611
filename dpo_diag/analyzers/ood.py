"""How does the implicit reward decay off-distribution, by kind of shift and by training step?

**Kinds.** Prompt shift, domain shift, response-source shift and token-level shift (paraphrase,
translation) are different things, and the published evidence goes in opposite directions. Each
shifted set has one kind (column ``shift_kind`` of the pairs, ``unspecified`` where nobody said);
the slices ``kind=...`` average over its sets and are what to read. The slice ``all`` mixes the
kinds and says so.

**Drops.** ``ood_accuracy_drop`` is in-distribution minus shifted accuracy, positive where the
reward got worse; ``ood_accuracy_drop_matched`` compares at the shifted set's mix of strata (by
default the pairs' ``stratum`` crossed with a ``difficulty`` that no policy touches), because an
apparent decay is often only another mix. ``_same_length``, ``_same_overlap`` and
``_same_length_overlap`` hold the difference in length and the likeness of the answers fixed;
``ood_drop_from_mix``, ``_from_length``, ``_from_overlap`` say how much of the drop they make.
Each kind's drop is tested against 0 and set against the drops of the reference's ranking and of an
explicit reward on the same pairs: harder pairs are not a worse reward.

**Distance.** Accuracy over the distance from the training prompts (table PromptDistances) and over
how surprising the text is to the reference, by kind of shift, as curves and slopes with controls.

**Beside them**, for every set and kind: accuracies of the reward, of the policy's and the
reference's ranking and of an explicit reward; AUC (``reward_auc``); calibration of
``sigmoid(margin)`` (``brier``, ``calibration_error``, ``squared_calibration_error``);
``best_of_n_accuracy`` with ``group_id``.

In-distribution pairs that were trained on are left out as long as others exist. Misleads: sets
whose pairs are closer calls look decayed; matching removes only what it is told to match on.

Source: Lin et al. 2409.03650; Razin et al. 2507.07981. Start reading at ``Ood.run``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.analyzers import (
    _pairs,
    _rows,
    _shift_distance,
    _shift_drops,
    _shift_rows,
    _shift_sets,
    _shift_verdicts,
    _steps,
)
from dpo_diag.analyzers._base import Analyzer, AnalyzerResult, Figure, Tables, findings_frame
from dpo_diag.analyzers._shift_rows import NAME, Scored
from dpo_diag.tables import CURVES, empty


@dataclass(frozen=True)
class Parameters:
    """Options of the off-distribution analysis.

    Attributes:
        baseline_id: model the others are compared with, empty for none.
        ci_level: nominal coverage, in (0, 1).
        in_domain: value of ``domain`` that is the in-distribution set.
        match: what the matched drop matches on, crossed: columns of the pairs, or ``difficulty``,
            ``length``, ``overlap``, ``prompt_overlap`` (see ``_shift_covariates.strata_of``).
        gold_gap: pairs with ``|gold_margin|`` at or below it have no gold order, gold reward.
        n_bins: bins of the curves over distance, at most.
    """

    baseline_id: str = ""
    ci_level: float = 0.95
    in_domain: str = "in_domain"
    match: tuple[str, ...] = ("stratum", "difficulty")
    gold_gap: float = 0.0
    n_bins: int = 8


_BY_SET = "reward_accuracy_by_step_and_set"
FIGURES = (
    Figure(
        name="ood_drop_by_kind",
        kind="intervals",
        curve="ood_accuracy_drop@kind=*|ood_accuracy_drop_matched@kind=*",
        x_label="in-distribution minus shifted (share of pairs)",
        y_label="kind of shift",
        title="Drop of the implicit reward's accuracy by kind of shift, raw and at matched strata",
    ),
    Figure(
        name="ood_drop",
        kind="intervals",
        curve="ood_accuracy_drop@domain=*|ood_accuracy_drop_matched@domain=*",
        x_label="in-distribution minus shifted (share of pairs)",
        y_label="shifted set",
        title="Drop of the implicit reward's accuracy by shifted set, raw and at matched strata",
    ),
    Figure(
        name="ood_by_domain",
        kind="intervals",
        curve="reward_accuracy@*",
        x_label="implicit-reward accuracy (share of pairs)",
        y_label="pairs",
        title="Implicit-reward accuracy on and off distribution",
    ),
    Figure(
        name="ood_by_step",
        kind="lines",
        curve="reward_accuracy_by_step",
        x_label="training step",
        y_label="implicit-reward accuracy (share of pairs)",
        title="Implicit-reward accuracy along training, by kind of shift",
    ),
    Figure(
        name="ood_by_step_and_set",
        kind="lines",
        curve=_BY_SET,
        x_label="training step",
        y_label="implicit-reward accuracy (share of pairs)",
        title="Implicit-reward accuracy along training, by set of pairs",
    ),
    *_shift_distance.FIGURES,
    Figure(
        name="calibration",
        kind="reliability",
        curve="reliability",
        x_label="confidence sigmoid(|margin|)",
        y_label="share of pairs ordered right",
        title="Calibration of the implicit reward's probability, by kind of shift",
    ),
    Figure(
        name="calibration_by_set",
        kind="reliability",
        curve="reliability_by_set",
        x_label="confidence sigmoid(|margin|)",
        y_label="share of pairs ordered right",
        title="Calibration of the implicit reward's probability, by set of pairs",
    ),
)


class Ood(Analyzer):
    """The implicit reward on and off distribution; see the module."""

    question: ClassVar[str] = "How does the implicit reward decay off-distribution?"
    reading: ClassVar[str] = (
        "A drop is in-distribution accuracy minus shifted accuracy; read it by kind of shift. The "
        "matched one compares at the same mix of strata and is the one to believe."
    )
    misleads: ClassVar[str] = (
        "Kinds of shift are different things, so that their mean says little; and a set of closer "
        "calls looks decayed: see the reference's own drop beside it."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"ImplicitRewards": _pairs.PAIR_COLUMNS}
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = _shift_drops.HEADLINE_DROPS
    reads_steps: ClassVar[bool] = True
    reads_shifts: ClassVar[bool] = True

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Numbers by kind and set, drops, distances, and curves of every model."""
        self.check(tables)
        frame = _shift_rows.gathered(tables, params.match)
        models = sorted(frame["model_id"].unique())
        _rows.check_baseline(NAME, models, params.baseline_id)
        scored = {
            model_id: _shift_rows.score(
                _pairs.one_model(frame, model_id, NAME), params.in_domain, gold_gap=params.gold_gap
            )
            for model_id in models
        }
        rows, notes = _findings(scored, params)
        curves = _curves(scored, params)
        for curve, column in (("reward_accuracy_by_step", "kind"), (_BY_SET, "domain")):
            curves += _steps.step_curve(
                NAME,
                curve,
                _series(rows, column, params.in_domain),
                frame,
                statistic="reward_accuracy",
                run_steps=tables.get("RunSteps"),
            )
        return AnalyzerResult(
            findings=findings_frame(rows),
            curves=pd.DataFrame(curves) if curves else empty(CURVES),
            figures=FIGURES,
            notes=(*notes, *_set_notes(frame, scored, params)),
        )


def _findings(
    scored: Mapping[str, Scored], params: Parameters
) -> tuple[list[dict[str, Any]], list[str]]:
    """Every row of Findings, and what the verdicts say in words."""
    contrasts = {
        model_id: _shift_drops.Contrasts.of(model, params) for model_id, model in scored.items()
    }
    tested = _shift_verdicts.against_zero(scored, contrasts, params)
    known = {_key(row) for row in tested}
    rows = list(tested)  # first: what a report shows first
    for model_id, model in scored.items():
        rows += _shift_sets.set_findings(model_id, model, params)
        drops = _shift_drops.drop_findings(model_id, model, contrasts[model_id], params)
        rows += [row for row in drops if _key(row) not in known]
        if model.is_final:
            rows += _shift_distance.distance_findings(model_id, model, params)
    rows += _shift_verdicts.against_other_orders(scored, contrasts, params)
    compared, notes = _shift_verdicts.against_baseline(scored, contrasts, params)
    said = _shift_verdicts.sentences(rows, scored)
    unmatched = dict.fromkeys(note for own in contrasts.values() for note in own.notes)
    return rows + compared, [*said, *notes, *unmatched, *_shift_distance.distance_notes(scored)]


def _curves(scored: Mapping[str, Scored], params: Parameters) -> list[dict[str, Any]]:
    points = []
    for model_id, model in scored.items():
        points += _shift_sets.reliability_points(model_id, model, params)
        if model.is_final:
            points += _shift_distance.distance_points(model_id, model, params)
    return points


def _series(rows: list[dict[str, Any]], column: str, in_domain: str) -> list[dict[str, Any]]:
    """Findings of the in-distribution set and of the slices of a column, named as series."""
    wanted = {f"domain={in_domain}"} | {
        row["slice"] for row in rows if row["slice"].startswith(f"{column}=")
    }
    return [
        {**row, "slice": f"domain={row['slice'].partition('=')[2]}"}
        for row in rows
        if row["slice"] in wanted
    ]


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["model_id"], row["statistic"], row["slice"]


def _set_notes(frame: pd.DataFrame, scored: Mapping[str, Scored], params: Parameters) -> list[str]:
    notes = []
    domains = set(frame["domain"].unique()) - {params.in_domain}
    if len(frame) and not domains:
        notes.append("No shifted pairs were given (--shifted), so there is no drop to measure.")
    inside = set(frame.loc[frame["domain"] == params.in_domain, "prompt_id"].unique())
    shared = inside & set(frame.loc[frame["domain"] != params.in_domain, "prompt_id"].unique())
    if shared:
        notes.append(
            f"{len(shared)} prompts are in the in-distribution set and in a shifted one; the "
            "intervals of drops count each prompt once."
        )
    unnamed = next(
        (m.kinds[_shift_rows.UNSPECIFIED] for m in scored.values()
         if _shift_rows.UNSPECIFIED in m.kinds), [],
    )  # fmt: skip
    if unnamed:
        kinds = ", ".join(_shift_rows.KINDS[:-1])
        notes.append(
            f"Nobody said what kind of shift {', '.join(unnamed)} is; give --shifted "
            f"NAME:KIND=FILE with one of {kinds}."
        )
    return notes


ANALYZER = Ood
