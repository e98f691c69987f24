"""For a fixed budget of evaluations: which horizon T1 is best, and what fraction should Langevin at T1 get?

First W2/sqrt(d) as a function of T1 and of the fraction of 64 evaluations that Langevin takes. There are two families
of laws: products of d equal coordinates (two bumps), and two bumps at -sqrt(d) u and sqrt(d) u with weights 0.3 and 0.7
and unit covariance. The score is exact, or has an L2 error of 0.1 sqrt(d) at every time, with the sign that leaves the
larger W2. Each cell has the best of three step lengths.

Then the T1 that is needed, for d = 1 to 4,096, on points -1, 1 in every coordinate and on points -sqrt(d) u, sqrt(d) u,
both within R = sqrt(d): the T1 at which the exact reversal from N(0, I) comes within W2/sqrt(d) = 0.05; the T1 at which
the spectral gap is 0.9; and (1/2) log(1 + R^2/0.1), which is proven to be enough for that gap.

Everything starts from N(0, I) and is computed on lines (oracles/finite_horizon.py); some cells are sampled too.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import drawing, studies
from benchmarks.oracles.finite_horizon import (
    APART,
    BUDGET,
    EARLY_STOP,
    PRODUCT,
    WEIGHTS,
    by_samples,
    from_noise,
    gap,
    points,
    score_of,
    w2,
)
from benchmarks.samplers import prediction_correction
from jaxdiff import grids, kernels, noise, plots, predict_correct, targets
from jaxdiff.guarantees.bounds import pedrotti2023
from jaxdiff.kernels.langevin_limits import default_step

NAME = "t1_t2_tradeoff"
QUESTION = "For a fixed budget of evaluations, which T1, and what share of them for Langevin at T1?"
SHARES, LENGTHS = (0.0, 0.25, 0.5, 0.75, 0.875), (1, 4, 10)
SHIFTS = {"exact": 0.0, "off by 0.1 a coordinate": 0.1}
DIMS, SAMPLED = (1, 4, 16, 64, 256, 1024), (16, 1024)
NEEDED_DIMS = 4 ** np.arange(7)
GOAL, GAP = 0.05, 0.9  # W2/sqrt(d); of the spectral gap
COORDINATES = 2**20  # of the sampled cells, in all


def cells(quick, repeats):
    """A row for each cell of the map; a product's cells are the same for every d."""
    horizons = np.geomspace(0.1, 10, 6 if quick else 14)
    cases = [(PRODUCT, 1), *((APART, d) for d in (DIMS[::5] if quick else DIMS))]
    clock = functools.cache(lambda d, n_steps: timed(d, n_steps, repeats))
    found = []
    for (family, d), (name, shift) in itertools.product(cases, SHIFTS.items()):
        for t, share in itertools.product(horizons, SHARES):
            n_steps = round(share * BUDGET)
            tried = [(*w2(family, d, shift, t, n_steps, length), length) for length in LENGTHS[: 3 if n_steps else 1]]
            best, h, length = min(tried)
            found.append(
                {
                    "part": "map",
                    "law": family,
                    "d": None if family == PRODUCT else d,
                    "score": name,
                    "horizon": float(t),
                    "share": share,
                    "langevin_time": n_steps * h,
                    "step": f"{length} x default",
                    "evals": BUDGET,
                    "w2_by_root_d": float(f"{best:.6g}"),
                    "seconds": clock(d, n_steps),
                }
            )
    return found


