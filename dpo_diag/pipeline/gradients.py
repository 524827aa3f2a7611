"""Pairs to gradient features at a checkpoint's reference, kept on disk and found again.

``gradient_features`` gives every pair's sketch (or whole gradient) with its exact norm, plain and
preconditioned for Adam; what the rows mean is in ``training.gradient_features``, what the
preconditioner is in ``training.gradient_sketch.adam_weights``. ``movement`` gives what the run's
own change of weights does to every margin, to first order. torch stays in ``training``.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpo_diag.checkpoints import Checkpoint
from dpo_diag.engines._weights import materialize
from dpo_diag.pairs import PairSet
from dpo_diag.pipeline.gradient_plan import GradientOptions, GradientPlan, make_plan
from dpo_diag.pipeline.gradient_rows import GradientFeatures
from dpo_diag.pipeline.work import Work
from dpo_diag.tables import canonical_json, write_text
from dpo_diag.training.gradient_parts import Parts
from dpo_diag.training.gradient_work import count_parameters, estimate_squares, write_features
from dpo_diag.training.movement import linear_margins
from dpo_diag.weights import read_json

__all__ = ["GradientFeatures", "GradientOptions", "Movement", "gradient_features", "movement"]

SQUARES_FILE = "squares.npy"


def gradient_features(
    checkpoint: Checkpoint,
    pairs: PairSet,
    options: GradientOptions,
    work: Work,
    *,
    train_ids: Sequence[str] | None = None,
) -> GradientFeatures:
    """Features of every pair at the checkpoint's reference: stored rows first, then the missing.

    A killed run keeps its finished parts. What a pair's rows are depends on neither the other
    pairs nor their order, but for v, which the training pairs decide.

    Args:
        checkpoint: its reference is differentiated; its beta and recipe decide the preconditioner.
        pairs: training and evaluation pairs.
        options: which gradients, kept how.
        work: store, cache, voice, progress bar.
        train_ids: of the pairs that v is estimated from; by default those of split ``train``.

    Raises:
        CheckpointError: no reference is known.
        RecipeError: exact rows that are too many.
        DataError: no training pairs for v, or pairs that cannot be encoded.
        EngineError: gradients that are not numbers.
    """
    plan = make_plan(checkpoint, pairs, options, work, train_ids)
    job = plan.job
    if options.preconditioned:
        job = dataclasses.replace(job, squares=_squares(plan, work), epsilon=plan.epsilon)
    parts = Parts(plan.folder("features"))
    known = parts.known()
    ids = pairs.frame["pair_id"].astype(str)
    missing = pairs.frame[~ids.isin(set(known))]
    note = parts.folder / "meta.json"
    if len(missing) or not note.exists():
        n_parameters = count_parameters(job)
        write_text(parts.folder / "address.json", canonical_json(plan.address("features")) + "\n")
        write_text(note, canonical_json({"n_parameters": n_parameters}) + "\n")
    if len(missing):
        with work.bar(f"gradients at {plan.reference.name}", len(missing)) as advance:
            todo = list(zip(missing["pair_id"].astype(str), plan.encoded(missing), strict=True))
            write_features(job, todo, parts, n_workers=options.n_workers, progress=advance)
    n_parameters = int(read_json(note)["n_parameters"])
    found = parts.gather(ids.tolist())
    return GradientFeatures(
        pair_ids=ids.to_numpy(dtype=np.str_),
        **vars(found),
        kind=options.kind,
        n_parameters=n_parameters,
        space=options.space,
        seed=options.seed,
        k=found.plain.shape[1],
    )


@dataclass(frozen=True)
class Movement:
    """What a run's change of weights does to margins, to first order.

    Attributes:
        pair_ids: (n,) of the margins.
        linear_margin: (n,) nats: the gradient of the margin times the change of all weights.
        norm: Euclidean norm of the change.
        adam_norm: its norm in the metric of the preconditioned features; NaN where v is not known
            (``gradient_features`` with space ``all`` estimates it).
    """

    pair_ids: np.ndarray
    linear_margin: np.ndarray
    norm: float
    adam_norm: float


def movement(
    checkpoint: Checkpoint,
    pairs: PairSet,
    options: GradientOptions,
    work: Work,
    *,
    train_ids: Sequence[str] | None = None,
) -> Movement:
    """The change from a checkpoint's reference to it, over all weights, and every pair's part.

    An adapter counts as the change of the weights that it is merged into, whatever the options'
    space.

    Args:
        checkpoint: the run.
        pairs: whose margins.
        options: those of the features that this stands beside.
        work: store, cache, voice, progress bar.
        train_ids: as ``gradient_features``.

    Raises:
        CheckpointError: no reference is known, or it is of another architecture.
        EngineError: an operation of the model has no forward-mode derivative.
    """
    plan = make_plan(checkpoint, pairs, options, work, train_ids)
    trust = options.choice.options.trust_remote_code
    scale, squares = None, plan.folder("squares") / SQUARES_FILE
    if options.space == "all" and squares.exists():
        scale = np.sqrt(np.load(squares).astype(np.float64)) + plan.epsilon
    with work.bar(f"linear margins of {checkpoint.model.name}", len(pairs.frame)) as advance:
        moved = linear_margins(
            plan.job.model,
            materialize(checkpoint.model, work.cache, trust_remote_code=trust),
            plan.encoded(pairs.frame),
            scale=scale,
            trust_remote_code=trust,
            progress=advance,
        )
    ids = pairs.frame["pair_id"].to_numpy(dtype=np.str_)
    return Movement(ids, moved.margins, moved.norm, moved.adam_norm)


def _squares(plan: GradientPlan, work: Work) -> Path:
    """The file of v, estimated where it is missing."""
    folder = plan.folder("squares")
    file = folder / SQUARES_FILE
    if not file.exists():
        write_text(folder / "address.json", canonical_json(plan.address("squares")) + "\n")
        encoded, size = plan.encoded(plan.training), plan.batch_size
        batches = [encoded[i : i + size] for i in range(0, len(encoded), size)]
        with work.bar(f"second moments at {plan.reference.name}", len(encoded)) as advance:
            workers = plan.options.n_workers
            estimate_squares(plan.job, batches, file, n_workers=workers, progress=advance)
    return file
