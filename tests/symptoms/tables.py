"""The planted and the healthy cases of every symptom: what it must name first, what it must not.

A change, the trainers whose folders can show it, and the severity it must have.
"""

import math

from tests.run_formats.folders import CHATML, TRAINERS, as_conversations, some_pairs
from tests.symptoms.plants import (
    LN2,
    OPTIONS,
    STATE,
    Case,
    adapter_on,
    bos_in_data,
    broken_from,
    broken_state,
    chat,
    continued_adapter,
    disjoint_test,
    each_row,
    easy_evaluation,
    emptied,
    flat_loss,
    long_pairs,
    long_prompts,
    loss_only,
    memorised,
    nan_in_fp16,
    not_a_prefix,
    not_a_prefix_of_the_data,
    nothing_saved,
    only_a_few,
    overfitted,
    own,
    perfect,
    perfect_at_first,
    pushed_backwards,
    refusals_chosen,
    resumed,
    scores_reversed,
    scores_right,
    settings,
    shared_in_one_file,
    shared_with_test,
    shifted_rewards,
    single_pairs,
    sinking,
    swapped_evaluation,
    together,
    two_bos,
    with_lengths,
    without_eos,
)

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
        Case(
            together(
                lambda run: run.rows.insert(0, run.rows[0] | {"step": 1, "loss": 8 * LN2}),
                own(gradient_accumulation_steps=8),
            ),
            STATE[:3],
            "note",
        ),
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