def timed(d, n_steps, repeats):
    """Seconds of predict_correct on 2^16 coordinates in all with the exact score, by the number of Langevin steps."""
    law = targets.mixture(WEIGHTS, np.outer([-1.0, 1.0], np.ones(d)), np.ones((2, d)))
    h = default_step(kernels.langevin(law.score, 1.0))
    options = {"langevin_time": n_steps * h, "step_size": h, "grid": grids.log_snr(1.0, EARLY_STOP, BUDGET - n_steps)}
    return prediction_correction.seconds(
        law.score, d, repeats, particles=max(1, prediction_correction.PARTICLES // d), horizon=1.0, **options
    )


def sampled(quick, repeats):
    """Some cells again from samples in d dimensions.

    Equal coordinates are pooled and compared with the same quantiles.
    """
    key, found = jax.random.key(1), []
    families = [
        *((PRODUCT, d) for d in (SAMPLED[-1:] if quick else SAMPLED)),
        (APART, SAMPLED[0]),
    ]  # few, along u, are noise
    for (family, d), (t, share) in itertools.product(families, [(0.5, 0.5), (2.0, 0.25)]):
        n_steps, began = round(share * BUDGET), noise.initial(key, jnp.arange(COORDINATES // d), d)
        expected, h = w2(family, d, 0.0, t, n_steps, 1)
        options = {"horizon": t, "langevin_time": n_steps * h, "step_size": h}
        grid = grids.log_snr(t, EARLY_STOP, BUDGET - n_steps)
        x = np.asarray(predict_correct(score_of(family, d), began, key, grid=grid, **options))
        found.append(
            {
                "part": "sampled",
                "law": family,
                "d": d,
                "score": "exact",
                "horizon": t,
                "share": share,
                "langevin_time": n_steps * h,
                "evals": BUDGET,
                "w2_by_root_d": by_samples(family, d, x),
                "expected": expected,
                "seconds": timed(d, n_steps, repeats),
            }
        )
    return found


def needed(quick):
    """A row for each d: the T1 by the formula, and the T1 that are needed on both families of points."""
    found = []
    for d in NEEDED_DIMS[::2] if quick else NEEDED_DIMS:
        product, apart = points(1.0), points(np.sqrt(d))
        found.append(
            {
                "part": "needed",
                "d": int(d),
                "sufficient": pedrotti2023.simple_horizon(1 - GAP, np.sqrt(d)),
                "product_w2": _least(lambda t, law=product: from_noise(law, t) <= GOAL),
                "product_gap": _least(lambda t, law=product: gap(law, t) >= GAP),
                "apart_w2": _least(lambda t, law=apart, d=d: from_noise(law, t, others=d - 1) <= GOAL * np.sqrt(d)),
                "apart_gap": _least(lambda t, law=apart: gap(law, t) >= GAP),
            }
        )
    return found


def _least(enough, low=1e-2, high=12.0):
    """The least time from which on something holds, by bisection."""
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def rows(quick, repeats):
    """The map, its sampled cells, and the T1 that is needed."""
    return [*cells(quick, repeats), *sampled(quick, repeats), *needed(quick)]


def slope(rows, column):
    """The slope of T1 against (1/2) log d, by least squares over d >= 16."""
    own = [one for one in rows if one["part"] == "needed" and one["d"] >= 16]
    return float(np.polyfit([np.log(one["d"]) / 2 for one in own], [one[column] for one in own], 1)[0])


def best_cells(rows):
    """The best cell of each map and its best cell without Langevin: {(law, d, score): (best, best at share 0)}."""
    found = {}
    for one in rows:
        if one["part"] == "map":
            found.setdefault((one["law"], one["d"], one["score"]), []).append(one)
    size = lambda one: one["w2_by_root_d"]
    return {
        key: (min(own, key=size), min((one for one in own if one["share"] == 0), key=size))
        for key, own in found.items()
    }


def verdict(rows):
    """On how many laws Langevin pays, and the slopes of T1 against (1/2) log d."""
    best = best_cells(rows)
    said = []
    for name in SHIFTS:
        own = {key: pair for key, pair in best.items() if key[2] == name}
        pays = [key for key, (cell, plain) in own.items() if cell["w2_by_root_d"] < 0.9 * plain["w2_by_root_d"]]
        shares = sorted({own[key][0]["share"] for key in pays})
        horizons = sorted(cell["horizon"] for cell, _ in own.values())
        with_share = f", with shares {shares[0]:g} to {shares[-1]:g}" if shares else ""
        said.append(
            f"score {name}: Langevin from N(0, I) pays on {len(pays)} of {len(own)} laws{with_share}, best T1 of those "
            f"looked at (0.1 to 10) {horizons[0]:.2g} to {horizons[-1]:.2g}"
        )
    slopes = {
        column: slope(rows, column) for column in ("sufficient", "product_w2", "product_gap", "apart_w2", "apart_gap")
    }
    off = max(abs(one["w2_by_root_d"] - one["expected"]) for one in rows if one["part"] == "sampled")
    return (
        f"{'; '.join(said)}. Against (1/2) log d, T1 grows with slope {slopes['sufficient']:.2f} by the formula; what "
        f"is needed, on products {slopes['product_w2']:.2f} (gap: {slopes['product_gap']:.2f}), on points at ±√d u "
        f"{slopes['apart_w2']:.2f} (gap: {slopes['apart_gap']:.2f}). Sampled cells differ by {off:.2g} at most."
    )


def draw(rows, path):
    """Maps for the product and the largest d, and T1 against d."""
    mapped = [one for one in rows if one["part"] == "map"]
    dims = sorted({one["d"] for one in mapped if one["d"]})
    shown = [(law, d, score) for law, d in ((PRODUCT, None), (APART, dims[0]), (APART, dims[-1])) for score in SHIFTS]
    figure = plots.canvas(13, 9.5)
    grid = figure.add_gridspec(3, 3, width_ratios=(1, 1, 1.15))
    horizons = sorted({one["horizon"] for one in mapped})
    values = np.log10([one["w2_by_root_d"] for one in mapped])
    for index, (law, d, score) in enumerate(shown):
        ax = figure.add_subplot(grid[index // 2, index % 2])
        own = {
            (one["horizon"], one["share"]): one["w2_by_root_d"]
            for one in mapped
            if (one["law"], one["d"], one["score"]) == (law, d, score)
        }
        cells = np.log10([[own[t, share] for t in horizons] for share in SHARES])
        image = ax.imshow(cells, origin="lower", aspect="auto", cmap="viridis_r", vmin=values.min(), vmax=values.max())
        row, column = np.unravel_index(np.argmin(cells), cells.shape)
        ax.plot(column, row, "*", ms=13, color="white", mec="black")
        ax.set_xticks(range(len(horizons)), [f"{t:.2g}" for t in horizons], fontsize=8)
        ax.set_yticks(range(len(SHARES)), [f"{share:g}" for share in SHARES], fontsize=8)
        ax.set_title(f"{law}{f', d = {d}' if d else ', every d'}, {score}", fontsize=9)
        ax.set(xlabel="T1" if index > 3 else None, ylabel="share of Langevin" if index % 2 == 0 else None)
    figure.colorbar(image, ax=figure.axes, location="bottom", shrink=0.5, aspect=40, label="log10 of W2/√d; star: best")
    ax = figure.add_subplot(grid[:, 2])
    own = [one for one in rows if one["part"] == "needed"]
    labels = {
        "sufficient": "enough for constant 0.9, by formula",
        "apart_gap": "gap 0.9, points at ±√d u",
        "apart_w2": "W2/√d ≤ 0.05, points at ±√d u",
        "product_gap": "gap 0.9, product of points",
        "product_w2": "W2/√d ≤ 0.05, product of points",
    }
    for index, (column, label) in enumerate(labels.items()):
        name = f"{label}: slope {slope(rows, column):.2f}"
        drawing.line(ax, {one["d"]: one[column] for one in own}, name, index)
    ax.set(xscale="log", xlabel="d", ylabel="T1", title="T1 needed (slope against ½ log d, d ≥ 16)")
    ax.legend(frameon=False, fontsize=8)
    return plots.saved(figure, path)


COLUMNS = (
    "part",
    "law",
    "d",
    "score",
    "horizon",
    "share",
    "langevin_time",
    "step",
    "evals",
    "w2_by_root_d",
    "expected",
)
NEEDED = ("sufficient", "product_w2", "product_gap", "apart_w2", "apart_gap", "seconds")
STUDY = studies.Study(NAME, QUESTION, rows, (*COLUMNS, *NEEDED), verdict, draw, ("map",))

if __name__ == "__main__":
    studies.main(STUDY)
