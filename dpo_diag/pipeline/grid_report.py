"""From the grid's results to its report: values of all runs, claims, what each method was given.

Start reading at ``write_grid_report``.
"""

import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag import registry
from dpo_diag.analyzers._base import AnalyzerResult
from dpo_diag.analyzers._method_claims import MethodClaim
from dpo_diag.analyzers._method_values import MAIN
from dpo_diag.errors import DataError
from dpo_diag.pairs import read_pairs, read_prompts
from dpo_diag.pipeline.analyze import figures_of, section_of, versions
from dpo_diag.pipeline.claims import claim_from
from dpo_diag.pipeline.grid_measure import GROUPS
from dpo_diag.pipeline.grid_plan import GridPlan, Run
from dpo_diag.pipeline.grid_run import (
    read_answers,
    read_record,
    read_result,
    recipe_of,
    strength_scores,
)
from dpo_diag.pipeline.work import Say
from dpo_diag.reporting.document import (
    Claim,
    DataEntry,
    ModelEntry,
    ReportInput,
)
from dpo_diag.reporting.saved import write_report
from dpo_diag.reporting.summary import Headline
from dpo_diag.sandbox.panel import N_CANDIDATES
from dpo_diag.stats.games import exploitability
from dpo_diag.tables import METHOD_VALUES, validate

HEADLINE = (
    ("mean_helpfulness", "all"),
    ("seed_sd_mean_helpfulness", "all"),
    ("mean_cost", "all"),
    ("seed_sd_mean_cost", "all"),
    ("trap_cost", "all"),
    ("cost_cvar", "all"),
    ("cost_max_confirmed", "all"),
    ("seed_sd_cost_max_confirmed", "all"),
    ("benign_refusal_rate", "all"),
    ("unparsed_rate", "all"),
    ("gold_reward_accuracy", "all"),
    ("seed_sd_gold_reward_accuracy", "all"),
    ("gold_reward_accuracy_shifted", "all"),
    ("gold_broken_rate", "all"),
    ("displacement_rate", "all"),
    ("gold_reward_accuracy", "flipped labels=0.4"),
    ("mean_helpfulness", "flipped labels=0.4"),
    ("win_rate:helpful", "all"),
    ("win_rate:cautious", "all"),
    ("win_rate:concise", "all"),
    ("win_rate:cyclic", "all"),
    ("worst_group_win_rate", "all"),
    ("exploitability", "all"),
    ("training_seconds", "all"),
)
N_PLAYED = 2
"""Answers per prompt and model that the methods play against each other."""

# need -> what it is in words, where it is more than the pairs and the reference
_INFORMATION = {
    "safety_labels": "safety labels",
    "annotators": "annotator ids",
    "unlabelled": "answers without labels",
    "reference_answers": f"reference answers (gold: the best of {N_CANDIDATES})",
    "online_samples": "its own samples",
    "online_pairs": "its own samples",
    "sample_table": "the base model's samples",
    "anchors": "its own samples as anchors",
}

# origin of a selector's columns -> what it is in words
_SELECTED_BY = {
    "external": "an outside scorer's margins",
    "implicit": "margins of DPO on a tenth of the labels",
    "states": "the base model's hidden states",
}


def write_grid_report(root: Path, plan: GridPlan, chosen: Mapping[str, Any], say: Say) -> Path:
    """Analyse every run of the grid and write ``report`` into its folder.

    Args:
        root: folder of the grid.
        plan: what was run.
        chosen: method -> its strength.
        say: one line for the user.

    Returns:
        Path of ``report.md``.
    """
    say("gathering the values of all runs")
    values = gathered(root, plan, chosen)
    known = {row for method in plan.methods for row in method.rows}
    claims = [c for c in read_claims() if {c.treatment, c.control} <= {*known, ""}]
    analyzer = registry.load("analyzers", "methods")()
    params = analyzer.Parameters(baseline_id=plan.baseline, claims=tuple(claims))
    say("analysing")
    result = analyzer.run({"MethodValues": values}, params, np.random.default_rng(0))
    out = root / "report"
    shutil.rmtree(out, ignore_errors=True)
    report = _report_input(root, plan, chosen, result=result, claims=claims)
    path = write_report(out, report)
    strengths = pd.DataFrame(
        [
            (name, value, score, value == chosen[name])
            for name, options in strength_scores(root, plan).items()
            for value, score in options
        ],
        columns=["method", "strength", "helpfulness_less_cost", "is_chosen"],
    )
    strengths.to_csv(out / "strengths.csv", index=False, float_format="%.4f")
    return path


