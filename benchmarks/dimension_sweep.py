"""How do the steps needed for a given path KL grow with the dimension, and with log(1/early stop)?

Exponential Euler on Benton's grid is compared with ancestral, moment-matched and covariance-matched sampling, each on
Benton's grid and on its optimal grid, with exact scores. The horizon is 7 everywhere. There the initial KL, which N
does not count, is below 0.007 nats up to d = 2^14 (at most (d/2) e^-2T for total variance d).

N is the least whole number of steps with path KL <= eps^2; oracles/steps_needed.py says how it is found. "real"
interpolates log KL in log N between N - 1 and N. Exponents are fitted to it, on d >= 16 and on d >= 128. If more than
`most` steps are needed, N is extrapolated from KL(most) by 1/N (1/N^2 for covariance matching) and marked; path_kl and
bound are then those at `most`. "marginal" is the N with which the KL of the end points is <= eps^2.

The laws (laws/by_dimension.py) have total variance at most d, as Benton's Theorem 1 assumes.
"""

import functools
import math

import numpy as np
from scipy import stats

from benchmarks.harness import drawing, studies
from benchmarks.laws.by_dimension import (
    COINS,
    DIGITS,
    FIXED_RANK,
    FLAT,
    FLAT_MIXTURE,
    MIXTURE,
    NORMAL,
    PAIR,
    POINT,
    RANK,
)
from benchmarks.oracles.steps_needed import (
    ANCESTRAL,
    BENTON,
    COVARIANCE,
    EULER,
    MOMENT,
    MOST,
    OPTIMAL,
    ORDER,
    SAMPLERS,
    WORST,
    sampler,
    steps_needed,
)
from jaxdiff import plots, sweeps
from jaxdiff.app.samplers import label_of

NAME = "dimension_sweep"
QUESTION = "How do the steps needed for a path KL grow with dimension, and with log(1/early stop)?"
DIMS, DELTAS, TARGETS = 2 ** np.arange(15), (1e-2, 1e-3, 1e-4), (1.0, 0.1, 0.01)
MANY_DELTAS, DELTA_DIM, DELTA_TARGET = [float(f"1e-{k}") for k in range(1, 9)], 64, 0.1
DRAWN = {"delta": 1e-3, "eps2": DELTA_TARGET}  # target and early stop of the figure and the table
FITTED, LATE = 16, 128  # least d of a fit, and of the fit where 8 is small against d
INKS = (1, 0, 2, 3)  # of the kernels
PALE, HOLLOW = {"alpha": 0.5, "lw": 1.0, "ls": ":", "ms": 3}, {"ls": "none", "mfc": "white"}
DECIDED, STOPPED = 1.5, 1.05  # decisive ratio of residuals; largest ratio of N that is no growth
STRIDE = {"quick": 64, "full": 1}  # of the digits
ALL = tuple(name for name, pair in SAMPLERS.items() if pair != (EULER, OPTIMAL))
# Left out: optimal grids where every grid has path KL 0. Covariance matching costs at most what moment matching does.
RUN = {
    NORMAL: tuple(name for name in ALL[:-2] if SAMPLERS[name] != (MOMENT, OPTIMAL)),
    POINT: tuple(name for name in ALL[:-2] if SAMPLERS[name][1] == BENTON),
    COINS: ALL,
    MIXTURE: ALL[:-2],
    FLAT: tuple(name for name in ALL if SAMPLERS[name] != (COVARIANCE, OPTIMAL)),
    FLAT_MIXTURE: ALL,
    PAIR: ALL,
    DIGITS: ALL[:-2],
}


def rows(quick, repeats):
    """Rows over dimensions, rows over early stops, and the exponents of the first."""
    size = "quick" if quick else "full"
    dims, deltas = (DIMS[::2], DELTAS[1:2]) if quick else (DIMS, DELTAS)
    function = functools.partial(steps_needed, most=MOST[size], stride=STRIDE[size])
    found = []
    for law, name in ((law, name) for law, names in RUN.items() for name in names):
        slow = law == FLAT_MIXTURE and SAMPLERS[name][0] == COVARIANCE  # log det of each block by Monte Carlo
        if slow and quick:
            continue
        over = (DELTA_DIM,) if law == DIGITS else dims[dims >= RANK] if slow else dims
        swept = functools.partial(sweeps.run, function, law=law, sampler=name)
        found += tagged("d", swept(dims=over, delta=deltas, eps2=TARGETS))
        if law != DIGITS:
            found += tagged("early stop", swept(dims=(DELTA_DIM,), delta=MANY_DELTAS, eps2=DELTA_TARGET))
    return found + fits(found)


def tagged(part, rows):
    """Rows with the name of their part."""
    return [{"part": part} | row for row in rows]


def series(rows, part, *columns):
    """{values of columns: rows} of a part, in order."""
    found = {}
    for row in rows:
        if row["part"] == part:
            found.setdefault(tuple(row[column] for column in columns), []).append(row)
    return found


