"""Step time and memory of training with each variant, relative to DPO's.

Same model, same pairs, same batch. Time: all variants are prepared in one process and take turns,
a block of optimiser steps each, so that what else the machine does falls on all of them; medians
over blocks, and the ratio to ``dpo``'s. A block has several steps because some variants do more in
some steps. Memory: a process of its own per variant and repeat; the growth of resident memory from
before the model is loaded to the peak of the steps (weights, reference, optimiser, activations).
The first pass over the pairs is left out of both: learned state per pair is idle in it.

    python tests/benchmarks/variants.py ipo auxdpo --model BASE --pairs PAIRS --out results.json

A variant is a name (defaults of its class) or a recipe file, of which the variant, the adapters
and the sampling are taken. One thread unless the environment says otherwise (OMP_NUM_THREADS).
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BASELINE = "dpo"
STEPS_PER_EPOCH = 4


def make_run(variant: str, options: argparse.Namespace, folder: Path) -> Callable[[], None]:
    """The optimiser step of a run that is ready for its first."""
    from dpo_diag.pairs import read_pairs, read_prompts
    from dpo_diag.training.inputs import Inputs
    from dpo_diag.training.loop import _Run  # the step of the loop, as ``train`` takes it
    from dpo_diag.training.preparation import prepare
    from dpo_diag.training.recipe_file import load_recipe, recipe_for

    if variant.endswith(".toml"):
        recipe = load_recipe(Path(variant))
    else:
        recipe = recipe_for(variant)
    size = options.batch_size
    section = dataclasses.replace(
        recipe.optimizer,
        batch_size=size,
        micro_batch_size=0,
        learning_rate=3e-4,
        warmup_steps=0,
        schedule="constant",
        max_steps=STEPS_PER_EPOCH + options.block * options.blocks,
    )
    recipe = dataclasses.replace(recipe, optimizer=section).with_run(model=str(options.model))
    pairs = read_pairs(options.pairs)
    training = pairs.frame[pairs.frame["split"] == "train"]
    frame = training.iloc[: size * STEPS_PER_EPOCH].reset_index(drop=True)
    inputs = Inputs(
        prompts=read_prompts(options.prompts) if options.prompts else None,
        unlabelled=rows(options.unlabelled) if options.unlabelled else None,
    )
    parts = prepare(recipe, dataclasses.replace(pairs, frame=frame), folder, inputs=inputs)
    return _Run(parts).step


def rows(path: Path) -> Any:
    """A table of unlabelled answers."""
    import pandas as pd

    return pd.read_json(path, lines=True)


def timed(step: Callable[[], None], n: int) -> float:
    """Mean seconds of n steps."""
    start = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - start) / n


def measure_time(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step of each block, by variant."""
    with tempfile.TemporaryDirectory() as name:
        steps = {
            variant: make_run(variant, options, Path(name) / str(place))
            for place, variant in enumerate(options.variants)
        }
        for step in steps.values():
            timed(step, STEPS_PER_EPOCH)
        seconds: dict[str, list[float]] = {variant: [] for variant in steps}
        for _ in range(options.blocks):
            for variant, step in steps.items():
                seconds[variant].append(timed(step, options.block))
    return seconds


def measure_memory(options: argparse.Namespace) -> float:
    """MiB from before the model is loaded to the peak of the steps, in this process (Linux)."""
    import torch  # noqa: F401
    import transformers.models.auto.modeling_auto  # noqa: F401

    from dpo_diag.training import loop  # noqa: F401

    before = resident("VmRSS")
    with tempfile.TemporaryDirectory() as name:
        step = make_run(options.variants[0], options, Path(name))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        timed(step, STEPS_PER_EPOCH + options.block)
    return (resident("VmHWM") - before) / 1024


def resident(field: str) -> int:
    """A field of the process's status, KiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def memory_in_processes(arguments: list[str], options: argparse.Namespace) -> dict[str, list]:
    """MiB of each repeat, by variant, in turns."""
    memory: dict[str, list[float]] = {variant: [] for variant in options.variants}
    for _ in range(options.repeats):
        for variant, values in memory.items():
            command = [sys.executable, __file__, *arguments, "--memory-of", variant]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            values.append(json.loads(done.stdout.splitlines()[-1]))
    return memory


def in_turns(seconds: dict[str, list[float]], variant: str) -> list[float]:
    """Ratio of each block to the baseline's block just before, steadier on a busy machine."""
    return [a / b for a, b in zip(seconds[variant], seconds[BASELINE], strict=True)]


def results(
    seconds: dict[str, list[float]], memory: dict[str, list[float]], batch_size: int
) -> dict[str, Any]:
    """Medians and ratios to the baseline, with the raw numbers."""
    import torch

    time_base = statistics.median(seconds[BASELINE])
    memory_base = statistics.median(memory[BASELINE])
    table = {
        variant: {
            "seconds_per_step": statistics.median(seconds[variant]),
            "time_ratio": round(statistics.median(seconds[variant]) / time_base, 3),
            "time_ratio_in_turns": round(statistics.median(in_turns(seconds, variant)), 3),
            "memory_mib": statistics.median(memory[variant]),
            "memory_ratio": round(statistics.median(memory[variant]) / memory_base, 3),
            "blocks": seconds[variant],
            "memories": memory[variant],
        }
        for variant in seconds
    }
    facts = {"machine": platform.machine(), "threads": torch.get_num_threads()}
    return {"benchmark": "variants", "batch_size": batch_size, **facts, "variants": table}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, with the baseline first among the variants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="+", help="names or recipe files")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--unlabelled", type=Path)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--block", type=int, default=4, help="steps of a turn")
    parser.add_argument("--blocks", type=int, default=8, help="turns of each variant")
    parser.add_argument("--repeats", type=int, default=3, help="memory processes of each variant")
    parser.add_argument("--out", type=Path, help="where the JSON goes; standard output without")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    others = [v for v in dict.fromkeys(options.variants) if v != BASELINE]
    options.variants = [options.memory_of] if options.memory_of else [BASELINE, *others]
    return options


def main() -> None:
    """Measure, or be the process of one memory measurement."""
    for name, value in (("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "passive")):
        os.environ.setdefault(name, value)  # before torch is imported
    options = parse(sys.argv[1:])
    if options.memory_of:
        print(json.dumps(measure_memory(options)))
        return
    memory = memory_in_processes(sys.argv[1:], options)
    text = json.dumps(results(measure_time(options), memory, options.batch_size), indent=1)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
