"""Scoring and sampling with transformers and torch: CPU, one GPU, or several by data parallel.

Scoring: batches of similar length without a mask, only response positions through the head,
log-sum-exp in float32 in chunks of bounded memory, sums in float64. Sampling: a loop of its own
(``_sampling``). A model that does not fit into one device needs the vLLM engine. Start reading at
``HfEngine``.
"""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from dpo_diag.engines import _batching
from dpo_diag.engines._base import (
    Completion,
    Engine,
    EngineOptions,
    Progress,
    SamplingSettings,
    ScoreRequest,
    SequenceScores,
    check_prompts,
    check_requests,
)
from dpo_diag.engines._network import Network
from dpo_diag.engines._noise import prompt_keys
from dpo_diag.engines._precision import fast_float32
from dpo_diag.engines._sampling import Job, draw_answers, split_jobs
from dpo_diag.engines._scoring import (
    Group,
    batch_logps,
    batch_state_sums,
    group_by_prompt,
    padded_tokens,
    split_groups,
)
from dpo_diag.engines._weights import load_model, stop_ids
from dpo_diag.errors import EngineError

logger = logging.getLogger(__name__)

BATCH_TOKENS = {"cpu": 3072, "cuda": 65536}
SAMPLE_TOKENS = {"cpu": 32768, "cuda": 262144}


