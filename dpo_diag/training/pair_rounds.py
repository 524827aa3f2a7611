"""A round of on-policy pairs: sampled, compared by an oracle, scored under everyone who plays.

Start reading at ``PairRounds.draw``.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dpo_diag import registry
from dpo_diag.engines._base import Completion, SamplingSettings, ScoreRequest
from dpo_diag.errors import DataError
from dpo_diag.training.online import asked, encoded_prompts
from dpo_diag.training.opponents import make_opponents
from dpo_diag.training.pair_data import Material
from dpo_diag.training.preferences import (
    Chosen,
    Judged,
    ask,
    best_and_worst,
    drawn_pairs,
    mean_wins,
    win_matrix,
)
from dpo_diag.training.round_gap import RoundView, round_gap
from dpo_diag.training.round_plan import round_plan
from dpo_diag.training.rounds import sampler

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairRound:
    """The pairs of a round: U prompts that gave one, in the order of the round's prompts.

    Attributes:
        prompts: (U,) positions in the table of prompts.
        chosen, rejected: U answers' token ids.
        ref_chosen, ref_rejected: (U,) float64, nats.
        history_chosen, history_rejected: (H, U) float64, nats, the latest opponent first.
        wins_chosen, wins_rejected: (U,) mean chance against the prompt's other answers.
        facts: numbers of the round as a whole, logged with each of its steps.
    """

    prompts: np.ndarray
    chosen: tuple[tuple[int, ...], ...]
    rejected: tuple[tuple[int, ...], ...]
    ref_chosen: np.ndarray
    ref_rejected: np.ndarray
    history_chosen: np.ndarray
    history_rejected: np.ndarray
    wins_chosen: np.ndarray
    wins_rejected: np.ndarray
    facts: Mapping[str, float]


class PairRounds:
    """Makes the rounds of a run.

    Args:
        frame: prompts (or pairs, whose prompts are taken once each).
        material: policy, variant and recipe, which has an ``online`` section with an oracle.

    Raises:
        DataError, UnknownName, CheckpointError, EngineError: as ``online_pairs.PreferenceSteps``.
    """

    def __init__(self, frame: pd.DataFrame, material: Material) -> None:
        section = material.recipe.online
        if section is None:
            raise DataError("an online variant needs the recipe's [online] section.")
        self._policy, self._variant, self._section = material.policy, material.variant, section
        self._oracle = registry.build("oracles", section.oracle, section.oracle_parameters)
        prompts = asked(frame, material)
        self.ids: list[str] = prompts["prompt_id"].tolist()
        self._texts = prompts["prompt"].tolist()
        self.prompt_ids = encoded_prompts(prompts, material)
        self._opponents = make_opponents(material)
        self._sampler = sampler(material.policy, section, material.folder / "cache")
        material.policy.freeze_reference()
        self.plan = round_plan(material.recipe, len(self.ids))
        # prompt -> the latest answers to it and their mean log-ratio, for the duality gap
        self._earlier: dict[int, tuple[list[str], float]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Opponents and the latest answers."""
        return {"opponents": self._opponents.state_dict(), "earlier": self._earlier}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a stored state.

        Raises:
            CheckpointError: the run was started with other opponents.
        """
        self._opponents.load_state_dict(state["opponents"])
        self._earlier = dict(state["earlier"])

    def draw(self, number: int) -> PairRound:
        """The pairs of a round, under the policy of this moment.

        Raises:
            DataError: no prompt of the first round gave a pair, or the oracle gave no chances.
        """
        section, policy, k = self._section, self._policy, self._section.samples_per_prompt
        places = self.plan.prompts(number)
        settings = SamplingSettings(
            n=k,
            max_new_tokens=section.max_new_tokens,
            seed=self.plan.derived_seed("samples", number),
        )
        answers = self._sampler.sample([self.prompt_ids[i] for i in places], settings)
        texts = [policy.encoder.decode(a.response_ids) for a in answers]
        table = [texts[row * k : (row + 1) * k] for row in range(len(places))]
        judged = win_matrix(self._oracle, [self._texts[i] for i in places], table)
        pairs = self._paired(judged, number)
        requests = [
            ScoreRequest(self.prompt_ids[places[a.prompt_index]], a.response_ids) for a in answers
        ]
        ref = policy.reference_scores(requests).logp
        logratio = np.array([a.logp for a in answers]) - ref
        facts = _facts(judged, pairs, answers, logratio)
        facts |= self._gap(places, table, judged, logratio.reshape(-1, k), number)
        self._require_pairs(pairs, number)
        drawn = self._scored(places, pairs, answers, ref)
        self._opponents.end_of_drawing()
        wins, used = mean_wins(judged), pairs.chosen >= 0
        rows = np.flatnonzero(used)
        return dataclasses.replace(
            drawn,
            wins_chosen=wins[rows, pairs.chosen[used]],
            wins_rejected=wins[rows, pairs.rejected[used]],
            facts=facts,
        )

    def _paired(self, judged: Judged, number: int) -> Chosen:
        if self._section.pairing == "best_worst":
            return best_and_worst(judged)
        rng = np.random.default_rng(self.plan.derived_seed("labels", number))
        return drawn_pairs(judged, rng)

    def _require_pairs(self, pairs: Chosen, number: int) -> None:
        """A first round without a pair is a mistake; a later one may be what was learned."""
        if (pairs.chosen >= 0).any():
            return
        why = (
            f"round {number + 1} gave no pair: of {len(pairs.chosen)} prompts {pairs.n_identical} "
            f"have equal answers, {pairs.n_tied} answers that {self._oracle.name} prefers alike, "
            f"{pairs.n_abstained} answers that it abstained on"
        )
        if number:
            logger.warning("%s; its steps move nothing", why)
            return
        raise DataError(f"{why}; give more samples_per_prompt, or an oracle for these prompts.")

    def _scored(
        self, places: np.ndarray, pairs: Chosen, answers: Sequence[Completion], ref: np.ndarray
    ) -> PairRound:
        """The pairs with what the opponents say of them; chosen first, then rejected."""
        k, rows = self._section.samples_per_prompt, np.flatnonzero(pairs.chosen >= 0)
        flat = np.concatenate([rows * k + side[rows] for side in (pairs.chosen, pairs.rejected)])
        requests = [
            ScoreRequest(self.prompt_ids[places[i // k]], answers[i].response_ids) for i in flat
        ]
        behaviour = np.array([answers[i].logp for i in flat])
        history = np.zeros((self._variant.n_history, 0))
        if requests:
            history = self._opponents.logps(requests, behaviour, ref[flat])
        n, nan = len(rows), np.full(len(rows), np.nan)
        ids = [answers[i].response_ids for i in flat]
        return PairRound(
            places[rows],
            tuple(ids[:n]),
            tuple(ids[n:]),
            ref[flat][:n],
            ref[flat][n:],
            history[:, :n].copy(),
            history[:, n:].copy(),
            nan,
            nan,
            {},
        )

    def _gap(
        self,
        places: np.ndarray,
        table: Sequence[Sequence[str]],
        judged: Judged,
        logratio: np.ndarray,
        number: int,
    ) -> dict[str, float]:
        """Estimated duality gap of the policy at the start of the round; remembers its answers."""
        known = [row for row, place in enumerate(places) if int(place) in self._earlier]
        wins, earlier = np.full(len(places), np.nan), np.full(len(places), np.nan)
        rows = [row for row in known for _ in table[row]]
        old = [text for row in known for text in self._earlier[int(places[row])][0]]
        new = [text for row in known for text in table[row]]
        found = ask(self._oracle, [self._texts[places[row]] for row in rows], old, new)
        for row, values in zip(known, np.split(found, max(1, len(known))), strict=False):
            wins[row] = values.mean()  # NaN where the oracle abstained on any: all or nothing
            earlier[row] = self._earlier[int(places[row])][1]
        for row, place in enumerate(places):
            self._earlier[int(place)] = (list(table[row]), float(logratio[row].mean()))
        rng = np.random.default_rng(self.plan.derived_seed("gap", number))
        view = RoundView(judged.wins, logratio, wins, earlier)
        return round_gap(view, kl_price=self._variant.kl_price, rng=rng)


def _facts(
    judged: Judged, pairs: Chosen, answers: Sequence[Completion], logratio: np.ndarray
) -> dict[str, float]:
    """Numbers of a round as a whole, shares unless said otherwise.

    ``kl`` is the mean log-ratio of all answers in nats. ``oracle_abstentions`` is a share of the
    comparisons asked, the others are shares of the prompts.
    """
    n = len(pairs.chosen)
    return {
        "kl": float(logratio.mean()),
        "usable_pairs": float((pairs.chosen >= 0).mean()),
        "identical_answers": pairs.n_identical / n,
        "tied_answers": pairs.n_tied / n,
        "oracle_abstentions": judged.n_abstained / max(1, judged.n_asked),
        "completions/mean_length": float(np.mean([len(a.response_ids) for a in answers])),
        "completions/clipped_ratio": float(np.mean([a.finish_reason == "length" for a in answers])),
    }
