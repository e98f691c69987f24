"""The discretisation term with its standard error, cross-fitted where the rows set the variance or the grid."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.certificate import DISCRETISATION, Term
from jaxdiff.curves import Curve, MeasuredCurve
from jaxdiff.guarantees.path_kl import interpolation_error, path_kl, path_kl_samples, standard_error
from jaxdiff.intervals import Ids, Samples, independent, skewness
from jaxdiff.types import Grid, PathCost

FEWEST_TO_HALVE = 8  # rows; the standard error of a half with fewer than four rows means little


def measured_term(name: str, value: Any, units: Samples, source: str, **options: Any) -> Term:
    """A Term of a value that is the mean of independent units (n,), with their standard error and skewness."""
    options = {"degrees": len(units) - 1, "skewness": skewness(units)} | options
    return Term(name, float(value), standard_error(units), "measured", source, **options)


def in_groups(samples: Samples, size: int) -> Samples:
    """(size,) means over samples i, i + size, ..., the groups of a measured curve."""
    return samples if len(samples) == size else np.array([samples[g::size].mean() for g in range(size)])


def units_of(samples: Samples, ids: Ids | None) -> Samples:
    """Independent units of samples: copies of a row form one unit. Samples of groups of rows are returned unchanged."""
    return samples if ids is None or len(samples) != len(ids) else independent(samples, ids)


def cross_fits(cost: PathCost, curve: Curve) -> bool:
    """Whether `cross_fitted` applies: there are rows enough for two halves, whose curves have this path KL."""
    return isinstance(curve, MeasuredCurve) and curve.n >= FEWEST_TO_HALVE and cost.uses != "log_det"


def cross_fitted(cost: PathCost, curve: Any, grid_of: Callable[[Any], Grid]) -> Term:
    """The discretisation of a run whose grid or variance was set on the rows of the curve, by two-fold cross-fitting.

    Grid and variance are set on one half of the rows, and the path KL is measured on the other half. Measured on the
    rows that set them, the path KL would be too small. The cross-fitted value is slightly too large, because half the
    rows set a worse grid and variance than all rows do. The value of the run lies between the cross-fitted value and
    the mean of the halves' values on their own rows. The difference of the two is the term's allowance: the spread of
    the rows does not show the chance in the grid and the variance.

    Args:
      cost: the PathCost of the kernel. Its variance is set from each half in turn.
      curve: the MeasuredCurve of the rows.
      grid_of: maps the curve of one half to its grid.
    """
    halves, value, in_sample, samples, bias = curve.halves, 0.0, 0.0, [], 0.0
    planned = [grid_of(half) for half in halves]
    itself = cost.with_variance(None)
    for own, other, own_grid, grid in zip(halves, halves[::-1], planned, planned[::-1], strict=True):
        fitted = cost.with_variance(other)
        value += own.n * path_kl(fitted, own, grid) / curve.n
        in_sample += own.n * path_kl(itself, own, own_grid) / curve.n
        samples.append(path_kl_samples(fitted, own, grid))
        bias += own.n * interpolation_error(fitted, own, grid) / curve.n
    ids = None if curve.row_ids is None else np.concatenate([half.row_ids for half in halves])
    source = f"{source_of(cost, planned[-1])}, {curve.n} rows, cross-fitted, interpolated within {bias:.1e}"
    units = units_of(np.concatenate(samples), ids)
    return measured_term(DISCRETISATION, value, units, source, allowance=abs(value - in_sample), bias=bias)


def source_of(cost: PathCost, grid: Grid) -> str:
    """Names the kernel, the kind of its variance and the number of steps, for the source of a Term."""
    directions = "" if cost.basis is None else ", a variance for each direction"
    return f"path KL of {cost.kernel}{directions}, {len(grid) - 1} steps"
