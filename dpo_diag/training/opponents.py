"""Log-probs under the policies that are played against: the run's own past, or other checkpoints.

Only one extra model, or one extra set of weights, is in use at a time. Where there are fewer
opponents than the variant weighs, as in a run's first rounds, the reference stands in. Start
reading at ``make_opponents``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dpo_diag.checkpoints import ModelRef, check_compatible, resolve_checkpoint
from dpo_diag.engines._base import EngineOptions, ScoreRequest
from dpo_diag.engines._weights import load_model, materialize
from dpo_diag.engines.hf import HfEngine
from dpo_diag.errors import CheckpointError
from dpo_diag.text import load_tokenizer
from dpo_diag.training.optimization import autocast
from dpo_diag.training.pair_data import Material
from dpo_diag.training.policy import Policy


class Opponents(Protocol):
    """The opponents of a run, the latest (or first named) first."""

    def logps(
        self, requests: Sequence[ScoreRequest], behaviour: np.ndarray, ref: np.ndarray
    ) -> np.ndarray:
        """Log-probs of N answers at the start of a round, (H, N) float64, nats.

        Args:
            requests: the answers.
            behaviour: (N,) under the policy of this moment, which drew them.
            ref: (N,) under the reference.
        """

    def end_of_drawing(self) -> None:
        """The round's answers are scored; training will now move the policy."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a stored state."""


def make_opponents(material: Material) -> Opponents:
    """The opponents that a recipe names; without any, the run's own past.

    Raises:
        CheckpointError: a folder that cannot be read, or whose tokenizer differs.
    """
    section = material.recipe.online
    if section is not None and section.opponents:
        return _Folders(material, section.opponents)
    return _Past(material.policy, material.variant.n_history)


class _Past:
    """The policies at the starts of this round and of earlier ones.

    The first is the one that drew the answers, whose log-probs come with them. Of the earlier ones
    the trainable weights are kept in main memory and in each checkpoint: one set of weights for
    every opponent after the first.
    """

    def __init__(self, policy: Policy, n_history: int) -> None:
        self._policy, self._n = policy, n_history
        self._snapshots: list[dict[str, torch.Tensor]] = []  # the latest first

    def logps(
        self, requests: Sequence[ScoreRequest], behaviour: np.ndarray, ref: np.ndarray
    ) -> np.ndarray:
        """As ``Opponents.logps``; an opponent of before the first round is the reference."""
        rows = [behaviour][: self._n]
        for weights in self._snapshots[: max(0, self._n - 1)]:
            with swapped(self._policy.model, weights):
                rows.append(self._policy.scores(requests).logp)
        rows += [ref] * (self._n - len(rows))
        return np.stack(rows) if rows else np.zeros((0, len(requests)))

    def end_of_drawing(self) -> None:
        """Keep the weights of this moment for the rounds to come."""
        if self._n > 1:
            now = {k: v.detach().cpu().clone() for k, v in _trainable(self._policy.model)}
            self._snapshots = [now, *self._snapshots][: self._n - 1]

    def state_dict(self) -> dict[str, Any]:
        return {"snapshots": self._snapshots}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._snapshots = list(state["snapshots"])


class _Folders:
    """Checkpoints of other runs, loaded one after the other when a round is scored."""

    def __init__(self, material: Material, folders: Sequence[str]) -> None:
        self._policy, self._n = material.policy, material.variant.n_history
        self._trusted = material.recipe.run.trust_remote_code
        self._cache = material.folder / "cache"
        self._models = [self._resolved(folder) for folder in folders]

    def logps(
        self, requests: Sequence[ScoreRequest], behaviour: np.ndarray, ref: np.ndarray
    ) -> np.ndarray:
        """As ``Opponents.logps``; weights beyond the folders go to the reference."""
        rows = [self._scores(model, requests) for model in self._models]
        return np.stack([*rows, *[ref] * (self._n - len(rows))])

    def end_of_drawing(self) -> None:
        """Nothing: checkpoints do not move."""

    def state_dict(self) -> dict[str, Any]:
        return {"fingerprints": [model.fingerprint for model in self._models]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for model, before in zip(self._models, state["fingerprints"], strict=True):
            if model.fingerprint != before:
                raise CheckpointError(
                    f"{model.source}: this opponent's weights are not those that the run was "
                    "started with; put them back, or start anew in another folder."
                )

    def _resolved(self, folder: str) -> ModelRef:
        model = resolve_checkpoint(folder).model
        other = load_tokenizer(model.tokenizer_path, trust_remote_code=self._trusted)
        encoder = self._policy.encoder
        try:
            check_compatible(encoder.tokenizer, other, template=encoder.template)
        except CheckpointError as error:
            raise CheckpointError(
                f"online.opponents: the tokenizer of {folder} has another vocabulary or chat "
                "template than that of the model in training, so it cannot score the same tokens; "
                "take opponents with the same tokenizer."
            ) from error
        return model

    def _scores(self, model: ModelRef, requests: Sequence[ScoreRequest]) -> np.ndarray:
        policy = self._policy
        place = materialize(model, Path(self._cache), trust_remote_code=self._trusted)
        options = EngineOptions(trust_remote_code=self._trusted)
        network = load_model(place, options, device=str(policy.device))
        with autocast(policy.device, policy.precision):
            return HfEngine.from_model(network, policy.stop_ids).score(requests).logp


@contextmanager
def swapped(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Other trainable weights in a model for a while; its own come back, bit for bit.

    Parameters keep their identity, so an optimiser does not notice.
    """
    own = {name: value.detach().clone() for name, value in _trainable(model)}
    try:
        _put(model, weights)
        yield
    finally:
        _put(model, own)


@torch.no_grad()
def _put(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    for name, value in _trainable(model):
        value.copy_(weights[name])


def _trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]