class HfEngine(Engine):
    """A transformers model loaded for scoring and sampling.

    ``data_parallel`` copies of the model work on batches in threads, one per device; on a CPU the
    copies share their weights. Results do not depend on their number.
    """

    name = "hf"
    seeds_prompts = True

    def __init__(self, model_path: Path, options: EngineOptions) -> None:
        super().__init__(model_path, options)
        _refuse_splitting(options)
        devices = _devices(options)
        model = load_model(self.model_path, options, device=devices[0])
        self._prepare(model, devices, stop_ids(self.model_path))

    @classmethod
    def from_model(
        cls,
        model: Any,
        eos_token_id: int | Sequence[int],
        options: EngineOptions | None = None,
    ) -> Self:
        """An engine over a live model, which it neither copies nor moves.

        The model is put into evaluation mode for the length of a call and given back as it was;
        no gradients are recorded. Weights that a training step changes count from the next call.

        Args:
            model: transformers or PEFT causal language model.
            eos_token_id: the token or tokens that end an answer.
            options: batch size and window; dtype and device are the model's.
        """
        engine = cls.__new__(cls)
        Engine.__init__(engine, Path(getattr(model.config, "_name_or_path", "")), EngineOptions())
        engine.options = options or engine.options
        stops = (eos_token_id,) if isinstance(eos_token_id, int) else tuple(eos_token_id)
        engine._prepare(model, [str(model.device)], stops)
        return engine

    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        keep_tokens: bool = False,
        progress: Progress | None = None,
    ) -> SequenceScores:
        """Log-probabilities of given responses, in the order of the requests."""
        tokens: list[np.ndarray] = [np.empty(0)] * len(requests)

        def work(network: Network, batch: list[Group]) -> None:
            found = batch_logps(network, requests, batch)
            for index, logps in found.items():
                tokens[index] = logps.double().numpy()
            if progress:
                progress(len(found))

        self._run(requests, work)
        return SequenceScores(
            logp=np.array([values.sum() for values in tokens], dtype=np.float64),
            n_tokens=np.array([len(values) for values in tokens], dtype=np.int32),
            token_logps=tuple(tokens) if keep_tokens else None,
        )

    def state_sums(self, requests: Sequence[ScoreRequest]) -> np.ndarray:
        """Sum over each response of the last-layer state before each of its tokens.

        The state before token k has read the prompt and k - 1 tokens of the response; the one
        after the last token is not in the sum, nor is any of padding.

        Returns:
            (N, H) float64, in the order of the requests.

        Raises:
            EngineError: the model's states cannot be told from its logits, or as in ``score``.
        """
        self._require_open()
        if not all(network.is_split for network in self._networks):
            raise EngineError(
                f"{self.model_path}: its last-layer states cannot be read apart from its output "
                "head; take a model of a plain decoder architecture."
            )
        sums = np.empty((len(requests), self._networks[0].config.hidden_size))

        def work(network: Network, batch: list[Group]) -> None:
            for index, row in batch_state_sums(network, requests, batch).items():
                sums[index] = row.numpy()

        self._run(requests, work)
        return sums

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        settings: SamplingSettings,
        *,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """``settings.n`` answers per prompt, ordered by prompt then sample index.

        An answer depends on the weights, its prompt, the seed, its sample index and how many equal
        prompts came before; not on batch size, order or neighbours (up to float rounding).

        Raises:
            EngineError: an empty prompt, or one that leaves no room for ``max_new_tokens``.
        """
        self._require_open()
        check_prompts(prompts, settings, self._window)
        jobs = [
            Job(index, tuple(ids), int(key), tuple(range(settings.n)))
            for index, (ids, key) in enumerate(zip(prompts, prompt_keys(prompts), strict=True))
        ]
        results: dict[tuple[int, int], Completion] = {}

        def work(network: Network, batch: list[Job]) -> None:
            for answer in draw_answers(network, batch, settings, self._stop_ids):
                results[answer.prompt_index, answer.sample_index] = answer
            if progress:
                progress(len({job.prompt_index for job in batch}))

        with self._evaluating():
            _batching.run(self._job_batches(jobs, settings), work, self._networks, split_jobs)
        return [results[key] for key in sorted(results)]

    def swap(self, model_path: Path) -> None:
        """Put another folder's weights into the running model, in place."""
        self._require_open()
        other = load_model(Path(model_path), self.options)
        ours = self._networks[0].model
        if type(other) is not type(ours) or not _same_shapes(ours, other):
            raise EngineError(
                f"{model_path}: another architecture than {self.model_path}; start a new engine."
            )
        for model in {id(network.model): network.model for network in self._networks}.values():
            model.load_state_dict(other.state_dict())
        self.model_path = Path(model_path)
        self._stop_ids = stop_ids(self.model_path) or self._stop_ids

    def close(self) -> None:
        """Forget the model and give its memory back."""
        self._networks: list[Network] = []
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def describe(self) -> dict[str, str]:
        """Engine, versions, dtype and devices for a row's provenance."""
        import transformers

        return {
            "engine": self.name,
            "dtype": self._dtype,
            "device": ",".join(str(network.device) for network in self._networks),
            "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        }

    def _run(
        self, requests: Sequence[ScoreRequest], work: Callable[[Network, list[Group]], None]
    ) -> None:
        """``work`` on batches of similar length, each group of one prompt in one batch."""
        self._require_open()
        check_requests(requests, self._window)
        groups = group_by_prompt(requests)
        lengths = [padded_tokens(requests, group) for group in groups]
        batches = _batching.by_tokens(lengths, self._batch_tokens(BATCH_TOKENS))
        with self._evaluating():
            _batching.run(
                [[groups[i] for i in batch] for batch in batches],
                work,
                self._networks,
                split_groups,
            )

    def _prepare(self, model: Any, devices: Sequence[str], stops: tuple[int, ...]) -> None:
        self._stop_ids = stops
        self._dtype = str(model.dtype).removeprefix("torch.")
        first = model
        copies = {devices[0]: model}
        for device in devices[1:]:
            if device not in copies:
                copies[device] = copy.deepcopy(first).to(device)
        with _evaluation_mode(first):
            self._networks = [Network(copies[device]) for device in devices]
        limit = getattr(self._networks[0].config, "max_position_embeddings", 0) or 0
        asked = self.options.max_length
        self._window = min(asked, limit) if asked and limit else asked or limit
        self.n_words = self._networks[0].config.vocab_size

    def _job_batches(self, jobs: Sequence[Job], settings: SamplingSettings) -> list[list[Job]]:
        """Batches of similar prompt length, or of one length where padding would do harm."""
        rest = settings.max_new_tokens
        lengths = [(len(job.prompt_ids) + rest) * settings.n for job in jobs]
        batches = _batching.by_tokens(lengths, self._batch_tokens(SAMPLE_TOKENS))
        if all(network.pads_left for network in self._networks):
            return [[jobs[i] for i in batch] for batch in batches]
        same: dict[tuple[int, int], list[Job]] = {}
        for number, batch in enumerate(batches):
            for i in batch:
                same.setdefault((number, lengths[i]), []).append(jobs[i])
        return list(same.values())

    def _batch_tokens(self, default: dict[str, int]) -> int:
        kind = self._networks[0].device.type
        return self.options.batch_tokens or default.get(kind, default["cpu"])

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for network in self._networks:
                stack.enter_context(_evaluation_mode(network.model))
            if all(network.device.type == "cpu" for network in self._networks):
                stack.enter_context(fast_float32())
            yield

    def _require_open(self) -> None:
        if not self._networks:
            raise EngineError("the engine is closed; open a new one.")


ENGINE = HfEngine


@contextlib.contextmanager
def _evaluation_mode(model: Any) -> Iterator[None]:
    """Evaluation mode inside; every module's own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _devices(options: EngineOptions) -> list[str]:
    kind = options.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError("device cuda was asked for and torch finds no GPU; take --device cpu.")
    if kind != "cuda":
        return [kind] * options.data_parallel
    if options.data_parallel > torch.cuda.device_count():
        raise EngineError(
            f"data_parallel={options.data_parallel} needs as many GPUs; "
            f"there are {torch.cuda.device_count()}."
        )
    return [f"cuda:{index}" for index in range(options.data_parallel)]


def _refuse_splitting(options: EngineOptions) -> None:
    if options.tensor_parallel > 1 or options.pipeline_parallel > 1:
        raise EngineError("the hf engine does not split a model over GPUs; take --engine vllm.")


def _same_shapes(one: Any, other: Any) -> bool:
    return {k: v.shape for k, v in one.state_dict().items()} == {
        k: v.shape for k, v in other.state_dict().items()
    }
