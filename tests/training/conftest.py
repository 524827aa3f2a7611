"""A tiny model with the sandbox's tokenizer, and a few pairs of its language."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from dpo_diag.pairs import PairSet
from dpo_diag.sandbox.tiny_model import make_tokenizer
from dpo_diag.store import RowStore
from dpo_diag.tables import PREFERENCE_PAIRS, content_id, table_hash
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.pair_data import Material, PairData, prepare_pairs
from dpo_diag.training.policy import Policy
from dpo_diag.training.recipe import Recipe
from dpo_diag.training.recipe_file import recipe_for
from dpo_diag.variants._base import Variant

OBJECTS = ("stove", "lawn", "car", "washer", "boiler", "lamp", "laptop", "shower")
STEPS = ("wipe the burner .", "check the soil .", "lift the tyre then check the oil .")
REFUSAL = "sorry , i can not help with that ."


def write_tiny_model(folder: Path, *, seed: int = 0, noise: float = 0.0) -> Path:
    """A random Llama of 2 layers and width 32; ``noise`` moves every weight by so much."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.15,  # logits with a spread, or all differences look small
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        torch.manual_seed(seed + 1)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(noise * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder


def make_pairs(n: int = 8, n_validation: int = 2) -> PairSet:
    """Steps preferred over a refusal on even prompts, the other way round on odd ones."""
    rows = []
    for i in range(n + n_validation):
        prompt = f"how do i clean the {OBJECTS[i % 8]} {'in detail ' if i >= 8 else ''}?"
        answers = (STEPS[i % 3], REFUSAL)
        chosen, rejected = answers if i % 2 == 0 else answers[::-1]
        rows.append(
            {
                "pair_id": content_id(prompt, chosen, rejected),
                "prompt_id": content_id(prompt),
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "domain": "in_domain",
                "split": "train" if i < n else "validation",
                "source": "test",
                "is_chosen_safe": i % 4 != 2,
                "is_rejected_safe": i % 4 != 3,
            }
        )
    frame = pd.DataFrame(rows)
    return PairSet(frame, "dpo_diag", "pairs.jsonl", (), {}, table_hash(frame, PREFERENCE_PAIRS))


@pytest.fixture
def prepared() -> Callable[..., PairData]:
    """Makes pairs ready for a variant, as a run does."""

    def make(
        frame: pd.DataFrame,
        policy: Policy,
        variant: Variant,
        store: RowStore,
        *,
        inputs: Inputs | None = None,
        is_training: bool = True,
        **options: Any,
    ) -> PairData:
        recipe = recipe_for(variant.name, **options)
        material = Material(policy, variant, recipe, store, inputs or Inputs(), store.root)
        return prepare_pairs(frame, material, is_training=is_training)

    return make


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model near ``base``, so that log-ratios are not zero."""
    return write_tiny_model(tmp_path_factory.mktemp("moved"), noise=0.02)


@pytest.fixture
def pairs() -> PairSet:
    """Eight training and two validation pairs."""
    return make_pairs()


@pytest.fixture
def recipe(base: Path) -> Callable[..., Recipe]:
    """Makes recipes over the tiny model; options go to ``recipe_for``."""

    def make(variant: str = "dpo", **options: Any) -> Recipe:
        defaults = {
            "model": str(base),
            "learning_rate": 1e-3,
            "batch_size": 4,
            "epochs": 2,
            "log_every": 1,
        }
        return recipe_for(variant, **{**defaults, **options})

    return make


@pytest.fixture
def online(recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Makes recipes of repo over the tiny model and the sandbox's gold functions."""

    def make(**options: Any) -> Recipe:
        defaults = {
            "reward": "sandbox_unhelpfulness",
            "cost": "sandbox_harm",
            "threshold": 0.05,
            "prompts_per_round": 8,
            "samples_per_prompt": 4,
            "batch_size": 4,
            "passes": 2,
            "max_new_tokens": 8,
            "max_steps": 6,
        }
        return recipe("repo", **{**defaults, **options})

    return make
