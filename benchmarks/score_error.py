"""Does the KL grow by eps^2 where the score has an L2 error of eps^2 = sum g_k E|s_theta - s|^2, as Theorem 1 says?

Errors of known size are added to the exact score at chosen times (early: t > 1.5; late: t < 0.2; one step; all). Their
shapes differ in their correlation with the score: a constant vector, cos 4x, x rotated by a right angle, the difference
to the score of shifted data, plus and minus the score itself, and x. For exponential Euler, Girsanov's theorem and the
martingale e^-t s_t give for any law
    path KL = path KL at eps = 0  +  eps^2  +  2 sum (g_k - 1 + e^-g_k) E<s_k, s_theta - s>.
The path KL is computed by `path_kl` from the curve of the wrong denoiser, and again from forward pairs; also for
ancestral sampling and moment matching. On the line the KL of the end points follows from densities on a lattice. It is
compared with the path KL that the same error adds, by the time of the error. Some of these chains are sampled too.
"""

import itertools

import jax
import numpy as np

from benchmarks.harness import drawing, studies
from benchmarks.laws.score_errors import BUMPS, LINES, N_STEPS, NORMAL
from benchmarks.oracles.score_error_costs import (
    BLOCK,
    EULER,
    REFINED,
    SEEN,
    SIZES,
    by_pairs,
    ended,
    forgotten,
    grown,
    refined,
    sampled,
)
from jaxdiff import plots
from jaxdiff.app.samplers import label_of

NAME = "score_error"
QUESTION = "Does the KL grow by eps^2, the score's L2 error, as Theorem 1 says, and where does it not?"
ENDED = {"quick": (1e-3, 1e-1), "full": (1e-4, 1e-3, 1e-2, 1e-1, 1.0)}  # eps^2 of end points
PAIRS = {"quick": 2**12, "full": 2**15}  # a step
PARTICLES = {"quick": 2**16, "full": 2**20}
SEED = 0
SHARP = 1e-6  # ratios this near 1 count as 1: the rounding of path KLs over the least eps^2


def rows(quick, repeats):
    """Path KL by size, grid and pairs.

    End points by window, time and samples; then a row for each shape and sampler.
    """
    size, (first, second) = "quick" if quick else "full", jax.random.split(jax.random.key(SEED))
    found = [*grown(), *refined(), *by_pairs(PAIRS[size], first), *ended(ENDED[size]), *forgotten()]
    found += sampled(PARTICLES[size], second)
    return found + summaries(found)


def exponent(own):
    """The slope of log(added KL) against log eps^2 by least squares; None where an error lowers the KL."""
    if min(row["added"] for row in own) <= 0:
        return None
    return float(np.polyfit(*np.log([[row["size"] for row in own], [row["added"] for row in own]]), 1)[0])


def chosen(rows, part, **about):
    """The rows of a part with given values."""
    return [row for row in rows if row["part"] == part and all(row[name] == value for name, value in about.items())]


def summaries(rows):
    """A row for every shape and sampler: added KL over eps^2, its exponents, end points, and z of pairs."""
    keys = dict.fromkeys((row["shape"], row["sampler"]) for row in chosen(rows, "path"))
    return [_summary(rows, *key) for key in keys]


def _summary(rows, shape, sampler):
    own, euler = chosen(rows, "path", shape=shape, sampler=sampler), sampler == EULER
    curves = [list(group) for _, group in itertools.groupby(own, lambda row: (row["law"], row["window"]))]
    fits = lambda part: [one for curve in curves if (one := exponent(curve[part])) is not None]
    small, large = fits(slice(0, 3)), fits(slice(-2, None))
    ends = [row["ratio"] for row in chosen(rows, "end points", shape=shape)] if euler else []
    pairs = [row["z"] for row in chosen(rows, "pairs", shape=shape)] if euler else []
    return {
        "part": "shape",
        "shape": shape,
        "sampler": sampler,
        "least": min(row["ratio"] for row in own),
        "most": max(row["ratio"] for row in own),
        "exponent_small": float(np.mean(small)) if small else None,
        "exponent_large": float(np.mean(large)) if large else None,
        "saved": max(0.0, -min(row["added"] for row in own)),
        "ends_least": min(ends, default=None),
        "ends_most": max(ends, default=None),
        "worst_z": max(pairs, key=abs, default=None),
    }


