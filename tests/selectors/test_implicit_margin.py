"""The implicit margin is what it is given, sign and all."""

import pandas as pd

from dpo_diag.selectors.implicit_margin import ImplicitMargin


def test_score_is_the_margin() -> None:
    table = pd.DataFrame({"external_margin": [9.0, 9.0], "implicit_margin": [0.2, -1.5]})
    assert ImplicitMargin().scores(table).tolist() == [0.2, -1.5]
