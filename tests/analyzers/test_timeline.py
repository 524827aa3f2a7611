"""Timelines: turns of pairs by hand and by oracle, the best step, agreement of seeds."""

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers._timelines import timeline_columns
from dpo_diag.analyzers.timeline import Parameters, Timeline

STEPS = np.array([10.0, 20.0, 30.0, 40.0])


def columns_of(signs: list[list[float]], **options) -> dict[str, list]:
    found = timeline_columns(np.array(signs, float), STEPS, **options)
    return {name: values.tolist() for name, values in found.items()}


def run(frame, run_steps=None, pairs=None, **parameters):
    tables = {"ImplicitRewards": frame}
    tables |= {} if run_steps is None else {"RunSteps": run_steps}
    tables |= {} if pairs is None else {"PreferencePairs": pairs}
    return Timeline().run(tables, Parameters(**parameters), np.random.default_rng(0))


def rows_of(make, margins, *, name="run", ref=None, prompts=None, noise=np.nan):
    """A run from (n, S) margins of steps 10, 20 ... and the final model, which is the last column.

    The policy's log-prob margin is the reference's plus ten times the margin (beta 0.1).
    """
    margins = np.asarray(margins, float)
    reference = np.zeros((len(margins), 2))
    reference[:, 0] = 0.0 if ref is None else ref
    frames, places = [], []
    final = f"{name}-{99:08x}"
    for k in range(margins.shape[1]):
        is_final = k == margins.shape[1] - 1
        model = final if is_final else f"{name}-step{10 * (k + 1)}-{k:08x}"
        ratio = np.column_stack([10.0 * margins[:, k], np.zeros(len(margins))])
        frames.append(
            make.rewards(
                ratio, reference, model_id=model, step=-1 if is_final else 10 * (k + 1),
                prompt_ids=prompts,
            ).assign(margin_noise=noise)
        )  # fmt: skip
        places.append((final, model, 10.0 * (k + 1), False, name.rsplit("-", 1)[0]))
    places.append((final, "ref", 0.0, True, name.rsplit("-", 1)[0]))
    names = ["run_id", "model_id", "step", "is_start", "seed_group"]
    return pd.concat(frames, ignore_index=True), pd.DataFrame(places, columns=names)


def test_turns_of_a_pair_by_hand():
    """Right all along; learned at 20; lost at 30 and back; forgotten at 20; never; tie between."""
    found = columns_of(
        [[1, 1, 1, 1], [-1, 1, 1, 1], [1, 1, -1, 1], [1, -1, -1, -1], [-1, -1, 0, -1],
         [1, 0, -1, -1]]
    )  # fmt: skip
    nan = pytest.approx(np.nan, nan_ok=True)
    assert found["first_right"] == [10.0, 20.0, 10.0, 10.0, nan, 10.0]
    assert found["n_flips"] == [0, 1, 1, 0, 0, 0]
    assert found["n_flips_back"] == [0, 0, 1, 1, 0, 1]
    assert found["last_crossing"] == [nan, 20.0, 40.0, 20.0, nan, 30.0]
    assert found["is_forgotten"] == [False, False, False, True, False, True]
    assert found["forgotten_at"] == [nan, nan, nan, 20.0, nan, 30.0]
    assert found["end"] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]


def test_a_pair_counts_as_right_from_a_step_on():
    """Right at 10 only: ever right from step 1 on, not from step 20 on."""
    assert columns_of([[1, -1, -1, -1]])["is_forgotten"] == [True]
    later = columns_of([[1, -1, -1, -1]], from_step=20)
    assert (later["is_forgotten"], later["is_right_ever"]) == ([False], [False])


def test_missing_steps_and_ties_at_the_end_are_no_order():
    found = columns_of([[1, np.nan, np.nan, 0], [-1, np.nan, 1, np.nan]])
    assert found["n_flips"] == [0, 1] and found["is_forgotten"] == [False, False]
    assert found["end"][0] == 0.5 and np.isnan(found["end"][1])