def order(rows, shape, sampler):
    """The power of 1/N with which added KL over eps^2 approaches 1, by least squares over laws and grids."""
    own = chosen(rows, "refined", shape=shape, sampler=sampler)
    by_law = [[row for row in own if row["law"] == law] for law in dict.fromkeys(row["law"] for row in own)]
    logs = lambda some: np.log([[row["n_steps"] for row in some], [abs(row["ratio"] - 1) for row in some]])
    return float(np.mean([-np.polyfit(*logs(some), 1)[0] for some in by_law]))


def verdict(rows):
    """The shapes for which eps^2 is added, the factors for the others, and the KL of the end points over eps^2."""
    shapes = {row["shape"]: row for row in chosen(rows, "shape", sampler=EULER)}
    straight = [name for name, row in shapes.items() if max(abs(row["least"] - 1), abs(row["most"] - 1)) < SHARP]
    bent = [name for name in shapes if name not in straight]
    euler, old = chosen(rows, "path", sampler=EULER), chosen(rows, "path", sampler="ancestral")
    share = max(abs(row["added"] - row["size"]) / row["bound"] for row in euler)
    fine = [row["ratio"] for row in chosen(rows, "refined", sampler="ancestral", n_steps=max(REFINED))]
    near = [row["ratio"] for row in old]
    z = [row["z"] for row in rows if row["part"] in ("pairs", "sampled")]
    powers = [order(rows, name, EULER) for name in bent]
    lag = f", and falls as N^-{min(powers):.2f} or faster" if powers else ""
    said = [f"{name} {shapes[name]['least']:.3g} to {shapes[name]['most']:.3g} times" for name in bent]
    saved = max((shapes[name]["saved"] for name in bent), default=0.0)
    less = f", up to {saved:.2g} nats less than without error" if saved > 0 else ""
    kinds = (("former", straight), ("latter", bent))
    ends = "; ".join(f"{_kept(rows, names)} for the {which}" for which, names in kinds if names)
    return (
        f"Exponential Euler's path KL grows by eps^2, to {SHARP:g} of it, from {min(SIZES):g} to {max(SIZES):g} nats, "
        f"for {', '.join(straight) or 'NO SHAPE'}; not for {', '.join(said) or 'none'}{less}, as the frozen score lags "
        f"along itself: its cross term is at most {share:.2g} of Theorem 1's{' (EXCEEDED)' if share > 1 else ''}{lag}. "
        f"Ancestral, any shape: {min(near):.3g} to {max(near):.3g} times at N = {N_STEPS}, {max(fine):.3g} at most at "
        f"{max(REFINED)}. KL of the end points added / eps^2: {ends}. Pairs and samples: "
        f"{sum(abs(one) <= 5 for one in z)} of {len(z)} within 5 standard errors."
    )


def _kept(rows, names):
    """The least and the greatest ratio of the end points' added KL to eps^2, and where."""
    own = [row for row in chosen(rows, "end points") if row["shape"] in names]
    if not own:
        return "unknown"
    ends = (pick(own, key=lambda row: row["ratio"]) for pick in (min, max))
    return " to ".join(
        f"{row['ratio']:.2g} ({row['shape']}, {row['window']}, {row['law']}, eps^2 = {row['size']:g})" for row in ends
    )


