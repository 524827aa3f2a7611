"""Rounds of on-policy pairs: who is chosen, what opponents say, that runs learn and resume."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag import registry
from dpo_diag.engines._base import ScoreRequest
from dpo_diag.errors import CheckpointError, DataError, RecipeError, UnknownName
from dpo_diag.oracles._base import Oracle
from dpo_diag.pairs import PairSet, PromptSet
from dpo_diag.sandbox.tiny_model import make_tokenizer
from dpo_diag.store import RowStore
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.loop import train
from dpo_diag.training.online_pairs import PreferenceSteps
from dpo_diag.training.opponents import swapped
from dpo_diag.training.pair_data import Material
from dpo_diag.training.policy import load_policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import load_recipe
from tests.training.conftest import write_tiny_model
from tests.training.test_loop import Stop, log_of, stop_after

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
JUDGE = """
def prefer(prompts, first, second):
    return [0.5 + 0.4 * ((a > b) - (a < b)) for a, b in zip(first, second)]
"""
MakeRecipe = Callable[..., Recipe]


class Letters(Oracle):
    """Prefers the answer with more letters "e"; how surely, is ``sure``."""

    sure = 1.0

    def prefer(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        gap = [a.count("e") - b.count("e") for a, b in zip(first, second, strict=True)]
        return 0.5 + 0.5 * self.sure * np.sign(gap)


class Silent(Oracle):
    """Abstains."""

    def prefer(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        return np.full(len(prompts), np.nan)


@pytest.fixture(autouse=True)
def _words(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, Letters)


def ask(monkeypatch: pytest.MonkeyPatch, oracle: type[Oracle]) -> None:
    """Put an oracle in the place of ``cost``, with any parameters."""
    build = registry.build

    def planted(family: str, name: str, parameters: Any) -> Any:
        is_asked = (family, name) == ("oracles", "cost")
        return oracle() if is_asked else build(family, name, parameters)

    monkeypatch.setattr(registry, "build", planted)


@pytest.fixture
def play(recipe: MakeRecipe) -> MakeRecipe:
    """Makes recipes of mnpo over the tiny model: 8 prompts, 4 per step, 2 passes."""

    def make(variant: str = "mnpo", **options: Any) -> Recipe:
        defaults = {
            "oracle": "cost",
            "prompts_per_round": 8,
            "samples_per_prompt": 8,
            "batch_size": 4,
            "passes": 2,
            "max_new_tokens": 8,
            "max_steps": 6,
            "eta": 0.1,
        }
        return recipe(variant, **{**defaults, **options})

    return make


def make_steps(made: Recipe, pairs: PairSet, folder: Path) -> PreferenceSteps:
    policy = load_policy(made, folder / "cache")
    material = Material(policy, made.build_variant(), made, RowStore(folder), Inputs(), folder)
    return PreferenceSteps(pairs.frame[pairs.frame["split"] == "train"], material)


def texts(steps: PreferenceSteps, side: str) -> list[str]:
    decode = steps._policy.encoder.decode
    return [decode(ids) for ids in getattr(steps._now, side)]


def nudge(steps: PreferenceSteps, by: float) -> None:
    """Move every weight, as training would."""
    with torch.no_grad():
        for i, weight in enumerate(steps._policy.model.parameters()):
            weight.add_(by * torch.cos(torch.arange(weight.numel()) + i).reshape(weight.shape))


def test_chosen_beats_rejected_and_both_are_scored_under_the_reference(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    steps = make_steps(play(), pairs, tmp_path)
    steps.begin(0)
    now = steps._now
    for chosen, rejected in zip(texts(steps, "chosen"), texts(steps, "rejected"), strict=True):
        assert chosen.count("e") > rejected.count("e")
    assert (now.wins_chosen > now.wins_rejected).all()
    requests = [
        ScoreRequest(steps._rounds.prompt_ids[p], ids)
        for p, ids in zip(now.prompts, now.chosen, strict=True)
    ]
    again = steps._policy.reference_scores(requests).logp
    np.testing.assert_allclose(now.ref_chosen, again, atol=1e-4)
    # nothing was learned: policy = opponents = reference
    np.testing.assert_allclose(now.history_chosen, np.stack([again] * 2), atol=1e-4)


def test_steps_follow_passes_and_every_pair_comes_once_per_pass(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    steps = make_steps(play(), pairs, tmp_path)
    steps.begin(0)
    n = len(steps._now.prompts)
    units = [steps.units(step).tolist() for step in range(4)]
    assert sorted(units[0] + units[1]) == sorted(units[2] + units[3]) == list(range(n))
    steps.begin(4)
    assert steps._number == 1
    assert steps.n_per_epoch == 4


def test_history_is_ordered_from_the_latest_to_the_earliest_policy(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    """Three weights, three rounds; the last round's rows are policies 2, 1, 0 = reference."""
    made = play(history_weights=(0.5, 0.25, 0.25), samples_per_prompt=8)
    steps = make_steps(made, pairs, tmp_path)
    snapshots = []
    for number in range(3):
        if number:
            nudge(steps, 0.05)
        model = steps._policy.model
        snapshots.insert(0, {k: v.detach().clone() for k, v in model.named_parameters()})
        steps.begin(4 * number)
    now = steps._now
    requests = [
        ScoreRequest(steps._rounds.prompt_ids[p], ids)
        for p, ids in zip(now.prompts, now.rejected, strict=True)
    ]
    for row, weights in zip(now.history_rejected, snapshots, strict=True):
        with swapped(model, weights):
            np.testing.assert_allclose(row, steps._policy.scores(requests).logp, atol=1e-4)
    np.testing.assert_allclose(now.history_rejected[2], now.ref_rejected, atol=1e-4)
    assert np.abs(now.history_rejected[0] - now.history_rejected[1]).max() > 0.01


