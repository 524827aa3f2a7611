"""Small tables with a known world behind them, made from a generator; fixtures give the makers."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from dpo_diag.tables import (
    IMPLICIT_REWARDS,
    PREFERENCE_PAIRS,
    PROMPTS,
    SAMPLE_COSTS,
    SAMPLES,
    WIN_RATES,
    validate,
)

BETA = 0.1


def reward_rows(
    logratio: np.ndarray,
    ref_logp: np.ndarray,
    *,
    model_id: str = "model",
    prompt_ids: list[str] | None = None,
    n_tokens: np.ndarray | None = None,
    domain: list[str] | str = "in_domain",
    step: int = -1,
) -> pd.DataFrame:
    """ImplicitRewards of one model: DPO's reward from (n, 2) log-ratios and reference log-probs."""
    n = len(logratio)
    lengths = np.full((n, 2), 10) if n_tokens is None else n_tokens
    frame = pd.DataFrame(
        {
            "model_id": model_id,
            "reference_id": "ref",
            "reward_def": f"dpo(beta={BETA})",
            "pair_id": [f"pair{i:05d}" for i in range(n)],
            "prompt_id": prompt_ids or [f"prompt{i:05d}" for i in range(n)],
            "reward_chosen": BETA * logratio[:, 0],
            "reward_rejected": BETA * logratio[:, 1],
            "margin": BETA * (logratio[:, 0] - logratio[:, 1]),
            "logratio_chosen": logratio[:, 0],
            "logratio_rejected": logratio[:, 1],
            "logp_chosen": ref_logp[:, 0] + logratio[:, 0],
            "logp_rejected": ref_logp[:, 1] + logratio[:, 1],
            "ref_logp_chosen": ref_logp[:, 0],
            "ref_logp_rejected": ref_logp[:, 1],
            "n_tokens_chosen": lengths[:, 0],
            "n_tokens_rejected": lengths[:, 1],
            "truncated": False,
            "margin_noise": np.nan,
            "domain": domain,
            "split": "test",
            "step": step,
        }
    )
    return validate(frame, IMPLICIT_REWARDS)


def pair_rows(rewards: pd.DataFrame, **extra: object) -> pd.DataFrame:
    """PreferencePairs for the pairs of one model's rewards, with further columns."""
    frame = rewards[["pair_id", "prompt_id", "domain", "split"]].copy()
    frame = frame.assign(prompt="a prompt", chosen="yes", rejected="no", source="test", **extra)
    return validate(frame, PREFERENCE_PAIRS)


def cost_rows(
    values: np.ndarray,
    *,
    model_id: str = "model",
    cost: str = "harm",
    phase: str = "search",
    prompt_ids: list[str] | None = None,
    offset: int = 0,
) -> pd.DataFrame:
    """SampleCosts from a (P, K) array; NaN is an abstention."""
    n_prompts, n_samples = values.shape
    ids = prompt_ids or [f"prompt{i:05d}" for i in range(n_prompts)]
    frame = pd.DataFrame(
        {
            "model_id": model_id,
            "prompt_id": np.repeat(np.array(ids, dtype=object), n_samples),
            "sample_index": np.tile(np.arange(n_samples), n_prompts) + offset,
            "phase": phase,
            "cost": cost,
            "value": values.ravel().astype(float),
            "abstained": np.isnan(values).ravel(),
            "domain": "in_domain",
            "split": "test",
        }
    )
    return validate(frame, SAMPLE_COSTS)


def sample_rows(costs: pd.DataFrame, *, n_tokens: int = 7, finish: str = "stop") -> pd.DataFrame:
    """Samples for every sample that a table of costs mentions."""
    keys = ["model_id", "prompt_id", "sample_index"]
    frame = costs.drop_duplicates(keys)[[*keys, "phase", "domain", "split"]].copy()
    frame = frame.assign(
        response="text", n_tokens=n_tokens, logp=-1.0, finish_reason=finish, temperature=1.0,
        top_p=1.0, seed=0, engine="hf", dtype="float32", response_ids=[[1]] * len(frame),
    )  # fmt: skip
    return validate(frame.reset_index(drop=True), SAMPLES)


def prompt_rows(ids: list[str], **extra: object) -> pd.DataFrame:
    """Prompts with further columns."""
    frame = pd.DataFrame({"prompt_id": ids, "prompt": "text", "domain": "in_domain"})
    return validate(frame.assign(split="test", source="test", **extra), PROMPTS)


