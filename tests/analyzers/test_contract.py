"""What every analyzer must do; runs over each file in the folder, so its author writes no test."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from dpo_diag import registry
from dpo_diag.analyzers._base import Analyzer, AnalyzerResult
from dpo_diag.analyzers._rewardbench import COUNTS, PRIOR_SETS
from dpo_diag.errors import TableError
from dpo_diag.reporting import plots
from dpo_diag.stats.multiplicity import VERDICTS
from dpo_diag.tables import CASES, CURVES, FINDINGS, SPECS, empty, validate

MODELS = ("alpha", "base", "zeta")
NUMBERS = [
    "estimate",
    "ci_low",
    "ci_high",
    "p_value",
    "p_adjusted",
    "detectable",
    "n",
    "n_clusters",
]
KEY = ["statistic", "model_id", "baseline_id", "slice"]


@pytest.fixture(params=registry.names("analyzers"))
def analyzer(request: pytest.FixtureRequest) -> Analyzer:
    return registry.load("analyzers", request.param)()


@pytest.fixture
def tables(make) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    rewards = make.random_pairs(rng, 60, MODELS)
    rewards["split"] = np.where(rewards["pair_id"] < "pair00040", "train", "test")
    first = rewards[rewards["model_id"] == MODELS[0]]
    costs = make.random_costs(rng, 25, MODELS)
    ids = sorted(set(costs["prompt_id"]))
    return {
        "ImplicitRewards": rewards,
        "PreferencePairs": make.pairs(
            first,
            stratum=rng.choice(["benign", "harmful"], 60),
            gold_margin=rng.normal(size=60),
            annotator=rng.choice(["ann", "bob"], 60),
            vote_share=np.resize([1.0, 0.8, np.nan, 0.2], 60),
            n_votes=5,
            subset=np.resize([*COUNTS, *PRIOR_SETS], 60),
            judge="cost",
            is_first_chosen=np.resize([True, True, False], 60),
            gold_label=np.resize(["chosen", "", "rejected", "chosen"], 60),
        ),
        "SampleCosts": costs,
        "Samples": make.samples(costs),
        "MethodValues": method_values(rng),
        "RemovalOutcomes": removal_outcomes(rng),
        **explanations(first),
        **beside_pairs(first),
        "WinRates": make.random_wins(rng, 25, MODELS),
        "Prompts": make.prompts(ids, intent=rng.choice(["benign", "harmful"], len(ids))),
    }


def prompt_distances(rewards: pd.DataFrame) -> pd.DataFrame:
    """Every prompt at some distance from the training prompts, by the reference ``ref``."""
    ids = sorted(set(rewards["prompt_id"]))
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "reference_id": "ref",
            "prompt_id": ids,
            "encoder": "ref",
            "distance": rng.random(len(ids)),
            "nearest_prompt_id": "near",
            "seen_share": rng.random(len(ids)),
            "prompt_surprise": rng.random(len(ids)),
        }
    )


def method_values(rng: np.random.Generator) -> pd.DataFrame:
    """Three methods, two seeds, 25 prompts: two statistics by prompt, one of the whole model."""
    prompts = [f"prompt{i:05d}" for i in range(25)]
    units = [
        *(("mean_helpfulness", unit) for unit in prompts),
        *(("mean_cost", unit) for unit in prompts),
        ("cost_cvar", ""),
    ]
    rows = [
        (model, "main", seed, statistic, unit, unit, rng.random())
        for model in MODELS
        for seed in range(2)
        for statistic, unit in units
    ]
    columns = ["model_id", "arm", "seed", "statistic", "unit_id", "prompt_id", "value"]
    return pd.DataFrame(rows, columns=columns)


def beside_pairs(rewards: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Two answers of each model and of the reference to every prompt, and states of every pair."""
    rng = np.random.default_rng(12)
    place = rewards[["prompt_id", "domain", "split"]].drop_duplicates("prompt_id")
    answers = pd.concat(
        [
            place.assign(model_id=model, reference_id="ref", sampled_by=sampler, sample_index=index)
            for model in MODELS
            for sampler in (model, "ref")
            for index in range(2)
        ],
        ignore_index=True,
    )
    ref_logp = rng.normal(-20.0, 3.0, len(answers))
    answers = answers.assign(
        ref_logp=ref_logp,
        logp=ref_logp + rng.normal(0.0, 2.0, len(answers)),
        n_tokens=rng.integers(5, 30, len(answers)),
        answer=rng.choice(["third", "third", "chosen", "rejected"], len(answers)),
    )
    kept = ["pair_id", "prompt_id", "n_tokens_chosen", "n_tokens_rejected", "truncated", "domain"]
    states = rewards[[*kept, "split"]].assign(
        model_id="ref",
        state_product=rng.normal(50.0, 30.0, len(rewards)),
        state_square=rng.uniform(20.0, 90.0, len(rewards)),
        engine="hf",
        dtype="float32",
        tokenizer_hash="x",
    )
    return {
        "SampleLogps": validate(answers, SPECS["SampleLogps"]),
        "PairStates": validate(states, SPECS["PairStates"]),
    }


