"""Are rewards 0 before training has moved anything? If not, the reference is another model.

At the first step the policy is the reference, so log-ratios are 0 up to rounding, whatever the
data. Rows that average over the run's first steps hold what was learned meanwhile: their level
before the first step is extrapolated from the first two rows, and a first row that averages over
more than a tenth of the run says nothing.

Source: eric-mitchell/direct-preference-optimization #34 (non-zero reward before training: other
weights, or dropout left on), huggingface/trl #1148, #1500, PR #6443, LLaMA-Factory #1447. The
limits, 1 and 2 nats, are ours: bfloat16 moves a single answer by a nat or so, a batch's mean less.
"""

from typing import NamedTuple

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom

_NATS_WARNING, _NATS_ERROR = 1.0, 2.0
_USUAL_BETA = 0.1
_LARGEST_WINDOW = 0.1  # of the run


class _Start(NamedTuple):
    """Rewards before the first step."""

    chosen: float
    rejected: float
    step: int
    exact: bool


class RewardAtStart(Symptom):
    """Rewards that are not 0 at the start."""

    question = "Are rewards 0 before training has moved anything?"
    source = (
        "eric-mitchell/direct-preference-optimization #34; huggingface/trl #1148, #1500, PR #6443"
    )
    explained_by = ("adapter_reference", "reference_differs")

    def lacking(self, record: RunRecord) -> str:
        """Rewards near the first step."""
        if not record.takes_reference:
            return "the method takes no reference"
        return "rewards near the first step are not logged" if _start(record) is None else ""

    def examine(self, record: RunRecord) -> Finding | None:
        """Compares the larger side with the limits, in nats."""
        start = _start(record)
        beta = record.get("beta")
        scale = beta if beta and beta > 0 else _USUAL_BETA
        nats = max(abs(start.chosen), abs(start.rejected)) / scale
        if nats < _NATS_WARNING:
            return None
        severity = "error" if nats >= _NATS_ERROR else "warning"
        assumed = "" if scale == beta else f" at the usual beta of {_USUAL_BETA:g}"
        how = "logged" if start.exact else "extrapolated from the first two rows"
        return self.found(
            severity,
            "certain" if start.exact and severity == "error" else "likely",
            "Rewards are not 0 at the start: the reference is not the model that training began "
            "from.",
            evidence=(
                f"rewards/chosen is {start.chosen:.3g} and rewards/rejected {start.rejected:.3g} "
                f"at step {start.step} ({how}), {nats:.3g} nats{assumed}."
            ),
            meaning=(
                "Before the first update policy and reference agree on every token, so every "
                "reward is 0. Another level means that the loss pulls towards another model, and "
                "that every reward of this run, accuracy included, is measured against it."
            ),
            fix=_fix(record),
            files=(record.log_source, record.where("beta")),
        )


SYMPTOM = RewardAtStart


def _fix(record: RunRecord) -> str:
    dropout = record.get("lora_dropout")
    tail = (
        f" The adapter's dropout of {dropout:g} alone moves rewards a little: set it to 0."
        if dropout
        else " Dropout left on in the policy moves rewards a little too."
    )
    return (
        "Give the trainer the starting model itself as the reference (for an adapter a copy of "
        "the adapter it started from, or merge that adapter first), computed with the same "
        "template and precision." + tail
    )


def _start(record: RunRecord) -> _Start | None:
    for prefix in ("eval_", ""):
        chosen = record.series(f"{prefix}rewards/chosen")
        rejected = record.series(f"{prefix}rewards/rejected")
        if not len(chosen) or len(chosen) != len(rejected):
            continue
        step = int(chosen.step[0])
        at_once = step == 0 if prefix else step <= 1
        if at_once:
            return _Start(float(chosen.value[0]), float(rejected.value[0]), step, exact=True)
    return _extrapolated(record)


def _extrapolated(record: RunRecord) -> _Start | None:
    chosen, rejected = record.series("rewards/chosen"), record.series("rewards/rejected")
    if len(chosen) < 2 or len(chosen) != len(rejected):
        return None
    first, second = chosen.step[:2]
    total = max(record.get("max_steps") or 0, chosen.step[-1])
    if first > _LARGEST_WINDOW * total or not first < second <= 2.5 * first:
        return None
    levels = [_level(side.value[0], side.value[1]) for side in (chosen, rejected)]
    return _Start(*levels, int(first), exact=False)


def _level(first: float, second: float) -> float:
    """Value before the first step of a line through two means; 0 where it changes its sign.

    The first row stands for the middle of its steps, half a row after the start.
    """
    level = first - 0.5 * (second - first)
    if first * level <= 0:
        return 0.0
    return min(abs(first), abs(level)) * (1 if first > 0 else -1)
