"""A folder of LLaMA-Factory: TRL's state plus ``trainer_log.jsonl`` and its own option names.

The log in ``trainer_state.json`` has the rewards; ``trainer_log.jsonl``, which has loss and
accuracy only, is read where that is missing. With LoRA and no reference model named the reference
is the policy with its adapter switched off.

Source: hiyouga/LLaMA-Factory, ``train/callbacks.py`` (``LogCallback``), ``hparams``,
``train/trainer_utils.py`` (``create_ref_model``).
"""

from dpo_diag.run_formats._base import RunFormat, RunRecord
from dpo_diag.run_formats._files import Folder, front_matter, tags_of
from dpo_diag.run_formats._log import rows_of
from dpo_diag.run_formats._settings import TRANSFORMERS, Settings, card_facts
from dpo_diag.run_formats._transformers import assemble, state_log

LOG = "trainer_log.jsonl"
_ALIASES = {
    **TRANSFORMERS,
    "pref_beta": "beta",
    "dpo_beta": "beta",
    "pref_loss": "loss_type",
    "dpo_loss": "loss_type",
    "pref_ftx": "sft_weight",
    "dpo_ftx": "sft_weight",
    "dpo_label_smoothing": "label_smoothing",
    "cutoff_len": "max_length",
    "adapter_name_or_path": "start_adapter",
    "create_new_adapter": "creates_adapter",
    "ref_model_adapters": "reference_adapter",
    "lora_rank": "lora_r",
}
_KEYS = {"pref_beta", "pref_loss", "finetuning_type", "cutoff_len", "stage"}


class LlamaFactory(RunFormat):
    """LLaMA-Factory."""

    title = "LLaMA-Factory"

    def claim(self, folder: Folder) -> int:
        """By its log, its card's tag, or an option file with its names."""
        if folder.has(LOG) or "llama-factory" in tags_of(front_matter(folder)):
            return 8
        return 7 if _option_names(folder) else 0

    def read(self, folder: Folder) -> RunRecord:
        """State or log, option files, card, model, tokenizer."""
        settings = Settings(folder, _ALIASES)
        for name in _option_names(folder):
            settings.take(folder.yaml(name), name)
        rows, source = state_log(folder, settings)
        if not rows[0] and folder.has(LOG):
            rows, source = rows_of(folder.jsonl(LOG), folder, LOG), LOG
        card_facts(settings)
        for name in ("all_results.json", "eval_results.json"):
            folder.json(name)
        return assemble(folder, "llamafactory", settings, rows=rows, source=source)


RUN_FORMAT = LlamaFactory


def _option_names(folder: Folder) -> list[str]:
    names = folder.names("*.yaml", "*.yml")
    return [name for name in names if len(_KEYS & set(folder.yaml(name))) >= 2]
