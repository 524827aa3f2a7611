"""What a checkpoint folder says about itself: model, reference, beta, variant, pairs, steps.

Understands transformers folders, TRL output folders, PEFT adapters, our own runs and hub ids.
Everything comes from JSON, YAML front matter and safetensors; a pickle is never opened. What was
found, and in which file, is kept as lines to print. Rank 2: imports errors and its siblings
``checkpoint_reading``, ``model_folders``, ``manifest`` and ``weights``. Start reading at
``resolve_checkpoint``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_diag.checkpoint_reading import (
    find_final_step,
    find_method,
    find_pair_counts,
    find_pairs,
    find_policy,
    find_reference,
    find_steps,
    layout_of,
    read_run,
)
from dpo_diag.errors import CheckpointError
from dpo_diag.manifest import (
    ModelRecord,
    PairsRecord,
    RunManifest,
    read_manifest,
    write_manifest,
)
from dpo_diag.model_folders import ModelRef, locate
from dpo_diag.weights import fingerprint

__all__ = [
    "Checkpoint",
    "ModelRecord",
    "ModelRef",
    "PairsRecord",
    "RunManifest",
    "check_compatible",
    "fingerprint",
    "model_record",
    "read_manifest",
    "require_beta",
    "require_pairs",
    "require_reference",
    "require_variant",
    "resolve_checkpoint",
    "write_manifest",
]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with everything an implicit reward needs, None where the folder is silent.

    Attributes:
        model: the model itself.
        layout: ``transformers``, ``trl``, ``peft`` or ``dpo_diag``.
        steps: its ``checkpoint-*`` steps in numeric order, only when asked for; the final model
            is not among them, even where the last step has the same weights.
        reference: the reference model.
        beta: inverse temperature of the implicit reward.
        variant: name of the training method.
        parameters: its hyper-parameters by name, ``beta`` among them where known.
        pairs: the training pairs, a path or hub id.
        template: ``chat`` or ``plain``.
        found: one line per thing found or missing, with the file that says so.
        manifest: our own run's manifest.
        final_step: training step of the model, where the folder says and steps were asked for.
    """

    model: ModelRef
    layout: str
    steps: tuple[ModelRef, ...]
    reference: ModelRef | None
    beta: float | None
    variant: str | None
    parameters: dict[str, Any]
    pairs: str | None
    template: str | None
    found: tuple[str, ...]
    manifest: RunManifest | None = None
    final_step: int | None = None


def resolve_checkpoint(
    source: Path | str,
    *,
    reference: Path | str | None = None,
    beta: float | None = None,
    variant: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    pairs: Path | str | None = None,
    revision: str | None = None,
    steps: str = "final",
) -> Checkpoint:
    """Everything a folder or hub id says about a trained model; what is given goes first.

    Args:
        source: folder (of a run, of one ``checkpoint-*`` step, of a model, of an adapter) or hub
            id.
        reference: folder or hub id (``name/model@revision``) of the reference.
        beta: inverse temperature, above 0.
        variant: name of the training method.
        parameters: hyper-parameters, by name; they replace recorded ones one by one.
        pairs: path or hub id of the training pairs.
        revision: commit or tag, when the source is a hub id.
        steps: ``final``, or ``all`` for the ``checkpoint-*`` steps beside it.

    Raises:
        CheckpointError: the folder is not a readable checkpoint, its adapter has no base, or the
            reference is not the one that the run recorded; with all steps, a broken
            ``trainer_state.json``, a step twice or steps out of order.
        ValueError: ``steps`` is neither of the two.
    """
    if steps not in ("final", "all"):
        raise ValueError(f"steps must be 'final' or 'all', got {steps!r}.")
    run = read_run(locate(source, revision=revision))
    model = find_policy(run)
    resolved = find_reference(run, model, reference)
    name, values = find_method(run, beta, variant, parameters)
    training_pairs = find_pairs(run, pairs)
    find_pair_counts(run)
    found_steps = find_steps(run, model) if steps == "all" else ()
    last_step = find_final_step(run, model, found_steps) if steps == "all" else None
    return Checkpoint(
        model=model,
        layout=layout_of(run, model),
        steps=found_steps,
        reference=resolved,
        beta=values.get("beta"),
        variant=name,
        parameters=values,
        pairs=training_pairs,
        template=run.manifest.template if run.manifest else None,
        found=tuple(run.found),
        manifest=run.manifest,
        final_step=last_step,
    )


def model_record(model: ModelRef) -> ModelRecord:
    """What a manifest keeps of a model: where it is, its fingerprint, its revision."""
    return ModelRecord(model.source, model.fingerprint, model.revision)


def require_reference(checkpoint: Checkpoint) -> ModelRef:
    """The reference, or an error that names ``--reference``."""
    if checkpoint.reference is None:
        raise CheckpointError(_missing(checkpoint, "reference", "--reference FOLDER_OR_HUB_ID"))
    return checkpoint.reference


def require_beta(checkpoint: Checkpoint) -> float:
    """Beta, or an error that names ``--beta``."""
    if checkpoint.beta is None:
        raise CheckpointError(_missing(checkpoint, "beta", "--beta VALUE"))
    return checkpoint.beta


def require_variant(checkpoint: Checkpoint) -> str:
    """The variant's name, or an error that names ``--variant``."""
    if checkpoint.variant is None:
        raise CheckpointError(_missing(checkpoint, "variant", "--variant NAME"))
    return checkpoint.variant


def require_pairs(checkpoint: Checkpoint) -> str:
    """Path or hub id of the pairs, or an error that names ``--pairs``."""
    if checkpoint.pairs is None:
        raise CheckpointError(_missing(checkpoint, "pairs", "--pairs FILE_OR_HUB_ID"))
    return checkpoint.pairs


def check_compatible(policy: Any, reference: Any, *, template: str | None = None) -> None:
    """Refuse a reference that reads token ids or conversations differently from the policy.

    Args:
        policy: the policy's tokenizer.
        reference: the reference's tokenizer.
        template: ``plain`` when no chat template is used; then theirs may differ.

    Raises:
        CheckpointError: another vocabulary, or another chat template.
    """
    ours, theirs = policy.get_vocab(), reference.get_vocab()
    if ours != theirs:
        different = sorted(t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t))
        raise CheckpointError(
            f"the reference has another vocabulary ({len(theirs)} tokens, the policy "
            f"{len(ours)}; {len(different)} differ, {different[0]!r} first), so their log-probs "
            "cannot be compared; give the model that training started from as --reference."
        )
    if template != "plain" and policy.chat_template != reference.chat_template:
        states = ["has none" if t.chat_template is None else "has one" for t in (policy, reference)]
        raise CheckpointError(
            f"the reference has another chat template (the policy {states[0]}, the reference "
            f"{states[1]}{', but they differ' if states[0] == states[1] else ''}); give the model "
            "that training started from as --reference, or --template plain for plain text."
        )


def _missing(checkpoint: Checkpoint, what: str, option: str) -> str:
    lines = [line.split(": ", 1)[1] for line in checkpoint.found if line.startswith(f"{what}: ")]
    return f"{checkpoint.model.source}: {what} is {'; '.join(lines)}; give {option}."
