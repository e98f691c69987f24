"""Newton's method on the nodes of a grid: moves them off the candidate times to a local minimum of the cost."""

import math
from typing import Any

import numpy as np

from jaxdiff.grids.named import with_ends
from jaxdiff.processes import ou
from jaxdiff.types import Grid

# Derivatives are central differences over these fractions of the gap in log snr to the nearer neighbour. The first run
# of Newton's method uses the larger fraction, which is robust far from the minimum. The second run uses the smaller
# fraction, whose differences are closer to the derivatives.
STENCILS = 0.02, 0.001
# A node moves by at most this fraction of the gap to its neighbour in one step. Below 1/2, nodes keep their order.
MOST_OF_GAP = 0.4
# A run of Newton's method ends after ROUNDS steps, or when a step lowers the cost by less than PRECISION of itself, or
# when a damping of MOST_DAMPING times the diagonal still finds no lower cost.
ROUNDS, PRECISION, MOST_DAMPING = 100, 1e-10, 1e6


def polished(problem: Any, grid: Grid) -> Grid:
    """The grid with its inner nodes, and a free start, moved to a local minimum of the cost, which never rises.

    `problem` is a `shortest_path.Problem`.
    """
    for stencil in STENCILS:
        grid = _newton(problem, grid, stencil)
    return grid


# A step's cost depends on its two ends only, so the Hessian of the total cost is tridiagonal. Where the Hessian is not
# positive definite, or a Newton step does not lower the cost, the diagonal is raised (Levenberg-Marquardt damping).
def _newton(problem, grid, stencil):
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
            step = np.clip(step, -MOST_OF_GAP * np.append(np.inf, gap), MOST_OF_GAP * np.append(gap, np.inf))
            moved = np.maximum(u + step, np.log(ou.snr(problem.horizon)))  # a free start stays below the horizon
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
    """Gradient (nodes,), second derivatives (nodes,) and mixed ones (nodes - 1,); 0 for nodes that are not free."""
    gap = np.minimum(np.diff(u, prepend=-np.inf), np.diff(u, append=np.inf))
    shift = np.where(free, stencil * gap, 0.0)
    times = ou.time(np.exp(u[:, None] + shift[:, None] * np.array([-1, 0, 1])))
    cost = np.broadcast_to(problem.step_cost(times[:-1, :, None], times[1:, None, :]), (len(u) - 1, 3, 3))
    slope, curvature = np.zeros_like(u), np.zeros_like(u)
    changes = [(slice(None, -1), cost[:, :, 1]), (slice(1, None), cost[:, 1, :])]
    if free[0]:
        changes.append((slice(0, 1), problem.start(times[0])[None]))
    for at, (low, middle, high) in ((at, values.T) for at, values in changes):
        slope[at] += (high - low) / 2
        curvature[at] += high - 2 * middle + low
    mixed = (cost[:, 2, 2] - cost[:, 2, 0] - cost[:, 0, 2] + cost[:, 0, 0]) / 4
    shift = np.where(free, shift, np.inf)
    return slope / shift, curvature / shift**2, mixed / (shift[:-1] * shift[1:])


def _solved(diagonal, beside, right):
    """The solution of a symmetric tridiagonal system, by elimination; not finite where it is singular."""
    diagonal, right = diagonal.tolist(), right.tolist()
    for i, b in enumerate(beside.tolist()):
        factor = b / (diagonal[i] or math.nan)
        diagonal[i + 1] -= factor * b
        right[i + 1] -= factor * right[i]
    found = [right[-1] / (diagonal[-1] or math.nan)]
    for i in range(len(beside) - 1, -1, -1):
        found.append((right[i] - beside[i] * found[-1]) / diagonal[i])
    return np.array(found[::-1])
