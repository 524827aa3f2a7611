"""The external margin is what it is given, sign and all."""

import pandas as pd

from dpo_diag.selectors.external_margin import ExternalMargin


def test_score_is_the_margin() -> None:
    table = pd.DataFrame({"external_margin": [0.3, -2.0], "implicit_margin": [9.0, 9.0]})
    assert ExternalMargin().scores(table).tolist() == [0.3, -2.0]
