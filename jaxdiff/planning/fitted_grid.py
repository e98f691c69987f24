"""Fits a grid to an ODE kernel by the error of its end points. An ODE has no path KL that could be minimised."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import kernels
from jaxdiff.arrays import Scalar
from jaxdiff.grids import check_grid, log_snr
from jaxdiff.grids.named import check_request, with_ends
from jaxdiff.planning.grid_shapes import LARGEST, NAMED, first_coefficients, levels, nodes_of
from jaxdiff.sampling.sample import sample
from jaxdiff.types import Grid, Kernel, Rows, Whole

# Steps of RK4 on the log-snr grid for the reference end points. The error of RK4 falls with the fourth power of the
# number of steps, so that it is far below the error of a kernel with few steps.
REFERENCE_STEPS = 500
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
    ends, largest = levels(horizon, early_stop), LARGEST[:parameters]
    first = first_coefficients(horizon, early_stop, n_steps, parameters, POPULATION, seed)
    grids_of = jax.vmap(functools.partial(nodes_of, n_steps=n_steps, ends=ends))
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
