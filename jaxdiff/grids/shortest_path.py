"""The grid of least total cost: a shortest path over candidate times, whose nodes Newton's method then polishes.

A kernel's cost is a sum of terms that depend on (t_k, t_{k+1}) only. So dynamic programming finds the global optimum
over the candidates. Polishing moves the nodes from there to the nearest local minimum among all times.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64

from jaxdiff.grids.dynamic_programming import rounds_of_least_costs
from jaxdiff.grids.named import check_request, exponential_then_uniform, karras, log_snr, with_ends
from jaxdiff.grids.polishing import polished
from jaxdiff.processes import ou
from jaxdiff.types import Grid, Number, Whole

NAMED = (exponential_then_uniform, karras, log_snr)  # a polished grid costs no more than any of these
# The most steps of a path over the candidates. A longer grid is polished from one of half as many steps. The search
# takes time n_steps n_candidates^2, and the default of 1,000 candidates is too coarse for more steps.
SEARCHED = 256


def optimal(
    step_cost: Callable[..., Any],
    horizon: Number,
    early_stop: Number,
    n_steps: Whole,
    *,
    n_candidates: Whole = 1000,
    start_cost: Callable[..., Any] | None = None,
    polish: bool = True,
    around: Float64[np.ndarray, " others"] | None = None,
    longest: Number = math.inf,
) -> Grid:
    """The grid of least total cost.

    The search finds a shortest path over candidate times that are uniform in log snr, the global optimum among them.
    Newton's method then polishes its nodes. A grid of more than 256 steps is polished from one of half as many steps. A
    polished grid costs no more than Benton's, Karras' and the log-snr grid.

    Args:
      step_cost: (t, t_next) -> cost, broadcasting, as information.step_cost makes it.
      n_steps: steps.
      horizon, early_stop: OU times.
      n_candidates: number of candidate times, both ends included; they take 8 n_candidates^2 bytes.
      start_cost: t -> cost of starting at t, broadcasting; the grid then starts at the best time up to the horizon.
      polish: False returns the best path over the candidates.
      around: a grid with the same early stop, whose density the candidates take; default uniform in log snr.
      longest: OU time that no step exceeds, `longest_step()` for example.

    Returns:
      (n_steps + 1,) decreasing OU times, best for this cost only: an optimal grid for the path KL of a stochastic
      kernel is not good for an ODE kernel.

    Raises:
      ValueError: the ends are not two OU times, n_steps is not a positive whole number, step_cost returns nan, no path
        has finite cost, n_steps of the longest step do not lead from the horizon to the early stop, or, without polish,
        n_candidates does not exceed n_steps.
    Source: dynamic programming; prior art on optimised schedules: Align Your Steps, arXiv:2404.14507; arXiv:2601.21943.
    """
    check_request(horizon, early_stop, n_steps)
    problem = Problem(step_cost, start_cost, float(horizon), float(early_stop), float(longest))
    problem.check_number(n_steps)
    search = _Search(problem, _halved(n_steps, n_candidates) if polish else n_steps, n_candidates, around)
    return search.best(n_steps) if polish else search.path(n_steps)


def frontier(
    step_cost: Callable[..., Any],
    horizon: Number,
    early_stop: Number,
    n_steps: Whole,
    *,
    n_candidates: Whole = 1000,
    start_cost: Callable[..., Any] | None = None,
) -> Float64[np.ndarray, " steps"]:
    """The total cost of the best grids of 1, 2, ..., n_steps steps over the candidates, (n_steps,), from one search.

    See `optimal` for the arguments. These grids are not polished. For the path KL of N(0, I) polishing would lower the
    cost by less than 0.1 % up to 30 steps and 1 % up to 100 steps.
    """
    check_request(horizon, early_stop, n_steps)
    search = _Search(Problem(step_cost, start_cost, float(horizon), float(early_stop)), n_steps, n_candidates)
    return np.array([least[-1] for least, _ in search.rounds])


def fewest(
    step_cost: Callable[..., Any],
    horizon: Number,
    early_stop: Number,
    budget: Number,
    *,
    most: Whole = 10_000,
    n_candidates: Whole = 1000,
    start_cost: Callable[..., Any] | None = None,
    polish: bool = True,
    around: Float64[np.ndarray, " others"] | None = None,
    longest: Number = math.inf,
) -> Grid | None:
    """The optimal grid of the fewest steps whose total cost is within the budget; None where `most` steps are too few.

    See `optimal` for the other arguments. The search is a bisection: it supposes that the cost of optimal grids falls
    as the number of steps grows.
    """
    check_request(horizon, early_stop, most)
    problem = Problem(step_cost, start_cost, float(horizon), float(early_stop), float(longest))
    problem.check_number(most)
    search = _Search(problem, min(most, n_candidates - 1, SEARCHED if polish else most), n_candidates, around)
    least_costs = np.array([least[-1] for least, _ in search.rounds])
    enough = np.flatnonzero(least_costs <= budget)
    if not polish:
        return search.path(int(enough[0]) + 1) if len(enough) else None
    low, high, grids = problem.least_number - 1, most + 1, {}
    n = max(int(enough[0]) + 1 if len(enough) else len(least_costs), low + 1)
    while high - low > 1:
        grids[n] = search.best(n)
        cost = problem.total(grids[n])
        low, high = (low, n) if cost <= budget else (n, high)
        likely = n * cost / budget if budget > 0 else 2 * n  # the cost of optimal grids falls like 1/n
        n = int(np.clip(np.ceil(min(likely, most)), low + 1, max(high - 1, low + 1)))
    return grids.get(high)


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is minimised: start_cost(t_0) + sum of step_cost(t_k, t_{k+1}), with no step longer than `longest`.

    Without a start_cost, t_0 is the horizon. With one, t_0 is any time up to the horizon.
    """

    step_cost: Callable[..., Any]
    start_cost: Callable[..., Any] | None
    horizon: float
    early_stop: float
    longest: float = math.inf

    @property
    def least_number(self) -> int:
        """The fewest steps, none longer than `longest`, from the horizon or from a free start to the early stop."""
        return max(1, math.ceil((self.horizon - self.early_stop) / self.longest)) if self.start_cost is None else 1

    def check_number(self, n_steps: Whole) -> None:
        """Raise ValueError where so many steps are too few."""
        if n_steps < self.least_number:
            raise ValueError(
                f"{n_steps} steps from horizon {self.horizon:g} to {self.early_stop:g} are too few: a float32 run "
                f"takes steps of OU time {self.longest:.3g} at most. Take {self.least_number} steps or more, or a "
                f"shorter horizon. Data of variance 1 and mean 0 need a horizon of about 5; plan(center=True) plans "
                f"for any mean as for 0."
            )

    def start(self, times: np.ndarray) -> np.ndarray:
        """The cost of starting at each of the times; without a start_cost, 0 at the horizon and inf elsewhere."""
        if self.start_cost is None:
            return np.where(times >= self.horizon * (1 - 1e-9), 0.0, np.inf)
        return np.broadcast_to(np.asarray(self.start_cost(times), np.float64), times.shape)

    def total(self, grid: Grid) -> float:
        """The cost of a grid; inf where a step is too long or the cost is nan."""
        if -np.diff(grid).min() > self.longest:
            return math.inf
        cost = float(self.start(grid[:1])[0] + np.sum(self.step_cost(grid[:-1], grid[1:])))
        return math.inf if math.isnan(cost) else cost


