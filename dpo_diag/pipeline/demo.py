"""The demonstration: the commands a user would type, in order, on the sandbox.

Start reading at ``stages``. A command that finished is not run again; trainings run side by side,
one thread each, because small models are fastest so.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from dpo_diag import __version__
from dpo_diag.errors import DpoDiagError
from dpo_diag.pipeline.work import Say
from dpo_diag.tables import content_hash, write_text

WATCH_SECONDS = 15  # between two looks at commands that run side by side
VARIANTS = ("dpo", "safedpo", "repo")
COSTS = ("sandbox_harm", "sandbox_unhelpfulness", "refusal", "sandbox_unparsed")


@dataclass(frozen=True)
class Stage:
    """Some commands that may run side by side, and why.

    Attributes:
        title: one line for the user.
        commands: arguments after ``dpo-diag``, each with the folder it writes.
    """

    title: str
    commands: tuple[tuple[Path, tuple[str, ...]], ...]


def run_demo(out: Path, seeds: int, workers: int, engine: str, say: Say) -> Path:
    """Run every stage that is not done yet; the path of the report.

    Args:
        out: folder for everything.
        seeds: trainings per variant, at least 1.
        workers: commands at once, 0 for one per core.
        engine: for scoring and sampling.
        say: one line for the user.

    Raises:
        DpoDiagError: a command failed, or ``seeds`` is below 1.
    """
    if seeds < 1:
        raise DpoDiagError(f"--seeds must be 1 or more, got {seeds}.")
    started = time.monotonic()
    copy_recipes(out)
    for number, stage in enumerate(planned := list(stages(out, seeds, engine)), 1):
        say(f"[{number}/{len(planned)}] {stage.title}")
        _run_stage(stage, out, workers or os.cpu_count() or 1, say)
    say(f"Done in {(time.monotonic() - started) / 60:.1f} minutes.")
    return out / "report" / "report.md"


def stages(out: Path, seeds: int, engine: str) -> Iterator[Stage]:
    """The demonstration's stages in order."""
    store = ("--store", str(out / "store"))
    base = out / "base"
    yield Stage(
        "Make the sandbox: pairs, prompts, and a base model pre-trained from scratch.",
        ((out, ("sandbox", "--out", str(out))),),
    )
    runs = [out / f"{variant}-{seed}" for seed in range(seeds) for variant in reversed(VARIANTS)]
    yield Stage(
        f"Train {', '.join(VARIANTS)} from it ({seeds} seed{'s' * (seeds > 1)} each).",
        tuple((run, _training(out, run)) for run in runs),
    )
    ordered = [base, *(out / f"{variant}-{seed}" for variant in VARIANTS for seed in range(seeds))]
    costs = [argument for cost in COSTS for argument in ("--cost", cost)]
    yield Stage(
        "Diagnose and compare: reversals, reward off-distribution, worst-case safety.",
        (
            (
                out / "report",
                (
                    "compare",
                    *map(str, ordered),
                    *("--baseline", str(out / "dpo-0")),
                    *("--pairs", str(out / "pairs.jsonl")),
                    *("--shifted", str(out / "ood.jsonl")),
                    *("--shifted", str(out / "reworded.jsonl")),
                    *("--prompts", str(out / "prompts.jsonl")),
                    *costs,
                    *("--claims", str(out / "recipes" / "claims.toml")),
                    *("--engine", engine, "--max-new-tokens", "48", "--steps"),
                    *("--samples", "16"),
                    *("--slices", "domain,stratum,length"),
                    *store,
                    *("--out", str(out / "report")),
                ),
            ),
        ),
    )


def copy_recipes(out: Path) -> Path:
    """The recipes and claims that come with the package, copied to ``out/recipes`` to be read."""
    folder = out / "recipes"
    for source in resources.files("dpo_diag.sandbox").joinpath("recipes").iterdir():
        if source.name.endswith(".toml"):
            write_text(folder / source.name, source.read_text(encoding="utf-8"))
    return folder


def _training(out: Path, run: Path) -> tuple[str, ...]:
    variant, seed = run.name.rsplit("-", 1)
    return (
        "train",
        str(out / "recipes" / f"{variant}.toml"),
        *("--model", str(out / "base"), "--pairs", str(out / "pairs.jsonl")),
        *("--out", str(run), "--seed", seed, "--resume"),
        *("--store", str(out / "store")),
    )


def _run_stage(stage: Stage, out: Path, workers: int, say: Say) -> None:
    waiting = []
    for folder, arguments in stage.commands:
        say(f"  $ dpo-diag {shlex.join(arguments)}")
        if _is_done(out, folder, arguments):
            say("    done already")
        else:
            waiting.append((folder, arguments))
    with ThreadPoolExecutor(min(workers, max(len(waiting), 1))) as pool:
        alone = len(waiting) == 1
        futures = [pool.submit(_run, out, *item, alone=alone) for item in waiting]
        running = set(futures)
        while running:
            finished, running = wait(running, timeout=WATCH_SECONDS, return_when=FIRST_COMPLETED)
            for future in finished:
                folder, seconds = future.result()
                say(f"    {folder.name}: {seconds:.0f} s")
            if not finished and not alone:
                for folder, _ in waiting:
                    if line := _last_words(out, folder):
                        say(f"    {line}")


def _last_words(out: Path, folder: Path) -> str:
    """Where a command that writes to its log is now: its bar's last state, empty when done."""
    log = _log(out, folder)
    if _marker(out, folder).exists() or not log.exists():
        return ""
    written = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
    said = [line.strip() for line in written if line.strip()]
    return f"{folder.name}: {said[-1][:80]}" if said else ""


def _log(out: Path, folder: Path) -> Path:
    return out / "logs" / f"{folder.name}.log"


def _run(out: Path, folder: Path, arguments: Sequence[str], *, alone: bool) -> tuple[Path, float]:
    """Run one command as a process of its own; what it says passes through when it is alone."""
    started = time.monotonic()
    environment = {**os.environ}
    if not alone:
        environment["OMP_NUM_THREADS"] = "1"
    _marker(out, folder).unlink(missing_ok=True)
    log = _log(out, folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dpo_diag", *arguments]
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            command,
            env=environment,
            stdout=None if alone else stream,
            stderr=None if alone else stream,
        )
    if done.returncode:
        tail = "" if alone else log.read_text(encoding="utf-8", errors="replace")[-500:]
        raise DpoDiagError(
            f"dpo-diag {arguments[0]} for {folder.name} ended with status {done.returncode}. {tail}"
        )
    write_text(_marker(out, folder), _state(arguments))
    return folder, time.monotonic() - started


def _is_done(out: Path, folder: Path, arguments: Sequence[str]) -> bool:
    marker = _marker(out, folder)
    return marker.exists() and marker.read_text(encoding="utf-8") == _state(arguments)


def _marker(out: Path, folder: Path) -> Path:
    return out / "logs" / f"{folder.name or 'sandbox'}.done"


def _state(arguments: Sequence[str]) -> str:
    """What the command depends on: its arguments, its recipe's text, the package's version."""
    texts = [Path(a).read_text(encoding="utf-8") for a in arguments if a.endswith(".toml")]
    return content_hash([__version__, list(arguments), texts])
