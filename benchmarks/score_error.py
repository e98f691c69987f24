"""Does the KL grow by eps^2 where the score has an L2 error of eps^2 = sum g_k E|s_theta - s|^2, as Theorem 1 says?

Errors of known size are put into the exact score at chosen times (early: t > 1.5; late: t < 0.2; one step; all), in
shapes that differ in how they go with the score: a constant vector, cos 4x, x turned by a right angle, the difference
to the score of shifted data, plus and minus the score itself, x. For exponential Euler, Girsanov's theorem and the
martingale e^-t s_t give for any law
    path KL = path KL at eps = 0  +  eps^2  +  2 sum (g_k - 1 + e^-g_k) E<s_k, s_theta - s>,
by the library's `path_kl` of the curve that the wrong denoiser has, and again by forward pairs. The same for ancestral
sampling and moment matching. Then the KL of the end points, on the line, by densities on a lattice, beside the path KL
that the same error adds, by when it is put in; some of these chains are sampled too.
"""

import dataclasses
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial
from scipy.integrate import quad

from benchmarks import exact_values as exactly
from benchmarks import figures, line, localization, studies
from jaxdiff import grids, information, kernels, noise, plots, sample
from jaxdiff.app.samplers import label_of
from jaxdiff.arrays import like
from jaxdiff.curves.panels import integrated
from jaxdiff.guarantees.bounds import benton2024
from jaxdiff.guarantees.path_kl import standard_error
from jaxdiff.processes import ou
from jaxdiff.types import as_score

NAME = "score_error"
QUESTION = "Does the KL grow by eps^2, the score's L2 error, as Theorem 1 says, and where does it not?"
HORIZON, EARLY_STOP, N_STEPS = 4.0, 0.05, 40
SIZES = 10.0 ** np.arange(-6, 2)  # eps^2, nats
REFINED = (20, 40, 80, 160, 320)
SEEN = 0.1  # eps^2 of refined grids, forward pairs and samples
ENDED = {"quick": (1e-3, 1e-1), "full": (1e-4, 1e-3, 1e-2, 1e-1, 1.0)}  # eps^2 of end points
WINDOWS = {"early": (1.5, np.inf), "late": (0.0, 0.2), "one step": (0.5, 0.58), "everywhere": (0.0, np.inf)}
EULER = "exponential_euler"
SAMPLERS = (EULER, "ancestral", "moment_matched")
PAIRS = {"quick": 2**12, "full": 2**15}  # a step
PARTICLES = {"quick": 2**16, "full": 2**20}
BLOCK, PUT_IN = 4, 0.01  # steps and eps^2 of an error whose time is varied
OMEGA, SEED = 4.0, 0
NORMAL, COIN, BUMPS = localization.NORMAL, localization.COIN, localization.BUMPS
LINES = {NORMAL: line.Law([1.0], [0.0], [0.25]), COIN: line.Law([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0])}
SHARP = 1e-6  # a ratio so near 1 is 1: rounding of path KLs over the least eps^2


class Shape(NamedTuple):
    """An error's field f(score, x, t), E|f|^2 and E<score, f> at X_t as functions of a law and t, and the laws' names.

    profile: (law, t) -> the amplitude's course in time; None makes E|e|^2 the same at all times.
    """

    field: Callable
    square: Callable
    overlap: Callable
    laws: tuple[str, ...] = (NORMAL, COIN, BUMPS)
    profile: Callable | None = None


def _constant(score, x, t):
    return jnp.full_like(x, 1 / np.sqrt(x.shape[-1]))


def _cosine(score, x, t):
    return jnp.cos(OMEGA * x)


def _turned(score, x, t):
    return jnp.stack([-x[..., 1], x[..., 0]], -1)


def _score(score, x, t):
    return score(x, t)


def _against(score, x, t):
    return -score(x, t)


def _position(score, x, t):
    return x


def second_moment(target, t):
    """E|X_t|^2."""
    return ou.alpha(t) ** 2 * target.second_moment + ou.sigma(t) ** 2 * target.dim


def variance(t, s=0.25):
    """Of X_t where X_0 has variance s."""
    return ou.alpha(t) ** 2 * s + ou.sigma(t) ** 2


