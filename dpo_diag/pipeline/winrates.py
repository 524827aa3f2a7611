"""Samples to win rates: how often a model's answers are preferred to another's, by whose judgement.

Every answer of a prompt is put before every oracle once, as one matrix of preferences per prompt;
all models' win rates follow from it by counting. Start reading at ``win_rates``, which needs no
model; ``gather_wins`` draws the samples first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.checkpoints import Checkpoint
from dpo_diag.engines._base import SamplingSettings
from dpo_diag.errors import DataError
from dpo_diag.oracles._base import Oracle
from dpo_diag.pairs import PromptSet
from dpo_diag.pipeline.analyze import Evidence
from dpo_diag.pipeline.sample import SEARCH, sample_models
from dpo_diag.pipeline.work import Bar, EngineChoice, Work, no_bar
from dpo_diag.stats.games import held_out_best
from dpo_diag.tables import WIN_RATES, concat, content_hash, validate

AGAINST, BEST_MODEL, BEST_OF_POOL = "against", "best_model", "best_of_pool"
MEAN = "mean"
"""Name of the oracle that is the mean of all: a person drawn from a group drawn at random."""
POOL = "pool"


class Wins(NamedTuple):
    """Win rates prompt by prompt, for P prompts, O oracles (the mean last) and M models.

    Attributes:
        models: names, sorted.
        oracles: names, ``mean`` last.
        prompt_ids: sorted.
        models_wins: (P, O, M, M) chance that an answer of the row's model is preferred to one of
            the column's; NaN where a model has no answers or an oracle abstained throughout.
        pool_wins: (P, O, M) chance of the model's answers against the best answer of the pool, see
            ``win_rates``.
        n_samples: (P, M) answers.
    """

    models: tuple[str, ...]
    oracles: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    models_wins: np.ndarray
    pool_wins: np.ndarray
    n_samples: np.ndarray


def win_rates(
    samples: pd.DataFrame,
    prompts: pd.DataFrame,
    oracles: Sequence[Oracle],
    *,
    opponents: Sequence[str],
    deviations: Sequence[str] | None = None,
    bar: Bar = no_bar,
) -> pd.DataFrame:
    """WIN_RATES of every model in the samples.

    Three kinds of rows, each for every oracle and for their mean (``oracle`` is ``mean``):

    - ``against``: each named opponent, the mean over all pairs of an answer of the model and one of
      the opponent to the same prompt. A model against itself has 1/2 by antisymmetry.
    - ``best_model``: the deviation among ``deviations`` that beats the model most on the other half
      of the prompts (halves by rank of the prompt's id), or staying (the model itself, 1/2) where
      none wins. 1/2 minus the win rate is what the deviation gains.
    - ``best_of_pool``: the answer to the same prompt, out of all models' answers, that does best
      against one half of the model's own answers, measured against the other half, both ways
      round. It knows the oracle, so it bounds what best-of-n over this pool could do.

    Neither choice is measured on what it was made on. Both stay lower bounds: a deviation that is
    not in the set may do better.

    Args:
        samples: SAMPLES, or ``model_id``, ``prompt_id``, ``sample_index`` and ``response`` of them
            (then the prompts tell domain and split); only the search phase counts, as fresh
            samples are of picked prompts.
            Models drawn with one seed share random numbers: answers of equal index are then
            coupled, which draws win rates to 1/2 by at most one comparison in K.
        prompts: with the columns ``prompt_id`` and ``prompt``.
        oracles: one per group of judges, names different.
        opponents: model_ids with samples.
        deviations: model_ids that may be deviated to; None for all models.
        bar: progress bar factory.

    Raises:
        DataError: no oracle, two of one name, an opponent or deviation without samples, a prompt
            without text.
    """
    wins = prompt_wins(samples, prompts, oracles, bar=bar)
    named = list(wins.models) if deviations is None else list(deviations)
    for role, names in (("opponent", opponents), ("deviation", named)):
        for name in names:
            if name not in wins.models:
                raise DataError(
                    f"the {role} {name} has no samples; there are {', '.join(wins.models)}."
                )
    parts = [_against(wins, opponent) for opponent in dict.fromkeys(opponents)]
    parts += [_best_model(wins, named), _best_of_pool(wins)]
    told = samples if {"domain", "split"} <= set(samples.columns) else prompts
    where = told.drop_duplicates("prompt_id").set_index("prompt_id")[["domain", "split"]]
    rows = concat(parts, WIN_RATES).drop(columns=["domain", "split"], errors="ignore")
    rows = rows.join(where, on="prompt_id")
    return validate(rows[list(WIN_RATES.column_names)], WIN_RATES)


def gather_wins(
    checkpoints: Sequence[Checkpoint],
    opponent: Checkpoint,
    prompts: PromptSet,
    oracles: Sequence[Oracle],
    *,
    settings: SamplingSettings,
    choice: EngineChoice,
    work: Work,
) -> Evidence:
    """Answers of the models and the opponent, drawn where the store lacks them, and win rates.

    Every model has a seed of its own, from the settings' seed and its weights.

    Raises:
        DataError: two checkpoints are the same model, and as in ``win_rates``.
    """
    _oracle_names(oracles)  # before any model is loaded
    models = {c.model.model_id: c for c in checkpoints}
    if len(models) < len(checkpoints):
        raise DataError("two checkpoints are the same model; name each checkpoint once.")
    models[opponent.model.model_id] = opponent
    seeds = {
        name: int(content_hash([settings.seed, c.model.fingerprint])[:8], 16)
        for name, c in models.items()
    }
    samples = sample_models(list(models.values()), prompts, settings, choice, work, seeds=seeds)
    rows = win_rates(
        samples, prompts.frame, oracles, opponents=[opponent.model.model_id], bar=work.bar
    )
    return Evidence(
        tuple(models.values()),
        prompts=prompts,
        samples=samples,
        win_rates=rows,
        notes=_blindness(oracles),
    )


def prompt_wins(
    samples: pd.DataFrame,
    prompts: pd.DataFrame,
    oracles: Sequence[Oracle],
    *,
    bar: Bar = no_bar,
) -> Wins:
    """Every model's wins against every other and against the pool's best, prompt by prompt.

    Arguments and errors as in ``win_rates``.
    """
    names = _oracle_names(oracles)
    if "phase" in samples:
        samples = samples[samples["phase"] == SEARCH]
    models = sorted(samples["model_id"].unique())
    texts = dict(zip(prompts["prompt_id"], prompts["prompt"], strict=True))
    groups = samples.sort_values("sample_index", kind="stable").groupby("prompt_id", sort=True)
    shape = (len(groups), len(names))
    models_wins = np.full((*shape, len(models), len(models)), np.nan)
    pool_wins = np.full((*shape, len(models)), np.nan)
    n_samples = np.zeros((len(groups), len(models)), int)
    with bar("asking the oracles", len(groups)) as advance:
        for p, (prompt_id, rows) in enumerate(groups):
            if prompt_id not in texts:
                raise DataError(f"the prompt {prompt_id} was sampled but has no text; give it.")
            answers = _answers(rows, models)
            n_samples[p] = answers.halves.sum(axis=(0, 2))
            tables = [oracle.matrix(texts[prompt_id], answers.texts) for oracle in oracles]
            tables.append(np.mean(tables, axis=0))  # NaN where one abstains: no mean of all
            for o, table in enumerate(tables):
                models_wins[p, o], pool_wins[p, o] = _play(table, answers.halves)
            advance(1)
    return Wins(
        tuple(models), names, tuple(str(key) for key in groups.groups), models_wins, pool_wins,
        n_samples,
    )  # fmt: skip


def _blindness(oracles: Sequence[Oracle]) -> tuple[str, ...]:
    names: dict[str, list[str]] = {}
    for oracle in oracles:
        names.setdefault(oracle.blindness, []).append(oracle.name)
    return tuple(f"What {', '.join(who)} may miss: {what}." for what, who in names.items())


class _Answers(NamedTuple):
    """Different answers to one prompt, and how often each model gave them, (2, M, U) by half."""

    texts: list[str]
    halves: np.ndarray


def _answers(rows: pd.DataFrame, models: Sequence[str]) -> _Answers:
    codes, texts = pd.factorize(rows["response"], sort=True)
    model = np.searchsorted(models, rows["model_id"].to_numpy(str))
    half = rows.groupby("model_id").cumcount().to_numpy() % 2
    counts = np.zeros((2, len(models), len(texts)))
    np.add.at(counts, (half, model, codes), 1.0)
    return _Answers([str(text) for text in texts], counts)


def _play(table: np.ndarray, halves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wins of model against model (M, M), and of each model against the pool's best (M,).

    Args:
        table: (U, U) preference of the row's answer over the column's, NaN for abstentions.
        halves: (2, M, U) counts of each model's answers.
    """
    known = ~np.isnan(table)
    values = np.where(known, table, 0.0)
    # (U, M) for each half: summed preference over the model's answers, and how many were judged
    beats = [values @ half.T for half in halves]
    judged = [known @ half.T if not known.all() else _sizes(half, table) for half in halves]
    counts = halves.sum(axis=0)
    models_wins = _ratio(counts @ (beats[0] + beats[1]), counts @ (judged[0] + judged[1]))
    pool = []
    for chosen_on, measured_on in ((0, 1), (1, 0)):
        rate = _ratio(beats[chosen_on], judged[chosen_on])
        best = np.where(np.isnan(rate), -np.inf, rate).argmax(axis=0)  # (M,)
        measured = _ratio(beats[measured_on], judged[measured_on])[best, np.arange(len(best))]
        pool.append(np.where(np.isnan(rate).all(axis=0), np.nan, 1.0 - measured))
    return models_wins, (pool[0] + pool[1]) / 2.0


def _sizes(half: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.broadcast_to(half.sum(axis=1), (len(table), len(half)))


def _ratio(total: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


def _oracle_names(oracles: Sequence[Oracle]) -> tuple[str, ...]:
    names = [oracle.name for oracle in oracles]
    if not names:
        raise DataError("win rates need at least one oracle; name one.")
    twice = sorted({name for name in [*names, MEAN] if [*names, MEAN].count(name) > 1})
    if twice:
        raise DataError(
            f"two oracles are called {', '.join(twice)}, so their votes could not be told apart."
        )
    return (*names, MEAN)


def _rows(
    wins: Wins, kind: str, opponent: np.ndarray, rate: np.ndarray, n: np.ndarray
) -> pd.DataFrame:
    """Rows of one kind from arrays of shape (P, O, M); prompts that a model lacks are left out."""
    shape = (len(wins.prompt_ids), len(wins.oracles), len(wins.models))
    p, o, m = (index.ravel() for index in np.indices(shape))
    frame = pd.DataFrame(
        {
            "model_id": np.array(wins.models, object)[m],
            "kind": kind,
            "opponent_id": np.broadcast_to(opponent, shape).ravel(),
            "oracle": np.array(wins.oracles, object)[o],
            "prompt_id": np.array(wins.prompt_ids, object)[p],
            "win_rate": rate.ravel(),
            "n_comparisons": np.broadcast_to(n, shape).ravel().astype("int64"),
            "domain": "",
            "split": "",
        }
    )
    return frame[frame["n_comparisons"] > 0].reset_index(drop=True)


def _against(wins: Wins, opponent: str) -> pd.DataFrame:
    j = wins.models.index(opponent)
    n = wins.n_samples * wins.n_samples[:, [j]]  # (P, M)
    return _rows(wins, AGAINST, np.array(opponent, object), wins.models_wins[..., j], n[:, None])


def _best_model(wins: Wins, deviations: Sequence[str]) -> pd.DataFrame:
    rate = np.full(wins.pool_wins.shape, np.nan)
    opponent = np.full(wins.pool_wins.shape, "", object)
    in_first = np.arange(len(wins.prompt_ids)) % 2 == 0  # ids are hashes: their rank is chance
    for m, model in enumerate(wins.models):
        others = [wins.models.index(name) for name in deviations if name != model]
        names = np.array([*(wins.models[i] for i in others), model], object)  # -1 is staying
        for o in range(len(wins.oracles)):
            gains = wins.models_wins[:, o, others, m].T - 0.5  # (D, P)
            found = held_out_best(gains, in_first)
            rate[:, o, m] = 0.5 - found.values
            opponent[in_first, o, m] = names[found.picked[0]]
            opponent[~in_first, o, m] = names[found.picked[1]]
    n = np.broadcast_to(wins.n_samples[:, None], rate.shape)
    return _rows(wins, BEST_MODEL, opponent, rate, n)


def _best_of_pool(wins: Wins) -> pd.DataFrame:
    return _rows(
        wins, BEST_OF_POOL, np.array(POOL, object), wins.pool_wins, wins.n_samples[:, None]
    )
