"""Prompts without labels to pairs with a judge's: two answers sampled, compared, counted.

What a judge does not decide is never a label: abstentions, verdicts that change with the order,
ties, identical and empty answers stay in JUDGED_PAIRS, by state, and make no pair. Start reading at
``judge_samples``.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag.checkpoints import Checkpoint, resolve_checkpoint
from dpo_diag.engines._base import SamplingSettings
from dpo_diag.errors import DataError
from dpo_diag.oracles._base import ABSTAINED, DECIDED, WAVERED, Oracle
from dpo_diag.pairs import PairSet, PromptSet, frame_hash
from dpo_diag.pipeline.sample import sample_models
from dpo_diag.pipeline.work import Bar, EngineChoice, Work, no_bar
from dpo_diag.tables import JUDGED_PAIRS, PREFERENCE_PAIRS, content_id, validate, write_text
from dpo_diag.text import load_tokenizer

TIED, IDENTICAL, EMPTY = "tied", "identical", "empty"
CHUNK_PAIRS = 256  # asked at once: what a progress bar moves by
_SIDES = {"chosen": 1.0, "rejected": 0.0}


def connected(
    oracles: Sequence[Oracle], choice: EngineChoice, work: Work, *, max_new_tokens: int = 8
) -> tuple[Oracle, ...]:
    """The oracles, those that are a language model connected to an engine.

    Questions are answered greedily and stored like any sample, so that asking again costs nothing.

    Args:
        oracles: as the command line names them.
        choice: engine of the judge too; its template is the judge's own.
        work: store and voice.
        max_new_tokens: longest reply.
    """

    def connect(oracle: Oracle) -> Oracle:
        if not oracle.judge_model:
            return oracle
        judge = resolve_checkpoint(oracle.judge_model)
        settings = SamplingSettings(1, max_new_tokens, temperature=0.0)
        own = dataclasses.replace(choice, template=_template(judge))

        def ask(questions: Sequence[str]) -> list[str]:
            frame = _questions(questions)
            rows = sample_models([judge], PromptSet(frame, "", (), {}, ""), settings, own, work)
            replies = dict(zip(rows["prompt_id"], rows["response"], strict=True))
            return [replies[content_id(question)] for question in questions]

        return dataclasses.replace(oracle, ask=ask)

    return tuple(connect(oracle) for oracle in oracles)


def judge_samples(
    sampler: Checkpoint,
    prompts: PromptSet,
    oracles: Sequence[Oracle],
    *,
    settings: SamplingSettings,
    choice: EngineChoice,
    work: Work,
) -> pd.DataFrame:
    """JUDGED_PAIRS: answers of one model, two by two, put before every judge.

    Args:
        sampler: whose answers; the policy or its reference.
        prompts: what to ask.
        oracles: the judges; each has a vote.
        settings: an even number of answers per prompt.
        choice: engine for sampling.
        work: store and voice.

    Raises:
        DataError: an odd number of answers.
    """
    if settings.n % 2:
        raise DataError(f"--samples is {settings.n}: answers are compared two by two, give 2 or 4.")
    samples = sample_models([sampler], prompts, settings, choice, work)
    return judged_pairs(samples, prompts.frame, oracles, bar=work.bar)


def judged_pairs(
    samples: pd.DataFrame, prompts: pd.DataFrame, oracles: Sequence[Oracle], *, bar: Bar = no_bar
) -> pd.DataFrame:
    """JUDGED_PAIRS from SAMPLES of one model: answers 0 and 1, 2 and 3 ... of each prompt.

    Args:
        samples: an even number per prompt.
        prompts: their texts.
        oracles: the judges.
        bar: progress.
    """
    rows = _candidates(samples)
    texts = dict(zip(prompts["prompt_id"], prompts["prompt"], strict=True))
    asked = rows.index[rows["state"] == ""]
    with bar("asking the judges", len(asked)) as advance:
        for start in range(0, len(asked), CHUNK_PAIRS):
            part = asked[start : start + CHUNK_PAIRS]
            _judge(rows, part, [texts[p] for p in rows.loc[part, "prompt_id"]], oracles)
            advance(len(part))
    rows["judge"] = " + ".join(oracle.name for oracle in oracles)
    rows["pair_id"] = [_pair_id(row, texts) for row in rows.itertuples()]
    return validate(rows, JUDGED_PAIRS, "judged pairs")


def as_pairs(judged: pd.DataFrame, prompts: PromptSet, judge: str) -> PairSet:
    """PreferencePairs of what was decided, with ``judge``, ``is_first_chosen``, votes and order.

    Args:
        judged: JUDGED_PAIRS.
        prompts: where they come from.
        judge: who decided, for the notes.

    Raises:
        DataError: nothing was decided.
    """
    counts = Counter(judged["state"])
    said = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    if not counts[DECIDED]:
        alike = counts[TIED] + counts[IDENTICAL] + counts[EMPTY]
        raise DataError(
            f"{judge} decided none of {len(judged)} pairs of answers ({said}); "
            + ("sample at a higher temperature, or " if 2 * alike > len(judged) else "")
            + "ask another judge."
        )
    rows = judged[judged["state"] == DECIDED].drop_duplicates("pair_id", ignore_index=True)
    named = prompts.frame.set_index("prompt_id")
    is_first = rows["win_first"].to_numpy() > 0.5
    first, second = rows["first"].to_numpy(object), rows["second"].to_numpy(object)
    frame = pd.DataFrame(
        {
            "pair_id": rows["pair_id"],
            "prompt_id": rows["prompt_id"],
            "prompt": named.loc[rows["prompt_id"], "prompt"].to_numpy(),
            "chosen": np.where(is_first, first, second),
            "rejected": np.where(is_first, second, first),
            "domain": rows["domain"],
            "split": rows["split"],
            "source": f"sampled from {rows['sampled_by'].iloc[0]}",
            "judge": rows["judge"],
            "is_first_chosen": is_first,
            "vote_share": np.where(is_first, rows["win_first"], 1.0 - rows["win_first"]),
            "n_votes": rows["n_votes"],
            "order_agreement": rows["order_agreement"],
        }
    )
    if "prompt_messages" in named.columns:
        frame["prompt_messages"] = named.loc[rows["prompt_id"], "prompt_messages"].to_numpy()
    notes = (
        f"Labels are those of {judge}: {said} of {len(judged)} pairs of answers, "
        f"{len(frame)} different pairs kept.",
    )
    validate(frame, PREFERENCE_PAIRS, "judged pairs")
    source = f"answers to {prompts.source}"
    return PairSet(frame, "dpo_diag", source, notes, dict(counts), frame_hash(frame, "pair_id"))


def with_validated(pairs: PairSet, path: Path) -> PairSet:
    """The pairs with ``gold_label`` from a JSONL file of ``pair_id`` and ``gold_label``.

    Args:
        pairs: judged ones.
        path: rows may hold further columns; one without a label (null or empty) is not validated.

    Raises:
        DataError: unreadable, a label that is neither ``chosen`` nor ``rejected``, a pair with
            two labels, or no pair of these in it.
    """
    labels: dict[str, str] = {}
    for number, row in _json_rows(path):
        label, pair_id = row.get("gold_label"), row.get("pair_id")
        if not label:
            continue
        if label not in _SIDES or not isinstance(pair_id, str):
            raise DataError(
                f"{path}, line {number}: expected pair_id and a gold_label that is chosen or "
                f"rejected, got {pair_id!r:.40} and {label!r:.40}."
            )
        if labels.setdefault(pair_id, label) != label:
            raise DataError(f"{path}, line {number}: pair {pair_id} has two labels.")
    known = pairs.frame["pair_id"].map(labels)
    if not known.notna().any():
        raise DataError(
            f"{path}: none of its {len(labels)} labelled pairs is among these; label rows of the "
            "pairs.jsonl that the same command wrote (same prompts, seed and judge)."
        )
    note = (
        f"{int(known.notna().sum())} pairs are validated by {path}; {len(labels)} are labelled in "
        "it. They must be a random part of the pairs."
    )
    frame = pairs.frame.assign(gold_label=known.where(known.notna(), None))
    return dataclasses.replace(
        pairs,
        frame=frame,
        notes=(*pairs.notes, note),
        content_hash=frame_hash(frame, "pair_id"),
    )


def write_pairs(pairs: PairSet, path: Path) -> Path:
    """The pairs as JSON lines in our own format, which every command reads."""
    text = pairs.frame.to_json(orient="records", lines=True, force_ascii=False)
    return write_text(path, text if text.endswith("\n") else text + "\n")


def _candidates(samples: pd.DataFrame) -> pd.DataFrame:
    """Pairs of answers, their state empty where a judge is to be asked."""
    ordered = samples.sort_values(["prompt_id", "sample_index"], ignore_index=True)
    first = ordered[ordered["sample_index"] % 2 == 0].reset_index(drop=True)
    second = ordered[ordered["sample_index"] % 2 == 1].reset_index(drop=True)
    rows = first[["prompt_id", "sample_index", "domain", "split"]].assign(
        sampled_by=first["model_id"], first=first["response"], second=second["response"]
    )
    stripped = [rows[side].str.strip() for side in ("first", "second")]
    is_empty = (stripped[0] == "") | (stripped[1] == "")
    state = np.where(stripped[0] == stripped[1], IDENTICAL, "")
    return rows.assign(
        state=np.where(is_empty, EMPTY, state),
        n_votes=0,
        win_first=np.nan,
        order_agreement=np.nan,
    )


def _judge(
    rows: pd.DataFrame, part: pd.Index, prompts: list[str], oracles: Sequence[Oracle]
) -> None:
    """Fill in what the judges say of some candidates."""
    first, second = (rows.loc[part, side].tolist() for side in ("first", "second"))
    verdicts = [oracle.verdicts(prompts, first, second) for oracle in oracles]
    wins = np.array([v.wins for v in verdicts], float)  # (judges, pairs)
    states = np.array([v.states for v in verdicts], object)
    votes = np.where(np.isnan(wins), np.nan, 0.5 + 0.5 * np.sign(wins - 0.5))
    n_votes = (~np.isnan(votes)).sum(axis=0)
    share = np.divide(
        np.nansum(votes, axis=0), n_votes, out=np.full(len(part), np.nan), where=n_votes > 0
    )
    in_orders = np.array([bool(oracle.judge_model) for oracle in oracles])[:, None]
    readable = ((states != ABSTAINED) & in_orders).sum(axis=0)
    wavered = (states == WAVERED).sum(axis=0)
    rows.loc[part, "n_votes"] = n_votes
    rows.loc[part, "win_first"] = share
    rows.loc[part, "order_agreement"] = np.divide(
        readable - wavered, readable, out=np.full(len(part), np.nan), where=readable > 0
    )
    undecided = np.where(wavered > 0, WAVERED, ABSTAINED)
    voted = np.where(share == 0.5, TIED, DECIDED)
    rows.loc[part, "state"] = np.where(n_votes > 0, voted, undecided)


def _pair_id(row: Any, texts: dict[str, str]) -> str:
    if row.state != DECIDED:
        return ""
    sides = (row.first, row.second) if row.win_first > 0.5 else (row.second, row.first)
    return content_id(texts[row.prompt_id], *sides)


def _questions(questions: Sequence[str]) -> pd.DataFrame:
    """Questions as prompts, each once."""
    unique = list(dict.fromkeys(questions))
    frame = pd.DataFrame({"prompt_id": [content_id(q) for q in unique], "prompt": unique})
    return frame.assign(domain="judge", split="test", source="judge")


def _template(judge: Checkpoint) -> str:
    """A judge is spoken to in its own template where it has one."""
    has_template = getattr(load_tokenizer(judge.model.tokenizer_path), "chat_template", None)
    return "chat" if has_template else "plain"


def _json_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        rows = [(i, json.loads(line)) for i, line in enumerate(lines, 1) if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON lines: {error}.") from error
    for number, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected an object, got {row!r:.40}.")
    return rows
