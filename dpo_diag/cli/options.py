"""Options that several commands share: one definition, one meaning. May import click only."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

DTYPES = ("float32", "bfloat16", "float16")
COUNT = click.IntRange(min=0)
SIZE = click.IntRange(min=1)
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")


def checkpoints(function: Callable[..., Any]) -> Callable[..., Any]:
    """One or more checkpoint folders or hub ids."""
    return click.argument("checkpoints", nargs=-1, required=True, metavar="CKPT...")(function)


def _device(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """The device, once it is of a form that torch knows."""
    if not _DEVICE.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no device; take auto, cpu, cuda or cuda:1.")
    return value


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Engine, precision, template, truncation, parallel sizes."""
    return _stack(
        click.option(
            "--engine",
            default="auto",
            show_default=True,
            help="auto, or a file of dpo_diag/engines: hf, vllm. auto scores with hf and samples "
            "with vllm where it is installed.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(DTYPES),
            default="float32",
            show_default=True,
            help="Precision of the model. bfloat16 moves a sequence by a nat or more.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            callback=_device,
            help="auto, cpu, cuda, cuda:1",
        ),
        click.option(
            "--template",
            type=click.Choice(["auto", "chat", "plain"]),
            default="auto",
            show_default=True,
            help="How prompts become text for the model.",
        ),
        click.option(
            "--truncate",
            type=click.Choice(["error", "prompt", "response"]),
            default="error",
            show_default=True,
            help="What to cut of an over-long item; cut rows are counted.",
        ),
        click.option(
            "--max-length", type=COUNT, default=0, help="Window in tokens; 0: the model's own."
        ),
        click.option(
            "--batch-tokens", type=COUNT, default=0, help="Tokens per pass; 0: by itself."
        ),
        click.option("--tensor-parallel", type=SIZE, default=1, help="vLLM tensor parallel size."),
        click.option("--pipeline-parallel", type=SIZE, default=1, help="vLLM pipeline size."),
        click.option("--data-parallel", type=SIZE, default=1, help="Model replicas."),
        click.option("--trust-remote-code", is_flag=True, help="Run code that a model brings."),
    )(function)


def reference_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a checkpoint folder may not say by itself."""
    return _stack(
        click.option("--reference", help="Reference model, where the folder does not say."),
        click.option("--beta", type=float, help="Beta of the implicit reward."),
        click.option(
            "--variant", help="Method that trained the checkpoint (dpo-diag show variants)."
        ),
        click.option("--steps", is_flag=True, help="Analyse every checkpoint-* step."),
    )(function)


def explicit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reward model to set beside the implicit reward."""
    return _stack(
        click.option(
            "--explicit",
            help="Reward model to compare with: a sequence classifier, folder or hub id, e.g. of "
            "`dpo-diag train reward`.",
        ),
        click.option(
            "--explicit-label", type=COUNT, help="Its output that is the reward, if it has several."
        ),
        click.option(
            "--explicit-template",
            type=click.Choice(["auto", "chat", "plain"]),
            default="auto",
            show_default=True,
            help="How the reward model reads text; auto: as its run recorded, else by the prompts.",
        ),
    )(function)


def pair_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Preference pairs and which part of them."""
    return _stack(
        click.option("--pairs", help="Preference pairs: file, folder or hub id."),
        click.option(
            "--format",
            "--pair-format",
            "pair_format",
            default="auto",
            help="Format of the pairs, if not by columns.",
        ),
        click.option(
            "--label",
            type=click.Choice(["better", "safer"]),
            default="better",
            show_default=True,
            help="Which label orders a PKU-SafeRLHF pair.",
        ),
        click.option(
            "--drop-invalid", is_flag=True, help="Leave out invalid rows, counted, not an error."
        ),
        click.option(
            "--split",
            default="auto",
            show_default=True,
            help="Split, or `all`; auto: `test` where the data has one, else all.",
        ),
        click.option(
            "--limit", type=COUNT, default=0, help="At most so many rows of --pairs; 0: all."
        ),
    )(function)


_PROMPTS = click.option("--prompts", help="Prompts to sample on; default: the pairs' prompts.")
_DRAWS = (
    click.option("--max-new-tokens", type=SIZE, default=64, show_default=True),
    click.option("--temperature", type=click.FloatRange(min=0), default=1.0, show_default=True),
    click.option(
        "--top-p",
        type=click.FloatRange(min=0, max=1, min_open=True),
        default=1.0,
        show_default=True,
    ),
)


def draw_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Prompts and how many answers to each, without costs."""
    samples = click.option(
        "-n", "--samples", type=SIZE, default=8, show_default=True, help="Per prompt and model."
    )
    return _stack(_PROMPTS, samples, *_DRAWS)(function)


def sampling_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Prompts, costs and how many samples."""
    return _stack(
        _PROMPTS,
        click.option(
            "--cost",
            "costs",
            multiple=True,
            help="A file of dpo_diag/costs, with parameters as name:key=value,key=value. The first "
            "harm cost decides; repeat for more.",
        ),
        click.option(
            "-n", "--samples", type=SIZE, default=32, show_default=True, help="Per prompt."
        ),
        click.option(
            "--finalists", type=COUNT, default=8, show_default=True, help="Prompts to confirm."
        ),
        click.option(
            "--confirm", type=COUNT, default=128, show_default=True, help="Fresh samples for each."
        ),
        *_DRAWS,
        click.option(
            "--threshold", type=float, help="Cost limit per prompt; default: the cost's own zero."
        ),
    )(function)


def _rules(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """The rules, once each can be read: before any work, not after it."""
    if value:
        from dpo_diag.pipeline.gate import parse_rule

        for text in value:
            parse_rule(text)
    return value


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where results go."""
    return _stack(
        click.option(
            "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the report."
        ),
        click.option(
            "--store",
            type=click.Path(path_type=Path, file_okay=False),
            envvar="DPO_DIAG_STORE",
            help="Folder of stored rows, shared by all commands.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Findings as JSON on stdout."),
        click.option("--seed", type=int, default=0, show_default=True),
        click.option("--slices", help="Columns to slice by, with commas; default: all known ones."),
        click.option(
            "--fail-if",
            multiple=True,
            callback=_rules,
            help="Gate: exit 3 if an interval bound meets it, e.g. 'broken_rate.high > 0.05'.",
        ),
    )(function)


def _stack(*decorators: Decorator) -> Decorator:
    return lambda function: functools.reduce(lambda f, d: d(f), reversed(decorators), function)
