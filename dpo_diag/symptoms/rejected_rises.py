"""Do the rejected answers gain probability?

The loss pushes them down; they rise only where chosen and rejected share so much that what lifts
one lifts the other, or where the labels point the wrong way.

Source: eric-mitchell/direct-preference-optimization #32; Pal et al. 2024 (pairs of small edit
distance). The limit of one nat is ours.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom
from dpo_diag.symptoms._trends import ends, too_few

_NOTICEABLE_NATS = 1.0
_NOTHING = 0.25  # of the rise
_USUAL_BETA = 0.1


class RejectedRises(Symptom):
    """Rejected answers gaining probability."""

    question = "Do rejected answers lose probability, or at least not gain it?"
    source = "eric-mitchell/direct-preference-optimization #32; Pal et al. 2024; limit ours"
    explained_by = ("swapped_columns", "reward_at_start")

    def lacking(self, record: RunRecord) -> str:
        """Enough rows with rewards against a reference."""
        if not record.takes_reference:
            return "rewards without a reference are no log-ratios"
        return too_few(record.series("rewards/rejected"), "rewards/rejected")

    def examine(self, record: RunRecord) -> Finding | None:
        """A clear rise; a warning where even the noise leaves no room for a margin that grows."""
        rejected = ends(record.series("rewards/rejected"))
        beta = record.get("beta") or _USUAL_BETA
        if not rejected.rises or rejected.change / beta < _NOTICEABLE_NATS:
            return None
        margin = ends(record.series("rewards/margins"))
        grows = margin is None or margin.at_most >= _NOTHING * rejected.change
        gained = f"{margin.change:+.3g}" if margin else "not logged"
        return self.found(
            "note" if grows else "warning",
            "likely",
            "Rejected answers gain probability too."
            if grows
            else "Rejected answers gain probability and the margin does not grow.",
            evidence=(
                f"rewards/rejected rose by {rejected.change:.3g} from the first quarter of the log "
                f"to the last; change of the margin {gained}."
            ),
            meaning=(
                "The two answers of a pair share what is learned; that is harmless as long as the "
                "margin grows."
                if grows
                else "Training lifts both answers alike: it imitates the data instead of ordering "
                "it, or the labels point the other way."
            ),
            fix=(
                "Nothing."
                if grows
                else "Check which column is chosen; lower the weight of the likelihood term "
                "(rpo_alpha, pref_ftx); look at pairs that are nearly the same."
            ),
            files=(record.log_source,),
        )


SYMPTOM = RejectedRises
