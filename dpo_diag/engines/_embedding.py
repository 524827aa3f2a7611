"""Texts to vectors by a sentence encoder: the mean of its last hidden states over the tokens.

For encoders of the transformers library (BERT and its kin, sentence-transformers folders, but also
decoders). A folder's own pooling rule is not read: it is always the mean. Start reading at
``embedded``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpo_diag.engines._base import EngineOptions, Progress
from dpo_diag.engines._weights import refuse_non_finite, why_unreadable, without_bars
from dpo_diag.errors import EngineError

TEXTS = 32  # per pass
LONGEST = 512  # tokens, where the tokenizer does not say


@torch.no_grad()
def embedded(
    folder: Path,
    texts: Sequence[str],
    options: EngineOptions,
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """A vector for each text, (N, H) float64; texts longer than the encoder's window are cut.

    Args:
        folder: a transformers folder with safetensors weights and a tokenizer.
        texts: what to embed; an empty text has the vector 0.
        options: device and whether remote code may run; the precision is always float32.
        progress: called with the number of texts done.

    Raises:
        EngineError: the folder cannot be read as an encoder, or its states are no numbers.
    """
    model, tokenizer = _opened(Path(folder), options)
    device = options.device if options.device != "auto" else _device()
    model.to(device)
    longest = min(int(getattr(tokenizer, "model_max_length", LONGEST)), _window(model))
    ids = [
        tokenizer(text, truncation=True, max_length=longest)["input_ids"] if text else []
        for text in texts
    ]
    vectors = np.zeros((len(texts), int(model.config.hidden_size)))
    order = sorted((i for i in range(len(ids)) if ids[i]), key=lambda i: len(ids[i]))
    for start in range(0, len(order), TEXTS):
        batch = order[start : start + TEXTS]
        vectors[batch] = _means(model, [ids[i] for i in batch], device)
        if progress is not None:
            progress(len(batch))
    if not np.isfinite(vectors).all():
        raise EngineError(f"{folder}: its hidden states are no numbers; the weights are broken.")
    return vectors


def _means(model: Any, rows: Sequence[Sequence[int]], device: str) -> np.ndarray:
    width = max(len(row) for row in rows)
    padded = torch.zeros((len(rows), width), dtype=torch.long, device=device)
    mask = torch.zeros((len(rows), width), dtype=torch.long, device=device)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row, device=device)
        mask[index, : len(row)] = 1
    states = model(input_ids=padded, attention_mask=mask).last_hidden_state  # (B, T, H)
    sums = (states.double() * mask[:, :, None]).sum(1)
    return (sums / mask.sum(1, keepdim=True)).cpu().numpy()


def _opened(folder: Path, options: EngineOptions) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    remote = options.trust_remote_code
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=remote
        )
        with without_bars():
            model = AutoModel.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=remote,
            )
    except Exception as error:  # transformers and safetensors raise many kinds for a bad folder
        raise EngineError(why_unreadable(folder, error)) from error
    refuse_non_finite(model, str(folder))
    return model.eval().requires_grad_(False), tokenizer


def _window(model: Any) -> int:
    return int(getattr(model.config, "max_position_embeddings", 0) or LONGEST)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
