"""Decides by held-out rows whether moment matching takes one variance, or one for each direction."""

import dataclasses
from typing import Any

import numpy as np

from jaxdiff.guarantees.cross_fit import measured_term
from jaxdiff.guarantees.difference import difference_of
from jaxdiff.guarantees.path_kl import path_kl, path_kl_samples
from jaxdiff.intervals import rows_needed
from jaxdiff.planning.best_grid import best
from jaxdiff.types import Grid, PathCost


def doubt_of_directions(cost: PathCost, curve: Any, grid: Grid, confidence: float | int) -> str:
    """Why one variance for all directions is planned, as a sentence; "" where one for each direction costs less.

    One for each direction costs less if the cross-fitted difference of the two path KLs is above 0 with this
    confidence. Each of the two has its own best grid, and the difference is measured on the same groups of rows.

    Args:
      cost: the PathCost of moment matching with a variance for each direction of the curve's basis.
      curve: the MeasuredCurve of held-out rows.
      grid: both best grids have its ends and its number of steps.
      confidence: one-sided, of the comparison.
    """
    term = _saved_by_directions(cost, curve, grid)
    error = term.half_width_below(confidence)
    if term.value > error:
        return ""
    costs = f"by these {curve.n} rows a variance for each direction costs {abs(term.value):.3g} nats"
    if term.value <= -term.half_width_above(confidence):
        return f"{costs} more than one for all directions, which is planned"
    side = "more" if term.value <= 0 else "less"
    said = (
        f"{costs} {side} than one for all directions, with an error of {error:.2g} nats: one for all directions is "
        f"planned, because the rows do not show that one for each costs less"
    )
    return said + (f"; about {rows_needed(curve.n, error, term.value):,} rows would show it" if term.value > 0 else "")


def _saved_by_directions(cost, curve, grid):
    """The path KL with one variance minus that with one for each direction, cross-fitted on the same rows: a Term."""
    halves, value, gaps = curve.halves, 0.0, []
    for own, other in zip(halves, halves[::-1], strict=True):
        samples = []
        for basis, sign in ((None, 1), (curve.basis, -1)):
            one = dataclasses.replace(cost, basis=basis)
            planned = best(one, other, grid[0], grid[-1], len(grid) - 1)
            value += sign * own.n / curve.n * path_kl(one.with_variance(other), own, planned)
            samples.append((sign, path_kl_samples(one.with_variance(other), own, planned)))
        gaps.append(difference_of(samples))
    return measured_term("saved by directions", value, np.concatenate(gaps), "")
