"""What each of several players could still gain by deviating, estimated on held-out prompts.

Deviations of a player: the starting model, its own earlier checkpoints, the other players' policies
and the best of half of its own samples. Each is judged by the player's oracle against the other
players' answers. Win probability only: the price of divergence from the reference is left out.
Start reading at ``player_gaps``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpo_diag.checkpoints import resolve_checkpoint
from dpo_diag.engines._base import SamplingSettings
from dpo_diag.oracles._base import Oracle
from dpo_diag.stats.games import player_gap
from dpo_diag.tables import content_hash, write_text
from dpo_diag.training.policy import load_policy
from dpo_diag.training.preferences import ask
from dpo_diag.training.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

    from dpo_diag.pairs import PairSet

Answers = list[list[str]]  # P prompts, K texts each


@dataclass(frozen=True)
class Seats:
    """The prompts at which players meet, and their answers there.

    Attributes:
        recipe: of the whole game.
        pairs: those with split ``validation`` give the prompts; without any, all rows do.
        folder: answers are kept in its cache, by checkpoint.
    """

    recipe: Recipe
    pairs: "PairSet"
    folder: Path

    @property
    def prompts(self) -> "pd.DataFrame":
        """As many as a round asks, at most; each once."""
        frame = self.pairs.frame
        held_out = frame[frame["split"] == "validation"]
        kept = (held_out if len(held_out) else frame).drop_duplicates("prompt_id")
        return kept.head(self.recipe.online.prompts_per_round)

    def answers(self, model: str) -> Answers:
        """K answers of a checkpoint to each prompt; drawn once, then read back."""
        section, seed = self.recipe.online, self.recipe.run.seed
        prompts = self.prompts
        fingerprint = resolve_checkpoint(model).model.fingerprint
        asked = [fingerprint, seed, section.samples_per_prompt, section.max_new_tokens]
        address = content_hash([*asked, prompts["prompt_id"].tolist()])
        path = self.folder / "cache" / f"answers-{address[:16]}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        policy = load_policy(self.recipe.with_run(model=model, reference=""), self.folder / "cache")
        messages = prompts.get("prompt_messages", [None] * len(prompts))
        ids = [
            policy.encoder.encode_prompt(text, turns, room=section.max_new_tokens).ids
            for text, turns in zip(prompts["prompt"], messages, strict=True)
        ]
        k = section.samples_per_prompt
        settings = SamplingSettings(
            n=k,
            max_new_tokens=section.max_new_tokens,
            seed=int(content_hash(["players", seed, fingerprint])[:8], 16),
        )
        drawn = policy.engine().sample(ids, settings)
        texts = [policy.encoder.decode(a.response_ids) for a in drawn]
        table = [texts[row * k : (row + 1) * k] for row in range(len(ids))]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(table) + "\n")
        return table


def player_gaps(
    seats: Seats, oracles: Mapping[str, Oracle], places: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """For each player its win rate, its gap with limits, and which deviations were tried.

    Args:
        seats: prompts and answers.
        oracles: player -> what it answers to.
        places: player -> its checkpoints so far, the starting model first, the latest last.

    Returns:
        Player -> numbers; what cannot be estimated is None.
    """
    prompts = seats.prompts["prompt"].tolist()
    found = {}
    for name, oracle in oracles.items():
        others = {o: seats.answers(places[o][-1]) for o in places if o != name}
        table = _Table(oracle, prompts, list(others.values()))
        latest = seats.answers(places[name][-1])
        deviations = {
            f"own round {n}" if n else "start": table.wins(seats.answers(place))
            for n, place in enumerate(places[name][:-1])
        }
        deviations |= {f"policy of {o}": table.wins(answers) for o, answers in others.items()}
        deviations[f"best of {len(latest[0]) // 2}"] = table.best(latest)
        own = table.wins(latest)
        rng = np.random.default_rng(int(content_hash([name, len(places[name])])[:8], 16))
        gap = player_gap(np.stack(list(deviations.values())), own, rng=rng)
        tried = list(deviations)
        found[name] = {
            "oracle": oracle.oracle_def,
            "win_rate": _number(np.nanmean(own) if np.isfinite(own).any() else np.nan),
            "player_gap": _number(gap.estimate),
            "player_gap_low": _number(gap.low),
            "player_gap_high": _number(gap.high),
            "n_prompts": gap.n_prompts,
            "deviations": tried,
            "picked": [tried[i] if i >= 0 else "staying" for i in gap.picked],
            "method": gap.method,
        }
    return found


class _Table:
    """A player's oracle at the prompts, against the other players' answers."""

    def __init__(self, oracle: Oracle, prompts: Sequence[str], others: Sequence[Answers]) -> None:
        self._oracle, self._prompts, self._others = oracle, prompts, others

    def wins(self, answers: Answers) -> np.ndarray:
        """(P,) mean chance against the others, the k-th answer against their k-th."""
        return self._against(answers, slice(None)).mean(axis=(0, 2))

    def best(self, answers: Answers) -> np.ndarray:
        """(P,) the same of the answer that does best among the first half of the own ones.

        It is chosen against the first half of the others' answers and judged on the second.
        """
        half = len(answers[0]) // 2
        scores = []
        for place in range(half):
            repeated = [[texts[place]] * half for texts in answers]
            scores.append(self._against(repeated, slice(0, half)).mean(axis=(0, 2)))
        table = np.stack(scores)  # (half, P)
        chosen = np.where(np.isnan(table), -np.inf, table).argmax(0)
        rest = len(answers[0]) - half
        repeated = [[texts[i]] * rest for texts, i in zip(answers, chosen, strict=True)]
        return self._against(repeated, slice(half, None)).mean(axis=(0, 2))

    def _against(self, answers: Answers, places: slice) -> np.ndarray:
        """(others, P, K) chance of each answer against the one at its place."""
        tables = []
        for other in self._others:
            opposed = [texts[places] for texts in other]
            k = len(opposed[0])
            found = ask(
                self._oracle,
                [prompt for prompt in self._prompts for _ in range(k)],
                [text for texts in answers for text in texts],
                [text for texts in opposed for text in texts],
            )
            tables.append(found.reshape(len(self._prompts), k))
        return np.stack(tables)


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
