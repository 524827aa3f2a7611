"""Rows of a source gathered into a table: ids, splits, duplicates, contradictions, counts.

Start reading at ``Collected.add_pairs``.
"""

import datetime
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from dpo_diag.errors import DataError
from dpo_diag.pair_formats._base import (
    Draft,
    InvalidRow,
    LeftOut,
    NoSuchSplit,
    PairFormat,
    Row,
    check_columns,
    flag_of,
)
from dpo_diag.pair_formats._sources import Part, split_word
from dpo_diag.pair_formats._votes import OPTIONAL as VOTES
from dpo_diag.pair_formats._votes import with_votes
from dpo_diag.pair_formats.dpo_diag import DpoDiag
from dpo_diag.pair_formats.trl import prompt_of
from dpo_diag.tables import (
    PREFERENCE_PAIRS,
    PROMPTS,
    TableSpec,
    canonical_json,
    content_id,
    validate,
)

_FLAGS = ("is_chosen_safe", "is_rejected_safe")
_IDS = ("pair_id", "prompt_id")
# Our own tables carry these; in anybody else's ``source`` means something of their own.
_OWN_COLUMNS = {"prompt_id", "domain", "source"}
# Columns that say something of an answer or a label, not of the prompt.
_OF_ANSWERS = (
    *("chosen", "rejected", "response", "margin", "annotator", "preference"),
    *("better", "safer", "score", "pair_id", "vote"),
)
_PROMPT_COLUMNS = ("prompt", "prompt_messages", "messages")


