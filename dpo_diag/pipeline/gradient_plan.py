"""Before gradients are computed: at which model, of which pairs, under which address.

Start reading at ``make_plan``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag.checkpoints import Checkpoint, ModelRef, require_reference
from dpo_diag.engines._weights import materialize
from dpo_diag.errors import DataError, RecipeError
from dpo_diag.pairs import PairSet
from dpo_diag.pipeline.work import EngineChoice, Work, encoder_for
from dpo_diag.tables import content_hash
from dpo_diag.text import TextEncoder, encode_pairs
from dpo_diag.training.gradient_features import PROBE_PAIRS, Pair
from dpo_diag.training.gradient_work import GradientJob
from dpo_diag.training.recipe import LoraSection
from dpo_diag.training.recipe_file import load_recipe
from dpo_diag.weights import architecture

KINDS = ("sketch", "exact")
SPACES = ("all", "lora")
BATCH_SIZE, EPSILON = 32, 1e-8  # where neither options nor the run's recipe say
SQUARE_PAIRS = 3200  # training pairs behind v: 100 batches of 32, v to 14 % and its root to 7 %


@dataclass(frozen=True)
class GradientOptions:
    """Which gradients, kept how.

    Attributes:
        kind: ``sketch`` in k columns, or ``exact``: whole gradients, for small models.
        k: columns of a sketch, at least 1.
        seed: of the sketch and of the batches that v is estimated from.
        space: ``all`` weights, or ``lora``: an adapter's at its start, of which only B's gradient
            is not zero.
        lora_rank, lora_alpha, lora_targets, lora_seed: the adapter, as in a recipe; no targets
            takes every linear layer but the output head.
        preconditioned: also keep the variant for Adam.
        batch_size: pairs of a batch of v; 0 takes the run's.
        epsilon: Adam's; negative takes the run's.
        square_pairs: training pairs that v is estimated from, at random; 0 takes all.
        n_workers: processes; 0 decides.
        choice: how text becomes token ids, on which device.
    """

    kind: str = "sketch"
    k: int = 4096
    seed: int = 0
    space: str = "all"
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_targets: tuple[str, ...] = ()
    lora_seed: int = 0
    preconditioned: bool = True
    batch_size: int = 0
    epsilon: float = -1.0
    square_pairs: int = SQUARE_PAIRS
    n_workers: int = 0
    choice: EngineChoice = field(default_factory=EngineChoice)

    def __post_init__(self) -> None:
        for name, value, known in (("kind", self.kind, KINDS), ("space", self.space, SPACES)):
            if value not in known:
                raise RecipeError(
                    f"gradient features: {name} must be {' or '.join(known)}, got {value!r}."
                )
        if self.k < 1:
            raise RecipeError(
                f"gradient features: k must be at least 1, got {self.k}; 4096 keeps cosines to "
                "about .016."
            )
        if (self.space == "lora") != (self.lora_rank >= 1):
            raise RecipeError(
                f"gradient features: space {self.space} with lora_rank {self.lora_rank}; the space "
                "lora needs a rank of at least 1, and only that space has one."
            )


@dataclass(frozen=True)
class GradientPlan:
    """What is settled before anything is computed.

    Attributes:
        reference: the model that is differentiated.
        encoder: text to token ids.
        options: which gradients, kept how.
        training: pairs that v is estimated from, in the order of the batches.
        batch_size: pairs of a batch of v.
        epsilon: Adam's over the loss's factor, see ``gradient_sketch.adam_weights``.
        job: the same for ``training``, without v.
        root: folder of the store.
    """

    reference: ModelRef
    encoder: TextEncoder
    options: GradientOptions
    training: pd.DataFrame
    batch_size: int
    epsilon: float
    job: GradientJob
    root: Path

    def encoded(self, frame: pd.DataFrame) -> list[Pair]:
        """Both answers of each pair as token ids."""
        both = encode_pairs(frame, self.encoder)
        return list(zip(both.chosen, both.rejected, strict=True))

    def address(self, what: str) -> dict[str, Any]:
        """Everything that decides the rows (``features``), or v (``squares``)."""
        o, settings = self.options, self.options.choice
        common = {
            "table": what,
            "fingerprint": self.reference.fingerprint,
            "architecture": content_hash(architecture(self.reference.path)),
            "tokenizer": self.encoder.hash,
            "truncate": settings.truncate,
            "max_length": settings.options.max_length,
            "space": [o.space, o.lora_rank, o.lora_alpha, o.lora_targets, o.lora_seed],
        }
        v = {
            "training": content_hash(self.training["pair_id"].tolist()),
            "batch_size": self.batch_size,
        }
        if what == "squares":
            return common | v
        kept = {"kind": o.kind} | ({"k": o.k, "seed": o.seed} if o.kind == "sketch" else {})
        used = {"squares": content_hash(common | v), "epsilon": self.epsilon}
        return common | kept | (used if o.preconditioned else {})

    def folder(self, what: str) -> Path:
        """Where the rows (``features``) or v (``squares``) lie; need not exist."""
        return self.root / f"Gradient{what.title()}" / content_hash(self.address(what))[:24]


def make_plan(
    checkpoint: Checkpoint,
    pairs: PairSet,
    options: GradientOptions,
    work: Work,
    train_ids: Sequence[str] | None,
) -> GradientPlan:
    """Reference, encoder, batches of v and addresses of a checkpoint's features.

    Raises:
        CheckpointError: no reference is known.
        DataError: no training pairs for v, or pairs that cannot be encoded.
    """
    reference = require_reference(checkpoint)
    encoder = encoder_for(reference, pairs.frame, options.choice, checkpoint.template)
    batch_size, epsilon = _optimiser(checkpoint, options, work)
    trust = options.choice.options.trust_remote_code
    probe = encode_pairs(pairs.frame.head(PROBE_PAIRS), encoder)
    job = GradientJob(
        model=materialize(reference, work.cache, trust_remote_code=trust),
        probe=tuple(zip(probe.chosen, probe.rejected, strict=True)),
        lora=LoraSection(options.lora_rank, options.lora_alpha, 0.0, options.lora_targets),
        lora_seed=options.lora_seed,
        kind=options.kind,
        k=options.k,
        seed=options.seed,
        trust_remote_code=trust,
    )
    return GradientPlan(
        reference=reference,
        encoder=encoder,
        options=options,
        training=_drawn(pairs.frame, train_ids, options, batch_size),
        batch_size=batch_size,
        # s of adam_weights: beta * sigma(0)
        epsilon=epsilon / (checkpoint.beta / 2 if checkpoint.beta else 1.0),
        job=job,
        root=work.store.root,
    )


def _drawn(
    frame: pd.DataFrame, train_ids: Sequence[str] | None, options: GradientOptions, batch_size: int
) -> pd.DataFrame:
    """Training pairs for v in an order of their own, whole batches of them."""
    is_train = frame["split"] == "train" if train_ids is None else frame["pair_id"].isin(train_ids)
    training = frame[is_train].sort_values("pair_id", ignore_index=True)
    if training.empty and options.preconditioned:
        raise DataError(
            "none of the pairs is a training pair, so Adam's second moment cannot be estimated; "
            "give the run's training pairs, too, or ask for features without preconditioning."
        )
    order = np.random.default_rng(options.seed).permutation(len(training))
    n_batches = -(-options.square_pairs // batch_size)
    return training.iloc[order[: n_batches * batch_size or None]]


def _optimiser(checkpoint: Checkpoint, options: GradientOptions, work: Work) -> tuple[int, float]:
    """Batch size and epsilon: given, the run's, or what is usual."""
    batch_size, epsilon = BATCH_SIZE, EPSILON
    own = checkpoint.model.adapter or checkpoint.model.path
    files = [folder / "recipe.toml" for folder in (own, own.parent)]
    recipe = next((load_recipe(file) for file in files if file.is_file()), None)
    if recipe is not None:
        batch_size, epsilon = recipe.optimizer.batch_size, recipe.optimizer.epsilon
    elif options.preconditioned and not (options.batch_size and options.epsilon >= 0):
        work.say(
            f"{checkpoint.model.name}: no recipe.toml, so Adam's second moment is taken with "
            f"batches of {options.batch_size or batch_size} and "
            f"epsilon {epsilon if options.epsilon < 0 else options.epsilon:g}."
        )
    return options.batch_size or batch_size, epsilon if options.epsilon < 0 else options.epsilon
