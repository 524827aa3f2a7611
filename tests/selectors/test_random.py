"""The random baseline: by id, by seed, and without preference."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.errors import DataError
from dpo_diag.selectors.random import Random

TABLE = pd.DataFrame({"pair_id": [f"{i:04d}" for i in range(2000)]})


def test_seeds_draw_differently_and_again_the_same() -> None:
    first, second = (Random(seed=seed).scores(TABLE) for seed in (1, 2))
    np.testing.assert_array_equal(Random(seed=1).scores(TABLE), first)
    # 2000 independent draws: a correlation beyond 0.12 has a chance below 1e-7
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.12


def test_draws_do_not_follow_the_ids() -> None:
    assert abs(np.corrcoef(Random().scores(TABLE), np.arange(2000))[0, 1]) < 0.12


@pytest.mark.parametrize("seed", [-1, 0.5, "x", True])
def test_a_seed_that_is_none(seed: object) -> None:
    with pytest.raises(DataError, match="seed must be a whole number"):
        Random(seed=seed)