class _Search:
    """Dynamic programming over the candidates, and polished grids made from its paths."""

    def __init__(self, problem, n_steps, n_candidates, around=None):
        if n_candidates <= n_steps:
            raise ValueError(f"{n_steps} steps need more than {n_steps} candidates: n_candidates = {n_candidates}.")
        self.problem = problem
        uniform = log_snr(problem.horizon, problem.early_stop, n_candidates - 1)
        self.times = _with_ladder(uniform if around is None else _resampled(around, n_candidates - 1), problem.longest)
        n_candidates = len(self.times)
        end, start = np.tril_indices(n_candidates, -1)
        cost = np.full((n_candidates, n_candidates), np.inf)  # [end, start]
        cost[end, start] = problem.step_cost(self.times[start], self.times[end])
        if np.isnan(cost).any():
            raise ValueError("step_cost returns nan for some pairs of times: check the curve it is made from.")
        cost[self.times - self.times[:, None] > problem.longest] = np.inf
        # rounds[k - 1]: the least cost of reaching each candidate in k steps, and the candidate before it on that path
        self.rounds = rounds_of_least_costs(cost, problem.start(self.times), n_steps)
        least = self.rounds[-1][0]
        if not np.isfinite(least[-1]):
            raise ValueError(f"no grid of {n_steps} steps has a finite cost: check the step_cost, {least[-1]} at best.")

    def path(self, n_steps):
        """The best path of n_steps steps over the candidates."""
        path = [len(self.times) - 1]
        for _, before in reversed(self.rounds[:n_steps]):
            path.append(int(before[path[-1]]))
        return self.times[path[::-1]]

    def best(self, n_steps):
        """The best grid of n_steps steps, polished; it costs no more than the named ones."""
        problem, n = self.problem, _halved(n_steps, len(self.times))
        grid = polished(problem, self.path(n))
        while n < n_steps:
            n = min(2 * n, n_steps)
            grid = polished(problem, _resampled(grid, n))
        named = min((make(problem.horizon, problem.early_stop, n) for make in NAMED), key=problem.total)
        return grid if problem.total(grid) <= problem.total(named) else polished(problem, named)


def _with_ladder(times, longest):
    """The candidates and, where one step from end to end is too long, the nodes of the fewest equal steps.

    So there is always a path over the candidates that has the fewest steps possible.
    """
    n_steps = math.ceil((times[0] - times[-1]) / longest)
    if n_steps < 2:
        return times
    ladder = np.linspace(times[0], times[-1], n_steps + 1)[1:-1]
    return np.unique(np.concatenate([times, ladder]))[::-1]


def _halved(n_steps, n_candidates):
    """n_steps, halved until it is at most SEARCHED and less than the number of candidates."""
    while n_steps > min(SEARCHED, n_candidates - 1) > 0:
        n_steps = -(-n_steps // 2)
    return n_steps


def _resampled(grid, n_steps):
    """A grid of n_steps steps whose nodes have the same density in log snr as those of `grid`."""
    u = np.log(ou.snr(grid))
    u = np.interp(np.linspace(0, len(u) - 1, n_steps + 1), np.arange(len(u)), u)
    return with_ends(ou.time(np.exp(u)), grid[0], grid[-1])
