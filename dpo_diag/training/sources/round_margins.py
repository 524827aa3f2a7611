"""Every training pair's margin under the policy of the moment, for variants that work in rounds.

``PairSteps.begin`` asks for it before the first step of each round and hands it to
``Variant.begin_round``. Nothing is stored: a resumed run carries the variant's state, and a round
that begins after resuming scores with the restored policy.
"""

import logging
import time

import numpy as np
import torch

from dpo_diag.engines._base import ScoreRequest
from dpo_diag.training.optimization import autocast
from dpo_diag.training.sources._base import Context, FieldSource

logger = logging.getLogger(__name__)


class RoundMargins(FieldSource):
    """Scores both answers of all pairs, without gradient and without dropout."""

    def __init__(self, context: Context) -> None:
        self._policy = context.policy
        answers = [*context.chosen, *context.rejected]
        self._requests = [ScoreRequest(a.prompt_ids, a.response_ids) for a in answers]
        self._step = 0

    def begin(self, step: int) -> None:
        """Remember the step: before the first one the policy is what it starts from."""
        self._step = step

    def margins(self, reference: np.ndarray) -> torch.Tensor:
        """Unscaled implicit margins ``m`` of all n pairs, (n,) float32, nats.

        Args:
            reference: (n,) the reference's ``logp(chosen) - logp(rejected)``, nats.
        """
        policy, n = self._policy, len(self._requests) // 2
        if self._step == 0 and policy.base.fingerprint == policy.reference.fingerprint:
            return torch.zeros(n, device=policy.device)  # the reference itself
        started = time.perf_counter()
        with autocast(policy.device, policy.precision):
            logp = policy.engine().score(self._requests).logp
        logger.info("scored %d pairs for a round in %.1f s", n, time.perf_counter() - started)
        values = logp[:n] - logp[n:] - reference
        return torch.as_tensor(values.astype(np.float32), device=policy.device)


make_source = RoundMargins
