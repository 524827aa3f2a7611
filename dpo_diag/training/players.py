"""Several policies, each with an oracle of its own, trained in turns against each other.

Round by round, one player after the other is trained as an ordinary run: it starts from its last
checkpoint, samples its own pairs, has them ordered by its own oracle, and its opponents are the
other players' latest checkpoints. The game is not one of opposed interests: no convergence or Nash
guarantee is known, so what is reported is, for each player, what it could still gain by deviating
(``player_gaps``). Start reading at ``train_players``.

Layout: ``OUT/<player>/round-<n>`` for each round but the last, ``OUT/<player>`` for the last, all
run folders like any other; ``OUT/players.json`` has the gaps; ``OUT/recipe.toml`` the whole recipe.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_diag import registry
from dpo_diag.errors import CheckpointError, RecipeError
from dpo_diag.store import RowStore
from dpo_diag.tables import content_hash, write_text
from dpo_diag.training.inputs import Inputs
from dpo_diag.training.loop import Progress, TrainProgress, train
from dpo_diag.training.player_gaps import Seats, player_gaps
from dpo_diag.training.recipe import OnlineSection, PlayersSection, Recipe
from dpo_diag.training.recipe_file import dump_recipe
from dpo_diag.training.runs import RECIPE_FILE, require_recipe

if TYPE_CHECKING:
    from dpo_diag.pairs import PairSet

logger = logging.getLogger(__name__)

RECORD = "players.json"
NOTE = "players answer to different oracles: no convergence or Nash guarantee is known"


def train_players(
    recipe: Recipe,
    pairs: "PairSet",
    *,
    out: Path,
    resume: bool = False,
    progress: Progress | None = None,
    store: RowStore | None = None,
    inputs: Inputs | None = None,
) -> Path:
    """Train the players of a recipe with a ``players`` section; arguments as ``loop.train``.

    Every round restarts optimiser and schedule, and takes a seed of its own.

    Returns:
        ``out``, with a folder per player.

    Raises:
        RecipeError: no ``players`` section, or no model.
        DataError, UnknownName: an oracle that cannot be built, before anything is trained.
        CheckpointError: ``out`` holds another run.
    """
    section, out = recipe.players, Path(out)
    if section is None or recipe.online is None:
        raise RecipeError("the recipe has no [players] section; train it as a single run.")
    if not recipe.run.model:
        raise RecipeError("no model to start from: give --model, or model in the recipe's [run].")
    sections = {name: _online(recipe.online, section, name) for name in section.oracles}
    oracles = {
        name: registry.build("oracles", one.oracle, one.oracle_parameters)
        for name, one in sections.items()
    }
    _open(out, dump_recipe(recipe), resume)
    logger.info(NOTE)
    seats = Seats(recipe, pairs, out)
    count = _Count(progress)
    base = recipe.run.model
    places: dict[str, list[str]] = {name: [base] for name in section.oracles}
    for number in range(1, section.rounds + 1):
        for name, one in sections.items():
            folder = _folder(out, name, number, section.rounds)
            opponents = tuple(places[other][-1] for other in places if other != name)
            made = _recipe_of(recipe, one, (name, number), places[name][-1], opponents)
            train(
                made,
                pairs,
                out=folder,
                resume=resume,
                progress=count.add,
                store=store,
                inputs=inputs,
            )
            count.next()
            places[name].append(str(folder))
        _record(out, number, seats, oracles, places)
    return out


def _online(online: OnlineSection, players: PlayersSection, name: str) -> OnlineSection:
    """The ``online`` section of a player."""
    own = dict(players.oracles[name])
    oracle = own.pop("oracle", online.oracle)
    shared = online.oracle_parameters if oracle == online.oracle else {}
    return dataclasses.replace(online, oracle=oracle, oracle_parameters={**shared, **own})


def _recipe_of(
    recipe: Recipe,
    online: OnlineSection,
    turn: tuple[str, int],
    start: str,
    opponents: tuple[str, ...],
) -> Recipe:
    """The recipe of one player's round."""
    run = dataclasses.replace(
        recipe.run,
        model=start,
        reference=recipe.run.reference or recipe.run.model,
        seed=int(content_hash([recipe.run.seed, *turn])[:7], 16),
    )
    online = dataclasses.replace(online, opponents=opponents)
    return dataclasses.replace(recipe, run=run, online=online, players=None)


def _folder(out: Path, name: str, number: int, rounds: int) -> Path:
    return out / name if number == rounds else out / name / f"round-{number}"


def _open(out: Path, recipe: str, resume: bool) -> None:
    recorded = out / RECIPE_FILE
    if recorded.is_file() and not resume:
        raise CheckpointError(f"{out}: already holds players; give --resume, or another --out.")
    require_recipe(out, recipe)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(recorded, recipe)
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written: {error}.") from error


def _record(
    out: Path,
    number: int,
    seats: Seats,
    oracles: Mapping[str, Any],
    places: Mapping[str, list[str]],
) -> None:
    """Add a round's gaps to the record, unless an earlier start of this run did."""
    path = out / RECORD
    rounds = json.loads(path.read_text(encoding="utf-8"))["rounds"] if path.is_file() else []
    if len(rounds) >= number:
        return
    gaps = player_gaps(seats, oracles, places)
    for name, gap in gaps.items():
        logger.info("round %d, %s: could still gain %s", number, name, gap["player_gap"])
    rounds.append({"round": number, "players": gaps})
    write_text(path, json.dumps({"note": NOTE, "rounds": rounds}, indent=2) + "\n")


class _Count:
    """Steps of several runs as those of one, for a progress bar."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._before, self._now = progress, 0, 0

    def add(self, state: TrainProgress) -> None:
        """A step of the present run."""
        self._now = state.step
        if self._progress is not None:
            done = self._before + state.step
            self._progress(TrainProgress(done, self._before + state.n_steps, state.metrics))

    def next(self) -> None:
        """The present run is done."""
        self._before, self._now = self._before + self._now, 0
