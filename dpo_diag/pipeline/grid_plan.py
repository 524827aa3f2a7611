"""What the grid of methods runs: read from TOML, expanded into runs, one folder each.

Start reading at ``GridPlan``; ``sandbox/grid.toml`` is the plan that the report was made with.
"""

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from dpo_diag.errors import DataError
from dpo_diag.tables import content_hash

MAIN, FLIP, STRENGTH = "main", "flip", "strength"


@dataclass(frozen=True)
class Method:
    """One row of the grid's table.

    Attributes:
        name: shown; also the name of its folders.
        variant: what trains it.
        settings: recipe section -> key -> value, on top of the budget that all share.
        strength: ``section.key`` that is chosen on validation prompts; empty where none is.
        values: what is tried for it.
        select: selector that thins the pairs out first; empty for all pairs.
        keep: share of the training pairs that it keeps.
        pairs: table of the sandbox that is trained on, without ending.
        flips: also trained on flipped labels.
        note: what differs from the other rows, in words.
    """

    name: str
    variant: str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    strength: str = ""
    values: tuple[Any, ...] = ()
    select: str = ""
    keep: float = 1.0
    pairs: str = "panel"
    flips: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        if bool(self.strength) != bool(self.values):
            raise DataError(f"method {self.name}: strength and values go together.")
        if not 0 < self.keep <= 1:
            raise DataError(
                f"method {self.name}: keep must be above 0 and at most 1, got {self.keep}."
            )

    @property
    def rows(self) -> dict[str, str]:
        """Names of its rows in the table -> the player behind it, empty without players."""
        players = self.settings.get("players", {}).get("oracles", {})
        return {f"{self.name}:{player}": player for player in players} or {self.name: ""}


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        method: its method.
        arm: ``main``, ``flip`` or ``strength``.
        seed: of data order, dropout and sampling.
        strength: value of the method's strength; None before it is chosen, or where none is.
        flip_rate: share of labels turned around.
    """

    method: Method
    arm: str
    seed: int
    strength: Any = None
    flip_rate: float = 0.0

    @property
    def name(self) -> str:
        """Name of its folder, unique in the grid; ends in the seed."""
        parts = [self.method.name]
        if self.arm == STRENGTH:
            parts.append(f"at-{self.strength}")
        if self.arm == FLIP:
            parts.append(f"flip-{round(100 * self.flip_rate)}")
        return "-".join([*parts, str(self.seed)])

    def table(self, budget: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """The run's recipe as nested tables, without the model.

        Args:
            budget: what all methods share: section -> key -> value.
        """
        table = {section: dict(values) for section, values in budget.items()}
        for section, values in self.method.settings.items():
            table.setdefault(section, {}).update(values)
        table.setdefault("variant", {})["name"] = self.method.variant
        changes = {self.method.strength: self.strength} if self.method.strength else {}
        if self.flip_rate:
            changes["data.flip_labels"] = self.flip_rate
        for place, value in changes.items():
            section, _, key = place.partition(".")
            table.setdefault(section, {})[key] = value
        table.setdefault("run", {})["seed"] = self.seed
        return table


@dataclass(frozen=True)
class GridPlan:
    """The whole grid.

    Attributes:
        baseline: name of the method that the others are compared with.
        seeds: training seeds of the main arm, 0 to this less 1.
        strength_seed: seed of the runs that strengths are chosen with; not among the others.
        flip_rates: shares of labels turned around.
        flip_seeds: training seeds of the flip arm.
        methods: rows of the table, in order.
        budget: ``pairs`` and ``samples`` -> recipe section -> key -> value: what all methods that
            learn from pairs, or from their own samples, share.
    """

    baseline: str
    methods: tuple[Method, ...]
    budget: Mapping[str, Mapping[str, Mapping[str, Any]]]
    seeds: int = 5
    strength_seed: int = 100
    flip_rates: tuple[float, ...] = (0.1, 0.2, 0.4)
    flip_seeds: int = 3

    def __post_init__(self) -> None:
        names = [method.name for method in self.methods]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"the grid has two methods called {', '.join(twice)}.")
        if self.baseline not in names:
            raise DataError(f"the grid's baseline {self.baseline!r} is not among its methods.")
        if self.seeds < 1:
            raise DataError(f"--seeds must be 1 or more, got {self.seeds}.")
        if self.strength_seed < self.seeds:
            raise DataError("the grid's strength_seed must not be one of its training seeds.")

    def strength_runs(self) -> Iterator[Run]:
        """The runs that strengths are chosen with."""
        for method in self.methods:
            for value in method.values:
                yield Run(method, STRENGTH, self.strength_seed, value)

    def main_runs(self, chosen: Mapping[str, Any]) -> Iterator[Run]:
        """The runs of the table, seed by seed, so that a stopped grid has whole seeds.

        Args:
            chosen: method -> its strength.
        """
        for seed in range(self.seeds):
            for method in self.methods:
                yield Run(method, MAIN, seed, chosen.get(method.name))

    def flip_runs(self, chosen: Mapping[str, Any]) -> Iterator[Run]:
        """The runs on flipped labels."""
        for seed in range(min(self.flip_seeds, self.seeds)):
            for rate in self.flip_rates:
                for method in self.methods:
                    if method.flips:
                        yield Run(method, FLIP, seed, chosen.get(method.name), rate)

    def of(self, names: Sequence[str], seeds: int | None) -> "GridPlan":
        """The plan with fewer seeds, or with some methods only (the baseline stays).

        Raises:
            DataError: a name that the plan lacks.
        """
        known = {method.name: method for method in self.methods}
        for name in names:
            if name not in known:
                raise DataError(f"the grid has no method {name!r}; it has {', '.join(known)}.")
        kept = {self.baseline, *names} if names else set(known)
        methods = tuple(m for m in self.methods if m.name in kept)
        seeds = self.seeds if seeds is None else seeds
        return dataclasses.replace(self, methods=methods, seeds=seeds)

    @property
    def hash(self) -> str:
        """Identity of the plan."""
        return content_hash(dataclasses.asdict(self))


def sandbox_plan() -> GridPlan:
    """The plan that comes with the package."""
    return read_plan(Path(str(resources.files("dpo_diag.sandbox").joinpath("grid.toml"))))


def read_plan(path: Path) -> GridPlan:
    """A plan from TOML: ``[grid]`` and one ``[[method]]`` per row, strictly.

    Raises:
        DataError: unreadable file, an unknown or a missing key.
    """
    try:
        record = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as TOML: {error}.") from error
    try:
        methods = tuple(
            Method(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})
            for table in record.get("method", ())
        )
        settings = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in record.get("grid", {}).items()
        }
        return GridPlan(methods=methods, budget=record.get("budget", {}), **settings)
    except TypeError as error:
        raise DataError(f"{path}: {error}.") from error
