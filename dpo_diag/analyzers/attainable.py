"""Could the wrongly ranked pairs have been ranked right?

Two yardsticks, both from Chen et al. 2405.19534.

* The *idealised* ranking accuracy: what the perfect optimum of DPO or RLHF would reach with this
  reference and these annotators, ``1{ (ref(y_w) / ref(y_l)) * (a / (1 - a))^(1 / beta) > 1 }`` with
  a the share of votes for the chosen answer (``vote_share``), a unanimous vote counted as
  0.999. It depends on beta, which nobody knows for the annotators: it is swept over
  ``BETAS`` and the least, the median and the greatest of the data-set means are reported, raw and
  per token. ``alignment_gap`` is the median minus the policy's own ranking accuracy, paired.
  Where ``a < 1/2`` the label itself is the minority's: the formula is kept as it is, so the ideal
  policy sides with the majority, against the label, on both sides of the gap; such pairs are
  counted (``minority_label_rate``). The authors' code multiplies the *ratio of log-probs* in the
  raw case and calls ratios within 5 % a tie; here the paper's formula is computed, in logarithms.
* The *required* loss (theorem 4.1): with ``c = log ref(y_l) - log ref(y_w)`` the policy ranks a
  pair right exactly where its DPO loss is at most ``-log sigmoid(beta c)``, that is where the
  log-ratio margin m reaches c. A pair that is ranked wrong then ``never_had_a_chance`` or
  ``lost_it``: of the training pairs with a like reference gap (the ``n_like`` nearest in c) a
  share reached the margin that this pair needed; at ``least_chance`` of them or more it had a
  chance. The line is measured on the same run and stated; its rates are shown at half and twice
  the line too (slices ``line=...``).

``right``, ``lost_it``, ``never_had_a_chance`` and ``tied`` sum to 1. Misleads: the chance is that
of pairs with a like reference gap, not a bound; a longer or stronger run would have reached
further. Without a split called ``train`` the pairs themselves stand in for the training pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _compare, _ideal, _pairs, _rows
from dpo_diag.analyzers._base import (
    Analyzer,
    AnalyzerResult,
    Figure,
    Tables,
    findings_frame,
)
from dpo_diag.analyzers._idealised import NO_VOTES, VOTED, idealised_findings
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.tables import CASES, CURVES, empty

NAME = "attainable"
_SHARE = "share of pairs"
CELLS = ("right", "lost_it", "never_had_a_chance", "tied")
CELL_RATES = {cell: f"{cell}_rate" for cell in CELLS}
STATISTICS = (
    Statistic("right_rate", _SHARE, "higher"),
    Statistic("lost_it_rate", _SHARE, "lower", is_joint=True),
    Statistic("never_had_a_chance_rate", _SHARE, "lower", is_joint=True),
    Statistic("tied_rate", _SHARE, "neither"),
    Statistic("lost_it_of_wrong", "share of pairs ranked wrong", "neither", is_joint=True),
    Statistic("reference_gap", "nats against the label, of the reference", "neither", False),
    Statistic("required_loss", "DPO loss at which a pair is ranked right", "higher", False),
    Statistic("own_loss", "DPO loss", "lower", False),
    Statistic("own_loss_of_wrong", "DPO loss, pairs ranked wrong", "lower", False),
    Statistic("required_loss_of_wrong", "DPO loss, pairs ranked wrong", "higher", False),
    Statistic("voted_rate", "share of pairs with a vote_share", "neither"),
    Statistic("minority_label_rate", VOTED, "lower"),
)
BY_NAME = {statistic.name: statistic for statistic in STATISTICS}
FIGURES = (
    Figure(
        name="attainable_cells",
        kind="flow",
        curve="attainable_cells",
        x_label="share of pairs",
        y_label="model",
        title="Pairs ranked right, wrong though they had a chance, and wrong without one",
    ),
)


@dataclass(frozen=True)
class Parameters:
    """Options of the analysis.

    Attributes:
        baseline_id: model the others are compared with, empty for none.
        ci_level: nominal coverage, in (0, 1).
        slices: columns to slice by, as in ``reversals``.
        betas: strengths that the idealised accuracy is swept over.
        n_like: training pairs that a pair is compared with.
        least_chance: share of them that must have reached its margin for it to have had a chance.
        n_cases: pairs listed per kind and model.
    """

    baseline_id: str = ""
    ci_level: float = 0.95
    slices: tuple[str, ...] = ("split", "stratum", "length")
    betas: tuple[float, ...] = _ideal.BETAS
    n_like: int = 100
    least_chance: float = 0.05
    n_cases: int = 20


class Attainable(Analyzer):
    """Orders against what they could have been; see the module."""

    question: ClassVar[str] = "Could the wrongly ranked pairs have been ranked right?"
    reading: ClassVar[str] = (
        "A wrongly ranked pair needs its log-ratio margin to reach the reference's gap against the "
        "label. It lost its chance where training moved at least one like pair in twenty that far, "
        "and never had one where not. The alignment gap is the idealised accuracy (median over "
        "beta) minus the actual one."
    )
    misleads: ClassVar[str] = (
        "What like pairs reached is no bound: a longer run may reach further. The idealised "
        "accuracy takes the votes as the truth, and its spread over beta is no interval."
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"ImplicitRewards": _pairs.PAIR_COLUMNS}
    Parameters: ClassVar[type] = Parameters
    headline: ClassVar[tuple[str, ...]] = (
        "right_rate",
        "lost_it_rate",
        "never_had_a_chance_rate",
        "idealised_accuracy_median",
        "alignment_gap",
    )

    def run(self, tables: Tables, params: Parameters, rng: np.random.Generator) -> AnalyzerResult:
        """Findings, cells and cases of every model in ImplicitRewards."""
        self.check(tables)
        seed = int(rng.integers(2**63))
        pairs = tables.get("PreferencePairs")
        wanted = [*params.slices, "vote_share"]
        frame = _pairs.with_pair_columns(tables["ImplicitRewards"], pairs, wanted)
        if "vote_share" not in frame:
            frame = frame.assign(vote_share=np.nan)
        models = sorted(frame["model_id"].unique())
        _rows.check_baseline(NAME, models, params.baseline_id)
        values, notes = _rows.slice_values(frame, params.slices)
        rows, curves, cases, scored = [], [], [], {}
        for model_id in models:
            model = _pairs.one_model(frame, model_id, NAME)
            chances = chances_of(model, params)
            columns = chance_columns(model, chances, params.least_chance)
            clusters = pd.factorize(model["prompt_id"])[0]
            found = _rows.mean_findings(
                NAME,
                model_id,
                columns,
                _rows.all_and_slices(
                    model, params.slices, values=values, main=_rows.main_slice(model, ())
                ),
                statistics=STATISTICS,
                clusters=clusters,
                params=params,
                reasons=_rows.Reasons(lambda part: "", _missing),
            )
            rows += [*found, *_sensitivity(model, chances, params)]
            rows += idealised_findings(model, params, seed=seed)
            curves += _rows.cell_points(NAME, "attainable_cells", model_id, found, cells=CELL_RATES)
            cases += _worst(model, chances, columns, params)
            notes += _notes(model, chances)
            kept = columns.assign(prompt_id=model["prompt_id"])
            scored[model_id] = kept.set_index(pd.Index(model["pair_id"]))
        compared = [BY_NAME[f"{cell}_rate"] for cell in CELLS[:3]]
        family = _compare.paired_family(NAME, compared, scored, params=params, seed=seed)
        rows += _compare.judge(family, params.ci_level)
        return AnalyzerResult(
            findings=findings_frame(rows),
            curves=pd.DataFrame(curves) if curves else empty(CURVES),
            cases=pd.DataFrame(cases) if cases else empty(CASES),
            figures=FIGURES,
            notes=tuple(dict.fromkeys(notes)),
        )


class Chances(NamedTuple):
    """What a model's pairs needed and had: (n,) each, NaN where there is no reference.

    Attributes:
        gap: c, nats.
        margin: m, the log-ratio margin, nats.
        chance: share of like pairs that reached c.
        beta: the run's, NaN where the reward is no multiple of the log-ratio.
        n_judged_by: training pairs there are to compare with.
        judged_by: what they are, in words.
    """

    gap: np.ndarray
    margin: np.ndarray
    chance: np.ndarray
    beta: float
    n_judged_by: int
    judged_by: str


def chances_of(model: pd.DataFrame, params: Parameters) -> Chances:
    """What each pair of one model needed, what it got, and how many like pairs got as far."""
    gap = (model["ref_logp_rejected"] - model["ref_logp_chosen"]).to_numpy(float)
    margin = (model["logratio_chosen"] - model["logratio_rejected"]).to_numpy(float)
    known = ~np.isnan(gap + margin)
    trained = known & (model["split"] == "train").to_numpy()
    judged_by = "training pairs" if trained.any() else "pairs (no training pair was scored)"
    like = trained if trained.any() else known
    return Chances(
        gap,
        margin,
        _ideal.chance(gap, gap[like], margin[like], n_like=params.n_like),
        _ideal.strength(margin[known], model["margin"].to_numpy(float)[known]),
        int(like.sum()),
        judged_by,
    )


def chance_columns(model: pd.DataFrame, chances: Chances, least_chance: float) -> pd.DataFrame:
    """Every statistic of every pair, one column each, NaN unknown.

    A pair whose reference ranks it right (c below 0) and whose policy does not had its chance: it
    only had to stay.
    """
    raw = (model["logp_chosen"] - model["logp_rejected"]).to_numpy(float)
    known, wrong = ~np.isnan(chances.gap), raw < 0.0
    had = (chances.gap <= 0.0) | (chances.chance >= least_chance)
    required = _ideal.required_loss(chances.gap, chances.beta)
    own = _ideal.own_loss(chances.margin, chances.beta)
    share = pd.to_numeric(model["vote_share"]).to_numpy(float)
    voted = ~np.isnan(share)
    values = {
        "right_rate": np.where(known, raw > 0.0, np.nan),
        "lost_it_rate": np.where(known, wrong & had, np.nan),
        "never_had_a_chance_rate": np.where(known, wrong & ~had, np.nan),
        "tied_rate": np.where(known, raw == 0.0, np.nan),
        "lost_it_of_wrong": np.where(known & wrong, had, np.nan),
        "reference_gap": chances.gap,
        "required_loss": required,
        "own_loss": own,
        "own_loss_of_wrong": np.where(wrong, own, np.nan),
        "required_loss_of_wrong": np.where(wrong, required, np.nan),
        "voted_rate": voted.astype(float),
        "minority_label_rate": np.where(voted, share < 0.5, np.nan),
    }
    return pd.DataFrame(values, index=model.index)


def _missing(name: str) -> str:
    if name == "minority_label_rate":
        return NO_VOTES
    if "loss" in name:
        return "no reference, or the reward is no multiple of the log-ratio: no DPO loss"
    return "no pair is ranked wrong" if name == "lost_it_of_wrong" else "no reference"


def _sensitivity(model: pd.DataFrame, chances: Chances, params: Parameters) -> list[dict[str, Any]]:
    """Both rates of wrong pairs with the line at half and at twice the stated one."""
    rows = []
    clusters = pd.factorize(model["prompt_id"])[0]
    for line in (params.least_chance / 2.0, params.least_chance, 2.0 * params.least_chance):
        columns = chance_columns(model, chances, line)
        part = _rows.Slice(f"line={line:g}", np.ones(len(model), bool))
        rows += _rows.mean_findings(
            NAME,
            str(model["model_id"].iloc[0]),
            columns,
            [part],
            statistics=[BY_NAME["lost_it_rate"], BY_NAME["never_had_a_chance_rate"]],
            clusters=clusters,
            params=params,
            reasons=_rows.Reasons(lambda part: "", _missing),
        )
    return rows


def _worst(
    model: pd.DataFrame, chances: Chances, columns: pd.DataFrame, params: Parameters
) -> list[dict[str, Any]]:
    """Pairs that lost their chance (by how much they fell short) or had none (by their gap)."""
    severities = {
        "lost_it": np.where(columns["lost_it_rate"] == 1.0, chances.gap - chances.margin, np.nan),
        "never_had_a_chance": np.where(
            columns["never_had_a_chance_rate"] == 1.0, chances.gap, np.nan
        ),
    }
    cases = []
    for kind, severity in severities.items():
        for position in np.argsort(-severity, kind="stable")[: params.n_cases]:
            if np.isnan(severity[position]):
                break
            row = columns.iloc[position]
            cases.append(
                {
                    "analyzer": NAME,
                    "kind": kind,
                    "model_id": model["model_id"].iloc[position],
                    "row_key": model["pair_id"].iloc[position],
                    "severity": float(severity[position]),
                    "note": (
                        f"needed a log-ratio margin of {chances.gap[position]:+.2f} nats, got "
                        f"{chances.margin[position]:+.2f}; {100 * chances.chance[position]:.0f} % "
                        f"of like pairs got as far; loss {row['own_loss']:.3g}, required "
                        f"{row['required_loss']:.3g}"
                    ),
                }
            )
    return cases


def _notes(model: pd.DataFrame, chances: Chances) -> list[str]:
    notes = []
    if not np.isnan(chances.gap).all():
        notes.append(
            f"Chances are judged by what {chances.n_judged_by} {chances.judged_by} reached."
        )
    share = pd.to_numeric(model["vote_share"]).to_numpy(float)
    if len(share) and np.isnan(share).all():
        notes.append(
            "Idealised accuracy needs to know how many annotators preferred each answer: give "
            "pairs with the column vote_share (share for chosen, 0 to 1) and n_votes, or "
            "votes_chosen and votes_rejected. It is left out, not guessed."
        )
    elif (share < 0.5).any():
        notes.append(
            f"On {int((share < 0.5).sum())} pairs most annotators prefer the rejected answer; the "
            "ideal policy sides with them, against the label."
        )
    return notes


ANALYZER = Attainable
