"""Do the chosen answers lose probability, and is that the harmless fall or the harmful one?

The loss trains the margin alone, so that both sides usually fall, the rejected one faster: that is
normal and gets a note. Harm is another matter: probability taken from the chosen answers goes to
answers that nobody labelled. A log cannot see where it goes, it sees how much: the alarm is raised
where the chosen answers fall by more than the margin gains (each nat of margin costs more than a
nat of the preferred answer) and the fall is deep, and it is an error where the margin gains less
than a quarter of it. The margin is taken at the largest gain that its noise allows for.

Source: eric-mitchell/direct-preference-optimization #8, #32, #36 (the fall is expected); Razin et
al. 2024, likelihood displacement (mean changes of -59 and -48 nats where refusals broke down, -46
and -28 where they did not: no single depth tells them apart); Pal et al. 2024, DPO-Positive. The
two limits, margin and depth, are ours and are no measurement of harm.
"""

from typing import NamedTuple

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom
from dpo_diag.symptoms._trends import Ends, ends, too_few

_USUAL_BETA = 0.1
_NOTICEABLE_NATS = 1.0
_NOTHING = 0.25  # of the fall
_DEEP_NATS = 10.0
_DEEP_SHARE = 0.2  # of the chosen answers' log-prob at the beginning


class _Fall(NamedTuple):
    """The fall of the chosen side, positive numbers."""

    reward: float
    nats: float
    share: float
    gained: float
    gained_at_most: float
    beta_known: bool


class ChosenFalls(Symptom):
    """Chosen answers losing probability."""

    question = "Do chosen answers lose probability, and more of it than the margin gains?"
    source = (
        "eric-mitchell/direct-preference-optimization #8, #32, #36; Razin et al. 2024; Pal et al. "
        "2024; limits ours"
    )
    explained_by = ("swapped_columns", "learning_rate_range", "not_finite")

    def lacking(self, record: RunRecord) -> str:
        """Enough rows with rewards against a reference."""
        if not record.takes_reference:
            return "rewards without a reference are no log-ratios"
        return too_few(record.series("rewards/chosen"), "rewards/chosen")

    def examine(self, record: RunRecord) -> Finding | None:
        """The fall against the margin's gain, and its depth."""
        chosen, margin = (ends(record.series(f"rewards/{n}")) for n in ("chosen", "margins"))
        if not chosen.falls or margin is None:
            return None
        fall = _fall(record, chosen, margin)
        if fall.nats < _NOTICEABLE_NATS:
            return None
        deep = fall.nats >= _DEEP_NATS and not fall.share < _DEEP_SHARE
        if not deep or fall.reward <= fall.gained_at_most:
            return self._harmless(record, fall)
        nothing = fall.gained_at_most < _NOTHING * fall.reward
        return self._harmful(record, fall, nothing_gained=nothing)

    def _harmful(self, record: RunRecord, fall: _Fall, *, nothing_gained: bool) -> Finding:
        return self.found(
            "error" if nothing_gained else "warning",
            "likely" if nothing_gained else "possible",
            "Chosen answers lose probability and the margin gains nothing by it."
            if nothing_gained
            else "Chosen answers lose more probability than the margin gains.",
            evidence=_evidence(fall),
            meaning=(
                "A fall of the chosen answers is normal as long as the rejected ones fall much "
                "faster. Here both sink together: the probability goes to answers that nobody "
                "labelled, which may be worse than either."
            ),
            fix=(
                "Sample from the policy and read the answers. Then: smaller learning rate or "
                "fewer epochs, larger beta, a likelihood term on the chosen answers (rpo_alpha, "
                "DPO-Positive), and leave out pairs whose two answers are nearly the same."
            ),
            files=(record.log_source,),
        )

    def _harmless(self, record: RunRecord, fall: _Fall) -> Finding:
        return self.found(
            "note",
            "likely",
            "Chosen answers lose some probability, as is usual.",
            evidence=_evidence(fall),
            meaning=(
                "Only the margin is trained; both sides falling with the rejected one ahead is "
                "what the loss asks for, and no sign of a fault."
            ),
            fix="Nothing; dpo-diag reversals shows which pairs it concerns.",
            files=(record.log_source,),
        )


SYMPTOM = ChosenFalls


def _fall(record: RunRecord, chosen: Ends, margin: Ends) -> _Fall:
    beta = record.get("beta")
    known = beta is not None and beta > 0
    nats = -chosen.change / (beta if known else _USUAL_BETA)
    logps = ends(record.series("logps/chosen"))
    share = nats / abs(logps.first) if logps and logps.first else float("nan")
    return _Fall(-chosen.change, nats, share, margin.change, margin.at_most, known)


def _evidence(fall: _Fall) -> str:
    beta = "" if fall.beta_known else f" at the usual beta of {_USUAL_BETA:g}"
    share = "" if fall.share != fall.share else f", {fall.share:.0%} of their log-prob"
    return (
        f"From the first quarter of the log to the last rewards/chosen fell by {fall.reward:.3g} "
        f"({fall.nats:.3g} nats{beta}{share}) while the margin changed by {fall.gained:+.3g}."
    )