def gathered(root: Path, plan: GridPlan, chosen: Mapping[str, Any]) -> pd.DataFrame:
    """MethodValues of every main and flip run, with training times and exploitability."""
    parts = []
    for run in (*plan.main_runs(chosen), *plan.flip_runs(chosen)):
        seconds = float(read_record(root, run)["cpu_seconds"])
        rows = read_result(root, run)
        parts.append(_named(rows, run))
        if run.arm == MAIN:
            for name in run.method.rows:
                parts.append(_named(_whole("training_seconds", seconds).assign(row=name), run))
    parts += [_named(rows, run) for run, rows in played(root, plan, chosen)]
    values = pd.concat(parts, ignore_index=True)
    strings = [c.name for c in METHOD_VALUES.columns if c.dtype == "string"]
    values = values.astype(dict.fromkeys(strings, "string"))
    return validate(values[list(METHOD_VALUES.column_names)], METHOD_VALUES)


def played(
    root: Path, plan: GridPlan, chosen: Mapping[str, Any]
) -> Iterator[tuple[Run, pd.DataFrame]]:
    """Exploitability of each run against the other methods' runs of the same seed.

    By the mean of the groups' preferences: what the best other method wins against it above one
    half, picked on one half of the prompts and measured on the other.
    """
    oracles = [registry.build("oracles", "sandbox_group", {"group": g}) for g in GROUPS]
    for seed in range(plan.seeds):
        runs = [
            (run, row)
            for run in plan.main_runs(chosen)
            if run.seed == seed
            for row in run.method.rows
        ]
        if len(runs) < 2:
            return
        answers = [_answers(root, run, row) for run, row in runs]
        # an answer meets the other's answer of another index: equal indices share their random
        # numbers, and models that babble alike would look equal
        turned = np.arange(len(answers[0])).reshape(-1, N_PLAYED)[:, ::-1].ravel()
        wins = np.full((len(runs), len(runs), len(answers[0]) // N_PLAYED), np.nan)
        for i, first in enumerate(answers):
            for j in range(i):
                second = answers[j].iloc[turned]
                preferred = np.mean(
                    [
                        oracle.prefer(
                            first["prompt"].tolist(),
                            first["response"].tolist(),
                            second["response"].tolist(),
                        )
                        for oracle in oracles
                    ],
                    axis=0,
                )
                wins[i, j] = preferred.reshape(-1, N_PLAYED).mean(axis=1)
                wins[j, i] = 1.0 - wins[i, j]
        gaps = exploitability(wins, rng=np.random.default_rng(0))
        for (run, row), gap in zip(runs, gaps, strict=True):
            yield run, _whole("exploitability", gap.estimate).assign(row=row)


def _answers(root: Path, run: Run, row: str) -> pd.DataFrame:
    """Some answers to each prompt, in order of prompt and sample."""
    rows = read_answers(root, run)
    rows = rows[(rows["sample_index"] < N_PLAYED) & (rows["row"] == row)]
    rows = rows.sort_values(["prompt_id", "sample_index"])
    prompts = read_prompts(str(root / "prompts.jsonl")).frame.set_index("prompt_id")["prompt"]
    return rows.assign(prompt=prompts[rows["prompt_id"]].to_numpy()).reset_index(drop=True)


def _named(rows: pd.DataFrame, run: Run) -> pd.DataFrame:
    arm = MAIN if run.arm == MAIN else f"{run.flip_rate:g}"
    return rows.assign(model_id=rows["row"], arm=arm, seed=run.seed)


def _whole(statistic: str, value: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"statistic": [statistic], "unit_id": [""], "prompt_id": [""], "value": [value]}
    )


def read_claims() -> tuple[MethodClaim, ...]:
    """The survey's claims, as ``sandbox/method_claims.toml`` states them.

    Raises:
        DataError: a claim with an unknown or a missing key.
    """
    source = resources.files("dpo_diag.sandbox").joinpath("method_claims.toml")
    record = tomllib.loads(source.read_text(encoding="utf-8"))
    try:
        return tuple(MethodClaim(**table) for table in record["claim"])
    except TypeError as error:
        raise DataError(f"method_claims.toml: {error}.") from error


def information(run: Run, plan: GridPlan, root: Path) -> str:
    """What a method was given, in words: data, gold scores, sampled answers."""
    recipe = recipe_of(run, plan, root)
    needs = recipe.build_variant().needs
    given = ["prompts" if needs.samples or needs.online_pairs else "pairs"]
    if run.method.pairs != "panel":
        given = [f"pairs of {run.method.pairs}"]
    if run.method.select:
        given[0] += f" kept by {run.method.select} ({100 * run.method.keep:g} %)"
        origins = registry.load("selectors", run.method.select).needs.values()
        given += [word for origin, word in _SELECTED_BY.items() if origin in origins]
    given += [word for need, word in _INFORMATION.items() if getattr(needs, need)]
    given += [f"{name} (gold)" if name.startswith("harm_") else name for name in needs.columns]
    if recipe.online is not None:
        scorers = [recipe.online.reward, recipe.online.cost, recipe.online.oracle]
        given += [f"{name} (gold)" for name in scorers if name]
        given += [recipe.online.similarity] if recipe.online.similarity else []
    if needs.sample_table:
        given.append("gold reward and cost of each")
    if needs.reference:
        given.append("reference")
    return ", ".join(dict.fromkeys(given))


def _entry(run: Run, row: str, plan: GridPlan, root: Path) -> ModelEntry:
    method, record = run.method, read_record(root, run)
    recipe = recipe_of(run, plan, root)
    steps = record["steps"]
    words = [f"given {information(run, plan, root)}", f"{steps} steps"]
    if recipe.online is not None:
        batch, k = recipe.optimizer.batch_size, recipe.online.samples_per_prompt
        words.append(f"{steps * batch * k // recipe.online.passes:,} sampled answers")
    if recipe.players is not None:
        words.append(f"steps and answers of all {len(recipe.players.oracles)} players together")
    if method.values:
        options = ", ".join(f"{value:g}" for value in method.values)
        words.append(f"{method.strength} = {run.strength:g} of {options}")
    counts = {k: v for k, v in record["pair_counts"].items() if k != "truncated"}
    words.append(", ".join(f"{v:,} {k}" for k, v in counts.items()))
    if method.note:
        words.append(method.note)
    return ModelEntry(
        model_id=row,
        name=row,
        variant=recipe.build_variant().reward_def,
        reference_id="base",
        engine="hf",
        dtype="float32",
        note="; ".join(words),
    )


def _report_input(
    root: Path,
    plan: GridPlan,
    chosen: Mapping[str, Any],
    *,
    result: AnalyzerResult,
    claims: Sequence[MethodClaim],
) -> ReportInput:
    first = {run.method.name: run for run in plan.main_runs(chosen) if run.seed == 0}
    pairs = read_pairs(str(root / "panel.jsonl"))
    return ReportInput(
        title="What each preference-training method buys, in a world with known truth",
        findings=result.findings,
        models=tuple(
            _entry(run, row, plan, root) for run in first.values() for row in run.method.rows
        ),
        headline=tuple(Headline("methods", s, part) for s, part in HEADLINE),
        baseline_id=plan.baseline,
        data=(
            DataEntry(
                name="pairs",
                source="panel.jsonl of `dpo-diag sandbox`",
                format=pairs.format,
                n=len(pairs.frame),
                content_hash=pairs.content_hash,
            ),
        ),
        figures=figures_of("methods", result),
        sections=(section_of("methods", result),),
        claims=tuple(_claim(claim, result) for claim in claims),
        notes=_NOTES,
        commands=(f"dpo-diag demo variants --out variants --seeds {plan.seeds}",),
        versions=versions(),
        settings={
            "training seeds": str(plan.seeds),
            "seeds on flipped labels": str(plan.flip_seeds),
            "plan": plan.hash,
        },
    )


_NOTES = (
    "One base model, one set of pairs and prompts; what varies are training seeds (order of the "
    "data, sampling). Helpfulness, harm and win rates are gold: the world's own truth.",
    "The right order of a pair is that of the annotators without their noise: helpfulness less a "
    "little of the harm they see, and they see none in traps. So reward and ranking accuracy and "
    "broken pairs say how well what annotators mean was learned; a method that puts safety first "
    "must disagree with it on some pairs.",
    "Strength: of the values listed, the one with the largest mean helpfulness less mean harm on "
    "the validation prompts, one run each with a seed that is not used again; scores within .005 "
    "count as equal and the first listed wins. The same rule for all; strengths.csv has every "
    "score. It is a rough choice: seeds move such a score by about .02, more than many strengths "
    "do, and the value chosen is often at the edge of those tried. And it is a choice by means: it "
    "does not look at the worst prompt, also not for the methods that were made for it.",
    "Methods do not get equal information: the line of each method says what it was given. Those "
    "that sample are judged by gold reward, cost or preference, which no annotator in the pairs "
    "has.",
    "cost_max_confirmed: the worst prompt by 8 search samples, picked among three finalists by 32 "
    "fresh samples and measured on 32 others. cost_cvar: mean of the worst twentieth of the "
    "prompts' mean costs over 8 samples, biased up by sampling, alike for all.",
    "gold_reward_accuracy_shifted pools the eight shifts of the sandbox, as many pairs of each; "
    "the analyzer ood tells them apart.",
    "Win rates are against the base model's answers; exploitability is what the best other method "
    "wins above one half by the mean of the four groups, a lower bound over these deviations only.",
    "training_seconds: processor seconds of one thread, on a machine that did other work; without "
    "what was prepared or known before: selections and their seed run, the table of samples, the "
    "reference's log-probs of pairs. The benchmark has step times.",
)


def _claim(claim: MethodClaim, result: AnalyzerResult) -> Claim:
    findings = result.findings
    row = findings[
        (findings["statistic"] == claim.statistic)
        & (findings["model_id"] == claim.treatment)
        & (findings["baseline_id"] == f"claim: {claim.direction} than {claim.against}")
        & (findings["slice"] == claim.slice)
    ].iloc[0]
    part = "" if claim.slice == "all" else f" [{claim.slice}]"
    return claim_from(
        row,
        text=f"{claim.text} ({claim.source})" if claim.source else claim.text,
        statistic=f"{claim.statistic}{part}: {claim.treatment} minus {claim.against}",
        reason=claim.reason,
    )
