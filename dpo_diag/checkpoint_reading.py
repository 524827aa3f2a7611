"""What a folder's own files say about a run: its model, steps, reference, method, pairs.

Each ``find_*`` function reads one thing from a ``Run`` and appends to ``Run.found`` what it found,
in which file. Rank 2: imports errors and its siblings ``model_folders``, ``manifest``, ``weights``
and ``training_steps``.
Start reading at ``Run``; ``checkpoints.resolve_checkpoint`` calls everything here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpo_diag.errors import CheckpointError
from dpo_diag.manifest import MANIFEST_FILE, ModelRecord, RunManifest, read_manifest
from dpo_diag.model_folders import (
    ModelRef,
    Place,
    adapter_base,
    locate,
    open_model,
    read_card,
    step_folders,
    step_of,
)
from dpo_diag.training_steps import TRAINER_STATE, final_step, ordered_steps, read_state
from dpo_diag.weights import ADAPTER_CONFIG, fingerprint, has_weights, is_adapter, read_json

# Tags that TRL's preference trainers with a reference model put on their model cards, and the
# variant whose implicit reward beta * (log-ratio) is theirs.
_TRL_VARIANTS = {"dpo": "dpo", "online-dpo": "dpo"}


@dataclass
class Run:
    """A run while it is being read.

    Attributes:
        place: where the source led.
        folder: the run's folder: the source, or its parent for a ``checkpoint-*`` step.
        manifest: our own record of the run.
        card: front matter of the run's ``README.md``.
        found: lines to print, one per thing found or missing.
    """

    place: Place
    folder: Path
    manifest: RunManifest | None
    card: dict[str, Any]
    found: list[str] = field(default_factory=list)

    @property
    def is_trl(self) -> bool:
        """Whether the card says that TRL wrote it."""
        return "trl" in _texts(self.card.get("tags"))

    @property
    def trl_variant(self) -> str | None:
        """The method that TRL's card is tagged with."""
        tags = _texts(self.card.get("tags"))
        variants = [_TRL_VARIANTS[tag] for tag in tags if tag in _TRL_VARIANTS]
        return variants[0] if self.is_trl and variants else None


def read_run(place: Place) -> Run:
    """The run that a folder belongs to, its manifest and card read."""
    folder = place.folder.parent if step_of(place.folder) >= 0 else place.folder
    records = [f for f in (folder, place.folder) if (f / MANIFEST_FILE).is_file()]
    manifest = read_manifest(records[0]) if records else None
    return Run(place, folder, manifest, read_card(folder) or read_card(place.folder))


def find_policy(run: Run) -> ModelRef:
    """The model itself: the folder's, or its last step's where no final model was saved."""
    folder, step = run.place.folder, step_of(run.place.folder)
    if not has_weights(folder):
        saved = [s for s in step_folders(folder) if has_weights(s[1])]
        if saved:
            step, folder = saved[-1]
            run.found.append(f"model: no final model in {run.folder}, taking the last step")
    model = _open_step(run, step, folder) if step >= 0 else open_model(run.place)
    kind = f"adapter on {model.path}, {ADAPTER_CONFIG}" if model.adapter else "whole model"
    when = f"step {step}" if step >= 0 else "final"
    run.found.append(f"model: {model.source} ({kind}; {when})")
    _check_base(run, model)
    return model


def _check_base(run: Run, model: ModelRef) -> None:
    """The base under our own adapter must still be the one it was trained on."""
    record = run.manifest.base if run.manifest else None
    if model.adapter is None or record is None or is_adapter(Path(record.path)):
        return
    if fingerprint(model.path) != record.fingerprint:
        raise CheckpointError(
            f"{model.adapter}: its base {model.path} has fingerprint "
            f"{fingerprint(model.path)[:8]}, the run recorded {record.fingerprint[:8]} "
            f"({MANIFEST_FILE}); the adapter only makes sense on the base it was trained on."
        )


def _open_step(run: Run, step: int, folder: Path) -> ModelRef:
    name = f"{run.folder.name}-step{step}"
    return open_model(Place(folder), name=name, step=step, tokenizers=[run.folder])


