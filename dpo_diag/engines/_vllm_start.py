"""Starting vLLM: its settings for a CPU and for GPUs, and what it must not change in the process.

Start reading at ``start_llm``.
"""

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dpo_diag.engines._base import EngineOptions
from dpo_diag.errors import EngineError

MOST_BATCH_TOKENS = 8192
LOGIT_COPIES = 2  # logits and their log-softmax live side by side


def start_llm(folder: Path, options: EngineOptions) -> Any:
    """VLLM's ``LLM`` on a folder, fed with token ids.

    Raises:
        EngineError: vLLM cannot run the model or the options.
    """
    from vllm import LLM

    _refuse_device(options)
    settings: dict[str, Any] = {
        "model": str(folder),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # the folder's sampling defaults must not leak in
        "dtype": options.dtype,
        "trust_remote_code": options.trust_remote_code,
        "tensor_parallel_size": options.tensor_parallel,
        "pipeline_parallel_size": options.pipeline_parallel,
        "max_num_batched_tokens": batch_tokens(folder, options),
        "logprobs_mode": "raw_logprobs",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if options.max_length:
        settings["max_model_len"] = options.max_length
    settings |= _gpu_settings(options) if on_gpu() else _cpu_settings(options)
    try:
        return LLM(**settings)
    except Exception as error:  # vLLM raises many kinds for models and settings it cannot run
        raise EngineError(f"{folder}: vLLM cannot run this model: {cause_of(error)}") from error


def _cpu_settings(options: EngineOptions) -> dict[str, Any]:
    return {
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": int(options.memory_gib * 2**30),
    }


def _gpu_settings(options: EngineOptions) -> dict[str, Any]:
    return {"gpu_memory_utilization": options.gpu_share} if options.gpu_share else {}


def batch_tokens(folder: Path, options: EngineOptions) -> int:
    """Tokens of one forward pass, so that logits stay within ``memory_gib``."""
    if options.batch_tokens:
        return options.batch_tokens
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    n_words = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size", 32_000)
    fitting = int(options.memory_gib * 2**30) // (4 * LOGIT_COPIES * n_words)
    return max(256, min(MOST_BATCH_TOKENS, fitting))


def _refuse_device(options: EngineOptions) -> None:
    kind = options.device.partition(":")[0]
    has = "cuda" if on_gpu() else "cpu"
    if kind not in ("auto", has):
        raise EngineError(
            f"device {options.device} was asked for and the installed vLLM runs on {has}; "
            "install the other build or take --engine hf."
        )


def on_gpu() -> bool:
    """Whether the installed vLLM runs on a GPU."""
    from vllm.platforms import current_platform

    return not current_platform.is_cpu()


def cause_of(error: BaseException) -> str:
    """What vLLM complains of, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if "Value error" in line] or lines
    return f"{type(error).__name__}: {useful[0] if useful else 'no message'}"


@contextlib.contextmanager
def globals_restored() -> Iterator[None]:
    """Give back the global generators and torch's thread setter, which vLLM replaces on a CPU."""
    import torch

    python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)  # noqa: NPY002
            torch.set_num_threads = set_threads
            torch.set_num_threads(threads)
