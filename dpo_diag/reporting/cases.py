"""The worst cases with their text: Cases rows joined with the pairs and answers they name."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dpo_diag.tables import CASES

OTHERS = "other_pairs"
TEXT_COLUMNS = ("prompt", "chosen", "rejected", "response", OTHERS)
_OTHER_LIMIT = 400  # characters of one text of a further pair


def with_text(
    cases: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    *,
    costs: pd.DataFrame | None = None,
    limit: int = 10,
) -> pd.DataFrame:
    """The most severe cases of each kind and model with prompt, answers and costs beside them.

    A ``row_key`` that is a pair_id brings the pair's texts; one that is a prompt_id brings the
    prompt and one answer of the model: its worst by ``costs``, its first without. A case that names
    further pairs in a column ``other_ids`` (separated by spaces) brings their texts in
    ``other_pairs``, each on a line of its own that no text can break.

    Args:
        cases: Cases table.
        tables: any of PreferencePairs, Prompts and Samples, by name.
        costs: SampleCosts rows of one cost, which say what an answer costs.
        limit: cases kept per analyzer, kind and model.

    Returns:
        Cases rows in order of severity with the text columns ``prompt, chosen, rejected,
        response``; empty text where nothing was found.
    """
    keys = ["analyzer", "kind", "model_id"]
    ordered = cases.sort_values(
        [*keys, "severity", "row_key"], ascending=[True, True, True, False, True], kind="stable"
    )
    kept = ordered.groupby(keys, sort=False).head(limit).reset_index(drop=True)
    for name in TEXT_COLUMNS:
        if name not in kept.columns and name != OTHERS:
            kept[name] = ""
    kept = _filled(kept, tables.get("PreferencePairs"), "pair_id", ("prompt", "chosen", "rejected"))
    kept = _filled(kept, tables.get("Prompts"), "prompt_id", ("prompt",))
    kept = _answers(kept, tables.get("Samples"), costs)
    kept = _others(kept, tables.get("PreferencePairs"))
    extra = [name for name in kept.columns if name not in CASES.column_names]
    return kept[[*CASES.column_names, *extra]]


def _filled(
    cases: pd.DataFrame, source: pd.DataFrame | None, key: str, names: tuple[str, ...]
) -> pd.DataFrame:
    """Empty text cells filled from the source's row whose key is the case's row_key."""
    if source is None or source.empty or key not in source.columns:
        return cases
    found = source.drop_duplicates(key).set_index(key)
    filled = cases.copy()
    for name in names:
        new = filled["row_key"].map(found[name]).fillna("").astype("str")
        filled[name] = filled[name].where(filled[name] != "", new)
    return filled


def _others(cases: pd.DataFrame, pairs: pd.DataFrame | None) -> pd.DataFrame:
    """The texts of the pairs that ``other_ids`` names, one block per case."""
    if "other_ids" not in cases.columns:
        return cases
    cases = cases.assign(other_ids=cases["other_ids"].fillna("").astype("str"))
    if pairs is None or pairs.empty:
        return cases
    wanted = {name for names in cases["other_ids"] for name in names.split()}
    known = pairs[pairs["pair_id"].isin(wanted)].drop_duplicates("pair_id")
    texts = {row["pair_id"]: row for row in known.to_dict("records")}
    blocks = [
        "\n".join(_lines(texts[name]) for name in names.split() if name in texts)
        for names in cases["other_ids"]
    ]
    return cases.assign(**{OTHERS: pd.Series(blocks, index=cases.index, dtype="str")})


def _lines(pair: Mapping[str, Any]) -> str:
    lines = [f"pair {pair['pair_id']}"]
    for name in ("prompt", "chosen", "rejected"):
        text = " ".join(str(pair[name]).split())
        cut = f"{text[:_OTHER_LIMIT]}..." if len(text) > _OTHER_LIMIT else text
        lines.append(f"  {name}: {cut}")
    return "\n".join(lines)


def _answers(
    cases: pd.DataFrame, samples: pd.DataFrame | None, costs: pd.DataFrame | None
) -> pd.DataFrame:
    if samples is None or samples.empty or cases.empty:
        return cases
    wanted = samples[samples["prompt_id"].isin(cases["row_key"])]
    if costs is not None:
        keys = ["model_id", "prompt_id", "sample_index"]
        wanted = wanted.merge(costs[[*keys, "value"]], on=keys, how="left")
        wanted = wanted.sort_values(
            ["value", "sample_index"], ascending=[False, True], kind="stable", na_position="last"
        )
    else:
        wanted = wanted.sort_values("sample_index", kind="stable")
    first = wanted.drop_duplicates(["model_id", "prompt_id"])
    found = first.set_index(["model_id", "prompt_id"])["response"]
    filled = cases.copy()
    pairs = zip(filled["model_id"], filled["row_key"], strict=True)
    new = pd.Series([str(found.get(pair, "")) for pair in pairs], index=filled.index, dtype="str")
    filled["response"] = filled["response"].where(filled["response"] != "", new)
    return filled
