"""Small batches of pairs with given log-probs."""

from collections.abc import Callable, Sequence

import pytest
import torch

from dpo_diag.variants._base import PairLogps


@pytest.fixture
def with_logratios() -> Callable[..., PairLogps]:
    """Makes pairs from ``lr(chosen)`` and ``lr(rejected)`` in nats, float64, 3 and 4 tokens.

    The reference gives the chosen response -12 nats and the rejected one -8.
    """

    def make(
        chosen: Sequence[float], rejected: Sequence[float], n_tokens: tuple[int, int] = (3, 4)
    ) -> PairLogps:
        n = len(chosen)
        ref_chosen, ref_rejected = (torch.full((n,), v, dtype=torch.float64) for v in (-12.0, -8.0))
        return PairLogps(
            policy_chosen=(ref_chosen + torch.tensor(chosen, dtype=torch.float64)).requires_grad_(),
            policy_rejected=ref_rejected + torch.tensor(rejected, dtype=torch.float64),
            ref_chosen=ref_chosen,
            ref_rejected=ref_rejected,
            n_tokens_chosen=torch.full((n,), n_tokens[0]),
            n_tokens_rejected=torch.full((n,), n_tokens[1]),
            pair_index=torch.arange(n),
        )

    return make
