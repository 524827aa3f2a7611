"""A trainer's own option names turned into one vocabulary, each value with the file that says it.

Start reading at ``NAMES``, the vocabulary; ``Settings`` collects values under it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpo_diag.run_formats._base import Fact
from dpo_diag.run_formats._files import (
    Folder,
    brief,
    flag,
    front_matter,
    number,
    tags_of,
    text_of,
)

# normalised name -> (what it holds, meaning)
NAMES: dict[str, tuple[str, str]] = {
    "beta": ("number", "strength of the pull to the reference"),
    "loss_type": ("text", "the loss"),
    "gamma": ("number", "target margin of SimPO, or its ratio to beta"),
    "label_smoothing": ("number", "assumed share of wrong labels"),
    "reference_free": ("flag", "rewards are taken without the reference"),
    "sft_weight": ("number", "weight of the likelihood of the chosen answer"),
    "learning_rate": ("number", "its peak"),
    "epochs": ("number", "passes over the pairs"),
    "max_steps": ("number", "optimiser steps planned"),
    "global_step": ("number", "optimiser steps done"),
    "logging_steps": ("number", "steps that a row of the log averages over"),
    "batch_size": ("number", "pairs per device and pass"),
    "accumulation": ("number", "passes per optimiser step"),
    "max_grad_norm": ("number", "gradients longer than this are cut; 0: never"),
    "max_length": ("number", "tokens of prompt and answer together"),
    "max_prompt_length": ("number", "tokens of the prompt"),
    "fp16": ("flag", "half precision with a scaled loss"),
    "bf16": ("flag", "bfloat16"),
    "gradient_checkpointing": ("flag", "activations are computed twice"),
    "model": ("text", "what training started from"),
    "reference": ("text", "the reference, where one is named"),
    "start_adapter": ("text", "adapter that training went on from"),
    "creates_adapter": ("flag", "a new adapter was put on the merged model"),
    "reference_adapter": ("text", "adapter of the reference, or TRL's copy ref/"),
    "adapter_base": ("text", "base named in adapter_config.json"),
    "lora_r": ("number", "rank of the adapter"),
    "lora_alpha": ("number", "its scale"),
    "lora_dropout": ("number", "its dropout"),
    "hidden_size": ("number", "width of the model"),
    "weights_dtype": ("text", "precision of the saved weights"),
    "base_fingerprint": ("text", "weights that training started from"),
    "reference_fingerprint": ("text", "weights of the reference"),
    "trainer": ("text", "trainer named by the model card"),
}
# Names that TRL, transformers and PEFT share with most others.
TRANSFORMERS = {
    **{name: name for name in NAMES},
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulation",
    "model_name_or_path": "model",
    "ref_model": "reference",
    "ref_model_name_or_path": "reference",
    "ref_adapter_name": "reference_adapter",
    "rpo_alpha": "sft_weight",
    "simpo_gamma": "gamma",
    "dpo_alpha": "sft_weight",
}
_CARD_LOSSES = {"dpo": "", "cpo": "cpo", "orpo": "orpo", "kto": "kto", "simpo": "simpo"}


_READERS = {"number": number, "flag": flag, "text": text_of}


class Settings:
    """Facts under normalised names; the first file to say a value wins."""

    def __init__(self, folder: Folder, aliases: Mapping[str, str]) -> None:
        self.folder = folder
        self.aliases = aliases
        self.facts: dict[str, Fact] = {}

    def put(self, name: str, value: Any, source: str) -> None:
        """Keep a value under its normalised name, if it is of the kind that belongs there."""
        kind = NAMES[name][0]
        if isinstance(value, list) and kind == "text":  # several losses or adapters
            value = "+".join(str(part) for part in value[:8] if isinstance(part, str))
        found = _READERS[kind](value)
        if found is not None:
            self.facts.setdefault(name, Fact(found, source))
        elif kind == "number" and not _is_unset(value):
            self.folder.say(source, f"{name} should be a {kind}, found {brief(value)}")

    def take(self, values: Mapping[str, Any], source: str) -> None:
        """Keep what a file of options says under the format's own names."""
        for own, value in values.items():
            if not isinstance(own, str):
                continue
            name = self.aliases.get(own.removeprefix("--").replace("-", "_"))
            if isinstance(value, dict) and set(value) & {"value", "desc"}:  # wandb's config.yaml
                value = value.get("value")
            if name:
                self.put(name, value, source)


def _is_unset(value: Any) -> bool:
    """Whether a value leaves the number to the trainer, or to a variable of the shell."""
    if isinstance(value, str):
        return value.lower() in ("", "none", "null", "auto") or value.startswith("$")
    return value is None or value is False


def model_facts(settings: Settings) -> None:
    """What config.json and adapter_config.json say; a broken generation_config.json is noted."""
    folder = settings.folder
    for name in ("config.json", *_last(folder, "config.json")):
        config = folder.json(name)
        text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
        settings.put("hidden_size", text.get("hidden_size"), name)
        settings.put("weights_dtype", config.get("dtype") or config.get("torch_dtype"), name)
    folder.json("generation_config.json")
    for name in ("adapter_config.json", *_last(folder, "adapter_config.json")):
        _adapter_facts(settings, name)
    _width_of_start(settings)
    start = settings.facts.get("model")
    if start and _has(Path(start.value), "adapter_config.json"):
        settings.put("start_adapter", start.value, start.source)


def _adapter_facts(settings: Settings, name: str) -> None:
    folder, config = settings.folder, settings.folder.json(name)
    if not config:
        return
    settings.put("adapter_base", config.get("base_model_name_or_path"), name)
    settings.put("lora_r", config.get("r"), name)
    settings.put("lora_alpha", config.get("lora_alpha"), name)
    settings.put("lora_dropout", config.get("lora_dropout"), name)
    copy = name.replace("adapter_config.json", "ref/adapter_config.json")
    if folder.has(copy):
        settings.put("reference_adapter", "ref/", copy)


def _width_of_start(settings: Settings) -> None:
    """The width of the model that training began from, where its folder is at hand."""
    path = settings.folder.path
    for name in ("adapter_base", "model", "reference"):
        fact = settings.facts.get(name)
        for place in (path / fact.value, path.parent / fact.value) if fact else ():
            if "hidden_size" not in settings.facts and _has(place, "config.json"):
                config = Folder(place).json("config.json")
                settings.put("hidden_size", config.get("hidden_size"), fact.source)


def _has(place: Path, name: str) -> bool:
    try:
        return (place / name).is_file()
    except (OSError, ValueError):  # a name that no file system takes
        return False


def card_facts(settings: Settings) -> None:
    """What the model card's front matter says."""
    card = front_matter(settings.folder)
    base = card.get("base_model")
    settings.put("model", base if isinstance(base, str) else None, "README.md")
    for tag in sorted(tags_of(card) & set(_CARD_LOSSES)):
        settings.put("trainer", tag, "README.md")
        if _CARD_LOSSES[tag]:
            settings.put("loss_type", _CARD_LOSSES[tag], "README.md")


def option_files(settings: Settings, *names: str) -> None:
    """Option files by name, JSON or YAML, in the order given."""
    folder = settings.folder
    for name in names:
        if folder.has(name):
            values = folder.json(name) if name.endswith(".json") else folder.yaml(name)
            settings.take(values, name)


def _last(folder: Folder, name: str) -> list[str]:
    """The file in the last checkpoint, which describes a run without a final model."""
    found = folder.names(f"checkpoint-*/{name}", f"global_step*_hf/{name}")
    return found[-1:]
