"""What a training run is: a recipe of frozen sections, checked before any model is loaded.

Every section is a dataclass; its fields are the keys of the TOML file that ``recipe_file`` reads,
their checks run on creation. Start reading at ``Recipe``; ``train/recipes`` has commented examples.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dpo_diag import registry
from dpo_diag.variants._base import Needs, Variant, build, require

SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class RunSection:
    """Which model is trained, and where.

    Attributes:
        model: folder or hub id of the model to start from.
        reference: folder of the reference; empty takes the starting model.
        seed: seeds data order, dropout and sampling.
        precision: ``float32``, or ``bfloat16`` for autocast over float32 weights.
        device: ``auto``, ``cpu``, ``cuda`` ...
        matmul: ``auto`` takes torch's faster float32 products where they are measured to be as
            accurate, ``highest`` never.
        gradient_checkpointing: recompute activations in the backward pass: less memory, slower.
        dropout: leave the model's own dropout on while training; the reference never has it.
        trust_remote_code: run code that comes with the model.
    """

    model: str = ""
    reference: str = ""
    seed: int = 0
    precision: str = "float32"
    device: str = "auto"
    matmul: str = "auto"
    gradient_checkpointing: bool = False
    dropout: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        _choice("run.precision", self.precision, PRECISIONS)
        _choice("run.matmul", self.matmul, ("auto", "highest"))
        require(self.seed >= 0, f"run.seed must be 0 or more, got {self.seed}.")


@dataclass(frozen=True)
class VariantSection:
    """The variant's name and its own hyper-parameters, under their names."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerSection:
    """AdamW and its schedule.

    Attributes:
        learning_rate: peak, greater than 0.
        batch_size: pairs per optimiser step; prompts per step for an online variant.
        micro_batch_size: pairs (prompts) per forward pass, gradients are accumulated over them;
            0 takes the whole batch at once.
        epochs: passes over the training pairs (prompts), may be a fraction.
        max_steps: optimiser steps; 0 leaves it to ``epochs``.
        schedule: ``cosine``, ``linear`` or ``constant`` after the warm-up.
        warmup_steps: steps of linear warm-up.
        weight_decay: on weight matrices only.
        beta1, beta2, epsilon: AdamW's.
        max_grad_norm: gradients are clipped to this norm; 0 does not clip.
    """

    learning_rate: float
    batch_size: int
    epochs: float = 1.0
    max_steps: int = 0
    micro_batch_size: int = 0
    schedule: str = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        _choice("optimizer.schedule", self.schedule, SCHEDULES)
        for name in ("learning_rate", "batch_size", "epochs", "epsilon"):
            value = getattr(self, name)
            require(
                value > 0 and math.isfinite(value),
                f"optimizer.{name} must be greater than 0, got {value}.",
            )
        for name in (
            "max_steps",
            "micro_batch_size",
            "warmup_steps",
            "weight_decay",
            "max_grad_norm",
        ):
            value = getattr(self, name)
            require(value >= 0, f"optimizer.{name} must be 0 or more, got {value}.")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name} must be in [0, 1), got {value}.")
        require(
            self.micro_batch_size <= self.batch_size,
            f"optimizer.micro_batch_size is {self.micro_batch_size}, more than the batch_size "
            f"{self.batch_size}.",
        )


@dataclass(frozen=True)
class DataSection:
    """How pairs become token ids.

    Attributes:
        template: ``auto``, ``chat`` or ``plain``.
        max_length: longest prompt plus response in tokens; 0 takes the model's window.
        truncate: ``error``, ``prompt`` or ``response``: what to do with longer ones.
        system: system message for the chat template; empty gives none.
        flip_labels: share of training pairs whose sides are exchanged before anything else, an
            experiment on label noise; in [0, 1).
        flip_seed: which ones.
    """

    template: str = "auto"
    max_length: int = 0
    truncate: str = "error"
    system: str = ""
    flip_labels: float = 0.0
    flip_seed: int = 0

    def __post_init__(self) -> None:
        require(
            0 <= self.flip_labels < 1,
            f"data.flip_labels must be in [0, 1), got {self.flip_labels}.",
        )
        _choice("data.template", self.template, ("auto", "chat", "plain"))
        _choice("data.truncate", self.truncate, ("error", "prompt", "response"))
        require(self.max_length >= 0, f"data.max_length must be 0 or more, got {self.max_length}.")


