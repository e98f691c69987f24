"""The grid of least path KL for a kernel and an error curve, with a number of steps or within a budget of nats.

This module chooses how many candidate times `grids.optimal` searches. For most kernels they are 1,000, and the result
is polished. The cost of a step of covariance matching takes a log det of the posterior covariance. Its grids are
searched twice, first among few candidates uniform in log snr, then among as many around the first result. They are not
polished.
"""

import math
import operator
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.arrays import Scalar
from jaxdiff.curves import Curve
from jaxdiff.grids import fewest, longest_step, optimal
from jaxdiff.grids.named import check_request
from jaxdiff.guarantees.step_cost import check_directions, step_cost
from jaxdiff.planning.goal import MOST_EVALS
from jaxdiff.types import Grid, PathCost

CANDIDATES = 1000  # candidate times. The best grid among them is polished, so more candidates hardly change it.
PAIRS = 2**25  # pairs of candidates, times directions, whose costs are held at once: 256 MiB of float64
# The least and the largest number of candidates where the cost takes a log det. The search takes seconds with the least
# and minutes with the largest.
FEW_CANDIDATES, MOST_CANDIDATES = 400, 2400
# Candidates for each step of the grid where the cost takes a log det: the number that is used, within the limits above,
# and the least with which `fewest_steps` searches. The nodes of such a grid are candidates. With fewer candidates the
# lengths of neighbouring steps differ visibly; the time of the search grows with the square of their number.
CANDIDATES_A_STEP, LEAST_A_STEP = 8, 4
FOUND: weakref.WeakKeyDictionary[Curve, dict[tuple[Any, ...], Grid]] = weakref.WeakKeyDictionary()  # grids by curve


def best(
    cost: PathCost,
    curve: Curve,
    horizon: Scalar,
    early_stop: Scalar,
    n_steps: Any,
    start_cost: Callable[[Any], Any] | None = None,
) -> Grid:
    """The grid of least path KL with n_steps, all of them short enough for float32 (grids.longest_step).

    Args:
      cost: that of the kernel. Its variance is set from `curve` where cost.variance is None.
      curve: the error curve. A curve never changes, so its grids are remembered for as long as it exists.
      horizon, early_stop: the grid's first and last OU time.
      n_steps: number of steps.
      start_cost: t -> nats that a start at time t costs. With it the first time is chosen too, at most the horizon.

    Raises:
      ValueError: n_steps or the ends are not valid, so few steps are too long for float32, or the curve lacks errors
        along the directions of the cost.
    """
    check_request(horizon, early_stop, n_steps)
    check_directions(cost, curve)
    n_steps, horizon, early_stop = operator.index(n_steps), float(horizon), float(early_stop)
    options = _options(cost, curve, n_steps) | {"longest": longest_step()}
    find = lambda start: _searched(cost, curve, horizon, early_stop, n_steps, start, options)
    if start_cost is not None or cost.variance is not None:
        return find(start_cost)
    asked = (cost.kernel, cost.basis is None, horizon, early_stop, n_steps, *options.values())
    known = FOUND.setdefault(curve, {})
    if asked not in known:
        known[asked] = find(None)
    return known[asked].copy()


def _searched(cost, curve, horizon, early_stop, n_steps, start_cost, options):
    nats = step_cost(cost, curve)
    found = lambda **more: optimal(nats, horizon, early_stop, n_steps, start_cost=start_cost, **options, **more)
    return found(around=found()) if _costs_a_log_det(cost) else found()


def fewest_steps(
    cost: PathCost,
    curve: Curve,
    horizon: Scalar,
    early_stop: Scalar,
    budget: Scalar,
    start_cost: Callable[[Any], Any] | None = None,
) -> Grid | None:
    """The best grid with the fewest steps whose path KL is within a budget in nats; see `best` for the arguments.

    None where `most_steps` steps are too few.
    """
    limits = {"start_cost": start_cost, "longest": longest_step()}
    nats = step_cost(cost, curve)
    within = lambda most, **more: fewest(nats, horizon, early_stop, budget, most=most, **limits, **more)
    if not _costs_a_log_det(cost):
        return within(most_steps(cost), **_options(cost, curve, most_steps(cost)))
    n, tried, grid = 0, {}, None
    while _options(cost, curve, n) != tried:  # a longer grid needs more candidates, so the search is repeated
        tried = _options(cost, curve, n)
        most = tried["n_candidates"] // LEAST_A_STEP
        grid = within(most, **tried)
        n = 2 * most if grid is None else max(n, len(grid) - 1)
    if grid is None:
        return None
    again = within(len(grid) - 1, around=grid, **_options(cost, curve, len(grid) - 1))
    return grid if again is None else again


def most_steps(cost: PathCost) -> int:
    """The largest number of steps that `fewest_steps` considers."""
    return MOST_CANDIDATES // LEAST_A_STEP if _costs_a_log_det(cost) else MOST_EVALS


def _costs_a_log_det(cost):
    return cost.uses == "log_det"


def _options(cost, curve, n_steps) -> dict[str, Any]:
    """The options of `grids.optimal` for a grid of n_steps: the number of candidates, and whether to polish."""
    if _costs_a_log_det(cost):
        candidates = int(np.clip(CANDIDATES_A_STEP * n_steps, FEW_CANDIDATES, MOST_CANDIDATES))
        return {"n_candidates": max(candidates, 2 * n_steps), "polish": False}
    each = 1 if cost.basis is None else curve.dim
    return {"n_candidates": int(min(CANDIDATES, math.isqrt(2 * PAIRS // each)))}
