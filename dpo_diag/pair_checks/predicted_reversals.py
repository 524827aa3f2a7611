"""Pairs that a predictor expects to end up reversed: what ``ReversalPredictions`` says of them.

The table is made elsewhere from gradients of the base model (conflicts between pairs) or from
cheap baselines. A predictor's score ranks; which part of the ranking ends up reversed is known
only after training. So the upper tenth is shown and where it lies.
"""

import numpy as np
import pandas as pd

from dpo_diag.pair_checks._base import KNOW, LOOK, UNSEEN, Check, Checked, Measure, PairData
from dpo_diag.pair_checks._measures import examples, of_ranks, parts_of, share

TOP = 0.1  # upper part of the scores that is shown
LOOK_TIMES = 2.0  # a domain with so many times its part of the upper tenth calls for a look; ours


class PredictedReversals(Check):
    """The upper tenth of each predictor's scores, and the domains it lies in."""

    question = "Which pairs are predicted to end up reversed?"
    reading = (
        "By domain: the share of its pairs that is in the upper tenth of all; 10 % would be even."
    )
    misleads = "A score ranks pairs; how many will be reversed it does not say."
    about_model = True

    def run(self, data: PairData, rng: np.random.Generator) -> Checked:
        """Pairs of the upper tenth by predictor."""
        table = data.tables.get("ReversalPredictions")
        if table is None:
            return Checked(
                UNSEEN,
                "No gradients were read, so no conflict between pairs is known; once there is a "
                "run, dpo-diag why CKPT reads them.",
            )
        measures, cases, crowded = [], [], []
        for predictor, rows in table.groupby("predictor", sort=True):
            scores = rows.drop_duplicates("pair_id").set_index("pair_id")["score"]
            values = scores.reindex(data.rows["pair_id"]).to_numpy(float)
            found = _upper(values)
            parts = _parts(data, found, str(predictor))
            measures += parts
            crowded += [m for m in parts if m.interval.low > LOOK_TIMES * TOP]
            notes = pd.Series([f"{predictor}: score {value:.4g}" for value in values])
            cases += examples(data, found == 1, f"predicted_by_{predictor}", notes, values)
        names = ", ".join(dict.fromkeys(m.part.partition("=")[2] for m in crowded))
        n = table["predictor"].nunique()
        said = f"{n:,} predictors rank the pairs by how likely they end up reversed"
        return Checked(
            LOOK if crowded else KNOW,
            said + (f"; their upper tenth crowds in the domains {names}." if crowded else "."),
            "Read the pairs at the top; their labels, or those of the training pairs that conflict "
            "with them, are the first to check.",
            tuple(measures),
            tuple(cases),
        )


CHECK = PredictedReversals


def _upper(values: np.ndarray) -> np.ndarray:
    """1 in the upper tenth, 0 below, NaN without a score; ties at the limit are below it."""
    known = ~np.isnan(values)
    limit = np.quantile(values[known], 1.0 - TOP) if known.any() else np.nan
    return np.where(known, values > limit, np.nan)


def _parts(data: PairData, found: np.ndarray, predictor: str) -> list[Measure]:
    name = f"in_upper_tenth_{predictor}"
    parts = [("all", np.ones(data.n, bool)), *_domains(data)]
    return [of_ranks(share(name, found, data, part=part, mask=mask)) for part, mask in parts]


def _domains(data: PairData) -> list[tuple[str, np.ndarray]]:
    return [(f"domain={value}", mask) for value, mask in parts_of(data, "domain")]
