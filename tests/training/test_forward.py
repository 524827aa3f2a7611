"""Log-probs of the lean forward pass against one token at a time, over several architectures."""

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from dpo_diag.errors import EngineError
from dpo_diag.training.batches import TokenBatch, pack, pack_answers, pack_pairs
from dpo_diag.training.forward import attributed_logps, response_logps, shares_prompts

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.5,
}


@dataclass(frozen=True)
class Item:
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


ITEMS = [Item((3, 4, 5), (6, 7, 2)), Item((8,), (9, 2)), Item((3, 11, 12, 13), (2,))]


def make_model(kind: str) -> Any:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    own: dict[str, dict[str, Any]] = {
        "gpt2": {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
        # caps the logits after the head: a path that calls the head itself would miss it
        "gemma2": {**SMALL, "final_logit_softcapping": 2.0},
        # scales the logits after the head
        "cohere": {**SMALL, "logit_scale": 0.25},
        "llama": SMALL,
        "opt": {
            "vocab_size": 50,
            "hidden_size": 16,
            "ffn_dim": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "word_embed_proj_dim": 16,
        },
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = CONFIG_MAPPING[kind](**own[kind])
        return AutoModelForCausalLM.from_config(config).double().eval()


def oracle(model: Any, item: Item) -> float:
    """Sum over the response of log p(token | all before), each from a forward pass of its own."""
    ids = [*item.prompt_ids, *item.response_ids]
    total = 0.0
    for place in range(len(item.prompt_ids), len(ids)):
        logits = model(input_ids=torch.tensor([ids[:place]])).logits[0, -1].double()
        total += torch.log_softmax(logits, -1)[ids[place]].item()
    return total


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "cohere", "opt"])
@torch.no_grad()
def test_sums_equal_a_token_by_token_oracle(kind: str) -> None:
    """The head's logits pass through float32, so agreement is to 1e-5 nats, not to 1e-12."""
    model = make_model(kind)
    got = response_logps(model, pack(ITEMS)).sums
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx([oracle(model, item) for item in ITEMS], abs=1e-5)


@torch.no_grad()
def test_tokens_and_mask_lie_left_aligned() -> None:
    model = make_model("llama")
    logps = response_logps(model, pack(ITEMS))
    assert logps.mask.tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    assert (logps.tokens[~logps.mask] == 0).all()
    assert (logps.tokens[logps.mask] < 0).all()


def test_neighbours_do_not_change_a_gradient() -> None:
    model = make_model("llama").float()
    response_logps(model, pack(ITEMS)).sums[1].backward()
    together = model.get_input_embeddings().weight.grad.clone()
    model.zero_grad()
    response_logps(model, pack(ITEMS[1:2])).sums[0].backward()
    torch.testing.assert_close(model.get_input_embeddings().weight.grad, together)


def test_hook_is_gone_afterwards() -> None:
    model = make_model("llama")
    before = model(input_ids=torch.tensor([[3, 4, 5]])).logits
    response_logps(model, pack(ITEMS))
    torch.testing.assert_close(model(input_ids=torch.tensor([[3, 4, 5]])).logits, before)


def test_a_model_without_output_head_is_refused() -> None:
    model = make_model("llama").model
    with pytest.raises(EngineError, match="no output embeddings"):
        response_logps(model, pack(ITEMS))


CHOSEN = [Item((3, 4, 5), (6, 7, 2)), Item((8,), (9, 2)), Item((3, 4), (2,))]
REJECTED = [Item((3, 4, 5), (10, 2)), Item((8,), (11, 12, 13, 2)), Item((3, 4), (14, 2))]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "cohere"])
@torch.no_grad()
def test_pairs_with_shared_prompts_equal_the_oracle(kind: str) -> None:
    model = make_model(kind)
    assert shares_prompts(model, CHOSEN, REJECTED)
    got = response_logps(model, pack_pairs(CHOSEN, REJECTED)).sums
    assert got.tolist() == pytest.approx(
        [oracle(model, item) for item in (*CHOSEN, *REJECTED)], abs=1e-5
    )


THIRD = [Item((3, 4, 5), (15, 16, 17, 18, 2)), Item((8,), (2,)), Item((3, 4), (19,))]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "cohere"])
@torch.no_grad()
def test_two_prompts_in_one_row_equal_the_oracle(kind: str) -> None:
    model = make_model(kind)
    batch = pack_answers((CHOSEN, REJECTED, THIRD), fold=True)
    assert len(batch.input_ids) == 2
    assert response_logps(model, batch).sums.tolist() == pytest.approx(
        [oracle(model, item) for item in (*CHOSEN, *REJECTED, *THIRD)], abs=1e-5
    )


