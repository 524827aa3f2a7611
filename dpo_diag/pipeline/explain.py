"""Implicit rewards and what explains them: sampled answers, their judges, hidden states.

Start reading at ``gather_explained``; what each table is for is said by the analyzers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from dpo_diag import registry
from dpo_diag.checkpoints import Checkpoint
from dpo_diag.costs._base import Cost
from dpo_diag.engines._base import SamplingSettings
from dpo_diag.errors import DataError
from dpo_diag.pipeline.analyze import Evidence
from dpo_diag.pipeline.compare import Request, gather
from dpo_diag.pipeline.states import state_rows
from dpo_diag.pipeline.third_answers import third_answers
from dpo_diag.pipeline.work import Work
from dpo_diag.tables import PAIR_STATES, concat


@dataclass(frozen=True)
class Further:
    """What to measure beside the pairs.

    Attributes:
        n_answers: answers per prompt from every policy and reference; 0 draws none.
        max_new_tokens: longest of them.
        costs: judges of the answers.
        states: whether to read the references' hidden states.
        seed: of the samples.
    """

    n_answers: int = 0
    max_new_tokens: int = 64
    costs: tuple[Cost, ...] = ()
    states: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.costs and not self.n_answers:
            raise DataError("--cost judges sampled answers; give --answers N too, for example 8.")
        names = [cost.name for cost in self.costs]
        if len(set(names)) < len(names):
            raise DataError(f"two costs are called {max(names, key=names.count)}; name each once.")


def gather_explained(
    checkpoints: Sequence[Checkpoint], request: Request, further: Further, work: Work
) -> Evidence:
    """The request's evidence with the further tables asked for.

    Raises:
        CheckpointError: as ``gather``.
        EngineError: the engine gives no hidden states, or log-probs that are no numbers.
    """
    evidence = gather(checkpoints, request, work)
    pairs = evidence.pairs
    if pairs is None:
        raise DataError("an explanation needs pairs; give --pairs.")
    more, notes = dict(evidence.more), list(evidence.notes)
    if further.n_answers:
        answers = third_answers(
            evidence.checkpoints,
            pairs,
            SamplingSettings(further.n_answers, further.max_new_tokens, seed=further.seed),
            request.engine,
            work,
            costs=further.costs,
        )
        more |= answers.tables()
        notes += answers.notes
    if further.states:
        more["PairStates"] = _states(evidence, request, work)
    if evidence.rewards is not None:
        label_or_model = registry.load_module("analyzers", "label_or_model")
        rows = label_or_model.evidence_table(evidence.rewards.rewards, pairs.frame)
        more |= {"LabelEvidence": rows} if len(rows) else {}
    return replace(evidence, more=more, notes=tuple(notes))


def _states(evidence: Evidence, request: Request, work: Work) -> pd.DataFrame:
    """PAIR_STATES of each reference once; of the model itself where there is no reference."""
    assert evidence.pairs is not None
    models = {}
    for checkpoint in evidence.checkpoints:
        model = checkpoint.reference or checkpoint.model
        models[model.model_id] = replace(checkpoint, model=model)
    parts = [state_rows(model, evidence.pairs, request.engine, work) for model in models.values()]
    return concat(parts, PAIR_STATES)
