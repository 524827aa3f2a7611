"""Answers of the policy in training, drawn anew each round.

With ``online.engine = "hf"`` the model in training draws them itself. With ``vllm`` an engine is
started once, at the first round; before each later one the policy's weights are written into the
run's cache and swapped into the running engine, which is then compared with hf on probes. Either
way an answer's log-prob is the policy's own, in the precision it trains in: what vLLM says of its
samples differs by rounding (by a nat or more per answer in bfloat16), which an importance ratio
would take for learning. So vLLM's answers are scored once more, and the two are compared: a second
check of every round, on its own answers. Start reading at ``sampler``.
"""

import copy
import importlib.util
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from dpo_diag.engines._base import (
    Completion,
    Engine,
    EngineOptions,
    SamplingSettings,
    ScoreRequest,
    SequenceScores,
)
from dpo_diag.engines._open import open_engine
from dpo_diag.engines._parity import check_parity, verify_swap
from dpo_diag.engines._weights import without_bars
from dpo_diag.engines.vllm import INSTALL
from dpo_diag.errors import EngineError
from dpo_diag.training.optimization import autocast
from dpo_diag.training.policy import Policy
from dpo_diag.training.recipe import OnlineSection

logger = logging.getLogger(__name__)

# of a GPU's memory, for vLLM beside the model in training; not measured on a GPU
GPU_SHARE = 0.3


class Sampler(Protocol):
    """What draws a round's answers."""

    def sample(
        self, prompt_ids: Sequence[Sequence[int]], settings: SamplingSettings
    ) -> list[Completion]:
        """``settings.n`` answers per prompt of the policy as it is now.

        Ordered by prompt, then sample; ``logp`` is the policy's own, in the precision it trains
        in, whichever engine drew the answer.

        Raises:
            EngineError: the engine cannot run the model, or disagrees with the policy.
        """


def sampler(policy: Policy, section: OnlineSection, folder: Path) -> Sampler:
    """What draws answers for a run, as its recipe says.

    Args:
        policy: the model in training; it closes the engine (``Policy.resources``).
        section: the recipe's ``online`` section, of which ``engine`` is read.
        folder: the run's cache, for weights handed to another engine.

    Raises:
        EngineError: vLLM is asked for and not installed.
    """
    own = _Own(policy)
    if section.engine == "hf":
        return own
    if importlib.util.find_spec("vllm") is None:
        if section.engine == "auto":
            logger.info("the model in training samples itself: vLLM is not installed (%s)", INSTALL)
            return own
        raise EngineError(f'vLLM is not installed; {INSTALL}, or take online.engine = "hf".')
    return _Swapped(policy, Path(folder) / "sampling", own if section.engine == "auto" else None)


class _Own:
    """The model in training itself draws, without a copy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def sample(
        self, prompt_ids: Sequence[Sequence[int]], settings: SamplingSettings
    ) -> list[Completion]:
        """``settings.n`` answers per prompt, ordered by prompt, then sample."""
        with autocast(self._policy.device, self._policy.precision):
            return self._policy.engine().sample(prompt_ids, settings)


class _Swapped:
    """A vLLM engine draws; the policy's weights are swapped in before each call but the first.

    Args:
        policy: whose weights.
        folder: of the weights on their way to the engine; emptied now and on closing.
        instead: what draws where vLLM cannot run the model; None raises.
    """

    def __init__(self, policy: Policy, folder: Path, instead: Sampler | None) -> None:
        self._policy, self._folder, self._instead = policy, folder, instead
        self._engine: Engine | None = None
        self._n_written = 0
        shutil.rmtree(folder, ignore_errors=True)  # a run that was killed leaves weights behind
        policy.resources.callback(self.close)

    def sample(
        self, prompt_ids: Sequence[Sequence[int]], settings: SamplingSettings
    ) -> list[Completion]:
        """``settings.n`` answers per prompt, ordered by prompt, then sample."""
        # starting and swapping engines must not move the generator that dropout draws from
        with torch.random.fork_rng():
            engine = self._engine_now()
        if engine is None:
            assert self._instead is not None
            return self._instead.sample(prompt_ids, settings)
        return self._rescored(engine.sample(prompt_ids, settings), prompt_ids)

    def close(self) -> None:
        """Give back the engine's memory and remove its weights."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _engine_now(self) -> Engine | None:
        """The engine with the policy's present weights; None where ``instead`` draws."""
        if self._engine is None and self._n_written:
            return None
        before, now = self._place(), self._write()
        if self._engine is not None:
            self._engine.swap(now)  # compares itself with hf, and closes where they differ
        elif not self._start(now):
            return None
        shutil.rmtree(before, ignore_errors=True)
        return self._engine

    def _start(self, folder: Path) -> bool:
        options = EngineOptions(
            dtype=self._policy.precision,
            device=self._policy.device.type,
            max_length=self._policy.max_length,
            gpu_share=GPU_SHARE,
        )
        try:
            self._engine = open_engine("vllm", folder, options, purpose="sample").engine
        except EngineError as error:
            if self._instead is None:
                raise
            logger.warning("the model in training samples itself: %s", error)
            shutil.rmtree(self._folder, ignore_errors=True)
            return False
        verify_swap(self._engine, folder, options=options)
        return True

    def _place(self) -> Path:
        return self._folder / f"weights-{self._n_written}"

    def _write(self) -> Path:
        """The policy's weights as a plain model folder, adapters merged into a copy."""
        self._n_written += 1
        folder, model = self._place(), self._policy.model
        if hasattr(model, "merge_and_unload"):
            # merging in place and taking it back would round the base's weights
            model = copy.deepcopy(model).merge_and_unload(safe_merge=True)
        with without_bars():
            model.save_pretrained(folder)
        self._policy.encoder.tokenizer.save_pretrained(folder)  # names the tokens that end answers
        return folder

    def _rescored(
        self, answers: list[Completion], prompt_ids: Sequence[Sequence[int]]
    ) -> list[Completion]:
        """The answers with the policy's own log-probs.

        Raises:
            EngineError: the engine's differ by more than its precision explains.
        """
        requests = [
            ScoreRequest(tuple(prompt_ids[a.prompt_index]), a.response_ids) for a in answers
        ]
        own = self._policy.scores(requests)
        theirs = SequenceScores(np.array([a.logp for a in answers]), own.n_tokens)
        parity = check_parity(
            own,
            theirs,
            dtype=self._policy.precision,
            what='online.engine = "vllm": the engine that drew this round\'s answers',
        )
        logger.info("%s", parity.line())
        return [replace(a, logp=float(v)) for a, v in zip(answers, own.logp, strict=True)]