class Collected:
    """Pairs or prompts as they are read, and what was noticed about them.

    Args:
        source: name written into every row that has none of its own.
        split: only rows of this split; None for all.
        domain: written into every row; None for the row's own, else ``in_domain``.
        limit: number of rows to stop at; 0 for all.
        drop_invalid: count rows that make no pair instead of refusing them.
    """

    def __init__(
        self,
        source: str,
        *,
        split: str | None = None,
        domain: str | None = None,
        limit: int = 0,
        drop_invalid: bool = False,
    ) -> None:
        self.source = source
        self.counts: Counter[str] = Counter()
        self._split = split
        self._domain = domain
        self._limit = limit
        self._drop_invalid = drop_invalid
        self._records: dict[str, dict[str, Any]] = {}
        self._labelled: set[tuple[str, str, str]] = set()
        self._splits_of: defaultdict[str, set[str]] = defaultdict(set)
        self._split_names: set[str] = set()
        self._varying: set[str] = set()

    def add_pairs(self, part: Part, form: PairFormat, *, name: str, label: str) -> None:
        """Gather the pairs of a part.

        Raises:
            DataError: a row that is no pair; names file, row and column.
        """
        check_columns(form, name, part.rows[0].keys(), part.where)
        for where, row in self._rows(part):
            if not set(form.required) <= row.keys():
                check_columns(form, name, row.keys(), where)
            for draft in self._drafts(where, row, form, label):
                if self._is_full:
                    return
                self._add_pair(draft, part, form)

    def add_prompts(self, part: Part, form: PairFormat | None, *, name: str = "") -> None:
        """Gather the prompts of a part: of pairs, or of rows with a prompt alone (``form`` None).

        Raises:
            DataError: a row without a usable prompt; names file, row and column.
        """
        for where, row in self._rows(part):
            if self._is_full:
                return
            if form is not None and not set(form.required) <= row.keys():
                check_columns(form, name, row.keys(), where)
            draft = self._prompt(where, row, form)
            if draft is not None:
                self._add_prompt(draft, row, part, form)

    def pair_frame(self) -> pd.DataFrame:
        """PreferencePairs with the source's further columns, in the order they were read.

        Raises:
            DataError: no pair is left, or a further column cannot be kept.
        """
        return self._frame(PREFERENCE_PAIRS, "pair")

    def prompt_frame(self, *, of_pairs: bool) -> pd.DataFrame:
        """PROMPTS with further columns; of pairs only those that are the same in all of a prompt's.

        Raises:
            DataError: no prompt is left, or a further column cannot be kept.
        """
        frame = self._frame(PROMPTS, "prompt")
        varying = self._varying - set(PROMPTS.column_names) if of_pairs else set()
        return frame.drop(columns=varying & set(frame.columns))

    def finish(self) -> dict[str, int]:
        """All counts, those of prompts shared between splits included."""
        shared = sum(len(splits) > 1 for splits in self._splits_of.values())
        return {**self.counts, "n_shared_prompts": shared}

    @property
    def _is_full(self) -> bool:
        return 0 < self._limit <= len(self._records)

    def _rows(self, part: Part) -> Iterator[tuple[str, Row]]:
        for number, row in zip(part.numbers, part.rows, strict=True):
            self.counts["n_rows"] += 1
            yield f"{part.where}, {part.unit} {number}", row

    def _drafts(self, where: str, row: Row, form: PairFormat, label: str) -> list[Draft]:
        drafts: list[Draft] = []
        try:
            drafts = [
                replace(draft, extras=with_votes(draft.extras)) for draft in form.drafts(row, label)
            ]
        except LeftOut as left:
            self.counts[f"n_{left.reason}"] += 1
        except InvalidRow as error:
            self._is_valid(where, str(error))
        except DataError as error:
            raise DataError(f"{where}: {str(error).rstrip('.')}.") from error
        return [draft for draft in drafts if self._is_valid(where, _problem(draft))]

    def _prompt(self, where: str, row: Row, form: PairFormat | None) -> Draft | None:
        try:
            if form is not None:
                draft = form.prompt(row)
            elif isinstance(row.get("prompt_messages"), str):
                draft = DpoDiag().prompt(row)
            else:
                draft = prompt_of(row.get("prompt"), "prompt")
        except LeftOut as left:
            self.counts[f"n_{left.reason}"] += 1
            return None
        except InvalidRow as error:
            return self._is_valid(where, str(error)) or None
        except DataError as error:
            raise DataError(f"{where}: {str(error).rstrip('.')}.") from error
        problem = _text_problem(draft.prompt)
        problem = problem and f"the prompt {problem}"
        return draft if self._is_valid(where, problem) else None

    def _is_valid(self, where: str, problem: str) -> bool:
        if not problem:
            return True
        if not self._drop_invalid:
            raise DataError(
                f"{where}: {problem}; repair the row, or give --drop-invalid to leave such rows "
                "out."
            )
        self.counts["n_invalid"] += 1
        return False

    def _add_pair(self, draft: Draft, part: Part, form: PairFormat) -> None:
        extras = dict(draft.extras)
        split = self._split_of(extras, part, form.default_split)
        if split is None:
            return
        key = _key(draft)
        pair_id = content_id(key, draft.chosen, draft.rejected)
        prompt_id = content_id(key)
        self._splits_of[prompt_id].add(split)
        if pair_id in self._records:
            self.counts["n_duplicates"] += 1
            return
        self.counts["n_contradictions"] += (key, draft.rejected, draft.chosen) in self._labelled
        self._labelled.add((key, draft.chosen, draft.rejected))
        self._records[pair_id] = {
            "pair_id": pair_id,
            "prompt_id": prompt_id,
            "prompt": draft.prompt,
            "chosen": draft.chosen,
            "rejected": draft.rejected,
            **self._place(extras, split, {"pair_id": pair_id, "prompt_id": prompt_id}),
            **_conversation(draft),
            **extras,
        }

    def _add_prompt(self, draft: Draft, row: Row, part: Part, form: PairFormat | None) -> None:
        extras = {
            k: v for k, v in row.items() if not (k in _PROMPT_COLUMNS or (form and _of_answer(k)))
        }
        split = self._split_of(extras, part, form.default_split if form else "train")
        if split is None:
            return
        prompt_id = content_id(_key(draft))
        self._splits_of[prompt_id].add(split)
        if prompt_id in self._records:
            self.counts["n_repeated_prompts"] += form is None
            first = self._records[prompt_id]
            self._varying |= {name for name in extras if extras[name] != first.get(name)}
            return
        self._records[prompt_id] = {
            "prompt_id": prompt_id,
            "prompt": draft.prompt,
            **self._place(extras, split, {"prompt_id": prompt_id}),
            **_conversation(draft),
            **extras,
        }

    def _split_of(self, extras: dict[str, Any], part: Part, default: str) -> str | None:
        """The row's split, taken out of ``extras``; None where it is not the one asked for."""
        own = extras.pop("split", None)
        named = split_word(own) if isinstance(own, str) else ""
        if own and not named:
            extras["original_split"] = own
        split = named or split_word(part.split) or default
        self._split_names |= {split, *filter(None, [part.split])}
        wanted = self._split is None or self._split in (split, part.split)
        return split if wanted else None

    def _place(self, extras: dict[str, Any], split: str, ids: dict[str, str]) -> dict[str, Any]:
        """Domain, split and source of a row; the row's own columns of our names are renamed."""
        is_own = extras.keys() >= _OWN_COLUMNS
        domain = extras.pop("domain", None)
        source = extras.pop("source", None)
        if source is not None and not is_own:
            extras["original_source"] = source
        for name in _IDS:
            given = extras.pop(name, None)
            if given is not None and given != ids.get(name, given):
                extras[f"original_{name}"] = given
                self.counts["n_other_ids"] += 1
        return {
            "domain": self._domain
            or (domain if isinstance(domain, str) and domain else "in_domain"),
            "split": split,
            "source": source if is_own and isinstance(source, str) else self.source,
        }

    def _frame(self, spec: TableSpec, what: str) -> pd.DataFrame:
        if not self._records:
            kind = NoSuchSplit if self._lacks_split else DataError
            raise kind(f"{self.source}: no {what} is left{self._why_none()}.")
        frame = pd.DataFrame.from_records(list(self._records.values()))
        blank = [n for n in ("prompt_messages", *VOTES) if n in frame and frame[n].isna().all()]
        frame = frame.drop(columns=blank)
        known = set(spec.column_names)
        for name in frame.columns:
            if name not in known:
                frame[name] = _settled(frame[name], f"{self.source}: column {name}")
        return validate(frame, spec, self.source)

    @property
    def _lacks_split(self) -> bool:
        return self._split is not None and self._split not in self._split_names

    def _why_none(self) -> str:
        if self._lacks_split:
            names = ", ".join(sorted(self._split_names)) or "none"
            return (
                f" of the split {self._split!r}; the splits are {names}: give one of them as "
                "--split, or all"
            )
        dropped = [
            f"{n} {name.removeprefix('n_')}"
            for name, n in self.counts.items()
            if n and name not in ("n_rows", "n_other_ids")
        ]
        return f" of {self.counts['n_rows']} rows ({', '.join(dropped) or 'none fits'})"


