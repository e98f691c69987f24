"""The best grid of a kernel by an error curve, for a number of steps or within a budget of nats.

The search is as fine as its cost allows. A step of covariance matching costs a log det: its grids are searched among
few times that are uniform in log snr, then among as many around the first result, and they are not polished.
"""

import math
import operator
import weakref
from typing import Any

import numpy as np

from jaxdiff.curves import Curve
from jaxdiff.grids import fewest, longest_step, optimal
from jaxdiff.grids.named import check_request
from jaxdiff.guarantees.step_cost import check_directions, step_cost
from jaxdiff.planning.goal import MOST_EVALS
from jaxdiff.types import Grid, PathCost

CANDIDATES = 1000  # times that a grid is searched among: the optimum among them is polished, so more change nothing
PAIRS = 2**25  # pairs of candidates, times directions, whose costs are computed: 256 MiB of float64
FEW_CANDIDATES, MOST_CANDIDATES = 400, 2400  # where a step costs a log det: seconds to minutes of search
CANDIDATES_A_STEP, LEAST_A_STEP = 8, 4  # there, for each step: with fewer the steps are visibly uneven
FOUND: weakref.WeakKeyDictionary[Curve, dict[tuple[Any, ...], Grid]] = weakref.WeakKeyDictionary()


def best(cost: PathCost, curve: Curve, n_steps, horizon, early_stop, start_cost=None) -> Grid:
    """The grid of least path KL with n_steps, no step of which is longer than float32 allows.

    Args:
      cost: of the kernel; its variance is set from `curve` where cost.variance is None.
      curve: the error curve. Grids are remembered for as long as the curve exists, as it never changes.
      n_steps, horizon, early_stop: of the grid.
      start_cost: t -> nats of starting at t; with it the first node is free, and at most the horizon.
    """
    check_request(horizon, early_stop, n_steps)
    check_directions(cost, curve)
    n_steps, horizon, early_stop = operator.index(n_steps), float(horizon), float(early_stop)
    options = _options(cost, curve, n_steps) | {"longest": longest_step()}
    find = lambda start: _searched(cost, curve, n_steps, horizon, early_stop, start, options)
    if start_cost is not None or cost.variance is not None:
        return find(start_cost)
    asked = (cost.kernel, cost.basis is None, n_steps, horizon, early_stop, *options.values())
    known = FOUND.setdefault(curve, {})
    if asked not in known:
        known[asked] = find(None)
    return known[asked].copy()


def _searched(cost, curve, n_steps, horizon, early_stop, start_cost, options):
    nats = step_cost(cost, curve)
    found = lambda **more: optimal(nats, n_steps, horizon, early_stop, start_cost=start_cost, **options, **more)
    return found(around=found()) if _costs_a_log_det(cost) else found()


def fewest_steps(cost: PathCost, curve: Curve, budget, horizon, early_stop, start_cost=None) -> Grid | None:
    """The best grid of the fewest steps whose path KL is within a budget; None where `most_steps` are too few."""
    limits = {"start_cost": start_cost, "longest": longest_step()}
    nats = step_cost(cost, curve)
    within = lambda most, **more: fewest(nats, budget, horizon, early_stop, most=most, **limits, **more)
    if not _costs_a_log_det(cost):
        return within(most_steps(cost), **_options(cost, curve, most_steps(cost)))
    n, tried, grid = 0, {}, None
    while _options(cost, curve, n) != tried:  # more candidates the more steps there are
        tried = _options(cost, curve, n)
        most = tried["n_candidates"] // LEAST_A_STEP
        grid = within(most, **tried)
        n = 2 * most if grid is None else max(n, len(grid) - 1)
    if grid is None:
        return None
    again = within(len(grid) - 1, around=grid, **_options(cost, curve, len(grid) - 1))
    return grid if again is None else again


def most_steps(cost: PathCost):
    """Steps beyond which no grid within a budget is searched for."""
    return MOST_CANDIDATES // LEAST_A_STEP if _costs_a_log_det(cost) else MOST_EVALS


def _costs_a_log_det(cost):
    return cost.uses == "log_det"


def _options(cost, curve, n_steps) -> dict[str, Any]:
    """How finely a grid of n_steps is searched for."""
    if _costs_a_log_det(cost):
        candidates = int(np.clip(CANDIDATES_A_STEP * n_steps, FEW_CANDIDATES, MOST_CANDIDATES))
        return {"n_candidates": max(candidates, 2 * n_steps), "polish": False}
    each = 1 if cost.basis is None else curve.dim
    return {"n_candidates": int(min(CANDIDATES, math.isqrt(2 * PAIRS // each)))}
