"""Run folders as five trainers leave them, healthy until something is planted in them.

The shapes are the trainers' own: TRL 1.16's log rows and card, LLaMA-Factory's ``LogCallback``,
axolotl's configuration inside the card, OpenRLHF's progress bar, our manifest and recipe.
"""

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

TRAINERS = ("trl", "llamafactory", "axolotl", "openrlhf", "dpo_diag")
STEPS, EVERY = 200, 5
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENIZER = {
    "eos_token": "<|im_end|>",
    "bos_token": "<s>",
    "pad_token": "<|pad|>",
    "add_bos_token": False,
}
SETTINGS = {
    "beta": 0.1,
    "loss_type": "sigmoid",
    "learning_rate": 5e-7,
    "max_length": 1024,
    "bf16": True,
    "fp16": False,
    "label_smoothing": 0.0,
    "model": "org/sft-model",
}
Row = dict[str, Any]


def healthy_rows(n: int = STEPS // EVERY, every: int = EVERY, seed: int = 0) -> list[Row]:
    """Rows of a run whose margin grows to about 1 while both sides move apart evenly."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(1, n + 1):
        margin = 0.9 * (k - 0.5) / n
        noise = rng.normal(0, 0.01, 3)
        chosen, rejected = (0.5 + noise[1]) * margin, (-0.5 + noise[2]) * margin
        rows.append(
            {
                "loss": float(np.log1p(np.exp(-margin)) + noise[0]),
                "grad_norm": float(np.exp(rng.normal(-0.5, 0.2))),
                "learning_rate": 5e-7 * (1 - (k - 1) / n),
                "rewards/chosen": float(chosen),
                "rewards/rejected": float(rejected),
                "rewards/margins": float(chosen - rejected),
                "rewards/accuracies": float(np.clip(0.5 + 0.3 * k / n + noise[0], 0, 0.9)),
                "logps/chosen": -250 + float(rng.normal(0, 5)),
                "logps/rejected": -240 + float(rng.normal(0, 5)),
                "epoch": k / n,
                "step": k * every,
            }
        )
    return rows


def healthy_evaluations(n: int = 5) -> list[Row]:
    """Evaluations whose loss falls and whose accuracy is that of training."""
    return [
        {
            "eval_loss": 0.69 - 0.2 * k / n,
            "eval_rewards/chosen": 0.4 * k / n,
            "eval_rewards/rejected": -0.4 * k / n,
            "eval_rewards/margins": 0.8 * k / n,
            "eval_rewards/accuracies": 0.5 + 0.25 * k / n,
            "step": k * STEPS // n,
        }
        for k in range(1, n + 1)
    ]


@dataclass
class Planted:
    """A run folder before it is written; change what is to be wrong.

    Attributes:
        trainer: one of ``TRAINERS``.
        rows, evaluations: of the log.
        settings: by normalised name; each trainer's folder has those it records.
        own: further settings by the trainer's own names.
        tokenizer: ``tokenizer_config.json``; None writes none.
        template: chat template; empty writes none.
        config: ``config.json``.
        adapter: ``adapter_config.json``; None for a whole model.
        steps: ``checkpoint-*`` folders.
        final: whether a final model is written.
        files: further files by path.
        pairs, test: training and test pairs.
    """

    trainer: str = "trl"
    rows: list[Row] = field(default_factory=healthy_rows)
    evaluations: list[Row] = field(default_factory=healthy_evaluations)
    settings: Row = field(default_factory=lambda: dict(SETTINGS))
    own: Row = field(default_factory=dict)
    tokenizer: Row | None = field(default_factory=lambda: dict(TOKENIZER))
    template: str = ""
    config: Row = field(default_factory=lambda: {"hidden_size": 2048, "dtype": "bfloat16"})
    adapter: Row | None = None
    steps: tuple[int, ...] = (100, 200)
    final: bool = True
    files: dict[str, str] = field(default_factory=dict)
    pairs: list[Row] | None = None
    test: list[Row] | None = None

    def history(self) -> list[Row]:
        """All rows of the log in the order in which a trainer writes them."""
        keyed = [(row.get("step", 0), k, row) for k, row in enumerate(self.rows)]
        if any(a[0] > b[0] for a, b in pairwise(keyed)):
            return [*self.rows, *self.evaluations]  # planted out of order: leave it so
        keyed += [(row["step"], 10_000 + k, row) for k, row in enumerate(self.evaluations)]
        return [row for _, _, row in sorted(keyed, key=lambda entry: entry[:2])]

    def write(self, folder: Path) -> Path:
        """The folder on disk."""
        folder.mkdir(parents=True)
        _WRITERS[self.trainer](self, folder)
        self._write_model(folder)
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return folder

    def write_pairs(self, folder: Path, name: str) -> Path | None:
        """``pairs`` or ``test`` as JSONL; None where there are none."""
        rows = getattr(self, name)
        if rows is None:
            return None
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def _write_model(self, folder: Path) -> None:
        _json(folder / "config.json", self.config)
        if self.tokenizer is not None:
            _json(folder / "tokenizer_config.json", self.tokenizer)
        if self.template:
            (folder / "chat_template.jinja").write_text(self.template, encoding="utf-8")
        if self.adapter is not None:
            _json(folder / "adapter_config.json", self.adapter)
        if self.final:
            kind = "adapter_model" if self.adapter is not None else "model"
            (folder / f"{kind}.safetensors").write_bytes(b"")
        name = "global_step{}_hf" if self.trainer == "openrlhf" else "checkpoint-{}"
        for step in self.steps:
            (folder / name.format(step)).mkdir()


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _state(run: Planted, folder: Path) -> None:
    _json(
        folder / "trainer_state.json",
        {
            "epoch": 1.0,
            "global_step": STEPS,
            "max_steps": STEPS,
            "logging_steps": EVERY,
            "train_batch_size": 4,
            "num_train_epochs": 1,
            "log_history": run.history(),
        },
    )


def _options(run: Planted, names: dict[str, str]) -> Row:
    """The settings under a trainer's own names, as its YAML has them."""
    known = {names.get(name, name): value for name, value in run.settings.items()}
    return known | run.own


def _yaml(values: Row) -> str:
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


def _trl(run: Planted, folder: Path) -> None:
    _state(run, folder)
    text = _yaml(_options(run, {"model": "model_name_or_path"}))
    (folder / "dpo_config.yaml").write_text(text, encoding="utf-8")
    (folder / "README.md").write_text("---\ntags:\n- dpo\n- trl\n---\n# Model\n", encoding="utf-8")
    (folder / "training_args.bin").write_bytes(b"not a pickle, and never opened")


def _llamafactory(run: Planted, folder: Path) -> None:
    _state(run, folder)
    lines = [
        {
            "current_steps": row["step"],
            "total_steps": STEPS,
            **{own: row[n] for n, own in _IN_LOG.items() if n in row},
            "epoch": row.get("epoch", 1.0),
            "elapsed_time": "0:00:10",
            "remaining_time": "0:01:00",
        }
        for row in run.history()
        if "step" in row
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "trainer_log.jsonl").write_text(text, encoding="utf-8")
    names = {
        "beta": "pref_beta",
        "loss_type": "pref_loss",
        "max_length": "cutoff_len",
        "model": "model_name_or_path",
        "label_smoothing": "dpo_label_smoothing",
    }
    options = {"stage": "dpo", "finetuning_type": "lora" if run.adapter else "full"}
    text = _yaml(options | _options(run, names))
    (folder / "training_args.yaml").write_text(text, encoding="utf-8")
    card = "---\ntags:\n- llama-factory\n- full\n---\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    _json(folder / "all_results.json", {"epoch": 1.0, "train_loss": 0.5})


_IN_LOG = {
    "loss": "loss",
    "eval_loss": "eval_loss",
    "rewards/accuracies": "accuracy",
    "learning_rate": "lr",
}


def _axolotl(run: Planted, folder: Path) -> None:
    _state(run, folder)
    names = {
        "beta": "rl_beta",
        "max_length": "sequence_len",
        "model": "base_model",
        "label_smoothing": "dpo_label_smoothing",
    }
    options = _options(run, names)
    loss = options.pop("loss_type", "sigmoid")
    options = {"rl": {"sigmoid": "dpo"}.get(loss, loss), "micro_batch_size": 4} | options
    (folder / "README.md").write_text(
        "---\nlibrary_name: transformers\ntags:\n- axolotl\n- generated_from_trainer\n---\n"
        "<details><summary>See axolotl config</summary>\n\naxolotl version: `0.11.0`\n"
        f"```yaml\n{_yaml(options)}\n```\n\n</details><br>\n",
        encoding="utf-8",
    )


def _openrlhf(run: Planted, folder: Path) -> None:
    names = {"model": "pretrain", "max_length": "max_len"}
    options = _options(run, names)
    loss = options.pop("loss_type", "sigmoid")
    if loss == "ipo":
        options["ipo"] = True
    flags = [
        f"--{name}" if value is True else f"--{name} {value}"
        for name, value in options.items()
        if value is not False
    ]
    lines = ["+ deepspeed --module openrlhf.cli.train_dpo \\\n   " + " \\\n   ".join(flags) + "\n"]
    for row in run.rows:
        bar = {own: row[n] for n, own in _IN_BAR.items() if n in row}
        words = ", ".join(f"{name}={value:.6g}" for name, value in bar.items())
        lines.append(
            f"Train step of epoch 0:   1%|1 | {row['step']}/{STEPS} [00:10<01:00, 1.0it/s, {words}]"
        )
    (folder / "train.log").write_text("\r".join(lines), encoding="utf-8")


_IN_BAR = {
    "loss": "loss",
    "rewards/accuracies": "acc",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "reject_reward",
    "learning_rate": "lr",
}


def _ours(run: Planted, folder: Path) -> None:
    _state(run, folder)
    settings = dict(run.settings)
    reference = run.own.get("reference_fingerprint", "ab" * 32)
    parameters = {n: settings[n] for n in ("beta", "label_smoothing", "gamma") if n in settings}
    variant = {"sigmoid": "dpo"}.get(settings.get("loss_type"), settings.get("loss_type"))
    _json(
        folder / "dpo_diag.json",
        {
            "format": "dpo_diag run 1",
            "variant": variant,
            "parameters": parameters,
            "base": {"path": "../base", "fingerprint": "ab" * 32, "revision": None},
            "reference": {"path": "../base", "fingerprint": reference, "revision": None},
            "pairs": None,
        },
    )
    (folder / "recipe.toml").write_text(
        f'[run]\nmodel = "../base"\nprecision = "bfloat16"\n[optimizer]\n'
        f"learning_rate = {settings.get('learning_rate', 5e-7)}\nbatch_size = 4\nepochs = 1.0\n"
        f"max_grad_norm = 1.0\n[data]\nmax_length = {settings.get('max_length', 0)}\n"
        f"[log]\nlog_every = {EVERY}\n",
        encoding="utf-8",
    )


_WRITERS = {
    "trl": _trl,
    "llamafactory": _llamafactory,
    "axolotl": _axolotl,
    "openrlhf": _openrlhf,
    "dpo_diag": _ours,
}


def some_pairs(n: int = 60, prefix: str = "q") -> list[Row]:
    """Plain pairs with different prompts."""
    return [
        {
            "prompt": f"{prefix} question number {k} about things",
            "chosen": f"a good answer {k} that helps",
            "rejected": f"a bad answer {k} that does not",
        }
        for k in range(n)
    ]


def as_conversations(rows: list[Row]) -> list[Row]:
    """The same pairs as lists of turns."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return [
        {name: [{"role": role, "content": row[name]}] for name, role in roles.items()}
        for row in rows
    ]
