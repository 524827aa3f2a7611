"""A stranger's chat template rendered in jinja2's sandbox, in a process of its own with limits.

The sandbox keeps a template from the interpreter; the limits on time and memory keep it from the
machine, which the sandbox does not. ``python -m dpo_diag.run_formats._render`` reads a job as JSON
from standard input and writes its facts to standard output; ``render`` starts it. Start reading at
``render``.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from dpo_diag.run_formats._base import TemplateFacts, TokenizerFacts

SECONDS = 10
_MEMORY = 1 << 30
_LONGEST_TEMPLATE = 1_000_000
_ASKED = [{"role": "user", "content": "What is two and two?"}]
_ANSWER = "Two and two is four."


def render(
    tokenizer: TokenizerFacts, conversations: Sequence[tuple[list[dict[str, str]], str]] = ()
) -> TemplateFacts:
    """What the chat template makes of conversations, or of a made-up one where there are none.

    Args:
        tokenizer: its special tokens and its template, which must be there.
        conversations: turns of the prompt, and the answer.
    """
    of = "the training pairs" if conversations else "a made-up conversation"
    if len(tokenizer.template or "") > _LONGEST_TEMPLATE:
        return TemplateFacts(of=of, error="the chat template is longer than any real one")
    job = {
        "template": tokenizer.template,
        "tokens": {"eos_token": tokenizer.eos or "", "bos_token": tokenizer.bos or ""},
        "conversations": list(conversations) or [(_ASKED, _ANSWER)],
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        facts = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return TemplateFacts(of=of, error=f"the chat template took more than {SECONDS} seconds")
    except ValueError:
        return TemplateFacts(of=of, error="the chat template could not be rendered within limits")
    return TemplateFacts(of=of, **facts)


def facts_of(job: dict[str, Any]) -> dict[str, Any]:
    """The facts of a job, in this process; call ``render``, which has the limits."""
    from jinja2 import TemplateError

    try:
        template = _environment().from_string(job["template"])
        texts = [_texts(template, job["tokens"], *c) for c in job["conversations"]]
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        return {"error": f"the chat template raises {type(error).__name__}: {error}"[:300]}
    except (AttributeError, RecursionError, MemoryError) as error:
        return {"error": f"the chat template raises {type(error).__name__}"}
    eos, bos = job["tokens"]["eos_token"], job["tokens"]["bos_token"]
    strange = [(p, w) for p, w, _ in texts if not w.startswith(p)]
    tails = [w.rpartition(a)[2] for _, w, a in texts]
    return {
        "n": len(texts),
        "n_not_prefix": len(strange),
        "n_without_eos": sum(not eos or eos not in tail for tail in tails),
        "n_double_bos": sum(bool(bos) and w.startswith(bos + bos) for _, w, _ in texts),
        "begins_with_bos": bool(bos) and all(w.startswith(bos) for _, w, _ in texts),
        "tail": tails[0][:80],
        "example": _lost(*strange[0]) if strange else "",
    }


def _texts(
    template: Any, tokens: dict[str, str], turns: list[dict[str, str]], answer: str
) -> tuple[str, str, str]:
    prompt = template.render(messages=turns, add_generation_prompt=True, **tokens)
    whole = [*turns, {"role": "assistant", "content": answer}]
    return prompt, template.render(messages=whole, add_generation_prompt=False, **tokens), answer


def _environment() -> Any:
    """As transformers' own: an immutable sandbox with its helpers."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: Any, indent: int | None = None, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    def now(pattern: str) -> str:
        return "1 January 2026"  # templates print today's date, which no fact may depend on

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    made.filters["tojson"] = as_json
    made.globals |= {"raise_exception": refuse, "strftime_now": now}
    return made


def _lost(prompt: str, whole: str) -> str:
    """What the prompt ends with from where it leaves the whole conversation."""
    same = next(
        (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b),
        min(len(prompt), len(whole)),
    )
    return prompt[same:][:80]


def _limit() -> None:
    """Cap this process's memory and time; a system without such caps has the caller's timeout."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


if __name__ == "__main__":
    job = json.loads(sys.stdin.read())
    _limit()
    sys.stdout.write(json.dumps(facts_of(job)))
