"""Every reader of run folders: knows its own, reads the same facts, survives anybody's files."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_diag import registry
from dpo_diag.errors import CheckpointError
from dpo_diag.pipeline.doctor import examine, read_run
from dpo_diag.pipeline.doctor_report import as_values, markdown, screen
from dpo_diag.run_formats._files import Folder
from tests.run_formats.folders import STEPS, TRAINERS, Planted

NAMES = registry.names("run_formats")
each = pytest.mark.parametrize("name", NAMES)


def test_every_reader_has_a_folder_here() -> None:
    assert sorted(TRAINERS) == NAMES


@each
def test_folder_is_claimed_by_its_own_reader_most(name: str, tmp_path: Path) -> None:
    path = Planted(name).write(tmp_path / "run")
    claims = {n: registry.load("run_formats", n)().claim(Folder(path)) for n in NAMES}
    others = [claim for n, claim in claims.items() if n != name]
    assert claims[name] > max(others)


@each
def test_settings_are_read_under_one_vocabulary(name: str, tmp_path: Path) -> None:
    record = read_run(Planted(name).write(tmp_path / "run"))
    assert record.get("beta") == 0.1
    assert record.get("learning_rate") == 5e-7
    assert record.get("max_length") == 1024
    assert record.get("hidden_size") == 2048
    assert record.loss_type in ("sigmoid", "dpo", "")
    for fact in record.settings.values():
        assert (record.folder / fact.source).is_file(), fact


@each
def test_log_is_read_under_one_vocabulary(name: str, tmp_path: Path) -> None:
    run = Planted(name)
    record = read_run(run.write(tmp_path / "run"))
    margins = record.series("rewards/margins")
    assert len(margins) == len(run.rows) and margins.step[-1] == STEPS
    for own in ("loss", "rewards/chosen", "rewards/margins", "learning_rate"):
        values = record.series(own).value
        assert values[7] == pytest.approx(run.rows[7][own], rel=1e-4, abs=1e-5), own


@each
def test_checkpoints_tokenizer_and_files_are_listed(name: str, tmp_path: Path) -> None:
    record = read_run(Planted(name).write(tmp_path / "run"))
    assert record.checkpoints == (100, 200) and record.has_final
    assert (record.tokenizer.eos, record.tokenizer.pad) == ("<|im_end|>", "<|pad|>")
    assert "config.json" in record.read and record.log_source in record.read


@each
def test_not_a_number_is_kept_apart_from_missing(name: str, tmp_path: Path) -> None:
    run = Planted(name)
    run.rows[3]["loss"] = math.nan
    del run.rows[4]["loss"]
    record = read_run(run.write(tmp_path / "run"))
    assert len(record.series("loss")) == len(run.rows) - 2
    assert len(record.series("loss", finite=False)) == len(run.rows) - 1


def test_pickle_is_not_read_and_said(tmp_path: Path) -> None:
    record = read_run(Planted("trl").write(tmp_path / "run"))
    assert [line for line in record.not_read if line.startswith("training_args.bin: a pickle")]
    assert "training_args.bin" not in record.read


def test_null_in_the_log_is_not_a_number(tmp_path: Path) -> None:
    run = Planted("trl")
    run.rows[0]["loss"] = None
    record = read_run(run.write(tmp_path / "run"))
    assert math.isnan(record.log[0].values["loss"])


def test_state_of_the_last_checkpoint_stands_in_for_a_missing_one(tmp_path: Path) -> None:
    path = Planted("trl").write(tmp_path / "run")
    (path / "trainer_state.json").rename(path / "checkpoint-200" / "trainer_state.json")
    record = read_run(path)
    assert record.log_source == "checkpoint-200/trainer_state.json" and len(record.log) == 45


def test_log_of_llamafactory_stands_in_for_a_missing_state(tmp_path: Path) -> None:
    run = Planted("llamafactory")
    path = run.write(tmp_path / "run")
    (path / "trainer_state.json").unlink()
    record = read_run(path)
    assert record.log_source == "trainer_log.jsonl"
    assert record.series("rewards/accuracies").value[5] == run.rows[5]["rewards/accuracies"]


def test_log_of_llamafactory_has_texts_that_belong_there(tmp_path: Path) -> None:
    """Elapsed and remaining time are texts; a loss that is one is worth a word."""
    path = Planted("llamafactory").write(tmp_path / "run")
    (path / "trainer_state.json").unlink()
    assert read_run(path).problems == ()
    with (path / "trainer_log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"current_steps": 201, "loss": "low"}\n')
    assert [problem.sentence for problem in read_run(path).problems] == [
        "these logged quantities hold texts instead of numbers: loss"
    ]


def test_printed_log_stands_in_for_a_missing_state(tmp_path: Path) -> None:
    """Two rows of transformers beside its bar; the row without a bar before it has no step."""
    path = Planted("trl").write(tmp_path / "run")
    (path / "trainer_state.json").unlink()
    (path / "train.log").write_text(
        "{'loss': 0.7, 'epoch': 0.0}\n"
        "  5%|5 | 10/200 [00:01<00:20, 9it/s]\r{'loss': '0.6931', 'rewards/chosen': -1e-3}\n"
        " 10%|# | 20/200 [00:02<00:18, 9it/s]\r{'loss': nan, 'rewards/chosen': '-0.2'}\n",
        encoding="utf-8",
    )
    record = read_run(path)
    assert record.log_source == "train.log"
    assert list(record.series("rewards/chosen").step) == [10, 20]
    assert list(record.series("rewards/chosen").value) == [-0.001, -0.2]
    assert list(record.series("loss").value) == [0.6931]


@pytest.mark.parametrize(
    ("options", "beta", "loss", "problems"),
    [
        ("beta: 1e-1\nloss_type: [sigmoid]", 0.1, "sigmoid", 0),
        ("beta: 0.1\nloss_type: [sigmoid, sft]", 0.1, "sigmoid+sft", 0),
        ("beta: auto\nloss_type: null", None, "", 0),
        ("beta: {a: 1}\nloss_type: ipo", None, "ipo", 1),
        ("beta: {value: 0.3, desc: null}\nloss_type: ipo", 0.3, "ipo", 0),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nbeta: [*c, *c]", None, "", 1),
        ("beta: 0.1\n  broken", None, "", 1),
    ],
)
def test_option_file_of_trl_is_read_as_it_is_written(
    options: str, beta: float | None, loss: str, problems: int, tmp_path: Path
) -> None:
    run = Planted("trl")
    run.files["dpo_config.yaml"] = options
    record = read_run(run.write(tmp_path / "run"))
    assert record.get("beta") == beta and record.loss_type == loss
    assert len(record.problems) == problems


def test_endless_line_in_a_log_takes_no_time(tmp_path: Path) -> None:
    text = "a" * 3_000_000 + "1" * 3_000_000 + " 3/9 [00:01, loss=0.5, chosen_reward=0.1]"
    (tmp_path / "train.log").write_text(text, encoding="utf-8")
    start = time.process_time()
    assert list(read_run(tmp_path).series("loss").value) == [0.5]
    assert time.process_time() - start < 5


def test_variable_of_a_launch_script_is_no_number_and_no_fault(tmp_path: Path) -> None:
    run = Planted("openrlhf", settings={"beta": "$BETA", "learning_rate": 5e-7})
    record = read_run(run.write(tmp_path / "run"))
    assert record.get("beta") is None and record.problems == ()


def test_steps_of_later_epochs_go_on_in_a_progress_bar(tmp_path: Path) -> None:
    """Two epochs of 10 steps: the second epoch's third step is step 13."""
    bars = [
        f"Train step of epoch {e}: 9%| | {k}/10 [00:01<00:02, 1it/s, loss={e + k / 100}, "
        f"chosen_reward=0.1, reject_reward=-0.1]"
        for e in (0, 1)
        for k in range(1, 11)
    ]
    (tmp_path / "train.log").write_text("\r".join(bars), encoding="utf-8")
    record = read_run(tmp_path)
    loss = record.series("loss")
    assert list(loss.step) == list(range(1, 21))
    assert loss.value[12] == pytest.approx(1.03)


