"""The grid of least total cost: a shortest path over candidate times, then polished off them.

A kernel's cost is a sum of terms in (t_k, t_{k+1}) alone, so the best path over candidates is global; polishing takes
it to the nearest minimum with nodes anywhere.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.grids.named import check_request, exponential_then_uniform, karras, log_snr, with_ends
from jaxdiff.processes import ou
from jaxdiff.types import Grid

NAMED = (exponential_then_uniform, karras, log_snr)  # an optimal grid is no worse than these
SEARCHED = 256  # steps looked for over the candidates; more are refined from half as many
STENCILS = 0.02, 0.001  # of the gap to a neighbour: derivatives are taken over it, coarse ones first
CLOSER = 0.4
ROUNDS, PRECISION, MOST_DAMPING = 100, 1e-10, 1e6  # of Newton's method


def optimal(
    step_cost,
    n_steps,
    horizon,
    early_stop,
    *,
    n_candidates=1000,
    start_cost=None,
    polish=True,
    around=None,
    longest=math.inf,
) -> Grid:
    """The grid of least total cost.

    A shortest path over candidates uniform in log snr, a global optimum there, then polished off them; beyond 256 steps
    refined from half as many. Polished, it is no worse than Benton's, Karras' and the log-snr grid.

    Args:
      step_cost: (t, t_next) -> cost, broadcasting, as information.step_cost makes it.
      n_steps: steps.
      horizon, early_stop: OU times.
      n_candidates: candidate times, both ends included; memory 8 n_candidates^2 bytes.
      start_cost: t -> cost of starting at t, broadcasting; the grid then starts at the best time up to the horizon.
      polish: False returns the best path over the candidates.
      around: a grid whose density the candidates have, with the same early stop; default uniform in log snr.
      longest: OU time that no step exceeds, `longest_step()` say.

    Returns:
      (n_steps + 1,). Best for this cost: the path-KL-optimal grid of a stochastic kernel is not good for an ODE kernel.

    Raises:
      ValueError: the ends or n_steps are none, step_cost returns nan, no path has finite cost, n_steps of the longest
        step do not lead from the horizon to the early stop, or, without polish, n_candidates does not exceed n_steps.
    Source: dynamic programming; prior art on optimised schedules: Align Your Steps, arXiv:2404.14507; arXiv:2601.21943.
    """
    check_request(horizon, early_stop, n_steps)
    problem = _Problem(step_cost, start_cost, float(horizon), float(early_stop), float(longest))
    problem.check_number(n_steps)
    search = _Search(problem, _halved(n_steps, n_candidates) if polish else n_steps, n_candidates, around)
    return search.best(n_steps) if polish else search.path(n_steps)


def frontier(step_cost, n_steps, horizon, early_stop, *, n_candidates=1000, start_cost=None):
    """The total cost of the best grids of 1, 2, ..., n_steps steps over the candidates, (n_steps,), from one pass.

    See `optimal` for the arguments; its polishing is left out, which for the path KL of N(0, I) is worth less than
    0.1 % to 30 steps and 1 % to 100.
    """
    check_request(horizon, early_stop, n_steps)
    search = _Search(_Problem(step_cost, start_cost, float(horizon), float(early_stop)), n_steps, n_candidates)
    return np.array([least[-1] for least, _ in search.rounds])


def fewest(
    step_cost,
    budget,
    horizon,
    early_stop,
    *,
    most=10_000,
    n_candidates=1000,
    start_cost=None,
    polish=True,
    around=None,
    longest=math.inf,
) -> Grid | None:
    """The optimal grid of the fewest steps whose total cost is within the budget; None where `most` steps are too few.

    See `optimal` for the other arguments. The cost of optimal grids is taken to fall with the number of steps.
    """
    check_request(horizon, early_stop, most)
    problem = _Problem(step_cost, start_cost, float(horizon), float(early_stop), float(longest))
    problem.check_number(most)
    search = _Search(problem, min(most, n_candidates - 1, SEARCHED if polish else most), n_candidates, around)
    reached = np.array([least[-1] for least, _ in search.rounds])
    enough = np.flatnonzero(reached <= budget)
    if not polish:
        return search.path(int(enough[0]) + 1) if len(enough) else None
    low, high, grids = problem.least_number - 1, most + 1, {}
    n = max(int(enough[0]) + 1 if len(enough) else len(reached), low + 1)
    while high - low > 1:
        grids[n] = search.best(n)
        cost = problem.total(grids[n])
        low, high = (low, n) if cost <= budget else (n, high)
        likely = n * cost / budget if budget > 0 else 2 * n  # costs fall like 1/n
        n = int(np.clip(np.ceil(min(likely, most)), low + 1, max(high - 1, low + 1)))
    return grids.get(high)


@dataclasses.dataclass(frozen=True)
class _Problem:
    """start_cost(t_0) + sum of step_cost(t_k, t_{k+1}) is minimised, t_0 the horizon or, with a start_cost, free.

    No step is longer than `longest`.
    """

    step_cost: Callable[..., Any]
    start_cost: Callable[..., Any] | None
    horizon: float
    early_stop: float
    longest: float = math.inf

    @property
    def least_number(self):
        """The fewest steps that lead from the horizon, or from a free start, to the early stop."""
        return max(1, math.ceil((self.horizon - self.early_stop) / self.longest)) if self.start_cost is None else 1

    def check_number(self, n_steps):
        """Raise ValueError where so many steps are too few."""
        if n_steps < self.least_number:
            raise ValueError(
                f"{n_steps} steps from horizon {self.horizon:g} to {self.early_stop:g} are too few: a float32 run "
                f"takes steps of OU time {self.longest:.3g} at most. Take {self.least_number} steps or more, or a "
                f"shorter horizon. Data of variance 1 and mean 0 need a horizon of about 5; plan(center=True) plans "
                f"for any mean as for 0."
            )

    def start(self, times):
        """The cost of starting at each of the times: nothing at the horizon, where the start is not free."""
        if self.start_cost is None:
            return np.where(times >= self.horizon * (1 - 1e-9), 0.0, np.inf)
        return np.broadcast_to(np.asarray(self.start_cost(times), np.float64), times.shape)

    def total(self, grid):
        """The cost of a grid; inf where it is not a number."""
        if -np.diff(grid).min() > self.longest:
            return math.inf
        cost = float(self.start(grid[:1])[0] + np.sum(self.step_cost(grid[:-1], grid[1:])))
        return math.inf if math.isnan(cost) else cost


class _Search:
    """Least costs over the candidates from one pass, and polished grids made from its paths."""

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
        least, self.rounds = problem.start(self.times), []  # for k = 1..n_steps: least cost to each, candidate before
        rows = np.arange(n_candidates)
        for _ in range(n_steps):
            total = cost + least
            before = np.argmin(total, axis=1)
            least = total[rows, before]
            self.rounds.append((least, before))
        if not np.isfinite(least[-1]):
            raise ValueError(f"no grid of {n_steps} steps has a finite cost: check the step_cost, {least[-1]} at best.")

    def path(self, n_steps):
        """The best path of so many steps over the candidates."""
        path = [len(self.times) - 1]
        for _, before in reversed(self.rounds[:n_steps]):
            path.append(int(before[path[-1]]))
        return self.times[path[::-1]]

    def best(self, n_steps):
        """The best grid of so many steps, polished, no worse than the named ones."""
        problem, n = self.problem, _halved(n_steps, len(self.times))
        grid = _polished(problem, self.path(n))
        while n < n_steps:
            n = min(2 * n, n_steps)
            grid = _polished(problem, _resampled(grid, n))
        named = min((make(problem.horizon, problem.early_stop, n) for make in NAMED), key=problem.total)
        return grid if problem.total(grid) <= problem.total(named) else _polished(problem, named)


def _with_ladder(times, longest):
    """Candidates and, where their ends are further apart than the longest step, the fewest equal steps between them.

    The fewest steps that reach are then a path over the candidates.
    """
    n_steps = math.ceil((times[0] - times[-1]) / longest)
    if n_steps < 2:
        return times
    ladder = np.linspace(times[0], times[-1], n_steps + 1)[1:-1]
    return np.unique(np.concatenate([times, ladder]))[::-1]


def _halved(n_steps, n_candidates):
    """n_steps, halved until at most SEARCHED and fewer than the candidates."""
    while n_steps > min(SEARCHED, n_candidates - 1) > 0:
        n_steps = -(-n_steps // 2)
    return n_steps


def _resampled(grid, n_steps):
    """A grid of more steps with nodes of the same density in log snr."""
    u = np.log(ou.snr(grid))
    u = np.interp(np.linspace(0, len(u) - 1, n_steps + 1), np.arange(len(u)), u)
    return with_ends(ou.time(np.exp(u)), grid[0], grid[-1])


def _polished(problem, grid):
    """The grid after its inner nodes, and a free start, have moved to a local minimum; the cost never rises."""
    for stencil in STENCILS:
        grid = _descended(problem, grid, stencil)
    return grid


# Newton's method in log snr: of a chain of costs the Hessian is tridiagonal. Where it is not positive, or a step would
# not pay, it is damped; no node goes further than 0.4 of the way to its neighbour at once.
def _descended(problem, grid, stencil):
    free = np.arange(len(grid)) < len(grid) - 1
    free[0] = problem.start_cost is not None and grid[0] < problem.horizon
    ends = None if free[0] else grid[0], grid[-1]
    total, damping, known = problem.total(grid), 0.0, None
    for _ in range(ROUNDS):
        u = np.log(ou.snr(grid))
        known = _derivatives(problem, u, free, stencil) if known is None else known
        slope, curvature, coupling = known
        size = np.abs(curvature) + np.abs(np.append(coupling, 0)) + np.abs(np.insert(coupling, 0, 0))
        step = -_solved(np.where(free, curvature + damping * size, 1.0), coupling, slope)
        cost = math.inf
        if np.isfinite(step).all():
            gap = np.diff(u)
            step = np.clip(step, -CLOSER * np.append(np.inf, gap), CLOSER * np.append(gap, np.inf))
            moved = np.maximum(u + step, np.log(ou.snr(problem.horizon)))  # a free start goes no further
            trial = with_ends(ou.time(np.exp(moved)), *ends)
            cost = problem.total(trial)
        if cost < total:
            done = total - cost < PRECISION * abs(total)
            grid, total, damping, known = trial, cost, damping / 8, None
        else:
            done = damping > MOST_DAMPING
            damping = max(8 * damping, 1e-3)
        if done:
            break
    return grid


def _derivatives(problem, u, free, stencil):
    """Gradient (nodes,), second derivatives (nodes,) and couplings of neighbours (nodes - 1,); 0 for nodes not free."""
    gap = np.minimum(np.diff(u, prepend=-np.inf), np.diff(u, append=np.inf))
    reach = np.where(free, stencil * gap, 0.0)
    times = ou.time(np.exp(u[:, None] + reach[:, None] * np.array([-1, 0, 1])))
    cost = np.broadcast_to(problem.step_cost(times[:-1, :, None], times[1:, None, :]), (len(u) - 1, 3, 3))
    slope, curvature = np.zeros_like(u), np.zeros_like(u)
    ways = [(slice(None, -1), cost[:, :, 1]), (slice(1, None), cost[:, 1, :])]
    if free[0]:
        ways.append((slice(0, 1), problem.start(times[0])[None]))
    for at, (low, middle, high) in ((at, values.T) for at, values in ways):
        slope[at] += (high - low) / 2
        curvature[at] += high - 2 * middle + low
    mixed = (cost[:, 2, 2] - cost[:, 2, 0] - cost[:, 0, 2] + cost[:, 0, 0]) / 4
    reach = np.where(free, reach, np.inf)
    return slope / reach, curvature / reach**2, mixed / (reach[:-1] * reach[1:])


def _solved(diagonal, beside, right):
    """The solution of a symmetric tridiagonal system, by elimination; not finite where it is singular."""
    diagonal, right = diagonal.tolist(), right.tolist()
    for i, b in enumerate(beside.tolist()):
        share = b / (diagonal[i] or math.nan)
        diagonal[i + 1] -= share * b
        right[i + 1] -= share * right[i]
    found = [right[-1] / (diagonal[-1] or math.nan)]
    for i in range(len(beside) - 1, -1, -1):
        found.append((right[i] - beside[i] * found[-1]) / diagonal[i])
    return np.array(found[::-1])
