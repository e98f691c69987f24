"""Grids: float64 NumPy arrays of n_steps + 1 decreasing OU times from the horizon to the early stop."""

import numpy as np

from jaxdiff.processes import check_ends, ou
from jaxdiff.types import Grid, Plan


def check_grid(grid, *, own_clock=False) -> Grid:
    """The grid as a float64 NumPy array, once it is known to be one.

    Args:
      grid: (n_steps + 1,) decreasing times, the last one positive; a list or any array.
      own_clock: a running-time grid (Langevin's), which ends at 0.

    Raises:
      ValueError: it has no step, is not one-dimensional or finite, does not decrease, or ends at 0 or below.
    """
    if isinstance(grid, Plan):
        raise TypeError("a Plan is not a grid: pass plan.grid.")
    grid = np.asarray(grid, np.float64)
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
    if grid[-1] < 0 or (grid[-1] == 0 and not own_clock):
        raise ValueError(
            f"grid must end at a positive time: grid[{len(grid) - 1}] = {grid[-1]:.6g}. The score is singular at 0: "
            f"stop early, at 1e-3 say."
        )
    return grid


def uniform(horizon, early_stop, n_steps) -> Grid:
    """Equal steps in OU time."""
    _check(horizon, early_stop, n_steps)
    return _fixed_ends(np.linspace(horizon, early_stop, n_steps + 1), horizon, early_stop)


def exponential_then_uniform(horizon, early_stop, n_steps, *, n_uniform=None) -> Grid:
    """Benton's grid: uniform on [1, horizon], then geometric down to the early stop.

    Args:
      horizon, early_stop: OU times.
      n_steps: steps in all.
      n_uniform: how many of them on [1, horizon]; default half, rounded down. Without an interval above 1 all steps
        are geometric, without one below 1 all are uniform; a single step goes all the way.

    Returns:
      (n_steps + 1,) with h_k <= kappa min(1, t_{k+1}), kappa = max((horizon - 1)/n_uniform, early_stop^(-1/n) - 1) for
      n geometric steps.
    Source: Benton et al., ICLR 2024, arXiv:2308.03686, after Theorem 1.
    """
    _check(horizon, early_stop, n_steps)
    if n_uniform is not None and not 0 <= n_uniform <= n_steps:
        raise ValueError(f"n_uniform must lie in [0, n_steps]: n_uniform = {n_uniform}, n_steps = {n_steps}.")
    if early_stop >= 1:
        return uniform(horizon, early_stop, n_steps)
    n_uniform = n_steps // 2 if n_uniform is None else n_uniform
    if horizon <= 1 or n_uniform == 0:
        return _fixed_ends(np.geomspace(horizon, early_stop, n_steps + 1), horizon, early_stop)
    if n_uniform == n_steps:
        raise ValueError(
            f"n_uniform = {n_uniform} leaves no step for [early_stop, 1] = [{early_stop:g}, 1]: "
            f"take fewer uniform steps, or grids.uniform."
        )
    upper = np.linspace(horizon, 1, n_uniform + 1)
    lower = np.geomspace(1, early_stop, n_steps - n_uniform + 1)
    return _fixed_ends(np.concatenate([upper, lower[1:]]), horizon, early_stop)


def log_snr(horizon, early_stop, n_steps) -> Grid:
    """Equal steps in the logarithm of the signal-to-noise ratio."""
    _check(horizon, early_stop, n_steps)
    start, end = np.log(ou.snr(np.array([horizon, early_stop], np.float64)))
    return _fixed_ends(ou.time(np.exp(np.linspace(start, end, n_steps + 1))), horizon, early_stop)


def optimal(step_cost, n_steps, horizon, early_stop, *, n_candidates=1000) -> Grid:
    """The grid of least total cost among candidates uniform in log snr: a shortest path, so a global optimum there.

    Args:
      step_cost: (t, t_next) -> cost, broadcasting, as information.step_cost makes it.
      n_steps: steps.
      horizon, early_stop: OU times.
      n_candidates: candidate times, both ends included; memory 8 n_candidates^2 bytes.

    Returns:
      (n_steps + 1,), best among the candidates; it is not polished off them. Best for this cost: the path-KL-optimal
      grid of a stochastic kernel is not good for an ODE kernel.

    Raises:
      ValueError: the ends or n_steps are none, n_candidates <= n_steps, step_cost returns nan, or no path has finite
        cost.
    Source: dynamic programming; prior art on optimised schedules: Align Your Steps, arXiv:2404.14507; arXiv:2601.21943.
    """
    times, rounds = _shortest_paths(step_cost, n_steps, horizon, early_stop, n_candidates)
    path = [n_candidates - 1]
    for _, before in reversed(rounds):
        path.append(int(before[path[-1]]))
    return check_grid(times[path[::-1]])


def frontier(step_cost, n_steps, horizon, early_stop, *, n_candidates=1000):
    """The total cost of the optimal grids of 1, 2, ..., n_steps steps, (n_steps,), all from one pass; see `optimal`."""
    _, rounds = _shortest_paths(step_cost, n_steps, horizon, early_stop, n_candidates)
    return np.array([least[-1] for least, _ in rounds])


def _shortest_paths(step_cost, n_steps, horizon, early_stop, n_candidates):
    """Candidate times, and for k = 1..n_steps: least cost to each in k steps, and the candidate before it there."""
    _check(horizon, early_stop, n_steps)
    if n_candidates <= n_steps:
        raise ValueError(f"{n_steps} steps need more than {n_steps} candidates: n_candidates = {n_candidates}.")
    times = log_snr(horizon, early_stop, n_candidates - 1)
    end, start = np.tril_indices(n_candidates, -1)
    cost = np.full((n_candidates, n_candidates), np.inf)  # [end, start]
    cost[end, start] = step_cost(times[start], times[end])
    if np.isnan(cost).any():
        raise ValueError("step_cost returns nan for some pairs of times: check the curve it is made from.")
    rows = np.arange(n_candidates)
    least, rounds = np.where(rows == 0, 0.0, np.inf), []
    for _ in range(n_steps):
        total = cost + least
        before = np.argmin(total, axis=1)
        least = total[rows, before]
        rounds.append((least, before))
    if not np.isfinite(least[-1]):
        raise ValueError(f"no grid of {n_steps} steps has a finite cost: check the step_cost, {least[-1]} at best.")
    return times, rounds


def _fixed_ends(grid, horizon, early_stop):
    grid[0], grid[-1] = horizon, early_stop
    return check_grid(grid)


def _check(horizon, early_stop, n_steps):
    if isinstance(n_steps, bool) or not hasattr(n_steps, "__index__") or n_steps < 1:
        raise ValueError(f"n_steps must be a whole number, at least 1: n_steps = {n_steps!r}.")
    check_ends(horizon, early_stop)
