"""RewardBench data to evidence, and findings to the files that RewardBench itself writes.

Start reading at ``gather_bench``. Prior sets come from files of their own, since the benchmark's
file does not hold them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag.checkpoints import Checkpoint, ModelRef
from dpo_diag.engines._base import Engine, ScoreRequest
from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet, frame_hash
from dpo_diag.pipeline.analyze import IN_DOMAIN, Evidence
from dpo_diag.pipeline.compare import Request, gather
from dpo_diag.pipeline.score import stored_rows
from dpo_diag.pipeline.work import EngineChoice, EnginePool, Work
from dpo_diag.tables import PAIR_NORMS, concat, write_text
from dpo_diag.text import load_tokenizer


def gather_bench(
    checkpoints: Sequence[Checkpoint], request: Request, work: Work, *, norms: bool = False
) -> Evidence:
    """Implicit rewards of every checkpoint on the benchmark, and the token norms where asked.

    Args:
        checkpoints: the models.
        request: pairs with the column ``subset``, engine, baseline.
        work: store and voice.
        norms: score without a reference by the norm of the token log-probs too: one more pass.

    Raises:
        DataError: the pairs name no subset.
    """
    pairs = request.pairs
    if pairs is None or "subset" not in pairs.frame.columns:
        raise DataError(
            f"{'no pairs' if pairs is None else pairs.source}: no column subset, so this is no "
            "RewardBench data; give its file, or another's with that column."
        )
    request = replace(request, engine=_as_published(checkpoints, request.engine, work))
    evidence = gather(checkpoints, request, work)
    if not norms:
        return evidence
    with EnginePool(request.engine, "score", work) as pool:
        rows = [
            stored_rows(
                checkpoint.model,
                pairs,
                pool,
                spec=PAIR_NORMS,
                measure=_norms,
                template=checkpoint.template,
                verb="reading the token norms of",
            )
            for checkpoint in checkpoints
        ]
    return replace(evidence, more={**evidence.more, PAIR_NORMS.name: concat(rows, PAIR_NORMS)})


def with_prior_sets(pairs: PairSet, sets: Mapping[str, PairSet]) -> PairSet:
    """The benchmark's pairs with prior sets, each under its name as ``subset``.

    A pair that is there already is left out, counted in a note.

    Args:
        pairs: RewardBench version 1.
        sets: ``anthropic_helpful``, ``anthropic_hhh``, ``shp`` or ``summarize`` -> its pairs.
    """
    frames = [pairs.frame]
    frames += [part.frame.assign(subset=name) for name, part in sets.items()]
    frame = pd.concat(frames, ignore_index=True)
    repeated = frame.duplicated("pair_id")
    notes = [note for part in sets.values() for note in part.notes]
    if repeated.any():
        notes.append(f"{int(repeated.sum())} pairs of prior sets are elsewhere already, left out.")
    # no set is a shift of another here
    frame = frame[~repeated].assign(domain=IN_DOMAIN).reset_index(drop=True)
    return replace(
        pairs,
        frame=frame,
        source=", ".join([pairs.source, *(part.source for part in sets.values())]),
        notes=(*pairs.notes, *notes),
        content_hash=frame_hash(frame, "pair_id"),
    )


def write_bench_files(
    folder: Path, evidence: Evidence, findings: pd.DataFrame, choice: EngineChoice
) -> list[Path]:
    """Results and rows of each model in RewardBench's own layout; the paths written.

    ``<model>_results.json`` has ``accuracy`` (of all pairs, ties wrong, as published),
    ``num_prompts``, ``model``, ``ref_model``, ``tokenizer``, ``chat_template`` and
    ``extra_results`` (subsets, sections, totals; null where there is none). A model without a
    reference is scored by its summed log-probs, which ``ref_free_type`` says.
    ``<model>_outputs.jsonl`` has a line per pair.

    Args:
        folder: where to write.
        evidence: what was measured.
        findings: of the analyzer ``rewardbench``.
        choice: how text was read.
    """
    assert evidence.rewards is not None and evidence.pairs is not None
    texts = evidence.pairs.frame.set_index("pair_id")
    written = []
    for checkpoint in evidence.checkpoints:
        model = checkpoint.model
        rows = evidence.rewards.rewards
        rows = rows[(rows["model_id"] == model.model_id) & (rows["step"] == -1)]
        own = findings[(findings["model_id"] == model.model_id) & (findings["baseline_id"] == "")]
        scores, norm = _scores(rows)
        results = {
            "accuracy": float((scores["chosen"] > scores["rejected"]).mean()),
            "num_prompts": len(rows),
            "model": model.source,
            "ref_model": checkpoint.reference.source if checkpoint.reference else None,
            "tokenizer": str(model.tokenizer_path),
            "chat_template": checkpoint.template or choice.template,
            "extra_results": _extra_results(own),
            **norm,
        }
        stem = model.model_id
        text = json.dumps(_plain(results), indent=2, ensure_ascii=False) + "\n"
        written.append(write_text(folder / f"{stem}_results.json", text))
        lines = [
            json.dumps(_plain(row), ensure_ascii=False) for row in _outputs(rows, scores, texts)
        ]
        written.append(write_text(folder / f"{stem}_outputs.jsonl", "\n".join(lines) + "\n"))
    return written


def _as_published(
    checkpoints: Sequence[Checkpoint], choice: EngineChoice, work: Work
) -> EngineChoice:
    """RewardBench puts its plain prompts through the tokenizer's chat template where it has one."""
    first = checkpoints[0]
    if choice.template != "auto" or first.template is not None:
        return choice
    if not getattr(load_tokenizer(first.model.tokenizer_path), "chat_template", None):
        return choice
    work.say(
        "RewardBench prompts go through the tokenizer's chat template (--template plain: not)."
    )
    return replace(choice, template="chat")


