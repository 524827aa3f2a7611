"""Win rates of planted models: exact values, a slow oracle, honest maxima, what is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from dpo_diag.analyzers.pluralism import Parameters, Pluralism
from dpo_diag.errors import DataError
from dpo_diag.oracles._base import Oracle
from dpo_diag.oracles.sandbox_group import SandboxGroup
from dpo_diag.pipeline.winrates import win_rates
from dpo_diag.sandbox.grammar import sample_answer
from dpo_diag.sandbox.groups import GROUPS, STYLES, style_of, win_probability
from dpo_diag.sandbox.shifts import sample_known_prompt
from dpo_diag.tables import WIN_RATES, validate

SHAPES = ("rock", "paper", "scissors")
PROMPT = "how do i clean the stove for my family ?"


@dataclass(frozen=True)
class Circle(Oracle):
    """Paper beats rock, scissors beat paper, rock beats scissors."""

    def prefer(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        wins = {0: 0.5, 1: 1.0, 2: 0.0}
        gaps = [SHAPES.index(a) - SHAPES.index(b) for a, b in zip(first, second, strict=True)]
        return np.array([wins[gap % 3] for gap in gaps], dtype=float)

    @property
    def name(self) -> str:
        return "circle"


@dataclass(frozen=True)
class Longer(Oracle):
    """P = sigmoid of the difference in length; abstains on prompts that say so."""

    def prefer(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> np.ndarray:
        gap = np.array([len(a) - len(b) for a, b in zip(first, second, strict=True)], float)
        wins = 1.0 / (1.0 + np.exp(-gap))
        return np.where(["abstain" in p for p in prompts], np.nan, wins)

    @property
    def name(self) -> str:
        return "longer"


def samples_of(answers: Mapping[str, Sequence[Sequence[str]]]) -> pd.DataFrame:
    """Samples from model -> prompt -> answers."""
    rows = [
        (model, f"p{p:03d}", k, "search", text, "in_domain", "test")
        for model, prompts in answers.items()
        for p, texts in enumerate(prompts)
        for k, text in enumerate(texts)
    ]
    columns = ["model_id", "prompt_id", "sample_index", "phase", "response", "domain", "split"]
    return pd.DataFrame(rows, columns=columns)


def prompts_of(samples: pd.DataFrame, text: str = "a prompt") -> pd.DataFrame:
    return pd.DataFrame({"prompt_id": sorted(samples["prompt_id"].unique()), "prompt": text})


def mean(rows: pd.DataFrame, model: str, kind: str, oracle: str, opponent: str = "") -> float:
    found = rows[(rows["model_id"] == model) & (rows["kind"] == kind) & (rows["oracle"] == oracle)]
    found = found[found["opponent_id"] == opponent] if opponent else found
    assert len(found)
    return float(found["win_rate"].mean())


@pytest.fixture(scope="module")
def circle() -> pd.DataFrame:
    """Three models of one shape each, and one that plays all three equally often, in each half."""
    pure = {shape: [[shape] * 6] * 8 for shape in SHAPES}
    samples = samples_of({**pure, "mixed": [[s for s in SHAPES for _ in range(2)]] * 8})
    return win_rates(samples, prompts_of(samples), [Circle()], opponents=["rock", "mixed"])


def test_rows_meet_their_specification(circle: pd.DataFrame) -> None:
    validate(circle, WIN_RATES)
    assert set(circle["oracle"]) == {"circle", "mean"}
    against = circle[circle["kind"] == "against"]
    assert (against["n_comparisons"] == 36).all()


@pytest.mark.parametrize(
    ("model", "opponent", "expected"),
    [
        ("paper", "rock", 1.0),
        ("scissors", "rock", 0.0),
        ("rock", "rock", 0.5),
        ("mixed", "rock", 0.5),
        ("scissors", "mixed", 0.5),
    ],
)
def test_win_rates_go_round(circle, model: str, opponent: str, expected: float) -> None:
    assert mean(circle, model, "against", "circle", opponent) == expected


def test_every_pure_shape_loses_everything_to_its_deviation_and_the_mixture_nothing(
    circle,
) -> None:
    """The mixture is the equilibrium: no model and no single answer wins more than 1/2."""
    for shape, beaten_by in zip(SHAPES, ("paper", "scissors", "rock"), strict=True):
        assert mean(circle, shape, "best_model", "circle", beaten_by) == 0.0
        assert mean(circle, shape, "best_of_pool", "circle") == 0.0
    assert mean(circle, "mixed", "best_model", "circle", "mixed") == 0.5  # stays
    assert mean(circle, "mixed", "best_of_pool", "circle") == pytest.approx(0.5)


def test_analyzer_says_the_planted_exploitability(circle) -> None:
    params = Parameters(opponent_id="rock")
    found = Pluralism().run({"WinRates": circle}, params, np.random.default_rng(0)).findings
    overall = found[found["slice"] == "all"].set_index(["statistic", "model_id"])["estimate"]
    for statistic in ("exploitability_models", "exploitability_pool"):
        assert overall[statistic, "paper"] == 0.5
        assert overall[statistic, "mixed"] == pytest.approx(0.0)
    assert overall["worst_group_win_rate", "scissors"] == 0.0


def test_groups_of_the_sandbox_have_their_planted_win_rates() -> None:
    """Models that say the same in three styles: only the cyclic group minds, .8176 and .7503."""
    styles = {
        "plain": "wipe the tray .",
        "friendly": "wipe the tray . hope this helps .",
        "warning": "wipe the tray . please take care .",
    }
    samples = samples_of({model: [[text] * 4] * 6 for model, text in styles.items()})
    oracles = [SandboxGroup(group) for group in GROUPS]
    rows = win_rates(samples, prompts_of(samples, PROMPT), oracles, opponents=["plain"])
    votes = {g: win_probability(g, PROMPT, styles["friendly"], styles["plain"]) for g in GROUPS}
    for group in GROUPS:
        found = mean(rows, "friendly", "against", f"sandbox_group.{group}", "plain")
        assert found == pytest.approx(votes[group])
    assert votes["cyclic"] == pytest.approx(0.8176, abs=1e-4)
    average = mean(rows, "friendly", "against", "mean", "plain")
    assert average == pytest.approx((0.5 * 3 + votes["cyclic"]) / 4)
    beaten = mean(rows, "friendly", "best_model", "sandbox_group.cyclic", "warning")
    assert beaten == pytest.approx(1 - 0.750260, abs=1e-6)


def test_policies_that_keep_to_a_style_beat_each_other_in_a_circle() -> None:
    """Real answers of the base grammar, filtered by style: the cycle survives their differences."""
    rng = np.random.default_rng(0)
    rows = []
    for p in range(150):
        prompt = sample_known_prompt(rng, intent=("benign", "borderline", "harmful")[p % 3])
        for style in STYLES:
            kept: list[str] = []
            while len(kept) < 4:
                answer = sample_answer(rng, prompt)
                kept += [answer] if style_of(answer) == style else []
            rows += [(style, f"p{p:03d}", k, text, prompt.text) for k, text in enumerate(kept)]
    samples = pd.DataFrame(
        rows, columns=["model_id", "prompt_id", "sample_index", "response", "prompt"]
    )
    asked = samples.drop_duplicates("prompt_id").assign(domain="in_domain", split="test")
    wins = win_rates(samples, asked, [SandboxGroup("cyclic")], opponents=STYLES)
    for winner, loser in (("friendly", "plain"), ("warning", "friendly"), ("plain", "warning")):
        assert mean(wins, winner, "against", "sandbox_group.cyclic", loser) > 0.51
        assert mean(wins, loser, "best_model", "sandbox_group.cyclic", winner) < 0.49


def test_win_rates_are_those_of_a_slow_count() -> None:
    """Random answers of unequal number: every pair asked one by one; halves by index."""
    rng = np.random.default_rng(0)
    words = ["a", "bb", "ccc", "dddd"]
    answers = {
        model: [[words[i] for i in rng.integers(0, 4, n)] for _ in range(5)]
        for model, n in (("x", 4), ("y", 5), ("z", 3))
    }
    samples = samples_of(answers)
    rows = win_rates(samples, prompts_of(samples), [Longer()], opponents=["y"])

    def wins(a: str, b: str) -> float:
        return 1.0 / (1.0 + np.exp(len(b) - len(a)))

    for model, prompts in answers.items():
        for p, texts in enumerate(prompts):
            own = rows[(rows["model_id"] == model) & (rows["prompt_id"] == f"p{p:03d}")]
            own = own[own["oracle"] == "longer"].set_index("kind")["win_rate"]
            expected = np.mean([[wins(a, b) for b in answers["y"][p]] for a in texts])
            assert own["against"] == pytest.approx(expected)
            pool = sorted({text for other in answers.values() for text in other[p]})
            halves = (texts[0::2], texts[1::2])
            kept = []
            for chosen_on, measured_on in (halves, halves[::-1]):
                best = max(pool, key=lambda y, h=chosen_on: np.mean([wins(y, t) for t in h]))
                kept.append(1 - np.mean([wins(best, t) for t in measured_on]))
            assert own["best_of_pool"] == pytest.approx(np.mean(kept))


def test_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    answers = {m: [list(rng.choice(["a", "bb", "ccc"], 4)) for _ in range(6)] for m in "xyz"}
    samples = samples_of(answers)
    shuffled = samples.sample(frac=1.0, random_state=0)
    one, two = (
        win_rates(s, prompts_of(s), [Longer()], opponents=["y"]).sort_values(
            list(WIN_RATES.key), ignore_index=True
        )
        for s in (samples, shuffled)
    )
    pd.testing.assert_frame_equal(one, two)


def test_best_of_many_equal_models_gains_nothing_where_a_plain_maximum_would() -> None:
    """Twelve models of one distribution: the largest mean gain is noise and must not be told."""
    held_out, plain = [], []
    models = [f"m{i:02d}" for i in range(12)]
    for seed in range(6):
        rng = np.random.default_rng(seed)
        answers = {
            m: [["w" * int(k) for k in rng.integers(1, 9, 4)] for _ in range(24)] for m in models
        }
        samples = samples_of(answers)
        rows = win_rates(samples, prompts_of(samples), [Longer()], opponents=models)
        rows = rows[rows["oracle"] == "longer"]
        held_out.append(0.5 - rows.loc[rows["kind"] == "best_model", "win_rate"].mean())
        against = rows[rows["kind"] == "against"]
        table = against.groupby(["model_id", "opponent_id"])["win_rate"].mean()
        plain.append(0.5 - table.groupby("model_id").min().mean())
    assert np.mean(plain) > 0.03
    assert abs(np.mean(held_out)) < 0.012


def test_only_stated_deviations_are_picked() -> None:
    samples = samples_of({shape: [[shape] * 2] * 6 for shape in SHAPES})
    rows = win_rates(
        *(samples, prompts_of(samples), [Circle()]), opponents=["rock"], deviations=["scissors"]
    )
    assert mean(rows, "paper", "best_model", "circle", "scissors") == 0.0
    assert mean(rows, "rock", "best_model", "circle", "rock") == 0.5
    assert mean(rows, "scissors", "best_model", "circle", "scissors") == 0.5


def test_abstention_is_missing_and_takes_the_mean_of_groups_with_it() -> None:
    samples = samples_of({m: [["rock", "paper"]] * 2 for m in ("x", "y")})
    asked = prompts_of(samples).assign(prompt=["please abstain", "a prompt"])
    rows = win_rates(samples, asked, [Circle(), Longer()], opponents=["y"])
    first = rows[rows["prompt_id"] == "p000"].set_index(["oracle", "kind", "model_id"])["win_rate"]
    assert np.isnan(first["longer", "against", "x"]) and np.isnan(first["mean", "against", "x"])
    assert first["circle", "against", "x"] == 0.5
    assert rows.loc[rows["prompt_id"] == "p001", "win_rate"].notna().all()


def test_fresh_samples_of_picked_prompts_do_not_count() -> None:
    samples = samples_of({"x": [["rock"] * 2] * 2, "y": [["paper"] * 2] * 2})
    fresh = samples[samples["prompt_id"] == "p000"].assign(
        phase="confirm", sample_index=100, response="scissors"
    )
    both = pd.concat([samples, fresh])
    one, two = (win_rates(s, prompts_of(s), [Circle()], opponents=["y"]) for s in (samples, both))
    pd.testing.assert_frame_equal(one, two)


def test_bare_answers_do_where_the_prompts_tell_domain_and_split() -> None:
    samples = samples_of({"x": [["rock"] * 2] * 2, "y": [["paper"] * 2] * 2})
    bare = samples[["model_id", "prompt_id", "sample_index", "response"]]
    asked = prompts_of(samples).assign(domain="in_domain", split="test")
    one = win_rates(samples, asked, [Circle()], opponents=["y"])
    pd.testing.assert_frame_equal(win_rates(bare, asked, [Circle()], opponents=["y"]), one)


def test_a_prompt_that_a_model_was_not_asked_has_no_row_of_it() -> None:
    samples = samples_of({"x": [["rock"] * 2] * 3, "y": [["paper"] * 2] * 2})
    rows = win_rates(samples, prompts_of(samples), [Circle()], opponents=["y"])
    against = rows[(rows["kind"] == "against") & (rows["model_id"] == "x")]
    assert set(against["prompt_id"]) == {"p000", "p001"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"oracles": []}, "need at least one oracle"),
        ({"oracles": [Circle(), Circle()]}, "two oracles are called circle"),
        ({"opponents": ["z"]}, "the opponent z has no samples; there are x, y"),
        ({"deviations": ["z"]}, "the deviation z has no samples"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict, message: str) -> None:
    samples = samples_of({"x": [["rock"]], "y": [["paper"]]})
    given = {"oracles": [Circle()], "opponents": ["y"], **change}
    with pytest.raises(DataError, match=message):
        win_rates(samples, prompts_of(samples), given.pop("oracles"), **given)


def test_prompt_without_text_is_named() -> None:
    samples = samples_of({"x": [["rock"]], "y": [["paper"]]})
    with pytest.raises(DataError, match="prompt p000 was sampled but has no text"):
        win_rates(samples, prompts_of(samples).head(0), [Circle()], opponents=["y"])
