"""Answers sampled from the policy beside the pairs, drawn in bulk without gradient.

Every ``anchor_every`` steps one answer is drawn for each pair that the steps to come will see, so
that one decoding serves many pairs; an anchor is at most that many steps old. The seed is a
function of the run's seed and of the number of the drawing. Validation pairs get theirs whenever
they are evaluated, from the policy of that moment and always with the same random numbers. The
anchors' own log-probs come from the forward pass of their pairs. Start reading at ``Anchors``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from dpo_diag.encoded import EncodedResponse
from dpo_diag.engines._base import EngineOptions, SamplingSettings, ScoreRequest
from dpo_diag.engines.hf import HfEngine
from dpo_diag.tables import content_hash
from dpo_diag.training.batches import step_units
from dpo_diag.training.optimization import autocast
from dpo_diag.training.sources._base import Context, FieldSource, Pass
from dpo_diag.training.sources.token_logps import padded

DRAWN_TOKENS = 16384
"""Tokens decoded at once; their keys and values take less memory than a step of 32 pairs."""


class AnchorSettings(Protocol):
    """What a variant says about its anchors.

    Attributes:
        wants_anchors: false where the loss, as set up, reads none; then none are drawn.
        anchor_every: steps between two drawings.
        anchor_tokens: longest anchor.
        anchor_temperature, anchor_top_p: how they are drawn.
    """

    wants_anchors: bool
    anchor_every: int
    anchor_tokens: int
    anchor_temperature: float
    anchor_top_p: float


class Anchors(FieldSource):
    """``anchor_token_logps``, ``ref_anchor_token_logps`` and ``mask_anchor``, each (B, T')."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings: AnchorSettings = context.variant  # type: ignore[assignment]
        self._drawing = -1
        # pair -> its anchor and the reference's log-probs of its tokens
        self._drawn: dict[int, tuple[EncodedResponse, np.ndarray]] = {}
        if self._settings.wants_anchors:
            context.policy.freeze_reference()

    def begin(self, step: int) -> None:
        """Draw anchors for the pairs of the steps to come, where they are due."""
        number = step // self._settings.anchor_every
        if self._settings.wants_anchors and number != self._drawing:
            self._drawn = self._draw(self._due(number), ["anchors", number])
            self._drawing = number

    def answers(self, index: np.ndarray) -> Sequence[EncodedResponse]:
        """The pairs' anchors."""
        if not self._settings.wants_anchors:
            return ()
        if not self._context.is_training:
            self._drawn = self._draw(index, ["validation anchors"])
        return [self._drawn[place][0] for place in index.tolist()]

    def fields_of_pass(self, index: np.ndarray, seen: Pass) -> Mapping[str, Any]:
        """Log-probs of the anchors' tokens, the policy's with gradient."""
        if seen.beside is None:
            return {}
        policy = seen.beside.tokens
        ref = padded([self._drawn[place][1] for place in index.tolist()], policy.shape[1])
        return {
            "anchor_token_logps": policy,
            "ref_anchor_token_logps": torch.as_tensor(ref, device=policy.device),
            "mask_anchor": seen.beside.mask,
        }

    def state_dict(self) -> dict[str, Any]:
        """The anchors drawn last."""
        return {
            "drawing": self._drawing,
            "anchors": {
                place: (torch.tensor(anchor.response_ids), torch.from_numpy(ref))
                for place, (anchor, ref) in self._drawn.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the anchors drawn last."""
        self._drawing = state["drawing"]
        self._drawn = {
            place: (self._answer(place, tuple(ids.tolist())), ref.numpy())
            for place, (ids, ref) in state["anchors"].items()
        }

    def _due(self, number: int) -> np.ndarray:
        """The pairs that the steps of a drawing see, each once."""
        every, recipe = self._settings.anchor_every, self._context.recipe
        units = [
            step_units(
                recipe.run.seed,
                step,
                n=len(self._context),
                batch_size=recipe.optimizer.batch_size,
            )
            for step in range(number * every, (number + 1) * every)
        ]
        return np.unique(np.concatenate(units))

    def _draw(
        self, index: np.ndarray, use: list[Any]
    ) -> dict[int, tuple[EncodedResponse, np.ndarray]]:
        """One anchor per pair; ``use`` makes the seed a stream of its own."""
        policy, settings = self._context.policy, self._settings
        seed = int(content_hash([self._context.recipe.run.seed, *use])[:8], 16)
        room = np.array([self._room(place) for place in index])
        found: dict[int, tuple[int, ...]] = {}
        for limit in np.unique(
            room
        ).tolist():  # one call but for prompts that nearly fill the window
            places = index[room == limit].tolist()
            how = SamplingSettings(
                n=1,
                temperature=settings.anchor_temperature,
                top_p=settings.anchor_top_p,
                max_new_tokens=limit,
                seed=seed,
            )
            with autocast(policy.device, policy.precision):
                drawn = self._engine().sample([self._prompt(place) for place in places], how)
            found.update(zip(places, (answer.response_ids for answer in drawn), strict=True))
        anchors = [self._answer(place, found[place]) for place in index.tolist()]
        requests = [ScoreRequest(a.prompt_ids, a.response_ids) for a in anchors]
        logps = policy.reference_scores(requests, keep_tokens=True).token_logps or ()
        rows = zip(index.tolist(), anchors, logps, strict=True)
        return {place: (anchor, ref.astype(np.float32)) for place, anchor, ref in rows}

    def _engine(self) -> HfEngine:
        policy = self._context.policy
        options = EngineOptions(batch_tokens=DRAWN_TOKENS)
        return HfEngine.from_model(policy.model, policy.stop_ids, options)

    def _prompt(self, place: int) -> tuple[int, ...]:
        return self._context.chosen[place].prompt_ids

    def _answer(self, place: int, ids: tuple[int, ...]) -> EncodedResponse:
        return EncodedResponse(self._prompt(place), ids)

    def _room(self, place: int) -> int:
        """Tokens that an anchor of a pair may have: the window is shared with its prompt."""
        config = self._context.policy.model.config.get_text_config()
        limits = (
            self._context.recipe.data.max_length,
            getattr(config, "max_position_embeddings", 0),
        )
        window = min((n for n in limits if n), default=0)
        longest = self._settings.anchor_tokens
        return min(longest, window - len(self._prompt(place))) if window else longest


make_source = Anchors
