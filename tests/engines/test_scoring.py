"""The two ways to a score, and the precision of products."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from dpo_diag.engines import _precision, _scoring
from dpo_diag.engines._base import EngineOptions, ScoreRequest
from dpo_diag.engines._parity import GATE_NATS
from dpo_diag.engines._precision import fast_float32
from dpo_diag.engines._scoring import group_by_prompt, padded_tokens, split_groups
from dpo_diag.engines.hf import HfEngine
from dpo_diag.errors import EngineError

REQUESTS = [
    ScoreRequest((5, 6, 7), (8,)),
    ScoreRequest((5, 6, 7), (9, 10)),
    ScoreRequest((4,), (9,)),
    ScoreRequest((5, 6, 7), (8, 1)),
]


def test_neighbours_of_one_prompt_are_a_group():
    assert group_by_prompt(REQUESTS) == [[0, 1], [2], [3]]
    assert group_by_prompt([]) == []


def test_a_groups_tokens_are_its_rows_times_its_longest():
    """Two rows of 3 + 2."""
    assert padded_tokens(REQUESTS, [0, 1]) == 10


def test_groups_are_halved_down_to_single_requests():
    assert split_groups([[0, 1], [2], [3]]) == ([[0, 1]], [[2], [3]])
    assert split_groups([[0, 1]]) == ([[0]], [[1]])
    assert split_groups([[2]]) is None


@pytest.mark.parametrize("kind", ["llama_tied", "gemma2_capped", "gpt2_learned_positions"])
@pytest.mark.parametrize("gain", [0.0, 100.0])  # never and always shared
def test_sharing_a_prompt_does_not_change_a_score(
    kind, gain, model_folder, oracle, requests_of_all_lengths, monkeypatch
):
    monkeypatch.setattr(_scoring, "SHARING_GAIN", gain)
    taken = []
    real = _scoring._shared_states
    monkeypatch.setattr(_scoring, "_shared_states", lambda *a: taken.append(1) or real(*a))
    with HfEngine(model_folder(kind), EngineOptions()) as engine:
        got = engine.score(requests_of_all_lengths).logp
    expected = [oracle(model_folder(kind), r).sum() for r in requests_of_all_lengths]
    np.testing.assert_allclose(got, expected, atol=GATE_NATS)
    assert bool(taken) == (gain > 0)


def test_chunks_of_the_head_do_not_change_a_score(
    model_folder, requests_of_all_lengths, monkeypatch
):
    with HfEngine(model_folder("llama_tied"), EngineOptions()) as engine:
        whole = engine.score(requests_of_all_lengths).logp
        monkeypatch.setattr(_scoring, "CHUNK_LOGITS", 1)  # one row at a time
        np.testing.assert_allclose(engine.score(requests_of_all_lengths).logp, whole, atol=1e-4)


def test_fast_products_are_float32_and_the_setting_is_given_back():
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, 300, 300, generator=generator)
    before = torch.get_float32_matmul_precision()
    with fast_float32():
        product = one @ other
    assert torch.get_float32_matmul_precision() == before
    exact = one.double() @ other.double()
    assert ((product - exact).abs().max() / exact.abs().max()) < 3e-6


def test_products_stay_slow_where_fast_ones_are_not_float32(monkeypatch):
    monkeypatch.setattr(_precision, "_medium_is_float32", lambda: False)
    before = torch.get_float32_matmul_precision()
    with fast_float32():
        assert torch.get_float32_matmul_precision() == before


def state_sum(folder, request) -> np.ndarray:
    """Sum of the last-layer states before each token of the response: float64, one prefix each."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    total, ids = 0.0, list(request.prompt_ids)
    for token in request.response_ids:
        with torch.no_grad():
            output = model(torch.tensor([ids]), use_cache=False, output_hidden_states=True)
        total = total + output.hidden_states[-1][0, -1].numpy()
        ids.append(token)
    return total


@pytest.mark.parametrize("kind", ["llama_tied", "gemma2_capped", "gpt2_learned_positions"])
@pytest.mark.parametrize("gain", [0.0, 100.0])  # never and always shared
def test_state_sums_are_those_of_single_prefixes_without_padding(
    kind, gain, model_folder, requests_of_all_lengths, monkeypatch
):
    monkeypatch.setattr(_scoring, "SHARING_GAIN", gain)
    with HfEngine(model_folder(kind), EngineOptions(batch_tokens=90)) as engine:
        got = engine.state_sums(requests_of_all_lengths)
        alone = np.concatenate([engine.state_sums([r]) for r in requests_of_all_lengths])
    expected = np.stack([state_sum(model_folder(kind), r) for r in requests_of_all_lengths])
    assert got.dtype == np.float64 and got.shape == expected.shape
    # 1e-4 of the largest sum: float32 states against float64 ones
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(got, alone, atol=1e-5 * np.abs(expected).max())


def test_states_that_cannot_be_told_from_logits_are_refused(model_folder):
    with HfEngine(model_folder("llama_tied"), EngineOptions()) as engine:
        engine._networks[0].is_split = False
        with pytest.raises(EngineError, match="apart from its output head"):
            engine.state_sums(REQUESTS)
