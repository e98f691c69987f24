"""Errors of a known size and shape, put into an exact score at chosen times, and the curve of the wrong denoiser."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from benchmarks.laws import line, localization
from jaxdiff import grids, information
from jaxdiff.arrays import like
from jaxdiff.curves.panels import integrated
from jaxdiff.processes import ou
from jaxdiff.types import as_score

HORIZON, EARLY_STOP, N_STEPS = 4.0, 0.05, 40
WINDOWS = {"early": (1.5, np.inf), "late": (0.0, 0.2), "one step": (0.5, 0.58), "everywhere": (0.0, np.inf)}
OMEGA = 4.0
NORMAL, COIN, BUMPS = localization.NORMAL, localization.COIN, localization.BUMPS
LINES = {NORMAL: line.Law([1.0], [0.0], [0.25]), COIN: line.Law([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0])}


class Shape(NamedTuple):
    """An error's field f(score, x, t), its moments, and the names of the laws that it is put into.

    square, overlap: E|f|^2 and E<score, f> at X_t as functions of a law and t.
    profile: (law, t) -> the amplitude as a function of time; None makes E|e|^2 the same at all times.
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
    """The variance of X_t where X_0 has variance s."""
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
    """The error with sum g_k E|e_k|^2 = size; among: the steps that have it."""
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
    """The exact score plus an error, as a score."""
    return Partial(_wrong, as_score(target.score), Partial(error.field), error.nodes, error.amplitude)


# D - m = (sigma^2/alpha) e:  L = V + (sigma^4/alpha^2) E|e|^2, and K = sqrt(snr) V - (sigma^3/alpha) E<s, e>, as
# E[Z | X_t] = -sigma s. The integral stays V's, so that path_kl is the KL to the true path, no excess.
def wrong_curve(curve, error):
    """The curve of the denoiser of a wrong score, at the nodes where steps begin."""
    exact, at = integrated(curve), lambda snr: error.at(ou.time(snr))
    value = lambda snr: exact(snr) + error.square[at(snr)] / (snr * (1 + snr))
    cross = lambda snr: np.sqrt(snr) * exact(snr) - error.overlap[at(snr)] / (np.sqrt(snr) * (1 + snr))
    return dataclasses.replace(exact, value=value, cross=cross, replicates=())


def laws():
    """Targets by name."""
    return {name: law.target for name, law in LINES.items()} | {BUMPS: localization.laws(True)[BUMPS].target}


def benton(n_steps):
    """Benton's grid."""
    return grids.exponential_then_uniform(HORIZON, EARLY_STOP, n_steps)


def cases():
    """All (law's name, target, shape's name, shape)."""
    for (law, target), (name, shape) in itertools.product(laws().items(), SHAPES.items()):
        if law in shape.laws:
            yield law, target, name, shape
