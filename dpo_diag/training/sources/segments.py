"""Which tokens of a response are reasoning and which answer, split at a tag in the text.

Reasoning are the tokens up to and including the one that completes the first tag; a token that
reaches beyond the tag is reasoning, for it cannot be halved. Tokens need not follow words: the
split is the shortest prefix of ids whose text holds the tag. Where decoding changes the text (a
tokenizer that drops or adds spaces), letters are counted instead. Start reading at ``n_reasoning``.
"""

import bisect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dpo_diag.encoded import EncodedResponse
from dpo_diag.errors import DataError
from dpo_diag.training.sources._base import Context, FieldSource
from dpo_diag.training.sources.token_logps import padded

logger = logging.getLogger(__name__)


class Segments(FieldSource):
    """``is_reasoning_chosen`` and ``is_reasoning_rejected``, (B, T), False on padding.

    Raises:
        DataError: the tag is in an answer's text but not in its tokens.
    """

    def __init__(self, context: Context) -> None:
        self._device, tag = context.policy.device, context.variant.segment_tag
        tokenizer = context.policy.encoder.tokenizer
        self._masks: dict[str, list[np.ndarray]] = {}
        for side, answers in (("chosen", context.chosen), ("rejected", context.rejected)):
            rows = zip(context.frame["pair_id"], context.frame[side], answers, strict=True)
            self._masks[side] = [_mask(row, tag, tokenizer) for row in rows]
        both = zip(*self._masks.values(), strict=True)
        n_without = sum(not (one.any() and other.any()) for one, other in both)
        name = "pairs_without_tag"
        self.counts = {name: n_without}
        logger.info(
            "%s: %d of %d pairs lack the tag %r in an answer",
            *(context.variant.name, n_without, len(context), tag),
        )

    def fields(self, index: np.ndarray) -> Mapping[str, Any]:
        """Both sides, padded to the longest response of either."""
        rows = {side: [masks[i] for i in index] for side, masks in self._masks.items()}
        width = max(len(row) for side in rows.values() for row in side)
        return {
            f"is_reasoning_{side}": torch.as_tensor(padded(values, width), device=self._device)
            for side, values in rows.items()
        }


def n_reasoning(text: str, ids: Sequence[int], tag: str, tokenizer: Any) -> int:
    """How many of a response's first tokens are reasoning; 0 without the tag.

    Args:
        text: of the response.
        ids: its tokens, perhaps cut at the end: then all may be reasoning.
        tag: not empty.
        tokenizer: a transformers tokenizer.

    Raises:
        DataError: the text has the tag and the tokens are of another text.
    """
    head, found, _ = text.partition(tag)
    if not found:
        return 0

    def decoded(n: int) -> str:
        # special tokens stay: in some tokenizers the tag is one
        return tokenizer.decode(
            list(ids[:n]), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    lengths = range(len(ids) + 1)
    if tag in decoded(len(ids)):
        return bisect.bisect_left(lengths, True, key=lambda n: tag in decoded(n))
    wanted = _letters(head + found)
    # the sign of a character that is not complete yet is no letter
    given = _letters(decoded(len(ids)).rstrip("\ufffd"))
    if not (given.startswith(wanted) or wanted.startswith(given)):
        raise DataError(
            f"the tag {tag!r} is in the answer's text, but the tokenizer (or its chat template) "
            "gives tokens of another text; take a tag that it keeps."
        )
    return bisect.bisect_left(
        lengths,
        len(wanted),
        hi=len(ids),
        key=lambda n: len(_letters(decoded(n).rstrip("\ufffd"))),
    )


def _mask(row: tuple[str, str, EncodedResponse], tag: str, tokenizer: Any) -> np.ndarray:
    pair_id, text, answer = row
    try:
        n = n_reasoning(text, answer.response_ids, tag, tokenizer)
    except DataError as error:
        raise DataError(f"pair {pair_id}: {error}") from error
    return np.arange(len(answer.response_ids)) < n


def _letters(text: str) -> str:
    return "".join(text.split())


make_source = Segments
