"""Weights edited so that known pairs turn round: every one is found, no other, on both engines.

The edit moves the base model's own weights until six test pairs have an implicit reward that is
against their label by nats, and the fourteen others one that is for it. What is true of the edited
weights is read token by token from a plain forward pass, without any engine.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from dpo_diag import tables
from dpo_diag.encoded import EncodedResponse
from dpo_diag.pairs import read_pairs
from dpo_diag.text import TextEncoder, encode_pairs, load_tokenizer

N_PLANTED = 6
CLEAR = 2.0  # nats by which every margin is what it was planned to be; engines differ by 1e-4


class Planted(NamedTuple):
    """The edited checkpoint and the truth about its 20 pairs.

    Attributes:
        folder: the checkpoint.
        reversed_ids: pairs that were turned round.
        broken_ids: pairs that the base ranks right and the edited model wrong.
        margins: pair_id -> log-ratio margin, nats.
    """

    folder: Path
    reversed_ids: set[str]
    broken_ids: set[str]
    margins: dict[str, float]


def log_probs(model: torch.nn.Module, answers: list[EncodedResponse]) -> torch.Tensor:
    """Summed log-prob of each answer, one sequence at a time, (N,)."""
    found = []
    for answer in answers:
        ids = torch.tensor([[*answer.prompt_ids, *answer.response_ids]])
        logp = model(ids).logits[0, :-1].log_softmax(-1)
        own = logp.gather(1, ids[0, 1:, None])[:, 0]
        found.append(own[len(answer.prompt_ids) - 1 :].sum())
    return torch.stack(found)


def difference(model: torch.nn.Module, pairs: object) -> torch.Tensor:
    """Log-prob of chosen minus rejected, (N,)."""
    return log_probs(model, pairs.chosen) - log_probs(model, pairs.rejected)


@pytest.fixture(scope="module")
def planted(world, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    frame = read_pairs(world.pairs, split="test").frame
    encoder = TextEncoder(load_tokenizer(world.base), template="plain", max_length=128)
    pairs = encode_pairs(frame, encoder)
    model = AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float32)
    with torch.no_grad():
        before = difference(model, pairs)
    wanted = torch.ones(len(frame))
    # of both kinds: pairs that the base ranks right, which are to be broken, and wrong
    order = torch.argsort(before.abs())
    right, wrong = (order[(before[order] > 0) == is_right] for is_right in (True, False))
    planned = torch.cat([right[: N_PLANTED // 2], wrong[: N_PLANTED // 2]])
    wanted[planned] = -1.0
    needed = 2 * CLEAR + torch.where(wanted < 0, before.clamp(min=0), 0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(120):
        margin = difference(model, pairs) - before
        if (wanted * margin > needed).all():
            break
        optimizer.zero_grad()
        torch.nn.functional.softplus(needed + CLEAR - wanted * margin).sum().backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("planted") / "edited"
    shutil.copytree(world.base, folder)
    model.save_pretrained(folder)
    with torch.no_grad():
        after = difference(AutoModelForCausalLM.from_pretrained(folder), pairs)
    assert ((after - before) * wanted).min() > CLEAR
    assert min(after.abs().min(), before.abs().min()) > 0.01  # no order hangs on rounding
    ids = frame["pair_id"].to_numpy()
    broken = ((before > 0) & (after < 0)).numpy()
    assert broken.sum() == N_PLANTED // 2
    margins = dict(zip(ids, (after - before).tolist(), strict=True))
    return Planted(folder, set(ids[planned.numpy()]), set(ids[broken]), margins)


@pytest.mark.parametrize("engine", ["hf", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_every_planted_reversal_is_found_and_no_other(
    world, planted: Planted, cli: Callable, tmp_path: Path, engine: str
) -> None:
    out = tmp_path / "out"
    ended = cli(
        *("reversals", planted.folder, "--reference", world.base, "--pairs", world.pairs),
        *("--engine", engine, "--store", tmp_path / "store", "--out", out, "--beta", "0.1"),
    )
    assert ended.status == 0, ended.err
    rewards = pd.read_parquet(out / "rows" / "ImplicitRewards.parquet")
    assert set(rewards.loc[rewards["margin"] < 0.0, "pair_id"]) == planted.reversed_ids
    nats = rewards.set_index("pair_id")["margin"] / 0.1
    assert nats.to_dict() == pytest.approx(planted.margins, abs=5e-3)
    cases = tables.read_table(out / "cases.csv", tables.CASES)
    shown = cases[cases["analyzer"] == "reversals"].groupby("kind")["row_key"].agg(set)
    assert shown["reversed_pair"] == planted.reversed_ids
    assert shown["broken_pair"] == planted.broken_ids
    findings = tables.read_table(out / "findings.csv", tables.FINDINGS)
    whole = findings[(findings["slice"] == "all") & (findings["baseline_id"] == "")]
    found = whole[whole["analyzer"] == "reversals"].set_index("statistic")["estimate"]
    assert found["reversal_rate"] == pytest.approx(N_PLANTED / len(planted.margins))
    assert found["broken_rate"] == pytest.approx(len(planted.broken_ids) / len(planted.margins))
