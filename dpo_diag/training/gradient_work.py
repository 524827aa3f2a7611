"""Gradient features of many pairs: in this process or several, a killed run keeps what it wrote.

Two steps. ``estimate_squares``: v, the mean over batches of squared mean gradients, from training
pairs (what Adam's second moment is at the reference, up to the loss's factor). ``write_features``:
each pair's rows, plain and preconditioned from one backward pass, in parts of few pairs. What a
pair's rows are does not depend on the other pairs, their order or the number of processes.

Start reading at ``write_features``.
"""

import functools
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpo_diag.errors import EngineError, RecipeError
from dpo_diag.training.gradient_features import MarginGradients, Pair
from dpo_diag.training.gradient_parts import Parts
from dpo_diag.training.gradient_sketch import CountSketch, Projection, Whole, adam_weights
from dpo_diag.training.matmul import float32_matmul
from dpo_diag.training.policy import load_policy
from dpo_diag.training.recipe import LoraSection
from dpo_diag.training.recipe_file import recipe_for

logger = logging.getLogger(__name__)

CHUNK_PAIRS = 32  # pairs per part: what a killed process can lose
CHUNK_BYTES = 1 << 26  # of a part, where rows are long
GROUPS = 16  # of batches whose squares are added up at a time: v is the same for any processes
MAX_NUMBERS = 1 << 30  # of exact rows, pairs x parameters: 4 GiB on disk
SMALL_WORK = 2e9  # pairs x parameters below which starting processes costs more than it saves


@dataclass(frozen=True)
class GradientJob:
    """Whose gradients, in which parameters, kept how.

    Attributes:
        model: transformers folder with the weights to differentiate at.
        probe: pairs to try shortcuts on.
        lora: rank 0 for all weights; else the adapter at its start.
        lora_seed: draws the adapter's factor A, as a run's seed does.
        kind: ``sketch`` or ``exact``.
        k: columns of a sketch, at least 1.
        seed: of the sketch.
        squares: file of v, for the preconditioned variant; None leaves it out.
        epsilon: Adam's, in the unit of v's root: the run's over the loss's factor.
        device: ``auto``, ``cpu``, ``cuda``.
        trust_remote_code: run code that comes with the model.
    """

    model: Path
    probe: tuple[Pair, ...]
    lora: LoraSection = field(default_factory=LoraSection)
    lora_seed: int = 0
    kind: str = "sketch"
    k: int = 4096
    seed: int = 0
    squares: Path | None = None
    epsilon: float = 0.0
    device: str = "auto"
    trust_remote_code: bool = False


def count_parameters(job: GradientJob) -> int:
    """Length of the job's gradients; loads the model and lets it go."""
    return sum(p.numel() for p in _model(job).parameters() if p.requires_grad)