def _cosine_square(target, t):
    """E cos^2(omega X_t), by the characteristic function of a mixture on the line."""
    c = target.score.args[0]
    wave = np.cos(2 * OMEGA * ou.alpha(t) * c.means[:, 0]) * np.exp(-2 * OMEGA**2 * variance(t, c.variances[:, 0]))
    return 0.5 * (1 + np.exp(c.log_weights) @ wave)


def _fisher(target, t):
    return float(information.fisher_information(target.mmse, np.array([t]))[0])


def _none(target, t):
    return 0.0


def _one(target, t):
    return 1.0


# Overlaps by Stein's identity E<s, f> = -E div f: 0 for a constant and for x turned, -d for x, and 0 for the cosine
# where the law is symmetric. The score of N(mu, 1/4) is that of N(0, 1/4) and e^-t mu/variance.
SHAPES = {
    "constant": Shape(_constant, _one, _none),
    "cos 4x": Shape(_cosine, _cosine_square, _none, (NORMAL, COIN)),
    "x turned": Shape(_turned, second_moment, _none, (BUMPS,)),
    "shifted data": Shape(_constant, _one, _none, (NORMAL,), lambda target, t: ou.alpha(t) / variance(t)),
    "along the score": Shape(_score, _fisher, _fisher),
    "against the score": Shape(_against, _fisher, lambda target, t: -_fisher(target, t)),
    "along x": Shape(_position, second_moment, lambda target, t: -float(target.dim)),
}


class Injected(NamedTuple):
    """An error at the nodes where steps begin: amplitude times field, E|e|^2 and E<score, e>."""

    field: Callable
    nodes: np.ndarray
    amplitude: np.ndarray
    square: np.ndarray
    overlap: np.ndarray

    def at(self, t):
        """The indices of the nodes at times t."""
        return np.argmin(np.abs(np.asarray(t)[..., None] - self.nodes), axis=-1)


def injected(target, shape, grid, size, among):
    """The error with sum g_k E|e_k|^2 = size; among: which steps have it."""
    t, g = grid[:-1], -np.diff(grid)
    of_nodes = lambda function: np.array([function(target, at) for at in t])
    square, overlap = of_nodes(shape.square), of_nodes(shape.overlap)
    course = np.where(among, square**-0.5 if shape.profile is None else of_nodes(shape.profile), 0.0)
    amplitude = course * np.sqrt(size / np.sum(g * course**2 * square))
    return Injected(shape.field, t, amplitude, amplitude**2 * square, amplitude * overlap)


def within(grid, window):
    """Which steps begin within a window of OU time."""
    low, high = WINDOWS[window]
    return (grid[:-1] > low) & (grid[:-1] <= high)


def _wrong(score, field, nodes, amplitude, x, t):
    at = jnp.argmin(jnp.abs(jnp.asarray(nodes, x.dtype) - like(t, x)))
    return score(x, t) + jnp.asarray(amplitude, x.dtype)[at] * field(score, x, t)


def wrong(target, error):
    """The exact score with an error, as a score."""
    return Partial(_wrong, as_score(target.score), Partial(error.field), error.nodes, error.amplitude)


# D - m = (sigma^2/alpha) e:  L = V + (sigma^4/alpha^2) E|e|^2, and K = sqrt(snr) V - (sigma^3/alpha) E<s, e>, as
# E[Z | X_t] = -sigma s. The integral stays V's, so that path_kl is the KL to the true path, no excess.
def wrong_curve(curve, error):
    """The curve of a denoiser whose score has an error, at the nodes where steps begin."""
    exact, at = integrated(curve), lambda snr: error.at(ou.time(snr))
    value = lambda snr: exact(snr) + error.square[at(snr)] / (snr * (1 + snr))
    cross = lambda snr: np.sqrt(snr) * exact(snr) - error.overlap[at(snr)] / (np.sqrt(snr) * (1 + snr))
    return dataclasses.replace(exact, value=value, cross=cross, replicates=())


