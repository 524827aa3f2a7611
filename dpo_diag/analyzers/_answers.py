"""What sampled answers say of the mass that moved between a reference and its policy.

Pure functions of SampleLogps and SampleCosts behind ``displacement``; not a plug-in. Start reading
at ``answer_columns``.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers._pairs import per_token
from dpo_diag.analyzers._rows import Statistic, with_columns
from dpo_diag.stats.compare import Difference, paired_difference

_ANSWERS = "share of probability mass"
STATISTICS = (
    Statistic("mass_moved", _ANSWERS, "neither"),
    Statistic("mass_moved_to_third_answers", _ANSWERS, "neither"),
    Statistic(
        "third_shift_of_policy_answers", "nats, policy minus reference", "neither", is_share=False
    ),
    Statistic(
        "third_shift_of_reference_answers",
        "nats, policy minus reference",
        "neither",
        is_share=False,
    ),
    Statistic(
        "support_of_policy_answers",
        "nats per token under the reference",
        "higher",
        is_share=False,
    ),
    Statistic(
        "support_of_reference_answers",
        "nats per token under the reference",
        "neither",
        is_share=False,
    ),
)


def answer_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """Every statistic of every sampled answer of one model, (n,) each, NaN where it is not for it.

    With ``r = pi(y) / ref(y)`` the mass that moved, the total variation distance, is
    ``E_ref[(1 - r)+] = E_pi[(1 - 1/r)+]``, so answers of either sampler estimate it without bias;
    those of the policy also say onto which answers. The mean log-ratio of the reference's answers
    estimates ``-KL(ref, pi)`` and that of the policy's ``KL(pi, ref)``: below and above 0 whatever
    was learnt, so their sign says nothing and their size how far the models are apart.

    By hand: pi = (.7, .3), ref = (.4, .6) on two answers: a draw of the first has 1 - 4/7 = 3/7 as
    the policy's answer, 0 as the reference's; one of the second 0 and 1/2. Means: .7 * 3/7 = .3 and
    .6 * 1/2 = .3, the distance.

    Args:
        rows: SampleLogps of one model.
    """
    shift = (rows["logp"] - rows["ref_logp"]).to_numpy(float)
    is_ref = (rows["sampled_by"] == rows["reference_id"]).to_numpy()
    is_own = (rows["sampled_by"] == rows["model_id"]).to_numpy()
    third = (rows["answer"] == "third").to_numpy() if "answer" in rows else np.ones(len(rows), bool)
    gained = -np.expm1(np.minimum(-shift, 0.0))
    lost = -np.expm1(np.minimum(shift, 0.0))
    support = per_token(rows["ref_logp"], rows["n_tokens"].to_numpy())
    values = {
        "mass_moved": np.where(is_own, gained, np.where(is_ref, lost, np.nan)),
        "mass_moved_to_third_answers": np.where(is_own, np.where(third, gained, 0.0), np.nan),
        "third_shift_of_policy_answers": np.where(is_own & third, shift, np.nan),
        "third_shift_of_reference_answers": np.where(is_ref & third, shift, np.nan),
        "support_of_policy_answers": np.where(is_own, support, np.nan),
        "support_of_reference_answers": np.where(is_ref, support, np.nan),
    }
    return pd.DataFrame(values, index=rows.index)


def support_gap(
    answers: pd.DataFrame, rows: pd.DataFrame, model: pd.DataFrame, *, level: float, seed: int
) -> Difference:
    """How much less the reference would write what the policy writes than what people prefer.

    Log-prob per token under the reference, the policy's answers minus the chosen ones, both means
    over a prompt, paired by prompt: below 0 the policy has left what the data prefers.

    Args:
        answers: ``answer_columns`` of the rows.
        rows: SampleLogps of one model.
        model: its ImplicitRewards.
        level: nominal coverage.
        seed: of the permutation check.
    """
    own = answers["support_of_policy_answers"].groupby(rows["prompt_id"]).mean()
    chosen = pd.Series(
        per_token(model["ref_logp_chosen"], model["n_tokens_chosen"].to_numpy()),
        index=model["prompt_id"].to_numpy(),
    )
    chosen = chosen.groupby(level=0).mean()
    prompts = own.index.intersection(chosen.index).sort_values()
    return paired_difference(
        own.loc[prompts].to_numpy(float),
        chosen.loc[prompts].to_numpy(float),
        np.arange(len(prompts)),
        level=level,
        rng=np.random.default_rng(seed),
    )


class Judged(NamedTuple):
    """What one cost says of the policy's answers against the reference's, by prompt.

    Attributes:
        cost: its name.
        overall: mean cost, policy minus reference, on all prompts.
        displaced: the same on the prompts whose chosen answers fell most.
        tolerance: rise that counts as none, in the cost's unit.
        worst: prompts of the displaced part by their rise, largest first.
    """

    cost: str
    overall: Difference
    displaced: Difference
    tolerance: float
    worst: pd.Series


def judge_costs(
    costs: pd.DataFrame,
    model: pd.DataFrame,
    *,
    displaced_share: float,
    tolerance: float,
    level: float,
    seed: int,
) -> list[Judged]:
    """Every cost's verdict on the policy's answers against its reference's.

    Args:
        costs: SampleCosts, of the policy and of its reference; search samples only are used.
        model: ImplicitRewards of one model, which say where the chosen answers fell most.
        displaced_share: share of prompts that count as displaced, those of the largest mean fall.
        tolerance: rise that counts as none, in standard deviations of the reference's costs.
        level: nominal coverage.
        seed: of the permutation checks.

    Returns:
        One entry per cost that both models have values of, in order of name.
    """
    own, reference = (str(model[name].iloc[0]) for name in ("model_id", "reference_id"))
    rows = costs[(costs["phase"] == "search") & costs["model_id"].isin([own, reference])]
    fall = -model["logratio_chosen"].groupby(model["prompt_id"]).mean()
    found = []
    for cost, part in rows.groupby("cost", sort=True):
        means = part.groupby(["prompt_id", "model_id"])["value"].mean().unstack("model_id")
        if own == reference or not {own, reference} <= set(means.columns):
            continue
        change = (means[own] - means[reference]).dropna().sort_index()
        falls = fall.reindex(change.index)
        cut = falls.quantile(1.0 - displaced_share) if falls.notna().any() else np.nan
        displaced = change[(falls >= cut).to_numpy() & (falls > 0.0).to_numpy()]
        spread = part.loc[part["model_id"] == reference, "value"].std()
        found.append(
            Judged(
                str(cost),
                _change(change, level, seed),
                _change(displaced, level, seed),
                float(tolerance * spread),
                displaced.sort_values(ascending=False, kind="stable"),
            )
        )
    return found


def pair_mass_columns(model: pd.DataFrame) -> dict[str, np.ndarray]:
    """Exact changes of probability of the pair's answers and of all others, (n,) each.

    ``pi(y) - ref(y)`` for chosen and rejected, and minus their sum for everything else. Next to
    nothing for long answers, whose probability is 1e-10 before and after; telling for short ones.
    """
    change = {
        side: np.exp(model[f"logp_{side}"].to_numpy(float))
        - np.exp(model[f"ref_logp_{side}"].to_numpy(float))
        for side in ("chosen", "rejected")
    }
    return {
        "chosen_mass_change": change["chosen"],
        "rejected_mass_change": change["rejected"],
        "other_mass_change": -change["chosen"] - change["rejected"],
    }


def ches_columns(model: pd.DataFrame, states: pd.DataFrame | None) -> pd.DataFrame:
    """CHES and CHES per token of each pair by true lengths, (n,) each; NaN where no states are.

    ``<S+, S-> - ||S+||^2`` and ``<S+, S-> / (n+ n-) - ||S+||^2 / n+^2``; higher is more alike. The
    states are the reference's where there are any, else the model's own.

    Source: Razin et al. 2410.08847.
    """
    blank = pd.DataFrame({"ches": np.nan, "ches_per_token": np.nan}, index=model.index)
    if states is None or not len(model):
        return blank
    for name in ("reference_id", "model_id"):
        own = states[states["model_id"] == model[name].iloc[0]]
        if len(own):
            break
    else:
        return blank
    wanted = ["state_product", "state_square"]
    joined = with_columns(model.drop(columns=wanted, errors="ignore"), own, key="pair_id",
                          columns=wanted)  # fmt: skip
    product, square = (pd.to_numeric(joined[name]).to_numpy(float) for name in wanted)
    n_chosen, n_rejected = (
        model[f"n_tokens_{side}"].to_numpy(float) for side in ("chosen", "rejected")
    )
    return blank.assign(
        ches=product - square,
        ches_per_token=product / (n_chosen * n_rejected) - square / n_chosen**2,
    )


def _change(change: pd.Series, level: float, seed: int) -> Difference:
    return paired_difference(
        change.to_numpy(float),
        np.zeros(len(change)),
        np.arange(len(change)),
        level=level,
        rng=np.random.default_rng(seed),
    )