def fits(rows):
    """A row for each exponent in d, and for each growth in log(1/delta)."""
    keys = ("law", "sampler", "delta", "eps2")
    found = []
    for key, own in series(rows, "d", *keys).items():
        if len({row["dim"] for row in own}) > 1:
            part = "exponent" if key[2:] == tuple(DRAWN.values()) else "exponent, other guarantees"
            found.append({"part": part} | dict(zip(keys, key, strict=True)) | exponents(own))
    for key, own in series(rows, "early stop", *keys[:2]).items():
        found.append({"part": "growth"} | dict(zip(keys[:2], key, strict=True)) | growth(own))
    return found


def exponents(rows):
    """Exponents of N in d with 95 % intervals: for d >= 16, for d >= 128, and for d >= 16 without extrapolated rows."""
    asked, late = ([row for row in rows if row["dim"] >= least] for least in (FITTED, LATE))
    computed = [row for row in asked if not row.get("extrapolated")]
    found = {"extrapolated": len(asked) - len(computed)}
    for name, own in (("exponent", asked), ("late", late), ("computed", computed)):
        if len(own) > 2:
            found |= dict(zip((name, f"{name}_low", f"{name}_high"), power(own), strict=True))
    return found


def power(rows):
    """The slope of log N against log d by least squares, and the ends of Student's 95 % interval."""
    x, y = (np.log([row[name] for row in rows]) for name in ("dim", "real"))
    x -= x.mean()
    slope = x @ y / (x @ x)
    error = np.sqrt(np.sum((y - y.mean() - slope * x) ** 2) / (len(x) - 2) / (x @ x))
    half = stats.t.ppf(0.975, len(x) - 2) * error
    return tuple(round(float(value), 5) for value in (slope, slope - half, slope + half))


