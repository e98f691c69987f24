"""The discretisation of a sampler as a term with a standard error, cross-fitted where rows set its variance or grid."""

import numpy as np

from jaxdiff.certificate import DISCRETISATION, Term
from jaxdiff.curves import MeasuredCurve
from jaxdiff.guarantees.path_kl import interpolation_error, path_kl, path_kl_samples, standard_error
from jaxdiff.intervals import independent, skewness

FEWEST_TO_HALVE = 8  # rows: with fewer, a half has no spread to speak of


def measured_term(name, value, units, source, **options):
    """A Term of a value that is the mean of independent units (n,), with their standard error and skewness."""
    options = {"degrees": len(units) - 1, "skewness": skewness(units)} | options
    return Term(name, float(value), standard_error(units), "measured", source, **options)


def in_groups(samples, size):
    """Means of every size-th sample, as the groups of a measured curve are made."""
    return samples if len(samples) == size else np.array([samples[g::size].mean() for g in range(size)])


def units_of(samples, ids):
    """Independent units of samples: copied rows together, where the samples are of rows and not of groups of rows."""
    return samples if ids is None or len(samples) != len(ids) else independent(samples, ids)


def cross_fits(cost, curve):
    """Whether `cross_fitted` applies: rows enough for two halves, and a path KL that halves have."""
    return isinstance(curve, MeasuredCurve) and curve.n >= FEWEST_TO_HALVE and cost.uses != "log_det"


def cross_fitted(cost, curve, grid_of) -> Term:
    """The discretisation of a run planned on these very rows, by two-fold cross-fitting.

    Grid and variance are set on one half of the rows and measured on the other. Rows that set a variance or a grid look
    better on them than other rows will; the cross-fitted value looks slightly worse than it is, because half the rows
    plan worse than all of them. The run's own value lies between the cross-fitted one and the halves' values in sample.
    Their difference is the term's allowance: chance in the variance and the grid is in no row's spread.

    Args:
      cost: the PathCost of the kernel; its variance is set anew from each half.
      curve: a MeasuredCurve.
      grid_of: maps the curve of one half to its grid.
    """
    halves, value, in_sample, samples, bias = curve.halves, 0.0, 0.0, [], 0.0
    planned = [grid_of(half) for half in halves]
    itself = cost.with_variance(None)
    for own, other, own_grid, grid in zip(halves, halves[::-1], planned, planned[::-1], strict=True):
        fitted = cost.with_variance(other)
        value += own.n * path_kl(fitted, grid, own) / curve.n
        in_sample += own.n * path_kl(itself, own_grid, own) / curve.n
        samples.append(path_kl_samples(fitted, grid, own))
        bias += own.n * interpolation_error(fitted, grid, own) / curve.n
    ids = None if curve.row_ids is None else np.concatenate([half.row_ids for half in halves])
    source = f"{source_of(cost, planned[-1])}, {curve.n} rows, cross-fitted, interpolated within {bias:.1e}"
    units = units_of(np.concatenate(samples), ids)
    return measured_term(DISCRETISATION, value, units, source, allowance=abs(value - in_sample), bias=bias)


def source_of(cost, grid):
    """What a discretisation is of, in words."""
    apart = "" if cost.basis is None else ", a variance for each direction"
    return f"path KL of {cost.kernel}{apart}, {len(grid) - 1} steps"
