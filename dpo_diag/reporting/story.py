"""What a report says, as blocks: every number from the tables, every other word given.

Start reading at ``tell``.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from dpo_diag.reporting import comparison, figures, numbers
from dpo_diag.reporting.blocks import (
    Block,
    Bullets,
    Commands,
    Details,
    Heading,
    Inline,
    Paragraph,
    Picture,
    Preformatted,
    Span,
    text,
    without_empty,
)
from dpo_diag.reporting.cases import TEXT_COLUMNS
from dpo_diag.reporting.document import Claim, ReportInput, Section
from dpo_diag.reporting.numbers import Number
from dpo_diag.reporting.summary import ComparisonTable, Headline, headline_table

READING = (
    "Each cell: the model's own number with its interval; the verdict against the baseline "
    "(▲ better, ▼ worse, ≈ not distinguishable) with model minus baseline and its interval, in "
    "percentage points for shares; the p-value adjusted for all comparisons of the family, which "
    "decides the verdict, so that a single interval may leave out 0 without one; the smallest "
    "difference that this data detects with 80 % power."
)
CASES_SHOWN = 5  # of each kind and model; the others are in cases.csv
_CLAIM_SIGNS = {"holds": "✔", "does not hold": "✘", "not distinguishable": "≈"}


def tell(report: ReportInput) -> list[Block]:
    """The whole report."""
    blocks: list[Block] = [Heading(1, report.title), *_compared(report), *_comparison(report)]
    blocks += _claims(report.claims)
    for section in _sections(report):
        blocks += _analyzer(report, section)
    return [*blocks, *_reproduce(report)]


def headlines(report: ReportInput) -> ComparisonTable:
    """The report's comparison table."""
    return headline_table(
        report.findings,
        headline=report.headline,
        models=report.model_ids,
        baseline_id=report.baseline_id,
        labels=report.labels,
    )


def _compared(report: ReportInput) -> list[Block]:
    labels = report.labels
    models = [
        (
            ((Span(labels[m.model_id], "strong"), _baseline_mark(m.model_id, report)),),
            _code(m.model_id, limit=0),
            text(m.variant),
            ((Span(labels.get(m.reference_id, m.reference_id)),), *_code(m.reference_fingerprint)),
            text(", ".join(x for x in (m.engine, m.dtype) if x)),
            _code(m.fingerprint),
            text(m.note),
        )
        for m in report.models
    ]
    data = [
        (
            text(d.name),
            text(d.source),
            text(d.format),
            text(f"{d.n:,}"),
            _code(d.content_hash),
            text(d.note),
        )
        for d in report.data
    ]
    head = ("model", "model_id", "trained with", "reference", "engine", "weights", "found")
    return [
        Heading(2, "What was compared"),
        *without_empty(head, models),
        *without_empty(("data", "source", "format", "rows", "content", "note"), data),
        *_bullets(report.notes),
    ]


def _comparison(report: ReportInput) -> list[Block]:
    if not report.headline:
        return []
    table = headlines(report)
    blocks: list[Block] = [Heading(2, "Comparison")]
    if report.baseline_id:
        blocks.append(_paragraph(READING))
    blocks += [*comparison.by_model(table), *_bullets(comparison.sentences(table))]
    return [*blocks, *_pictures(report, "")]


def _claims(claims: Sequence[Claim]) -> list[Block]:
    rows = []
    for claim in claims:
        number = Number(
            value=claim.estimate, low=claim.ci_low, high=claim.ci_high, unit=claim.unit, n=claim.n
        )
        shown = comparison.difference(number, numbers.decimals([number]))
        unit = "" if numbers.is_share(claim.unit) else claim.unit
        level = f"{100 * claim.ci_level:g} %" if claim.ci_level == claim.ci_level else ""
        how = (claim.statistic, f"{level} {claim.method}".strip(), f"n = {claim.n:,}")
        sign = _CLAIM_SIGNS.get(claim.verdict, "")
        rows.append(
            (
                text(claim.text),
                ((Span(f"{sign} ".lstrip()), Span(claim.verdict, "strong")),),
                text(f"{shown} {unit}".strip()),
                text("; ".join(how)),
                text(claim.reason),
            )
        )
    head = ("claim", "verdict", "number", "what was tested", "what we think is the reason")
    table = without_empty(head, rows)
    return [Heading(2, "Claims"), *table] if table else []