def growth(rows):
    """How N grows with L = log(1/delta).

    The order is 0 if N stops growing, 1 for a + b L, 2 for (a + b L)^2, and None if undecided. "linear", "squared":
    the residuals of the two fits: root mean square over the mean of N. An order is decided if one residual is 1.5
    times the other. "quadratic_share" is the part of c L^2 in a + b L + c L^2 at the last L.
    """
    x, n = np.log([1 / row["delta"] for row in rows]), np.array([row["real"] for row in rows])
    size = lambda fitted: float(f"{np.sqrt(np.mean((fitted - n) ** 2)) / n.mean():.3g}")
    linear = size(np.polyval(np.polyfit(x, n, 1), x))
    squared = size(np.polyval(np.polyfit(x, np.sqrt(n), 1), x) ** 2)
    share = np.polyfit(x, n, 2)[0] * x[-1] ** 2 / n[-1]
    order = 1 if DECIDED * linear < squared else 2 if DECIDED * squared < linear else None
    if n[-1] < STOPPED * n[len(n) // 2]:
        order = 0
    return {"order": order, "linear": linear, "squared": squared, "quadratic_share": round(float(share), 3)}


def ends(rows, name, chosen):
    """The least and the greatest end of an exponent's intervals, over rows of fits."""
    own = [row for row in rows if row["part"].startswith("exponent") and f"{name}_low" in row and chosen(row)]
    return min(row[f"{name}_low"] for row in own), max(row[f"{name}_high"] for row in own)


def judged(rows, centre, within, chosen):
    """The ends of the intervals from d = 16 and from d = 128, each met or missed."""
    said = []
    for name, least in (("exponent", FITTED), ("late", LATE)):
        low, high = ends(rows, name, chosen)
        met = "met" if max(abs(low - centre), abs(high - centre)) <= within else "MISSED"
        said.append(f"{low:z.3f} to {high:z.3f} from d = {least} ({met})")
    return ", ".join(said)


def verdict(rows):
    """Exponents and the ends of their intervals, growth in log(1/delta), and Theorem 1 over the exact KL."""
    flat = {
        kernel: judged(
            rows, 0, 0.05, lambda row, kernel=kernel: row["law"] in FIXED_RANK and SAMPLERS[row["sampler"]][0] == kernel
        )
        for kernel in (ANCESTRAL, MOMENT, COVARIANCE)
    }
    orders = {
        law: own[0]["order"] for (law, one), own in series(rows, "growth", "law", "sampler").items() if one == WORST
    }
    grows = {
        order: ", ".join(law for law in orders if orders[law] == order) for order in dict.fromkeys(orders.values())
    }
    names = {0: "not at all", 1: "like log(1/delta)", 2: "like log^2(1/delta)", None: "undecidedly"}
    growths = "; ".join(f"{names[order]} on {laws}" for order, laws in grows.items())
    euler = judged(rows, 1, 0.02, lambda row: row["sampler"] == WORST)
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    below = sum(ratio < 1 for ratio in ratios)
    return (
        "Exponents of N in d, least and greatest end of 95 % intervals over laws and guarantees: exponential Euler on "
        f"Benton's grid (1 ± 0.02 asked) {euler}; on laws of fixed rank (0 ± 0.05 asked) "
        f"{'; '.join(f'{label_of(kernel)} {said}' for kernel, said in flat.items())}. Exponential Euler's N grows "
        f"{growths}. {least_and_most(rows)}. Theorem 1 is {min(ratios):.3g} to {max(ratios):.3g} times the exact KL, "
        f"{f'BELOW IT IN {below} ROWS' if below else 'never below it'}."
    )


def least_and_most(rows):
    """A sentence on steps at the largest d on the mixture of fixed rank."""
    own = {row["sampler"]: row for row in drawn(rows, FLAT_MIXTURE) if row["dim"] == DIMS[-1]}
    best = min(own, key=lambda name: own[name]["real"])
    return (
        f"On {FLAT_MIXTURE} at d = {DIMS[-1]:,}, {DRAWN['eps2']:g} nats, early stop {DRAWN['delta']:g}, it takes "
        f"{own[WORST]['real']:.3g} steps and {best} {own[best]['steps']}"
    )


def drawn(rows, law):
    """The rows over d of a law, at the target and early stop of the figure."""
    return [row for row in rows if row["part"] == "d" and {"law": law, **DRAWN}.items() <= row.items()]


def draw(rows, path):
    """N against d on a law of fixed rank and on a product, and against the early stop on the product."""
    figure = plots.canvas(11.5, 5.2)
    axes = figure.subplots(1, 3, sharey=True)
    titles = {FLAT_MIXTURE: "eight bumps in 8 of d directions", COINS: "±1 in each of d coordinates"}
    for ax, (law, title) in zip(axes, titles.items(), strict=False):
        own = drawn(rows, law)
        _lines(ax, own, "dim")
        _slope_and_ratio(ax, own)
        drawing.powers(ax, [1, 16, 256, 4096])
        ax.set(xlabel=f"dimension d (early stop {DRAWN['delta']:g})", title=title)
    _lines(axes[2], [row for row in rows if row["part"] == "early stop" and row["law"] == COINS], "delta")
    drawing.powers(axes[2])
    axes[2].set_xticks([0.1, 1e-3, 1e-5, 1e-7], ["$10^{-1}$", "$10^{-3}$", "$10^{-5}$", "$10^{-7}$"])
    axes[2].minorticks_off()
    axes[2].invert_xaxis()
    axes[2].set(xlabel="early stop, OU time", title=f"±1 in each of {DELTA_DIM} coordinates")
    axes[0].set_ylabel(f"steps for a path KL of {DRAWN['eps2']:g} nats")
    for name, look in (("ancestral, moment, covariance matched on Benton's grid", PALE), ("extrapolated", HOLLOW)):
        axes[1].plot([], [], color=plots.INK, marker="o", label=name, **look)
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return plots.saved(figure, path)


def _lines(ax, rows, column):
    """A line for each sampler; on Benton's grid all but exponential Euler are pale; extrapolated points are hollow."""
    for name in dict.fromkeys(row["sampler"] for row in rows):
        own, (kernel, kind) = [row for row in rows if row["sampler"] == name], SAMPLERS[name]
        index, pale = list(ORDER).index(kernel), kind == BENTON and kernel != EULER
        look = {"color": drawing.COLOURS[INKS[index]], "marker": drawing.MARKERS[index], "ms": 5, "lw": 1.8}
        said = sampler(kernel, {BENTON: "Benton's grid", OPTIMAL: "optimal grid"}[kind])
        look |= PALE if pale else {"label": said}
        ax.plot([row[column] for row in own], [row["real"] for row in own], **look)
        beyond = [(row[column], row["real"]) for row in own if row.get("extrapolated")]
        if beyond and not pale:
            ax.plot(*zip(*beyond, strict=True), **look | HOLLOW | {"label": None})


def _slope_and_ratio(ax, rows):
    """A line of slope 1 above exponential Euler's, and how many times fewer steps the best sampler takes at the end."""
    of = {(row["sampler"], row["dim"]): row["real"] for row in rows}
    dims = sorted({row["dim"] for row in rows})
    last, above = dims[-1], 3 * of[WORST, dims[-1]] / dims[-1]
    ax.plot(dims, [above * d for d in dims], color="black", ls="--", lw=1.2, label="slope 1")
    fewer = of[WORST, last] / min(of[name, last] for name in ALL if (name, last) in of)
    said = f"at d = {last:,}:\n{round(fewer, 1 - math.floor(math.log10(fewer))):,.0f} times fewer steps"
    ax.text(0.97, 0.03, said, transform=ax.transAxes, ha="right", va="bottom", color=plots.INK, fontsize=9)


FITS = (*(f"{name}{end}" for name in ("exponent", "late", "computed") for end in ("", "_low", "_high")), "order")
COLUMNS = ("part", "law", "sampler", "extrapolated", *FITS, "linear", "squared", "quadratic_share")
HIDDEN = ("d", "early stop", "exponent, other guarantees")
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw, HIDDEN)

if __name__ == "__main__":
    studies.main(STUDY)