def added(sampler, grid, curve, error):
    """The path KL that an error adds; moment matching's variance is set by the exact curve."""
    matched = {"matched": curve} if sampler == "moment_matched" else {}
    wrong_one = information.path_kl(sampler, wrong_curve(curve, error), grid, **matched)
    return wrong_one - information.path_kl(sampler, curve, grid, **matched)


def laws():
    """Targets by name."""
    return {name: law.target for name, law in LINES.items()} | {BUMPS: localization.laws(True)[BUMPS].target}


def benton(n_steps):
    """Benton's grid."""
    return grids.exponential_then_uniform(HORIZON, EARLY_STOP, n_steps)


def cases():
    """(law's name, target, shape's name, shape), all there are."""
    for (law, target), (name, shape) in itertools.product(laws().items(), SHAPES.items()):
        if law in shape.laws:
            yield law, target, name, shape


def grown():
    """Rows: the path KL that is added, by law, shape, window, sampler and size, with Theorem 1's bound on the cross."""
    grid = benton(N_STEPS)
    for (law, target, name, shape), window in itertools.product(cases(), WINDOWS):
        for size in SIZES.tolist():
            error = injected(target, shape, grid, size, within(grid, window))
            bound = benton2024.theorem1(grid, target.dim, score_error=size)["score x step"].value
            for sampler in SAMPLERS:
                more = added(sampler, grid, target.mmse, error)
                row = {"part": "path", "law": law, "shape": name, "window": window, "sampler": sampler, "size": size}
                yield row | {"added": more, "ratio": more / size} | ({"bound": bound} if sampler == EULER else {})


def refined():
    """Rows: what is added per eps^2 as the grid gets finer."""
    for (law, target, name, shape), n_steps in itertools.product(cases(), REFINED):
        grid = benton(n_steps)
        error = injected(target, shape, grid, SEEN, np.ones(n_steps, bool))
        for sampler in SAMPLERS:
            row = {"part": "refined", "law": law, "shape": name, "sampler": sampler, "n_steps": n_steps, "size": SEEN}
            yield row | {"ratio": added(sampler, grid, target.mmse, error) / SEEN}


def by_pairs(n, key):
    """Rows: sum g_k E|s_v - s_theta|^2 - E|s_v - s_k|^2 over the same forward pairs, v uniform in each step."""
    grid = benton(N_STEPS)
    t, g = np.repeat(grid[:-1], n), np.repeat(-np.diff(grid), n)
    for index, (law, target, name, shape) in enumerate(cases()):
        error = injected(target, shape, grid, SEEN, np.ones(N_STEPS, bool))
        key_time, key_pairs = jax.random.split(jax.random.fold_in(key, index))
        v = t - g * np.asarray(jax.random.uniform(key_time, t.shape))
        learned, exact = (localization.gaps(target, t, v, key_pairs, one) for one in (wrong(target, error), None))
        each = (g * (learned - exact)).reshape(N_STEPS, n)
        value, spread = each.mean(1).sum(), np.sqrt(np.sum(each.var(1, ddof=1) / n))
        expected = added(EULER, grid, target.mmse, error)
        row = {"part": "pairs", "law": law, "shape": name, "size": SEEN, "added": expected}
        yield row | {"mc": float(value), "mc_error": float(spread), "z": float((value - expected) / spread)}


def end(law, error, grid):
    """The density of exponential Euler's end points from N(0, 1), on a lattice; error None: the exact score."""
    score = law.score if error is None else wrong(law.target, error)
    return exactly.chain(SimpleNamespace(score=score, at=law.at), kernels.exponential_euler(score), grid)


def kl(law, lattice):
    """KL(q_delta || end points)."""
    return lattice.against(law, EARLY_STOP)[0]


def ended(sizes):
    """Rows: the KL of the end points that is added beside the path KL, by law, shape, window and size."""
    grid = benton(N_STEPS)
    base = {name: kl(law, end(law, None, grid)) for name, law in LINES.items()}
    for (law, target, name, shape), window in itertools.product(cases(), WINDOWS):
        for size in sizes if law in LINES else ():
            error = injected(target, shape, grid, size, within(grid, window))
            more, path = (
                kl(LINES[law], end(LINES[law], error, grid)) - base[law],
                added(EULER, grid, target.mmse, error),
            )
            row = {"part": "end points", "law": law, "shape": name, "window": window, "size": size, "base": base[law]}
            yield row | {"added": more, "path": path, "ratio": more / size}


