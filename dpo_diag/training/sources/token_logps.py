"""The reference's log-probs per token; the policy's come from the forward pass itself.

Computed once and held in memory (4 bytes per response token); not stored.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dpo_diag.engines._base import ScoreRequest
from dpo_diag.training.sources._base import Context, FieldSource


class TokenLogps(FieldSource):
    """``ref_token_logps_chosen`` and ``ref_token_logps_rejected``, (B, T), zero on padding."""

    def __init__(self, context: Context) -> None:
        self._device = context.policy.device
        answers = [*context.chosen, *context.rejected]
        if context.variant.needs.reference:
            requests = [ScoreRequest(a.prompt_ids, a.response_ids) for a in answers]
            scores = context.policy.reference_scores(requests, keep_tokens=True)
            tokens = [t.astype(np.float32) for t in scores.token_logps or ()]
        else:
            tokens = [np.full(len(a.response_ids), np.nan, dtype=np.float32) for a in answers]
        n = len(context)
        self._tokens = {"chosen": tokens[:n], "rejected": tokens[n:]}

    def fields(self, index: np.ndarray) -> Mapping[str, Any]:
        """Both sides, padded to the longest response of either."""
        rows = {side: [tokens[i] for i in index] for side, tokens in self._tokens.items()}
        width = max(len(row) for side in rows.values() for row in side)
        return {
            f"ref_token_logps_{side}": torch.as_tensor(padded(values, width), device=self._device)
            for side, values in rows.items()
        }


def padded(rows: list[np.ndarray], width: int) -> np.ndarray:
    """Rows of unequal length as one array, (B, width), zero on the right."""
    result = np.zeros((len(rows), width), dtype=rows[0].dtype)
    for place, row in enumerate(rows):
        result[place, : len(row)] = row
    return result


make_source = TokenLogps
