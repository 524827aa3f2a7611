"""Every rule of the doctor: a planted case that it names first, a healthy one in which it is still.

The two tables are the contract: a rule without both fails. Planted cases are whole folders in the
layout of each trainer that can show them, read from disk as a user's would be.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dpo_diag import registry
from dpo_diag.pairs import read_pairs
from dpo_diag.pipeline.doctor import Diagnosis, diagnose
from dpo_diag.symptoms._base import CERTAINTIES, SEVERITIES
from tests.run_formats.folders import (
    CHATML,
    TRAINERS,
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


PLANTED: dict[str, list[Case]] = {
    "reward_at_start": [
        Case(shifted_rewards(3.0), TRAINERS, "error"),
        Case(shifted_rewards(-0.2), STATE, "warning"),
        Case(lambda run: run.rows.insert(0, run.rows[0] | {"step": 1, "rewards/chosen": 5.0})),
    ],
    "adapter_reference": [
        Case(continued_adapter("adapter_name_or_path"), ("llamafactory",), "error"),
        Case(continued_adapter("lora_model_dir"), ("axolotl",), "error"),
        Case(continued_adapter("start_adapter"), ("trl",), "error"),
    ],
    "reference_differs": [
        Case(own(ref_model="org/base-model"), ("trl", "llamafactory"), "warning"),
        Case(own(ref_pretrain="org/base-model"), ("openrlhf",), "warning"),
        Case(own(reference_fingerprint="cd" * 32), ("dpo_diag",), "warning"),
    ],
    "batch_of_one": [Case(single_pairs, TRAINERS, "warning")],
    "not_finite": [
        Case(broken_from(0.5, "loss", "rewards/chosen"), TRAINERS, "error"),
        Case(broken_from(0.9, "grad_norm"), STATE, "error"),
    ],
    "half_precision": [
        Case(nan_in_fp16, ("trl", "llamafactory", "axolotl"), "error"),
        Case(settings(fp16=True, bf16=False), OPTIONS, "note"),
    ],
    "policy_is_reference": [Case(flat_loss(exact=True), TRAINERS, "error")],
    "loss_zero": [Case(each_row(loss=lambda done, _: 0.0), TRAINERS, "error")],
    "loss_stuck": [Case(flat_loss(), TRAINERS, "error")],
    "chosen_falls": [
        Case(sinking(-8.0, 3.0), STATE, "warning"),
        Case(sinking(-8.0, 0.0), STATE, "error"),
        Case(sinking(-0.5, 1.0), TRAINERS, "note"),
    ],
    "rejected_rises": [
        Case(sinking(2.0, 0.0), STATE, "warning"),
        Case(sinking(3.0, 1.0), TRAINERS, "note"),
    ],
    "length_drift": [
        Case(with_lengths(2.0), STATE, "warning"),
        Case(with_lengths(0.5), STATE, "warning"),
        Case(with_lengths(1.35), STATE, "note"),
    ],
    "missing_eos": [
        Case(without_eos, TRAINERS, "error"),
        Case(lambda run: run.tokenizer.pop("eos_token"), TRAINERS, "error"),
    ],
    "doubled_bos": [
        Case(two_bos, TRAINERS, "error"),
        Case(bos_in_data, TRAINERS, "error"),
    ],
    "template_prefix": [
        Case(not_a_prefix, TRAINERS, "error"),
        Case(not_a_prefix_of_the_data, ("trl",), "error"),
        Case(lambda run: setattr(run, "template", "{{ nothing.at.all() }}"), TRAINERS, "warning"),
    ],
    "swapped_columns": [
        Case(scores_reversed, TRAINERS, "error"),
        Case(swapped_evaluation, STATE, "error"),
        Case(pushed_backwards, STATE, "error"),
        Case(refusals_chosen, ("trl",), "warning"),
    ],
    "shared_prompts": [
        Case(shared_with_test, TRAINERS, "error"),
        Case(shared_in_one_file, ("trl",), "warning"),
    ],
    "beta_range": [
        Case(settings(beta=10.0), TRAINERS, "warning"),
        Case(settings(beta=1e-4), TRAINERS, "warning"),
        Case(settings(beta=0.0), TRAINERS, "error"),
        Case(settings(beta=0.7), TRAINERS, "note"),
    ],
    "learning_rate_range": [
        Case(settings(learning_rate=5e-5), TRAINERS, "warning"),
        Case(settings(learning_rate=1e-9), TRAINERS, "warning"),
        Case(together(adapter_on("org/base"), settings(learning_rate=2e-3)), OPTIONS[:3]),
    ],
    "learning_rate_zero": [
        Case(each_row(learning_rate=lambda done, _: 5e-7 if done < 0.4 else 0.0), TRAINERS),
        Case(
            together(flat_loss(exact=True), each_row(learning_rate=lambda done, _: 0.0)),
            TRAINERS,
            "error",
        ),
    ],
    "gradient_norm": [
        Case(each_row(grad_norm=lambda done, _: math.exp(8 * done)), STATE, "warning"),
        Case(each_row(grad_norm=lambda done, _: 900.0 if 0.5 < done < 0.52 else 1.0), STATE),
        Case(each_row(grad_norm=lambda done, row: 5 + row["grad_norm"]), STATE, "note"),
    ],
    "evaluation_gap": [Case(memorised, STATE, "warning"), Case(easy_evaluation, STATE, "warning")],
    "best_step_early": [Case(overfitted, STATE, "warning")],
    "saturated": [Case(perfect, STATE, "warning")],
    "pad_is_eos": [
        Case(lambda run: run.tokenizer.update(pad_token="<|im_end|>"), TRAINERS, "note")
    ],
    "truncation": [
        Case(long_pairs, TRAINERS, "warning"),
        Case(long_prompts, TRAINERS, "error"),
        Case(own(max_prompt_length=1024), ("trl", "llamafactory", "axolotl"), "error"),
        Case(settings(max_length=128), TRAINERS, "note"),
    ],
    "reference_unused": [
        Case(
            together(settings(loss_type="simpo", beta=2.0), own(ref_model="org/sft-model")),
            ("trl", "llamafactory"),
            "warning",
        )
    ],
    "label_smoothing": [
        Case(settings(label_smoothing=0.6), TRAINERS, "error"),
        Case(settings(label_smoothing=0.1, loss_type="ipo"), OPTIONS, "warning"),
        Case(settings(label_smoothing=0.0, loss_type="robust"), ("trl",), "warning"),
    ],
    "step_order": [Case(resumed, STATE, "warning")],
    "few_rows": [Case(only_a_few, TRAINERS, "note"), Case(emptied, STATE, "warning")],
    "unreadable_files": [
        Case(broken_state, STATE, "error"),
        Case(lambda run: run.files.update({"generation_config.json": "{"}), TRAINERS, "warning"),
        Case(settings(beta="a lot"), ("trl", "llamafactory", "axolotl"), "warning"),
    ],
    "no_checkpoints": [Case(nothing_saved, TRAINERS, "warning")],
    "first_loss": [
        Case(lambda run: loss_only(run, 1.1), STATE[:3], "warning"),
        Case(
            together(lambda run: loss_only(run, 8 * LN2), own(gradient_accumulation_steps=8)),
            STATE[:3],
            "note",
        ),
    ],
}

# What looks like the fault and is none.
HEALTHY: dict[str, list[Case]] = {
    "reward_at_start": [
        Case(lambda run: run.rows.insert(0, run.rows[0] | {"step": 1, "rewards/chosen": 0.01})),
        Case(sinking(-3.0, 5.0), TRAINERS),  # learned fast, from 0
        Case(together(settings(loss_type="simpo", beta=2.0), shifted_rewards(-3.0)), ("trl",)),
    ],
    "adapter_reference": [
        Case(adapter_on("org/base"), OPTIONS[:3]),
        Case(
            together(continued_adapter("adapter_name_or_path"), own(create_new_adapter=True)),
            ("llamafactory",),
        ),
        Case(
            together(continued_adapter("lora_model_dir"), own(rl_adapter_ref_model=True)),
            ("axolotl",),
        ),
        Case(
            together(
                continued_adapter("start_adapter"),
                lambda run: run.files.update({"ref/adapter_config.json": "{}"}),
            )
        ),
    ],
    "reference_differs": [
        Case(own(ref_model="org/sft-model/"), ("trl", "llamafactory")),
        Case(own(ref_pretrain="org/sft-model"), ("openrlhf",)),
        Case(own(), ("dpo_diag",)),
    ],
    "batch_of_one": [Case(perfect_at_first, TRAINERS)],
    "not_finite": [Case(settings(bf16=True), TRAINERS)],
    "half_precision": [Case(settings(bf16=True), TRAINERS)],
    "policy_is_reference": [Case(flat_loss(0.05), TRAINERS)],
    "loss_zero": [Case(each_row(loss=lambda done, _: 0.69 * (1 - done) ** 2), TRAINERS)],
    "loss_stuck": [
        Case(settings(loss_type="ipo"), OPTIONS),
        Case(each_row(loss=lambda done, _: LN2 - 0.05 * done), TRAINERS),
    ],
    "chosen_falls": [Case(lambda run: None, TRAINERS), Case(sinking(-0.05, 0.5), TRAINERS)],
    "rejected_rises": [Case(lambda run: None, TRAINERS)],
    "length_drift": [Case(with_lengths(1.05), STATE)],
    "missing_eos": [Case(lambda run: None, TRAINERS), Case(chat, TRAINERS)],
    "doubled_bos": [
        Case(lambda run: setattr(run, "template", "{{ bos_token }}" + CHATML), TRAINERS),
        Case(lambda run: setattr(run, "pairs", some_pairs()), TRAINERS),
    ],
    "template_prefix": [
        Case(chat),
        Case(together(chat, lambda run: setattr(run, "pairs", as_conversations(some_pairs())))),
    ],
    "swapped_columns": [Case(scores_right, TRAINERS)],
    "shared_prompts": [Case(disjoint_test, TRAINERS)],
    "beta_range": [
        Case(settings(beta=0.01), TRAINERS),
        Case(settings(beta=2.5, loss_type="simpo"), ("trl", "llamafactory")),
    ],
    "learning_rate_range": [
        Case(settings(learning_rate=1e-6), TRAINERS),
        Case(together(adapter_on("org/base"), settings(learning_rate=1e-5)), OPTIONS[:3]),
    ],
    "learning_rate_zero": [
        Case(each_row(learning_rate=lambda done, _: 5e-7 * (1 + math.cos(math.pi * done)) / 2)),
    ],
    "gradient_norm": [Case(each_row(grad_norm=lambda done, row: row["grad_norm"] * 0.5), STATE)],
    "evaluation_gap": [Case(lambda run: None, STATE)],
    "best_step_early": [
        Case(
            lambda run: (
                [
                    row.update(eval_loss=loss)
                    for row, loss in zip(
                        run.evaluations, (0.6, 0.55, 0.551, 0.549, 0.552), strict=True
                    )
                ]
                and None
            ),
            STATE,
        )
    ],
    "saturated": [Case(each_row(rewards__accuracies=lambda done, _: 0.6 + 0.3 * done), STATE)],
    "pad_is_eos": [Case(lambda run: None, TRAINERS)],
    "truncation": [Case(lambda run: setattr(run, "pairs", some_pairs()), TRAINERS)],
    "reference_unused": [
        Case(settings(loss_type="simpo", beta=2.0), ("trl", "llamafactory")),
        Case(own(ref_model="org/sft-model"), ("trl", "llamafactory")),
    ],
    "label_smoothing": [
        Case(settings(label_smoothing=0.1), TRAINERS),
        Case(settings(label_smoothing=0.1, loss_type="robust"), ("trl",)),
    ],
    "step_order": [Case(lambda run: None, TRAINERS)],
    "few_rows": [Case(lambda run: None, TRAINERS)],
    "unreadable_files": [Case(lambda run: None, TRAINERS)],
    "no_checkpoints": [
        Case(lambda run: setattr(run, "final", False), TRAINERS),
        Case(lambda run: setattr(run, "steps", ()), TRAINERS),
    ],
    "first_loss": [Case(lambda run: loss_only(run, 0.70), STATE[:3])],
}
NAMES = registry.names("symptoms")


def spread(table: dict[str, list[Case]]) -> list:
    """One parameter set per symptom, case and trainer."""
    return [
        pytest.param(name, case, trainer, id=f"{name}-{k}-{trainer}")
        for name, cases in table.items()
        for k, case in enumerate(cases)
        for trainer in case.trainers
    ]


def diagnosed(case: Case, trainer: str, folder: Path) -> Diagnosis:
    run = Planted(trainer)
    case.change(run)
    path = run.write(folder / "run")
    pairs, test = (run.write_pairs(folder, name) for name in ("pairs", "test"))
    return diagnose(path, pairs=pairs and read_pairs(pairs), test=test and read_pairs(test))


def test_every_symptom_has_a_planted_and_a_healthy_case() -> None:
    assert sorted(PLANTED) == NAMES
    assert sorted(HEALTHY) == NAMES
    assert all(any(case.trainers for case in cases) for cases in HEALTHY.values())


@pytest.mark.parametrize(("name", "case", "trainer"), spread(PLANTED))
def test_planted_fault_is_named_first(name: str, case: Case, trainer: str, tmp_path: Path) -> None:
    diagnosis = diagnosed(case, trainer, tmp_path)
    assert diagnosis.record.format == trainer
    assert diagnosis.findings, diagnosis.not_examined
    first = diagnosis.findings[0]
    assert first.symptom == name, [(f.symptom, f.severity, f.evidence) for f in diagnosis.findings]
    assert first.severity == case.severity or not case.severity


@pytest.mark.parametrize(("name", "case", "trainer"), spread(HEALTHY))
def test_healthy_case_is_no_more_than_a_note(
    name: str, case: Case, trainer: str, tmp_path: Path
) -> None:
    diagnosis = diagnosed(case, trainer, tmp_path)
    assert name not in {finding.symptom for finding in diagnosis.findings}
    loud = [(f.symptom, f.evidence) for f in diagnosis.findings if f.severity != "note"]
    assert loud == []


@pytest.mark.parametrize("trainer", TRAINERS)
def test_untouched_run_has_no_finding_at_all(trainer: str, tmp_path: Path) -> None:
    diagnosis = diagnosed(Case(lambda run: None), trainer, tmp_path)
    assert diagnosis.findings == ()
    assert len(diagnosis.passed) + len(diagnosis.not_examined) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_symptom_says_what_it_asks_and_where_it_is_from(name: str) -> None:
    symptom = registry.load("symptoms", name)
    assert symptom.question.endswith("?") and symptom.source
    assert "Source:" in registry.summary("symptoms", name)
    assert set(symptom.explained_by) <= set(NAMES) - {name}


@pytest.mark.parametrize("name", NAMES)
def test_finding_is_whole(name: str, tmp_path: Path) -> None:
    """Every word that a user is told is there, and ends as a sentence does."""
    case = next(case for case in PLANTED[name] if case.trainers)
    found = diagnosed(case, case.trainers[0], tmp_path).findings[0]
    assert found.severity in SEVERITIES and found.certainty in CERTAINTIES
    for text in (found.title, found.evidence, found.meaning, found.fix):
        assert text.endswith((".", "?")) and "nan" not in text.split()
    assert found.source == registry.load("symptoms", name).source
