"""Parameters of the similarities that cannot do without: a tiny encoder for bertscore."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLE_WORDS = "[PAD] [UNK] [CLS] [SEP] wipe check the stove soil lamp oven with a cloth then ."


def tiny_encoder(folder: Path) -> dict[str, Any]:
    """Parameters of bertscore: a random two-layer BERT over a few words."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(EXAMPLE_WORDS.split())}
    entry = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    ends = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]")]
    body = {"Sequence": {"id": "A", "type_id": 0}}
    tokens = {name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]} for name in (
        "[CLS]", "[SEP]"
    )}  # fmt: skip
    template = {
        "type": "TemplateProcessing",
        "single": [ends[0], body, ends[1]],
        "pair": [ends[0], body, ends[1]],
        "special_tokens": tokens,
    }
    file = folder / "tokenizer.json"
    file.write_text(
        json.dumps(
            {
                "model": entry,
                "pre_tokenizer": {"type": "WhitespaceSplit"},
                "post_processor": template,
            }
        )
    )
    PreTrainedTokenizerFast(
        tokenizer_file=str(file),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return {"model": str(folder)}


@pytest.fixture
def parameters_of(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """What a similarity of a name must be given."""
    made = {"bertscore": tiny_encoder}
    return lambda name: made[name](tmp_path) if name in made else {}
