"""A variant whose data are missing names what it needs and the data that carry it, at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dpo_diag.errors import DataError
from dpo_diag.pairs import PairSet
from dpo_diag.training.loop import train
from dpo_diag.training.recipe import Recipe

ONLINE = {
    "similarity": "chrf",
    "prompts_per_round": 4,
    "samples_per_prompt": 2,
    "max_new_tokens": 8,
}


@pytest.mark.parametrize(
    ("variant", "options", "column", "carrier"),
    [
        ("safedpo", {}, "is_chosen_safe", "PKU-SafeRLHF"),
        ("re_po", {}, "annotator", "the sandbox"),
        ("awdpo", {}, "harm_reasoning_chosen", "the sandbox"),
        ("semidpo_port", {}, "judge_agreement", "the sandbox"),
        ("sspo", {}, "--unlabelled", "response"),
        ("refalign", ONLINE, "reference_answer", "reference_answers.jsonl"),
        ("repo_offline", {}, "--samples", "dpo-diag sample"),
    ],
)
def test_what_is_missing_is_named_with_who_has_it(
    variant: str,
    options: dict[str, object],
    column: str,
    carrier: str,
    recipe: Callable[..., Recipe],
    pairs: PairSet,
    tmp_path: Path,
) -> None:
    bare = pairs.frame.drop(columns=["is_chosen_safe", "is_rejected_safe"])
    plain = PairSet(bare, "trl", "pairs.jsonl", (), {}, pairs.content_hash)
    with pytest.raises(DataError) as caught:
        train(recipe(variant, **options), plain, out=tmp_path / "run")
    message = str(caught.value)
    assert variant in message
    assert column in message
    assert carrier in message
    assert not (tmp_path / "run" / "trainer_state.json").exists()
