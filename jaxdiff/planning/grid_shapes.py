"""Families of grids with few parameters: the density of nodes in log snr is the exponential of a polynomial."""

from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.interpolate import PchipInterpolator

from jaxdiff.arrays import namespace
from jaxdiff.grids import cosine, exponential_then_uniform, geometric, karras, log_snr, uniform
from jaxdiff.grids.named import with_ends
from jaxdiff.processes import ou
from jaxdiff.types import Grid, Scalar, Whole

# Searches begin with these grids and compare their result with them.
NAMED = (log_snr, exponential_then_uniform, karras, geometric, cosine, uniform)
CELLS = 256  # cells of the trapezoidal rule that integrates the density of nodes
# The largest absolute values of the coefficients of degree 1, 2, ... that are searched. The first coefficient alone can
# change the density along the grid by a factor of e^8.
LARGEST = np.array([4.0, 3.0, 2.0, 1.5, 1.0])


def nodes_of(theta: Any, n_steps: Whole, ends: Any) -> Any:
    """The nodes of the density exp(sum_j theta_j T_j) between `ends` in log snr, T_j Chebyshev's, j = 1, 2, ...

    theta: (degree,), an array of NumPy or JAX. ends: (2,), log snr at the horizon and at the early stop. Returns
    (n_steps + 1,) OU times.
    """
    xp, place = namespace(theta), np.linspace(0, 1, CELLS + 1)
    density = xp.exp(xp.asarray(_chebyshev(place, len(theta))) @ theta)
    mass = xp.concatenate([xp.zeros(1), xp.cumsum(density[1:] + density[:-1])])
    nodes = xp.interp(np.linspace(0, 1, n_steps + 1), mass / mass[-1], place)
    return ou.time(xp.exp(ends[0] + (ends[1] - ends[0]) * nodes))


def shaped(theta: np.ndarray, horizon: Scalar, early_stop: Scalar, n_steps: Whole) -> Grid:
    """The grid of `nodes_of` in float64, with exact ends."""
    return with_ends(nodes_of(theta, n_steps, levels(horizon, early_stop)), horizon, early_stop)


def resampled(grid: Grid, n_steps: Whole) -> Float64[np.ndarray, " others"]:
    """The grid of n_steps whose nodes lie as densely in log snr as those of another grid."""
    place, wanted = np.linspace(0, 1, len(grid)), np.linspace(0, 1, int(n_steps) + 1)
    level = np.log(ou.snr(grid))
    between = PchipInterpolator(place, level)(wanted) if len(grid) > 2 else np.interp(wanted, place, level)
    return with_ends(ou.time(np.exp(between)), grid[0], grid[-1])


def levels(horizon: Scalar, early_stop: Scalar) -> np.ndarray:
    """(2,) log snr at the horizon and at the early stop."""
    return np.log(ou.snr(np.array([horizon, early_stop], np.float64)))


def first_coefficients(horizon: Scalar, early_stop: Scalar, n_steps: Whole, degree: Whole, size: int, seed: Whole):
    """(size, degree) coefficients that a search begins with: those closest to the named grids, and random ones."""
    largest, ends = LARGEST[:degree], levels(horizon, early_stop)
    first = np.random.default_rng(seed).uniform(-largest, largest, (size, degree))
    named = [_coefficients_of(make(horizon, early_stop, n_steps), degree, ends) for make in NAMED]
    first[: len(named)] = np.clip(named, -largest, largest)
    return first


def _coefficients_of(grid, degree, ends):
    """The coefficients theta of the density that is closest to a grid's, by least squares of its logarithm."""
    place = (np.log(ou.snr(grid)) - ends[0]) / (ends[1] - ends[0])
    columns = np.column_stack([np.ones(len(grid) - 1), _chebyshev((place[1:] + place[:-1]) / 2, degree)])
    return np.linalg.lstsq(columns, -np.log(np.diff(place)), rcond=None)[0][1:]


def _chebyshev(place, degree):
    """T_1, ..., T_degree at places in [0, 1], in columns."""
    return np.polynomial.chebyshev.chebvander(2 * place - 1, degree)[:, 1:]