@pytest.mark.parametrize("seed", range(50))
def test_turns_agree_with_a_slow_oracle(seed):
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 0.0, 1.0], size=(20, 6))
    steps = np.cumsum(rng.integers(1, 9, 6)).astype(float)
    found = timeline_columns(signs, steps)
    for row, own in enumerate(signs.tolist()):
        state, ups, downs, last, first = 0.0, 0, 0, np.nan, np.nan
        for step, sign in zip(steps, own, strict=True):
            if sign > 0 and np.isnan(first):
                first = step
            if sign and state and sign != state:
                ups, downs, last = ups + (sign > 0), downs + (sign < 0), step
            state = sign or state
        assert found["first_right"][row] == pytest.approx(first, nan_ok=True)
        assert (found["n_flips"][row], found["n_flips_back"][row]) == (ups, downs)
        assert found["last_crossing"][row] == pytest.approx(last, nan_ok=True)
        assert found["is_forgotten"][row] == (own[-1] < 0 and not np.isnan(first))


def test_shares_of_a_run_by_hand(make, own):
    """Ten pairs: 4 right all along, 3 learned, 2 forgotten at 20, 1 never right."""
    signs = [[1, 1, 1]] * 4 + [[-1, 1, 1]] * 3 + [[1, -1, -1]] * 2 + [[-1, -1, -1]]
    frame, places = rows_of(make, signs)
    result = run(frame, places)
    find = {name: own(result.findings, name, model="run-00000063") for name in (
        "ever_right_rate", "never_right_rate", "forgotten_rate", "forgotten_of_right",
        "flip_back_rate", "crossings")}  # fmt: skip
    estimates = {name: row["estimate"] for name, row in find.items()}
    assert estimates == pytest.approx(
        {"ever_right_rate": 0.9, "never_right_rate": 0.1, "forgotten_rate": 0.2,
         "forgotten_of_right": 2 / 9, "flip_back_rate": 0.2, "crossings": 0.5}
    )  # fmt: skip
    assert find["forgotten_of_right"]["n"] == 9
    assert result.cases["row_key"].tolist() == ["pair00007", "pair00008"]
    assert "lost at step 20; margin +1.000 at 10, -1.000 at the end" in result.cases["note"][0]


def test_ranking_starts_at_the_reference_and_does_not_count_it_as_learned(make, own):
    """Reference right by 5 nats on all; margins of -1 move it by -10 nats: broken from step 10."""
    frame, places = rows_of(make, [[-1, -1, -1]] * 6 + [[1, 1, 1]] * 4, ref=5.0)
    result = run(frame, places)
    name = "run-00000063"
    assert own(result.findings, "ranking_flip_back_rate", model=name)["estimate"] == 0.6
    assert own(result.findings, "ranking_forgotten_rate", model=name)["estimate"] == 0.0
    curve = result.curves.query("curve == 'accuracy_by_step' and series == 'ranking_accuracy'")
    assert curve["x"].tolist() == [0.0, 10.0, 20.0, 30.0]
    assert curve["y"].tolist() == [1.0, 0.4, 0.4, 0.4]
    without = run(frame, places[~places["is_start"]])
    assert own(without.findings, "ranking_flip_back_rate", model=name)["estimate"] == 0.0


def test_margins_inside_the_engines_noise_turn_nothing(make, own):
    """Log-ratio margins of +5 and -5 nats turn twice; with noise of 6 nats they say nothing."""
    frame, places = rows_of(make, [[0.5, -0.5, 0.5]] * 5)
    name = "run-00000063"
    assert own(run(frame, places).findings, "crossings", model=name)["estimate"] == 2.0
    noisy = run(frame.assign(margin_noise=6.0), places).findings
    assert own(noisy, "crossings", model=name)["estimate"] == 0.0


def test_a_last_step_that_is_the_final_model_counts_once(make, own):
    frame, places = rows_of(make, [[1, -1]] * 5)
    last = frame[frame["step"] == -1].assign(model_id="run-step20-00000007", step=20)
    row = places[places["step"] == 20.0].assign(model_id="run-step20-00000007")
    both = run(pd.concat([frame, last]), pd.concat([places, row], ignore_index=True))
    assert own(both.findings, "crossings", model="run-00000063")["estimate"] == 1.0
    for curve, steps in (("accuracy_by_step", [10.0, 20.0]), ("accuracy_against_end", [10.0])):
        rows = both.curves[both.curves["curve"] == curve].query("series == 'reward_accuracy'")
        assert rows["x"].tolist() == steps


def test_a_run_without_steps_has_no_timeline_and_says_so(make, own):
    frame, places = rows_of(make, [[1.0], [-1.0]])
    row = own(run(frame, places).findings, "forgotten_rate", model="run-00000063")
    assert np.isnan(row["estimate"]) and "no steps" in row["flag"]


