"""What a folder's tokenizer files say, read as plain JSON and text; the template is never run here.

Start reading at ``tokenizer_facts``.
"""

from collections.abc import Mapping
from typing import Any

from dpo_diag.run_formats._base import TokenizerFacts
from dpo_diag.run_formats._files import Folder

_CONFIG = "tokenizer_config.json"
_MAP = "special_tokens_map.json"


def tokenizer_facts(folder: Folder) -> TokenizerFacts | None:
    """The facts of the run's tokenizer, or of its last checkpoint's; None without one."""
    for prefix in ("", *_steps(folder)):
        if folder.has(prefix + _CONFIG) or folder.has(prefix + "tokenizer.json"):
            return _read(folder, prefix)
    return None


def _steps(folder: Folder) -> list[str]:
    found = folder.names(f"checkpoint-*/{_CONFIG}", f"global_step*_hf/{_CONFIG}")
    return [name.removesuffix(_CONFIG) for name in found[-1:]]


def _read(folder: Folder, prefix: str) -> TokenizerFacts:
    config, special = folder.json(prefix + _CONFIG), folder.json(prefix + _MAP)
    whole = folder.json(prefix + "tokenizer.json")
    tokens = {
        name: _content(config.get(f"{name}_token")) or _content(special.get(f"{name}_token"))
        for name in ("eos", "bos", "pad")
    }
    return TokenizerFacts(
        source=prefix + (_CONFIG if config else "tokenizer.json"),
        eos=tokens["eos"],
        bos=tokens["bos"],
        pad=tokens["pad"],
        adds_bos=_adds_bos(config, whole, tokens["bos"]),
        vocabulary=_added(config, whole),
        template=_template(folder, prefix, config),
    )


def _content(value: Any) -> str | None:
    """A special token, which is a text or an object with its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _added(config: Mapping[str, Any], whole: Mapping[str, Any]) -> frozenset[str]:
    decoder = config.get("added_tokens_decoder")
    listed = [*decoder.values()] if isinstance(decoder, dict) else []
    more = whole.get("added_tokens")
    listed += more if isinstance(more, list) else []
    return frozenset(token for entry in listed if (token := _content(entry)))


def _adds_bos(config: Mapping[str, Any], whole: Mapping[str, Any], bos: str | None) -> bool | None:
    """Whether plain text gets BOS in front: by its post-processor, else by what the config says."""
    if whole and bos is not None:
        return bos in _single(whole.get("post_processor"))
    said = config.get("add_bos_token")
    return said if isinstance(said, bool) else None


def _single(processor: Any) -> list[str]:
    """The special tokens that a post-processor, or those of a sequence, put around a text."""
    if not isinstance(processor, dict):
        return []
    inner = processor.get("processors")
    steps = [processor, *(inner if isinstance(inner, list) else [])]
    singles = [step.get("single") for step in steps if isinstance(step, dict)]
    pieces = [piece for single in singles if isinstance(single, list) for piece in single]
    named = [piece.get("SpecialToken") for piece in pieces if isinstance(piece, dict)]
    return [str(name.get("id")) for name in named if isinstance(name, dict)]


def _template(folder: Folder, prefix: str, config: Mapping[str, Any]) -> str | None:
    text = folder.text(prefix + "chat_template.jinja")
    if text:
        return text
    given = config.get("chat_template")
    if isinstance(given, list):  # several named ones; transformers takes ``default``
        named = {t.get("name"): t.get("template") for t in given if isinstance(t, dict)}
        given = named.get("default")
    return given if isinstance(given, str) and given else None
