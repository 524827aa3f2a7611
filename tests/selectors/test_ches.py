"""CHES by hand in both forms; the direct computation from states is in tests/pipeline."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.errors import DataError
from dpo_diag.selectors.ches import Ches


def table(chosen: np.ndarray, rejected: np.ndarray) -> pd.DataFrame:
    """What the pipeline gives for one pair, from the states (T, H) of both answers."""
    plus, minus = chosen.sum(0), rejected.sum(0)
    return pd.DataFrame(
        {
            "state_product": [float(plus @ minus)],
            "state_square": [float(plus @ plus)],
            "n_tokens_chosen": [len(chosen)],
            "n_tokens_rejected": [len(rejected)],
        }
    )


def test_both_forms_by_hand() -> None:
    """S+ = (1, 0) + (3, 0) over 2, S- = (3, 3) over 1: 12 - 16 = -4, and 12/2 - 16/4 = 2."""
    pair = table(np.array([[1.0, 0], [3, 0]]), np.array([[3.0, 3]]))
    parts = Ches().parts(pair)
    assert parts["ches"].tolist() == [-4.0] and parts["ches_per_token"].tolist() == [2.0]
    assert Ches().scores(pair).tolist() == [-2.0]
    assert Ches(form="summed").scores(pair).tolist() == [4.0]


def test_equal_answers_have_a_score_of_zero_and_opposite_ones_are_kept_first() -> None:
    """Equal: <S, S> - ||S||^2 = 0. Opposite: -||S||^2 - ||S||^2 = -2 ||S||^2, score 2 ||S||^2."""
    states = np.array([[1.0, 2], [0, 2]])
    for form in ("summed", "per_token"):
        assert Ches(form=form).scores(table(states, states)).tolist() == [0.0]
    assert Ches(form="summed").scores(table(states, -states)).tolist() == [34.0]


def test_per_token_does_not_hang_on_repeating_an_answer() -> None:
    """Means of states: the same tokens twice have the same mean."""
    one, other = np.array([[1.0, 2], [0, 2]]), np.array([[3.0, -1]])
    twice = table(np.concatenate([one, one]), np.concatenate([other] * 3))
    assert Ches().scores(twice)[0] == pytest.approx(Ches().scores(table(one, other))[0])


def test_unknown_form_is_refused() -> None:
    with pytest.raises(DataError, match="per_token or summed, got 'mean'"):
        Ches(form="mean")
