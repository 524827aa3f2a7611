"""A folder of OpenRLHF: ``global_step<N>_hf`` models and what its progress bar printed.

OpenRLHF keeps no log beside the model; what it printed is read where the run's output was saved
into the folder, its options from the launch script or the command in that output.

Source: OpenRLHF/OpenRLHF, ``trainer/dpo_trainer.py`` (names in the bar) and ``cli/train_dpo.py``.
"""

import re
import shlex
from typing import Any

from dpo_diag.run_formats._base import RunFormat, RunRecord
from dpo_diag.run_formats._files import LARGEST_TEXT, Folder
from dpo_diag.run_formats._log import progress_rows, rows_of
from dpo_diag.run_formats._settings import TRANSFORMERS, Settings
from dpo_diag.run_formats._transformers import assemble

_ALIASES = {
    **TRANSFORMERS,
    "pretrain": "model",
    "ref_pretrain": "reference",
    "max_len": "max_length",
    "prompt_max_len": "max_prompt_length",
    "max_epochs": "epochs",
    "micro_train_batch_size": "batch_size",
    "max_norm": "max_grad_norm",
    "nll_loss_coef": "sft_weight",
    "lora_rank": "lora_r",
}
_COMMAND = re.compile(r"openrlhf\.cli\.train_dpo|train_dpo\.py")
_STEP = re.compile(r"global_step(\d+)_hf")
_BAR = re.compile(r"chosen_reward=")
# a quarter of a million characters is longer than any command
_LONGEST_COMMAND = 250_000


class OpenRlhf(RunFormat):
    """OpenRLHF."""

    title = "OpenRLHF"

    def claim(self, folder: Folder) -> int:
        """By what its bar printed, its command, or the names of its steps."""
        for name in _texts(folder):
            text = folder.text(name, LARGEST_TEXT) or ""
            if _BAR.search(text) or _COMMAND.search(text):
                return 9
        return 6 if _steps(folder) else 0

    def read(self, folder: Folder) -> RunRecord:
        """What was printed, the command's options, model, tokenizer."""
        settings = Settings(folder, _ALIASES)
        entries: list[dict[str, Any]] = []
        source = ""
        for name in _texts(folder):
            text = folder.text(name, LARGEST_TEXT) or ""
            settings.take(_command_options(text), name)
            found = progress_rows(text)
            if len(found) > len(entries):
                entries, source = found, name
        rows = rows_of(entries, folder, source)
        return assemble(
            folder, "openrlhf", settings, rows=rows, source=source, steps=_steps(folder)
        )


RUN_FORMAT = OpenRlhf


def _texts(folder: Folder) -> list[str]:
    return [*folder.logs(), *folder.names("*.sh")]


def _steps(folder: Folder) -> list[int]:
    matches = [_STEP.fullmatch(p.name) for p in folder.path.glob("global_step*_hf") if p.is_dir()]
    return sorted(int(match[1]) for match in matches if match)


def _command_options(text: str) -> dict[str, Any]:
    """``--name value`` pairs after the command; a name without a value is a switch."""
    match = _COMMAND.search(text)
    if match is None:
        return {}
    joined = text[match.end() : match.end() + _LONGEST_COMMAND].replace("\\\n", " ")
    try:
        words = shlex.split(joined.split("\n", 1)[0], comments=True)
    except ValueError:  # an unclosed quote: take the words as they stand
        words = joined.split("\n", 1)[0].split()
    options: dict[str, Any] = {}
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            # 2025's names have the section in front: --train.learning_rate, --dpo.beta
            name = word[2:].split("=")[0].rsplit(".", 1)[-1].replace("-", "_")
            value = word.split("=", 1)[1] if "=" in word else following
            options[name] = True if value.startswith("--") else value
    if options.pop("ipo", None):
        options["loss_type"] = "ipo"
    return options
