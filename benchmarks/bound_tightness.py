"""How far is every bound of jaxdiff.bounds from the exact value?

Each bound is compared with the exact value (oracles/exact_values.py) on eleven laws. The bounded quantities are the
path KL of three kernels on three grids, the initial KL, mutual information and the W2 of stopping early; on the line
also KL and TV of the end points; for data in a ball the horizon and the error of prediction-correction. Where the mmse
is a Monte Carlo average, `error` is five standard errors of the difference between the exact value and the bound.

An upper bound is called vacuous where it says nothing although the exact value would: a bound on a KL or TV that allows
a TV of 0.99, or a bound on W2 that samples all at 0 would meet. A lower bound is vacuous at 0. A bound that does not
apply has a row with the reason.
"""

import numpy as np

from benchmarks.harness import drawing, studies
from benchmarks.oracles import exact_values as exactly
from benchmarks.oracles.bound_cases import (
    LOWER,
    ORDER,
    STEPS,
    UPPER,
    at_the_ends,
    finite,
    in_a_ball,
    named_grids,
    on_geometric,
    on_grid,
    on_the_line,
)
from jaxdiff import plots

NAME = "bound_tightness"
QUESTION = "How far is every bound from the exact value?"
ENDLESS = 1e12  # factors from here on are called infinite


def rows(quick, repeats):
    """A row for every law, bound, kernel and grid; then one for every bound and kernel."""
    found = []
    for name, case in exactly.cases().items():
        own = [*at_the_ends(case), *in_a_ball(case)]
        for n_steps in STEPS["quick" if quick else "full"]:
            chosen = named_grids(case, n_steps)
            own += [row for grid in chosen.items() for row in on_grid(case, *grid)]
            own += on_geometric(case, n_steps)
            if case.line is not None and case.copies == 1 and n_steps == STEPS["quick"][0]:
                own += [row for grid in list(chosen.items())[: 1 if quick else 3] for row in on_the_line(case, *grid)]
        found += [{"law": name} | row for row in own]
    return found + summaries(found)


def violated(row):
    """Whether the exact value is on the wrong side of the bound by more than the error of the exact value."""
    if not row["applies"] or row["side"] == ORDER or row["value"] is None:
        return False
    beyond = row["exact"] - row["value"] if row["side"] == UPPER else row["value"] - row["exact"]
    return beyond > row["error"]


def factor(row):
    """The factor between a bound and the exact value.

    inf for an infinite bound or a lower bound of 0; None if the exact value is 0.
    """
    if not row["applies"] or row["exact"] <= row["error"]:
        return None
    if row["value"] is None or (row["side"] == LOWER and row["ratio"] <= 0):
        return np.inf
    off = 1 / row["ratio"] if row["side"] == LOWER else row["ratio"]
    return off if off < ENDLESS else np.inf


def by_bound(rows):
    """The rows of every bound and kernel: {(bound, kernel): rows}."""
    found = {}
    for row in rows:
        if row["part"] == "case":
            found.setdefault((row["bound"], row["kernel"]), []).append(row)
    return found


def summaries(rows):
    """A row for every bound and kernel: the number of comparisons, and the factors from the exact value."""
    own = {key: some for key, some in by_bound(rows).items() if any(row["applies"] for row in some)}
    return [_summary(*key, some) for key, some in own.items()]


def _summary(bound, kernel, own):
    known = [(number, row["law"]) for row in own if (number := factor(row)) is not None] or [(np.nan, None)]
    (tightest, _), (loosest, law) = min(known), max(known)
    return {
        "part": "bound",
        "bound": bound,
        "side": own[0]["side"],
        "kernel": kernel,
        "compared": sum(row["applies"] for row in own),
        "left_out": len({row["law"] for row in own if not row["applies"]}),
        "violated": sum(map(violated, own)),
        "vacuous": sum(row["vacuous"] for row in own),
        "tightest": finite(tightest),
        "median": finite(np.median([number for number, _ in known])),
        "loosest": finite(loosest),
        "loosest_law": law,
    }