def write_features(
    job: GradientJob,
    pairs: Sequence[tuple[str, Pair]],
    parts: Parts,
    *,
    n_workers: int = 0,
    progress: Callable[[int], None] = lambda n: None,
) -> None:
    """Write the rows of pairs as parts.

    Args:
        job: whose gradients, kept how.
        pairs: id and answers of each; those without rows so far.
        parts: where the rows go.
        n_workers: processes of one thread each; 1 works in this process, 0 decides.
        progress: told how many pairs are done since it was last told.

    Raises:
        RecipeError: exact rows of more than 2^30 numbers.
        EngineError: a gradient that is not a number, or a process that was killed.
    """
    n_parameters = count_parameters(job)
    _refuse_large(job, len(pairs), n_parameters)
    columns = n_parameters if job.kind == "exact" else job.k
    size = max(1, min(CHUNK_PAIRS, CHUNK_BYTES // (8 * columns)))
    chunks = [(list(pairs[i : i + size]), parts.folder) for i in range(0, len(pairs), size)]
    workers = n_workers or _enough(len(pairs) * n_parameters)
    for done in _run(_feature_chunk, job, chunks, workers):
        progress(done)


def estimate_squares(
    job: GradientJob,
    batches: Sequence[Sequence[Pair]],
    target: Path,
    *,
    n_workers: int = 0,
    progress: Callable[[int], None] = lambda n: None,
) -> None:
    """Write v of the features, one flat float32 array over all parameters.

    Args:
        job: whose gradients; its ``squares`` is not looked at.
        batches: training pairs, in batches as the run takes them.
        target: file of v; sums of groups of batches lie beside it until it is complete.
        n_workers: as ``write_features``.
        progress: likewise; counts pairs.

    Raises:
        EngineError: a gradient that is not a number, or a process that was killed.
    """
    groups = [
        list(group) for group in np.array_split(np.arange(len(batches)), GROUPS) if len(group)
    ]
    files = [target.with_name(f"{target.stem}-group-{i:02d}.npy") for i in range(len(groups))]
    tasks = []
    for group, file in zip(groups, files, strict=True):
        members = [list(batches[i]) for i in group]
        if file.exists():
            progress(sum(map(len, members)))
        else:
            tasks.append((members, file))
    target.parent.mkdir(parents=True, exist_ok=True)
    n_pairs = sum(map(len, batches))
    workers = n_workers or _enough(n_pairs * count_parameters(job))
    for done in _run(_square_group, job, tasks, workers):
        progress(done)
    total = functools.reduce(np.add, (np.load(f).astype(np.float64) for f in files))
    _save(target, (total / len(batches)).astype(np.float32))
    for file in files:
        file.unlink()


def split(flat: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """A flat array cut into one per parameter."""
    return np.split(flat, np.cumsum(sizes)[:-1])


class _Loaded:
    """What a process keeps between tasks of one job."""

    def __init__(self, job: GradientJob) -> None:
        self.job, self.gradients = job, _gradients(job)
        self._projection: Projection | None = None

    @property
    def projection(self) -> Projection:
        if self._projection is None:
            self._projection = _projection(self.job, self.gradients.sizes)
        return self._projection


@functools.lru_cache(maxsize=1)
def _loaded(job: GradientJob) -> _Loaded:
    return _Loaded(job)


def _gradients(job: GradientJob) -> MarginGradients:
    return MarginGradients(_model(job), job.probe)


def _model(job: GradientJob) -> Any:
    lora = job.lora
    recipe = recipe_for(
        "dpo",
        model=str(job.model),
        seed=job.lora_seed,
        device=job.device,
        trust_remote_code=job.trust_remote_code,
        rank=lora.rank,
        alpha=lora.alpha,
        target_modules=lora.target_modules,
    )
    return load_policy(recipe, Path(job.model)).model


def _projection(job: GradientJob, sizes: Sequence[int]) -> Projection:
    weights = None
    if job.squares is not None:
        v = split(np.load(job.squares, mmap_mode="r"), sizes)
        weights = adam_weights(v, job.epsilon)
    if job.kind == "exact":
        return Whole(sizes, weights)
    return CountSketch(sizes, job.k, job.seed, weights)


def _feature_chunk(job: GradientJob, pairs: Sequence[tuple[str, Pair]], folder: Path) -> int:
    loaded = _loaded(job)
    rows = []
    with float32_matmul(loaded.gradients.model, "auto"):
        for pair_id, pair in pairs:
            row = loaded.projection(loaded.gradients.flat([pair]))
            if not np.isfinite(row.square) or np.isinf(row.adam_square):
                raise EngineError(
                    f"the gradient of pair {pair_id} at {job.model} holds NaN or infinite values; "
                    "its weights are broken or its logits overflow, so take an earlier step as "
                    "the reference."
                )
            rows.append(row)
    Parts(folder).add([pair_id for pair_id, _ in pairs], rows)
    return len(pairs)


def _square_group(job: GradientJob, batches: Sequence[Sequence[Pair]], file: Path) -> int:
    gradients = _loaded(job).gradients
    total = np.zeros(gradients.n_parameters, dtype=np.float32)
    views = split(total, gradients.sizes)
    with float32_matmul(gradients.model, "auto"):
        for batch in batches:
            for view, part in zip(views, gradients.flat(batch), strict=True):
                view += np.square(part)
    if not np.isfinite(total).all():
        raise EngineError(
            f"gradients of training pairs at {job.model} hold NaN or infinite values; its weights "
            "are broken or its logits overflow, so take an earlier step as the reference."
        )
    _save(file, total)
    return sum(map(len, batches))


def _run(
    work: Callable[..., int], job: GradientJob, tasks: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[int]:
    """What each task gives, as they end."""
    workers = min(workers, len(tasks))
    if workers <= 1:
        try:
            for task in tasks:
                yield work(job, *task)
        finally:
            _loaded.cache_clear()  # a model is not held, nor found again when its folder changed
        return
    # read by the libraries when a process starts; one thread each is fastest
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    # oneDNN keeps a compiled kernel with its scratch memory for every shape, by default 1,024 of
    # them: with pairs of all lengths a process grew to 2.2 GiB (15M parameters, measured 2026-11)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start) as pool:
        futures = [pool.submit(work, job, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise EngineError(
                "a process that computed gradients was killed, most likely for lack of memory; "
                "run again with 1 worker, what was written is kept."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start() -> None:
    """Of a worker process."""
    torch.set_num_threads(1)


def _enough(n_numbers: float) -> int:
    """Workers for pairs x parameters: two where it pays, unless a GPU does the work."""
    if torch.cuda.is_available() or n_numbers < SMALL_WORK:
        return 1
    return min(2, os.cpu_count() or 1)


def _refuse_large(job: GradientJob, n_pairs: int, n_parameters: int) -> None:
    if job.kind == "exact" and n_pairs * n_parameters > MAX_NUMBERS:
        raise RecipeError(
            f"exact gradients of {n_pairs} pairs in {n_parameters} parameters are more than "
            f"{MAX_NUMBERS} numbers; take a sketch, fewer pairs or an adapter's parameters."
        )


def _save(file: Path, array: np.ndarray) -> None:
    """Write an array whole or not at all."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    with partial.open("wb") as opened:
        np.save(opened, array)
    os.replace(partial, file)
