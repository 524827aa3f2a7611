"""Numbers of each set of pairs and each kind of shift: accuracies, AUC, calibration.

Not a plug-in. Start reading at ``set_findings``.
"""

from typing import Any

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _rows
from dpo_diag.analyzers._rows import Statistic
from dpo_diag.analyzers._shift_rows import NAME, Scored, row_of, ties_flag
from dpo_diag.stats import calibration
from dpo_diag.stats.ranks import symmetric_auc

_SHARE = "share of pairs"
STATISTICS = (
    Statistic("reward_accuracy", _SHARE, "higher"),
    Statistic("ranking_accuracy", _SHARE, "higher"),
    Statistic("ranking_accuracy_per_token", _SHARE, "higher"),
    Statistic("ref_ranking_accuracy", _SHARE, "neither"),
    Statistic("ref_ranking_accuracy_per_token", _SHARE, "neither"),
    Statistic("explicit_reward_accuracy", _SHARE, "higher"),
    Statistic("gold_reward_accuracy", "share of pairs with a gold order", "higher"),
    Statistic("best_of_n_accuracy", "share of groups", "higher"),
    Statistic("brier", "squared probability", "lower", is_share=False),
    Statistic("mean_margin", "reward", "higher", is_share=False),
    Statistic("tie_share", "share of pairs with margin 0", "neither"),
    Statistic("undecided_share", "share of pairs inside the engines' noise", "lower"),
)
AUC = Statistic("reward_auc", "probability", "higher")
ECE = Statistic("calibration_error", "probability", "lower")
SQUARED_ECE = Statistic("squared_calibration_error", "squared probability", "lower")


def set_findings(model_id: str, model: Scored, params: Any) -> list[dict[str, Any]]:
    """Every statistic of the in-distribution set, of each shifted set and each kind of shift.

    A kind's numbers are over all pairs of its sets together.
    """
    found = []
    for part in _parts(model, params.in_domain):
        flag = model.flag if part.label == f"domain={params.in_domain}" else ""
        found += _rows.mean_findings(
            NAME,
            model_id,
            model.rows,
            [part],
            statistics=STATISTICS,
            clusters=model.clusters,
            params=params,
            reasons=_rows.Reasons(
                lambda values, flag=flag: "; ".join(filter(None, (flag, ties_flag(values)))),
                lambda name: "not given" if name != "undecided_share" else "noise not measured",
            ),
        )
        margins = model.rows["margin"].to_numpy(float)[part.mask]
        codes = pd.factorize(model.clusters[part.mask])[0]
        against = (flag, ties_flag(model.rows[part.mask]))
        for statistic, measure in (
            (AUC, symmetric_auc),
            (ECE, calibration.calibration_error),
            (SQUARED_ECE, calibration.squared_calibration_error),
        ):
            interval = measure(margins, codes, level=params.ci_level)
            small = statistic is ECE and 0 < interval.n < 1000
            reasons = (*against, "biased up at small n" if small else "")
            found.append(row_of(statistic, model_id, part.label, interval, params, reasons))
    return found


def reliability_points(model_id: str, model: Scored, params: Any) -> list[dict[str, Any]]:
    """Mean confidence against the share right with its interval, by kind of shift and by set."""
    points = []
    for part in _parts(model, params.in_domain):
        column, _, series = part.label.partition("=")
        curves = ["reliability_by_set"] if column == "domain" else ["reliability"]
        if series == params.in_domain and column == "domain":
            curves = ["reliability", "reliability_by_set"]
        margins = model.rows["margin"].to_numpy(float)[part.mask]
        for point in calibration.reliability(
            margins, model.clusters[part.mask], level=params.ci_level
        ):
            points += [
                {
                    "analyzer": NAME,
                    "curve": curve,
                    "model_id": model_id,
                    "series": series,
                    "x": point.confidence,
                    "y": point.accuracy,
                    "y_low": point.low,
                    "y_high": point.high,
                    "n": point.n,
                }
                for curve in curves
            ]
    return points


def _parts(model: Scored, in_domain: str) -> list[_rows.Slice]:
    domain = model.rows["domain"].to_numpy()
    parts = [_rows.Slice(f"domain={in_domain}", model.inside)]
    for kind, members in model.kinds.items():
        parts.append(_rows.Slice(f"kind={kind}", np.isin(domain, members)))
    return parts + [_rows.Slice(f"domain={name}", domain == name) for name in model.domains]