def verdict(rows):
    """The number of violated bounds, the tightest and loosest bounds by their medians, and the vacuous ones."""
    cases, own = ([row for row in rows if row["part"] == part] for part in ("case", "bound"))
    bounds = [row for row in own if row["side"] != ORDER]
    broken = [f"{label(row['bound'], row['kernel'])} on {row['law']}" for row in cases if violated(row)]
    said = f"VIOLATED in {len(broken)}: {'; '.join(sorted(set(broken)))}" if broken else "none violated"
    ranked = sorted((row for row in bounds if row["median"] is not None), key=lambda row: row["median"])
    worth = lambda row: f"{label(row['bound'], row['kernel'])} {row['median']:.3g}"
    empty = [label(row["bound"], row["kernel"]) for row in bounds if row["vacuous"] > row["compared"] / 2]
    orders = [row["ratio"] for row in cases if row["side"] == ORDER and row.get("ratio")]
    printed = f"; Benton as printed, no bound: {min(orders):.2g} to {max(orders):.2g} times" if orders else ""
    return (
        f"{sum(row['compared'] for row in bounds)} comparisons of {len(bounds)} bounds on "
        f"{len({row['law'] for row in cases})} laws, {said}. By the median factor from the exact value tightest: "
        f"{', '.join(map(worth, ranked[:3]))}; loosest: {', '.join(map(worth, ranked[-3:]))}{printed}. Vacuous in "
        f"most cases: {', '.join(empty) or 'none'}."
    )


def label(bound, kernel):
    """A short name of a bound, with its kernel."""
    short = bound.replace("pedrotti2023.", "Pedrotti ").replace("benton2024.", "Benton ").replace("_", " ")
    return short if kernel is None else f"{short} ({kernel.replace('_', ' ')})"


def draw(rows, path):
    """The ratio of bound and exact value.

    A dot for each law, the median over grids. Bounds for one kernel are on the left.
    """
    groups = by_bound(rows)
    laws = list(dict.fromkeys(row["law"] for row in rows if row["part"] == "case"))
    figure = plots.canvas(12.5, 6.4)
    for ax, of_kernel, limits in zip(figure.subplots(1, 2), (True, False), ((0.05, 3e3), (0.05, 1e8)), strict=True):
        shown = {
            key: ratios for key, own in groups.items() if (key[1] is not None) == of_kernel if (ratios := dots(own))
        }
        for height, ratios in enumerate(shown.values()):
            for law, ratio in ratios.items():
                index = laws.index(law)
                _dot(ax, np.clip(ratio, *limits), height + 0.6 * ((index + 0.5) / len(laws) - 0.5), index)
        ax.set_yticks(range(len(shown)), [label(*key) for key in shown], fontsize=8)
        ax.set(xscale="log", xlim=limits, ylim=(len(shown) - 0.4, -0.6), xlabel="bound / exact value (edge: beyond)")
        ax.axvline(1, color="black", ls="--", lw=1)
        ax.grid(alpha=0.25, lw=0.6)
    handles = [_dot(ax, np.nan, np.nan, index, law)[0] for index, law in enumerate(laws)]
    figure.legend(handles=handles, frameon=False, fontsize=8.5, loc="outside lower center", ncols=6)
    return plots.saved(figure, path)


def dots(rows):
    """{law: median ratio} of a bound, inf where it is infinite."""
    ratios = {}
    for row in rows:
        if factor(row) is not None:
            ratios.setdefault(row["law"], []).append(np.inf if row["value"] is None else row["ratio"])
    return {law: np.median(own) for law, own in ratios.items()}


def _dot(ax, x, y, index, label=None):
    """A law's dot; laws after the eighth have hollow ones."""
    colour, marker = (of[index % len(of)] for of in (drawing.COLOURS, drawing.MARKERS))
    face = colour if index < len(drawing.COLOURS) else "white"
    return ax.plot(x, y, marker, ms=4.5, color=colour, mfc=face, ls="", label=label, clip_on=False)


COLUMNS = ("bound", "kernel", "side", "compared", "left_out", "violated", "vacuous", "tightest", "median", "loosest")
STUDY = studies.Study(NAME, QUESTION, rows, (*COLUMNS, "loosest_law"), verdict, draw, ("case",))

if __name__ == "__main__":
    studies.main(STUDY)
