"""The assumptions and warnings of a certificate that is made from a measured curve."""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float64

from jaxdiff.certificate import Term
from jaxdiff.curves import Curve, MeasuredCurve
from jaxdiff.curves.constraints import violations
from jaxdiff.guarantees.cross_fit import units_of
from jaxdiff.guarantees.path_kl import path_kl_samples, standard_error
from jaxdiff.intervals import copied, doubts
from jaxdiff.kernels import PATH_COSTS
from jaxdiff.processes import ou
from jaxdiff.types import Basis, Grid, PathCost

# nats. A smaller interpolation error gives no warning: by Pinsker's inequality 0.01 nats are a total variation of 0.07
# at most.
SMALL_BIAS = 1e-2
# An asymptotic interval of confidence c carries a warning with n rows where n (1 - c)/2, the expected number of rows in
# a tail of probability (1 - c)/2, is below this number: 200 rows are enough for 95 %. 5 is the usual rule of thumb for
# the normal approximation of a count.
ROWS_BEYOND = 5
# Levels between the ends of a grid at which a curve is checked, about four in one unit of log snr from time 5 to 0.001.
CHECKED_LEVELS = 61


def caveats(
    known: Curve, grid: Grid, basis: Basis, confidence: float | int, *, asymptotic: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The assumptions and the warnings of a certificate made from a curve; none for a curve that is not measured.

    Args:
      known: the curve.
      grid: the grid of the run.
      basis: the directions, each with its own variance; or None.
      confidence: that of the intervals.
      asymptotic: whether the intervals hold for many rows only.
    """
    if not isinstance(known, MeasuredCurve):
        return (), ()
    assumptions = ("rows of the data are independent" + ("; intervals are asymptotic" if asymptotic else ""),)
    warnings = tuple(
        f"the loss breaks a constraint that every mmse curve obeys, by more than its standard errors allow: {text}"
        for text in violations(known, snr_between(grid))
    )
    needed = math.ceil(2 * ROWS_BEYOND / (1 - confidence))
    if asymptotic and known.n < needed:
        warnings += (f"{known.n} rows are few for a {confidence:.4g} interval: it may cover less; take {needed}",)
    if basis is not None and known.own_axes:
        warnings += (
            "the basis was computed from these very rows, so the excess is underestimated: take the principal axes of "
            "other rows",
        )
    return assumptions, warnings


def doubts_of_rows(cost: PathCost, grid: Grid, known: Curve, *, asymptotic: bool) -> tuple[str, ...]:
    """Warnings that the interval may be too short, because rows are copies of others or their tails are heavy."""
    if not isinstance(known, MeasuredCurve):
        return ()
    # Some path KLs have samples for groups of rows only. The rows' tails are then judged by a simpler kernel.
    cost = PATH_COSTS["ancestral"] if cost.uses == "log_det" else dataclasses.replace(cost, basis=None)
    samples = units_of(path_kl_samples(cost, known, grid), known.row_ids)
    return copied(known.row_ids) + (doubts(samples) if asymptotic else ())


def moment_warning(known: Curve, second_moment: Any) -> tuple[str, ...]:
    """A warning where the rows' mean of |X_0|^2 differs from the second moment by five standard errors or more."""
    squares = getattr(known, "squares", None)
    if squares is None or abs(np.mean(squares) - second_moment) <= 5 * standard_error(squares) + 1e-6 * second_moment:
        return ()
    return (
        f"the rows have E|X_0|^2 = {np.mean(squares):.6g}, not {second_moment:.6g}: the initialisation may cost more",
    )


def interpolation_warning(term: Term) -> tuple[str, ...]:
    """A warning where the interpolation error exceeds both the standard error and SMALL_BIAS."""
    if term.bias <= max(term.standard_error, SMALL_BIAS):
        return ()
    return (
        f"interpolation between the levels of the curve may change the discretisation by {term.bias:.3g} nats, more "
        f"than the standard error {term.standard_error:.3g}: measure with loss_curve(..., grid=grid), or with more "
        f"n_nodes",
    )


def snr_between(grid: Grid) -> Float64[np.ndarray, " levels"]:
    """CHECKED_LEVELS snr between the ends of a grid, uniform in log snr."""
    first, last = np.log(ou.snr(grid[[0, -1]]))
    return np.exp(np.linspace(first, last, CHECKED_LEVELS))
