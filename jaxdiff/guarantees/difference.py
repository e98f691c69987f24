"""Differences between the path KLs of two samplers, measured on the same rows."""

import functools

import numpy as np

from jaxdiff.certificate import CONFIDENCE, Certificate
from jaxdiff.curves import MeasuredCurve
from jaxdiff.grids import check_grid
from jaxdiff.guarantees.caveats import caveats
from jaxdiff.guarantees.certify import check_confidence, check_variance_curve
from jaxdiff.guarantees.cross_fit import in_groups, measured_term, units_of
from jaxdiff.guarantees.information import information_gain
from jaxdiff.guarantees.path_kl import interpolation_error, level_samples, path_kl, path_kl_samples
from jaxdiff.guarantees.step_cost import cost_of
from jaxdiff.intervals import copied, doubts
from jaxdiff.types import Sampler

DIFFERENCE = "difference"


def certify_difference(first: Sampler, second: Sampler, curve, other=None, *, confidence=CONFIDENCE) -> Certificate:
    """The path KL of one sampler less that of another, of one model or of two, measured on the same rows.

    The constant that makes a learned model's path KL unknown is the data's, so it drops out: the difference is
    unbiased, and its interval is that of paired rows.

    Args:
      first, second: samplers whose grids have the same ends. Moment matching takes its variance from the curve of other
        rows.
      curve: the loss curve of the first sampler's model.
      other: the loss curve of the second sampler's model, on the same rows with the same key; default `curve`.
      confidence: of the interval.

    Raises:
      TypeError: first or second is no Sampler.
      ValueError: the ends or the numbers of rows differ, a curve is not measured, or a variance was set from it.
    """
    check_confidence(confidence)
    for name, one in (("first", first), ("second", second)):
        if not isinstance(one, Sampler):
            raise TypeError(f"{name} must be a Sampler, as Sampler(kernel, grid): it is a {type(one).__name__}.")
    curves = curve, curve if other is None else other
    grids, costs = [check_grid(one.grid) for one in (first, second)], [cost_of(one.kernel) for one in (first, second)]
    _check_paired(costs, grids, curves)
    each = [_absolute(*one) for one in zip(costs, grids, curves, strict=True)]
    gaps = difference_of([(1, each[0][1]), (-1, each[1][1])])
    units = units_of(gaps, curve.row_ids)
    found = copied(curve.row_ids) + (doubts(units) if len(gaps) == curve.n else ())
    names = [f"{cost.kernel}, {len(grid) - 1} steps" for cost, grid in zip(costs, grids, strict=True)]
    source = f"path KL of {names[0]}, less {names[1]}; {curve.n} rows, paired"
    error_of = functools.partial(interpolation_error, integral=False)
    bias = sum(error_of(*one) for one in zip(costs, grids, curves, strict=True))
    value = each[0][0] - each[1][0]
    term = measured_term(DIFFERENCE, value, units, source, unit="nats, a difference", bias=bias)
    said = [
        caveats(one, grids[0], cost.basis, confidence, asymptotic=True) for one, cost in zip(curves, costs, strict=True)
    ]
    assumptions, warnings = (tuple(dict.fromkeys(a + b)) for a, b in zip(*said, strict=True))
    assumptions += ("both curves saw the same rows with the same noise",)
    subject = f"path KL of {costs[0].kernel} less that of {costs[1].kernel}"
    return Certificate(subject, (term,), confidence, assumptions, warnings + found)


def _check_paired(costs, grids, curves):
    """Raise ValueError unless two samplers can be compared row by row."""
    if not np.allclose(grids[0][[0, -1]], grids[1][[0, -1]], rtol=1e-9, atol=0):
        raise ValueError(f"grids must share their ends: {grids[0][[0, -1]]} and {grids[1][[0, -1]]}.")
    if not all(isinstance(one, MeasuredCurve) for one in curves):
        raise ValueError("a paired difference is of measured loss curves: see information.loss_curve.")
    sizes = [(one.n, one.dim) for one in curves]
    if sizes[0] != sizes[1]:
        raise ValueError(f"the curves must be of the same rows: they are of (n, d) = {sizes[0]} and {sizes[1]}.")
    squares = [one.squares for one in curves]
    if not any(each is None for each in squares) and not np.allclose(*squares, rtol=1e-5):
        raise ValueError("the curves must be of the same rows, in one order: their |X_0|^2 differ.")
    for cost, grid, curve in zip(costs, grids, curves, strict=True):
        if cost.matches and cost.variance in (None, curve):
            raise ValueError(
                "a difference with moment_matched needs a variance of other rows: make the kernel with their curve."
            )
        if cost.variance is not None:
            check_variance_curve(cost.variance, curve, grid)


# Up to the constant C of the data a path KL is its excess plus (1/2) int L.
def _absolute(cost, grid, curve):
    """A path KL and its independent samples, up to the constant of the data."""
    value = path_kl(cost, grid, curve) + information_gain(curve, grid[0], grid[-1])
    samples = path_kl_samples(cost, grid, curve)
    return value, samples + in_groups(level_samples(curve, grid), len(samples))


def difference_of(weighted):
    """A weighted sum of samples (weight, (n,)), of the same rows or of groups of them: by groups where one is."""
    size = min(len(samples) for _, samples in weighted)
    return np.sum([weight * in_groups(samples, size) for weight, samples in weighted], axis=0)
