"""Rows of a log under normalised names, in the order in which they were written.

Start reading at ``rows_of``.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dpo_diag.run_formats._base import LogRow
from dpo_diag.run_formats._files import Folder, number, whole

# other names of the same quantity; ``eval_`` in front is taken off before and put back after
ALIASES = {
    "accuracy": "rewards/accuracies",
    "reward_accuracy": "rewards/accuracies",
    "acc": "rewards/accuracies",
    "acc_mean": "rewards/accuracies",
    "chosen_reward": "rewards/chosen",
    "reject_reward": "rewards/rejected",
    "rejected_reward": "rewards/rejected",
    "reward_margin": "rewards/margins",
    "lr": "learning_rate",
    "grad_norm_mean": "grad_norm",
    "loss_mean": "loss",
    "preference_loss": "loss",
    "gen_len": "length",
    "mean_length": "length",
    "response_length": "length",
    "completions/mean_length": "length",
    "completion_length": "length",
    "logps/accepted": "logps/chosen",
}
# a text in one of these is worth a word; in others (times, names) it belongs there
_WATCHED = re.compile(r"(eval_)?(loss|grad_norm|learning_rate|length|rewards/.*|logps/.*)")
_PRINTED = re.compile(r"""\{'(?:loss|eval_loss)':.*\}""")
_ENTRY = re.compile(r"'([\w/]+)': '?([-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|nan|inf))'?[,}]")
_LONGEST_PIECE = 4_000  # characters
_STEP_NAMES = ("step", "current_steps", "global_step", "train/global_step", "_step")
# what a row must have, besides its step, to be one of the training log
_SUMMARY = {"train_runtime", "train_loss"}
_ASSIGNED = re.compile(r"([A-Za-z_/]+)=\s*([-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|nan|inf))")
_PROGRESS = re.compile(r"(\d+)/(\d+) \[")
_EPOCH = re.compile(r"epoch (\d+)")


def rows_of(
    entries: Iterable[Any], folder: Folder, source: str
) -> tuple[tuple[LogRow, ...], tuple[Mapping[str, Any], ...]]:
    """Log rows, and the entries they were made of; entries without a step are counted and left out.

    Args:
        entries: rows as they stand in the file.
        folder: notes what is wrong with them.
        source: the file.
    """
    rows, raw, strange, stepless = [], [], set(), 0
    for entry in entries:
        if not isinstance(entry, dict):
            stepless += 1
            continue
        step = next((whole(entry[n]) for n in _STEP_NAMES if n in entry), None)
        if step is None:
            stepless += 1
            continue
        values = _values(entry, strange)
        if values:
            rows.append(LogRow(step, values))
            raw.append(entry)
    if stepless:
        folder.say(source, f"{stepless} rows of the log have no step and were left out")
    if strange:
        listed = ", ".join(sorted(strange)[:5])
        folder.say(source, f"these logged quantities hold texts instead of numbers: {listed}")
    return tuple(rows), tuple(raw)


def _values(entry: Mapping[str, Any], strange: set[str]) -> dict[str, float]:
    values: dict[str, float] = {}
    summary = bool(_SUMMARY & set(entry))
    for own, value in entry.items():
        if not isinstance(own, str) or own in _STEP_NAMES or (summary and own != "learning_rate"):
            continue
        name = _normalised(own)
        found = number(value)
        if found is None and value is None and name.endswith(("loss", "grad_norm")):
            found = float("nan")  # writers that know no NaN put null
        if found is not None:
            values.setdefault(name, found)
        elif isinstance(value, str) and _WATCHED.fullmatch(name):
            strange.add(own)
    if "rewards/margins" not in values and {"rewards/chosen", "rewards/rejected"} <= set(values):
        values["rewards/margins"] = values["rewards/chosen"] - values["rewards/rejected"]
    return values


def _normalised(own: str) -> str:
    name = own.removeprefix("train/")
    prefix = ""
    for start in ("eval_", "eval/"):
        if name.startswith(start):
            prefix, name = "eval_", name.removeprefix(start)
    return prefix + ALIASES.get(name, name)


def progress_rows(text: str) -> list[dict[str, float]]:
    """Rows from what a progress bar printed: ``12/100 [..., loss=0.69, acc=0.5]``.

    Steps of later epochs are counted on from the earlier ones; the last state of a step wins.
    """
    found: dict[int, dict[str, float]] = {}
    before, last = 0, (0, 0)
    for piece in _pieces(text):
        place = _PROGRESS.search(piece)
        values = {name: number(value) for name, value in _ASSIGNED.findall(piece)}
        if place is None or not {"loss", "chosen_reward", "eval_loss"} & set(values):
            continue
        n, total = int(place[1][:12]), int(place[2][:12])
        if "eval_loss" in values:
            # acc_mean of an evaluation is the evaluation's
            values = {"eval_loss": values["eval_loss"], "eval_acc": values.get("acc_mean")}
            step = before + last[0]
        else:
            if n < last[0] and _epoch_of(piece) > 0:
                before, last = before + last[1], (0, total)
            last = (n, total)
            step = before + n
        row = found.setdefault(step, {"step": step})
        row |= {name: value for name, value in values.items() if value is not None}
    return list(found.values())


def printed_rows(text: str) -> list[dict[str, float]]:
    """Rows that transformers printed, ``{'loss': 0.69, ...}``, at the step its bar last showed.

    Without a bar before it a row has no step and is left out.
    """
    rows, step = [], None
    for piece in _pieces(text):
        bars = _PROGRESS.findall(piece)
        if bars:
            step = int(bars[-1][0][:12])
        if step is not None and _PRINTED.search(piece):
            values = {name: number(value) for name, value in _ENTRY.findall(piece)}
            rows.append({"step": step} | values)
    return rows


def _pieces(text: str) -> list[str]:
    """What was printed between line ends and returns; of an endless line its end.

    The patterns here take time in the square of a piece's length.
    """
    return [piece[-_LONGEST_PIECE:] for piece in re.split(r"[\r\n]+", text)]


def _epoch_of(piece: str) -> int:
    match = _EPOCH.search(piece)
    return int(match[1][:6]) if match else 0
