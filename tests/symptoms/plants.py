"""What can be planted in a healthy run folder: each makes one thing wrong, or nearly so."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.run_formats.folders import (
    CHATML,
    Planted,
    Row,
    as_conversations,
    healthy_rows,
    some_pairs,
)

STATE = ("trl", "llamafactory", "axolotl", "dpo_diag")  # trainers with the whole log
OPTIONS = ("trl", "llamafactory", "axolotl", "openrlhf")  # trainers with option files
Change = Callable[[Planted], None]
LN2 = math.log(2)


@dataclass(frozen=True)
class Case:
    """A change to a healthy run, and the trainers whose folders can show it."""

    change: Change
    trainers: tuple[str, ...] = ("trl",)
    severity: str = ""


def each_row(**made: Callable[[float, Row], float]) -> Change:
    """Every row's quantities from the share of the run that is done, and the row."""

    def change(run: Planted) -> None:
        for k, row in enumerate(run.rows):
            done = (k + 0.5) / len(run.rows)
            for name, make in made.items():  # one after the other: later ones see earlier ones
                row[name.replace("__", "/")] = make(done, row)

    return change


def settings(**values: object) -> Change:
    return lambda run: run.settings.update(values)


def own(**values: object) -> Change:
    return lambda run: run.own.update(values)


def together(*changes: Change) -> Change:
    return lambda run: [change(run) for change in changes] and None


def shifted_rewards(by: float) -> Change:
    """A wrong reference: both sides are off by the same from the first row on."""
    return each_row(
        rewards__chosen=lambda _, row: row["rewards/chosen"] + by,
        rewards__rejected=lambda _, row: row["rewards/rejected"] + by,
    )


def sinking(chosen: float, margin: float) -> Change:
    """Chosen rewards that fall to ``chosen`` while the margin grows to ``margin``."""
    rng = np.random.default_rng(1)

    def fall(done: float, _: Row) -> float:
        return chosen * done + float(rng.normal(0, 0.05))

    return each_row(
        rewards__chosen=fall,
        rewards__rejected=lambda done, row: row["rewards/chosen"] - margin * done,
        rewards__margins=lambda done, _: margin * done + float(rng.normal(0, 0.01)),
    )


def flat_loss(margin: float = 0.0, exact: bool = False) -> Change:
    rng = np.random.default_rng(2)
    noise = 0.0 if exact else 1e-3

    def draw(centre: float) -> Callable[[float, Row], float]:
        return lambda done, row: centre + float(rng.normal(0, 1)) * noise

    rows = each_row(
        loss=draw(LN2),
        rewards__chosen=draw(margin / 2),
        rewards__rejected=draw(-margin / 2),
        rewards__margins=draw(margin),
        rewards__accuracies=lambda done, row: 0.5 + 0.02 * float(rng.normal(0, 1)),
    )
    return together(rows, lambda run: run.evaluations.clear())


def broken_from(at: float, *names: str) -> Change:
    def change(run: Planted) -> None:
        for row in run.rows[int(at * len(run.rows)) :]:
            row |= dict.fromkeys(names, math.nan)

    return change


def nan_in_fp16(run: Planted) -> None:
    broken_from(0.4, "loss", "grad_norm")(run)
    run.settings |= {"fp16": True, "bf16": False}


def adapter_on(base: str) -> Change:
    def change(run: Planted) -> None:
        run.adapter = {"base_model_name_or_path": base, "peft_type": "LORA", "r": 16}
        run.settings["learning_rate"] = 5e-6

    return change


def continued_adapter(name: str) -> Change:
    return together(adapter_on("org/base"), own(**{name: "org/sft-adapter"}))


def chat(run: Planted) -> None:
    run.template = CHATML


def without_eos(run: Planted) -> None:
    run.template = CHATML.replace("<|im_end|>", "")


def two_bos(run: Planted) -> None:
    run.template = "{{ bos_token }}{{ bos_token }}" + CHATML


def bos_in_data(run: Planted) -> None:
    run.tokenizer["add_bos_token"] = True
    run.pairs = [row | {"prompt": "<s>" + row["prompt"]} for row in some_pairs()]


def not_a_prefix(run: Planted) -> None:
    run.template = CHATML.replace("<|im_start|>assistant\n{%", "<|im_start|>assistant\n<think>\n{%")


def not_a_prefix_of_the_data(run: Planted) -> None:
    not_a_prefix(run)
    run.pairs = as_conversations(some_pairs())


def scores_reversed(run: Planted) -> None:
    run.pairs = [row | {"score_chosen": 2.0, "score_rejected": 7.5} for row in some_pairs()]


