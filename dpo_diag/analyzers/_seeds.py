"""Do training seeds turn around the same pairs? Agreement of runs of one method; not a plug-in.

Start reading at ``of_seeds``; the statistics are in ``stats.kappa``.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.analyzers import _rows
from dpo_diag.analyzers._base import finding
from dpo_diag.analyzers._timelines import ORDERS, Panel
from dpo_diag.stats.intervals import Interval, clustered_proportion
from dpo_diag.stats.kappa import kappa, pairwise_agreement, repeat_rate

_SHARE = "share of pairs"
MAX_PAIRS_OF_SEEDS = 15


class OfSeeds(NamedTuple):
    """Findings, cases and notes about groups of runs."""

    findings: list[dict[str, Any]]
    cases: list[dict[str, Any]]
    notes: list[str]


class Answers(NamedTuple):
    """What S seeds say of the same pairs, none of them tied anywhere.

    Attributes:
        models: (S,) final models.
        right: (n, S) of 0 and 1.
        rows: (n,) rows of the first seed, with pair_id and prompt_id.
        margins: (n, S) reward margins.
        n_tied: pairs left out because a seed has a tie.
    """

    models: tuple[str, ...]
    right: np.ndarray
    rows: pd.DataFrame
    margins: np.ndarray
    n_tied: int


def of_seeds(
    analyzer: str, panels: Mapping[str, Panel], run_steps: pd.DataFrame | None, *, params: Any
) -> OfSeeds:
    """Agreement at the end of training within each group of at least two runs.

    Args:
        analyzer: its name.
        panels: run id -> panel.
        run_steps: RunSteps, whose ``seed_group`` says which runs belong together; None: none do.
        params: the analyzer's parameters, with ``ci_level`` and ``n_cases``.
    """
    found = OfSeeds([], [], [])
    if run_steps is None:
        return found
    own = run_steps[run_steps["run_id"].isin(list(panels))].drop_duplicates("run_id")
    for group, part in sorted(own.groupby("seed_group", sort=False), key=lambda item: item[0]):
        members = sorted(part["run_id"])
        if len(members) < 2:
            continue
        for order in ORDERS:
            prefix = "" if order == "reward" else f"{order}_"
            answers = answers_of([panels[run] for run in members], order)
            found.findings.extend(_findings(analyzer, str(group), prefix, answers, params))
            if order == "reward":
                found.cases.extend(_cases(analyzer, str(group), answers, params.n_cases))
                found.notes.extend(_note(str(group), answers))
    return found


def answers_of(panels: Sequence[Panel], order: str) -> Answers:
    """The end's orders of several runs on the pairs that they share."""
    shared = pd.Index(panels[0].rows["pair_id"])
    for panel in panels[1:]:
        shared = shared.intersection(panel.rows["pair_id"])
    shared = shared.sort_values()
    places = [pd.Index(panel.rows["pair_id"]).get_indexer(shared) for panel in panels]
    ends = [p.differences[order][at, -1] for p, at in zip(panels, places, strict=True)]
    margins = [p.margins[at, -1] for p, at in zip(panels, places, strict=True)]
    difference = np.column_stack(ends)
    kept = (difference != 0.0).all(axis=1) & ~np.isnan(difference).any(axis=1)
    return Answers(
        tuple(panel.run_id for panel in panels),
        (difference[kept] > 0.0).astype(float),
        panels[0].rows.iloc[places[0][kept]][["pair_id", "prompt_id"]].reset_index(drop=True),
        np.column_stack(margins)[kept],
        int((~kept).sum()),
    )


def _findings(
    analyzer: str, group: str, prefix: str, answers: Answers, params: Any
) -> list[dict[str, Any]]:
    right, level = answers.right, params.ci_level
    codes = pd.factorize(answers.rows["prompt_id"])[0]
    wrong = 1.0 - right
    every, some = wrong.all(axis=1), wrong.any(axis=1)

    def share(values: np.ndarray) -> Interval:
        return clustered_proportion(values.astype(float), codes, level=level)

    numbers: list[tuple[str, str, str, Interval]] = [
        ("seed_agreement", _SHARE, "higher", share(pairwise_agreement(right))),
        ("seed_kappa", "kappa", "higher", kappa(right, codes, level=level)),
        ("reversed_in_every_seed_rate", _SHARE, "lower", share(every)),
        ("reversed_in_some_seed_rate", _SHARE, "lower", share(some & ~every)),
        (
            "reversal_repeat_rate",
            "share of reversals of one seed that another has too",
            "neither",
            repeat_rate(wrong, codes, level=level),
        ),
    ]
    row = _row_maker(analyzer, group, answers.n_tied, params)
    rows = [row(f"{prefix}{name}", unit, better, own) for name, unit, better, own in numbers]
    couples = list(itertools.combinations(range(right.shape[1]), 2))
    if len(couples) > 1:
        for one, other in couples[:MAX_PAIRS_OF_SEEDS]:
            own = kappa(right[:, [one, other]], codes, level=level)
            label = f"seeds={answers.models[one]} and {answers.models[other]}"
            rows.append(row(f"{prefix}seed_kappa", "kappa", "higher", own, part=label))
    return rows


def _row_maker(analyzer: str, group: str, n_tied: int, params: Any) -> Callable[..., dict]:
    tied = f"{n_tied} pairs tied in a seed left out" if n_tied else ""

    def make(
        name: str, unit: str, better: str, interval: Interval, *, part: str = "all"
    ) -> dict[str, Any]:
        is_known = not np.isnan(interval.estimate)
        own = interval if is_known else interval._replace(n=0, n_clusters=0)
        return finding(
            analyzer,
            name,
            group,
            params=params,
            slice=part,
            unit=unit,
            better=better,
            flag=_rows.flags_of(own, tied, "" if is_known else interval.method),
            **_rows.estimate_columns(own, params.ci_level),
        )

    return make


def _cases(analyzer: str, group: str, answers: Answers, n_cases: int) -> list[dict[str, Any]]:
    """Pairs that every seed reverses, by their mean margin."""
    always = np.flatnonzero((answers.right == 0.0).all(axis=1))
    mean = answers.margins[always].mean(axis=1)
    cases = []
    for place in np.argsort(mean, kind="stable")[:n_cases]:
        margins = ", ".join(f"{m:+.3f}" for m in answers.margins[always[place]])
        cases.append(
            {
                "analyzer": analyzer,
                "kind": "always_reversed_pair",
                "model_id": group,
                "row_key": answers.rows["pair_id"].iloc[always[place]],
                "severity": float(-mean[place]),
                "note": f"reversed in all {answers.right.shape[1]} seeds: margins {margins}",
            }
        )
    return cases


def _note(group: str, answers: Answers) -> list[str]:
    """What independent seeds of the same rates would reverse all together."""
    if not len(answers.right):
        return []
    wrong = 1.0 - answers.right
    by_chance = float(np.prod(wrong.mean(axis=0)))
    return [
        f"{group}: {100 * wrong.all(axis=1).mean():.1f} % of the pairs are reversed in all "
        f"{wrong.shape[1]} seeds; seeds that reverse pairs independently, each as many as it does, "
        f"would share {100 * by_chance:.1f} %."
    ]