def explanations(rewards: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Two scores of every pair, what two spaces express at three lengths, and eight pushes each."""
    rng = np.random.default_rng(11)
    pairs = rewards[["pair_id", "prompt_id", "domain", "split"]]
    scores = [
        pairs.assign(model_id=model, predictor=predictor, score=rng.normal(size=len(pairs)))
        for model in MODELS
        for predictor in ("conflict", "linearised_dpo")
    ]
    spaces = [
        (model, space, dimension, norm, 1.5, share, 0.1, 60)
        for model in MODELS
        for space, dimension in (("all", 900), ("random", 64))
        for norm, share in ((1.0, 0.5), (2.0, 0.3), (4.0, 0.2))
    ]
    columns = ["model_id", "space", "dimension", "norm", "moved_norm"]
    conflicts = []
    for model in MODELS:
        for pair_id in pairs["pair_id"]:
            others = rng.choice(pairs.loc[pairs["pair_id"] != pair_id, "pair_id"], 8, replace=False)
            push = rng.normal(-0.3, 1.0, 8)
            share = np.where(push < 0.0, push / min(push[push < 0.0].sum(), -1.0), np.nan)
            conflicts.append(
                pd.DataFrame({"model_id": model, "pair_id": pair_id, "train_pair_id": others})
                .assign(push=push, cosine=push / 4.0, share=share)
            )  # fmt: skip
    local = [
        pairs[["pair_id"]].assign(
            model_id=model,
            margin=rng.normal(size=len(pairs)),
            redraw_spread=rng.uniform(0.1, 1.0, len(pairs)),
        )
        for model in MODELS
    ]
    return {
        "LocalMargins": pd.concat(local, ignore_index=True),
        "ReversalPredictions": pd.concat(scores, ignore_index=True),
        "Expressible": pd.DataFrame(
            spaces, columns=[*columns, "residual_share", "sign_errors", "n"]
        ),
        "PairConflicts": pd.concat(conflicts, ignore_index=True),
    }


def removal_outcomes(rng: np.random.Generator) -> pd.DataFrame:
    """Three arms, four seeds, 20 held-out pairs of each seed."""
    rows = [
        (arm, seed, f"pair{seed}-{i}", f"prompt{seed}-{i}", rng.normal(), i % 3 == 0, 5)
        for arm in MODELS
        for seed in range(4)
        for i in range(20)
    ]
    columns = ["model_id", "seed", "pair_id", "prompt_id", "margin", "is_target", "n_left_out"]
    return pd.DataFrame(rows, columns=columns)


def run(analyzer: Analyzer, tables: Mapping[str, pd.DataFrame], baseline: str) -> AnalyzerResult:
    fields = {field.name for field in dataclasses.fields(analyzer.Parameters)}
    roles = {"roles": {"harm": "harm"}} if "roles" in fields else {}
    params = analyzer.Parameters(baseline_id=baseline, **roles)
    return analyzer.run(tables, params, np.random.default_rng(7))


def comparable(findings: pd.DataFrame, names: Mapping[str, str] | None = None) -> pd.DataFrame:
    named = findings.replace({"model_id": dict(names or {}), "baseline_id": dict(names or {})})
    return named.sort_values(KEY, ignore_index=True)[[*KEY, *NUMBERS, "verdict", "flag"]]


def assert_same(one: pd.DataFrame, two: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, two, rtol=1e-9, atol=1e-12)


def test_there_are_analyzers() -> None:
    assert {"reversals", "ood", "safety"} <= set(registry.names("analyzers"))


def test_says_its_question_needs_and_headline(analyzer) -> None:
    assert analyzer.question.endswith("?")
    assert analyzer.needs
    assert set(analyzer.needs) <= set(SPECS)
    assert dataclasses.is_dataclass(analyzer.Parameters)
    assert analyzer.Parameters.__dataclass_params__.frozen
    assert {"baseline_id", "ci_level"} <= {f.name for f in dataclasses.fields(analyzer.Parameters)}


def test_every_headline_statistic_is_found_for_every_model(analyzer, tables) -> None:
    findings = run(analyzer, tables, "base").findings
    assert analyzer.headline
    for model in MODELS:
        own = findings[(findings["model_id"] == model) & (findings["baseline_id"] == "")]
        assert set(analyzer.headline) <= set(own["statistic"])


def test_results_meet_their_specs(analyzer, tables) -> None:
    result = run(analyzer, tables, "base")
    validate(result.findings, FINDINGS)
    validate(result.curves, CURVES)
    validate(result.cases, CASES)
    assert (result.findings["analyzer"] == registry_name(analyzer)).all()


def registry_name(analyzer: Analyzer) -> str:
    return type(analyzer).__module__.rsplit(".", 1)[-1]


def test_a_missing_column_is_named(analyzer, tables) -> None:
    for table, columns in analyzer.needs.items():
        for column in columns:
            broken = {**tables, table: tables[table].drop(columns=column)}
            with pytest.raises(TableError, match=f"{table}.*{column}"):
                run(analyzer, broken, "")


def test_a_missing_table_is_named(analyzer, tables) -> None:
    for table in analyzer.needs:
        rest = {name: frame for name, frame in tables.items() if name != table}
        with pytest.raises(TableError, match=table):
            run(analyzer, rest, "")


def test_row_order_does_not_matter(analyzer, tables) -> None:
    shuffled = {
        name: frame.sample(frac=1.0, random_state=3).reset_index(drop=True)
        for name, frame in tables.items()
    }
    one, two = (comparable(run(analyzer, t, "base").findings) for t in (tables, shuffled))
    assert_same(one, two)


def test_model_names_do_not_matter(analyzer, tables) -> None:
    names = {"alpha": "omega", "base": "kappa", "zeta": "beta"}
    renamed = {
        name: frame.replace({c: names for c in ("model_id", "sampled_by") if c in frame})
        for name, frame in tables.items()
    }
    one = comparable(run(analyzer, tables, "base").findings, names)
    two = comparable(run(analyzer, renamed, "kappa").findings)
    assert_same(one, two)


def test_the_same_generator_state_gives_the_same_numbers(analyzer, tables) -> None:
    one, two = (run(analyzer, tables, "base").findings for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_inputs_are_unchanged(analyzer, tables) -> None:
    before = {name: frame.copy(deep=True) for name, frame in tables.items()}
    run(analyzer, tables, "base")
    for name, frame in tables.items():
        pd.testing.assert_frame_equal(frame, before[name])


def test_every_number_carries_unit_direction_n_and_method(analyzer, tables) -> None:
    findings = run(analyzer, tables, "base").findings
    assert (findings["unit"] != "").all()
    assert findings["better"].isin(["lower", "higher", "neither"]).all()
    known = findings[findings["estimate"].notna()]
    assert (known["n"] > 0).all() and (known["n_clusters"] > 0).all()
    assert (known["n_clusters"] <= known["n"]).all()
    assert (known["method"] != "").all()


def test_what_cannot_be_estimated_is_missing_and_says_why(analyzer, tables) -> None:
    findings = run(analyzer, tables, "base").findings
    nothing = findings[findings["estimate"].isna()]
    assert (nothing["flag"] != "").all()
    assert findings.loc[findings["n"] == 0, "estimate"].isna().all()


def test_estimates_lie_inside_their_intervals(analyzer, tables) -> None:
    findings = run(analyzer, tables, "base").findings
    rows = findings[findings["ci_low"].notna() & findings["ci_high"].notna()]
    assert len(rows)
    assert (rows["ci_low"] <= rows["estimate"] + 1e-9).all()
    assert (rows["estimate"] <= rows["ci_high"] + 1e-9).all()
    assert (rows["ci_level"] == 0.95).all()


def test_no_estimate_claims_certainty(analyzer, tables) -> None:
    findings = run(analyzer, tables, "base").findings
    rows = findings[findings["ci_low"].notna() & findings["ci_high"].notna()]
    assert (rows["ci_high"] > rows["ci_low"]).all()


def test_comparisons_are_complete(analyzer, tables) -> None:
    findings = run(analyzer, tables, "base").findings
    rows = findings[(findings["baseline_id"] == "base") & findings["p_adjusted"].notna()]
    assert rows["verdict"].isin([*VERDICTS, ""]).all()
    assert (rows["p_adjusted"] >= rows["p_value"] - 1e-12).all()
    assert not (rows["model_id"] == "base").any()
    assert (rows.loc[rows["better"] != "neither", "verdict"] != "").all()


def test_without_a_baseline_there_are_no_comparisons_with_a_model(analyzer, tables) -> None:
    findings = run(analyzer, tables, "").findings
    assert not findings["baseline_id"].isin(MODELS).any()


def test_empty_tables_give_no_number(analyzer, tables) -> None:
    blank = {name: empty(SPECS[name]) for name in tables}
    findings = run(analyzer, blank, "").findings
    assert findings["estimate"].isna().all()
    assert (findings["n"] == 0).all()


def test_one_row_of_each_table_does_not_fail(analyzer, tables) -> None:
    single = {name: frame.head(1).reset_index(drop=True) for name, frame in tables.items()}
    result = run(analyzer, single, "")
    validate(result.findings, FINDINGS)


def test_figures_can_be_drawn_and_name_their_axes(analyzer, tables) -> None:
    for figure in run(analyzer, tables, "base").figures:
        assert figure.kind in plots.KINDS
        assert figure.x_label and figure.y_label and figure.title


def test_curves_belong_to_a_declared_figure(analyzer, tables) -> None:
    result = run(analyzer, tables, "base")
    declared = {figure.curve for figure in result.figures}
    assert set(result.curves["curve"]) <= declared
