"""Fits a grid to an ODE kernel by the error of its end points. An ODE has no path KL that could be minimised."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import kernels
from jaxdiff.arrays import Scalar
from jaxdiff.grids import check_grid, cosine, exponential_then_uniform, geometric, karras, log_snr, uniform
from jaxdiff.grids.named import check_request, with_ends
from jaxdiff.processes import ou
from jaxdiff.sampling.sample import sample
from jaxdiff.types import Grid, Kernel, Rows, Whole

# The search begins with these grids and compares its result with them.
NAMED = (log_snr, exponential_then_uniform, karras, geometric, cosine, uniform)
# Steps of RK4 on the log-snr grid for the reference end points. The error of RK4 falls with the fourth power of the
# number of steps, so that it is far below the error of a kernel with few steps.
REFERENCE_STEPS = 500
CELLS = 256  # cells of the trapezoidal rule that integrates the density of nodes
# The largest absolute values of the coefficients of degree 1, 2, ... that are searched. The first coefficient alone can
# change the density along the grid by a factor of e^8.
LARGEST = np.array([4.0, 3.0, 2.0, 1.5, 1.0])
# Sets of coefficients, and rounds in which differential evolution improves them: seconds for an analytic score.
POPULATION, GENERATIONS = 64, 60
NOT_FINITE = 50.0  # stands for the mean log error of a run that is not finite: larger than that of any useful run


def fit_grid(
    kernel: Kernel,
    x_start: Rows,
    horizon: Scalar,
    early_stop: Scalar,
    n_steps: Whole,
    *,
    parameters: Whole = 4,
    reference: Rows | None = None,
    seed: Whole = 0,
) -> Grid:
    """The grid on which the end points of an ODE kernel are closest to those of the probability-flow ODE.

    The density of nodes in log snr is the exponential of a polynomial. Differential evolution searches the coefficients
    that minimise the mean logarithm of the end points' relative errors. It takes seconds for an analytic score. A grid
    fitted to a few dozen starting points is also good for others.

    Args:
      kernel: an ODE kernel.
      x_start: (n, d) draws of N(0, I), the positions at the horizon. The kernel runs in their dtype; errors below 1e-6
        need float64.
      horizon, early_stop: the grid's first and last OU time.
      n_steps: number of steps.
      parameters: degree of the polynomial, 3 to 5.
      reference: (n, d) end points; default those of 500 steps of rk4 on the log-snr grid.
      seed: seed of the search.

    Returns:
      (n_steps + 1,) OU times. On x_start the grid is at least as good as any named grid.

    Raises:
      ValueError: the kernel draws noise or has its own clock, parameters are not 3, 4 or 5, the ends or n_steps are not
        valid, or no end point is finite.
    Source: Storn, Price, J. Global Optimization 1997 (differential evolution), as in SciPy.
    """
    from scipy.optimize import differential_evolution

    check_request(horizon, early_stop, n_steps)
    if kernel.noises_per_step or kernel.own_clock:
        why = "draws noise" if kernel.noises_per_step else "has its own clock"
        raise ValueError(f"fit_grid is for ODE kernels: {kernel.name} {why}. Use grids.optimal for kernels with noise.")
    if parameters not in (3, 4, 5):
        raise ValueError(f"parameters must be 3, 4 or 5: parameters = {parameters}.")
    x_start = jnp.asarray(x_start)
    if reference is None:
        fine = log_snr(horizon, early_stop, REFERENCE_STEPS)
        reference = sample(kernels.rk4(kernel.score), x_start, fine, jax.random.key(0))
    errors = functools.partial(_errors, kernel, x_start, jnp.asarray(reference))
    named = np.stack([make(horizon, early_stop, n_steps) for make in NAMED])
    if n_steps == 1:
        return named[0]
    ends, largest = np.log(ou.snr(named[0, [0, -1]])), LARGEST[:parameters]
    first = np.random.default_rng(seed).uniform(-largest, largest, (POPULATION, parameters))
    first[: len(named)] = np.clip([_coefficients_of(grid, parameters, ends) for grid in named], -largest, largest)
    grids_of = jax.vmap(functools.partial(_grid_of, n_steps=n_steps, ends=ends))
    fit = differential_evolution(
        lambda columns: np.asarray(errors(grids_of(jnp.asarray(columns.T)))),
        list(zip(-largest, largest, strict=True)),
        init=first,  # pyright: ignore[reportArgumentType]
        maxiter=GENERATIONS,
        vectorized=True,
        updating="deferred",
        polish=False,
        rng=seed,
    )
    found = np.array(grids_of(jnp.asarray(fit.x[None]))[0], np.float64)
    every = np.concatenate([named, with_ends(found, horizon, early_stop)[None]])
    of_every = np.asarray(errors(jnp.asarray(every)))
    if of_every.min() == NOT_FINITE:
        raise ValueError(
            f"no grid of {n_steps} steps gives finite end points: check that the score and the reference are finite."
        )
    return check_grid(every[np.argmin(of_every)])


@jax.jit
def _errors(kernel, x, reference, grids):
    """(m,) mean logarithms of the end points' relative errors for grids (m, n_steps + 1)."""
    size = jnp.maximum(jnp.sum(reference**2, -1), jnp.finfo(x.dtype).tiny)

    def of(grid):
        away = jnp.sum((sample(kernel, x, grid, jax.random.key(0)) - reference) ** 2, -1) / size
        error = jnp.mean(jnp.log(away + jnp.finfo(x.dtype).eps ** 2)) / 2
        return jnp.where(jnp.isfinite(error), error, NOT_FINITE)

    return jax.vmap(of)(grids)


def _grid_of(theta, n_steps, ends):
    """The grid whose density between `ends` in log snr is exp(sum_j theta_j T_j), T_j Chebyshev's, j = 1, 2, ..."""
    place = np.linspace(0, 1, CELLS + 1)
    density = jnp.exp(jnp.asarray(_chebyshev(place, len(theta))) @ theta)
    mass = jnp.concatenate([jnp.zeros(1), jnp.cumsum(density[1:] + density[:-1])])
    nodes = jnp.interp(np.linspace(0, 1, n_steps + 1), mass / mass[-1], place)
    return ou.time(jnp.exp(ends[0] + (ends[1] - ends[0]) * nodes))


def _coefficients_of(grid, parameters, ends):
    """The coefficients theta of the density that is closest to a grid's, by least squares of its logarithm."""
    place = (np.log(ou.snr(grid)) - ends[0]) / (ends[1] - ends[0])
    columns = np.column_stack([np.ones(len(grid) - 1), _chebyshev((place[1:] + place[:-1]) / 2, parameters)])
    return np.linalg.lstsq(columns, -np.log(np.diff(place)), rcond=None)[0][1:]


def _chebyshev(place, degree):
    """T_1, ..., T_degree at places in [0, 1], in columns."""
    return np.polynomial.chebyshev.chebvander(2 * place - 1, degree)[:, 1:]
