"""A folder of axolotl: TRL's state plus a model card, or a file, with the whole configuration.

Source: axolotl-ai-cloud/axolotl, ``train.py`` (the card's "See axolotl config"), ``rl: dpo``
options of its configuration reference.
"""

import re
from collections.abc import Mapping
from typing import Any

from dpo_diag.run_formats._base import RunFormat, RunRecord
from dpo_diag.run_formats._files import Folder
from dpo_diag.run_formats._settings import TRANSFORMERS, Settings, card_facts
from dpo_diag.run_formats._transformers import assemble, state_log

_ALIASES = {
    **TRANSFORMERS,
    "base_model": "model",
    "rl_beta": "beta",
    "dpo_beta": "beta",
    "orpo_alpha": "beta",
    "dpo_label_smoothing": "label_smoothing",
    "cpo_alpha": "sft_weight",
    "sequence_len": "max_length",
    "micro_batch_size": "batch_size",
    "num_epochs": "epochs",
    "lora_model_dir": "start_adapter",
}
_KEYS = {"base_model", "micro_batch_size", "rl", "sequence_len", "num_epochs"}
_LOSSES = {"ipo": "ipo", "orpo": "orpo", "kto": "kto", "simpo": "simpo", "dpo": "sigmoid"}
_IN_CARD = re.compile(r"axolotl version:[^\n]*\n+```ya?ml\n(.*?)\n```", re.DOTALL)
_CARD = "README.md"


class Axolotl(RunFormat):
    """axolotl."""

    title = "axolotl"

    def claim(self, folder: Folder) -> int:
        """By the configuration in its card, or an option file with its names."""
        if _IN_CARD.search(folder.text(_CARD) or ""):
            return 9
        return 8 if _option_names(folder) else 0

    def read(self, folder: Folder) -> RunRecord:
        """Configuration, state, card, model, tokenizer."""
        settings = Settings(folder, _ALIASES)
        for name in _option_names(folder):
            _take(settings, folder.yaml(name), name)
        _take(settings, _from_card(folder), _CARD)
        rows, source = state_log(folder, settings)
        card_facts(settings)
        return assemble(folder, "axolotl", settings, rows=rows, source=source)


RUN_FORMAT = Axolotl


def _take(settings: Settings, config: Mapping[str, Any], source: str) -> None:
    settings.take(config, source)
    method = str(config.get("rl") or "").lower()
    settings.put("loss_type", _LOSSES.get(method), source)
    if config.get("rl_adapter_ref_model") is True:
        settings.put("reference_adapter", config.get("lora_model_dir"), source)


def _option_names(folder: Folder) -> list[str]:
    names = folder.names("*.yaml", "*.yml")
    return [name for name in names if len(_KEYS & set(folder.yaml(name))) >= 3]


def _from_card(folder: Folder) -> dict[str, Any]:
    import yaml

    match = _IN_CARD.search(folder.text(_CARD) or "")
    if match is None:
        return {}
    try:
        config = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        folder.say(_CARD, "the axolotl configuration in it cannot be read as YAML")
        return {}
    return config if isinstance(config, dict) else {}
