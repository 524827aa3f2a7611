"""Files of a stranger's run folder, read with limits: what cannot be read becomes a sentence.

Nothing here raises for what a file contains. No pickle is opened. Start reading at ``Folder``.
"""

import json
import math
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

LARGEST_TEXT = 64_000_000
"""Bytes of a log that are read; what lies before is left out and said."""
_LARGEST_CONFIG = 4_000_000
_LARGEST_STATE = 512_000_000
_LONGEST_NAME = 500
_PICKLES = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
_LOG_NAMES = re.compile(r"(?i).*(train|dpo|log|out|run|nohup).*\.(log|txt|out)")


class Problem(NamedTuple):
    """Something in the folder that could not be read as it should.

    Attributes:
        file: path within the run folder.
        sentence: what is wrong with it.
        severity: ``error`` where the log is lost by it, ``warning``, or ``note``.
    """

    file: str
    sentence: str
    severity: str = "warning"


class Folder:
    """A run folder while it is being read.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
        read: files that were read, in order.
        problems: what could not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read: list[str] = []
        self.problems: list[Problem] = []
        self._texts: dict[str, str | None] = {}
        self._values: dict[tuple[str, str], Any] = {}

    def has(self, name: str) -> bool:
        """Whether there is a file of this path within the folder."""
        return (self.path / name).is_file()

    def names(self, *patterns: str) -> list[str]:
        """Paths within the folder that match any of the patterns, in order of their names."""
        found = {p for pattern in patterns for p in self.path.glob(pattern) if p.is_file()}
        return sorted(str(p.relative_to(self.path)) for p in found)

    def logs(self) -> list[str]:
        """Text files that may hold what a trainer printed."""
        return [name for name in self.names("*.*", "logs/*.*") if _LOG_NAMES.fullmatch(name)]

    def text(self, name: str, limit: int = _LARGEST_CONFIG) -> str | None:
        """A file's text; its end where it is longer than ``limit`` bytes; None without one."""
        if name not in self._texts:
            self._texts[name] = self._read(name, limit)
        return self._texts[name]

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object; empty where there is no file or it cannot be read."""
        return self._parsed(name, "json", _LARGEST_STATE)

    def yaml(self, name: str) -> dict[str, Any]:
        """A YAML mapping; empty where there is no file or it cannot be read."""
        return self._parsed(name, "yaml", _LARGEST_CONFIG)

    def toml(self, name: str) -> dict[str, Any]:
        """A TOML table; empty where there is no file or it cannot be read."""
        return self._parsed(name, "toml", _LARGEST_CONFIG)

    def jsonl(self, name: str) -> list[dict[str, Any]]:
        """The objects of a file with one JSON object per line; broken lines are counted."""
        rows, broken = [], 0
        for line in (self.text(name, LARGEST_TEXT) or "").splitlines():
            if line.strip():
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    value = None
                if isinstance(value, dict):
                    rows.append(value)
                else:
                    broken += 1
        if broken:
            self.say(name, f"{broken} lines are no JSON objects and were left out")
        return rows

    def say(self, name: str, sentence: str, severity: str = "warning") -> None:
        """Note a problem once."""
        problem = Problem(name, sentence, severity)
        if problem not in self.problems:
            self.problems.append(problem)

    def not_read(self) -> list[str]:
        """Files that lie in the folder and are never read, with the reason."""
        pickles = [n for n in self.names(*_PICKLES, *(f"checkpoint-*/{p}" for p in _PICKLES[:1]))]
        lines = [f"{n}: a pickle, which can run code when opened" for n in pickles]
        lines += [
            f"{n}: TensorBoard's binary log; export it as text to have it read"
            for n in self.names("events.out.*", "runs/*/events.out.*")
        ]
        return lines

    def _read(self, name: str, limit: int) -> str | None:
        path = self.path / name
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                if size > limit:
                    file.seek(size - limit)
                    self.say(name, f"only its last {limit:,} of {size:,} bytes were read", "note")
                data = file.read(limit)
        except OSError as error:
            self.say(name, f"cannot be opened ({error.strerror})")
            return None
        self.read.append(name)
        return data.decode("utf-8", errors="replace")

    def _parsed(self, name: str, kind: str, limit: int) -> dict[str, Any]:
        if (name, kind) not in self._values:
            text = self.text(name, limit)
            self._values[name, kind] = {} if text is None else self._parse(name, kind, text)
        return self._values[name, kind]

    def _parse(self, name: str, kind: str, text: str) -> dict[str, Any]:
        import tomllib

        import yaml

        readers = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}
        try:
            value = readers[kind](text)
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.say(name, f"cannot be read as {kind.upper()} ({reason})", _severity(name))
            return {}
        if not isinstance(value, dict):
            wanted = f"where a {kind.upper()} mapping was expected"
            self.say(name, f"holds {_kind_of(value)} {wanted}", _severity(name))
            return {}
        return value


def number(value: Any) -> float | None:
    """A number as float; texts such as ``1e-6`` and ``nan`` are read; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def flag(value: Any) -> bool | None:
    """Yes or no; ``true``, ``False`` and the like as text are read; None for anything else."""
    if isinstance(value, str):
        return {"true": True, "yes": True, "false": False, "no": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def text_of(value: Any) -> str | None:
    """A text that says something, cut where no name is as long; None for anything else."""
    return value[:_LONGEST_NAME] if isinstance(value, str) and value.strip() else None


def brief(value: Any) -> str:
    """A value in few characters, however large or deep it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 40
    short.maxlevel = 2
    return short.repr(value)


def whole(value: Any) -> int | None:
    """A step or a count: a finite number without a fraction, at least 0."""
    found = number(value)
    if found is None or not math.isfinite(found) or found < 0 or found != int(found):
        return None
    return int(found)


def front_matter(folder: Folder, name: str = "README.md") -> dict[str, Any]:
    """The front matter of a model card; empty where there is none to be read."""
    import yaml

    parts = (folder.text(name) or "").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        card = yaml.safe_load(parts[1])
    except (yaml.YAMLError, ValueError, RecursionError):  # a card is prose for people
        return {}
    return card if isinstance(card, dict) else {}


def tags_of(card: Mapping[str, Any]) -> set[str]:
    """The tags of a model card, in lower case."""
    tags = card.get("tags")
    listed = tags if isinstance(tags, list) else [tags]
    return {tag.lower() for tag in listed if isinstance(tag, str)}


def _severity(name: str) -> str:
    """Losing the log is worse than losing an option file."""
    return "error" if name.endswith("trainer_state.json") else "warning"


def _kind_of(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