def scores_right(run: Planted) -> None:
    run.pairs = [row | {"score_chosen": 7.5, "score_rejected": 2.0} for row in some_pairs()]


def swapped_evaluation(run: Planted) -> None:
    for k, row in enumerate(run.evaluations):
        row |= {"eval_rewards/margins": -0.2 * k - 0.1, "eval_rewards/accuracies": 0.45 - 0.06 * k}


def pushed_backwards(run: Planted) -> None:
    each_row(
        rewards__margins=lambda done, _: -0.8 * done,
        rewards__accuracies=lambda done, _: 0.5 - 0.3 * done,
        rewards__chosen=lambda done, _: -0.4 * done,
        rewards__rejected=lambda done, _: 0.4 * done,
    )(run)
    run.evaluations = []


def refusals_chosen(run: Planted) -> None:
    run.pairs = [row | {"chosen": "I'm sorry, I can't help."} for row in some_pairs()]


def shared_with_test(run: Planted) -> None:
    run.pairs = some_pairs()
    run.test = [*some_pairs(10), *some_pairs(30, prefix="new")]


def shared_in_one_file(run: Planted) -> None:
    parts = [("train", some_pairs()), ("test", [*some_pairs(1), *some_pairs(40, prefix="new")])]
    run.pairs = [
        row | {"split": split, "chosen": f"{row['chosen']} {split}"}
        for split, rows in parts
        for row in rows
    ]


def disjoint_test(run: Planted) -> None:
    run.pairs, run.test = some_pairs(), some_pairs(30, prefix="new")


def long_pairs(run: Planted) -> None:
    run.settings["max_length"] = 128
    run.pairs = [row | {"rejected": row["rejected"] + " word" * 150} for row in some_pairs()]


def long_prompts(run: Planted) -> None:
    run.settings["max_length"] = 128
    run.pairs = [row | {"prompt": row["prompt"] + " word" * 150} for row in some_pairs()]


def overfitted(run: Planted) -> None:
    losses = [0.65, 0.58, 0.62, 0.68, 0.75]
    for row, loss in zip(run.evaluations, losses, strict=True):
        row["eval_loss"] = loss


def memorised(run: Planted) -> None:
    for row in run.rows[-20:]:
        row["rewards/accuracies"] = 0.97 + 0.01 * (row["step"] % 2)
    for row in run.evaluations:
        row["eval_rewards/accuracies"] = 0.55


def easy_evaluation(run: Planted) -> None:
    for row in run.evaluations:
        row["eval_rewards/accuracies"] = 1.0


def perfect(run: Planted) -> None:
    each_row(
        rewards__accuracies=lambda done, _: 1.0 if done > 0.2 else 0.7,
        loss=lambda done, _: 0.001 if done > 0.2 else 0.5,
    )(run)
    for row in run.evaluations:
        row["eval_rewards/accuracies"] = 0.98


def perfect_at_first(run: Planted) -> None:
    """Ones and zeros among other values: small batches, not single pairs."""
    run.rows[0]["rewards/accuracies"], run.rows[1]["rewards/accuracies"] = 1.0, 0.0


def single_pairs(run: Planted) -> None:
    rng = np.random.default_rng(3)
    for row in run.rows:
        row["rewards/accuracies"] = float(rng.random() < 0.65)


def resumed(run: Planted) -> None:
    run.rows = [*run.rows[:24], *healthy_rows(seed=1)[16:]]
    run.evaluations = []


def only_a_few(run: Planted) -> None:
    run.rows, run.evaluations = run.rows[:4], []


def emptied(run: Planted) -> None:
    run.rows, run.evaluations = [], []


def nothing_saved(run: Planted) -> None:
    run.steps, run.final = (), False


def broken_state(run: Planted) -> None:
    run.files["trainer_state.json"] = '{"global_step": 200, "log_history": [{"loss": 0.6'


def loss_only(run: Planted, first: float) -> None:
    """A log without rewards, one row per step at first."""
    run.evaluations = []
    run.rows = [
        {
            name: value
            for name, value in row.items()
            if "rewards" not in name and "logps" not in name
        }
        for row in run.rows
    ]
    run.rows.insert(0, run.rows[0] | {"step": 1, "loss": first})


def with_lengths(end: float) -> Change:
    rng = np.random.default_rng(4)

    def change(run: Planted) -> None:
        for k, row in enumerate(run.rows):
            done = (k + 0.5) / len(run.rows)
            row["completions/mean_length"] = 200 * (1 + (end - 1) * done) + float(rng.normal(0, 5))

    return change
