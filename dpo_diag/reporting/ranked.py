"""A ranked list of what was looked at, for a terminal: most pressing first, each with its remedy.

Start reading at ``ranked_text``. All text is untrusted and escaped here.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpo_diag.reporting import escape

_TEXT = 60  # characters of a text that an example shows


@dataclass(frozen=True)
class Example:
    """One row that shows a finding: a line about it, its texts by name."""

    note: str
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """One thing that was looked at.

    Attributes:
        name: of the check.
        group: heading it stands under.
        summary: what was found.
        advice: what to do, empty for nothing.
        examples: shown under it.
    """

    name: str
    group: str
    summary: str
    advice: str = ""
    examples: tuple[Example, ...] = ()


def ranked_text(
    head: str, entries: Sequence[Entry], *, brief: Sequence[str] = (), width: int = 100
) -> str:
    """The list as text, entries in their order under the headings of their groups.

    Args:
        head: first line.
        entries: most pressing first.
        brief: groups whose entries are one line each.
        width: characters per line.
    """
    lines = [*_wrapped(head, width), ""]
    for group in dict.fromkeys(entry.group for entry in entries):
        lines += [escape.line(group), "-" * len(escape.line(group))]
        for entry in entries:
            if entry.group == group:
                lines += _entry(entry, width, is_brief=group in brief)
        lines.append("")
    return "\n".join(lines)


def _entry(entry: Entry, width: int, *, is_brief: bool) -> list[str]:
    name = f"  {escape.line(entry.name)}: "
    lines = _wrapped(entry.summary, width, first=name, rest="    ")
    if entry.advice and not is_brief:
        lines += _wrapped(entry.advice, width, first="    What to do: ", rest="      ")
    for example in () if is_brief else entry.examples:
        lines += _wrapped(example.note, width, first="    e.g. ", rest="      ")
        lines += [
            f"      {escape.line(name)}: {escape.line(text, _TEXT) or '(empty)'}"
            for name, text in example.texts.items()
        ]
    return lines


def _wrapped(text: str, width: int, *, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        first + escape.line(text),
        width,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
