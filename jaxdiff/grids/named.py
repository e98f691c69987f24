"""Grids by a formula: float64 NumPy arrays of n_steps + 1 decreasing OU times from the horizon to the early stop."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdiff.checks import as_numbers
from jaxdiff.processes import Process, from_ou, ou, to_ou, vp_cosine
from jaxdiff.processes.clocks import NEARLY_ZERO
from jaxdiff.processes.default_times import EARLIEST, LATEST, check_ends
from jaxdiff.types import Grid, Number, Numbers, Whole

PURE_NOISE = -np.log(NEARLY_ZERO) / 2  # the OU time of alpha^2 = 2^-24: 8.32
# The largest relative rounding error that a step may cause; a smaller one would allow shorter steps only. Dtypes whose
# epsilon is COARSE or more have no longest step, because they round by about as much anyway.
ROUNDING, COARSE = 1e-3, 1e-4


def longest_step(dtype: Any = np.float32) -> float:
    """The longest step, in OU time, that a run in a float dtype may take: 9.03 in float32, 29.1 in float64.

    A step of OU time h multiplies x, and its rounding error, by e^h; the score's part then cancels the growth of x but
    not that of the error. So e^h times the dtype's epsilon may be 1e-3 at most. Coarse dtypes (float16, bfloat16) have
    no limit, because they round by more anyway.
    """
    eps = float(jnp.finfo(dtype).eps)
    return float(np.log(ROUNDING / eps)) if eps < COARSE else np.inf


def runs_in_float32(grid: Numbers) -> bool:
    """Whether no step of a grid is longer than float32 allows."""
    return bool(-np.diff(grid).min() <= longest_step())


def check_grid(grid: Any, *, own_clock: bool = False) -> Grid:
    """The grid as a float64 NumPy array, after a check.

    Args:
      grid: (n_steps + 1,) decreasing times, the last one positive; a list or any array.
      own_clock: a running-time grid (Langevin's), which ends at 0.

    Raises:
      ValueError: it has no step, is not one-dimensional or finite, does not decrease, or leaves [1e-12, 40].
    """
    if hasattr(grid, "grid"):
        name = type(grid).__name__
        raise TypeError(f"a {name} is not a grid: pass {name.lower()}.grid.")
    grid = as_numbers(grid, "grid", "a list or an array of decreasing times")
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"grid must be a list of at least two times: it has shape {grid.shape}.")
    if not np.isfinite(grid).all():
        k = int(np.argmin(np.isfinite(grid)))
        raise ValueError(f"grid must be finite: grid[{k}] = {grid[k]}. Check the horizon and the early stop.")
    rises = np.flatnonzero(np.diff(grid) >= 0)
    if len(rises):
        k = int(rises[0])
        raise ValueError(
            f"grid must decrease: grid[{k}] = {grid[k]:.6g} <= grid[{k + 1}] = {grid[k + 1]:.6g}. "
            f"Reverse time? Pass grid[::-1]."
        )
    if not own_clock and grid[0] > LATEST:
        raise ValueError(
            f"grid must begin at {LATEST:g} at most: grid[0] = {grid[0]:.6g}. At 5 already nearly all is noise."
        )
    if grid[-1] < (0 if own_clock else EARLIEST):
        raise ValueError(
            f"grid must end at a positive time, at least {EARLIEST:g}: grid[{len(grid) - 1}] = {grid[-1]:.6g}. The "
            f"score is singular at 0: stop early, for example at 1e-3."
        )
    return grid


def uniform(horizon: Number, early_stop: Number, n_steps: Whole, *, process: Process = ou) -> Grid:
    """Equal steps in OU time, or in the time of another process of `processes`."""
    check_request(horizon, early_stop, n_steps)
    start, end = from_ou(process, np.array([horizon, early_stop], np.float64))
    between = ou.time(process.snr(np.linspace(start, end, n_steps + 1)[1:-1]))
    return with_ends(np.concatenate([[float(horizon)], between, [float(early_stop)]]), horizon, early_stop)


def from_process(process: Process, times: Numbers, *, horizon: Number = PURE_NOISE) -> Grid:
    """The grid of a model's own schedule: the OU times of times of another process, with a horizon for pure noise.

    Args:
      process: the process of the times: flow, ddpm(), or a Process of yours.
      times: (n,) from the noise to the data, for example np.linspace(1, 0, 11) for flow. Times of an integer dtype are
        rows of a table, and stay whole.
      horizon: OU time at which the grid begins if `times` begin at more noise. Times beyond it are replaced by one
        node: the horizon, or the row nearest to it where times are rows.

    Returns:
      (at most n,) decreasing OU times. Sampling starts at N(0, I). At OU time T, with A = e^-2T, the KL of a law in d
        dimensions with second moment M = E|X_0|^2 to N(0, I) is at most (A M - d A - d log(1 - A))/2 nats. At the
        default horizon, log(2^24)/2 = 8.32, that is 3e-8 M.

    Raises:
      ValueError: times lie outside the process's ends or do not run from the noise to the data, or fewer than two times
        are left.
    """
    check_ends(horizon, EARLIEST)
    own = np.asarray(times)
    t = np.atleast_1d(to_ou(process, own))
    if not (t > horizon).any():
        return check_grid(t)
    start, row = horizon, np.round(from_ou(process, np.float64(horizon)))
    if np.issubdtype(own.dtype, np.integer) and to_ou(process, row) < LATEST:
        start = to_ou(process, row)
    return check_grid(np.concatenate([[float(start)], t[t < min(start, horizon)]]))


def cosine(horizon: Number, early_stop: Number, n_steps: Whole) -> Grid:
    """Equal steps in the time of the cosine schedule, processes.vp_cosine().

    Source: Nichol, Dhariwal, ICML 2021, arXiv:2102.09672.
    """
    return uniform(horizon, early_stop, n_steps, process=vp_cosine())


def geometric(horizon: Number, early_stop: Number, n_steps: Whole) -> Grid:
    """Every step divides the OU time by the same factor."""
    check_request(horizon, early_stop, n_steps)
    return with_ends(np.geomspace(horizon, early_stop, n_steps + 1), horizon, early_stop)


def exponential_then_uniform(
    horizon: Number, early_stop: Number, n_steps: Whole, *, n_uniform: Whole | None = None
) -> Grid:
    """Benton's grid: uniform on [1, horizon], then geometric down to the early stop.

    Args:
      horizon, early_stop: OU times.
      n_steps: number of steps.
      n_uniform: how many of them lie on [1, horizon]; default half, rounded down. If the horizon is 1 or less all steps
        are geometric, if the early stop is 1 or more all are uniform. A single step leads from end to end.

    Returns:
      (n_steps + 1,) with h_k <= kappa min(1, t_{k+1}), kappa = max((horizon - 1)/n_uniform, early_stop^(-1/n) - 1) for
      n geometric steps.
    Source: Benton et al., ICLR 2024, arXiv:2308.03686, after Theorem 1.
    """
    check_request(horizon, early_stop, n_steps)
    if n_uniform is not None and not 0 <= n_uniform <= n_steps:
        raise ValueError(f"n_uniform must lie in [0, n_steps]: n_uniform = {n_uniform}, n_steps = {n_steps}.")
    if early_stop >= 1:
        return uniform(horizon, early_stop, n_steps)
    n_uniform = n_steps // 2 if n_uniform is None else n_uniform
    if horizon <= 1 or n_uniform == 0:
        return with_ends(np.geomspace(horizon, early_stop, n_steps + 1), horizon, early_stop)
    if n_uniform == n_steps:
        raise ValueError(
            f"n_uniform = {n_uniform} leaves no step for [early_stop, 1] = [{early_stop:g}, 1]: "
            f"take fewer uniform steps, or grids.uniform."
        )
    upper = np.linspace(horizon, 1, n_uniform + 1)
    lower = np.geomspace(1, early_stop, n_steps - n_uniform + 1)
    return with_ends(np.concatenate([upper, lower[1:]]), horizon, early_stop)


def log_snr(horizon: Number, early_stop: Number, n_steps: Whole) -> Grid:
    """Equal steps in the logarithm of the signal-to-noise ratio."""
    check_request(horizon, early_stop, n_steps)
    start, end = np.log(ou.snr(np.array([horizon, early_stop], np.float64)))
    return with_ends(ou.time(np.exp(np.linspace(start, end, n_steps + 1))), horizon, early_stop)


def karras(horizon: Number, early_stop: Number, n_steps: Whole, *, rho: Number = 7.0) -> Grid:
    """Equal steps in (sigma/alpha)^(1/rho), the noise level of the variance-exploding process: EDM's grid.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 5, where sigma_max and sigma_min are those of the two ends.
    """
    check_request(horizon, early_stop, n_steps)
    if not 0 < rho < np.inf:
        raise ValueError(f"rho must be positive and finite: rho = {rho:g}. Karras et al. use 7.")
    start, end = ou.snr(np.array([horizon, early_stop], np.float64)) ** (-0.5 / rho)
    return with_ends(ou.time(np.linspace(start, end, n_steps + 1) ** (-2 * rho)), horizon, early_stop)


def with_ends(grid: Grid, horizon: Number | None, early_stop: Number) -> Grid:
    """The checked grid with its ends set to the two times; None leaves the first as it is."""
    grid[0], grid[-1] = grid[0] if horizon is None else horizon, early_stop
    return check_grid(grid)


def check_request(horizon: Any, early_stop: Any, n_steps: Any) -> None:
    """Raise ValueError unless the ends are two times and n_steps is a positive whole number."""
    if isinstance(n_steps, bool) or not hasattr(n_steps, "__index__") or n_steps < 1:
        raise ValueError(f"n_steps must be a whole number, at least 1: n_steps = {n_steps!r}.")
    check_ends(horizon, early_stop)
