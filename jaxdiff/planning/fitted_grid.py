"""A grid fitted to a kernel by its error: for ODE kernels, whose best grids no path KL knows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import kernels
from jaxdiff.grids import check_grid, cosine, exponential_then_uniform, geometric, karras, log_snr, uniform
from jaxdiff.grids.named import check_request, with_ends
from jaxdiff.processes import ou
from jaxdiff.sampling.sample import sample
from jaxdiff.types import Grid, Kernel

NAMED = (log_snr, exponential_then_uniform, karras, geometric, cosine, uniform)  # the fitted is no worse on x_start
REFERENCE_STEPS = 500  # of RK4, on the log-snr grid
CELLS = 256  # of the density's integral
REACH = np.array([4.0, 3.0, 2.0, 1.5, 1.0])  # the largest coefficients looked at
POPULATION, GENERATIONS = 64, 60  # of the search
HOPELESS = 50.0  # mean logarithm of the error where a run is not finite


def fit_grid(kernel: Kernel, x_start, horizon, early_stop, n_steps, *, parameters=4, reference=None, seed=0) -> Grid:
    """The grid on which an ODE kernel comes closest to the end points of the probability-flow ODE.

    The density of nodes in log snr is the exponential of a polynomial, whose coefficients are searched for by
    differential evolution: seconds for an analytic score. What is least is the mean logarithm of the end points'
    relative errors; a grid for some dozens of starting points holds for others.

    Args:
      kernel: of an ODE.
      x_start: (n, d) at the horizon, draws of N(0, I). Its dtype is that of the runs: float64 tells errors below 1e-6.
      n_steps, horizon, early_stop: as for grids.
      parameters: degree of the polynomial, 3 to 5.
      reference: (n, d) end points; default 500 steps of rk4 on the log-snr grid.
      seed: of the search.

    Returns:
      (n_steps + 1,). On x_start it is no worse than any named grid.

    Raises:
      ValueError: the kernel draws noise or has its own clock, parameters lie outside 3 to 5, the ends or n_steps are
        none, or no end point is finite.
    Source: Storn, Price, J. Global Optimization 1997 (differential evolution), as in SciPy.
    """
    from scipy.optimize import differential_evolution

    check_request(horizon, early_stop, n_steps)
    if kernel.noises_per_step or kernel.own_clock:
        raise ValueError(f"fit_grid is for kernels of an ODE: {kernel.name} draws noise. grids.optimal is for those.")
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
    ends, reach = np.log(ou.snr(named[0, [0, -1]])), REACH[:parameters]
    first = np.random.default_rng(seed).uniform(-reach, reach, (POPULATION, parameters))
    first[: len(named)] = np.clip([_coefficients_of(grid, parameters, ends) for grid in named], -reach, reach)
    grids_of = jax.vmap(functools.partial(_grid_of, n_steps=n_steps, ends=ends))
    fit = differential_evolution(
        lambda columns: np.asarray(errors(grids_of(jnp.asarray(columns.T)))),
        list(zip(-reach, reach, strict=True)),
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
    if of_every.min() == HOPELESS:
        raise ValueError("no grid leads to finite end points: is the score finite, and the reference?")
    return check_grid(every[np.argmin(of_every)])


@jax.jit
def _errors(kernel, x, reference, grids):
    """Mean logarithm of the end points' relative errors, of every grid (m, n_steps + 1)."""
    size = jnp.maximum(jnp.sum(reference**2, -1), jnp.finfo(x.dtype).tiny)

    def of(grid):
        away = jnp.sum((sample(kernel, x, grid, jax.random.key(0)) - reference) ** 2, -1) / size
        error = jnp.mean(jnp.log(away + jnp.finfo(x.dtype).eps ** 2)) / 2
        return jnp.where(jnp.isfinite(error), error, HOPELESS)

    return jax.vmap(of)(grids)


def _grid_of(theta, n_steps, ends):
    """The grid whose density between `ends` in log snr is exp(sum_j theta_j T_j), T_j Chebyshev's, j = 1, 2, ..."""
    place = np.linspace(0, 1, CELLS + 1)
    density = jnp.exp(jnp.asarray(_chebyshev(place, len(theta))) @ theta)
    mass = jnp.concatenate([jnp.zeros(1), jnp.cumsum(density[1:] + density[:-1])])
    nodes = jnp.interp(np.linspace(0, 1, n_steps + 1), mass / mass[-1], place)
    return ou.time(jnp.exp(ends[0] + (ends[1] - ends[0]) * nodes))


def _coefficients_of(grid, parameters, ends):
    """theta of the density that comes closest to a grid's."""
    place = (np.log(ou.snr(grid)) - ends[0]) / (ends[1] - ends[0])
    columns = np.column_stack([np.ones(len(grid) - 1), _chebyshev((place[1:] + place[:-1]) / 2, parameters)])
    return np.linalg.lstsq(columns, -np.log(np.diff(place)), rcond=None)[0][1:]


def _chebyshev(place, degree):
    """T_1, ..., T_degree at places in [0, 1], in columns."""
    return np.polynomial.chebyshev.chebvander(2 * place - 1, degree)[:, 1:]
