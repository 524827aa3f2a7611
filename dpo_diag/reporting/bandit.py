"""The bandit in one figure and one page, from the table of its optima.

The same table gives the same bytes. Start reading at ``figure`` and ``page``; the table is made by
``dpo_diag.pipeline.bandit``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dpo_diag.reporting import drawing
from dpo_diag.sandbox import bandit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MASSES = tuple(f"mass_{name}" for name in bandit.RESPONSES)
LABELS = {
    "base": "reference",
    "dpo": "DPO",
    "ipo": "IPO",
    "dpop": "DPO-Positive",
    "auxdpo": "AuxDPO",
    "kl_optimum": "KL optimum",
}
_CURVES = ("dpo", "ipo", "dpop", "auxdpo")  # methods whose optimum is drawn over the counts


def figure(numbers: pd.DataFrame, file_format: str) -> bytes:
    """DPO's policy, and every method's expected reward, as one pair is compared ever more often.

    Args:
        numbers: the table of optima.
        file_format: ``svg`` or ``png``.
    """
    with drawing.style():
        from matplotlib.figure import Figure

        drawn = Figure(figsize=(drawing.WIDTH + 1.6, 3.7))
        left, right = drawn.subplots(1, 2)
        sweep = numbers[numbers["part"] == "sweep"]
        _masses(left, sweep[sweep["method"] == "dpo"])
        _rewards(right, sweep, numbers[numbers["part"] == "fixed"].set_index("method"))
        drawn.suptitle(
            "Exact preferences, exact optimum: whether the policy gets better depends on which "
            "pair is compared most",
            x=0.01, ha="left", fontsize=10,
        )  # fmt: skip
        return drawing.file_bytes(drawn, file_format)


def _masses(axes: "Axes", rows: pd.DataFrame) -> None:
    ends = []
    for k, (column, gold) in enumerate(zip(MASSES, bandit.GOLD, strict=True)):
        axes.plot(rows["n_13"], rows[column], color=drawing.colour(k))
        words = f"{bandit.RESPONSES[k]}, worth {gold:g}"
        ends.append((rows["n_13"].iloc[-1], rows[column].iloc[-1], words, drawing.colour(k)))
    axes.axhline(1 / 3, color="#555555", linewidth=0.9, linestyle=drawing.dash(2))
    axes.annotate("reference", (rows["n_13"].iloc[0], 1 / 3), (4, 4), color="#555555",
                  textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_ylim(0.0, 0.7)
    _count_axis(axes)
    _threshold(axes, "a1 overtakes a2")
    axes.set_ylabel("mass of the response")
    axes.set_title("What DPO makes of a uniform reference", fontsize=9)
    drawing.label_ends(axes, ends)


def _rewards(axes: "Axes", sweep: pd.DataFrame, fixed: pd.DataFrame) -> None:
    ends = []
    for k, method in enumerate(_CURVES):
        rows = sweep[sweep["method"] == method]
        x, y = rows["n_13"], rows["expected_reward"]
        axes.plot(x, y, color=drawing.colour(k), linestyle=drawing.dash(k))
        ends.append((x.iloc[-1], y.iloc[-1], LABELS[method], drawing.colour(k)))
    for method in ("base", "kl_optimum"):
        value = fixed.loc[method, "expected_reward"]
        axes.axhline(value, color="#555555", linewidth=0.9, linestyle=drawing.dash(2))
        ends.append((0.0, value, LABELS[method], "#555555"))
    axes.set_ylim(0.8, 1.47)
    _count_axis(axes)
    _threshold(axes, "DPO turns worse")
    axes.set_ylabel("expected gold reward")
    axes.set_title("What it earns", fontsize=9)
    drawing.label_ends(axes, ends)


def _threshold(axes: "Axes", words: str) -> None:
    place = bandit.reversal_threshold(1, 1)
    axes.axvspan(place, axes.get_xlim()[1], color="#D55E00", alpha=0.06, linewidth=0)
    axes.axvline(place, color="#333333", linewidth=0.9)
    top = axes.get_ylim()[1]
    axes.annotate(f"{place:.2f}: {words}", (place, top), (4, -3), textcoords="offset points",
                  va="top", fontsize=8)  # fmt: skip


def _count_axis(axes: "Axes") -> None:
    axes.set_xscale("log")
    axes.margins(x=0.0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("comparisons of (a1, a3) per one of each other pair")


def page(numbers: pd.DataFrame) -> str:
    """The report as Markdown.

    Args:
        numbers: the table of optima, as written.
    """
    fixed = numbers[numbers["part"] == "fixed"].set_index("method")
    settings = numbers[numbers["part"] == "setting"]
    blocks = [
        "# Three responses, one parameter",
        _QUESTION,
        "![mass and reward over the counts](bandit.svg)",
        f"## At {_NAMED}: every method, exactly solved",
        _methods(pd.concat([fixed.loc[["base"]].reset_index(), _at(settings, _NAMED)])),
        _reading(_at(settings, _NAMED).set_index("method"), fixed),
        "## DPO at other counts",
        _table(
            ["n_12 : n_23 : n_13", "beta x theta", "mass a1", "mass a2", "mass a3", "reward"],
            [
                [_counts(row), f"{row['theta']:+.4f}", *_masses_of(row), _reward(row)]
                for _, row in settings[settings["method"] == "dpo"].iterrows()
            ],
        ),
        _reversal(),
        "## What this does not show",
        _caveats(fixed),
        "`numbers.csv` has every number of this page and of the figure. Again: "
        "`dpo-diag demo bandit --out DIR`.",
    ]
    return "\n\n".join(blocks) + "\n"


_NAMED = "1:1:10"
_QUESTION = (
    "Can preference training make a model worse although every label is right? One prompt, three "
    "responses a1, a2, a3, worth 1, 2 and 0; a uniform reference; policies `softmax([theta, "
    "-theta, 0])`, which can raise a1 or a2 but not both. Preferences are Bradley-Terry in the "
    "true worth, infinitely many, and each method's own loss is minimised exactly, at `beta` or "
    "`tau` 1. The only thing that changes is how often each pair is compared. The reference earns "
    "1."
)


def _at(settings: pd.DataFrame, counts: str) -> pd.DataFrame:
    return settings[[_counts(row) == counts for _, row in settings.iterrows()]]


def _counts(row: pd.Series) -> str:
    return str(bandit.Counts(row["n_12"], row["n_23"], row["n_13"]))


def _masses_of(row: pd.Series) -> list[str]:
    return [f"{row[column]:.3f}" for column in MASSES]


def _reward(row: pd.Series) -> str:
    return f"{row['expected_reward']:.4f}"


def _methods(rows: pd.DataFrame) -> str:
    head = ["method", "beta x theta", "mass a1", "mass a2", "mass a3", "reward", "against 1"]
    body = []
    for _, row in rows.iterrows():
        gain = row["expected_reward"] - 1.0
        words = "better" if gain > 5e-7 else "worse" if gain < -5e-7 else "the same"
        cells = [LABELS[row["method"]], f"{row['theta']:+.4f}", *_masses_of(row), _reward(row)]
        body.append([*cells, words])
    return _table(head, body)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _reading(rows: pd.DataFrame, fixed: pd.DataFrame) -> str:
    aux = rows.loc["auxdpo"]
    lines = [
        "DPO has two wishes and one parameter. a1 over a3 asks to raise a1; a1 under a2 asks to "
        "lower it; the pair that is compared more wins, and a2, the best response, loses mass "
        f"({1 / 3:.3f} to {rows.loc['dpo', 'mass_a2']:.3f}).",
        "IPO and DPO-Positive move less, so they lose less. IPO turns round at the same counts as "
        "DPO.",
        "AuxDPO gives each response a free reward offset among those that the policy gradient at "
        f"the reference does not see; found beside theta they are {aux['offset_a1']:.3f}, "
        f"{aux['offset_a2']:.3f}, 0 for a1, a2, a3. The offsets say that a1 and a2 are both "
        "better than a3, theta says the rest. The optimum is the same at all counts. Offsets are "
        "thrown away, so its policy still gives a1 less mass than a3 "
        f"({aux['mass_a1']:.3f} and {aux['mass_a3']:.3f}): no policy of this class orders all "
        "three.",
        "It is not the best policy of the class either. The one with the largest expected reward "
        f"less KL to the reference earns {fixed.loc['kl_optimum', 'expected_reward']:.4f}, and "
        "where (a1, a3) is compared little, DPO itself earns more than AuxDPO (right panel).",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _reversal() -> str:
    per = [abs(bandit.reversal_slope(bandit.Counts(*row))) for row in np.eye(3)]
    return (
        "The population optimum of DPO puts a1 above a2 exactly where "
        f"`{per[2]:.5f} n_13 > {per[0]:.5f} n_12 + {per[1]:.5f} n_23`; with one comparison of each "
        f"other pair, above n_13 = {bandit.reversal_threshold(1, 1):.3f}."
    )


def _caveats(fixed: pd.DataFrame) -> str:
    best, far = fixed.loc["kl_optimum"], fixed.loc["kl_optimum_beta_10"]
    lines = [
        "That AuxDPO finds the optimum of two-stage RLHF holds for large `beta`. To first order "
        f"that optimum is `beta x theta` = {bandit.local_solution(1.0):.1f}; exactly it is "
        f"{best['theta']:.3f} at `beta` 1 and {10 * far['theta']:.3f} at `beta` 10. Language-model "
        "runs use 0.1.",
        "The example is that of the AuxDPO paper (arXiv 2510.20413, main text read). Its counts "
        "were not read: 1:1:10 is our choice, and gives the expected rewards that its appendix is "
        "said to report (0.895, 0.969, 0.969 and 1.199 for DPO, IPO, DPO-Positive and AuxDPO, "
        "second-hand) when cut to three digits.",
        "One parameter is far less than a language model has. The example shows that exact data "
        "do not exclude a reversal; how common reversals are is what `dpo-diag reversals` "
        "measures.",
    ]
    return "\n".join(f"- {line}" for line in lines)