def _sections(report: ReportInput) -> list[Section]:
    """The sections given, then one for every further analyzer with findings, figures or cases."""
    named = {"", *(section.analyzer for section in report.sections)}
    found = [*report.findings["analyzer"], *(f.analyzer for f in report.figures)]
    found += list(report.cases["analyzer"])
    others = [analyzer for analyzer in dict.fromkeys(found) if analyzer not in named]
    return [*report.sections, *(Section(analyzer) for analyzer in others)]


def _analyzer(report: ReportInput, section: Section) -> list[Block]:
    name = numbers.title(section.analyzer)
    blocks: list[Block] = [Heading(2, name[:1].upper() + name[1:])]
    if section.question:
        blocks.append(Paragraph((Span(section.question, "strong"),)))
    for label, words in (
        ("How to read it", section.reading),
        ("When it misleads", section.misleads),
    ):
        if words:
            blocks.append(Paragraph((Span(f"{label}: ", "strong"), Span(words))))
    blocks += [*_bullets(section.notes), *_pictures(report, section.analyzer)]
    findings = report.findings[report.findings["analyzer"] == section.analyzer]
    if findings.empty:
        blocks.append(_paragraph("No findings."))
    blocks += _findings(report, section, findings)
    return [*blocks, *_other_comparisons(report, findings), *_cases(report, section.analyzer)]


def _findings(report: ReportInput, section: Section, findings: pd.DataFrame) -> list[Block]:
    """All rows first, the headline statistics open; then one folded table per kind of slice."""
    own = findings[findings["baseline_id"].isin(["", report.baseline_id])]
    shown = figures.listed(own, report)
    hidden = own["model_id"].nunique() - shown["model_id"].nunique()
    own = shown
    present = list(dict.fromkeys(own["statistic"]))
    first = section.headline or tuple(
        h.statistic for h in report.headline if h.analyzer == section.analyzer
    )
    first = [s for s in first if s in present] or present
    rest = [s for s in present if s not in first]
    overall = own[own["slice"] == "all"]
    blocks: list[Block] = []
    if len(overall):
        blocks += [Heading(3, "All rows"), *_statistics(report, overall, first)]
        more = _statistics(report, overall, rest)
        blocks += [Details("Further statistics", tuple(more))] if more else []
    slices = own[(own["slice"] != "all") & own["statistic"].isin(first)]
    kinds = [part.partition("=")[0] for part in slices["slice"]]
    for kind in dict.fromkeys(kinds):
        rows = slices[[found == kind for found in kinds]]
        blocks.append(Details(f"By {kind}", tuple(_statistics(report, rows, first))))
    elsewhere = ["the further statistics by slice"] if rest and len(slices) else []
    elsewhere += [f"{hidden} further models, such as training steps"] if hidden else []
    if elsewhere:
        blocks.append(_paragraph(f"In findings.csv besides: {' and '.join(elsewhere)}."))
    return blocks


def _statistics(report: ReportInput, rows: pd.DataFrame, statistics: Sequence[str]) -> list[Block]:
    rows = rows[rows["statistic"].isin(statistics)]
    if rows.empty:
        return []
    wanted = set(zip(rows["slice"], rows["statistic"], strict=True))
    slices = list(dict.fromkeys(rows["slice"]))
    analyzer = rows["analyzer"].iloc[0]
    columns = [
        Headline(analyzer, s, part, _label(s, part))
        for s in statistics
        for part in slices
        if (part, s) in wanted
    ]
    present = set(rows["model_id"])
    models = [model for model in report.model_ids if model in present]
    models += [model for model in dict.fromkeys(rows["model_id"]) if model not in models]
    table = headline_table(
        rows,
        headline=columns,
        models=models,
        baseline_id=report.baseline_id,
        labels=report.labels,
    )
    parts = [] if slices == ["all"] else [c.slice.partition("=")[2] or c.slice for c in columns]
    return comparison.by_statistic(table, parts)


