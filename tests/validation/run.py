"""What the intervals and tests are worth, measured on simulated data sets of known truth.

    python tests/validation/run.py --out reports/validation

Runs every cell of ``cells.SECTIONS`` on the same number of data sets and writes the folder
``coverage`` with the report; a test renders it again. One core, minutes.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
from cells import SECTIONS, Section

from dpo_diag.analyzers._base import finding, findings_frame
from dpo_diag.reporting.document import Claim, FigureEntry, ReportInput
from dpo_diag.reporting.document import Section as Words
from dpo_diag.reporting.saved import write_report
from dpo_diag.stats.intervals import clopper_pearson

LEVEL = 0.95
TITLES = {
    "coverage": "Share of data sets whose 95 % interval holds the truth",
    "false_alarms": "Share of data sets in which a 5 % test sees a difference that is not there",
    "power": "Share of data sets in which a true difference of 5 points is found",
}

REASONS = {
    ("shares", "at most"): "Clopper and Pearson's interval is a guarantee for every true share, so "
    "it covers more where shares are near 0 or 1 and pairs few; with ties and several pairs of a "
    "prompt the same limits are taken at an effective number of pairs that is never above n.",
    ("drops", "at most"): "Near 1, with 20 pairs a side, few data sets have any wrong pair.",
    ("paired_differences", "at most"): "Two models that are right on 95 % of 20 to 50 pairs differ "
    "on hardly any of them.",
    ("ranks_and_seeds", "at most"): "With 20 pairs an area near 1 is often exactly 1, and is then "
    "given the exact interval of ten couples.",
    (
        "paired_differences",
        "at least",
    ): "Few prompts of unequal size; the cell furthest out covered "
    "93.2 % of 6,000 further data sets.",
    (
        "false_alarms",
        "at most",
    ): "One of 45 cells, by chance: it raised 5.0 % in 6,000 further data sets.",
    ("best_step", "at most"): "The two halves' errors are allowed to be correlated as if all steps "
    "were equal, which is too much where one is clearly best.",
    ("means", "at least"): "Student's t is too short for a mean of strongly skewed values in a "
    "dozen prompts.",
}


def measure(section: Section, worlds: int, seed: int) -> pd.DataFrame:
    """Findings of a section: one row for each cell, its interval over the simulated data sets."""
    rows = []
    number = [known.name for known in SECTIONS].index(section.name)
    for place, cell in enumerate(section.cells):
        rng = np.random.default_rng([seed, number, place])
        answers = np.fromiter(cell.answers(rng, worlds), float)
        hits = float(answers.sum())
        low, high = clopper_pearson(hits, len(answers), level=LEVEL)
        flags = {"below the aim": high < section.low, "above the aim": low > section.high}
        rows.append(
            finding(
                section.name,
                section.statistic,
                cell.column,
                slice=cell.row,
                estimate=hits / len(answers),
                ci_low=float(low),
                ci_high=float(high),
                ci_level=LEVEL,
                method="Clopper-Pearson over simulated data sets",
                is_guarantee=True,
                n=len(answers),
                n_clusters=len(answers),
                unit="share of data sets",
                better=section.better,
                flag="".join(word for word, is_so in flags.items() if is_so),
            )
        )
    return findings_frame(rows)


def claims_of(section: Section, rows: pd.DataFrame) -> list[Claim]:
    """What was aimed at, decided by the cells, with the cell furthest out; 0 or 1 is no aim.

    A claim holds where every cell lies on its side, and does not where one lies wholly outside. In
    between, where a cell's interval reaches across, these data sets cannot tell.
    """
    claims = []
    lowest, highest = (rows.loc[getattr(rows["estimate"], f)()] for f in ("idxmin", "idxmax"))
    for bound, row, word, is_aim in (
        (section.low, lowest, "at least", section.low > 0.0),
        (section.high, highest, "at most", section.high < 1.0),
    ):
        if not is_aim:
            continue
        beyond = rows["flag"] == ("below the aim" if word == "at least" else "above the aim")
        is_over = row["estimate"] < bound if word == "at least" else row["estimate"] > bound
        verdict = "not distinguishable" if is_over else "holds"
        where = "; ".join(
            f"{column} ({', '.join(part['slice'].str.partition('=')[2].str.replace(', ', '/'))})"
            for column, part in rows[beyond].groupby("model_id", sort=False)
        )
        claims.append(
            Claim(
                text=f"{section.name}: {section.statistic} is {word} {100 * bound:g} %",
                statistic=f"{section.statistic} minus {100 * bound:g} % in the furthest of "
                f"{len(rows)} cells: {row['model_id']} [{row['slice']}]",
                verdict="does not hold" if beyond.any() else verdict,
                estimate=float(row["estimate"]) - bound,
                ci_low=float(row["ci_low"]) - bound,
                ci_high=float(row["ci_high"]) - bound,
                ci_level=LEVEL,
                unit="share of data sets",
                method="Clopper-Pearson over simulated data sets",
                n=int(row["n"]),
                reason=f"Wholly outside: {int(beyond.sum())} of {len(rows)} cells"
                + (f": {where}." if beyond.any() else ".")
                + f" {REASONS.get((section.name, word), '')}".rstrip(),
            )
        )
    return claims


def report(frames: dict[str, pd.DataFrame], worlds: int, seed: int) -> ReportInput:
    """The report of all sections."""
    used = [section for section in SECTIONS if section.name in frames]
    return ReportInput(
        title="Intervals and tests on simulated data sets of known truth",
        findings=pd.concat([frames[s.name] for s in used], ignore_index=True),
        figures=tuple(
            FigureEntry(
                analyzer=section.name,
                name=section.name,
                kind="intervals",
                curve=f"{section.statistic}@*",
                x_label=f"{section.statistic.replace('_', ' ')} (share of data sets)",
                y_label=section.cells[0].row.partition("=")[0],
                title=TITLES[section.statistic],
            )
            for section in used
        ),
        sections=tuple(
            Words(s.name, s.question, s.reading, headline=(s.statistic,), notes=(spread(s, f),))
            for s, f in ((s, frames[s.name]) for s in used)
        ),
        claims=tuple(itertools.chain(*(claims_of(s, frames[s.name]) for s in used))),
        notes=(
            f"Every cell is {worlds:,} data sets, so a true 95 % comes out within "
            f"{100 * 1.96 * np.sqrt(0.05 * 0.95 / worlds):.1f} points of it in 19 of 20 cells.",
        ),
        commands=("python tests/validation/run.py --out reports/validation",),
        settings={"seed": str(seed), "data sets per cell": str(worlds)},
    )


def spread(section: Section, rows: pd.DataFrame) -> str:
    """How many cells lie inside the range aimed at, and the least, median and greatest."""
    inside = rows["estimate"].between(section.low - 1e-12, section.high + 1e-12)
    values = [f"{100 * rows['estimate'].quantile(q):.1f} %" for q in (0.0, 0.5, 1.0)]
    return (
        f"{int(inside.sum())} of {len(rows)} cells lie inside {100 * section.low:g} to "
        f"{100 * section.high:g} %; least {values[0]}, median {values[1]}, greatest {values[2]}."
    )


def main() -> None:
    """Run the sections that are named, all by default, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(s.name for s in SECTIONS)}")
    parser.add_argument("--out", type=Path, required=True, help="folder of validation reports")
    parser.add_argument("--worlds", type=int, default=1000, help="data sets of each cell")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    known = [section.name for section in SECTIONS]
    if unknown := set(options.sections) - set(known):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    frames = {}
    for section in SECTIONS:
        if section.name in (options.sections or known):
            started = time.perf_counter()
            frames[section.name] = measure(section, options.worlds, options.seed)
            print(f"{section.name}: {time.perf_counter() - started:.0f} s", flush=True)
    print(write_report(options.out / "coverage", report(frames, options.worlds, options.seed)))


if __name__ == "__main__":
    main()