def test_a_final_model_of_unknown_step_is_last_and_has_no_point(make, own):
    frame, _ = rows_of(make, [[1, 1, -1]] * 4)
    result = run(frame)
    assert own(result.findings, "forgotten_rate", model="run-00000063")["estimate"] == 1.0
    curve = result.curves.query("curve == 'accuracy_by_step' and series == 'reward_accuracy'")
    assert curve["x"].tolist() == [10.0, 20.0]
    assert "lost after the last saved step" in result.cases["note"][0]


def test_the_loss_since_a_clear_best_step_is_found(make, own):
    """200 pairs: step 20 right on 160, the end on 120 of them; no doubt which step is best."""
    signs = np.full((200, 3), -1.0)
    signs[:100, 0] = signs[:160, 1] = signs[:120, 2] = 1.0
    result = run(*rows_of(make, signs))
    name = "run-00000063"
    assert own(result.findings, "best_step", model=name)["estimate"] == 20.0
    row = own(result.findings, "reward_accuracy_since_best", model=name, baseline="best step")
    assert row["estimate"] == pytest.approx(-0.2)
    assert row["ci_low"] < -0.2 < row["ci_high"] < 0.0 and row["verdict"] == "worse"
    assert any("the best step was 20" in note and "-20.0 points" in note for note in result.notes)
    band = result.curves.query("curve == 'accuracy_against_end'")
    assert band["y"].tolist() == pytest.approx([-0.1, 0.2])
    assert band["y_low"].tolist()[1] > 0.0


def test_seeds_that_agree_by_hand(make, own):
    """Two seeds, ten pairs: 5 right in both, 2 wrong in both, 3 in one: alike on 7 of 10."""
    one, two = [[1, 1]] * 8 + [[1, -1]] * 2, [[1, 1]] * 5 + [[1, -1]] * 5
    frames, places = zip(
        rows_of(make, one, name="dpo-0"), rows_of(make, two, name="dpo-1"), strict=True
    )
    result = run(pd.concat(frames), pd.concat(places, ignore_index=True))
    find = {
        name: own(result.findings, name, model="dpo")["estimate"]
        for name in ("seed_agreement", "reversed_in_every_seed_rate",
                     "reversed_in_some_seed_rate", "reversal_repeat_rate", "seed_kappa")
    }  # fmt: skip
    expected = (13 / 20) ** 2 + (7 / 20) ** 2
    assert find == pytest.approx(
        {"seed_agreement": 0.7, "reversed_in_every_seed_rate": 0.2,
         "reversed_in_some_seed_rate": 0.3, "reversal_repeat_rate": 4 / 7,
         "seed_kappa": (0.7 - expected) / (1 - expected)}
    )  # fmt: skip
    always = result.cases[result.cases["kind"] == "always_reversed_pair"]
    assert always["row_key"].tolist() == ["pair00008", "pair00009"]
    assert any("would share 10.0 %" in note for note in result.notes)  # .2 * .5


def test_row_order_and_extra_models_do_not_change_a_runs_numbers(make, own):
    rng = np.random.default_rng(3)
    prompts = [f"prompt{i // 2}" for i in range(60)]
    frame, places = rows_of(make, rng.normal(size=(60, 4)), prompts=prompts)
    other, others = rows_of(make, rng.normal(size=(60, 3)), name="other", prompts=prompts)
    alone = run(frame, places).findings
    mixed = pd.concat([other, frame]).sample(frac=1.0, random_state=1)
    beside = run(mixed, pd.concat([others, places], ignore_index=True)).findings
    key = ["statistic", "baseline_id", "slice"]
    both = [
        f[f["model_id"] == "run-00000063"].sort_values(key, ignore_index=True)
        for f in (alone, beside)
    ]
    pd.testing.assert_frame_equal(*both)


@pytest.mark.slow
def test_the_forgotten_rates_interval_covers_a_planted_share(make, own):
    """Each pair is forgotten with chance .1, alike within prompts of three: 200 worlds."""
    rng, held = np.random.default_rng(4), 0
    prompts = [f"prompt{i // 3}" for i in range(150)]
    for _ in range(200):
        chance = np.repeat(rng.beta(0.5, 4.5, 50), 3)
        signs = np.ones((150, 2))
        signs[rng.random(150) < chance, 1] = -1.0
        frame, places = rows_of(make, signs, prompts=prompts)
        row = own(run(frame, places).findings, "forgotten_rate", model="run-00000063")
        held += row["ci_low"] <= 0.1 <= row["ci_high"]
    assert 0.90 <= held / 200 <= 0.995
