"""A folder of ours: ``dpo_diag.json``, ``recipe.toml``, transformers' layout and state.

Source: ``manifest.RunManifest`` and ``training.recipe``; read here as plain files, so that a
broken record of ours is a finding like any other.
"""

from typing import Any

from dpo_diag.run_formats._base import RunFormat, RunRecord
from dpo_diag.run_formats._files import Folder
from dpo_diag.run_formats._settings import NAMES, Settings
from dpo_diag.run_formats._transformers import assemble, state_log

_MANIFEST = "dpo_diag.json"
_RECIPE = "recipe.toml"
# section of the recipe -> its keys that have another name, or are read at all
_KEYS = {
    "optimizer": {"learning_rate": "learning_rate", "max_grad_norm": "max_grad_norm"},
    "data": {"max_length": "max_length"},
    "log": {"log_every": "logging_steps"},
    "run": {"gradient_checkpointing": "gradient_checkpointing", "model": "model"},
}


class DpoDiag(RunFormat):
    """dpo-diag."""

    title = "dpo-diag"

    def claim(self, folder: Folder) -> int:
        """By its manifest."""
        return 10 if folder.has(_MANIFEST) else 0

    def read(self, folder: Folder) -> RunRecord:
        """Manifest, recipe, state, model, tokenizer."""
        settings = Settings(folder, {name: name for name in NAMES})
        _manifest(settings, folder.json(_MANIFEST))
        recipe = folder.toml(_RECIPE)
        for section, keys in _KEYS.items():
            for own, name in keys.items():
                value = _table(recipe, section).get(own)
                # 0 stands for "no limit" in a recipe
                if value != 0 or name == "learning_rate":
                    settings.put(name, value, _RECIPE)
        settings.put("batch_size", _table(recipe, "optimizer").get("batch_size"), _RECIPE)
        settings.put("epochs", _table(recipe, "optimizer").get("epochs"), _RECIPE)
        rows, source = state_log(folder, settings)
        return assemble(folder, "dpo_diag", settings, rows=rows, source=source)


RUN_FORMAT = DpoDiag


def _manifest(settings: Settings, manifest: dict[str, Any]) -> None:
    if manifest and not isinstance(manifest.get("variant"), str):
        settings.folder.say(_MANIFEST, "names no variant, so the method is not known")
    settings.put("loss_type", manifest.get("variant"), _MANIFEST)
    parameters = _table(manifest, "parameters")
    settings.put("beta", parameters.get("beta"), _MANIFEST)
    settings.put("gamma", parameters.get("gamma"), _MANIFEST)
    settings.put("label_smoothing", parameters.get("label_smoothing"), _MANIFEST)
    for part in ("base", "reference"):
        settings.put(f"{part}_fingerprint", _table(manifest, part).get("fingerprint"), _MANIFEST)
    if manifest and manifest.get("reference", {}) is None:
        settings.put("reference_free", True, _MANIFEST)
    settings.put("reference", _table(manifest, "reference").get("path"), _MANIFEST)


def _table(values: dict[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key)
    return found if isinstance(found, dict) else {}
