import pytest
import torch

from dpo_diag.errors import DataError, RecipeError
from dpo_diag.variants._base import PairLogps, TrainingFacts
from dpo_diag.variants.semidpo_port import SemiDpoPort

AGREEMENT = torch.tensor([1.0, 1.0, 0.6, 0.8])
FACTS = TrainingFacts(4, columns={"judge_agreement": AGREEMENT})
MARGINS = torch.tensor([5.0, -1.0, 2.0, -6.0])


def batch(index: list[int]) -> PairLogps:
    """The pairs of ``MARGINS`` at some places, -1 for one held out with the first's margin."""
    margins = MARGINS.double()[torch.tensor(index).clamp(min=0)]
    zero, n = torch.zeros_like(margins), torch.ones(len(index), dtype=torch.int64)
    return PairLogps(margins, zero, zero, zero, n, n, torch.tensor(index))


def test_round_zero_counts_clean_pairs_only_by_hand() -> None:
    """4/2 * -log sigmoid(.5) = 2 * .474077 = .948154; the pairs in dispute count nothing."""
    variant = SemiDpoPort(beta=0.1)
    state = variant.begin_round(MARGINS, 0, variant.init_state(FACTS))
    values = variant.losses(batch([0, 2, 3]), state)
    assert values.tolist() == pytest.approx([0.948154, 0.0, 0.0], abs=1e-6)
    assert variant.metrics(state) == {"round": 0.0, "clean_rate": 0.5}


def test_a_pseudo_label_is_swapped_and_weighted_by_hand() -> None:
    """|z| of the others .2, .6, median .4: the last stays, swapped: 4 * -log sigmoid(.6)."""
    variant = SemiDpoPort(beta=0.1)
    state = variant.begin_round(MARGINS, 1, variant.init_state(FACTS))
    values = variant.losses(batch([0, 2, 3]), state)
    assert values.tolist() == pytest.approx([0.948154, 0.0, 1.749952], abs=2e-6)


def test_mean_over_all_pairs_is_clean_mean_plus_pseudo_mean() -> None:
    """The clean pairs have losses at +.5, -.1, the pseudo-labels of quantile 0 at +.2, +.6."""
    variant = SemiDpoPort(beta=0.1, quantiles=(0.0,))
    state = variant.begin_round(MARGINS, 1, variant.init_state(FACTS))

    def mean(*scaled: float) -> float:
        return float(-torch.nn.functional.logsigmoid(torch.tensor(scaled)).mean())

    total = variant.losses(batch([0, 1, 2, 3]), state).mean().item()
    assert total == pytest.approx(mean(0.5, -0.1) + mean(0.2, 0.6), rel=1e-6)


def test_rates_say_what_was_kept_swapped_and_wrongly_turned_round() -> None:
    """Half of the others kept, all of those swapped; one of two clean pairs has z < 0."""
    variant = SemiDpoPort(beta=0.1)
    state = variant.begin_round(MARGINS, 1, variant.init_state(FACTS))
    assert variant.metrics(state) == {
        "round": 1.0,
        "clean_rate": 0.5,
        "kept_rate": 0.5,
        "swap_rate": 1.0,
        "false_swap_rate": 0.5,
    }


def test_a_later_round_labels_anew() -> None:
    """At quantile 0 all are kept, by the margins of that moment: the third pair is now swapped."""
    variant = SemiDpoPort(beta=0.1, quantiles=(0.5, 0.0))
    state = variant.begin_round(MARGINS, 1, variant.init_state(FACTS))
    state = variant.begin_round(-MARGINS, 2, state)
    assert state["sign"].tolist() == [1.0, 1.0, -1.0, 1.0]
    assert state["weight"].tolist() == [2.0, 2.0, 2.0, 2.0]
    assert variant.metrics(state)["false_swap_rate"] == 0.5


def test_with_all_pairs_clean_it_is_dpo_in_every_round() -> None:
    facts = TrainingFacts(4, columns={"judge_agreement": torch.ones(4)})
    variant = SemiDpoPort(beta=0.1)
    state = variant.begin_round(MARGINS, 2, variant.init_state(facts))
    assert variant.losses(batch([0, 3]), state).tolist() == pytest.approx(
        variant.losses(batch([0, 3]), None).tolist()
    )
    assert "swap_rate" not in variant.metrics(state)


def test_a_held_out_pair_has_its_own_label_and_weight_one() -> None:
    """-log sigmoid(.5) = .474077, though the first and the last training pair are swapped."""
    variant = SemiDpoPort(beta=0.1, quantiles=(0.0,))
    facts = TrainingFacts(4, columns={"judge_agreement": torch.tensor([0.6, 1.0, 1.0, 0.6])})
    state = variant.begin_round(-MARGINS.abs(), 1, variant.init_state(facts))
    assert state["sign"].tolist() == [-1.0, 1.0, 1.0, -1.0]
    assert variant.losses(batch([-1]), state).item() == pytest.approx(0.474077, abs=5e-7)


def test_without_a_clean_pair_it_says_so() -> None:
    facts = TrainingFacts(3, columns={"judge_agreement": torch.tensor([0.8, 0.6, 0.4])})
    with pytest.raises(DataError, match="judge_agreement is 1 on none of the 3"):
        SemiDpoPort().init_state(facts)


@pytest.mark.parametrize("value", [(), (1.0,), (-0.1,), 0.5, ("a",)])
def test_quantiles_out_of_range_are_refused(value: object) -> None:
    with pytest.raises(RecipeError, match="quantiles must be one or more numbers"):
        SemiDpoPort(quantiles=value)


def test_a_list_of_a_recipe_gives_the_same_reward_definition() -> None:
    assert (
        SemiDpoPort(quantiles=[0.5, 0]).reward_def == SemiDpoPort(quantiles=(0.5, 0.0)).reward_def
    )
    assert SemiDpoPort(quantiles=(0.5, 0.0)).n_rounds == 3


def test_beta_out_of_range_is_refused() -> None:
    with pytest.raises(RecipeError, match="beta"):
        SemiDpoPort(beta=0.0)
