"""Assumptions and warnings that come with a measured curve."""

import dataclasses
import math

import numpy as np

from jaxdiff.curves import MeasuredCurve
from jaxdiff.curves.constraints import violations
from jaxdiff.guarantees.cross_fit import units_of
from jaxdiff.guarantees.path_kl import path_kl_samples, standard_error
from jaxdiff.intervals import copied, doubts
from jaxdiff.kernels import PATH_COSTS
from jaxdiff.processes import ou

TELLING = 1e-2  # nats: a smaller interpolation error, a total variation of 0.07 at most, is not warned of
ROWS_BEYOND = 5  # rows expected beyond either end of an asymptotic interval, at least


def caveats(known, grid, basis, confidence, *, asymptotic):
    """Assumptions and warnings that come with a curve."""
    if not isinstance(known, MeasuredCurve):
        return (), ()
    assumptions = ("rows of the data are independent" + ("; intervals are asymptotic" if asymptotic else ""),)
    warnings = tuple(
        f"the loss is worse than noise would allow: {text}" for text in violations(known, levels_between(grid))
    )
    needed = math.ceil(2 * ROWS_BEYOND / (1 - confidence))
    if asymptotic and known.n < needed:
        warnings += (f"{known.n} rows are few for a {confidence:.4g} interval: it may cover less; take {needed}",)
    if basis is not None and known.own_axes:
        warnings += ("the basis is made of these very rows, which understate the excess: take axes of other rows",)
    return assumptions, warnings


def of_the_rows(cost, grid, known, *, asymptotic):
    """What copies among the rows and their tails say against the interval."""
    if not isinstance(known, MeasuredCurve):
        return ()
    # Where the samples of a path KL are of groups of rows, those of a simpler kernel stand for the rows.
    cost = PATH_COSTS["ancestral"] if cost.uses == "log_det" else dataclasses.replace(cost, basis=None)
    samples = units_of(path_kl_samples(cost, grid, known), known.row_ids)
    return copied(known.row_ids) + (doubts(samples) if asymptotic else ())


def other_moment(known, second_moment):
    """A warning where the rows' second moment is not the one that was given."""
    squares = getattr(known, "squares", None)
    if squares is None or abs(np.mean(squares) - second_moment) <= 5 * standard_error(squares) + 1e-6 * second_moment:
        return ()
    return (f"the rows have E|X_0|^2 = {np.mean(squares):.6g}, not {second_moment:.6g}: initialisation may cost more",)


def between_levels(term):
    """A warning where interpolation adds more to an interval than a standard error does, and enough to matter."""
    if term.bias <= max(term.standard_error, TELLING):
        return ()
    return (
        f"between the levels of the curve the loss may change the discretisation by {term.bias:.3g} nats, more than "
        f"the standard error {term.standard_error:.3g}: measure with loss_curve(..., grid=grid), or with more n_nodes",
    )


def levels_between(grid):
    """61 snr between the ends of a grid, evenly in log snr."""
    first, last = np.log(ou.snr(grid[[0, -1]]))
    return np.exp(np.linspace(first, last, 61))
