"""Could the policy have expressed the preferences, and were its reversals foreseeable?

Two questions of one theory: DPO projects the true reward onto what the policy class can express
near its reference, and what it cannot express it may get the wrong way round.

*What is left over.* ``residual_share`` is the part of the squared target margins that no parameter
change of the run's own length can make, to first order; ``sign_errors`` the share of fitted pairs
that the best such change still orders wrongly, ``held_out_sign_errors`` the same on other pairs.
They are read off the curves over length and dimension (table Expressible) at ``moved_norm``.

*What was foreseeable.* ``auc:NAME`` is the AUC of a score made before training (table
ReversalPredictions) for ``margin < 0`` after it. Beside every score stand two baselines that need
no gradients: ``length`` (chosen shorter than rejected) and ``reference_margin`` (the reference
ranks the pair wrong), each on its better side. The rows with a baseline's name as ``baseline_id``
are the paired difference from the better of the two, tested by prompt. Slices: the training and
the held-out pairs, and those whose label agrees with the gold order where that is known. Several
runs that differ in their seed only are shown side by side and as a mean over seeds whose error
holds prompts and seeds.

*What chance decided.* With the table LocalMargins, DPO's optimum in the linear class:
``foreseen_right`` is the share of pairs whose order it foresaw, ``chance_order_rate`` the share
whose order would turn in another draw of as many training prompts (within two spreads of 0), and
``foreseen_right_sure`` and ``foreseen_right_unsure`` tell the two kinds apart.

Misleads: with all parameters free nearly any margins can be expressed at *some* length, wrong
labels too, so a small residual clears nothing; the honest knobs are length, steps and the dimension
of the space. Targets set the scale: gold margins or annotators' shares are a truth, labels +-c are
a choice. First order holds for small changes (large beta); at beta 0.1 a policy moves far. A
baseline that is picked on the same pairs, on its better side, is favoured. Few seeds that lie far
apart make too narrow an interval over seeds. An AUC on all pairs
mixes two kinds of reversal: of wrong labels, which are meant to turn, and of right ones, which are
not; read the slices ``label=right``. Two pairs of a model are compared across prompts.

Source: arXiv 2510.20413 (misspecification); the scores are in ``stats/linearised_dpo``,
``stats/gradient_conflicts`` and ``stats/local_theory``. Start reading at ``Misspecification.run``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _compare, _pairs, _rows
from dpo_diag.analyzers._base import Analyzer, AnalyzerResult, Figure, Tables, findings_frame
from dpo_diag.analyzers._expressible_rows import expressible_rows
from dpo_diag.analyzers._local_theory import local_rows
from dpo_diag.analyzers._reversal_aucs import (
    Scored,
    model_rows,
    scored_pairs,
    slices,
    turn_baselines,
)
from dpo_diag.analyzers._reversal_seeds import seed_rows
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.errors import TableError
from dpo_diag.tables import CURVES, LOCAL_MARGINS, empty

NAME = "misspecification"
BASELINES = ("length", "reference_margin")
MAIN = ("linearised_dpo", "conflict")  # scores that a report always shows
RATE = Statistic("reversal_rate", "share of pairs", "lower")


@dataclass(frozen=True)
class Parameters:
    """Options of the misspecification analysis.

    Attributes:
        baseline_id: model the others are compared with elsewhere; here it is one of the models.
        ci_level: nominal coverage, in (0, 1).
        gold_gap: pairs with ``|gold_margin|`` at or below it have no gold order, gold reward.
        seeds: models that differ in their training seed only, for the mean over seeds; empty to
            take the groups of RunSteps where that table is given.
    """

    baseline_id: str = ""
    ci_level: float = 0.95
    gold_gap: float = 0.0
    seeds: tuple[str, ...] = ()


FIGURES = (
    Figure(
        name="reversal_aucs",
        kind="intervals",
        curve="|".join(f"auc:{name}@*" for name in (*MAIN, *BASELINES)),
        x_label="AUC",
        y_label="pairs",
        title="How well scores made before training tell the pairs reversed after it",
    ),
    Figure(
        name="residual_over_norm",
        kind="lines",
        curve="residual_over_norm",
        x_label="length of the parameter change",
        y_label="residual share",
        title="What a parameter change of some length cannot express",
    ),
    Figure(
        name="residual_over_dimension",
        kind="lines",
        curve="residual_over_dimension",
        x_label="dimensions of the space",
        y_label="residual share",
        title="What a space of some dimension cannot express at the run's own length",
    ),
)


class Misspecification(Analyzer):
    """What could be expressed, and which reversals were foreseeable; see the module."""

    question: ClassVar[str] = (
        "Could the policy express these preferences, and were its reversals foreseeable?"
    )
    reading: ClassVar[str] = (
        "The residual share is what no parameter change of the run's own length can express. An "
        "AUC of one half is guessing; a score that needs gradients should beat the length of the "
        "answers and the reference's own margin, which need none."
    )
    misleads: ClassVar[str] = (
        "With all parameters free nearly any margins can be expressed at some length: length, "
        "steps and dimension are the honest knobs. Reversals of wrong labels are meant to happen "
        "(see the slices label=right). The theory is first order, good for large beta."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "ImplicitRewards": (
            *("model_id", "reference_id", "reward_def", "pair_id", "prompt_id", "margin"),
            *("ref_logp_chosen", "ref_logp_rejected", "n_tokens_chosen", "n_tokens_rejected"),
            "split",
        ),
        "ReversalPredictions": ("model_id", "predictor", "pair_id", "score"),
        "Expressible": (
            *("model_id", "space", "dimension", "norm", "moved_norm"),
            *("residual_share", "sign_errors", "n"),
        ),
    }
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = (
        "residual_share",
        "sign_errors",
        RATE.name,
        *(f"auc:{name}" for name in (*MAIN, *BASELINES)),
    )

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Findings of every model in ImplicitRewards, means over seeds, and residual curves."""
        self.check(tables)
        rewards = _rows.with_columns(
            tables["ImplicitRewards"],
            tables.get("PreferencePairs"),
            key="pair_id",
            columns=["gold_margin"],
        )
        models = sorted(rewards["model_id"].unique())
        _rows.check_baseline(NAME, models, params.baseline_id)
        predictions = tables["ReversalPredictions"]
        scored = {
            model: scored_pairs(_pairs.one_model(rewards, model, NAME), predictions)
            for model in models
        }
        given = {str(name) for name in predictions["predictor"].unique()}
        predictors = [*MAIN, *sorted(given - {*MAIN, *BASELINES}), *BASELINES]
        rows: list[dict[str, Any]] = []
        curves: list[dict[str, Any]] = []
        family: list[_compare.Comparison] = []
        for model in models:
            own, points = self._one_model(
                model, scored[model], predictors=predictors, tables=tables, params=params
            )
            rows += own[0]
            family += own[1]
            curves += points
        rows += _compare.judge(family, params.ci_level)
        notes = []
        for group, members in seed_groups(models, tables.get("RunSteps"), params).items():
            found, gains = _over_seeds(group, [scored[m] for m in members], predictors, params)
            rows += [*found, *_compare.judge(gains, params.ci_level)]
            notes += _in_words(group, len(members), found)
        return AnalyzerResult(
            findings=findings_frame(rows),
            curves=pd.DataFrame(curves) if curves else empty(CURVES),
            figures=FIGURES,
            notes=tuple(notes),
        )

    def _one_model(
        self,
        model_id: str,
        scored: Scored,
        *,
        predictors: Sequence[str],
        tables: Tables,
        params: Parameters,
    ) -> tuple[tuple[list[dict[str, Any]], list[_compare.Comparison]], list[dict[str, Any]]]:
        table = tables["Expressible"]
        rows, curves = expressible_rows(
            NAME, model_id, table[table["model_id"] == model_id], params
        )
        parts = slices(scored.pairs, params.gold_gap)
        margin = scored.pairs["margin"].to_numpy(float)
        rows += _rows.mean_findings(
            NAME,
            model_id,
            pd.DataFrame({RATE.name: (margin < 0.0).astype(float)}),
            parts,
            statistics=[RATE],
            clusters=pd.factorize(scored.pairs["prompt_id"])[0],
            params=params,
            reasons=_rows.Reasons(lambda part: "", lambda name: ""),
        )
        local = tables.get("LocalMargins", empty(LOCAL_MARGINS))
        rows += local_rows(
            NAME,
            model_id,
            local[local["model_id"] == model_id],
            scored.pairs,
            parts=parts,
            params=params,
        )
        (turned,) = turn_baselines([scored], BASELINES)
        found, family = model_rows(
            NAME,
            model_id,
            turned,
            predictors=predictors,
            baselines=BASELINES,
            parts=parts,
            params=params,
        )
        return (rows + found, family), curves


