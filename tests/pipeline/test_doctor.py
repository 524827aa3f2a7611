"""Runs that were really trained, healthy and with a fault planted before training; and the ranking.

TRL's own DPOTrainer and ours, on models of two layers, float32 on the CPU.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpo_diag.pairs import read_pairs
from dpo_diag.pipeline.doctor import data_facts, diagnose, rank, read_run
from dpo_diag.symptoms._base import Finding
from tests.run_formats.folders import Planted, as_conversations, some_pairs

DATA = Path(__file__).parents[2] / "data" / "sandbox" / "pairs.jsonl"
COLUMNS = ("prompt", "chosen", "rejected")
N_TRAIN, N_EVAL, BATCH = 240, 60, 8


def loud(folder: Path) -> list[tuple[str, str]]:
    """Findings above a note."""
    found = diagnose(folder).findings
    return [(f.symptom, f.evidence) for f in found if f.severity != "note"]


def sandbox_rows(split: str, n: int) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    return [{c: r[c] for c in COLUMNS} for r in lines if r["split"] == split][:n]


def train_with_trl(base: Path, out: Path, *, rate: float = 1e-3, **options: Any) -> Path:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(
        output_dir=str(out),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=rate,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=10,
        save_steps=15,
        bf16=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        model=str(base),
        args=arguments,
        train_dataset=Dataset.from_list(sandbox_rows("train", N_TRAIN)),
        eval_dataset=Dataset.from_list(sandbox_rows("test", N_EVAL)),
        processing_class=AutoTokenizer.from_pretrained(base),
        **options,
    )
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    return out


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, make_base: Callable[..., Path]) -> Path:
    return make_base(tmp_path_factory.mktemp("doctor") / "base")


@pytest.mark.slow
def test_healthy_run_of_trl_has_nothing_above_a_note(base: Path, tmp_path: Path) -> None:
    diagnosis = diagnose(train_with_trl(base, tmp_path / "run"))
    assert diagnosis.record.format == "trl" and len(diagnosis.record.log) == 33
    assert [f for f in diagnosis.findings if f.severity != "note"] == []
    assert {"reward_at_start", "not_finite", "loss_stuck", "chosen_falls"} <= set(
        diagnosis.passed
    ) | {f.symptom for f in diagnosis.findings}


@pytest.mark.slow
def test_healthy_adapter_of_trl_has_nothing_above_a_note(base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    modules = ["q_proj", "v_proj", "down_proj"]
    lora = LoraConfig(r=8, lora_alpha=32, target_modules=modules, task_type="CAUSAL_LM")
    run = train_with_trl(base, tmp_path / "run", rate=1e-2, peft_config=lora)
    assert loud(run) == []


@pytest.mark.slow
def test_wrong_reference_in_trl_is_named_first(
    base: Path, make_base: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(make_base(tmp_path / "other", seed=1))
    run = train_with_trl(base, tmp_path / "run", ref_model=other)
    first = diagnose(run).findings[0]
    assert (first.symptom, first.severity, first.certainty) == (
        "reward_at_start",
        "error",
        "certain",
    )


@pytest.mark.slow
def test_learning_rate_of_nothing_in_trl_is_named_first(base: Path, tmp_path: Path) -> None:
    found = diagnose(train_with_trl(base, tmp_path / "run", rate=0.0)).findings
    assert found[0].symptom == "learning_rate_zero"
    assert {"policy_is_reference", "loss_stuck"} <= {finding.symptom for finding in found}


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["dpo", "simpo"])
def test_healthy_run_of_ours_has_nothing_above_a_note(
    base: Path, cli: Callable, tmp_path: Path, variant: str
) -> None:
    ended = cli(
        *("train", variant, "--model", base, "--pairs", DATA, "--out", tmp_path / "run"),
        *("--set", "optimizer.learning_rate=0.001", "--set", "optimizer.max_steps=40"),
        *("--set", "optimizer.batch_size=8", "--set", "log.log_every=2"),
    )
    assert ended.status == 0, ended.err
    diagnosis = diagnose(tmp_path / "run", pairs=read_pairs(DATA))
    assert diagnosis.record.format == "dpo_diag" and diagnosis.record.get("beta")
    assert [f for f in diagnosis.findings if f.severity != "note"] == []


def finding(symptom: str, severity: str, certainty: str = "certain") -> Finding:
    return Finding(symptom, severity, certainty, "", "", "", "", (), "")


def test_worst_comes_first_then_the_surest() -> None:
    given = [
        finding("pad_is_eos", "note"),
        finding("few_rows", "warning", "possible"),
        finding("step_order", "warning"),
        finding("swapped_columns", "error", "possible"),
        finding("missing_eos", "error"),
    ]
    names = [found.symptom for found in rank(given)]
    assert names == ["missing_eos", "swapped_columns", "step_order", "few_rows", "pad_is_eos"]


def test_cause_comes_before_its_consequence_though_less_sure() -> None:
    given = [finding("not_finite", "error"), finding("half_precision", "error", "likely")]
    assert [found.symptom for found in rank(given)] == ["half_precision", "not_finite"]


def test_note_explains_nothing() -> None:
    given = [
        finding("loss_stuck", "error", "certain"),
        finding("few_rows", "error", "likely"),
        finding("learning_rate_range", "note"),
    ]
    assert rank(given)[0].symptom == "loss_stuck"


def write(folder: Path, rows: list[dict[str, Any]], name: str = "pairs") -> Any:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_pairs(path)


def test_facts_of_the_data_by_hand(tmp_path: Path) -> None:
    """Three pairs: one scored the wrong way, one refusal, one prompt with BOS, one shared."""
    rows = [
        {"prompt": "<s>a b", "chosen": "c d e", "rejected": "f", "score_chosen": 1.0},
        {"prompt": "g", "chosen": "I'm sorry, I can't.", "rejected": "h<|im_end|>"},
        {"prompt": "i", "chosen": "j", "rejected": "k l m n", "score_chosen": 5.0},
    ]
    for row, score in zip(rows, (2.0, None, 1.0), strict=True):
        row["score_rejected"] = score
        row.setdefault("score_chosen", None)
    record = read_run(Planted("trl").write(tmp_path / "run"))
    pairs = write(tmp_path, rows)
    test = write(tmp_path, [{"prompt": "g", "chosen": "x", "rejected": "y"}], "test")
    facts = data_facts(record, pairs, test)
    assert (facts.n, facts.n_prompts, facts.n_test_prompts, facts.n_shared) == (3, 3, 1, 1)
    assert (facts.n_scored, facts.n_score_reversed) == (2, 1)
    assert (facts.n_chosen_refusal, facts.n_rejected_refusal) == (1, 0)
    assert (facts.n_begin_bos, facts.n_end_eos, facts.n_conversations) == (1, 1, 0)
    assert sorted(facts.words) == [5.0, 5.0, 5.0]  # 2+3, 1+4, 1+4
    assert sorted(facts.prompt_words) == [1.0, 1.0, 2.0]


def test_test_part_of_the_pairs_is_not_training(tmp_path: Path) -> None:
    rows = [row | {"split": "train"} for row in some_pairs(10)]
    rows += [row | {"split": "test"} for row in some_pairs(4, prefix="new")]
    record = read_run(Planted("trl").write(tmp_path / "run"))
    facts = data_facts(record, write(tmp_path, rows), None)
    assert (facts.n, facts.n_test_prompts, facts.n_shared) == (10, 4, 0)


def test_template_is_rendered_on_the_conversations_of_the_data(tmp_path: Path) -> None:
    run = Planted("trl", template="{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}")
    path = run.write(tmp_path / "run")
    record = diagnose(path, pairs=write(tmp_path, as_conversations(some_pairs(60)))).record
    assert record.template.n == 50 and record.template.of == "the training pairs"
    assert record.data.n_conversations == 60


def test_checkpoint_of_a_run_is_diagnosed_by_itself(tmp_path: Path) -> None:
    path = Planted("trl").write(tmp_path / "run")
    (path / "trainer_state.json").rename(path / "checkpoint-200" / "trainer_state.json")
    (path / "checkpoint-200" / "model.safetensors").write_bytes(b"")
    record = read_run(path / "checkpoint-200")
    assert record.log_source == "trainer_state.json" and len(record.log) == 45


def test_doctor_imports_no_torch_and_no_transformers(tmp_path: Path) -> None:
    run = Planted("trl", template="{{ messages[0]['content'] }}<|im_end|>")
    path = run.write(tmp_path / "run")
    write(tmp_path, as_conversations(some_pairs()))
    program = (
        "import sys\nfrom dpo_diag.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as ended:\n    print('exit', ended.code)\n"
        "heavy = {'torch', 'vllm', 'transformers', 'matplotlib', 'peft'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    arguments = ["doctor", str(path), "--pairs", str(tmp_path / "pairs.jsonl")]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True
    )
    assert "heavy: []" in done.stdout and "exit 0" in done.stdout, done.stdout + done.stderr


def test_long_log_is_read_quickly(tmp_path: Path) -> None:
    """50,000 rows, a log of every step of a long run, in a few seconds."""
    import time

    run = Planted("trl")
    rng = np.random.default_rng(0)
    run.evaluations = []
    run.rows = [
        {"step": k + 1, "loss": float(x), "rewards/chosen": 0.0, "rewards/rejected": 0.0}
        for k, x in enumerate(rng.normal(0.6, 0.01, 50_000))
    ]
    path = run.write(tmp_path / "run")
    start = time.process_time()
    diagnose(path)
    assert time.process_time() - start < 15
