"""A round of samples or pairs in a checkpoint: as tensors and plain values, and back."""

from typing import Any

import numpy as np
import torch

from dpo_diag.errors import CheckpointError


def stored_round(drawn: Any) -> dict[str, Any] | None:
    """The fields of a round's dataclass, arrays as tensors; None where no round was drawn."""
    if drawn is None:
        return None
    return {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for key, value in vars(drawn).items()
    }


def round_fields(stored: dict[str, Any]) -> dict[str, Any]:
    """The same fields as the round's dataclass takes them."""
    return {
        key: value.numpy() if isinstance(value, torch.Tensor) else value
        for key, value in stored.items()
    }


def require_same_prompts(recorded: str, own: str) -> None:
    """Refuse to go on with other prompts than the run was started with.

    Args:
        recorded: hash in the checkpoint.
        own: hash of the prompts at hand.

    Raises:
        CheckpointError: they differ.
    """
    if recorded != own:
        raise CheckpointError(
            "the run was started with other prompts; resume with the same, or take another folder."
        )