def test_first_round_has_the_reference_for_missing_opponents(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    """The policy starts elsewhere than its reference, so the two differ."""
    other = write_tiny_model(tmp_path / "other", noise=0.05)
    steps = make_steps(play(reference=str(other)), pairs, tmp_path)
    steps.begin(0)
    now = steps._now
    np.testing.assert_array_equal(now.history_chosen[1], now.ref_chosen)
    assert np.abs(now.history_chosen[0] - now.ref_chosen).max() > 0.01


def test_swapped_weights_come_back_bit_for_bit_and_keep_their_identity(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    model = load_policy(play(), tmp_path).model
    own = {k: v.detach().clone() for k, v in model.named_parameters()}
    places = [id(p) for p in model.parameters()]
    with pytest.raises(ZeroDivisionError), swapped(model, {k: v * 0 for k, v in own.items()}):
        assert all(not p.any() for p in model.parameters())
        raise ZeroDivisionError
    assert all(torch.equal(p, own[k]) for k, p in model.named_parameters())
    assert places == [id(p) for p in model.parameters()]


def test_opponents_from_folders_come_in_the_order_given(
    play: MakeRecipe, pairs: PairSet, moved: Path, base: Path, tmp_path: Path
) -> None:
    made = play(opponents=(str(moved), str(base)), reference=str(moved))
    steps = make_steps(made, pairs, tmp_path)
    steps.begin(0)
    now = steps._now
    np.testing.assert_allclose(now.history_chosen[0], now.ref_chosen, atol=1e-4)
    loss = steps.loss(np.arange(len(now.prompts)), len(now.prompts))
    np.testing.assert_allclose(now.history_chosen[1], loss.batch.policy_chosen.numpy(), atol=1e-4)


def test_pairing_sampled_draws_the_order_with_the_oracles_chance(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sure oracle's winner is chosen wherever the two answers differ to it."""
    steps = make_steps(play(pairing="sampled"), pairs, tmp_path)
    steps.begin(0)
    for chosen, rejected in zip(texts(steps, "chosen"), texts(steps, "rejected"), strict=True):
        assert chosen != rejected
        assert chosen.count("e") >= rejected.count("e")


def test_log_has_win_rates_shares_and_the_estimated_gap(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    rows = log_of(train(play(max_steps=8), pairs, out=tmp_path / "run"))
    names = {"win_rate/chosen", "win_rate/rejected", "kl", "usable_pairs", "oracle_abstentions"}
    names |= {"identical_answers", "tied_answers", "completions/clipped_ratio"}
    names |= {"duality_gap", "best_of_n_win_rate"}
    assert names <= rows[0].keys()
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-4)
    assert rows[0]["win_rate/chosen"] > 0.5 > rows[0]["win_rate/rejected"]
    assert rows[0]["best_of_n_win_rate"] > 0.5
    # the second round asks the same prompts, so the first round's policy is a deviation
    assert "earlier_win_rate" not in rows[0]
    assert "earlier_win_rate" in rows[4]
    assert "eval_rewards/accuracies" in rows[-1] and "eval_loss" not in rows[-1]


@pytest.mark.parametrize("stop", [2, 5, 9])
def test_resume_within_a_round_is_exact(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path, stop: int
) -> None:
    """Steps 2, 5 and 9 lie within rounds of four steps; the third round needs a snapshot."""
    made = play(save_every=1, max_steps=10, learning_rate=1e-2)
    whole = train(made, pairs, out=tmp_path / "whole")
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "parts", progress=stop_after(stop))
    parts = train(made, pairs, out=tmp_path / "parts", resume=True)
    one, other = (load_file(run / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(one[key], other[key]) for key in one)
    columns = ("loss", "kl", "duality_gap", "win_rate/chosen")
    logs = [[tuple(r.get(c) for c in columns) for r in log_of(run)] for run in (whole, parts)]
    assert logs[0] == logs[1]


def test_accumulated_passes_equal_one(play: MakeRecipe, pairs: PairSet, tmp_path: Path) -> None:
    one = log_of(train(play(max_steps=1), pairs, out=tmp_path / "one"))[0]
    many = log_of(train(play(max_steps=1, micro_batch_size=1), pairs, out=tmp_path / "many"))[0]
    for key in ("loss", "grad_norm", "win_rate/chosen", "rewards/margins"):
        assert one[key] == pytest.approx(many[key], rel=1e-4, abs=1e-6)


def test_lora_keeps_snapshots_of_the_adapter_only(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    made = play(rank=4, learning_rate=5e-2, max_steps=5, save_every=5)
    steps = make_steps(made, pairs, tmp_path)
    steps.begin(0)
    (snapshot,) = steps.state_dict()["rounds"]["opponents"]["snapshots"]
    assert all("lora" in key for key in snapshot)
    kl = [row["kl"] for row in log_of(train(made, pairs, out=tmp_path / "run")) if "kl" in row]
    assert kl[0] == pytest.approx(0.0, abs=1e-4)
    assert abs(kl[-1]) > 1e-3


def test_run_without_a_pair_says_why(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(monkeypatch, Silent)
    with pytest.raises(DataError, match=r"round 1 gave no pair: of 8 prompts 0 .* 8 answers that"):
        make_steps(play(), pairs, tmp_path).begin(0)


def test_a_later_round_without_a_pair_moves_nothing(
    play: MakeRecipe,
    pairs: PairSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From the fifth step on the oracle is indifferent, so the weights stay."""

    def turn(progress: Any) -> None:
        if progress.step == 4:
            monkeypatch.setattr(Letters, "sure", 0.0)

    made = play(max_steps=8, save_every=4)
    run = train(made, pairs, out=tmp_path / "run", progress=turn)
    one, other = (load_file(f / "model.safetensors") for f in (run, run / "checkpoint-4"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert "round 2 gave no pair" in caplog.text
    assert log_of(run)[-2]["usable_pairs"] == 0.0


def test_an_oracle_that_gives_no_chances_is_refused(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Letters, "sure", 3.0)
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        make_steps(play(), pairs, tmp_path).begin(0)


def test_opponent_with_another_tokenizer_is_refused(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    other = write_tiny_model(tmp_path / "other")
    tokenizer = make_tokenizer(other)
    tokenizer.add_tokens(["zzz"])
    tokenizer.save_pretrained(other)
    with pytest.raises(CheckpointError, match=r"online\.opponents: the tokenizer of .*other"):
        make_steps(play(opponents=(str(other),)), pairs, tmp_path)


def test_recipes_that_contradict_themselves_are_refused(play: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=r"needs online\.oracle"):
        play(oracle="")
    with pytest.raises(RecipeError, match="inpo does not play against other checkpoints"):
        play("inpo", opponents=("x",))
    with pytest.raises(RecipeError, match=r"weighs 2 opponents, online\.opponents names 3"):
        play(opponents=("x", "y", "z"))
    with pytest.raises(RecipeError, match=r"online\.pairing must be one of"):
        play(pairing="all")
    with pytest.raises(RecipeError, match="does not learn from labelled pairs"):
        play(flip_labels=0.2)


@pytest.mark.parametrize("name", ["inpo", "mnpo"])
def test_recipe_trains_three_steps(name: str, tmp_path: Path, base: Path, pairs: PairSet) -> None:
    """The committed recipe as it is, but for model, engine, the oracle's place and lengths."""
    made = load_recipe(RECIPES / f"{name}.toml").with_run(model=str(base))
    oracle = tmp_path / "judge.py"
    oracle.write_text(JUDGE, encoding="utf-8")
    made = dataclasses.replace(
        made,
        optimizer=dataclasses.replace(
            made.optimizer, batch_size=4, max_steps=3, learning_rate=1e-3
        ),
        online=dataclasses.replace(
            made.online,
            engine="hf",
            oracle_parameters={"target": f"{oracle}:prefer"},
            prompts_per_round=8,
            max_new_tokens=8,
        ),
        log=dataclasses.replace(made.log, log_every=1),
    )
    run = train(made, pairs, out=tmp_path / "run")
    losses = [row["loss"] for row in log_of(run) if "loss" in row]
    assert len(losses) == 3 and np.isfinite(losses).all()
    before, after = (load_file(folder / "model.safetensors") for folder in (base, run))
    assert not all(torch.equal(before[key], after[key]) for key in before)


def test_unknown_oracle_gives_the_nearest_name(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path
) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'cost'"):
        make_steps(play(oracle="costs"), pairs, tmp_path)


def test_resume_refuses_other_prompts(play: MakeRecipe, pairs: PairSet, tmp_path: Path) -> None:
    made = play(save_every=1, max_steps=4)
    with pytest.raises(Stop):
        train(made, pairs, out=tmp_path / "run", progress=stop_after(2))
    other = PromptSet(pairs.frame.iloc[:5], "p", (), {}, "0" * 64)
    with pytest.raises(CheckpointError, match="started with other prompts"):
        train(made, pairs, out=tmp_path / "run", resume=True, inputs=Inputs(prompts=other))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["inpo", "mnpo"])
def test_the_preferred_letter_is_learned(
    play: MakeRecipe, pairs: PairSet, tmp_path: Path, variant: str
) -> None:
    made = play(
        variant, max_steps=60, learning_rate=5e-3, schedule="constant", passes=1, log_every=6
    )
    run = train(made, pairs, out=tmp_path / "run")
    state = json.loads((run / "trainer_state.json").read_text())
    assert state["global_step"] == 60
    rows = [row for row in log_of(run) if "kl" in row]
    assert rows[0]["kl"] < rows[-1]["kl"]
    late = [row["earlier_win_rate"] for row in rows if "earlier_win_rate" in row]
    assert np.mean(late) < 0.5  # an earlier policy loses against a later one