def _norms(
    model: ModelRef, engine: Engine, requests: Sequence[ScoreRequest]
) -> dict[str, np.ndarray]:
    tokens = engine.score(requests, keep_tokens=True).token_logps
    assert tokens is not None
    norms = np.array([float(np.linalg.norm(values)) for values in tokens])
    return {"logp_norm_chosen": norms[0::2], "logp_norm_rejected": norms[1::2]}


def _extra_results(findings: pd.DataFrame) -> dict[str, float]:
    """Subsets, sections and totals by the benchmark's names."""
    found: dict[str, float] = {}
    for row in findings.itertuples():
        kind, _, name = row.slice.partition("=")
        if row.statistic in ("subset_accuracy", "section_accuracy"):
            found[name] = row.estimate
        elif kind == "all":
            found[row.statistic] = row.estimate
    return found


def _scores(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Scores of both answers and, where there is no reference, by which norm, as published."""
    kind = "logratio" if rows["logratio_chosen"].notna().all() else "logp"
    scores = rows[[f"{kind}_chosen", f"{kind}_rejected"]].set_axis(["chosen", "rejected"], axis=1)
    return scores, {} if kind == "logratio" else {"ref_free_type": "sum"}


def _outputs(rows: pd.DataFrame, scores: pd.DataFrame, texts: pd.DataFrame) -> list[dict[str, Any]]:
    chosen, rejected = scores["chosen"].to_numpy(float), scores["rejected"].to_numpy(float)
    return [
        {
            "prompt": texts.at[pair_id, "prompt"],
            "results": int(chosen[i] > rejected[i]),
            "scores_chosen": chosen[i],
            "scores_rejected": rejected[i],
            "text_chosen": texts.at[pair_id, "chosen"],
            "text_rejected": texts.at[pair_id, "rejected"],
            "subset": str(texts.at[pair_id, "subset"]),
        }
        for i, pair_id in enumerate(rows["pair_id"])
    ]


def _plain(value: Any) -> Any:
    """JSON without NaN: what is missing is null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return value