@dataclass(frozen=True)
class LogSection:
    """How often the run speaks, evaluates and saves, in optimiser steps.

    Attributes:
        log_every: rows of ``log_history``.
        eval_every: evaluation on the validation pairs; 0 evaluates at the end only.
        save_every: ``checkpoint-<step>`` folders; 0 saves the final model only.
    """

    log_every: int = 10
    eval_every: int = 0
    save_every: int = 0

    def __post_init__(self) -> None:
        require(self.log_every >= 1, f"log.log_every must be 1 or more, got {self.log_every}.")
        for name in ("eval_every", "save_every"):
            value = getattr(self, name)
            require(value >= 0, f"log.{name} must be 0 or more, got {value}.")


@dataclass(frozen=True)
class LoraSection:
    """Low-rank adapters instead of full fine-tuning.

    Attributes:
        rank: of the update; 0 is full fine-tuning.
        alpha: the update is scaled by ``alpha / rank``.
        dropout: on the adapter's input, in [0, 1).
        target_modules: names of the layers; empty takes every linear layer but the output head.
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.rank >= 0, f"lora.rank must be 0 or more, got {self.rank}.")
        require(self.alpha > 0, f"lora.alpha must be greater than 0, got {self.alpha}.")
        require(0 <= self.dropout < 1, f"lora.dropout must be in [0, 1), got {self.dropout}.")


@dataclass(frozen=True)
class OnlineSection:
    """On-policy sampling (at temperature 1) and its scores, for variants that need it.

    Which scorer is read depends on the variant: reward and cost, a similarity to reference
    answers, or an oracle of preferences.

    Attributes:
        prompts_per_round: prompts sampled at once with one policy, a multiple of the batch size.
        samples_per_prompt: at least 2, since a sample is compared with its prompt's others.
        max_new_tokens: longest answer.
        passes: times each sample is used before new ones are drawn.
        engine: what samples: ``hf`` (the model in training itself), ``vllm`` (weights swapped in
            before each round) or ``auto``.
        reward: a cost model's name; the reward is its upper end minus its value (or minus its
            value where it has no upper end). Role ``unhelpfulness`` is the usual choice.
        cost: a cost model's name, role ``harm`` as a rule.
        threshold: subtracted from the cost; what is above it violates the constraint.
        similarity: name of a similarity to the reference answer.
        oracle: name of an oracle of preferences.
        pairing: how two of a prompt's samples become a pair for the oracle's variants:
            ``best_worst`` by mean chance to win against the others, or ``sampled``, two at random
            and the order drawn with the oracle's chance, as the theory of INPO has it.
        opponents: folders of the checkpoints played against, the first with the first weight;
            empty takes the run's own past.
        reward_parameters, cost_parameters, similarity_parameters, oracle_parameters: the scorers'
            own parameters.
    """

    prompts_per_round: int
    samples_per_prompt: int
    max_new_tokens: int
    passes: int = 1
    engine: str = "hf"
    reward: str = ""
    cost: str = ""
    threshold: float = 0.0
    similarity: str = ""
    oracle: str = ""
    pairing: str = "best_worst"
    opponents: tuple[str, ...] = ()
    reward_parameters: Mapping[str, Any] = field(default_factory=dict)
    cost_parameters: Mapping[str, Any] = field(default_factory=dict)
    similarity_parameters: Mapping[str, Any] = field(default_factory=dict)
    oracle_parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("prompts_per_round", "max_new_tokens", "passes"):
            value = getattr(self, name)
            require(value >= 1, f"online.{name} must be 1 or more, got {value}.")
        require(
            self.samples_per_prompt >= 2,
            f"online.samples_per_prompt must be 2 or more, got {self.samples_per_prompt}.",
        )
        _choice("online.engine", self.engine, ("hf", "vllm", "auto"))
        _choice("online.pairing", self.pairing, ("best_worst", "sampled"))


@dataclass(frozen=True)
class PlayersSection:
    """Several policies, each with an oracle of its own, that play against each other.

    Attributes:
        rounds: times each player is trained, one after the other, against the others' latest.
        oracles: player -> parameters of its oracle, over ``online.oracle_parameters``; the key
            ``oracle`` names another oracle than ``online.oracle``. Two players or more.
    """

    rounds: int
    oracles: Mapping[str, Any]

    def __post_init__(self) -> None:
        require(self.rounds >= 1, f"players.rounds must be 1 or more, got {self.rounds}.")
        require(
            len(self.oracles) >= 2,
            f"players.oracles needs two players or more, got {', '.join(self.oracles) or 'none'}.",
        )
        for name, parameters in self.oracles.items():
            require(
                re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None,
                f"players.oracles: {name!r} names a folder; take letters, digits, _ and -.",
            )
            require(
                isinstance(parameters, Mapping),
                f"players.oracles.{name} must be a table of oracle parameters, got {parameters!r}.",
            )


@dataclass(frozen=True)
class Recipe:
    """A training run, complete: model, variant, optimiser, data, logging, adapters, sampling."""

    variant: VariantSection
    optimizer: OptimizerSection
    run: RunSection = field(default_factory=RunSection)
    data: DataSection = field(default_factory=DataSection)
    log: LogSection = field(default_factory=LogSection)
    lora: LoraSection = field(default_factory=LoraSection)
    online: OnlineSection | None = None
    players: PlayersSection | None = None

    def __post_init__(self) -> None:
        variant = self.build_variant()
        needs = variant.needs
        name = self.variant.name
        scorers = _scorers(needs)
        if scorers:
            require(
                self.online is not None,
                f"{name} trains on its own samples: the recipe needs an [online] section with "
                f"{', '.join(scorers)}, prompts_per_round, samples_per_prompt and max_new_tokens.",
            )
            _check_rounds(name, self.online, self.optimizer, scorers)
        else:
            require(
                self.online is None, f"{name} does not sample: remove [online] from its recipe."
            )
        require(
            needs.has_pair_loss or not self.data.flip_labels,
            f"{name} does not learn from labelled pairs: data.flip_labels would change nothing.",
        )
        require(
            not (needs.score_head and self.lora.rank),
            f"{name} trains a head of its own, which an adapter does not hold here: remove [lora].",
        )
        _check_opponents(variant, self.online, self.players, self.lora)
        micro = self.optimizer.micro_batch_size
        require(
            not (needs.couples_batch and 0 < micro < self.optimizer.batch_size),
            f"{name} couples the pairs of a batch: micro_batch_size must be 0 or the batch_size.",
        )

    def build_variant(self) -> Variant:
        """The variant with its hyper-parameters.

        Raises:
            UnknownName: no such variant, with the nearest name.
            RecipeError: a hyper-parameter is unknown or out of range.
        """
        return build(registry.load("variants", self.variant.name), self.variant.parameters)

    def with_run(self, **changes: Any) -> "Recipe":
        """The recipe with other values in its ``run`` section, e.g. ``model`` or ``seed``."""
        return dataclasses.replace(self, run=dataclasses.replace(self.run, **changes))


def _scorers(needs: Needs) -> tuple[str, ...]:
    """Keys of the ``online`` section that say how samples are scored; empty without sampling."""
    if needs.online_pairs:
        return ("oracle",)
    if needs.online_samples:
        return ("similarity",) if needs.reference_answers else ("reward", "cost")
    return ()


def _check_rounds(
    name: str, online: OnlineSection, optimizer: OptimizerSection, scorers: tuple[str, ...]
) -> None:
    for key in scorers:
        require(bool(getattr(online, key)), f"{name} needs online.{key}, which is not given.")
    require(
        online.prompts_per_round % optimizer.batch_size == 0,
        f"online.prompts_per_round is {online.prompts_per_round}, not a multiple of "
        f"optimizer.batch_size {optimizer.batch_size} (prompts per optimiser step).",
    )


def _check_opponents(
    variant: Variant,
    online: OnlineSection | None,
    players: PlayersSection | None,
    lora: LoraSection,
) -> None:
    name, opponents = variant.name, online.opponents if online else ()
    require(
        variant.plays_folders or not (opponents or players),
        f"{name} does not play against other checkpoints: remove online.opponents and [players].",
    )
    require(
        len(opponents) <= variant.n_history,
        f"{name} weighs {variant.n_history} opponents, online.opponents names {len(opponents)}; "
        "give as many weights as opponents.",
    )
    if players is None:
        return
    n = len(players.oracles)
    require(not opponents, "online.opponents and [players] exclude each other.")
    require(
        variant.n_history == n - 1,
        f"with {n} players each has {n - 1} opponents, and {name} weighs {variant.n_history}.",
    )
    require(not lora.rank, "[players] trains whole models: remove [lora].")


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    require(value in choices, f"{name} must be one of {', '.join(choices)}, got {value!r}.")
