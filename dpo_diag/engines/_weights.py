"""From a checkpoint to weights: load a folder and refuse broken ones; merge an adapter once.

Nothing is unpickled: only safetensors are read. Start reading at ``load_model``.
"""

import contextlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from dpo_diag.engines._base import EngineOptions
from dpo_diag.errors import CheckpointError, EngineError
from dpo_diag.weights import weight_files

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "chat_template*", "vocab.*")
_TOKENIZER_FILES += ("merges.txt", "*.model", "added_tokens.json")


class Model(Protocol):
    """What is needed of a resolved model: its folder, adapter and fingerprint."""

    name: str
    path: Path
    adapter: Path | None
    fingerprint: str


def load_model(folder: Path, options: EngineOptions, *, device: str = "cpu") -> Any:
    """The folder's causal language model in evaluation mode, checked for missing and NaN weights.

    Raises:
        EngineError: unreadable or missing weights, an unknown architecture, non-finite values.
    """
    from transformers import AutoModelForCausalLM

    folder = Path(folder)
    if options.dtype not in DTYPES:
        raise EngineError(f"unknown dtype {options.dtype!r}; take one of {', '.join(DTYPES)}.")
    _refuse_classifier(folder)
    try:
        with without_bars():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=DTYPES[options.dtype],
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=options.trust_remote_code,
                output_loading_info=True,
            )
    except Exception as error:  # transformers and safetensors raise many kinds for a bad folder
        raise EngineError(why_unreadable(folder, error)) from error
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise EngineError(
            f"{folder}: {len(lacking)} tensors are missing from the weights, first {lacking[0]}; "
            "the checkpoint is incomplete."
        )
    refuse_non_finite(model, str(folder))
    return model.to(device).eval().requires_grad_(False)


def refuse_non_finite(model: Any, place: str) -> None:
    """Raise for the first parameter with NaN or infinite values.

    Raises:
        EngineError: names the place and the parameter.
    """
    for name, value in model.named_parameters():
        _require_finite(name, value, place)


def refuse_non_finite_files(folder: Path) -> None:
    """The same for a folder that another library loads, tensor by tensor.

    Raises:
        EngineError: names the folder and the tensor.
    """
    for file in _weight_files(folder):
        with _opened(file) as tensors:
            for name in tensors.keys():
                value = tensors.get_tensor(name)
                if value.is_floating_point() and value.element_size() > 1:  # no float8 arithmetic
                    _require_finite(name, value, str(folder))


def _require_finite(name: str, value: torch.Tensor, place: str) -> None:
    low, high = torch.aminmax(value)
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise EngineError(
            f"{place}: the weight {name} holds NaN or infinite values; the training diverged, "
            "take an earlier step."
        )


def stop_ids(folder: Path) -> tuple[int, ...]:
    """Ids that end an answer: the generation settings', the model's and the tokenizer's EOS."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        config = _read_json(folder / name)
        for part in (config, config.get("text_config") or {}):
            value = part.get("eos_token_id")
            found.update(value if isinstance(value, list) else [] if value is None else [value])
    text = _read_json(folder / "tokenizer_config.json").get("eos_token")
    text = text.get("content") if isinstance(text, dict) else text
    if text:
        tokenizer = _read_json(folder / "tokenizer.json")
        entries = {e["content"]: e["id"] for e in tokenizer.get("added_tokens", [])}
        if text in entries:
            found.add(entries[text])
    return tuple(sorted(found))


def window_of(folder: Path, asked: int) -> int:
    """Longest sequence in tokens: the model's limit, or what was asked for where that is less."""
    config = _read_json(folder / "config.json")
    limit = config.get("max_position_embeddings")
    limit = limit or (config.get("text_config") or {}).get("max_position_embeddings") or 0
    return min(asked, limit) if asked and limit else asked or limit


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in a folder's safetensors files, from their headers.

    Raises:
        EngineError: no such file, or an unreadable one.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _weight_files(folder):
        with _opened(file) as tensors:
            shapes |= {k: tuple(tensors.get_slice(k).get_shape()) for k in tensors.keys()}
    return shapes


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a folder as saved, tied ones under each of their names.

    vLLM keeps its old output head when a tied ``lm_head.weight`` is not named (measured: off by up
    to 1.9 nats per token), and safetensors files leave it out.

    Raises:
        EngineError: no weights, or unreadable ones.
    """
    found: dict[str, torch.Tensor] = {}
    for file in _weight_files(folder):
        with _opened(file) as tensors:
            found |= {name: tensors.get_tensor(name) for name in tensors.keys()}
    for name, source in tied_names(folder).items():
        if name not in found and source in found:
            found[name] = found[source]
    return found


def tied_names(folder: Path) -> dict[str, str]:
    """Names of tied tensors and of those they share values with; empty for untied models."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if not config.get_text_config().tie_word_embeddings:
        return {}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return dict(model.all_tied_weights_keys)