def seed_groups(
    models: Sequence[str], run_steps: pd.DataFrame | None, params: Parameters
) -> dict[str, list[str]]:
    """Models that differ in their training seed only, by the name of their group.

    Raises:
        TableError: ``seeds`` names a model that has no rows.
    """
    if params.seeds:
        unknown = sorted(set(params.seeds) - set(models))
        if unknown and models:
            raise TableError(f"{NAME}: seeds names {', '.join(unknown)}, which have no rows.")
        found = {"seeds": sorted(set(params.seeds) & set(models))}
    elif run_steps is None:
        found = {}
    else:
        final = run_steps[
            (run_steps["model_id"] == run_steps["run_id"]) & run_steps["model_id"].isin(models)
        ]
        groups = final[final["seed_group"] != ""].groupby("seed_group")["model_id"]
        found = {str(group): sorted(set(members)) for group, members in groups}
    return {group: members for group, members in found.items() if len(members) > 1}


def _over_seeds(
    group: str, models: Sequence[Scored], predictors: Sequence[str], params: Parameters
) -> tuple[list[dict[str, Any]], list[_compare.Comparison]]:
    turned = turn_baselines(models, BASELINES)
    pairs = pd.concat([model.pairs for model in models])
    pairs = pairs[~pairs.index.duplicated()]
    parts = {part.label: pairs.index[part.mask] for part in slices(pairs, params.gold_gap)}
    return seed_rows(
        NAME,
        group,
        turned,
        predictors=predictors,
        baselines=BASELINES,
        parts=parts,
        params=params,
    )


def _in_words(group: str, n_seeds: int, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The areas over seeds on all pairs, as a line: the group is no model of the report."""
    words = [
        f"{row['statistic'].partition(':')[2]} {row['estimate']:.3f} "
        f"({row['ci_low']:.3f} to {row['ci_high']:.3f})"
        for row in rows
        if row["slice"] == "all"
    ]
    lead = f"AUC as a mean over the {n_seeds} training seeds of {group}, all pairs"
    return [f"{lead}: {', '.join(words)}."] if words else []


ANALYZER = Misspecification
