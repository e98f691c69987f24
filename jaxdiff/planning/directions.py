"""Whether a variance for each direction pays beside one for all, by the rows of a measured curve."""

import dataclasses

import numpy as np

from jaxdiff.certificate import rows_to_tell
from jaxdiff.guarantees.cross_fit import measured_term
from jaxdiff.guarantees.difference import difference_of
from jaxdiff.guarantees.path_kl import path_kl, path_kl_samples
from jaxdiff.planning.best_grid import best


def doubt_of_directions(cost, curve, grid, confidence):
    """Why one variance for all directions is planned, in words; "" where the rows tell that one for each costs less.

    Both are cross-fitted, each on its own best grid of as many steps between the ends, and compared by groups of rows.
    The rows tell it if their difference is above 0 with this confidence.

    Args:
      cost: the PathCost of moment matching with a variance for each direction of the curve's basis.
      curve: a MeasuredCurve.
      grid: whose ends and number of steps are compared.
      confidence: of the comparison.
    """
    term = _saved_by_directions(cost, curve, grid)
    error = term.depth(confidence)
    if term.value > error:
        return ""
    costs = f"by these {curve.n} rows a variance for each direction costs {abs(term.value):.3g} nats"
    if term.value <= -term.reach(confidence):
        return f"{costs} more than one for all of them, which is planned"
    side = "more" if term.value <= 0 else "less"
    said = (
        f"{costs} {side} than one for all of them, {error:.2g} of it by chance: they do not tell that it pays, and one"
    )
    rows = f"; about {rows_to_tell(curve.n, error, term.value):,} rows would tell" if term.value > 0 else ""
    return f"{said} for all is planned{rows}"


def _saved_by_directions(cost, curve, grid):
    """What a variance for each direction saves beside one for all, cross-fitted and paired: a Term."""
    halves, value, gaps = curve.halves, 0.0, []
    for own, other in zip(halves, halves[::-1], strict=True):
        samples = []
        for basis, sign in ((None, 1), (curve.basis, -1)):
            one = dataclasses.replace(cost, basis=basis)
            planned = best(one, other, len(grid) - 1, grid[0], grid[-1])
            value += sign * own.n / curve.n * path_kl(one.with_variance(other), planned, own)
            samples.append((sign, path_kl_samples(one.with_variance(other), planned, own)))
        gaps.append(difference_of(samples))
    return measured_term("saved by directions", value, np.concatenate(gaps), "")
