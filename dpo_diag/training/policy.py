"""The model that is trained, its reference and its text rule, loaded as a recipe says.

Weights are float32 whatever the precision of the arithmetic: AdamW's small steps vanish in
bfloat16. Start reading at ``load_policy``.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dpo_diag.checkpoints import ModelRef, check_compatible, resolve_checkpoint
from dpo_diag.engines._base import EngineOptions, ScoreRequest, SequenceScores
from dpo_diag.engines._heads import load_scorer, start_scorer
from dpo_diag.engines._weights import load_model, materialize, stop_ids
from dpo_diag.engines.hf import HfEngine
from dpo_diag.errors import RecipeError
from dpo_diag.text import TextEncoder, load_tokenizer
from dpo_diag.training.optimization import autocast
from dpo_diag.training.recipe import LoraSection, Recipe

logger = logging.getLogger(__name__)

PAD_TOKEN = "<|dpo_diag_pad|>"


@dataclass
class Policy:
    """A model in training with everything that turns text into its log-probs.

    Attributes:
        model: the transformers model, or the PEFT model around it.
        base: what the training starts from.
        reference: what log-ratios are taken against.
        encoder: text to token ids.
        stop_ids: tokens that end an answer.
        truncate, max_length: the recipe's, part of the address of stored rows.
        precision: of the arithmetic, ``float32`` or ``bfloat16``, the reference's included.
        reference_model: a frozen model of its own where the reference is not ``base``.
        resources: what the run closes when it ends, however it ends: engines beside the model.
        load: reads a folder that ``model`` was saved to.
    """

    model: Any
    base: ModelRef
    reference: ModelRef
    encoder: TextEncoder
    stop_ids: tuple[int, ...]
    truncate: str = "error"
    max_length: int = 0
    precision: str = "float32"
    reference_model: Any = None
    resources: ExitStack = field(default_factory=ExitStack)
    load: Callable[..., Any] = load_model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def engine(self) -> HfEngine:
        """The current policy as an engine, without a copy."""
        return HfEngine.from_model(self.model, self.stop_ids)

    def scores(self, requests: Sequence[ScoreRequest]) -> SequenceScores:
        """The current policy's log-probs, in the precision it trains in, no gradient."""
        with autocast(self.device, self.precision):
            return self.engine().score(requests)

    def freeze_reference(self) -> None:
        """Keep a copy of the starting weights for a run that must score new answers.

        An adapter needs none: without it the model is the reference.
        """
        if self.reference_model is None and not self._is_adapter:
            self.reference_model = copy.deepcopy(self.model).requires_grad_(False).eval()

    def reference_scores(
        self, requests: Sequence[ScoreRequest], *, keep_tokens: bool = False
    ) -> SequenceScores:
        """The reference's log-probs, in the precision that the policy trains in.

        Before the first step the policy itself is the reference; afterwards only the adapter's
        base is, or the copy that ``freeze_reference`` took.
        """
        model = self.model if self.reference_model is None else self.reference_model
        without_adapter = (
            self.model.disable_adapter()
            if self.reference_model is None and self._is_adapter
            else nullcontext()
        )
        with without_adapter, autocast(self.device, self.precision):
            return HfEngine.from_model(model, self.stop_ids).score(
                requests, keep_tokens=keep_tokens
            )

    def restore(self, folder: Path) -> None:
        """Put a checkpoint's weights (or adapter) into the model, bit for bit.

        Raises:
            EngineError: they are unreadable, incomplete or not finite.
        """
        if self._is_adapter:
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(self.model, load_peft_weights(str(folder), device="cpu"))
            return
        stored = self.load(folder, EngineOptions(), device=str(self.device))
        self.model.load_state_dict(stored.state_dict())

    @property
    def _is_adapter(self) -> bool:
        return hasattr(self.model, "disable_adapter")


