"""The alarm that tells a harmless fall of the chosen answer's log-prob from a harmful one.

The standing answer to "my chosen log-probs go down" is that only the margin is trained
(eric-mitchell/direct-preference-optimization 8, 32, 36). It is right where the rejected answer
falls more and the mass goes to answers as good as the chosen one, and wrong where the mass goes to
answers of the opposite meaning (Razin et al. 2410.08847). The size of the fall does not tell the
two apart: their harmful runs lowered the chosen answer by 59 and 48 nats, the filtered ones that
kept refusing by 46 and 28. So no threshold on the fall is used. Not a plug-in; start reading at
``level_of``.

Every line of evidence is read off an interval, never off a point:

* ``pairs``: of the pairs whose chosen answer fell, the rejected one fell more in more than half
  (harmless) or in less than half (harmful); one half is what a coin gives, so it needs no choice;
* ``rejected rises``: chosen down and rejected up is more frequent than the mirror image (harmful);
* ``mass``: the chosen answers lost more than ``mass_floor`` of probability and answers that are
  neither chosen nor rejected gained as much (harmful; short answers only, exact);
* ``support``: the policy's own answers are less likely to the reference, per token, than the
  chosen ones by more than ``support_margin`` (harmful: it left the language of preferred answers),
  or not (harmless);
* ``judge``: on the prompts of the largest fall the policy's answers cost more than the reference's
  (harmful), or at most ``tolerance`` more (harmless). With several costs the worst decides and the
  intervals are Bonferroni-adjusted by the caller.

A judge outranks the log-probs; without one the words are ``looks harmful`` and ``looks harmless``,
because a turn from one fluent answer to another of opposite meaning is invisible to log-probs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

HARMLESS, HARMFUL, UNDECIDED = "harmless", "harmful", "undecided"
NO_SIGN = "no sign of harm"  # of a line that could only have spoken for harm
NONE, CANNOT_TELL = "none", "cannot tell"
CODES = {
    NONE: 0.0,
    "harmless": 1.0,
    "looks harmless": 1.0,
    CANNOT_TELL: 2.0,
    "looks harmful": 3.0,
    "harmful": 3.0,
}


class Bounds(NamedTuple):
    """An estimate and its interval in any unit; NaN where it was not measured."""

    estimate: float
    low: float
    high: float


class Line(NamedTuple):
    """A line of evidence: what it is about, what it says, and the numbers in words."""

    about: str
    says: str
    words: str


class Alarm(NamedTuple):
    """The level, one of ``CODES``, and the lines behind it."""

    level: str
    lines: tuple[Line, ...]

    @property
    def code(self) -> float:
        """0 none, 1 harmless, 2 cannot tell, 3 harmful."""
        return CODES[self.level]


def fall_line(fall: Bounds, falling: Bounds) -> Line:
    """Whether the chosen answer falls: its mean, and the share of pairs where that is open.

    Args:
        fall: mean fall of the chosen log-prob, nats.
        falling: share of pairs in which it falls.
    """
    words = f"the chosen answer falls by {_shown(fall, 'nats')}, in {_share(falling)} of pairs"
    if fall.high <= 0.0 or (fall.estimate == 0.0 and not _is_known(fall)):  # nothing moved
        return Line("fall", NONE, words)
    if fall.low > 0.0:
        return Line("fall", "falls", words)
    if falling.low > 0.5:
        return Line("fall", "falls", words)
    return Line("fall", NONE if falling.high < 0.5 else UNDECIDED, words)


def share_line(rejected_more: Bounds) -> Line:
    """Of the pairs whose chosen answer fell, the share in which the rejected one fell more."""
    words = f"where it falls the rejected one falls more in {_share(rejected_more)}"
    return Line("pairs", _against(rejected_more, 0.5), words)


def rise_line(excess: Bounds) -> Line:
    """Chosen down and rejected up, minus its mirror image, as a share of pairs."""
    words = f"chosen down and rejected up minus the other way round: {_share(excess)} of pairs"
    return Line("rejected rises", HARMFUL if excess.low > 0.0 else NO_SIGN, words)


def mass_line(chosen: Bounds, other: Bounds, floor: float) -> Line:
    """Exact change of probability of the chosen answers and of all but the pair's."""
    words = f"probability of chosen {_share(chosen)}, of neither answer {_share(other)}"
    moved = chosen.high < -floor and other.low > floor
    return Line("mass", HARMFUL if moved else NO_SIGN, words)


def support_line(gap: Bounds, margin: float) -> Line:
    """The reference's log-prob per token of the policy's answers minus that of the chosen."""
    words = (
        "the policy's answers minus the chosen ones, under the reference: "
        f"{_shown(gap, 'nats per token')}"
    )
    return Line("support", _against(gap, -margin), words)


def judge_line(cost: str, change: Bounds, overall: Bounds, tolerance: float) -> Line:
    """Cost of the policy's answers minus the reference's where the chosen fell most."""
    words = (
        f"{cost} of the policy's answers minus the reference's where it falls most: "
        f"{_shown(change, '')}, on all prompts {_shown(overall, '')}"
    )
    if change.low > 0.0:
        return Line("judge", HARMFUL, words)
    return Line("judge", HARMLESS if change.high <= tolerance else UNDECIDED, words)


def level_of(lines: Sequence[Line]) -> Alarm:
    """The level that the lines together give.

    A fall comes first; then the judges: harmful if one says so, harmless if all do; then the
    log-probs: harmful if any line says so, harmless if those of pairs and of support both do.
    """
    lines = tuple(lines)
    falls = [line.says for line in lines if line.about == "fall"]
    if falls != ["falls"]:
        return Alarm(NONE if falls == [NONE] else CANNOT_TELL, lines)
    judges = [line.says for line in lines if line.about == "judge"]
    if HARMFUL in judges:
        return Alarm("harmful", lines)
    if judges and set(judges) == {HARMLESS}:
        return Alarm("harmless", lines)
    said = {line.about: line.says for line in lines if line.about != "judge"}
    if HARMFUL in said.values():
        return Alarm("looks harmful", lines)
    both = said.get("pairs") == HARMLESS and said.get("support") == HARMLESS
    return Alarm("looks harmless" if both and not judges else CANNOT_TELL, lines)


def _against(bounds: Bounds, point: float) -> str:
    if bounds.low > point:
        return HARMLESS
    return HARMFUL if bounds.high < point else UNDECIDED


def _is_known(bounds: Bounds) -> bool:
    return bool(np.isfinite([bounds.low, bounds.high]).all())


def _shown(bounds: Bounds, unit: str) -> str:
    if not _is_known(bounds):
        return f"{bounds.estimate:.3g} {unit}".rstrip()
    return f"{bounds.estimate:.3g} [{bounds.low:.3g}, {bounds.high:.3g}] {unit}".rstrip()


def _share(bounds: Bounds) -> str:
    percent = Bounds(*(100.0 * value for value in bounds))
    return _shown(percent, "%")
