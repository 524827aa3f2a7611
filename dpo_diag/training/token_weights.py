"""The file in which a run leaves the weights of its tokens, for a report to show.

Token texts come from data sets and models: whoever shows them puts them through the escaping of
the output at hand (``reporting.escape``). Start reading at ``read_token_weights``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dpo_diag.tables import Column, TableSpec, read_table, write_table

FILE = "token_weights.parquet"
TOKEN_WEIGHTS = TableSpec(
    "TokenWeights",
    ("pair_id", "side", "position"),
    (
        Column("pair_id", "string", "content hash of prompt, chosen and rejected"),
        Column("side", "string", "`chosen` or `rejected`, as trained on"),
        Column("position", "int", "place of the token in the answer, from 0"),
        Column("token_id", "int", "in the model's vocabulary"),
        Column("token", "string", "decoded by itself, untrusted text"),
        Column("attribution", "float", "L1 norm of the last logit's gradient"),
        Column("weight", "float", "of the token's log-ratio in the loss"),
    ),
    "how much each token of the pairs last seen counts",
)


def write_token_weights(frame: pd.DataFrame, folder: Path, provenance: Mapping[str, Any]) -> Path:
    """Write the table into a run folder, whole or not at all.

    Raises:
        TableError: the frame is against the specification.
    """
    return write_table(frame, Path(folder) / FILE, TOKEN_WEIGHTS, provenance)


def read_token_weights(folder: Path) -> pd.DataFrame:
    """The token weights that a run left in its folder.

    Raises:
        TableError: there are none, or the file is unreadable or another table's.
    """
    return read_table(Path(folder) / FILE, TOKEN_WEIGHTS)