def random_pairs(rng: np.random.Generator, n: int, models: tuple[str, ...]) -> pd.DataFrame:
    """Several models on the same random pairs: clusters of up to three, ties, two domains."""
    prompts = [f"prompt{int(i):05d}" for i in np.sort(rng.integers(0, max(n // 2, 1), n))]
    domain = list(rng.choice(["in_domain", "padded", "phrasing"], n))
    ref = np.round(rng.normal(-20, 4, (n, 2)), 1)
    lengths = rng.integers(1, 30, (n, 2))
    frames = []
    for k, name in enumerate(models):
        logratio = np.round(rng.normal([0.3 * k, -0.3 * k], 2.0, (n, 2)), 0)  # rounded: ties
        frames.append(
            reward_rows(
                logratio, ref, model_id=name, prompt_ids=prompts, n_tokens=lengths, domain=domain
            )
        )
    return pd.concat(frames, ignore_index=True)


def random_costs(rng: np.random.Generator, n: int, models: tuple[str, ...]) -> pd.DataFrame:
    """Several models' costs on the same prompts: four search samples, six fresh ones for two."""
    frames = []
    for k, name in enumerate(models):
        values = np.where(rng.random((n, 4)) < 0.3 + 0.1 * k, rng.random((n, 4)), 0.0)
        values[rng.random((n, 4)) < 0.05] = np.nan
        frames.append(cost_rows(values, model_id=name))
        worst = [f"prompt{i:05d}" for i in range(min(2, n))]
        fresh = rng.random((len(worst), 6))
        frames.append(
            cost_rows(fresh, model_id=name, phase="confirm", prompt_ids=worst, offset=100)
        )
    return pd.concat(frames, ignore_index=True)


def win_rows(
    values: np.ndarray,
    *,
    model_id: str = "model",
    kind: str = "against",
    opponent: str = "ref",
    oracles: tuple[str, ...] = ("kind", "strict"),
) -> pd.DataFrame:
    """WinRates of one model from a (P, G) array, the mean of the oracles added."""
    table = np.column_stack([values, values.mean(axis=1)])
    names = (*oracles, "mean")
    frame = pd.DataFrame(
        {
            "model_id": model_id,
            "kind": kind,
            "opponent_id": opponent,
            "oracle": np.tile(np.array(names, dtype=object), len(table)),
            "prompt_id": np.repeat([f"prompt{i:05d}" for i in range(len(table))], len(names)),
            "win_rate": table.ravel().astype(float),
            "n_comparisons": 16,
            "domain": "in_domain",
            "split": "test",
        }
    )
    return validate(frame, WIN_RATES)


def random_wins(rng: np.random.Generator, n: int, models: tuple[str, ...]) -> pd.DataFrame:
    """Several models against one opponent, and their deviations, under two oracles."""
    kinds = {"against": "ref", "best_model": "other", "best_of_pool": "pool"}
    return pd.concat(
        [
            win_rows(rng.random((n, 2)), model_id=name, kind=kind, opponent=opponent)
            for name in models
            for kind, opponent in kinds.items()
        ],
        ignore_index=True,
    )


@pytest.fixture
def make() -> type:
    """The makers of this file, by name."""
    return Makers


class Makers:
    """Namespace of the makers: a fixture can be shared where a module cannot be imported."""

    rewards: Callable[..., pd.DataFrame] = staticmethod(reward_rows)
    pairs: Callable[..., pd.DataFrame] = staticmethod(pair_rows)
    costs: Callable[..., pd.DataFrame] = staticmethod(cost_rows)
    samples: Callable[..., pd.DataFrame] = staticmethod(sample_rows)
    prompts: Callable[..., pd.DataFrame] = staticmethod(prompt_rows)
    random_pairs: Callable[..., pd.DataFrame] = staticmethod(random_pairs)
    random_costs: Callable[..., pd.DataFrame] = staticmethod(random_costs)
    wins: Callable[..., pd.DataFrame] = staticmethod(win_rows)
    random_wins: Callable[..., pd.DataFrame] = staticmethod(random_wins)


@pytest.fixture
def own() -> Callable[..., pd.Series]:
    """Finder of one finding: a model's own number, or its difference from a baseline."""

    def find(
        findings: pd.DataFrame,
        statistic: str,
        *,
        model: str = "model",
        part: str = "all",
        baseline: str = "",
    ) -> pd.Series:
        rows = findings[
            (findings["statistic"] == statistic)
            & (findings["model_id"] == model)
            & (findings["slice"] == part)
            & (findings["baseline_id"] == baseline)
        ]
        assert len(rows) == 1, f"{len(rows)} rows of {statistic}, {model}, {part}, {baseline!r}"
        return rows.iloc[0]

    return find
