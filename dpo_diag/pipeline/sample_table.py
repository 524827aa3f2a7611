"""A checkpoint's answers with reward and cost, as ``dpo-diag train --samples`` reads them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag.checkpoints import Checkpoint
from dpo_diag.content import canonical_json, write_text
from dpo_diag.costs._base import Cost
from dpo_diag.engines._base import SamplingSettings
from dpo_diag.errors import DataError
from dpo_diag.pairs import PromptSet
from dpo_diag.pipeline.sample import sample_models
from dpo_diag.pipeline.work import EngineChoice, Say, Work
from dpo_diag.training.scorers import CostScorer

CARRIED = ("prompt_id", "prompt", "prompt_messages")


@dataclass(frozen=True)
class Scoring:
    """What samples are scored by.

    Attributes:
        reward: a cost model; the reward is its upper end (0 where it has none) minus its value.
        cost: a cost model; what is written is its value less ``threshold``.
        threshold: NaN takes the cost's own zero.
    """

    reward: Cost
    cost: Cost
    threshold: float = math.nan

    @property
    def limit(self) -> float:
        """The threshold, or the cost's own zero."""
        return self.cost.zero if math.isnan(self.threshold) else self.threshold


def sample_table(
    checkpoint: Checkpoint,
    prompts: PromptSet,
    settings: SamplingSettings,
    scoring: Scoring,
    choice: EngineChoice,
    work: Work,
) -> pd.DataFrame:
    """Scored samples of a checkpoint, ``settings.n`` per prompt less what is no answer.

    Columns: ``prompt_id``, ``prompt`` (and ``prompt_messages`` where there are), ``split``,
    ``response``, ``reward`` (higher better), ``cost`` (above the threshold, positive violates),
    ``finish_reason``, ``n_tokens``, ``logp`` (nats, of what was drawn), ``model_id``. Missing
    scores are NaN.
    """
    rows = sample_models([checkpoint], prompts, settings, choice, work)
    texts = prompts.frame.set_index("prompt_id", drop=False)
    is_answer = rows["response"].str.strip().astype(bool).to_numpy()
    if not is_answer.all():
        work.say(f"{int((~is_answer).sum())} of {len(rows)} samples are empty and left out.")
    rows = rows[is_answer].reset_index(drop=True)
    asked = texts.loc[rows["prompt_id"], [c for c in CARRIED if c in texts]].reset_index(drop=True)
    names = tuple(asked["prompt"])
    scorer = CostScorer(scoring.reward, scoring.cost, scoring.limit, names)
    reward, cost = scorer.score(np.arange(len(rows)), list(rows["response"]))
    carried = rows[["split", "response", "finish_reason", "n_tokens", "logp", "model_id"]]
    table = asked.assign(**{name: carried[name] for name in carried})
    table = table.assign(reward=reward, cost=cost)
    _say_what_is_in_it(table, work.say)
    return table


def write_samples(table: pd.DataFrame, path: Path) -> Path:
    """Write a table of samples as JSON lines; a missing score is null.

    Raises:
        DataError: the file's name does not end in .jsonl.
    """
    if path.suffix != ".jsonl":
        raise DataError(f"{path}: scored samples are written as JSON lines; name a .jsonl file.")
    rows: list[Mapping[str, Any]] = table.to_dict(orient="records")
    return write_text(path, "".join(f"{canonical_json(row)}\n" for row in rows))


def _say_what_is_in_it(table: pd.DataFrame, say: Say) -> None:
    scored = table[["reward", "cost"]].notna().all(axis=1)
    if not scored.all():
        say(f"{int((~scored).sum())} of {len(table)} samples lack a score; it is null, not 0.")
    cut = int((table["finish_reason"] == "length").sum())
    if cut:
        say(f"{cut} of {len(table)} samples were cut at the longest length; training skips them.")
