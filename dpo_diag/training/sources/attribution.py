"""How much each response token moves the model's last logit; from the pass of the loss itself.

``forward.attributed_logps`` measures it. What the last pairs' tokens weighed is left in the run
folder, where the variant makes weights of attributions (``token_weights``). Start reading at
``Attribution``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from dpo_diag.training.sources._base import Context, FieldSource, Pass
from dpo_diag.training.token_weights import write_token_weights

KEPT_PAIRS = 256
"""Pairs whose attributions are kept for the run folder, the ones last trained on."""
SIDES = ("chosen", "rejected")


class WeighsTokens(Protocol):
    """A variant that makes weights of attributions."""

    def token_weights(self, attribution: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Weights, (B, T), of attributions, (B, T), where the mask is true."""


class Attribution(FieldSource):
    """``attribution_chosen`` and ``attribution_rejected``, (B, T), 0 on padding."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # pair -> attributions of both sides' tokens; the last seen stand last
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def fields_of_pass(self, index: np.ndarray, seen: Pass) -> Mapping[str, Any]:
        """Both sides, as the pass measured them."""
        found = (seen.chosen.attribution, seen.rejected.attribution)
        if self._context.is_training:
            self._keep(index, *(side.cpu() for side in found))
        return {f"attribution_{side}": values for side, values in zip(SIDES, found, strict=True)}

    def artefacts(self, folder: Path) -> None:
        """``token_weights.parquet`` with the pairs last trained on."""
        if self._kept and hasattr(self._context.variant, "token_weights"):
            rows = [rows for place in self._kept for rows in self._rows(place)]
            provenance = {"reward_def": self._context.variant.reward_def}
            write_token_weights(pd.concat(rows, ignore_index=True), folder, provenance)

    def state_dict(self) -> dict[str, Any]:
        """What is kept for the run folder."""
        return {"kept": dict(self._kept)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was kept."""
        self._kept = dict(state["kept"])

    def _keep(self, index: np.ndarray, chosen: torch.Tensor, rejected: torch.Tensor) -> None:
        context = self._context
        for row, place in enumerate(index[-KEPT_PAIRS:].tolist(), max(0, len(index) - KEPT_PAIRS)):
            self._kept.pop(place, None)
            # cloned: a slice would keep its whole batch alive
            self._kept[place] = (
                chosen[row, : len(context.chosen[place].response_ids)].clone(),
                rejected[row, : len(context.rejected[place].response_ids)].clone(),
            )
        for place in list(self._kept)[:-KEPT_PAIRS]:
            del self._kept[place]

    def _rows(self, place: int) -> list[pd.DataFrame]:
        context, tokenizer = self._context, self._context.policy.encoder.tokenizer
        answers, rows = (context.chosen[place], context.rejected[place]), []
        for side, answer, values in zip(SIDES, answers, self._kept[place], strict=True):
            mask = torch.ones_like(values, dtype=torch.bool)
            weights = context.variant.token_weights(values[None], mask[None])[0]
            ids = list(answer.response_ids)
            rows.append(
                pd.DataFrame(
                    {
                        "pair_id": context.frame["pair_id"].iloc[place],
                        "side": side,
                        "position": np.arange(len(ids)),
                        "token_id": ids,
                        "token": [tokenizer.decode([token]) for token in ids],
                        "attribution": values.double().numpy(),
                        "weight": weights.double().numpy(),
                    }
                )
            )
        return rows


make_source = Attribution
