"""Gradients of margins against a loop of plain autograd in float64, one pair at a time."""

from typing import Any

import numpy as np
import pytest
import torch

from dpo_diag.encoded import EncodedResponse
from dpo_diag.errors import RecipeError
from dpo_diag.training import gradient_features
from dpo_diag.training.gradient_features import MarginGradients, Pair
from dpo_diag.training.gradient_vocabulary import VocabularyGradients
from tests.training.test_forward import SMALL, make_model


def answer(prompt: tuple[int, ...], response: tuple[int, ...]) -> EncodedResponse:
    return EncodedResponse(prompt, response)


# 0 is the padding token of most of the models: its embedding takes no gradient
PAIRS: list[Pair] = [
    (answer((3, 4, 5), (6, 7, 2)), answer((3, 4, 5), (10, 2))),
    (answer((8,), (9, 0, 2)), answer((8,), (11, 12, 13, 2))),
    (answer((3, 4), (2,)), answer((3, 4), (14, 2))),
    (answer((20, 21, 22, 23), (6, 6, 2)), answer((20, 21, 22, 23), (24, 2))),
]


def oracle_logp(model: Any, item: EncodedResponse) -> torch.Tensor:
    """Summed log-prob from one pass over the whole sequence, in the model's own dtype."""
    ids = torch.tensor([[*item.prompt_ids, *item.response_ids]])
    logp = torch.log_softmax(model(input_ids=ids).logits[0], -1)
    places = range(len(item.prompt_ids), ids.shape[1])
    return torch.stack([logp[place - 1, ids[0, place]] for place in places]).sum()


def oracle(model: Any, pair: Pair) -> np.ndarray:
    """The margin's gradient in all trained parameters, flat, float64."""
    trained = [p for p in model.parameters() if p.requires_grad]
    margin = oracle_logp(model, pair[0]) - oracle_logp(model, pair[1])
    parts = torch.autograd.grad(margin, trained, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts]).double().numpy()


def model_of(kind: str) -> Any:
    if kind != "tied llama":
        return make_model(kind)
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = CONFIG_MAPPING["llama"](**SMALL, tie_word_embeddings=True)
        return AutoModelForCausalLM.from_config(config).double().eval()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """To 1e-5 of the largest: log-probs are taken in float32, rows kept in it."""
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["llama", "tied llama", "gpt2", "gemma2", "cohere", "opt"])
def test_gradients_equal_those_of_a_plain_loop(kind: str) -> None:
    model = model_of(kind)
    expected = [oracle(model, pair) for pair in PAIRS]
    gradients = MarginGradients(model, PAIRS)
    assert gradients.n_parameters == sum(p.numel() for p in model.parameters())
    for pair, row in zip(PAIRS, expected, strict=True):
        close(np.concatenate(gradients.flat([pair])), row)


@pytest.mark.parametrize(
    ("kind", "n_buffers"), [("llama", 2), ("tied llama", 1), ("gpt2", 1), ("gemma2", 0)]
)
def test_plain_embeddings_and_heads_are_done_by_hand(kind: str, n_buffers: int) -> None:
    """And scaled ones are not; a tied weight has one buffer, so it counts once."""
    vocabulary = MarginGradients(model_of(kind), PAIRS)._vocabulary
    assert (0 if vocabulary is None else len(vocabulary.buffers)) == n_buffers


def test_a_shortcut_that_gives_other_numbers_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = VocabularyGradients.put

    def wrong(self: Any, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        self.buffers[0][5] += 1.0

    monkeypatch.setattr(VocabularyGradients, "put", wrong)
    model = model_of("tied llama")
    expected = oracle(model, PAIRS[0])
    gradients = MarginGradients(model, PAIRS)
    assert gradients._vocabulary is None
    close(np.concatenate(gradients.flat(PAIRS[:1])), expected)


@pytest.mark.parametrize("n_logits", [1, 250, 1 << 23])
@pytest.mark.parametrize("kind", ["tied llama", "llama", "gemma2"])
def test_mean_of_a_batch_is_the_mean_of_its_pairs(
    monkeypatch: pytest.MonkeyPatch, kind: str, n_logits: int
) -> None:
    """However many pass at once: one, two (250 logits are 5 positions of 50), all."""
    monkeypatch.setattr(gradient_features, "MAX_LOGITS", n_logits)
    model = model_of(kind)
    expected = np.mean([oracle(model, pair) for pair in PAIRS], axis=0)
    gradients = MarginGradients(model, PAIRS)
    close(np.concatenate([g.reshape(-1).numpy() for g in gradients.mean(PAIRS)]), expected)


def test_neighbours_in_a_batch_and_calls_before_do_not_show() -> None:
    gradients = MarginGradients(model_of("tied llama").float(), PAIRS)
    first = np.concatenate(gradients.flat(PAIRS[:1]))
    gradients.mean(PAIRS)
    assert np.array_equal(np.concatenate(gradients.flat(PAIRS[:1])), first)


def test_dropout_is_off() -> None:
    """gpt2 has dropout; a training mode left on would draw another mask in every call."""
    gradients = MarginGradients(make_model("gpt2").float().train(), PAIRS)
    rows = [np.concatenate(gradients.flat(PAIRS[:1])) for _ in range(2)]
    assert np.array_equal(*rows)


def test_swapped_answers_give_the_opposite_gradient_and_equal_ones_none() -> None:
    gradients = MarginGradients(model_of("tied llama"), PAIRS)
    chosen, rejected = PAIRS[0]
    there = np.concatenate(gradients.flat([(chosen, rejected)]))
    back = np.concatenate(gradients.flat([(rejected, chosen)]))
    close(back, -there)
    none = np.concatenate(gradients.flat([(chosen, chosen)]))
    assert np.abs(none).max() < 1e-5 * np.abs(there).max()


def test_only_trained_parameters_are_looked_at() -> None:
    model = model_of("llama")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("q_proj" in name)
    gradients = MarginGradients(model, PAIRS)
    assert len(gradients.names) == 2 and all("q_proj" in name for name in gradients.names)
    close(np.concatenate(gradients.flat(PAIRS[:1])), oracle(model, PAIRS[0]))


def test_nothing_to_differentiate_is_refused() -> None:
    model = model_of("llama").requires_grad_(False)
    with pytest.raises(RecipeError, match="no parameter requires a gradient"):
        MarginGradients(model, PAIRS)
    with pytest.raises(RecipeError, match="no pair is given"):
        MarginGradients(model_of("llama"), [])