def forgotten():
    """Rows: the share of a constant error's eps^2 that the end points keep, by the steps that have it."""
    grid, shape, steps = benton(N_STEPS), SHAPES["constant"], np.arange(N_STEPS)
    for (name, law), first in itertools.product(LINES.items(), range(0, N_STEPS, BLOCK)):
        among = (steps >= first) & (steps < first + BLOCK)
        error = injected(law.target, shape, grid, PUT_IN, among)
        more = kl(law, end(law, error, grid)) - kl(law, end(law, None, grid))
        ends = grid[first], grid[first + BLOCK]
        row = {"part": "forgotten", "law": name, "t": float(ends[0]), "t_next": float(ends[1]), "size": PUT_IN}
        row |= {"ratio": more / PUT_IN, "path_ratio": added(EULER, grid, law.target.mmse, error) / PUT_IN}
        yield row | ({"theory": kept(*ends)} if name == NORMAL else {})


# A push c moves the mean by 2 c dt, which E[X_delta | X_t] = e^(delta - t) (var_delta/var_t) X_t carries on.
def kept(t, t_next):
    """The share of eps^2 that N(0, 1/4) keeps of a constant error between two times, in the continuum."""
    carried, _ = quad(lambda at: 2 * np.exp(EARLY_STOP - at) * variance(EARLY_STOP) / variance(at), t_next, t)
    return carried**2 / (2 * variance(EARLY_STOP)) / (t - t_next)


def sampled(n, key):
    """Rows: mean and variance of samples, against the lattice's."""
    grid = benton(N_STEPS)
    mesh = Mesh(np.array(jax.devices()), ("particles",)) if jax.device_count() > 1 else None
    start = noise.initial(key, jnp.arange(n, dtype=jnp.uint32), 1, jnp.float64)
    for (name, law), shape in itertools.product(LINES.items(), ("constant", "along the score")):
        error = injected(law.target, SHAPES[shape], grid, SEEN, within(grid, "everywhere"))
        x = np.asarray(sample(kernels.exponential_euler(wrong(law.target, error)), start, grid, key, mesh=mesh))[:, 0]
        lattice = end(law, error, grid)
        weight, about = lattice.p / lattice.p.sum(), {"part": "sampled", "law": name, "shape": shape, "samples": n}
        mean = float(weight @ lattice.y)
        square = float(weight @ (lattice.y - mean) ** 2)
        for moment, draws, expected in (("mean", x, mean), ("variance", (x - mean) ** 2, square)):
            found = float(draws.mean())
            row = about | {"size": SEEN, "moment": moment, "expected": expected, "mc": found}
            yield row | {"z": (found - expected) / standard_error(draws)}


def rows(quick, repeats):
    """Path KL by size, grid and pairs; end points by window, time and samples; then a row a shape and sampler."""
    size, (first, second) = "quick" if quick else "full", jax.random.split(jax.random.key(SEED))
    found = [*grown(), *refined(), *by_pairs(PAIRS[size], first), *ended(ENDED[size]), *forgotten()]
    found += sampled(PARTICLES[size], second)
    return found + summaries(found)


def exponent(own):
    """The slope of log added against log eps^2, by least squares; None where less is added than nothing."""
    if min(row["added"] for row in own) <= 0:
        return None
    return float(np.polyfit(*np.log([[row["size"] for row in own], [row["added"] for row in own]]), 1)[0])


def chosen(rows, part, **about):
    """The rows of a part that have these columns."""
    return [row for row in rows if row["part"] == part and all(row[name] == value for name, value in about.items())]


def summaries(rows):
    """A row for every shape and sampler: added/eps^2 and its exponents over laws and windows, end points, pairs."""
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
    """The power of 1/N with which added/eps^2 comes near 1, least squares over laws and grids."""
    own = chosen(rows, "refined", shape=shape, sampler=sampler)
    by_law = [[row for row in own if row["law"] == law] for law in dict.fromkeys(row["law"] for row in own)]
    logs = lambda some: np.log([[row["n_steps"] for row in some], [abs(row["ratio"] - 1) for row in some]])
    return float(np.mean([-np.polyfit(*logs(some), 1)[0] for some in by_law]))