def draw(rows, path):
    """Path KL added against eps^2; the end points' part of it by the time of the error; and finer grids."""
    figure = plots.canvas(11.5, 4.6)
    left, middle, right = figure.subplots(1, 3)
    _sizes(left, rows)
    for index, name in enumerate(LINES):
        own = chosen(rows, "forgotten", law=name)
        times = [np.sqrt(row["t"] * row["t_next"]) for row in own]
        drawing.line(middle, dict(zip(times, [row["ratio"] for row in own], strict=True)), f"end points, {name}", index)
        if index == 0:
            drawing.line(middle, dict(zip(times, [row["path_ratio"] for row in own], strict=True)), "path KL", 2)
            theory = dict(zip(times, [row["theory"] for row in own], strict=True))
            drawing.line(middle, theory, f"theory, {name}, N → ∞", None)
    middle.set(xlabel="OU time at which the error is put in", ylabel="KL added / eps$^2$")
    middle.set_title(f"a constant error in {BLOCK} of {N_STEPS} steps", fontsize=10)
    for index, (sampler, law) in enumerate(((EULER, NORMAL), (EULER, BUMPS), ("ancestral", NORMAL))):
        own = chosen(rows, "refined", sampler=sampler, law=law, shape="along the score")
        name = f"{label_of(sampler)}, {law}" if sampler == EULER else "ancestral, every law"
        drawing.line(right, {row["n_steps"]: abs(row["ratio"] - 1) for row in own}, name, index)
    steps = np.array(REFINED)
    drawing.line(right, dict(zip(steps, 4 / steps, strict=True)), "slope -1", None)
    right.set(ylim=(5e-3, 4), xlabel="steps N", ylabel="|KL added / eps$^2$ - 1|")
    right.set_title(f"error along the score, eps$^2$ = {SEEN:g}", fontsize=10)
    for ax, place in ((left, "upper left"), (middle, "lower left"), (right, "lower left")):
        drawing.powers(ax, REFINED if ax is right else None)
        ax.legend(frameon=False, fontsize=8, loc=place)
    return plots.saved(figure, path)


def _sizes(ax, rows):
    """Path KL added against eps^2 on N(0, 1/4), errors at every time; hollow where the error lowers the path KL."""
    euler = chosen(rows, "path", law=NORMAL, window="everywhere", sampler=EULER)
    for index, shape in enumerate(("constant", "along the score", "against the score")):
        own = [row for row in euler if row["shape"] == shape]
        drawing.line(ax, {row["size"]: row["added"] for row in own if row["added"] > 0}, shape, index)
        lost = [row for row in own if row["added"] <= 0]
        style = {
            "color": drawing.COLOURS[index],
            "marker": drawing.MARKERS[index],
            "mfc": "white",
            "ls": ":",
            "ms": 4.5,
        }
        if lost:
            ax.plot([row["size"] for row in lost], [-row["added"] for row in lost], label=f"{shape}, saved", **style)
    own = [row for row in euler if row["shape"] == "constant"]
    ax.plot([row["size"] for row in own], [row["size"] + row["bound"] for row in own], color="#555555", ls="-.", lw=1,
            label="Theorem 1: eps$^2$ and its cross term")  # fmt: skip
    drawing.line(ax, {row["size"]: row["size"] for row in own}, "eps$^2$", None)
    ax.set(ylim=(3e-7, 3e3), xlabel="eps$^2$ = sum g$_k$ E|s$_θ$ - s|$^2$, nats", ylabel="path KL added, nats")
    ax.set_title(f"exponential Euler, N = {N_STEPS}, {NORMAL}", fontsize=10)


COLUMNS = ("shape", "sampler", "least", "most", "exponent_small", "exponent_large", "saved", "ends_least", "ends_most")
STUDY = studies.Study(
    NAME,
    QUESTION,
    rows,
    (*COLUMNS, "worst_z"),
    verdict,
    draw,
    ("path", "refined", "pairs", "end points", "forgotten", "sampled"),
    SEED,
)

if __name__ == "__main__":
    studies.main(STUDY)
