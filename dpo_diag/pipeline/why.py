"""Why pairs were reversed: which training pairs pushed them, and whether that could be foreseen.

From gradients at the reference alone (``gradients``) come the scores that tell, before training,
which pairs will end up reversed; together with how far the run moved, the training pairs that
pushed each reversed pair, and what a change of weights of that length can express at all. Start
reading at ``explain``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.checkpoints import Checkpoint, require_reference
from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet
from dpo_diag.pipeline.analyze import Evidence
from dpo_diag.pipeline.compare import Request, gather
from dpo_diag.pipeline.expressed import expressed, noise_of_sketch
from dpo_diag.pipeline.gradient_plan import make_plan
from dpo_diag.pipeline.gradients import (
    GradientFeatures,
    GradientOptions,
    Movement,
    gradient_features,
    movement,
)
from dpo_diag.pipeline.local_margins import as_prediction, local_margins
from dpo_diag.pipeline.pushes import (
    TRAIN,
    Products,
    conflicts,
    foreseen,
    most_opposed,
    predictions,
    products_of,
    short_of,
    towards_run,
)
from dpo_diag.pipeline.rewards import build_variant
from dpo_diag.pipeline.run_steps import run_steps
from dpo_diag.pipeline.sandbox import jsonl
from dpo_diag.pipeline.work import EngineChoice, Work
from dpo_diag.tables import (
    REVERSAL_PREDICTIONS,
    SPECS,
    concat,
    write_text,
)

MAX_TRAIN = 10_000  # training pairs in the Gram matrix: 400 MB in float32
MAX_FITTED = 3000  # pairs whose margins are fitted: time grows with their cube


@dataclass(frozen=True)
class WhyOptions:
    """How to explain.

    Attributes:
        gradients: which gradients, kept how.
        n_named: training pairs named for a reversed pair, each way.
        max_train: training pairs that may push; of more, so many at random.
        max_fitted: pairs whose margins a change of weights is asked to express; likewise.
        gold_gap: smallest gold margin of a label that counts as right, exclusive.
        seed: of these draws and of the random subspaces.
    """

    gradients: GradientOptions = field(default_factory=GradientOptions)
    n_named: int = 100
    max_train: int = MAX_TRAIN
    max_fitted: int = MAX_FITTED
    gold_gap: float = 0.0
    seed: int = 0


class Why(NamedTuple):
    """What explains some runs.

    Attributes:
        evidence: rewards, and the tables of the explanation.
        blamed: model_id -> ids of training pairs, those that pushed its targets round hardest
            first (see ``most_opposed``).
        targets: model_id -> ids of the reversed pairs that they are blamed for (``targets_of``).
    """

    evidence: Evidence
    blamed: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]


def explain(
    checkpoints: Sequence[Checkpoint],
    pairs: PairSet,
    choice: EngineChoice,
    options: WhyOptions,
    work: Work,
) -> Why:
    """Rewards on all pairs, and beside them what explains the reversed ones.

    Args:
        checkpoints: runs; each is explained at its own reference.
        pairs: those that were trained on (split ``train``) and others that were not.
        choice: engine of the rewards.
        options: how to explain.
        work: store, cache and voice.

    Raises:
        DataError: no pair of the split ``train``.
        CheckpointError: a reference is missing.
    """
    _require_training_pairs(pairs)
    for checkpoint in checkpoints:
        require_reference(checkpoint)
    evidence = gather(checkpoints, Request(pairs, engine=choice), work)
    rewards = evidence.rewards.rewards
    parts: dict[str, list[pd.DataFrame]] = {}
    notes, blamed, targets = [], {}, {}
    references: dict[Path, tuple[GradientFeatures, Products]] = {}
    for checkpoint in evidence.checkpoints:
        # runs of one reference share its gradients, unless their optimisers differ
        place = make_plan(checkpoint, pairs, options.gradients, work, None).folder("features")
        if place not in references:
            features = gradient_features(checkpoint, pairs, options.gradients, work)
            products, note = products_of(
                features, pairs.frame, max_train=options.max_train, seed=options.seed
            )
            references[place] = features, products
            notes += [note] if note else []
        features, products = references[place]
        model_id = checkpoint.model.model_id
        own = rewards[(rewards["model_id"] == model_id) & (rewards["step"] == -1)]
        own = own.set_index("pair_id").loc[products.pair_ids].reset_index()
        run = movement(checkpoint, pairs, options.gradients, work)
        tables, remarks = _tables(checkpoint, own, pairs.frame, (features, products, run), options)
        notes += remarks
        for name, table in tables.items():
            parts.setdefault(name, []).append(table)
        targets[model_id] = targets_of(own, pairs.frame, options.gold_gap)
        alpha = towards_run(own, products, _beta(checkpoint)).alpha
        blamed[model_id] = most_opposed(products, targets[model_id], alpha, len(products.train))
    more = {name: concat(found, SPECS[name]) for name, found in parts.items()}
    more["RunSteps"] = run_steps(evidence.checkpoints)
    said = (*evidence.notes, *dict.fromkeys(notes))
    return Why(replace(evidence, notes=said, more=more), blamed, targets)


def _tables(
    checkpoint: Checkpoint,
    own: pd.DataFrame,
    frame: pd.DataFrame,
    measured: tuple[GradientFeatures, Products, Movement],
    options: WhyOptions,
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """The tables that explain one run, by the name of their spec, and remarks in words."""
    features, products, run = measured
    name, beta = checkpoint.model.name, _beta(checkpoint)
    expressible = expressed(
        own,
        frame,
        features,
        moved_norm=run.norm,
        max_fitted=options.max_fitted,
        seed=options.seed,
    )
    local, note = local_margins(checkpoint.model.model_id, frame, features, products, beta=beta)
    foretold = [predictions(own, products, beta=beta), as_prediction(own, local)]
    tables = {
        "ReversalPredictions": concat(foretold, REVERSAL_PREDICTIONS),
        "PairConflicts": conflicts(own, products, beta=beta, n_named=options.n_named),
        "Expressible": expressible,
        "LocalMargins": local,
    }
    remarks = (
        _first_order(name, own, run.linear_margin),
        note,
        noise_of_sketch(features, expressible),
        short_of(name, foreseen(products, products.best, beta), "the scores"),
        short_of(name, towards_run(own, products, beta), "the pushes"),
    )
    return tables, [remark for remark in remarks if remark]


def targets_of(own: pd.DataFrame, frame: pd.DataFrame, gold_gap: float = 0.0) -> np.ndarray:
    """Ids of the reversed pairs that should not be: held-out ones, with a right label if known.

    Where no pair is held out, or none of them is reversed, the training pairs stand in.

    Args:
        own: IMPLICIT_REWARDS rows of one model.
        frame: the pairs.
        gold_gap: smallest gold margin of a label that is right, exclusive.
    """
    is_target = (own["margin"] < 0.0).to_numpy()
    pairs = frame.set_index("pair_id").reindex(own["pair_id"])
    if "gold_margin" in pairs:
        gold = pd.to_numeric(pairs["gold_margin"]).to_numpy(float)
        is_target = is_target & (np.isnan(gold) | (gold > gold_gap))
    is_held_out = (own["split"] != TRAIN).to_numpy()
    wanted = is_target & is_held_out
    return own["pair_id"].to_numpy()[wanted if wanted.any() else is_target]


def why_options(options: Mapping[str, Any], choice: EngineChoice) -> WhyOptions:
    """Options of the command line to those of the explanation.

    Args:
        options: ``sketch``, ``lora_rank``, ``workers``, ``named``, ``max_train``, ``seed``.
        choice: how text becomes ids.
    """
    gradients = GradientOptions(
        kind="sketch" if options["sketch"] else "exact",
        k=options["sketch"] or 1,
        space="lora" if options["lora_rank"] else "all",
        lora_rank=options["lora_rank"],
        n_workers=options["workers"],
        choice=choice,
    )
    return WhyOptions(
        gradients,
        n_named=options["named"],
        max_train=options["max_train"] or MAX_TRAIN,
        seed=options["seed"],
    )


def write_without(path: Path, why: Why, pairs: PairSet, n: int, work: Work) -> Path:
    """The training pairs without the ``n`` most blamed ones, as JSON lines; what went is said.

    Raises:
        DataError: several models are explained, so that it is not clear whose blame counts.
    """
    if len(why.blamed) != 1:
        raise DataError(
            f"--write-without is for one checkpoint, {len(why.blamed)} were given; name the one "
            "whose reversals should go."
        )
    ((model_id, blamed),) = why.blamed.items()
    left_out, frame = set(blamed[:n]), pairs.frame
    kept = frame[(frame["split"] == TRAIN) & ~frame["pair_id"].isin(left_out)]
    write_text(path, jsonl(kept))
    work.say(
        f"{path}: {len(kept)} training pairs, without the {len(left_out)} that pushed the "
        f"{len(why.targets[model_id])} reversed pairs hardest; train on them again to see what "
        "that changes, and on as many fewer at random to see what chance does."
    )
    return path


def _beta(checkpoint: Checkpoint) -> float:
    """Beta of the run's reward; 1 for a method that has none: margins are then in nats."""
    return float(getattr(build_variant(checkpoint), "beta", 1.0))


def _first_order(name: str, own: pd.DataFrame, linear: np.ndarray) -> str:
    """How far the linear view of the run holds, in words."""
    margin = (own["logratio_chosen"] - own["logratio_rejected"]).to_numpy(float)
    agree = float(np.mean(np.sign(margin) == np.sign(linear)))
    return (
        f"{name}: to first order at the reference, the run's own change of weights gives "
        f"{agree:.0%} of {len(margin)} margins their true sign (correlation "
        f"{np.corrcoef(margin, linear)[0, 1]:.2f}); the scores rest on that view."
    )


def _require_training_pairs(pairs: PairSet) -> None:
    if not (pairs.frame["split"] == TRAIN).any():
        raise DataError(
            f"{pairs.source}: no pair of the split train, and only training pairs push others "
            "round; give the pairs that were trained on, with --split all."
        )