def verdict(rows):
    """For which shapes eps^2 is what is added, by how much not for others, and what is left at the end points."""
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
    """The least and the most that end points keep of eps^2, and where."""
    own = [row for row in chosen(rows, "end points") if row["shape"] in names]
    if not own:
        return "unknown"
    ends = (pick(own, key=lambda row: row["ratio"]) for pick in (min, max))
    return " to ".join(
        f"{row['ratio']:.2g} ({row['shape']}, {row['window']}, {row['law']}, eps^2 = {row['size']:g})" for row in ends
    )


def draw(rows, path):
    """Path KL added against eps^2; the share that end points keep by when the error is put in; finer grids."""
    figure = plots.canvas(11.5, 4.6)
    left, middle, right = figure.subplots(1, 3)
    _sizes(left, rows)
    for index, name in enumerate(LINES):
        own = chosen(rows, "forgotten", law=name)
        times = [np.sqrt(row["t"] * row["t_next"]) for row in own]
        figures.line(middle, dict(zip(times, [row["ratio"] for row in own], strict=True)), f"end points, {name}", index)
        if index == 0:
            figures.line(middle, dict(zip(times, [row["path_ratio"] for row in own], strict=True)), "path KL", 2)
            theory = dict(zip(times, [row["theory"] for row in own], strict=True))
            figures.line(middle, theory, f"theory, {name}, N → ∞", None)
    middle.set(xlabel="OU time at which the error is put in", ylabel="KL added / eps$^2$")
    middle.set_title(f"a constant error in {BLOCK} of {N_STEPS} steps", fontsize=10)
    for index, (sampler, law) in enumerate(((EULER, NORMAL), (EULER, BUMPS), ("ancestral", NORMAL))):
        own = chosen(rows, "refined", sampler=sampler, law=law, shape="along the score")
        name = f"{label_of(sampler)}, {law}" if sampler == EULER else "ancestral, every law"
        figures.line(right, {row["n_steps"]: abs(row["ratio"] - 1) for row in own}, name, index)
    steps = np.array(REFINED)
    figures.line(right, dict(zip(steps, 4 / steps, strict=True)), "slope -1", None)
    right.set(ylim=(5e-3, 4), xlabel="steps N", ylabel="|KL added / eps$^2$ - 1|")
    right.set_title(f"error along the score, eps$^2$ = {SEEN:g}", fontsize=10)
    for ax, place in ((left, "upper left"), (middle, "lower left"), (right, "lower left")):
        figures.powers(ax, REFINED if ax is right else None)
        ax.legend(frameon=False, fontsize=8, loc=place)
    return plots.saved(figure, path)


def _sizes(ax, rows):
    """Path KL added against eps^2 on N(0, 1/4), errors everywhere; hollow: what is saved."""
    euler = chosen(rows, "path", law=NORMAL, window="everywhere", sampler=EULER)
    for index, shape in enumerate(("constant", "along the score", "against the score")):
        own = [row for row in euler if row["shape"] == shape]
        figures.line(ax, {row["size"]: row["added"] for row in own if row["added"] > 0}, shape, index)
        lost = [row for row in own if row["added"] <= 0]
        style = {
            "color": figures.COLOURS[index],
            "marker": figures.MARKERS[index],
            "mfc": "white",
            "ls": ":",
            "ms": 4.5,
        }
        if lost:
            ax.plot([row["size"] for row in lost], [-row["added"] for row in lost], label=f"{shape}, saved", **style)
    own = [row for row in euler if row["shape"] == "constant"]
    ax.plot([row["size"] for row in own], [row["size"] + row["bound"] for row in own], color="#555555", ls="-.", lw=1,
            label="Theorem 1: eps$^2$ and its cross term")  # fmt: skip
    figures.line(ax, {row["size"]: row["size"] for row in own}, "eps$^2$", None)
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
