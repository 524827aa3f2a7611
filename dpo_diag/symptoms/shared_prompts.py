"""Are prompts of the test pairs in the training pairs too?

Source: SafeRLHF-single-dimension shares prompts between train and test (SelectiveDPO #2, users'
reports of data errors); one prompt's pairs are not independent.
"""

from dpo_diag.run_formats._base import RunRecord
from dpo_diag.symptoms._base import Finding, Symptom

_MANY = 0.05


class SharedPrompts(Symptom):
    """Prompts in both training and test."""

    question = "Are the prompts of the test pairs new to the model?"
    source = "PKU-SafeRLHF-single-dimension, whose train and test share prompts; SelectiveDPO #2"

    def lacking(self, record: RunRecord) -> str:
        """Training and test pairs."""
        if record.data is None:
            return "no training pairs are given (--pairs)"
        return "" if record.data.n_test_prompts else "no test pairs are given (--test)"

    def examine(self, record: RunRecord) -> Finding | None:
        """Any shared prompt; an error from 5 % of the test prompts on."""
        data = record.data
        if not data.n_shared:
            return None
        share = data.n_shared / data.n_test_prompts
        return self.found(
            "error" if share > _MANY else "warning",
            "certain",
            "Prompts of the test pairs are in the training pairs too.",
            evidence=(
                f"{data.n_shared} of {data.n_test_prompts} test prompts ({share:.1%}) are among "
                f"the {data.n_prompts} training prompts."
            ),
            meaning="What the test measures on them is memory; its accuracy is too high.",
            fix="Split by prompt, not by pair; drop the shared prompts from the test and score it "
            "again.",
            files=(data.source,),
        )


SYMPTOM = SharedPrompts
