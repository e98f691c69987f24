"""The path KL of other kernels and grids, for comparison with a plan."""

import dataclasses
import functools
import math
from typing import Any

from jaxdiff.certificate import DISCRETISATION, Certificate
from jaxdiff.curves import Curve
from jaxdiff.grids import exponential_then_uniform, runs_in_float32
from jaxdiff.guarantees.cross_fit import cross_fits, cross_fitted
from jaxdiff.guarantees.path_kl import path_kl, path_kl_error
from jaxdiff.kernels import PATH_COSTS
from jaxdiff.planning.best_grid import FEW_CANDIDATES, PAIRS, best
from jaxdiff.planning.goal import steps_to_reach
from jaxdiff.types import Grid, PathCost

BENTON, OPTIMAL = "exponential_then_uniform", "optimal"  # the grids that are compared
ROUNDING = 1e-12  # nats. A smaller discretisation is 0 up to rounding, and no number of steps equals it.
FEW_STEPS = 100  # Covariance matching is compared up to so many steps: searching for a longer grid takes minutes.
WIDEST = 3.0  # A number of steps or a ratio is not given where the ends of its interval differ by a larger factor.


def alternatives_to(cost: PathCost, grid: Grid, curve: Curve, certificate: Certificate) -> tuple[dict[str, Any], ...]:
    """The path KL of other samplers with as many evaluations, and the evaluations that exponential Euler needs.

    All grids have the same ends. Exponential Euler, on Benton's grid, needs so many evaluations for the path KL of the
    plan.

    Args:
      cost: the PathCost of the planned kernel.
      grid: the planned grid.
      curve: the curve that the grid was planned with.
      certificate: that of the plan.

    Returns:
      A tuple of dicts, JSON data: kernel, grid, per_direction, evals, path_kl, with standard_error where there is one.
    """
    n, ends, matching = len(grid) - 1, (float(grid[0]), float(grid[-1])), PATH_COSTS["moment_matched"]
    per_direction = dataclasses.replace(matching, basis=curve.basis)
    euler, ancestral = PATH_COSTS["exponential_euler"], PATH_COSTS["ancestral"]
    found = [(euler, BENTON), (ancestral, BENTON), (ancestral, OPTIMAL)]
    found += [(dataclasses.replace(matching, basis=cost.basis), BENTON), (matching, OPTIMAL)]
    if cross_fits(matching, curve) and curve.basis is not None and cost.basis is None:
        found.append((per_direction, OPTIMAL))
    small = n <= FEW_STEPS and curve.dim * FEW_CANDIDATES**2 <= PAIRS
    if curve.log_det is not None and not curve.replicates and small:
        found.append((PATH_COSTS["covariance_matched"], OPTIMAL))
    is_planned = lambda other, shape: shape == OPTIMAL and (other.kernel, other.basis is None) == planned
    planned = cost.kernel, cost.basis is None
    rows = [_row(other, shape, ends, n, curve) for other, shape in found if not is_planned(other, shape)]
    rows = [row for row in rows if row["path_kl"] < math.inf]  # where float32 allows every step
    counts = _steps_of_euler(lambda n: path_kl(euler, curve, exponential_then_uniform(*ends, n)), certificate)
    if counts is not None:
        n, fewest, most = counts
        row = _row(euler, BENTON, ends, n, curve)
        rows.append(row | ({"evals_interval": [fewest, most]} if most > fewest else {}))
    return tuple(rows)


# The interval leaves out the standard error of exponential Euler's own path KL. At the few nats of a plan that error is
# far smaller than the plan's.
def _steps_of_euler(cost, certificate):
    """The steps with which `cost` equals the plan's discretisation, and the ends of their interval; or None.

    None where the interval of the plan's discretisation contains 0, or where the ends of the interval of the steps
    differ by a factor of more than WIDEST.
    """
    reached, (low, high) = certificate[DISCRETISATION].value, certificate.interval(DISCRETISATION)
    if low <= ROUNDING:
        return None
    n = steps_to_reach(reached, cost)
    fewest, most = (n, n) if high == low else (steps_to_reach(goal, cost) for goal in (high, low))
    if n is None or fewest is None or most is None or most > WIDEST * fewest:
        return None
    return n, fewest, most


def _row(cost, shape, ends, n_steps, curve):
    kl, error = _measured(cost, shape, ends, n_steps, curve)
    row = {"kernel": cost.kernel, "grid": shape, "evals": n_steps, "path_kl": kl}
    row |= {"per_direction": cost.basis is not None}
    return row | ({"standard_error": error} if error > 0 else {})


def _measured(cost, shape, ends, n_steps, curve):
    """The path KL of a kernel on its grid of a shape, and its standard error.

    The path KL is cross-fitted where the curve's rows set the variance or the grid. It is infinite where the grid has a
    step that float32 does not allow.
    """
    grid_of = functools.partial(_grid_of, cost, shape, ends, n_steps)
    if shape == BENTON and not runs_in_float32(grid_of(curve)):
        return math.inf, 0.0
    if cross_fits(cost, curve) and (cost.matches or shape == OPTIMAL):
        term = cross_fitted(cost, curve, grid_of)
        return term.value, term.standard_error
    grid = grid_of(curve)
    if not runs_in_float32(grid):
        return math.inf, 0.0
    return path_kl(cost, curve, grid), path_kl_error(cost, curve, grid)


def _grid_of(cost, shape, ends, n_steps, curve):
    horizon, early_stop = ends
    if shape == BENTON:
        return exponential_then_uniform(horizon, early_stop, n_steps)
    return best(cost, curve, horizon, early_stop, n_steps)
