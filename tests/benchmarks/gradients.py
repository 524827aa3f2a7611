"""Gradient features of 10,000 pairs of a 15M-parameter model, on two cores from text to disk.

A Llama of width 288, 6 layers and 32,000 tied embeddings (15.2M parameters, float32) with random
weights; prompts of 8 to 48 and answers of 16 to 96 tokens, evenly drawn; nine tenths of the pairs
are training pairs. What is timed is what ``dpo_diag why`` waits for: Adam's second moment from
3,200 training pairs, then sketches of 4,096 columns, plain and preconditioned, of all pairs, by
two processes of one thread. The start of the processes is in it. Memory is the sum over all
processes, shared pages counted once (PSS), looked at twice a second. Prints the result as JSON:

    python tests/benchmarks/gradients.py --pairs 10000

With fewer pairs ``minutes_of_10000`` is extrapolated from the seconds per pair of each step; the
start of the processes counts among them, so a few hundred pairs overstate it and 64 mean nothing.
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VOCABULARY = 32_000
AIM_PAIRS = 10_000


def make_inputs(folder: Path, n_pairs: int) -> None:
    """Write the model, its tokenizer and the pairs as words."""
    import numpy as np
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(VOCABULARY - 2)}
    words |= {"<eos>": VOCABULARY - 2, "<pad>": VOCABULARY - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=288, intermediate_size=768, num_hidden_layers=6,
        num_attention_heads=6, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=VOCABULARY - 2, pad_token_id=VOCABULARY - 1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    rng = np.random.default_rng(0)

    def text(low: int, high: int) -> str:
        ids = rng.integers(0, VOCABULARY - 2, size=rng.integers(low, high + 1))
        return " ".join(f"w{i}" for i in ids)

    rows = [
        {
            "prompt": text(8, 48) + " ",
            "chosen": text(16, 95),  # and the end token
            "rejected": text(16, 95),
            "split": "train" if i % 10 else "test",
        }
        for i in range(n_pairs)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")


class Memory(threading.Thread):
    """Watches the memory of this process and its children; ``peak_mib`` is the highest sum."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mib = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        """Look twice a second until stopped."""
        while not self._ended.wait(0.5):
            own = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
            self.peak_mib = max(self.peak_mib, sum(_pss_mib(pid) for pid in own))

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self.join()


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended meanwhile
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


class Steps:
    """Seconds and pairs of each step, told by its progress bar."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.pairs: dict[str, int] = {}

    @contextmanager
    def bar(self, label: str, total: int) -> Any:
        """A bar that keeps the time."""
        name, started = label.split(" at ")[0], time.perf_counter()
        yield lambda n: None
        self.seconds[name] = time.perf_counter() - started
        self.pairs[name] = total


def measure(folder: Path, workers: int) -> dict[str, Any]:
    """Seconds of each step, in all, of the second call, and the highest sum of memory."""
    from dpo_diag.checkpoints import resolve_checkpoint
    from dpo_diag.pairs import read_pairs
    from dpo_diag.pipeline.gradients import GradientOptions, gradient_features
    from dpo_diag.pipeline.work import Work
    from dpo_diag.store import RowStore

    steps, memory = Steps(), Memory()
    checkpoint = resolve_checkpoint(folder, reference=folder, beta=0.1, variant="dpo")
    pairs = read_pairs(folder / "pairs.jsonl")
    options = GradientOptions(n_workers=workers)
    memory.start()
    started = time.perf_counter()
    work = Work(RowStore(folder / "store"), folder / "cache", bar=steps.bar)
    gradient_features(checkpoint, pairs, options, work)
    wall = time.perf_counter() - started
    processor = sum(os.times()[:4])  # ended children included
    gradient_features(checkpoint, pairs, options, work)
    again = time.perf_counter() - started - wall
    memory.stop()
    n = len(pairs.frame)
    more = {
        name: AIM_PAIRS if "gradients" in name else min(AIM_PAIRS, 3_200) for name in steps.pairs
    }
    scaled = sum(steps.seconds[name] * more[name] / steps.pairs[name] for name in more)
    return {
        "pairs": n,
        "workers": workers,
        "minutes": wall / 60,
        "minutes_of_10000": (wall if n == AIM_PAIRS else scaled) / 60,
        "processor_minutes": processor / 60,
        "seconds_of_steps": steps.seconds,
        "pairs_of_steps": steps.pairs,
        "again_seconds": again,
        "peak_gib": memory.peak_mib / 1024,
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=AIM_PAIRS)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, options.pairs)
        result = measure(folder, options.workers)
    head = {"benchmark": "gradients", "machine": platform.machine()}
    print(json.dumps({**head, **result}, indent=1))


if __name__ == "__main__":
    main()