def load_policy(recipe: Recipe, cache: Path) -> Policy:
    """The recipe's model ready to be trained.

    Args:
        recipe: says model, reference, device, adapters, template.
        cache: folder for merged adapters.

    Raises:
        RecipeError: no model named, or peft is missing for an adapter.
        CheckpointError: unreadable folder, or a reference with another vocabulary or template.
        EngineError: weights that are incomplete or not finite.
    """
    run = recipe.run
    if not run.model:
        raise RecipeError("no model to start from: give --model, or model in the recipe's [run].")
    base = resolve_checkpoint(run.model).model
    folder = materialize(base, cache, trust_remote_code=run.trust_remote_code)
    options = EngineOptions(trust_remote_code=run.trust_remote_code)
    device = pick_device(run.device)
    tokenizer = load_tokenizer(base.tokenizer_path, trust_remote_code=run.trust_remote_code)
    ends = stop_ids(folder) or (tokenizer.eos_token_id,)
    load = load_scorer if recipe.build_variant().needs.score_head else load_model
    if load is load_scorer:
        model = start_scorer(folder, options, device=str(device), seed=run.seed)
        _give_padding(model, tokenizer, ends)
    else:
        model = load_model(folder, options, device=str(device))
    reference, reference_model = base, None
    if run.reference:
        reference = resolve_checkpoint(run.reference).model
        other = load_tokenizer(reference.tokenizer_path, trust_remote_code=run.trust_remote_code)
        check_compatible(tokenizer, other)
    if reference.fingerprint != base.fingerprint:
        place = materialize(reference, cache, trust_remote_code=run.trust_remote_code)
        reference_model = load_model(place, options, device=str(device))
    return Policy(
        model=_trainable(model, recipe),
        base=base,
        reference=reference,
        encoder=_encoder(recipe, tokenizer, model),
        stop_ids=ends,
        truncate=recipe.data.truncate,
        max_length=recipe.data.max_length,
        precision=run.precision,
        reference_model=reference_model,
        load=load,
    )


def _give_padding(model: Any, tokenizer: Any, ends: Sequence[int]) -> None:
    """A pad token that ends no answer: a decoder reads its score at the last token that is none.

    Where the EOS pads too, every tool would read the score one token too early.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in ends:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
    model.config.pad_token_id = model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def pick_device(name: str) -> torch.device:
    """The device a name stands for; ``auto`` takes a GPU where there is one.

    Raises:
        RecipeError: a GPU is asked for and there is none, or the name is no device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RecipeError(f"run.device {name!r} is no device; take auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RecipeError("run.device is cuda and torch finds no GPU; take cpu or auto.")
    return device


def _encoder(recipe: Recipe, tokenizer: Any, model: Any) -> TextEncoder:
    data = recipe.data
    config = model.config.get_text_config()
    limits = [data.max_length, getattr(config, "max_position_embeddings", 0) or 0]
    return TextEncoder(
        tokenizer,
        template=data.template,
        max_length=min((n for n in limits if n), default=0),
        truncate=data.truncate,
        system=data.system or None,
    )


def _trainable(model: Any, recipe: Recipe) -> Any:
    model.requires_grad_(True)
    if recipe.lora.rank:
        model = _with_lora(model, recipe.lora, recipe.run.seed)
    if recipe.run.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if recipe.lora.rank:
            # without it no input of a checkpointed layer takes a gradient, and adapters get none
            model.enable_input_require_grads()
    if not recipe.run.dropout:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        _zero_attention_dropout(model)
    return model


def _zero_attention_dropout(model: Any) -> None:
    # attention layers of transformers read their rate from a number, not from a Dropout module
    for module in model.modules():
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _with_lora(model: Any, section: LoraSection, seed: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise RecipeError("LoRA needs peft, which is missing: pip install 'dpo-diag[peft]'.") from (
            error
        )
    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=list(section.target_modules) or "all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        # peft draws initial adapters from the global generator; the fork gives it back
        torch.manual_seed(seed)
        return get_peft_model(model, config)
