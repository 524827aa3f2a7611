"""Several checkpoints side by side: gather the rows, run the analyzers, write the report.

Start reading at ``gather``. A step whose rows the store already has does not start an engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dpo_diag import registry
from dpo_diag.checkpoints import Checkpoint, require_reference
from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet, PromptSet
from dpo_diag.pipeline.analyze import Analysis, Evidence
from dpo_diag.pipeline.rewards import build_variant, reward_rows
from dpo_diag.pipeline.sample import SafetyPlan, safety_rows
from dpo_diag.pipeline.shifted import KINDS
from dpo_diag.pipeline.work import EngineChoice, Work
from dpo_diag.reporting.summary import Headline
from dpo_diag.tables import FINDINGS

DROP, MATCHED_DROP = "ood_accuracy_drop", "ood_accuracy_drop_matched"
KIND_DROPS = tuple(
    Headline("ood", MATCHED_DROP, f"kind={kind}", f"accuracy drop, {kind.replace('_', ' ')} shift")
    for kind in (*KINDS, "unspecified")
)
# what the comparison shows: analyzer, statistic, slice, column head
HEADLINE = (
    Headline("reversals", "reward_accuracy"),
    Headline("reversals", "ranking_accuracy_per_token"),
    Headline("reversals", "broken_rate"),
    Headline("reversals", "displacement_rate"),
    # one column for each kind of shift that there is: a mean over kinds is no headline
    *KIND_DROPS,
    Headline("safety", "mean_cost"),
    Headline("safety", "cost_cvar"),
    Headline("safety", "cost_max_confirmed"),
    Headline("safety", "violation_rate"),
    Headline("safety", "refusal_rate"),
    Headline("safety", "mean_helpfulness"),
)


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        pairs: pairs to score, shifted ones under their own ``domain``; None leaves them out.
        prompts: prompts to sample on; None leaves sampling out.
        plan: how to sample; needed with prompts.
        baseline: position of the baseline among the checkpoints; None compares with nobody.
        engine: for both steps.
        parameters: analyzer name to its parameters.
    """

    pairs: PairSet | None
    prompts: PromptSet | None = None
    plan: SafetyPlan | None = None
    baseline: int | None = None
    engine: EngineChoice = field(default_factory=EngineChoice)
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def gather(checkpoints: Sequence[Checkpoint], request: Request, work: Work) -> Evidence:
    """Every row the request asks for, scored and sampled where the store lacks it.

    Raises:
        CheckpointError: two checkpoints are the same model, or a reference is missing.
    """
    checkpoints = _with_shared_references(checkpoints, work)
    _refuse_twins(checkpoints)
    baseline = "" if request.baseline is None else checkpoints[request.baseline].model.model_id
    rewards = safety = None
    if request.pairs is not None:
        for checkpoint in checkpoints:
            if build_variant(checkpoint).needs.reference:
                require_reference(checkpoint)
        rewards = reward_rows(checkpoints, request.pairs, request.engine, work)
    if request.prompts is not None and request.plan is not None:
        finalists = registry.load_module("analyzers", "safety").select_finalists
        safety = safety_rows(
            checkpoints, request.prompts, request.plan, finalists, request.engine, work
        )
    return Evidence(
        tuple(checkpoints),
        baseline,
        request.pairs,
        rewards,
        request.prompts,
        safety,
        request.plan,
    )


def shown_headline(analysis: Analysis) -> tuple[Headline, ...]:
    """The headline columns of the analyzers that ran, of the kinds of shift that there are.

    Where no drop could be matched, the drop as it comes stands in its place and says so.
    """
    findings = analysis.table(FINDINGS)
    findings = findings[findings["estimate"].notna()]
    rows = set(zip(findings["analyzer"], findings["statistic"], findings["slice"], strict=True))
    shown = []
    for headline in HEADLINE:
        if headline.analyzer not in analysis.results:
            continue
        if headline not in KIND_DROPS or ("ood", MATCHED_DROP, headline.slice) in rows:
            shown.append(headline)
        elif ("ood", DROP, headline.slice) in rows:
            label = f"{headline.label}, unmatched"
            shown.append(replace(headline, statistic=DROP, label=label))
    return tuple(shown)


def _with_shared_references(checkpoints: Sequence[Checkpoint], work: Work) -> list[Checkpoint]:
    """A checkpoint that is the others' reference is its own: its implicit reward is zero."""
    references = {c.reference.fingerprint: c.reference for c in checkpoints if c.reference}
    shared = []
    for checkpoint in checkpoints:
        own = references.get(checkpoint.model.fingerprint)
        if checkpoint.reference is None and own is not None:
            work.say(
                f"{checkpoint.model.name} is the reference of the others: its implicit reward "
                "is 0 on every pair and every pair a tie."
            )
            checkpoint = replace(checkpoint, reference=checkpoint.model)
        shared.append(checkpoint)
    return shared


def _refuse_twins(checkpoints: Sequence[Checkpoint]) -> None:
    seen: dict[str, str] = {}
    for checkpoint in checkpoints:
        model = checkpoint.model
        if model.model_id in seen:
            raise DataError(
                f"{model.path} and {seen[model.model_id]} are the same model {model.model_id}; "
                "name each checkpoint once."
            )
        seen[model.model_id] = str(model.path)