def _problem(draft: Draft) -> str:
    """What makes a draft no pair; empty where nothing does."""
    for name in ("prompt", "chosen", "rejected"):
        problem = _text_problem(getattr(draft, name))
        if problem:
            return f"the {name if name == 'prompt' else name + ' answer'} {problem}"
    return "chosen and rejected are identical" if draft.chosen == draft.rejected else ""


def _text_problem(text: str) -> str:
    """What makes a text no text; empty where nothing does."""
    if not text.strip():
        return "is empty"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"holds half of a character (a lone surrogate) at position {error.start + 1}"
    return ""


def _of_answer(column: str) -> bool:
    return any(word in column for word in _OF_ANSWERS)


def _key(draft: Draft) -> str:
    """What a prompt's id is made of: its turns where it is a conversation."""
    return draft.prompt if draft.turns is None else canonical_json(draft.turns)


def _conversation(draft: Draft) -> dict[str, str | None]:
    return {"prompt_messages": None if draft.turns is None else canonical_json(draft.turns)}


def _settled(values: pd.Series, where: str) -> pd.Series:
    """A further column of one type that a table on disk can hold: lists and mappings as JSON."""
    if values.name in _FLAGS:
        return _flags(values, where)
    if values.dtype != object:
        return values
    plain = [_plain(value, where) for value in values]
    kinds = {type(value) for value in plain if value is not None}
    if kinds - {int, float} and len(kinds) > 1:
        plain = [v if v is None or isinstance(v, str) else canonical_json(v) for v in plain]
    settled = pd.Series(plain, index=values.index, name=values.name)
    return settled.astype("str") if settled.isna().all() else settled


def _flags(values: pd.Series, where: str) -> pd.Series:
    present = values.notna()
    try:
        read = [
            flag_of({"it": v}, "it") if p else None for v, p in zip(values, present, strict=True)
        ]
    except DataError as error:
        raise DataError(f"{where} must hold true or false: {error}.") from error
    return pd.Series(
        read, index=values.index, name=values.name, dtype="bool" if present.all() else object
    )


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, dict | list):
        return canonical_json(value)
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, datetime.date | datetime.datetime):
        return value.isoformat()
    if isinstance(value, str | int | float | bool):
        return value
    raise DataError(
        f"{where} holds {type(value).__name__}, which a table cannot keep; remove the column."
    )
