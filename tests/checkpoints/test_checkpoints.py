"""What a checkpoint folder of each layout resolves to, and what is asked for by which option."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpo_diag.checkpoints import (
    Checkpoint,
    ModelRecord,
    PairsRecord,
    RunManifest,
    check_compatible,
    model_record,
    require_beta,
    require_pairs,
    require_reference,
    require_variant,
    resolve_checkpoint,
    write_manifest,
)
from dpo_diag.errors import CheckpointError
from dpo_diag.model_folders import Place, open_model

TRL_CARD = "library_name: transformers\ntags:\n- generated_from_trainer\n- trl\n- dpo\n"


def lines(checkpoint: Checkpoint, what: str) -> str:
    return "\n".join(line for line in checkpoint.found if line.startswith(f"{what}: "))


@pytest.fixture
def run(tmp_path: Path, make) -> Path:
    """Our own run: base and pairs beside it, two steps, a final model."""
    base = make.model(tmp_path / "base")
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    folder = make.model(tmp_path / "run", seed=2)
    for step, seed in ((20, 2), (5, 1)):
        make.model(folder / f"checkpoint-{step}", seed=seed)
    record = model_record(open_model(Place(base)))
    write_manifest(
        folder,
        RunManifest(
            variant="safedpo",
            parameters={"beta": 0.1, "margin": 2.0},
            base=record,
            reference=record,
            pairs=PairsRecord(str(tmp_path / "pairs.jsonl"), "ab" * 32),
            template="plain",
            tokenizer_hash="cd" * 32,
            seed=0,
        ),
    )
    return folder


def test_own_run_says_everything(run: Path, tmp_path: Path) -> None:
    checkpoint = resolve_checkpoint(run)
    assert checkpoint.layout == "dpo_diag"
    assert (checkpoint.variant, checkpoint.beta) == ("safedpo", 0.1)
    assert checkpoint.parameters == {"beta": 0.1, "margin": 2.0}
    assert checkpoint.template == "plain"
    assert checkpoint.pairs == str((tmp_path / "pairs.jsonl").resolve())
    assert require_reference(checkpoint).path == (tmp_path / "base").resolve()
    assert checkpoint.manifest.tokenizer_hash == "cd" * 32
    for what in ("reference", "variant", "beta", "pairs"):
        assert "dpo_diag.json" in lines(checkpoint, what)


def test_steps_are_numeric_and_apart_from_the_final_model(run: Path) -> None:
    checkpoint = resolve_checkpoint(run, steps="all")
    assert [model.step for model in checkpoint.steps] == [5, 20]
    assert [model.name for model in checkpoint.steps] == ["run-step5", "run-step20"]
    assert checkpoint.model.step == -1 and checkpoint.model.name == "run"
    assert checkpoint.steps[1].fingerprint == checkpoint.model.fingerprint
    assert resolve_checkpoint(run).steps == ()


def test_unknown_value_of_steps_is_the_callers_mistake(run: Path) -> None:
    with pytest.raises(ValueError, match="'final' or 'all'"):
        resolve_checkpoint(run, steps="some")


def test_single_step_is_read_with_its_runs_manifest(run: Path) -> None:
    checkpoint = resolve_checkpoint(run / "checkpoint-5", steps="all")
    assert (checkpoint.model.name, checkpoint.model.step) == ("run-step5", 5)
    assert (checkpoint.variant, checkpoint.beta) == ("safedpo", 0.1)
    assert [model.step for model in checkpoint.steps] == [5]


def test_step_without_tokenizer_uses_its_runs(run: Path) -> None:
    (run / "checkpoint-5" / "tokenizer.json").unlink()
    assert resolve_checkpoint(run / "checkpoint-5").model.tokenizer_path == run


def test_step_that_was_copied_alone_is_read_with_its_own_manifest(
    run: Path, tmp_path: Path, make
) -> None:
    step = make.model(tmp_path / "alone" / "checkpoint-5", seed=1)
    text = (run / "dpo_diag.json").read_text()
    (step / "dpo_diag.json").write_text(text.replace("../", "../../"))
    checkpoint = resolve_checkpoint(step)
    assert (checkpoint.layout, checkpoint.variant) == ("dpo_diag", "safedpo")
    assert checkpoint.reference.path == (tmp_path / "base").resolve()


def test_run_without_final_model_is_read_at_its_last_step(run: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (run / name).unlink()
    checkpoint = resolve_checkpoint(run)
    assert checkpoint.model.step == 20
    assert "no final model" in lines(checkpoint, "model")


def test_step_that_holds_no_model_is_left_out_aloud(run: Path) -> None:
    (run / "checkpoint-30").mkdir()
    checkpoint = resolve_checkpoint(run, steps="all")
    assert [model.step for model in checkpoint.steps] == [5, 20]
    assert "checkpoint-30 holds no model" in lines(checkpoint, "steps")


def test_reference_whose_weights_changed_is_refused(run: Path, tmp_path: Path, make) -> None:
    make.model(tmp_path / "base", seed=9)
    with pytest.raises(CheckpointError, match=r"not the reference of .* the run recorded"):
        resolve_checkpoint(run)


def test_given_reference_is_checked_against_the_record(run: Path, tmp_path: Path, make) -> None:
    twin = make.model(tmp_path / "twin")
    assert resolve_checkpoint(run, reference=twin).reference.name == "twin"
    with pytest.raises(CheckpointError, match=r"other: is not the reference of"):
        resolve_checkpoint(run, reference=make.model(tmp_path / "other", seed=5))


def test_recorded_reference_that_is_gone_is_asked_for(run: Path, tmp_path: Path) -> None:
    (tmp_path / "base").rename(tmp_path / "moved")
    checkpoint = resolve_checkpoint(run)
    with pytest.raises(CheckpointError, match=r"recorded in dpo_diag\.json, but .*--reference"):
        require_reference(checkpoint)
    assert resolve_checkpoint(run, reference=tmp_path / "moved").reference.name == "moved"


def test_own_adapter_on_a_changed_base_is_refused(tmp_path: Path, make) -> None:
    base = make.model(tmp_path / "base")
    folder = make.adapter(tmp_path / "run", base)
    record = model_record(open_model(Place(base)))
    reference = model_record(open_model(Place(make.model(tmp_path / "sft", seed=3))))
    write_manifest(
        folder,
        RunManifest("dpo", {"beta": 0.1}, record, reference, None, "plain", "", 0),
    )
    assert resolve_checkpoint(folder).reference.name == "sft"
    make.model(base, seed=4)
    with pytest.raises(CheckpointError, match="only makes sense on the base it was trained on"):
        resolve_checkpoint(folder)


def test_pairs_that_are_gone_are_asked_for(run: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"recorded as .*pairs\.jsonl .*give --pairs"):
        require_pairs(resolve_checkpoint(run))


def test_given_values_come_before_recorded_ones_aloud(run: Path) -> None:
    checkpoint = resolve_checkpoint(run, beta=0.3, parameters={"margin": 0.0}, pairs="mine.jsonl")
    assert checkpoint.beta == 0.3
    assert checkpoint.parameters == {"beta": 0.3, "margin": 0.0}
    assert checkpoint.pairs == "mine.jsonl"
    assert lines(checkpoint, "beta") == "beta: 0.3 (given, the run recorded 0.1)"


def test_other_variant_keeps_beta_and_drops_the_recorded_variants_parameters(run: Path) -> None:
    checkpoint = resolve_checkpoint(run, variant="dpo")
    assert (checkpoint.variant, checkpoint.parameters) == ("dpo", {"beta": 0.1})
    assert "instead of safedpo" in lines(checkpoint, "variant")


@pytest.mark.parametrize("beta", [0, -0.1, float("nan"), True])
def test_beta_that_is_no_positive_number_is_refused(run: Path, beta: float) -> None:
    with pytest.raises(CheckpointError, match="beta must be a number above 0"):
        resolve_checkpoint(run, beta=beta)


def test_method_without_reference_is_said(tmp_path: Path, make) -> None:
    folder = make.model(tmp_path / "run")
    record = ModelRecord("acme/base", "ab" * 32)
    write_manifest(folder, RunManifest("simpo", {"beta": 2}, record, None, None, "plain", "", 0))
    checkpoint = resolve_checkpoint(folder)
    assert checkpoint.reference is None
    assert "takes no reference" in lines(checkpoint, "reference")


def test_plain_folder_asks_for_each_thing_by_its_option(tmp_path: Path, make) -> None:
    checkpoint = resolve_checkpoint(make.model(tmp_path / "m"))
    assert checkpoint.layout == "transformers" and checkpoint.reference is None
    for ask, option in (
        (require_reference, "--reference"),
        (require_beta, "--beta"),
        (require_variant, "--variant"),
        (require_pairs, "--pairs"),
    ):
        with pytest.raises(CheckpointError, match=rf"not recorded in the folder; give {option} "):
            ask(checkpoint)


def test_what_is_given_is_not_asked_for(tmp_path: Path, make) -> None:
    base = make.model(tmp_path / "base")
    checkpoint = resolve_checkpoint(
        make.model(tmp_path / "m", seed=1), reference=base, beta=0.1, variant="dpo", pairs="p"
    )
    assert require_reference(checkpoint).path == base.resolve()
    assert (require_beta(checkpoint), require_variant(checkpoint)) == (0.1, "dpo")
    assert require_pairs(checkpoint) == "p" and checkpoint.parameters == {"beta": 0.1}


def test_reference_may_be_a_step_of_another_run(tmp_path: Path, make) -> None:
    step = make.model(tmp_path / "sft" / "checkpoint-10", seed=3)
    checkpoint = resolve_checkpoint(make.model(tmp_path / "m"), reference=step)
    assert (checkpoint.reference.name, checkpoint.reference.step) == ("sft-step10", 10)


def test_reference_with_the_models_own_weights_is_pointed_out(tmp_path: Path, make) -> None:
    model = make.model(tmp_path / "m")
    checkpoint = resolve_checkpoint(model, reference=make.model(tmp_path / "copy"))
    assert "every reward is 0" in lines(checkpoint, "reference")


def test_adapter_is_referred_to_its_base(tmp_path: Path, make) -> None:
    base = make.model(tmp_path / "base")
    checkpoint = resolve_checkpoint(make.adapter(tmp_path / "lora", base))
    assert checkpoint.layout == "peft"
    assert checkpoint.reference.path == base.resolve() and checkpoint.reference.adapter is None
    assert "adapter_config.json" in lines(checkpoint, "reference")


def test_adapter_with_trls_ref_copy_is_referred_to_base_and_copy(tmp_path: Path, make) -> None:
    base = make.model(tmp_path / "base")
    sft = open_model(Place(make.adapter(tmp_path / "sft", base, seed=1)))
    folder = make.adapter(tmp_path / "lora", base, seed=2)
    make.adapter(folder / "ref", base, seed=1)
    reference = resolve_checkpoint(folder).reference
    assert reference.name == "lora-ref" and reference.adapter == folder.resolve() / "ref"
    assert reference.path == base.resolve() and reference.fingerprint == sft.fingerprint


def test_trl_run_from_a_local_folder_lacks_reference_and_beta(tmp_path: Path, make) -> None:
    folder = make.card(make.model(tmp_path / "run"), TRL_CARD)
    make.model(folder / "checkpoint-2", seed=1)
    (folder / "training_args.bin").write_bytes(b"a pickle")
    checkpoint = resolve_checkpoint(folder, steps="all")
    assert checkpoint.layout == "trl" and checkpoint.variant == "dpo"
    assert [model.step for model in checkpoint.steps] == [2]
    with pytest.raises(CheckpointError, match=r"TRL's README\.md names no base_model"):
        require_reference(checkpoint)
    with pytest.raises(CheckpointError, match=r"training_args\.bin only, a pickle, .* --beta"):
        require_beta(checkpoint)


@pytest.mark.parametrize("where", ["base_model", "_name_or_path"])
def test_trl_run_names_its_base(tmp_path: Path, make, where: str) -> None:
    base = make.model(tmp_path / "base", seed=1)
    config = {"_name_or_path": str(base)} if where == "_name_or_path" else {}
    card = f"base_model: {base}\n" if where == "base_model" else ""
    folder = make.card(make.model(tmp_path / "run", **config), TRL_CARD + card)
    checkpoint = resolve_checkpoint(folder)
    assert checkpoint.reference.path == base.resolve()
    assert where in lines(checkpoint, "reference")


def test_trl_run_that_names_itself_has_no_reference(tmp_path: Path, make) -> None:
    folder = tmp_path / "run"
    make.card(make.model(folder), f"{TRL_CARD}base_model: {folder}\n")
    with pytest.raises(CheckpointError, match="names the checkpoint itself"):
        require_reference(resolve_checkpoint(folder))


def test_base_on_the_hub_that_cannot_be_fetched_is_asked_for(tmp_path: Path, make) -> None:
    card = f"{TRL_CARD}base_model: acme/no-such-base\n"
    checkpoint = resolve_checkpoint(make.card(make.model(tmp_path / "run"), card))
    with pytest.raises(CheckpointError, match=r"acme/no-such-base: is neither .* --reference"):
        require_reference(checkpoint)


@pytest.mark.parametrize(
    "tags", ["", "tags:\n- trl\n- sft\n", "tags:\n- dpo\n"], ids=["none", "sft", "other"]
)
def test_base_named_by_another_card_is_not_taken_for_the_reference(
    tmp_path: Path, make, tags: str
) -> None:
    folder = make.card(make.model(tmp_path / "m"), f"base_model: acme/base\n{tags}")
    checkpoint = resolve_checkpoint(folder)
    assert checkpoint.reference is None and checkpoint.variant is None
    assert "acme/base, not as a reference" in lines(checkpoint, "reference")


def test_data_set_on_trls_card_is_the_pairs(tmp_path: Path, make) -> None:
    card = f"{TRL_CARD}datasets: trl-lib/ultrafeedback_binarized\n"
    checkpoint = resolve_checkpoint(make.card(make.model(tmp_path / "run"), card))
    assert checkpoint.pairs == "trl-lib/ultrafeedback_binarized"


def test_step_of_a_trl_run_is_read_with_its_runs_card(tmp_path: Path, make) -> None:
    base = make.model(tmp_path / "base", seed=1)
    folder = make.card(tmp_path, f"{TRL_CARD}base_model: {base}\n")
    checkpoint = resolve_checkpoint(make.model(folder / "checkpoint-40"))
    assert checkpoint.variant == "dpo" and checkpoint.reference.path == base.resolve()


def test_no_pickle_is_ever_opened(tmp_path: Path, make, monkeypatch) -> None:
    import pickle

    folder = make.card(make.model(tmp_path / "run"), TRL_CARD)
    (folder / "training_args.bin").write_bytes(b"\x80\x04.")
    opened: list[str] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda p, *a, **k: opened.append(p.name) or real(p, *a, **k))
    monkeypatch.setattr(pickle, "loads", None)
    resolve_checkpoint(folder, steps="all")
    assert "model.safetensors" in opened and "training_args.bin" not in opened


def tokenizer(vocabulary: dict[str, int], template: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(get_vocab=lambda: vocabulary, chat_template=template)


def test_same_tokenizer_is_compatible() -> None:
    check_compatible(tokenizer({"a": 0}, "t"), tokenizer({"a": 0}, "t"))
    check_compatible(tokenizer({"a": 0}), tokenizer({"a": 0}))


@pytest.mark.parametrize("other", [{"a": 0}, {"a": 1, "b": 0}, {"a": 0, "b": 1, "c": 2}])
def test_reference_with_another_vocabulary_is_refused(other: dict[str, int]) -> None:
    with pytest.raises(CheckpointError, match=r"another vocabulary .*, '[abc]' first"):
        check_compatible(tokenizer({"a": 0, "b": 1}), tokenizer(other))


@pytest.mark.parametrize(
    ("theirs", "states"),
    [("u", "policy has one, the reference has one, but they differ"), (None, "has none")],
)
def test_reference_with_another_chat_template_is_refused(theirs: str | None, states: str) -> None:
    with pytest.raises(CheckpointError, match=rf"another chat template .*{states}"):
        check_compatible(tokenizer({"a": 0}, "t"), tokenizer({"a": 0}, theirs))


def test_chat_templates_do_not_matter_for_plain_text() -> None:
    check_compatible(tokenizer({"a": 0}, "t"), tokenizer({"a": 0}, None), template="plain")


def state(folder: Path, **values: object) -> None:
    (folder / "trainer_state.json").write_text(json.dumps(values))


def test_final_step_is_the_runs_own_state_first(run: Path) -> None:
    state(run, global_step=21)
    assert resolve_checkpoint(run, steps="all").final_step == 21
    assert resolve_checkpoint(run).final_step is None


def test_final_step_is_that_of_the_step_with_its_weights(run: Path) -> None:
    checkpoint = resolve_checkpoint(run, steps="all")
    assert checkpoint.final_step == 20
    assert "has the weights of step 20" in lines(checkpoint, "final step")


def test_final_step_is_what_the_last_step_planned(run: Path, make) -> None:
    make.model(run, seed=9)
    assert resolve_checkpoint(run, steps="all").final_step is None
    state(run / "checkpoint-20", global_step=20, max_steps=25)
    checkpoint = resolve_checkpoint(run, steps="all")
    assert checkpoint.final_step == 25
    assert "max_steps in checkpoint-20/trainer_state.json" in lines(checkpoint, "final step")


def test_step_folder_is_its_own_final_step(run: Path) -> None:
    assert resolve_checkpoint(run / "checkpoint-5", steps="all").final_step == 5


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run, make: make.model(run / "checkpoint-05"), "are both step 5; move one"),
        (
            lambda run, make: state(run / "checkpoint-5", global_step=50),
            "says global_step 50, but the folder is named for step 5",
        ),
        (
            lambda run, make: state(run, global_step=7),
            "final model is of step 7 .* checkpoint of step 20: the steps are out of order",
        ),
        (
            lambda run, make: (run / "trainer_state.json").write_text('{"global_step": 2'),
            "trainer_state.json: cannot be read as JSON: .* copy it again",
        ),
        (
            lambda run, make: state(run, global_step="many"),
            "global_step is 'many', expected a whole number",
        ),
    ],
    ids=["step twice", "renamed step", "state behind a step", "broken state", "no number"],
)
def test_steps_that_cannot_be_believed_are_one_sentence(run: Path, make, spoil, words) -> None:
    spoil(run, make)
    with pytest.raises(CheckpointError, match=words) as caught:
        resolve_checkpoint(run, steps="all")
    assert str(run) in str(caught.value) and "\n" not in str(caught.value)
