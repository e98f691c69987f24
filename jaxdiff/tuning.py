"""A grid fitted to a kernel by its error: for ODE kernels, whose best grids no path KL knows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.optimize import minimize

from jaxdiff import kernels
from jaxdiff.grids import check_grid, exponential_then_uniform, karras, log_snr
from jaxdiff.processes import check_ends, ou
from jaxdiff.sample import sample
from jaxdiff.types import Grid, Kernel

NAMED = (log_snr, exponential_then_uniform, karras)  # a fitted grid is no worse than these on x_start
CELLS = 256  # of the density's integral
REFERENCE_STEPS = 400  # of RK4, on the log-snr grid
DESCENTS, ITERATIONS = 2, 80  # of BFGS, from the best named grids


def fit_grid(kernel: Kernel, x_start, n_steps, horizon, early_stop, *, parameters=4, reference=None) -> Grid:
    """The grid on which an ODE kernel comes closest to the end points of the probability-flow ODE.

    The density of nodes in log snr is the exponential of a polynomial; its coefficients minimise the mean logarithm of
    the end points' errors, by BFGS through the kernel. Fit it for starting points that will not be used again, some
    dozens of them: it holds for others.

    Args:
      kernel: of an ODE, its score differentiable.
      x_start: (n, d) at the horizon, draws of N(0, I). Its dtype is that of the runs: float64 tells errors below 1e-6.
      n_steps, horizon, early_stop: as for grids.
      parameters: degree of the polynomial, 3 to 5.
      reference: (n, d) end points; default 400 steps of rk4 on the log-snr grid.

    Returns:
      (n_steps + 1,). On x_start it is no worse than the log-snr, Benton's and Karras' grid.

    Raises:
      ValueError: the kernel draws noise or has its own clock, or parameters lie outside 3 to 5.
    """
    check_ends(horizon, early_stop)
    if kernel.noises_per_step or kernel.own_clock:
        raise ValueError(f"fit_grid is for kernels of an ODE: {kernel.name} draws noise. See grids.optimal for those.")
    if parameters not in (3, 4, 5):
        raise ValueError(f"parameters must be 3, 4 or 5: parameters = {parameters}.")
    x_start = jnp.asarray(x_start)
    if reference is None:
        fine = log_snr(horizon, early_stop, REFERENCE_STEPS)
        reference = sample(kernels.rk4(kernel.score), x_start, fine, jax.random.key(0))
    ends = np.log(ou.snr(np.array([horizon, early_stop], np.float64))).tolist()
    error = functools.partial(_error, kernel, x_start, jnp.asarray(reference))
    of_coefficients = lambda theta: error(_grid_of(theta, n_steps, *ends))
    named = [make(horizon, early_stop, n_steps) for make in NAMED]
    found = [(float(jax.jit(error)(jnp.asarray(grid))), grid) for grid in named]
    starts = sorted(
        ((score, _coefficients_of(grid, parameters, *ends)) for score, grid in found), key=lambda one: one[0]
    )
    descend = jax.jit(lambda theta: minimize(of_coefficients, theta, method="BFGS", options={"maxiter": ITERATIONS}).x)
    for _, theta in starts[:DESCENTS]:
        grid = np.array(_grid_of(descend(jnp.asarray(theta)), n_steps, *ends), np.float64)
        grid[0], grid[-1] = horizon, early_stop
        if np.isfinite(grid).all() and (np.diff(grid) < 0).all():
            found.append((float(jax.jit(error)(jnp.asarray(grid))), grid))
    return check_grid(min(found, key=lambda one: one[0])[1])


def _error(kernel, x, reference, grid):
    """Mean logarithm of the end points' errors."""
    away = jnp.sum((sample(kernel, x, grid, jax.random.key(0)) - reference) ** 2, -1)
    return jnp.mean(jnp.log(away + jnp.finfo(x.dtype).tiny ** 0.5)) / 2


def _grid_of(theta, n_steps, first, last):
    """The grid whose density over [first, last] in log snr is exp(sum_j theta_j T_j), j = 1, 2, ..."""
    place = np.linspace(0, 1, CELLS + 1)
    chebyshev = np.polynomial.chebyshev.chebvander(2 * place - 1, len(theta))[:, 1:]
    density = jnp.exp(jnp.asarray(chebyshev) @ theta)
    mass = jnp.concatenate([jnp.zeros(1), jnp.cumsum(density[1:] + density[:-1])])
    nodes = jnp.interp(np.linspace(0, 1, n_steps + 1), mass / mass[-1], place)
    return ou.time(jnp.exp(first + (last - first) * nodes))


def _coefficients_of(grid, parameters, first, last):
    """theta of the density that comes closest to a grid's."""
    place = (np.log(ou.snr(grid)) - first) / (last - first)
    middle = (place[1:] + place[:-1]) / 2
    chebyshev = np.polynomial.chebyshev.chebvander(2 * middle - 1, parameters)
    return np.linalg.lstsq(chebyshev, -np.log(np.diff(place)), rcond=None)[0][1:]
