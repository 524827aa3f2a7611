"""Somebody else's run folder explained: read, examined by every symptom, findings ranked.

No torch, no GPU, no pickle, no network. Start reading at ``diagnose``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpo_diag import registry
from dpo_diag.errors import CheckpointError
from dpo_diag.run_formats._base import DataFacts, RunRecord
from dpo_diag.run_formats._files import Folder
from dpo_diag.run_formats._render import render
from dpo_diag.symptoms._base import CERTAINTIES, SEVERITIES, Finding

if TYPE_CHECKING:
    import pandas as pd

    from dpo_diag.pairs import PairSet

_MOST_RENDERED = 50
# what an assistant says that says nothing else
_REFUSAL = re.compile(r"(?i)\W*(i'?m sorry|i am sorry|i can'?t|i cannot|sorry|as an ai)\b.{0,120}")


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor says of a run.

    Attributes:
        record: what was read.
        findings: ranked, worst and surest first, causes before their consequences.
        passed: symptoms that were looked for and not found.
        not_examined: symptom and what the folder lacks to look for it.
    """

    record: RunRecord
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    not_examined: tuple[tuple[str, str], ...]

    def worst(self) -> str:
        """The worst severity found; empty where nothing was."""
        return self.findings[0].severity if self.findings else ""


def diagnose(
    source: Path | str, *, pairs: "PairSet | None" = None, test: "PairSet | None" = None
) -> Diagnosis:
    """Read a run folder and examine it.

    Args:
        source: the run folder, or one of its checkpoints.
        pairs: training pairs, and test pairs where the set has both.
        test: test pairs.

    Raises:
        CheckpointError: no such folder, or one that no reader knows.
    """
    record = read_run(source)
    if pairs is not None:
        record = replace(record, data=data_facts(record, pairs, test))
    if record.tokenizer and record.tokenizer.template:
        turns = _conversations(pairs) if pairs is not None else []
        record = replace(record, template=render(record.tokenizer, turns))
    return examine(record)


def read_run(source: Path | str) -> RunRecord:
    """The record of a run folder, by the reader with the strongest claim on it.

    Raises:
        CheckpointError: no such folder, or one that no reader knows.
    """
    path = Path(source)
    if not path.is_dir():
        what = "is a file, expected the run's folder" if path.exists() else "is no folder"
        raise CheckpointError(f"{source}: {what}; give the output folder of a training run.")
    folder = Folder(path)
    names = registry.names("run_formats")
    claims = {name: registry.load("run_formats", name)().claim(folder) for name in names}
    best = max(claims, key=claims.__getitem__)
    if not claims[best]:
        raise CheckpointError(
            f"{source}: holds nothing that a trainer leaves (trainer_state.json, checkpoint-* "
            "folders, trainer_log.jsonl, dpo_diag.json, a log of OpenRLHF); give the output folder "
            "of a training run."
        )
    return registry.load("run_formats", best)().read(folder)


def examine(record: RunRecord) -> Diagnosis:
    """Every symptom's answer, ranked."""
    findings: list[Finding] = []
    passed, not_examined = [], []
    for name in registry.names("symptoms"):
        symptom = registry.load("symptoms", name)()
        with np.errstate(all="ignore"):  # anybody's numbers: what overflows compares as false
            lacking = symptom.lacking(record)
            finding = None if lacking else symptom.examine(record)
        if lacking:
            not_examined.append((name, lacking))
        elif finding is None:
            passed.append(name)
        else:
            findings.append(finding)
    return Diagnosis(record, tuple(rank(findings)), tuple(passed), tuple(not_examined))


def rank(findings: Sequence[Finding]) -> list[Finding]:
    """Worst first; among equals causes before consequences, then the surest, then by name."""
    found = {finding.symptom for finding in findings if finding.severity != "note"}

    def key(finding: Finding) -> tuple[int, bool, int, str]:
        causes = set(registry.load("symptoms", finding.symptom).explained_by)
        return (
            SEVERITIES.index(finding.severity),
            bool(causes & found),
            CERTAINTIES.index(finding.certainty),
            finding.symptom,
        )

    return sorted(findings, key=key)


def data_facts(record: RunRecord, pairs: "PairSet", test: "PairSet | None") -> DataFacts:
    """What the pairs look like; prompts are compared by the ids of their content."""
    frame = pairs.frame
    held_out = frame["split"] != "train" if (frame["split"] == "train").any() else None
    train = frame if held_out is None else frame[~held_out]
    tested = set() if held_out is None else set(frame.loc[held_out, "prompt_id"])
    if test is not None:
        tested |= set(test.frame["prompt_id"])
    tokens = record.tokenizer
    answers = [train["chosen"], train["rejected"]]
    scores = _scores(train)
    return DataFacts(
        source=pairs.source,
        n=len(train),
        n_prompts=int(train["prompt_id"].nunique()),
        n_test_prompts=len(tested),
        n_shared=len(tested & set(train["prompt_id"])),
        n_scored=int(np.isfinite(scores).sum()),
        n_score_reversed=int((scores < 0).sum()),
        n_chosen_refusal=_refusals(answers[0]),
        n_rejected_refusal=_refusals(answers[1]),
        n_begin_bos=_count(train["prompt"], tokens and tokens.bos, str.startswith),
        n_end_eos=sum(_count(side, tokens and tokens.eos, str.endswith) for side in answers),
        n_conversations=_n_conversations(train),
        words=_words(train["prompt"]) + np.maximum(*map(_words, answers)),
        prompt_words=_words(train["prompt"]),
    )


def _scores(frame: "pd.DataFrame") -> np.ndarray:
    """Score of the chosen answer minus the rejected one's; NaN where either is missing."""
    import pandas as pd

    if not {"score_chosen", "score_rejected"} <= set(frame.columns):
        return np.full(len(frame), np.nan)
    sides = [
        pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=float)
        for column in ("score_chosen", "score_rejected")
    ]
    return sides[0] - sides[1]


def _refusals(texts: "pd.Series") -> int:
    return sum(not t.strip() or bool(_REFUSAL.fullmatch(t.strip())) for t in texts)


def _count(texts: "pd.Series", token: str | None, test: Any) -> int:
    return sum(bool(test(text.strip(), token)) for text in texts) if token else 0


def _words(texts: "pd.Series") -> np.ndarray:
    return np.array([len(text.split()) for text in texts], dtype=float)


def _n_conversations(frame: "pd.DataFrame") -> int:
    if "prompt_messages" not in frame.columns:
        return 0
    return int(frame["prompt_messages"].notna().sum())


def _conversations(pairs: "PairSet") -> list[tuple[list[dict[str, str]], str]]:
    """The first few prompts that are conversations, with an answer each."""
    from dpo_diag.conversations import turns_of

    frame = pairs.frame
    if not _n_conversations(frame):
        return []
    shown = frame[frame["prompt_messages"].notna()].head(_MOST_RENDERED)
    return [
        (turns_of(messages), answer)
        for messages, answer in zip(shown["prompt_messages"], shown["chosen"], strict=True)
    ]
