"""Which rows a declared figure shows and where its file lies; ``plots`` draws it."""

import re

import pandas as pd

from dpo_diag.errors import DataError
from dpo_diag.reporting.document import FigureEntry, ReportInput

IN_DOMAIN = "in_domain"  # what the other sets are set against: drawn first
FROM_FINDINGS = ("intervals", "scatter")


def file_name(entry: FigureEntry) -> str:
    """Path of the figure's file within the report folder.

    Raises:
        DataError: a name that is not letters, digits, hyphens and underscores.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", entry.name):
        raise DataError(
            f"figure {entry.name!r}: a name has letters, digits, hyphens and underscores only."
        )
    return f"figures/{entry.name}.svg"


def curve_rows(entry: FigureEntry, report: ReportInput) -> pd.DataFrame:
    """Rows of Curves that the figure shows: by model in the report's order, then series and x.

    Series stand as they come, ``in_domain`` first. Models that the report does not list (training
    steps) are left out, unless all are such.
    """
    curves = report.curves
    rows = curves[(curves["curve"] == entry.curve) & curves["y"].notna()]
    if entry.analyzer:
        rows = rows[rows["analyzer"] == entry.analyzer]
    rows = listed(rows, report)
    order = {model: k for k, model in enumerate(report.model_ids)}
    ranked = rows.assign(
        _model=rows["model_id"].map(order).fillna(len(order)),
        _series=(1 + pd.factorize(rows["series"])[0]) * (rows["series"] != IN_DOMAIN),
    ).sort_values(["_model", "model_id", "_series", "x"], kind="stable")
    return ranked.drop(columns=["_model", "_series"]).reset_index(drop=True)


def listed(rows: pd.DataFrame, report: ReportInput) -> pd.DataFrame:
    """The rows of models that the report lists; all rows where it lists none of them."""
    known = rows["model_id"].isin(report.model_ids)
    return rows[known] if known.any() else rows


def finding_rows(entry: FigureEntry, report: ReportInput) -> dict[str, pd.DataFrame]:
    """Rows of Findings that the figure shows, by statistic.

    ``curve`` names the statistics: ``mean_helpfulness|cost_cvar`` for a scatter (across, then
    up), one or more for intervals; ``statistic@slice`` picks a slice, ``statistic@kind=*`` those
    that begin so, ``statistic@*`` all. Only a model's own numbers with an estimate count.
    """
    own = report.findings[
        (report.findings["baseline_id"] == "") & report.findings["estimate"].notna()
    ]
    if entry.analyzer and not (own["analyzer"] != entry.analyzer).all():
        own = own[own["analyzer"] == entry.analyzer]
    found = {}
    for wanted in entry.curve.split("|"):
        statistic, _, part = wanted.partition("@")
        rows = listed(own[own["statistic"] == statistic], report)
        if part.endswith("*"):
            found[wanted] = rows[rows["slice"].str.startswith(part[:-1])]
        else:
            found[wanted] = rows[rows["slice"] == (part or "all")]
    return found


def shown(report: ReportInput) -> list[FigureEntry]:
    """The declared figures that have data, in order."""
    return [entry for entry in report.figures if has_data(entry, report)]


def draw_all(report: ReportInput) -> list[str]:
    """SVG text of every figure of ``shown``; the drawing library is loaded only if there is one."""
    entries = shown(report)
    if not entries:
        return []
    from dpo_diag.reporting import plots

    return [plots.draw(entry, report) for entry in entries]


def has_data(entry: FigureEntry, report: ReportInput) -> bool:
    """Whether there is anything to draw."""
    if not curve_rows(entry, report).empty:
        return True
    if entry.kind not in FROM_FINDINGS:
        return False
    frames = list(finding_rows(entry, report).values())
    if entry.kind == "scatter":
        return len(frames) == 2 and bool(set(frames[0]["model_id"]) & set(frames[1]["model_id"]))
    return any(len(frame) for frame in frames)