def test_bos_is_known_from_the_post_processor(tmp_path: Path) -> None:
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}]
    processors = [{"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": single}]
    run = Planted("trl")
    for processor, adds in (
        ({"type": "TemplateProcessing", "single": single}, True),
        ({"type": "Sequence", "processors": processors}, True),
        ({"type": "TemplateProcessing", "single": single[1:]}, False),
        (None, False),
    ):
        run.files["tokenizer.json"] = json.dumps({"post_processor": processor})
        record = read_run(run.write(tmp_path / str(len(list(tmp_path.iterdir())))))
        assert record.tokenizer.adds_bos is adds


def test_adapter_facts_and_trls_copy_are_read(tmp_path: Path) -> None:
    run = Planted("trl")
    run.adapter = {"base_model_name_or_path": "org/base", "r": 8, "lora_dropout": 0.05}
    run.files["ref/adapter_config.json"] = "{}"
    record = read_run(run.write(tmp_path / "run"))
    facts = {n: record.get(n) for n in ("adapter_base", "lora_r", "lora_dropout")}
    assert facts == {"adapter_base": "org/base", "lora_r": 8, "lora_dropout": 0.05}
    assert record.get("reference_adapter") == "ref/"


def test_width_of_an_adapters_local_base_is_found(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"hidden_size": 64}', encoding="utf-8")
    run = Planted("trl")
    run.adapter, run.config = {"base_model_name_or_path": str(base), "r": 8}, {}
    assert read_run(run.write(tmp_path / "run")).is_tiny


