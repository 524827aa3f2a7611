"""Sequence classifiers as explicit rewards: load one, or start one from a language model; score.

The score of an answer is the classifier's own output for prompt and answer, as any other tool
computes it: a decoder reads it at the last token that is not padding. A model whose weights hold
no head is refused, because the library would fill it with random numbers without a word. Start
reading at ``RewardModel``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch

from dpo_diag.engines._base import EngineOptions, Progress
from dpo_diag.engines._batching import by_tokens
from dpo_diag.engines._weights import DTYPES, refuse_non_finite, why_unreadable, without_bars
from dpo_diag.errors import EngineError

BATCH_TOKENS = {"cpu": 3072, "cuda": 65536}


class Answer(Protocol):
    """A prompt and its answer as token ids; requests and encoded responses are."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


def load_scorer(folder: Path, options: EngineOptions, *, device: str = "cpu") -> Any:
    """The folder's sequence classifier in evaluation mode, with a head of its own.

    Raises:
        EngineError: unreadable or missing weights (the head's among them), non-finite values.
    """
    model, lacking = _read(folder, options)
    if lacking:
        heads = [name for name in lacking if not _is_trunk(name, model)]
        kind = "no trained score head" if len(heads) == len(lacking) else "incomplete weights"
        raise EngineError(
            f"{folder}: {kind}: its weights lack {', '.join(lacking[:3])}, which would be random "
            "numbers; give a trained sequence classifier, e.g. what `dpo-diag train reward` writes."
        )
    refuse_non_finite(model, str(folder))
    return model.to(device).eval().requires_grad_(False)


def start_scorer(
    folder: Path, options: EngineOptions, *, device: str = "cpu", seed: int = 0
) -> Any:
    """A model with one score as output on the trunk of a folder's model.

    A folder that has such a head already keeps it; else it is drawn as the library does, from the
    seed alone.

    Args:
        folder: transformers folder, of a language model as a rule.
        options: precision.
        device: where the weights go.
        seed: of the head's first weights.

    Raises:
        EngineError: unreadable, incomplete or non-finite weights, or an architecture for which
            the library has no sequence classifier.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, lacking = _read(folder, options, num_labels=1)
    trunk = [name for name in lacking if _is_trunk(name, model)]
    if trunk:
        raise EngineError(
            f"{folder}: {len(trunk)} tensors are missing from the weights, first {trunk[0]}; "
            "the checkpoint is incomplete."
        )
    refuse_non_finite(model, str(folder))
    return model.to(device).eval().requires_grad_(False)


def answer_scores(model: Any, answers: Sequence[Answer]) -> torch.Tensor:
    """The classifier's outputs for N answers, (N, labels) float32, with gradient where recorded.

    Rows are padded on the right with the configuration's pad token, by which a decoder finds each
    row's last token.

    Args:
        model: sequence classifier; without a pad token in its configuration it takes one row.
        answers: prompts and responses as token ids.
    """
    config, device = model.config.get_text_config(), next(model.parameters()).device
    lengths = [len(a.prompt_ids) + len(a.response_ids) for a in answers]
    shape = (len(answers), max(lengths))
    ids = np.full(shape, config.pad_token_id or 0, dtype=np.int64)
    for row, answer in enumerate(answers):
        ids[row, : lengths[row]] = (*answer.prompt_ids, *answer.response_ids)
    mask = np.arange(shape[1]) < np.array(lengths)[:, None]
    inputs = (torch.from_numpy(a).to(device) for a in (ids, mask.astype(np.int64)))
    input_ids, attention_mask = inputs
    return model(input_ids=input_ids, attention_mask=attention_mask).logits.float()


class RewardModel:
    """A trained sequence classifier that scores answers; higher is better.

    Args:
        folder: plain transformers folder.
        options: precision, device, tokens per pass, window.
        label: output to read; None for a model with one.

    Raises:
        EngineError: as ``load_scorer``, or several outputs and none stated.
    """

    def __init__(self, folder: Path, options: EngineOptions, *, label: int | None = None) -> None:
        self.folder, self.options = Path(folder), options
        self._model = load_scorer(self.folder, options, device=_device(options))
        self._label = _checked_label(self._model, label, self.folder)
        config = self._model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", 0) or 0
        self.max_length = min(options.max_length or limit, limit or options.max_length)
        self._can_batch = config.pad_token_id is not None

    def rewards(self, answers: Sequence[Answer], *, progress: Progress | None = None) -> np.ndarray:
        """Scores of N answers in their order, (N,) float64.

        Raises:
            EngineError: an answer longer than the model's window, or a score that is no number.
        """
        lengths = [len(a.prompt_ids) + len(a.response_ids) for a in answers]
        if self.max_length and lengths and max(lengths) > self.max_length:
            raise EngineError(
                f"answer {int(np.argmax(lengths))} has {max(lengths)} tokens, the window of the "
                f"reward model {self.folder} is {self.max_length}; shorten it or give --truncate."
            )
        kind = next(self._model.parameters()).device.type
        size = self.options.batch_tokens or BATCH_TOKENS.get(kind, BATCH_TOKENS["cpu"])
        found = np.full(len(answers), np.nan)
        batches = (
            by_tokens(lengths, size) if self._can_batch else [[i] for i in range(len(lengths))]
        )
        for batch in batches:
            with torch.inference_mode():
                outputs = answer_scores(self._model, [answers[i] for i in batch])
            found[batch] = outputs[:, self._label].double().cpu().numpy()
            if progress:
                progress(len(batch))
        if not np.isfinite(found).all():
            raise EngineError(
                f"{self.folder} gives scores that are no numbers; its weights or its dtype are "
                "broken. Try --dtype float32."
            )
        return found

    def close(self) -> None:
        """Give the weights back."""
        self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(folder: Path, options: EngineOptions, **config: Any) -> tuple[Any, list[str]]:
    """The classifier and the names of the tensors that its weights lack."""
    from transformers import AutoModelForSequenceClassification

    folder = Path(folder)
    if options.dtype not in DTYPES:
        raise EngineError(f"unknown dtype {options.dtype!r}; take one of {', '.join(DTYPES)}.")
    try:
        with without_bars(), _without_warnings():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=DTYPES[options.dtype],
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=options.trust_remote_code,
                output_loading_info=True,
                **config,
            )
    except Exception as error:  # transformers and safetensors raise many kinds for a bad folder
        raise EngineError(why_unreadable(folder, error)) from error
    return model, sorted(report["missing_keys"])


@contextmanager
def _without_warnings() -> Iterator[None]:
    """No table of fresh tensors from transformers: what is missing is checked and said here."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _is_trunk(name: str, model: Any) -> bool:
    return name.startswith(f"{model.base_model_prefix}.")


def _device(options: EngineOptions) -> str:
    if options.device != "auto":
        return options.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _checked_label(model: Any, label: int | None, folder: Path) -> int:
    n = model.config.num_labels
    if label is None and n == 1:
        return 0
    names = ", ".join(f"{i} {model.config.id2label.get(i, '')}" for i in range(n))
    if label is None:
        raise EngineError(
            f"{folder}: has {n} outputs ({names}); say which one is the reward with "
            "--explicit-label N."
        )
    if not 0 <= label < n:
        raise EngineError(f"{folder}: has no output {label}; it has {names}.")
    return label
