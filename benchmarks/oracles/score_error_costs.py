"""What an error of the score adds to the path KL and to the KL of the end points, without and with samples."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from scipy.integrate import quad

from benchmarks.laws.score_errors import (
    EARLY_STOP,
    LINES,
    N_STEPS,
    NORMAL,
    SHAPES,
    WINDOWS,
    benton,
    cases,
    injected,
    variance,
    within,
    wrong,
    wrong_curve,
)
from benchmarks.oracles import drift_gaps
from benchmarks.oracles import exact_values as exactly
from jaxdiff import information, kernels, noise, sample
from jaxdiff.guarantees.bounds import benton2024
from jaxdiff.guarantees.path_kl import standard_error

SIZES = 10.0 ** np.arange(-6, 2)  # eps^2, nats
REFINED = (20, 40, 80, 160, 320)
SEEN = 0.1  # eps^2 of refined grids, forward pairs and samples
EULER = "exponential_euler"
SAMPLERS = (EULER, "ancestral", "moment_matched")
BLOCK, PUT_IN = 4, 0.01  # steps and eps^2 of an error whose time is varied


def added(sampler, grid, curve, error):
    """The path KL that an error adds; the variance of moment matching is set by the exact curve."""
    matched = {"matched": curve} if sampler == "moment_matched" else {}
    wrong_one = information.path_kl(sampler, wrong_curve(curve, error), grid, **matched)
    return wrong_one - information.path_kl(sampler, curve, grid, **matched)


def grown():
    """Rows: the added path KL by law, shape, window, sampler and size, with Theorem 1's bound on the cross term."""
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
    """Rows: the added path KL over eps^2 on finer grids."""
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
        learned, exact = (drift_gaps.gaps(target, t, v, key_pairs, one) for one in (wrong(target, error), None))
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
    """Rows: the added KL of the end points and the added path KL, by law, shape, window and size."""
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
    """Rows: the part of a constant error's eps^2 that remains at the end points, by the steps that have the error."""
    grid, shape, steps = benton(N_STEPS), SHAPES["constant"], np.arange(N_STEPS)
    for (name, law), first in itertools.product(LINES.items(), range(0, N_STEPS, BLOCK)):
        among = (steps >= first) & (steps < first + BLOCK)
        error = injected(law.target, shape, grid, PUT_IN, among)
        more = kl(law, end(law, error, grid)) - kl(law, end(law, None, grid))
        ends = grid[first], grid[first + BLOCK]
        row = {"part": "forgotten", "law": name, "t": float(ends[0]), "t_next": float(ends[1]), "size": PUT_IN}
        row |= {"ratio": more / PUT_IN, "path_ratio": added(EULER, grid, law.target.mmse, error) / PUT_IN}
        yield row | ({"theory": kept(*ends)} if name == NORMAL else {})


# A constant error c moves the mean by 2 c dt at t; at delta the factor E[X_delta | X_t]/X_t remains of that,
# e^(delta - t) var_delta/var_t.
def kept(t, t_next):
    """The part of a constant error's eps^2 between two times that remains at the end, on N(0, 1/4) and for N -> inf."""
    carried, _ = quad(lambda at: 2 * np.exp(EARLY_STOP - at) * variance(EARLY_STOP) / variance(at), t_next, t)
    return carried**2 / (2 * variance(EARLY_STOP)) / (t - t_next)


def sampled(n, key):
    """Rows: mean and variance of samples, and those of the lattice."""
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