def attribution_oracle(model: Any, item: Item) -> list[float]:
    """Largest logit at the end of one text of its own, embeddings handed in, softcap included."""
    text = torch.tensor([[*item.prompt_ids, *item.response_ids[:-1]]])
    embeddings = model.get_input_embeddings()(text).detach().requires_grad_()
    model(inputs_embeds=embeddings).logits[0, -1].max().backward()
    norms = embeddings.grad[0].abs().sum(-1)
    return [*norms[len(item.prompt_ids) :].tolist(), 0.0]


def batches_of_two() -> list[TokenBatch]:
    """The same six answers unpacked, with shared prompts, and with other answers in between."""
    return [
        pack([*CHOSEN, *REJECTED]),
        pack_pairs(CHOSEN, REJECTED),
        pack_answers((CHOSEN, REJECTED, THIRD), fold=True),
    ]


@pytest.mark.parametrize(
    ("kind", "way"),
    # gemma2's windowed attention does not share prompts
    [*itertools.product(("llama", "gpt2", "opt", "cohere"), (0, 1, 2)), ("gemma2", 0)],
)
def test_attributions_equal_an_oracle_that_takes_one_text_at_a_time(kind: str, way: int) -> None:
    """As shares of an answer: cohere scales and gemma2 caps its logits, a factor per answer."""
    model, batch = make_model(kind), batches_of_two()[way]
    got = attributed_logps(model, batch).attribution
    for row, item in enumerate((*CHOSEN, *REJECTED)):
        expected = torch.tensor(attribution_oracle(model, item))
        found = got[row, : len(expected)]
        if kind not in ("cohere", "gemma2"):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        if len(expected) > 1:
            torch.testing.assert_close(found / found.sum(), expected / expected.sum())
        assert (got[row, len(expected) :] == 0).all()


def test_attribution_leaves_log_probs_and_weight_gradients_alone() -> None:
    grads, sums = [], []
    for measure in (response_logps, attributed_logps):
        model = make_model("llama")
        logps = measure(model, pack_pairs(CHOSEN, REJECTED))
        (logps.sums * torch.arange(1.0, 7.0)).sum().backward()
        grads.append([p.grad for p in model.parameters()])
        sums.append(logps.sums.detach())
    assert torch.equal(*sums)
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_attribution_has_no_gradient_and_needs_none_recorded() -> None:
    model = make_model("llama")
    recorded = attributed_logps(model, pack(ITEMS))
    assert not recorded.attribution.requires_grad
    with torch.no_grad():
        quiet = attributed_logps(model, pack(ITEMS))
    assert not quiet.sums.requires_grad
    assert quiet.sums.dtype == torch.float64
    torch.testing.assert_close(quiet.attribution, recorded.attribution)
    model.get_input_embeddings().requires_grad_(False)
    torch.testing.assert_close(attributed_logps(model, pack(ITEMS)).attribution, quiet.attribution)


def test_attribution_under_gradient_checkpointing_is_the_same() -> None:
    results = []
    for is_checkpointed in (False, True):
        model = make_model("llama").train()
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        logps = attributed_logps(model, pack(ITEMS))
        logps.sums.sum().backward()
        results.append((logps.attribution, *(p.grad for p in model.parameters())))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_that_bypasses_its_embeddings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama")
    monkeypatch.setattr(model, "get_input_embeddings", lambda: torch.nn.Embedding(50, 16))
    with pytest.raises(EngineError, match="no token can be attributed"):
        attributed_logps(model, pack(ITEMS))


def test_gradients_with_shared_prompts_are_the_same() -> None:
    model, grads = make_model("llama"), []
    for batch in (pack([*CHOSEN, *REJECTED]), pack_pairs(CHOSEN, REJECTED)):
        model.zero_grad()
        weights = torch.arange(1.0, 7.0)  # every sequence counts differently
        (response_logps(model, batch).sums * weights).sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_model_with_windowed_attention_does_not_share() -> None:
    assert not shares_prompts(make_model("gemma2"), CHOSEN, REJECTED)


def test_a_model_that_ignores_the_mask_does_not_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers then see each other, which the trial notices."""
    model = make_model("llama")
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda attention_mask=None, **options: forward(**options))
    assert not shares_prompts(model, CHOSEN, REJECTED)


def test_the_trial_leaves_the_models_mode_alone() -> None:
    model = make_model("llama").train()
    shares_prompts(model, CHOSEN, REJECTED)
    assert all(module.training for module in model.modules())