def materialize(model: Model, cache: Path, *, trust_remote_code: bool = False) -> Path:
    """A plain transformers folder: the model's own, or its adapter merged into its base, once.

    The merge is made and saved in float32, so that policy and reference differ by the adapter and
    not by rounding. The folder's name is the content's fingerprint; it appears whole or not at
    all.

    Args:
        model: resolved model (``checkpoints.ModelRef``).
        cache: folder for merged models; created where missing.
        trust_remote_code: only when the user asked for it by flag.

    Raises:
        EngineError: peft is not installed, or base and adapter do not fit.
    """
    if model.adapter is None:
        return Path(model.path)
    target = Path(cache) / f"merged-{model.fingerprint[:16]}"
    if (target / "config.json").exists():
        return target
    merged = _merge(Path(model.path), Path(model.adapter), trust_remote_code)
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".merging-", dir=cache))
    try:
        with without_bars():
            merged.save_pretrained(partial)
        copy_tokenizer((Path(model.adapter), Path(model.path)), partial)
        os.replace(partial, target)
    except OSError:
        if not (target / "config.json").exists():  # else another process was first
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def copy_tokenizer(sources: tuple[Path, ...], target: Path) -> None:
    """Copy the tokenizer's files from the first source that has a tokenizer."""
    for source in sources:
        if (source / "tokenizer_config.json").exists():
            for pattern in _TOKENIZER_FILES:
                for file in source.glob(pattern):
                    shutil.copy2(file, target / file.name)
            return


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """No bar of transformers per model loaded or saved: ten checkpoints would print ten."""
    from transformers.utils import logging as transformers_logging

    was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers_logging.enable_progress_bar()


def _merge(base: Path, adapter: Path, trust_remote_code: bool) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise EngineError(
            f"{adapter} is an adapter and peft is not installed; pip install 'dpo-diag[peft]'."
        ) from error
    model = load_model(base, EngineOptions(trust_remote_code=trust_remote_code))
    try:
        with warnings.catch_warnings():
            # a warning only, after which the adapter's layers are what they were before training
            warnings.filterwarnings("error", ".*missing adapter keys.*")
            wrapped = PeftModel.from_pretrained(model, str(adapter))
        merged = wrapped.merge_and_unload(safe_merge=True)
    except UserWarning as error:
        raise EngineError(
            f"{adapter}: its file lacks tensors of the layers that adapter_config.json names; it "
            f"is incomplete, or was trained on another base than {base}."
        ) from error
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        raise EngineError(
            f"{adapter}: the adapter cannot be merged into {base}: {_first_line(error)}"
        ) from error
    refuse_non_finite(merged, str(adapter))
    return merged


def _weight_files(folder: Path) -> list[Path]:
    """The files that the fingerprint covers: others, as Mistral's consolidated copy, are not read.

    Raises:
        EngineError: there are none, or a shard is missing.
    """
    try:
        return weight_files(Path(folder))
    except CheckpointError as error:
        raise EngineError(str(error)) from error


def _opened(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise EngineError(f"{file}: unreadable safetensors: {_first_line(error)}") from error


def _refuse_classifier(folder: Path) -> None:
    """A reward model with tied embeddings would load as a language model without a word."""
    for name in _read_json(folder / "config.json").get("architectures") or ():
        if str(name).endswith("ForSequenceClassification"):
            raise EngineError(
                f"{folder}: is a sequence classifier ({name}), which has no log-probabilities; "
                "give a language model, or this one as --explicit."
            )


def why_unreadable(folder: Path, error: Exception) -> str:
    """Why a transformers folder cannot be loaded, in one sentence."""
    if not (folder / "config.json").exists():
        return f"{folder}: no config.json; a transformers model folder was expected."
    if not any(folder.glob("*.safetensors")):
        return (
            f"{folder}: no .safetensors weights; pickled ones are never read, save the model "
            "with safetensors."
        )
    return f"{folder}: the model cannot be loaded: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