@pytest.mark.parametrize("what", ["missing", "file", "empty"])
def test_folder_that_is_no_run_is_one_sentence(what: str, tmp_path: Path) -> None:
    path = {"missing": tmp_path / "no", "file": tmp_path / "a.txt", "empty": tmp_path}[what]
    if what == "file":
        path.write_text("x", encoding="utf-8")
    with pytest.raises(CheckpointError, match="give the output folder of a training run"):
        read_run(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"log_history": 3}',
        '{"log_history": [1, null, "x", {}]}',
        "[" * 9999,
    ],
)
@each
def test_broken_state_is_a_problem_and_no_error(name: str, text: str, tmp_path: Path) -> None:
    run = Planted(name)
    run.files["trainer_state.json"] = text
    diagnosis = examine(read_run(run.write(tmp_path / "run")))
    assert name == "openrlhf" or diagnosis.findings
    assert screen(diagnosis)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["nan", "1e-6", "\x1b]0;owned\x07", "true", "1e999"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(
    (
        *("step", "loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies"),
        *("learning_rate", "eval_loss", "eval_rewards/accuracies", "logps/chosen", "grad_norm"),
    )
)
OWN = st.sampled_from(
    (
        *("beta", "loss_type", "learning_rate", "max_length", "max_prompt_length", "ref_model"),
        *("label_smoothing", "model_name_or_path", "fp16", "lora_r", "max_grad_norm"),
    )
)


@given(
    rows=st.lists(st.dictionaries(KEYS, ANYTHING), max_size=12),
    own=st.dictionaries(OWN, ANYTHING),
    config=st.dictionaries(st.sampled_from(("hidden_size", "dtype", "text_config")), ANYTHING),
    tokens=st.dictionaries(
        st.sampled_from(("eos_token", "bos_token", "added_tokens_decoder", "add_bos_token")),
        ANYTHING,
    ),
    adapter=st.dictionaries(st.sampled_from(("base_model_name_or_path", "r")), ANYTHING),
)
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_anything_in_the_files_is_harmless(
    rows: Any, own: Any, config: Any, tokens: Any, adapter: Any, tmp_path_factory: Any
) -> None:
    """Texts for numbers, huge numbers, terminal commands: a diagnosis, without commands in it."""
    run = Planted("trl")
    run.config, run.tokenizer, run.adapter = config, tokens, adapter
    run.files = {
        "trainer_state.json": json.dumps({"log_history": rows, "max_steps": own}),
        "args.json": json.dumps(own),
    }
    diagnosis = examine(read_run(run.write(tmp_path_factory.mktemp("any") / "run")))
    shown = screen(diagnosis) + markdown(diagnosis, "dpo-diag doctor run")
    assert "\x1b" not in shown and "\x07" not in shown
    json.dumps(as_values(diagnosis), allow_nan=False)
