"""CHES: pairs whose two answers look least alike to the model, so that training displaces less.

Claim: likelihood displacement (the chosen answer's own probability falls) comes from pairs whose
answers have similar hidden states, and training on the pairs of lowest score avoids it. What this
code cannot check: that claim, and that it holds for another model than the one whose states are
read; take the model that training starts from.

With ``h_k`` the last-layer state just before token k of an answer (so from the prompt's last token
to the answer's last but one; the end token is a token of the answer), ``S = sum_k h_k``:
``CHES = <S+, S-> - ||S+||^2`` and per token ``CHESn = <S+, S->/(n+ n-) - ||S+||^2/n+^2``. Lengths
are true ones; the authors' code takes them from the padded width, and leaves out the last column
of the batch, so that both are right only for the longest answers of a batch padded on the right.

Source: Razin et al., ICLR 2025, arXiv 2410.08847, definition of CHES; the authors' code
princeton-nlp/unintentional-unalignment, ches/ches.py, was read; that the per-token form is the one
used for filtering is second-hand. Needs: hidden states of a model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from dpo_diag.selectors._base import Selector, numbers, require

FORMS = ("per_token", "summed")


@dataclass(frozen=True)
class Ches(Selector):
    """Lowest similarity first: the score is minus CHES.

    For S+ = (4, 0) over 2 tokens and S- = (3, 3) over 1, CHES is 12 - 16 = -4, and per token
    12/2 - 16/4 = 2: the form decides.

    Attributes:
        form: ``per_token``, the paper's for filtering, or ``summed``.
    """

    form: str = "per_token"

    needs: ClassVar[Mapping[str, str]] = {
        "state_product": "states",
        "state_square": "states",
        "n_tokens_chosen": "states",
        "n_tokens_rejected": "states",
    }
    source: ClassVar[str] = "Razin et al. 2025, arXiv 2410.08847, definition of CHES"
    ranges: ClassVar[Mapping[str, str]] = {"form": "per_token or summed"}

    def __post_init__(self) -> None:
        known = " or ".join(FORMS)
        require(self.form in FORMS, f"ches: form must be {known}, got {self.form!r}.")

    def scores(self, table: pd.DataFrame) -> np.ndarray:
        """Minus CHES in the chosen form, shape (n,), in squared units of a state."""
        parts = self.parts(table)
        return -parts["ches_per_token" if self.form == "per_token" else "ches"]

    def parts(self, table: pd.DataFrame) -> Mapping[str, np.ndarray]:
        """Both forms; higher is more alike."""
        product, square = numbers(table, "state_product"), numbers(table, "state_square")
        chosen, rejected = (numbers(table, f"n_tokens_{side}") for side in ("chosen", "rejected"))
        return {
            "ches": product - square,
            "ches_per_token": product / (chosen * rejected) - square / chosen**2,
        }


SELECTOR = Ches
