"""Claims to decide: read from TOML, decided by an analyzer, shown as lines of the report."""

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dpo_diag.analyzers.training_seeds import NAME, ClaimSpec
from dpo_diag.errors import DataError
from dpo_diag.pipeline.analyze import Analysis
from dpo_diag.reporting.document import Claim
from dpo_diag.tables import FINDINGS


def read_claims(path: str | Path) -> tuple[ClaimSpec, ...]:
    """The ``[[claim]]`` tables of a TOML file, strictly.

    Raises:
        DataError: unreadable file, an unknown or a missing key.
        TableError: a direction or statistic that does not exist.
    """
    try:
        record = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as TOML: {error}.") from error
    known = {f.name for f in dataclasses.fields(ClaimSpec)}
    claims = []
    for number, table in enumerate(record.get("claim", ()), 1):
        unknown = sorted(set(table) - known)
        if unknown:
            raise DataError(
                f"{path}: claim {number} has the unknown key {', '.join(unknown)}; known are "
                f"{', '.join(sorted(known))}."
            )
        try:
            claims.append(ClaimSpec(**table))
        except TypeError as error:
            raise DataError(f"{path}: claim {number}: {error}.") from error
    if not claims:
        raise DataError(f"{path}: no [[claim]] in it.")
    return tuple(claims)


def decided(analysis: Analysis, specs: Sequence[ClaimSpec]) -> tuple[Claim, ...]:
    """Each claim with the number that decided it, from the analyzer's findings."""
    findings = analysis.table(FINDINGS)
    rows = findings[findings["analyzer"] == NAME]
    claims = []
    for spec in specs:
        row = rows[
            (rows["statistic"] == spec.statistic)
            & (rows["model_id"] == spec.treatment)
            & (rows["baseline_id"] == spec.against)
            & (rows["slice"] == spec.slice)
        ].iloc[0]
        part = "" if spec.slice == "all" else f" [{spec.slice}]"
        statistic = f"{spec.statistic}{part}: {spec.treatment} minus {spec.against}"
        claims.append(claim_from(row, text=spec.text, statistic=statistic))
    return tuple(claims)


def claim_from(row: pd.Series, *, text: str, statistic: str, reason: str = "") -> Claim:
    """A claim as the report shows it, from the row of Findings that decided it."""
    return Claim(
        text=text,
        statistic=statistic,
        verdict=str(row["verdict"]),
        estimate=float(row["estimate"]),
        ci_low=float(row["ci_low"]),
        ci_high=float(row["ci_high"]),
        ci_level=float(row["ci_level"]),
        unit=str(row["unit"]),
        method=str(row["method"]),
        n=int(row["n_clusters"]),
        reason=reason,
    )