def _label(statistic: str, part: str) -> str:
    words = numbers.title(statistic)
    return words if part == "all" else f"{words} ({part.partition('=')[2] or part})"


def _other_comparisons(report: ReportInput, findings: pd.DataFrame) -> list[Block]:
    """Differences from a model that is not the report's baseline, e.g. from the reference."""
    others = findings[~findings["baseline_id"].isin(["", report.baseline_id])]
    rows: list[tuple[Inline, ...]] = []
    labels = report.labels
    for row in others.to_dict("records"):
        number = Number.of(row)
        rows.append(
            (
                text(labels.get(row["model_id"], row["model_id"])),
                text(labels.get(row["baseline_id"], row["baseline_id"])),
                _code(row["statistic"], limit=0),
                text("" if row["slice"] == "all" else row["slice"]),
                text(comparison.difference(number, numbers.decimals([number]))),
                text(comparison.verdict(number)),
                text(number.flag),
            )
        )
    head = ("model", "minus", "statistic", "slice", "difference", "verdict", "flag")
    table = without_empty(head, rows)
    return [Details("Other comparisons", tuple(table))] if table else []


def _cases(report: ReportInput, analyzer: str) -> list[Block]:
    cases = report.cases[report.cases["analyzer"] == analyzer]
    blocks: list[Block] = [Heading(3, "Worst cases")] if len(cases) else []
    names = [name for name in TEXT_COLUMNS if name in cases.columns]
    for (kind, model), group in cases.groupby(["kind", "model_id"], sort=False):
        inside: list[Block] = []
        for rank, row in enumerate(group.head(CASES_SHOWN).to_dict("records"), 1):
            said = f", severity {row['severity']:.4g}: {row['note']}"
            head = (Span(f"Case {rank}, ", "strong"), Span(row["row_key"], "code"), Span(said))
            inside.append(Paragraph(head))
            inside += [
                Preformatted(name, row[name])
                for name in names
                if isinstance(row[name], str) and row[name]
            ]
        label = report.labels.get(model, model)
        count = f"{min(len(group), CASES_SHOWN)} of {len(group)}"
        blocks.append(Details(f"{numbers.title(kind)}, {label} ({count})", tuple(inside)))
    return blocks


def _pictures(report: ReportInput, analyzer: str) -> list[Block]:
    return [
        Picture(figures.file_name(entry), entry.title)
        for entry in report.figures
        if entry.analyzer == analyzer and figures.has_data(entry, report)
    ]


def _reproduce(report: ReportInput) -> list[Block]:
    facts: Mapping[str, str] = {**report.settings, **report.versions}
    rows = [(text(name), text(value)) for name, value in facts.items()]
    end = (
        "`findings.csv` and `findings.json` hold every number above, `curves.csv` the points of "
        "the figures, `cases.csv` the worst cases, `report.toml` the words. `dpo-diag report` on "
        "this folder renders it again."
    )
    return [
        Heading(2, "How to reproduce"),
        *([Commands(report.commands)] if report.commands else []),
        *without_empty(("what", "value"), rows),
        Paragraph(_coded(end)),
    ]


def _coded(words: str) -> tuple[Span, ...]:
    """Spans of a text in which backticks enclose code."""
    pieces = enumerate(words.split("`"))
    return tuple(Span(piece, "code" if k % 2 else "text") for k, piece in pieces if piece)


def _baseline_mark(model_id: str, report: ReportInput) -> Span:
    return Span(" (baseline)" if model_id == report.baseline_id else "")


def _bullets(texts: Sequence[str]) -> list[Block]:
    return [Bullets(tuple(texts))] if texts else []


def _paragraph(words: str) -> Paragraph:
    return Paragraph((Span(words),))


def _code(value: str, limit: int = 12) -> Inline:
    if not value:
        return ((Span(""),),)
    return ((Span(value[:limit] if limit else value, "code"),),)
