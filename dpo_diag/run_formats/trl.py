"""A folder of TRL's trainers, and of anything else that leaves ``trainer_state.json``.

TRL keeps beta and the loss in ``training_args.bin`` only, a pickle, which is never opened; they are
known where an option file lies beside it (``trl dpo --config``, the alignment handbook, wandb).

Source: trl 1.16, ``DPOTrainer`` and ``DPOConfig``; transformers 5, ``TrainerState``.
"""

from dpo_diag.model_folders import step_folders
from dpo_diag.run_formats._base import RunFormat, RunRecord
from dpo_diag.run_formats._files import Folder, front_matter, tags_of
from dpo_diag.run_formats._settings import TRANSFORMERS, Settings, card_facts, option_files
from dpo_diag.run_formats._transformers import assemble, state_file, state_log

_OPTIONS = ("training_args.json", "args.json", "training_args.yaml", "args.yaml", "dpo_config.yaml")


class Trl(RunFormat):
    """TRL, or plain transformers."""

    title = "TRL"

    def claim(self, folder: Folder) -> int:
        """By its model card's tag; weakly by what transformers leaves."""
        if "trl" in tags_of(front_matter(folder)):
            return 4
        names = ("adapter_config.json", "training_args.bin", "config.json")
        if state_file(folder) or step_folders(folder.path):
            return 2
        return 1 if any(folder.has(name) for name in names) else 0

    def read(self, folder: Folder) -> RunRecord:
        """State, option files, card, model, tokenizer."""
        settings = Settings(folder, TRANSFORMERS)
        extra = folder.names(
            "config*.y*ml", "recipe*.y*ml", "dpo*.y*ml", "wandb/*/files/config.yaml"
        )
        option_files(settings, *_OPTIONS, *(n for n in extra if n not in _OPTIONS))
        rows, source = state_log(folder, settings)
        card_facts(settings)
        return assemble(folder, "trl", settings, rows=rows, source=source)


RUN_FORMAT = Trl