def find_steps(run: Run, model: ModelRef) -> tuple[ModelRef, ...]:
    """The ``checkpoint-*`` steps in numeric order; for a step's own folder that step.

    Raises:
        CheckpointError: two folders of one step, or steps out of order.
    """
    if step_of(run.place.folder) >= 0:
        return (model,)
    steps = []
    for step, folder in ordered_steps(run.folder):
        if has_weights(folder):
            steps.append(_open_step(run, step, folder))
        else:
            run.found.append(f"steps: {folder.name} holds no model, left out")
    numbers = ", ".join(str(ref.step) for ref in steps) or "no checkpoint-* folders"
    run.found.append(f"steps: {numbers}")
    return tuple(steps)


def find_final_step(run: Run, model: ModelRef, steps: tuple[ModelRef, ...]) -> int | None:
    """The step of the final model, None where the folder does not say.

    Raises:
        CheckpointError: an unreadable ``trainer_state.json``, or steps out of order.
    """
    step, why = final_step(run.folder, model, steps)
    run.found.append(f"final step: {why}" if step is None else f"final step: {step} ({why})")
    return step


def layout_of(run: Run, model: ModelRef) -> str:
    """``dpo_diag``, ``trl``, ``peft`` or ``transformers``."""
    if run.manifest:
        return "dpo_diag"
    if run.is_trl or step_folders(run.folder):
        return "trl"
    return "peft" if model.adapter else "transformers"


def find_reference(run: Run, model: ModelRef, given: Path | str | None) -> ModelRef | None:
    """The reference: given, from the manifest, by TRL's rule for adapters, or from TRL's card.

    Raises:
        CheckpointError: it is not readable, or not the one that the manifest recorded.
    """
    record = run.manifest.reference if run.manifest else None
    if given is not None:
        reference, why = find_policy(read_run(locate(given))), "given"
    elif run.manifest:
        reference, why = _recorded_reference(record)
    elif model.adapter:
        reference, why = _adapter_reference(model)
    else:
        reference, why = _card_reference(run, model)
    if reference is None:
        run.found.append(f"reference: {why}")
        return None
    if record and record.fingerprint != reference.fingerprint:
        raise CheckpointError(
            f"{reference.source}: is not the reference of {run.folder}: its weights have "
            f"fingerprint {reference.fingerprint[:8]}, the run recorded "
            f"{record.fingerprint[:8]} ({MANIFEST_FILE}); give the recorded model as --reference."
        )
    run.found.append(
        f"reference: {reference.source}, fingerprint {reference.fingerprint[:8]} ({why})"
    )
    if reference.fingerprint == model.fingerprint:
        run.found.append("reference: has the model's own weights, so every reward is 0")
    return reference


def _recorded_reference(record: ModelRecord | None) -> tuple[ModelRef | None, str]:
    if record is None:
        return None, f"none, the method takes no reference ({MANIFEST_FILE})"
    return _try_open(record.path, record.revision, MANIFEST_FILE)


def _adapter_reference(model: ModelRef) -> tuple[ModelRef, str]:
    """TRL's rule: a copy of the adapter it started from, or else the base."""
    copy = model.adapter / "ref"
    if is_adapter(copy):
        folder = model.adapter.parent if model.step >= 0 else model.adapter
        name = (model.hub_id or folder.name).rsplit("/", 1)[-1]
        reference = open_model(Place(copy), name=f"{name}-ref", tokenizers=[model.tokenizer_path])
        return reference, "TRL's copy of the adapter that training started from, ref/"
    reference = open_model(adapter_base(model.adapter), tokenizers=[model.tokenizer_path])
    return reference, f"the adapter's base, {ADAPTER_CONFIG}"


def _card_reference(run: Run, model: ModelRef) -> tuple[ModelRef | None, str]:
    """What TRL wrote down about the model it started from; TRL omits local folders."""
    bases = _texts(run.card.get("base_model"))
    if not run.trl_variant:
        if bases:
            names = ", ".join(bases)
            return None, f"not recorded (README.md names base_model {names}, not as a reference)"
        return None, "not recorded in the folder"
    # transformers before 5 recorded where the weights were loaded from.
    loaded = _texts(read_json(model.path / "config.json").get("_name_or_path"))
    if len(bases) == 1:
        reference, why = _try_open(
            bases[0], None, "TRL's default, base_model in its README.md", run.folder
        )
    elif loaded:
        reference, why = _try_open(
            loaded[0], None, "TRL's default, _name_or_path in config.json", run.folder
        )
    else:
        return None, "not recorded (TRL's README.md names no base_model)"
    if reference and reference.path == model.path:
        return None, f"not recorded ({why} names the checkpoint itself)"
    return reference, why


