"""Players with oracles of their own: who meets whom, what is recorded, how runs go on."""

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
from dpo_diag.checkpoints import read_manifest
from dpo_diag.errors import CheckpointError, DataError, RecipeError
from dpo_diag.oracles._base import Oracle
from dpo_diag.pairs import PairSet
from dpo_diag.training.loop import train
from dpo_diag.training.player_gaps import _Table
from dpo_diag.training.players import train_players
from dpo_diag.training.recipe import PlayersSection, Recipe
from dpo_diag.training.recipe_file import dump_recipe, load_recipe, parse_recipe, recipe_table
from tests.training.test_loop import Stop, stop_after
from tests.training.test_online_pairs import JUDGE, RECIPES


class Letters(Oracle):
    """Prefers the answer with more of a letter, or of fewer where the letter is "-"."""

    def __init__(self, letter: str) -> None:
        object.__setattr__(self, "letter", letter)

    def prefer(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        gap = [
            a.count(self.letter) - b.count(self.letter) for a, b in zip(first, second, strict=True)
        ]
        return 0.5 + 0.5 * np.sign(gap)

    @property
    def oracle_def(self) -> str:
        return f"letters({self.letter})"


@pytest.fixture(autouse=True)
def _letters(monkeypatch: pytest.MonkeyPatch) -> None:
    build = registry.build

    def planted(family: str, name: str, parameters: Any) -> Any:
        if (family, name) == ("oracles", "cost") and "letter" in parameters:
            return Letters(parameters["letter"])
        return build(family, name, parameters)

    monkeypatch.setattr(registry, "build", planted)


@pytest.fixture
def game(recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Makes recipes of two players, two rounds of two steps each."""

    def make(rounds: int = 2, **options: Any) -> Recipe:
        oracles = {"ann": {"letter": "e"}, "bob": {"letter": "t"}}
        defaults = {
            "oracle": "cost",
            "prompts_per_round": 8,
            "samples_per_prompt": 4,
            "batch_size": 4,
            "max_new_tokens": 6,
            "max_steps": 2,
            "history_weights": (1.0,),
            "learning_rate": 1e-2,
            "oracles": oracles,
            "rounds": rounds,
        }
        return recipe("mnpo", **{**defaults, **options})

    return make


def record(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "players.json").read_text(encoding="utf-8"))["rounds"]


def test_players_meet_the_others_latest_checkpoints(
    game: Callable[..., Recipe], pairs: PairSet, base: Path, tmp_path: Path
) -> None:
    """Ann moves first: in round 1 she meets the start, Bob meets her; each goes on from its own."""
    out = train_players(game(), pairs, out=tmp_path / "game")
    first, last = out / "ann" / "round-1", out / "ann"
    met = {
        folder: load_recipe(folder / "recipe.toml")
        for folder in (first, last, out / "bob" / "round-1", out / "bob")
    }
    assert met[first].online.opponents == (str(base),)
    assert met[out / "bob" / "round-1"].online.opponents == (str(first),)
    assert met[last].online.opponents == (str(out / "bob" / "round-1"),)
    assert met[out / "bob"].online.opponents == (str(last),)
    assert met[last].run.model == str(first)
    assert met[out / "bob"].online.oracle_parameters == {"letter": "t"}
    assert len({made.run.seed for made in met.values()}) == 4
    # log-ratios are against the common start in every round
    manifests = [read_manifest(folder) for folder in met]
    assert len({m.reference.fingerprint for m in manifests}) == 1
    assert all(m.players is None for m in met.values())


def test_record_says_what_each_player_could_gain_and_promises_nothing(
    game: Callable[..., Recipe], pairs: PairSet, tmp_path: Path
) -> None:
    out = train_players(game(), pairs, out=tmp_path / "game")
    text = (out / "players.json").read_text(encoding="utf-8")
    assert "no convergence or Nash guarantee" in text
    assert "equilibrium" not in text.lower()
    one, two = record(out)
    assert (one["round"], two["round"]) == (1, 2)
    ann = two["players"]["ann"]
    assert ann["deviations"] == ["start", "own round 1", "policy of bob", "best of 2"]
    assert ann["oracle"] == "letters(e)"
    assert 0.0 <= ann["win_rate"] <= 1.0
    assert ann["n_prompts"] == 2  # the validation pairs' prompts
    assert set(ann["picked"]) <= {*ann["deviations"], "staying"}


@pytest.mark.parametrize("stop", [3, 6])
def test_a_stopped_game_goes_on_exactly(
    game: Callable[..., Recipe], pairs: PairSet, tmp_path: Path, stop: int
) -> None:
    """Step 3 is within Bob's first round, step 6 the last of Ann's second."""
    made = game(save_every=1)
    whole = train_players(made, pairs, out=tmp_path / "a" / "game")
    with pytest.raises(Stop):
        train_players(made, pairs, out=tmp_path / "b" / "game", progress=stop_after(stop))
    parts = train_players(made, pairs, out=tmp_path / "b" / "game", resume=True)
    for name in ("ann", "bob"):
        one, other = (load_file(run / name / "model.safetensors") for run in (whole, parts))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert record(whole) == record(parts)


def test_a_folder_with_players_is_not_overwritten_nor_mixed(
    game: Callable[..., Recipe], pairs: PairSet, tmp_path: Path
) -> None:
    out = train_players(game(rounds=1), pairs, out=tmp_path / "game")
    with pytest.raises(CheckpointError, match="already holds players"):
        train_players(game(rounds=1), pairs, out=out)
    with pytest.raises(CheckpointError, match="differs from this run's recipe"):
        train_players(game(rounds=2), pairs, out=out, resume=True)


def test_every_oracle_is_built_before_anything_is_trained(
    game: Callable[..., Recipe], pairs: PairSet, tmp_path: Path
) -> None:
    made = game(oracles={"ann": {"letter": "e"}, "bob": {"scale": 1.0}})
    with pytest.raises(DataError, match="cost needs the parameter 'cost'"):
        train_players(made, pairs, out=tmp_path / "game")
    assert not (tmp_path / "game").exists()


def test_a_player_may_name_another_oracle_without_the_shared_parameters(
    game: Callable[..., Recipe], pairs: PairSet, tmp_path: Path
) -> None:
    made = game(
        rounds=1,
        max_steps=1,
        oracle_parameters={"letter": "e"},
        oracles={"ann": {}, "bob": {"oracle": "python_callable", "target": "math:nothing"}},
    )
    with pytest.raises(DataError) as error:
        train_players(made, pairs, out=tmp_path / "game")
    assert "letter" not in str(error.value)


def test_games_that_contradict_themselves_are_refused(game: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match="two players or more, got ann"):
        game(oracles={"ann": {"letter": "e"}})
    with pytest.raises(RecipeError, match="with 2 players each has 1 opponents"):
        game(history_weights=(0.5, 0.5))
    with pytest.raises(RecipeError, match=r"online\.opponents and \[players\] exclude"):
        game(opponents=("x",))
    with pytest.raises(RecipeError, match=r"remove \[lora\]"):
        game(rank=2)
    with pytest.raises(RecipeError, match="names a folder"):
        game(oracles={"ann": {}, "../bob": {}})
    with pytest.raises(RecipeError, match="must be a table"):
        game(oracles={"ann": {}, "bob": 3})
    with pytest.raises(RecipeError, match=r"players\.rounds must be 1 or more"):
        game(rounds=0)


def test_the_loop_for_one_policy_refuses_a_game(
    game: Callable[..., Recipe], pairs: PairSet, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="several runs"):
        train(game(), pairs, out=tmp_path / "run")


def test_committed_recipe_of_players_trains(base: Path, pairs: PairSet, tmp_path: Path) -> None:
    """As it is, but for model, engine, oracles' places and lengths; one step each in a round."""
    made = load_recipe(RECIPES / "mnpo_players.toml").with_run(model=str(base))
    (tmp_path / "judge.py").write_text(JUDGE, encoding="utf-8")
    target = {"target": f"{tmp_path / 'judge.py'}:prefer"}
    made = dataclasses.replace(
        made,
        optimizer=dataclasses.replace(
            made.optimizer, batch_size=4, max_steps=1, learning_rate=1e-3
        ),
        online=dataclasses.replace(made.online, engine="hf", prompts_per_round=8, max_new_tokens=8),
        players=PlayersSection(1, dict.fromkeys(made.players.oracles, target)),
    )
    out = train_players(made, pairs, out=tmp_path / "game")
    (only,) = record(out)
    assert set(only["players"]) == {"helpful", "careful", "brief"}
    assert all((out / name / "model.safetensors").is_file() for name in only["players"])


def test_recipe_with_players_survives_its_text(game: Callable[..., Recipe], tmp_path: Path) -> None:
    made = game()
    (tmp_path / "r.toml").write_text(dump_recipe(made), encoding="utf-8")
    assert load_recipe(tmp_path / "r.toml") == parse_recipe(recipe_table(made))
    assert load_recipe(tmp_path / "r.toml").players == made.players


def test_best_of_own_answers_is_chosen_and_judged_on_different_answers() -> None:
    """Own answers e, ee (candidates) and two more; others e, - choose, eee, ee judge.

    Against "e" and "-" candidate "ee" wins both (mean 1), "e" ties one (3/4): "ee" is taken. On
    "eee" and "ee" it loses and ties: 1/4. The policy itself, place by place: e-e 1/2, ee-"" 1,
    e-eee 0, e-ee 0: 3/8.
    """
    table = _Table(Letters("e"), ["p"], [[["e", "", "eee", "ee"]]])
    own = [["e", "ee", "e", "e"]]
    assert table.best(own) == pytest.approx([0.25])
    assert table.wins(own) == pytest.approx([0.375])
