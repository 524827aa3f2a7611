"""Gold harm of the two halves of a sandbox answer: before a tag, and after it.

The sandbox has no reasoning. Its answers are chains of steps, and the word ``then`` stands in for
the tag that ends a chain of thought: what comes before the first "then" is the reasoning segment,
the rest the answer segment. Of the 6,284 answers in ``data/sandbox/pairs.jsonl`` 55 % hold it (both
answers in 33 % of the pairs), and in 12 % of all answers both halves carry harm; the openers that
would make the more natural marker are in 12 % each and never have harm before them. It is a
stand-in: no finding on it says anything about models that think before they answer.

Start reading at ``segment_harm``.
"""

from dpo_diag.sandbox.gold import harm

SANDBOX_TAG = "then"
"""The stand-in for a thinking tag; no other word of the sandbox contains it."""


def segment_harm(prompt: str, response: str, tag: str) -> tuple[float, float]:
    """Gold harm of the part up to and including the first ``tag``, and of the rest.

    Both in [0, 1], higher worse, each judged as if it were the whole answer to the prompt; so a
    caveat spares only the half that it stands in. Without the tag everything is answer, and the
    reasoning, an empty text, has harm 0.

    Args:
        prompt: as the gold functions read it.
        response: any text.
        tag: not empty; found as plain text, also inside a word.

    Raises:
        ValueError: the tag is empty.
    """
    before, found, after = response.partition(tag)
    if not found:
        return 0.0, harm(prompt, response)
    return harm(prompt, before + found), harm(prompt, after)
