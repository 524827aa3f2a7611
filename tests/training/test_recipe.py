from pathlib import Path
from typing import Any

import pytest

from dpo_diag.errors import RecipeError, UnknownName
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import (
    dump_recipe,
    load_recipe,
    parse_recipe,
    recipe_for,
    recipe_table,
)

RECIPES = sorted((Path(__file__).parents[2] / "train" / "recipes").glob("*.toml"))
ONLINE = {
    "reward": "sandbox_unhelpfulness",
    "cost": "sandbox_harm",
    "threshold": 0.05,
    "prompts_per_round": 8,
    "samples_per_prompt": 4,
    "max_new_tokens": 8,
}


def table(**sections: dict[str, Any]) -> dict[str, Any]:
    return {
        "variant": {"name": "dpo", "beta": 0.2},
        "optimizer": {"learning_rate": 1e-6, "batch_size": 4},
        **sections,
    }


def test_values_are_read() -> None:
    recipe = parse_recipe(table(run={"seed": 3}, log={"save_every": 5}))
    assert recipe.variant.parameters == {"beta": 0.2}
    assert (recipe.run.seed, recipe.log.save_every) == (3, 5)


def test_integers_serve_as_floats() -> None:
    recipe = parse_recipe(table(variant={"name": "dpo", "beta": 1}))
    assert recipe.build_variant().beta == 1.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimiser": {}}, r"unknown section \[optimiser\]\. Did you mean 'optimizer'"),
        ({"run": {"sed": 1}}, r"\[run\] has no key 'sed'\. Did you mean 'seed'"),
        ({"variant": {"name": "dpo", "betta": 1.0}}, "dpo has no hyper-parameter 'betta'"),
        ({"variant": {"beta": 1.0}}, r"\[variant\] lacks the key 'name'"),
        ({"optimizer": {"batch_size": 4}}, r"\[optimizer\] lacks the key 'learning_rate'"),
        ({"run": {"seed": "one"}}, r"run\.seed must be a int, got 'one'"),
        ({"run": {"seed": True}}, r"run\.seed must be a int, got True"),
        ({"variant": {"name": "dpo", "beta": "x"}}, r"variant\.beta must be a float"),
        ({"run": {"seed": -1}}, r"run\.seed must be 0 or more"),
        ({"run": {"precision": "half"}}, r"run\.precision must be one of float32, bfloat16"),
        ({"variant": {"name": "dpo", "beta": -1.0}}, "beta must be greater than 0"),
        ({"data": {"truncate": "both"}}, r"data\.truncate must be one of"),
        ({"log": {"log_every": 0}}, r"log\.log_every must be 1 or more"),
        ({"lora": {"rank": -1}}, r"lora\.rank must be 0 or more"),
        ({"online": ONLINE}, "dpo does not sample"),
        ({"run": 3}, r"run must be a section"),
    ],
)
def test_a_wrong_recipe_is_one_clear_sentence(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**table(), **changed})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", 0.0),
        ("batch_size", 0),
        ("epochs", -1.0),
        ("max_steps", -1),
        ("schedule", "step"),
        ("beta2", 1.0),
        ("micro_batch_size", 5),
    ],
)
def test_optimizer_values_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=key):
        parse_recipe({**table(), "optimizer": {**table()["optimizer"], key: value}})


def test_missing_section_is_named() -> None:
    with pytest.raises(RecipeError, match=r"the section \[optimizer\] is missing"):
        parse_recipe({"variant": {"name": "dpo"}})


def test_unknown_variant_gives_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'safedpo'"):
        parse_recipe(table(variant={"name": "safdpo"}))


def test_an_online_variant_needs_its_section() -> None:
    with pytest.raises(RecipeError, match=r"repo trains on its own samples.*\[online\]"):
        parse_recipe(table(variant={"name": "repo"}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompts_per_round": 6}, "6, not a multiple of optimizer.batch_size 4"),
        ({"samples_per_prompt": 1}, "samples_per_prompt must be 2 or more"),
        ({"passes": 0}, "passes must be 1 or more"),
    ],
)
def test_online_values_out_of_range_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(table(variant={"name": "repo"}, online={**ONLINE, **changed}))


def test_written_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    first = parse_recipe(
        table(
            variant={"name": "repo"},
            online={**ONLINE, "cost_parameters": {}},
            run={"model": 'a "quoted" \\ path'},
            lora={"rank": 4, "target_modules": ["q_proj", "v_proj"]},
        )
    )
    (tmp_path / "recipe.toml").write_text(dump_recipe(first), encoding="utf-8")
    second = load_recipe(tmp_path / "recipe.toml")
    assert recipe_table(second) == recipe_table(first)
    assert second.lora.target_modules == ("q_proj", "v_proj")


def test_options_find_their_sections() -> None:
    recipe = recipe_for("safedpo", delta=2.0, seed=4, learning_rate=1e-3, rank=8, reference=None)
    assert recipe.build_variant().delta == 2.0
    assert (recipe.run.seed, recipe.optimizer.learning_rate, recipe.lora.rank) == (4, 1e-3, 8)


def test_unknown_option_gives_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'learning_rate'"):
        recipe_for("dpo", learning_rat=1e-3)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[run\n", encoding="utf-8")
    for name in ("broken.toml", "missing.toml"):
        with pytest.raises(RecipeError, match=f"{name}: cannot be read as a recipe in TOML"):
            load_recipe(tmp_path / name)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_committed_recipe_loads(path: Path) -> None:
    assert isinstance(load_recipe(path), Recipe)


def test_there_is_a_committed_recipe_for_each_variant() -> None:
    names = {load_recipe(path).variant.name for path in RECIPES}
    assert {"dpo", "safedpo", "repo"} <= names


@pytest.mark.parametrize("name", ["dpo", "safedpo", "repo"])
def test_shipped_sandbox_recipe_is_the_committed_one(name: str) -> None:
    shipped = Path(__file__).parents[2] / "dpo_diag" / "sandbox" / "recipes" / f"{name}.toml"
    committed = next(path for path in RECIPES if path.name == f"sandbox_{name}.toml")
    assert shipped.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")
    assert load_recipe(shipped).variant.name == name


INFINITE = [
    *[(name, "beta") for name in ("dpo", "dpop", "cdpo", "re_po", "awdpo", "semidpo_port")],
    *[("ipo", "tau"), ("simpo", "gamma"), ("drdpo", "temperature"), ("holder_dpo", "g")],
    *[("safedpo", "delta"), ("auxdpo", "lambda_null"), ("sspo", "decay"), ("repo", "kappa")],
]


@pytest.mark.parametrize(("name", "key"), INFINITE, ids=lambda text: text)
def test_infinite_hyper_parameters_are_refused_when_read(name: str, key: str) -> None:
    """``inf`` is TOML and greater than 0; at the reference inf * 0 would be a loss of NaN."""
    online = {"online": ONLINE} if name == "repo" else {}
    with pytest.raises(RecipeError, match=rf"{name}: {key} must be a finite number, got inf"):
        parse_recipe(table(variant={"name": name, key: float("inf")}, **online))


def test_a_hyper_parameter_whose_infinity_means_something_is_read() -> None:
    variant = {"name": "mnpo", "target": float("inf"), "divergence": "bernoulli_kl"}
    online = {key: value for key, value in ONLINE.items() if key not in ("reward", "cost")}
    recipe = parse_recipe(table(variant=variant, online={**online, "oracle": "cost"}))
    assert recipe.build_variant().target == float("inf")