def _try_open(
    path: str, revision: str | None, why: str, beside: Path | None = None
) -> tuple[ModelRef | None, str]:
    try:
        place = locate(path, revision=revision, beside=beside)
    except CheckpointError as error:
        return None, f"recorded in {why}, but {str(error).rstrip('.')}"
    return find_policy(read_run(place)), why


def find_method(
    run: Run, beta: float | None, variant: str | None, given: Mapping[str, Any] | None
) -> tuple[str | None, dict[str, Any]]:
    """Variant and hyper-parameters: given ones first, then the manifest's, then TRL's tag."""
    recorded = run.manifest.variant if run.manifest else run.trl_variant
    values = dict(run.manifest.parameters) if run.manifest else {}
    source = MANIFEST_FILE if run.manifest else "tag in TRL's README.md"
    if variant is not None and variant != recorded:
        values = {key: value for key, value in values.items() if key == "beta"}
        instead = f" instead of {recorded}, {source}" if recorded else ""
        run.found.append(f"variant: {variant} (given{instead})")
    elif recorded:
        run.found.append(f"variant: {recorded} ({source})")
    else:
        run.found.append("variant: not recorded in the folder")
    was_recorded = "beta" in values
    values |= dict(given or {})
    if beta is not None:
        values["beta"] = beta
    run.found.append(f"beta: {_beta_line(run, values, was_recorded, beta, given)}")
    return variant or recorded, values


def _beta_line(
    run: Run,
    values: Mapping[str, Any],
    was_recorded: bool,
    beta: float | None,
    given: Mapping[str, Any] | None,
) -> str:
    value = values.get("beta")
    if value is None:
        reason = (
            "; TRL keeps it in training_args.bin only, a pickle, which is never opened"
            if run.is_trl or (run.folder / "training_args.bin").is_file()
            else ""
        )
        return f"not recorded in the folder{reason}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise CheckpointError(f"{run.folder}: beta must be a number above 0, got {value!r}.")
    if beta is not None or "beta" in (given or {}) or not was_recorded:
        recorded = run.manifest.parameters.get("beta") if run.manifest else None
        instead = f", the run recorded {recorded}" if recorded not in (None, value) else ""
        return f"{value} (given{instead})"
    return f"{value} ({MANIFEST_FILE})"


def find_pairs(run: Run, given: Path | str | None) -> str | None:
    """Path or hub id of the training pairs: given, from the manifest, or from TRL's card."""
    datasets = _texts(run.card.get("datasets")) if run.trl_variant else []
    record = run.manifest.pairs if run.manifest else None
    if given is not None:
        path, why = str(given), "given"
    elif record and Path(record.path).is_absolute() and not Path(record.path).exists():
        path, why = None, f"recorded as {record.path} ({MANIFEST_FILE}), which is not there"
    elif record:
        path, why = record.path, MANIFEST_FILE
    elif len(datasets) == 1:
        path, why = datasets[0], "datasets in TRL's README.md"
    else:
        path, why = None, "not recorded in the folder"
    run.found.append(f"pairs: {path} ({why})" if path else f"pairs: {why}")
    return path


def find_pair_counts(run: Run) -> None:
    """What our own run did to its pairs: kept, swapped, dropped, flipped; 0 is not said."""
    files = [f / TRAINER_STATE for f in (run.place.folder, run.folder)]
    file = next((f for f in files if f.is_file()), None)
    if run.manifest is None or file is None:
        return
    counts = read_state(file).get("pair_counts")
    if isinstance(counts, dict):
        said = [f"{n} {name.replace('_', ' ')}" for name, n in counts.items() if n and _is_count(n)]
        run.found.append(f"pair counts: {', '.join(said) or 'none'} ({TRAINER_STATE})")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _texts(value: Any) -> list[str]:
    """The texts in a front matter entry that may hold one, several or none."""
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, str) and v]
