"""The best grid of a sampler by a curve, for a number of steps or a budget, looked for as finely as it can afford.

A step of covariance matching costs a log det: its grids are not polished but looked for twice, among times uniform in
log snr and among as many around what was found.
"""

import math
import operator
import weakref
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.curves import Curve
from jaxdiff.grids import fewest, longest_step, optimal
from jaxdiff.grids.named import check_request
from jaxdiff.guarantees.path_kl import step_cost
from jaxdiff.planning.goal import MOST_EVALS
from jaxdiff.types import Basis, Grid

CANDIDATES, PAIRS = 1000, 2**25  # times that a grid is looked for among; pairs of them times directions
FEW_CANDIDATES, MOST_CANDIDATES, CANDIDATES_A_STEP, LEAST_A_STEP = 400, 2400, 8, 4  # where a step costs a log det
FOUND: weakref.WeakKeyDictionary[Curve, dict[tuple[Any, ...], Grid]] = weakref.WeakKeyDictionary()


class Search(NamedTuple):
    """A sampler, by the name of its kernel and the basis of moment matching, and the curve that its path KL is of.

    No grid found has a step that `sample` refuses in float32, the shortest-stepped of the dtypes it checks.
    """

    kernel: str
    curve: Curve
    basis: Basis

    @property
    def dear(self):
        """Whether a step costs a log det."""
        return self.kernel == "covariance_matched"

    @property
    def cost(self):
        """(t, t_next) -> nats."""
        return step_cost(self.kernel, self.curve, basis=self.basis)

    def best(self, n_steps, horizon, early_stop, start_cost=None) -> Grid:
        """The optimal grid of so many steps; with a start_cost from the best time up to the horizon."""
        check_request(horizon, early_stop, n_steps)
        n_steps, horizon, early_stop = operator.index(n_steps), float(horizon), float(early_stop)
        cost, options = self.cost, self._options(n_steps) | {"longest": longest_step()}
        if start_cost is None:  # a curve never changes, and planning, certifying and comparing ask for the same grids
            asked = (self.kernel, self.basis is None, n_steps, horizon, early_stop, *options.values())
            known = FOUND.setdefault(self.curve, {})
            if asked not in known:
                known[asked] = self._best(cost, n_steps, horizon, early_stop, None, options)
            return known[asked].copy()
        return self._best(cost, n_steps, horizon, early_stop, start_cost, options)

    def _best(self, cost, n_steps, horizon, early_stop, start_cost, options):
        found = lambda **more: optimal(cost, n_steps, horizon, early_stop, start_cost=start_cost, **options, **more)
        return found(around=found()) if self.dear else found()

    def fewest(self, budget, horizon, early_stop, start_cost=None) -> Grid | None:
        """The optimal grid of the fewest steps within a budget; None where `most` are too few."""
        limits = {"start_cost": start_cost, "longest": longest_step()}
        within = lambda most, **more: fewest(self.cost, budget, horizon, early_stop, most=most, **limits, **more)
        if not self.dear:
            return within(self.most, **self._options(self.most))
        n, tried, grid = 0, {}, None
        while self._options(n) != tried:  # more candidates the more steps there are
            tried = self._options(n)
            most = tried["n_candidates"] // LEAST_A_STEP
            grid = within(most, **tried)
            n = 2 * most if grid is None else max(n, len(grid) - 1)
        again = None if grid is None else within(len(grid) - 1, around=grid, **self._options(len(grid) - 1))
        return grid if again is None else again

    @property
    def most(self):
        """Steps beyond which no grid within a budget is looked for."""
        return MOST_CANDIDATES // LEAST_A_STEP if self.dear else MOST_EVALS

    def _options(self, n_steps) -> dict[str, Any]:
        if self.dear:
            candidates = int(np.clip(CANDIDATES_A_STEP * n_steps, FEW_CANDIDATES, MOST_CANDIDATES))
            return {"n_candidates": max(candidates, 2 * n_steps), "polish": False}
        each = 1 if self.basis is None else self.curve.dim
        return {"n_candidates": int(min(CANDIDATES, math.isqrt(2 * PAIRS // each)))}
