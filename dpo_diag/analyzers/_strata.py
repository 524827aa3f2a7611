"""Matching sets of pairs by stratum, so that a drop is not a different mix; not a plug-in.

A drop is a sum of weighted means over groups of rows (``Contrast``). The drop as it comes is the
matched one plus what the mix alone makes (``mix_contrast``): Kitagawa's decomposition, at the
in-distribution accuracies. Start reading at ``matched_contrast``.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpo_diag.stats.contrast import Group
from dpo_diag.stats.intervals import n_clusters

FEW = 5  # pairs; a stratum with fewer on a side is left out and named
NAMED = 4  # strata left out that a flag names; more are counted


class Contrast(NamedTuple):
    """Groups whose weighted sum is the drop, and what had to be left out, in words."""

    groups: list[tuple[float, np.ndarray]]  # weight, (n,) mask of rows
    flag: str


class Cells(NamedTuple):
    """Strata of two sets: those with enough pairs on both sides, and what is left out, in words."""

    members: list[tuple[np.ndarray, np.ndarray]]  # masks of in-distribution and of shifted rows
    flag: str


def plain_contrast(inside: np.ndarray, shifted: np.ndarray) -> Contrast:
    """In-distribution minus shifted, as the sets come; both are (n,) masks of rows."""
    return Contrast([(1.0, inside), (-1.0, shifted)], "")


def matched_contrast(inside: np.ndarray, shifted: np.ndarray, strata: np.ndarray) -> Contrast:
    """In-distribution minus shifted, both at the shifted set's mix of the strata they share.

    Post-stratification: each stratum present on both sides (at least five rows each) counts by its
    share of the shifted rows; the others are left out on both sides and named or counted.

    Args:
        inside: (n,) mask of in-distribution rows.
        shifted: (n,) mask of shifted rows.
        strata: (n,) stratum of each row, empty where unknown.

    Returns:
        The contrast; no groups when no stratum is on both sides.
    """
    cells = _cells(inside, shifted, strata)
    total = sum(int(own.sum()) for _, own in cells.members)
    groups: list[tuple[float, np.ndarray]] = []
    for here, there in cells.members:
        share = int(there.sum()) / total
        groups += [(share, here), (-share, there)]
    return Contrast(groups, cells.flag)


def mix_contrast(inside: np.ndarray, shifted: np.ndarray, strata: np.ndarray) -> Contrast:
    """What of the drop the mix of strata makes.

    The in-distribution accuracy at its own mix minus at the shifted set's mix, over the strata that
    both have.

    Args:
        inside: (n,) mask of in-distribution rows.
        shifted: (n,) mask of shifted rows.
        strata: (n,) stratum of each row, empty where unknown.

    Returns:
        The contrast; the plain drop over the shared strata is this plus the matched one.

    Source: Kitagawa 1955, with the shifted set's mix as the standard.
    """
    cells = _cells(inside, shifted, strata)
    n_here = sum(int(here.sum()) for here, _ in cells.members)
    n_there = sum(int(there.sum()) for _, there in cells.members)
    groups = [
        (int(here.sum()) / n_here - int(there.sum()) / n_there, here)
        for here, there in cells.members
    ]
    return Contrast(groups, cells.flag)


def _cells(inside: np.ndarray, shifted: np.ndarray, strata: np.ndarray) -> Cells:
    used = inside | shifted
    codes, known = pd.factorize(np.where(used, strata, ""), sort=True)  # texts compare slowly
    both = {
        str(s): (inside & (codes == code), shifted & (codes == code))
        for code, s in enumerate(known)
        if s != ""
    }
    names = list(both)
    sizes = {s: (int(a.sum()), int(b.sum())) for s, (a, b) in both.items()}
    shared = [s for s in names if min(sizes[s]) >= FEW]
    left_out = [s for s in names if s not in shared]
    told = [f"{s} ({sizes[s][0]} in, {sizes[s][1]} shifted)" for s in left_out]
    if len(left_out) > NAMED:
        n_in, n_out = (sum(sizes[s][side] for s in left_out) for side in (0, 1))
        told = [
            f"{len(left_out)} of {len(names)} strata with fewer than {FEW} pairs on a side "
            f"({n_in} in, {n_out} shifted)"
        ]
    unknown = int(np.sum(shifted & (strata == "")))
    if unknown:
        told.append(f"{unknown} shifted pairs without a stratum")
    flag = f"left out: {', '.join(told)}" if told else ""
    return Cells([both[s] for s in shared], flag if shared else "no stratum on both sides")


def averaged(contrasts: Iterable[Contrast]) -> list[Contrast]:
    """Contrasts whose sum is the plain mean of those that have any groups."""
    usable = [contrast for contrast in contrasts if contrast.groups]
    return [
        c._replace(groups=[(weight / len(usable), mask) for weight, mask in c.groups])
        for c in usable
    ]


def merged(contrasts: list[Contrast]) -> list[tuple[float, np.ndarray]]:
    """The groups of several contrasts, those of one and the same set of rows added up."""
    weights: dict[bytes, float] = {}
    masks: dict[bytes, np.ndarray] = {}
    for contrast in contrasts:
        for weight, mask in contrast.groups:
            key = np.packbits(mask).tobytes()
            weights[key] = weights.get(key, 0.0) + weight
            masks[key] = mask
    return [(weights[key], masks[key]) for key in masks]


def n_prompts(
    groups: list[tuple[float, np.ndarray]], values: np.ndarray, clusters: np.ndarray
) -> int:
    """Different prompts behind a weighted sum; one that is in several groups counts once."""
    used = np.zeros(len(values), bool)
    for _, mask in groups:
        used |= mask
    return n_clusters(clusters[used & ~np.isnan(values)])


def n_rows(groups: list[tuple[float, np.ndarray]], values: np.ndarray) -> int:
    """Different rows behind a weighted sum; one that is in several groups counts once."""
    used = np.zeros(len(values), bool)
    for _, mask in groups:
        used |= mask
    return int(np.sum(used & ~np.isnan(values)))


def as_groups(
    groups: list[tuple[float, np.ndarray]], values: np.ndarray, clusters: np.ndarray
) -> list[Group]:
    """Masks turned into the values and prompts they hold; rows without a value are left out."""
    known = ~np.isnan(values)
    return [Group(w, values[mask & known], clusters[mask & known]) for w, mask in groups]
