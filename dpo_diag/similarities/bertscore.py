"""BERTScore by the library bert-score, with an encoder from a local folder.

Each token of one text is matched to the token of the other whose contextual embedding is nearest
(cosine); recall is the mean over the reference answer's tokens, precision over the answer's. The
default is recall, which a reviewer says RefAlign uses (second-hand). Values are not rescaled;
negative ones, no similarity at all, count as 0. Only safetensors weights are read. Source: Zhang et
al. 2020, the implementation of the library.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dpo_diag.errors import DataError
from dpo_diag.similarities._base import Similarity
from dpo_diag.similarities._libraries import require_library

PARTS = ("precision", "recall", "f1")


@dataclass(frozen=True, kw_only=True)
class Bertscore(Similarity):
    """Nearest-token cosine of contextual embeddings.

    Attributes:
        model: folder of an encoder in transformers' layout.
        layer: hidden layer to read, from 1; 0 takes the last. The library's choice for
            bart-large-mnli, the paper's encoder, is 11.
        part: ``recall``, ``precision`` or ``f1``.
        batch_size: texts per forward pass.
        device: ``cpu``, ``cuda`` ...; ``auto`` takes a GPU where there is one.
    """

    model: str
    layer: int = 0
    part: str = "recall"
    batch_size: int = 64
    device: str = "auto"

    blindness = (
        "what comes after the encoder's window, which is cut; facts and negations that move few "
        "tokens; with recall nothing is lost by saying more, so longer answers gain"
    )

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise DataError(
                f"similarity bertscore: part is {self.part!r}, expected {', '.join(PARTS)}."
            )
        if self.layer < 0 or self.batch_size < 1:
            raise DataError("similarity bertscore: layer must be 0 or more, batch_size 1 or more.")
        _require_folder(Path(self.model))
        require_library("bert_score", "bertscore")

    def similarity(self, responses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """BERTScore of each answer, shape (N,) float64, 0 to 1; empty answers have 0.

        Raises:
            DataError: the encoder cannot be loaded or has fewer layers.
        """
        pairs = list(zip(responses, references, strict=True))
        asked = [i for i, pair in enumerate(pairs) if all(text.strip() for text in pair)]
        values = np.zeros(len(pairs))
        if asked:
            scorer = _load(self.model, self.layer, self.device)
            parts = scorer.score(
                [pairs[i][0] for i in asked],
                [pairs[i][1] for i in asked],
                batch_size=self.batch_size,
            )
            found = parts[PARTS.index(self.part)].double().numpy()
            # a text that is no token at all has no embedding to compare: nothing is similar to it
            values[asked] = np.nan_to_num(found, nan=0.0)
        return np.clip(values, 0.0, 1.0)


def _require_folder(folder: Path) -> None:
    """Refuse what the library would download, unpickle or take for another architecture."""
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise DataError(
            f"similarity bertscore: {folder} is no folder of an encoder with config.json and "
            "safetensors weights; nothing is downloaded, and pickled weights are never read."
        )
    kind = _config(folder).get("model_type", "")
    if "t5" in str(folder) and "t5" not in kind:
        raise DataError(
            f"similarity bertscore: the library takes {folder} for a T5 model because its path has "
            f"'t5' in it, and it is {kind or 'something else'}; rename the folder."
        )


def _config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{folder / 'config.json'}: is no JSON ({error}).") from error


@lru_cache(maxsize=1)
def _load(model: str, layer: int, device: str) -> Any:
    import torch
    from bert_score import BERTScorer

    config = _config(Path(model))
    n_layers = config.get("encoder_layers") or config.get("num_hidden_layers", 0)
    if layer > n_layers:
        raise DataError(
            f"similarity bertscore: layer is {layer}, and {model} has {n_layers} layers."
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        scorer = BERTScorer(model_type=model, num_layers=layer or n_layers, device=device)
    except Exception as error:  # transformers and safetensors raise many kinds for a bad folder
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise DataError(f"{model}: cannot be loaded as an encoder: {reason}") from error
    window = config.get("max_position_embeddings", 512)
    # RoBERTa's positions begin behind the padding's; without a limit longer texts would fail
    room = window - 2 if config.get("model_type") in ("roberta", "xlm-roberta") else window
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, room)
    return scorer


SIMILARITY = Bertscore
