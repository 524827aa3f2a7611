"""A stranger's chat template: what it makes of conversations, and that it can do nothing else."""

import json
from pathlib import Path

import pytest

from dpo_diag.run_formats._base import TokenizerFacts
from dpo_diag.run_formats._render import facts_of, render
from tests.run_formats.folders import CHATML


def tokens(template: str) -> TokenizerFacts:
    return TokenizerFacts("t", eos="<|im_end|>", bos="<s>", template=template)


def facts(template: str) -> dict:
    turns = [{"role": "user", "content": "q"}]
    names = {"eos_token": "<|im_end|>", "bos_token": "<s>"}
    return facts_of({"template": template, "tokens": names, "conversations": [(turns, "a")]})


def test_chatml_is_a_prefix_and_ends_with_eos() -> None:
    """By hand: prompt <|im_start|>user, q, <|im_end|>, <|im_start|>assistant; then a<|im_end|>."""
    found = facts(CHATML)
    assert (found["n"], found["n_not_prefix"], found["n_without_eos"]) == (1, 0, 0)
    assert found["tail"] == "<|im_end|>\n"
    assert not found["begins_with_bos"] and found["n_double_bos"] == 0


def test_generation_prompt_that_a_turn_lacks_is_shown() -> None:
    """The prompt's header ends with <think>, the turn's does not: that is what is lost."""
    found = facts(CHATML.replace("assistant\n{%", "assistant\n<think>{%"))
    assert found["n_not_prefix"] == 1 and found["example"] == "<think>"


def test_bos_twice_is_counted() -> None:
    assert facts("{{ bos_token }}" + CHATML)["begins_with_bos"]
    assert facts("{{ bos_token }}" + CHATML)["n_double_bos"] == 0
    assert facts("{{ bos_token }}{{ bos_token }}" + CHATML)["n_double_bos"] == 1


def test_answer_without_eos_is_counted() -> None:
    found = facts("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    assert found["n_without_eos"] == 1


def test_helpers_of_transformers_are_there() -> None:
    template = (
        "{% for m in messages %}{{ strftime_now('%Y') }}{{ m | tojson }}{% break %}{% endfor %}"
    )
    assert "error" not in facts(template)
    assert "TemplateError: no" in facts("{{ raise_exception('no') }}")["error"]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages.append(1) }}",
        "{% for %}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content + 1 }}",
    ],
)
def test_escape_from_the_sandbox_is_an_error(template: str) -> None:
    assert "raises" in facts(template)["error"]


def test_template_that_takes_all_memory_ends_in_a_sentence() -> None:
    made = render(tokens("{{ 'a' * 10000000000 }}"))
    assert made.error and made.n == 0


@pytest.mark.slow
def test_template_without_end_ends_in_a_sentence() -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    assert render(tokens(loop)).error


def test_process_of_its_own_gives_the_same_facts() -> None:
    made = render(tokens(CHATML))
    assert (made.n, made.n_not_prefix, made.n_without_eos) == (1, 0, 0)
    assert made.of == "a made-up conversation" and made.error == ""


def test_real_conversations_are_rendered_all(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}]
    made = render(tokens(CHATML), [(turns, f"answer {k}") for k in range(7)])
    assert made.n == 7 and made.of == "the training pairs"
    assert json.dumps(made.tail)
