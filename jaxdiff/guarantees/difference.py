"""Differences between the path KLs of two samplers, measured on the same rows."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdiff.certificate import CONFIDENCE, Certificate
from jaxdiff.checks import check_confidence
from jaxdiff.curves import Curve, MeasuredCurve
from jaxdiff.grids import check_grid
from jaxdiff.guarantees.caveats import caveats
from jaxdiff.guarantees.certify import check_variance_curve
from jaxdiff.guarantees.cross_fit import in_groups, measured_term, units_of
from jaxdiff.guarantees.information import information_gain
from jaxdiff.guarantees.path_kl import interpolation_error, level_samples, path_kl, path_kl_samples
from jaxdiff.guarantees.step_cost import cost_of
from jaxdiff.intervals import Samples, copied, doubts
from jaxdiff.types import Sampler

DIFFERENCE = "difference"  # the name of the term


def certify_difference(
    first: Any, second: Any, curve: Curve, other: Curve | None = None, *, confidence: float | int = CONFIDENCE
) -> Certificate:
    """The path KL of the first sampler minus that of the second, in nats, measured on the same rows.

    The path KL of a learned model contains a constant of the data that is unknown. It is the same for both samplers,
    also where each has a model of its own, and cancels in the difference. So the difference is unbiased, and its
    interval is that of paired rows.

    Args:
      first, second: Samplers whose grids have the same ends. The curve that sets a variance of moment matching must be
        of other rows.
      curve: the MeasuredCurve of the first sampler's model.
      other: the MeasuredCurve of the second sampler's model, on the same rows with the same key; default `curve`.
      confidence: that of the interval, between 0 and 1.

    Returns:
      A Certificate with one term, "difference".

    Raises:
      TypeError: first or second is not a Sampler.
      ValueError: the ends of the grids or the rows of the curves differ, a curve is not measured, or it sets the
        variance of its own sampler.
    """
    check_confidence(confidence)
    for name, one in (("first", first), ("second", second)):
        if not isinstance(one, Sampler):
            raise TypeError(f"{name} must be a Sampler, as Sampler(kernel, grid): it is a {type(one).__name__}.")
    curves = curve, curve if other is None else other
    grids, costs = [check_grid(one.grid) for one in (first, second)], [cost_of(one.kernel) for one in (first, second)]
    _check_paired(costs, grids, curves)
    assert isinstance(curve, MeasuredCurve)
    each = [_absolute(*one) for one in zip(costs, curves, grids, strict=True)]
    gaps = difference_of([(1, each[0][1]), (-1, each[1][1])])
    units = units_of(gaps, curve.row_ids)
    found = copied(curve.row_ids) + (doubts(units) if len(gaps) == curve.n else ())
    names = [f"{cost.kernel}, {len(grid) - 1} steps" for cost, grid in zip(costs, grids, strict=True)]
    source = f"path KL of {names[0]}, less {names[1]}; {curve.n} rows, paired"
    error_of = functools.partial(interpolation_error, integral=False)
    bias = sum(error_of(*one) for one in zip(costs, curves, grids, strict=True))
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
        raise ValueError(f"the grids must have the same ends: {grids[0][[0, -1]]} and {grids[1][[0, -1]]}.")
    check_same_rows(curves)
    for cost, grid, curve in zip(costs, grids, curves, strict=True):
        if cost.matches and cost.variance in (None, curve):
            raise ValueError(
                "in a difference the variance of moment_matched must be set on other rows: make the kernel with "
                "their curve."
            )
        if cost.variance is not None:
            check_variance_curve(cost.variance, curve, grid)


def check_same_rows(curves: Sequence[Any]) -> None:
    """Raise ValueError unless two curves are measured on the same rows, as far as can be told."""
    if not all(isinstance(one, MeasuredCurve) for one in curves):
        kinds = " and ".join(type(one).__name__ for one in curves)
        raise ValueError(f"a paired difference needs two measured curves, made by loss_curve: they are {kinds}.")
    sizes = [(one.n, one.dim) for one in curves]
    if sizes[0] != sizes[1]:
        raise ValueError(f"both curves must be measured on the same rows: their (n, d) are {sizes[0]} and {sizes[1]}.")
    squares = [one.squares for one in curves]
    if not any(each is None for each in squares) and not np.allclose(*squares, rtol=1e-5):
        raise ValueError("both curves must be measured on the same rows in the same order: their |X_0|^2 differ.")


# The path KL is its excess plus (1/2) int L dsnr minus a constant of the data, (1/2) int mmse dsnr.
def _absolute(cost, curve, grid):
    """The path KL plus the constant of the data, and its independent samples."""
    value = path_kl(cost, curve, grid) + information_gain(curve, grid[0], grid[-1])
    samples = path_kl_samples(cost, curve, grid)
    return value, samples + in_groups(level_samples(curve, grid), len(samples))


def difference_of(weighted: Sequence[tuple[float | int, Samples]]) -> Samples:
    """The weighted sum of pairs (weight, samples). Samples of rows are averaged in groups where another has groups."""
    size = min(len(samples) for _, samples in weighted)
    return np.sum([weight * in_groups(samples, size) for weight, samples in weighted], axis=0)
