"""What an engine is: token ids in, log-probabilities and samples out. It never sees text.

An engine file holds one class derived from ``Engine`` and the module constant ``ENGINE`` naming
it. Contract: order of requests is kept; batch size and neighbours do not change a result beyond
the stated tolerance; prompt tokens are never counted; an empty response is an error; re-scoring a
sampled response gives the log-prob it came with. Start reading at ``Engine``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import numpy as np

from dpo_diag.errors import EngineError

Progress = Callable[[int], None]  # called with the number of finished requests since the last call


@dataclass(frozen=True)
class ScoreRequest:
    """One response to score: token ids of prompt and response, EOS already in the response."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


@dataclass(frozen=True)
class SequenceScores:
    """Log-probabilities of N responses, in the order of the requests.

    Attributes:
        logp: (N,) float64, nats, summed over the response's tokens.
        n_tokens: (N,) int32, response tokens summed over.
        token_logps: N arrays (T_i,) float64, nats, only when asked for.
    """

    logp: np.ndarray
    n_tokens: np.ndarray
    token_logps: tuple[np.ndarray, ...] | None = None


@dataclass(frozen=True)
class SamplingSettings:
    """How answers are drawn.

    Attributes:
        n: answers per prompt, at least 1.
        max_new_tokens: cut after so many tokens.
        temperature: 0 means greedy.
        top_p: nucleus share in (0, 1].
        seed: seeds the engine's generator before the call.
    """

    n: int
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_new_tokens < 1:
            raise EngineError("sampling needs n >= 1 and max_new_tokens >= 1.")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise EngineError("sampling needs temperature >= 0 and 0 < top_p <= 1.")


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    Attributes:
        prompt_index: position of its prompt in the call.
        sample_index: 0 .. n-1 within the prompt.
        response_ids: tokens produced, EOS included when it was produced.
        logp: nats at temperature 1 over the full vocabulary, summed over ``response_ids``.
        finish_reason: ``stop`` (EOS) or ``length``.
    """

    prompt_index: int
    sample_index: int
    response_ids: tuple[int, ...]
    logp: float
    finish_reason: str


@dataclass(frozen=True)
class EngineOptions:
    """Settings that every engine understands or passes through.

    Attributes:
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
        batch_tokens: tokens per forward pass; 0 lets the engine choose.
        max_length: longest prompt plus response in tokens; 0 takes the model's limit.
        tensor_parallel, pipeline_parallel, data_parallel: sizes, at least 1.
        trust_remote_code: only when the user asked for it by flag.
        memory_gib: memory for vLLM's KV cache on a CPU.
        gpu_share: share of a GPU's memory that vLLM may take, weights included; 0 leaves it to
            vLLM (0.9), which does not start beside a model in training.
    """

    dtype: str = "float32"
    device: str = "auto"
    batch_tokens: int = 0
    max_length: int = 0
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    trust_remote_code: bool = False
    memory_gib: float = 1.0
    gpu_share: float = 0.0


class Engine(ABC):
    """A model loaded for scoring and sampling; a context manager, so that memory is given back.

    ``Engine(model_path, options)`` loads a plain transformers folder (adapters are merged before,
    see ``engines/_weights.py``). ``swap`` replaces the weights by those of another folder of the
    same architecture without a new start.
    """

    name: ClassVar[str]

    @property
    def seeds_prompts(self) -> bool:
        """Whether a sample depends on the seed and its own prompt, not on the call's others."""
        return False

    def __init__(self, model_path: Path, options: EngineOptions) -> None:
        self.model_path = Path(model_path)
        self.options = options

    @abstractmethod
    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        keep_tokens: bool = False,
        progress: Progress | None = None,
    ) -> SequenceScores:
        """Log-probabilities of given responses.

        Raises:
            EngineError: an empty response, or an item longer than the model's window.
        """

    @abstractmethod
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        settings: SamplingSettings,
        *,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """``settings.n`` answers per prompt, ordered by prompt then sample index."""

    def state_sums(self, requests: Sequence[ScoreRequest]) -> np.ndarray:
        """Sum over each response of the last-layer state before each of its tokens, (N, H).

        Raises:
            EngineError: this engine does not give hidden states.
        """
        raise EngineError(f"the engine {self.name} gives no hidden states; take --engine hf.")

    @abstractmethod
    def swap(self, model_path: Path) -> None:
        """Load another folder's weights into the running engine.

        Raises:
            EngineError: another architecture, or tensors that do not fit.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back memory and processes; the engine is unusable afterwards."""

    def describe(self) -> dict[str, str]:
        """Engine, version, dtype and device for a row's provenance."""
        return {"engine": self.name, "dtype": self.options.dtype}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_requests(requests: Sequence[ScoreRequest], max_length: int) -> None:
    """Refuse empty responses, empty prompts and items longer than the window.

    Raises:
        EngineError: names the first bad request.
    """
    for index, request in enumerate(requests):
        if not request.response_ids:
            raise EngineError(f"request {index} has an empty response; nothing to score.")
        if not request.prompt_ids:
            raise EngineError(
                f"request {index} has an empty prompt; the first response token has no context."
            )
        length = len(request.prompt_ids) + len(request.response_ids)
        if max_length and length > max_length:
            raise EngineError(
                f"request {index} has {length} tokens, the model's window is {max_length}; "
                "shorten it or give --truncate."
            )


def check_prompts(
    prompts: Sequence[Sequence[int]], settings: SamplingSettings, max_length: int
) -> None:
    """Refuse empty prompts and prompts that leave no room for the new tokens.

    Raises:
        EngineError: names the first bad prompt.
    """
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise EngineError(f"prompt {index} is empty; the first token has no context.")
        if max_length and len(prompt) + settings.max_new_tokens > max_length:
            raise EngineError(
                f"prompt {index} has {len(prompt)} tokens and {settings.max_new_tokens} new ones "
                f"do not fit into the model's window of {max_length}; ask for fewer."
            )
