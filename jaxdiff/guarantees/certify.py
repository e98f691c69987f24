"""A run in, a Certificate out: what is known of the KL from the data's law to the samples'."""

import math
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.certificate import (
    CONFIDENCE,
    DISCRETISATION,
    EARLY_STOPPING_TV,
    EARLY_STOPPING_W2,
    INITIALISATION,
    SCORE_ERROR,
    Certificate,
    Term,
    total_variation,
)
from jaxdiff.checks import checked_moment
from jaxdiff.curves import MeasuredCurve
from jaxdiff.curves.constraints import check_mmse, check_second_moment, violations
from jaxdiff.curves.curve import as_curve
from jaxdiff.grids import check_grid
from jaxdiff.guarantees.information import early_stopping_w2, information_gain, initial_kl, mutual_information
from jaxdiff.guarantees.path_kl import (
    interpolation_error,
    level_samples,
    path_kl,
    path_kl_samples,
    range_of_rows,
    standard_error,
)
from jaxdiff.intervals import bounded, copied, doubts, independent, skewness
from jaxdiff.processes import ou
from jaxdiff.types import Basis

DIFFERENCE = "difference"
FEWEST_TO_HALVE = 8  # rows
TELLING = 1e-2  # nats: a smaller interpolation error, a total variation of 0.07 at most, is not warned of
ROWS_BEYOND = 5  # rows expected beyond either end of an asymptotic interval, at least


def certify(
    kernel_name,
    grid,
    *,
    target=None,
    curve=None,
    matched=None,
    basis: Basis = None,
    second_moment=None,
    radius=None,
    dim=None,
    confidence=CONFIDENCE,
    start_mean=None,
) -> Certificate:
    """The terms of an upper bound on KL(q_early_stop || law of the samples), in nats, for a run from N(start_mean, I).

    Args:
      kernel_name: a kernel with a path KL, as in information.step_cost.
      grid: the grid of the run.
      target: a known law sampled with its exact score; or
      curve: the loss curve of a learned denoiser, on data that neither it nor the grid has seen.
      matched: the curve that set the moment-matched variance, from other data. By default the curve itself, and the
        term is cross-fitted: every half of the rows is measured with the variance of the other.
      basis: of the moment-matched kernel, the curve's own.
      second_moment: E|X_0|^2, for initialisation and early stopping when only a curve is given; then "assumed". By
        default a measured curve's own, the mean over its rows.
      radius: the data lie in a ball of this radius about 0 and the denoiser is clipped to it (processes.clipped). The
        interval is then a betting one (intervals.bounded), which holds at any number of rows; it needs `matched` from
        other rows and a kernel whose path KL has no noise term (ancestral, moment-matched without basis).
      dim: d, where curve is a plain callable.
      confidence: of the intervals.
      start_mean: (d,) of the normal law that the run of a target starts from, a plan's own; default 0. With a curve
        centre the data instead, which leaves the curve as it is.

    Returns:
      A Certificate. Its terms in nats add up to the bound; beside them stands what early stopping costs in W2 and in
      total variation. With a loss curve the discretisation is the excess over the network used continuously, and the
      network's own error is unknown: a constant of the data that no held-out set determines.

    Raises:
      ValueError: neither or both of target and curve, a bad grid or confidence, a kernel without a path KL, a curve
        given as exact that cannot be an mmse curve or has a larger second moment than is said, a `matched` that is no
        curve of other rows, or losses that leave the ball of `radius`.
    """
    if (target is None) == (curve is None):
        raise ValueError("give exactly one of target= (exact score) and curve= (learned denoiser).")
    check_confidence(confidence)
    grid, exact = check_grid(grid), target is not None
    known = as_curve(curve if target is None else target.mmse, dim)
    if exact and not (second_moment is None and radius is None and matched is None):
        raise ValueError(
            "a target brings its own second_moment and curve: leave second_moment, radius and matched out."
        )
    if radius is not None and not (isinstance(known, MeasuredCurve) and 0 < radius < math.inf):
        raise ValueError(f"radius= is positive, finite, and for a measured curve: radius = {radius:g}.")
    if target is not None:
        second_moment = target.second_moment
    else:
        second_moment = moment_of(known, second_moment)
    if matched is not None:
        _check_matched(matched, known, grid)
    about_start, law = second_moment, "N(0, I)"
    if start_mean is not None:
        about_start, law = _moment_about_start(target, start_mean, grid[0]), "N(start_mean, I)"
    terms = (
        initialisation(about_start, known, grid[0], exact=exact, law=law),
        _discretisation(kernel_name, grid, known, matched, basis, radius, confidence, given=not exact),
        _score_error(known, grid, exact=exact),
        *early_stopping(second_moment, known.dim, grid[-1], target),
    )
    assumptions, warnings = _caveats(known, grid, basis, confidence, asymptotic=radius is None)
    warnings += _of_the_rows(kernel_name, grid, known, matched, asymptotic=radius is None)
    warnings += _other_moment(known, second_moment) + _between_levels(terms[1])
    if target is None and second_moment is not None:
        assumptions += (f"the data have E|X_0|^2 = {second_moment:.6g}",)
    if radius is not None:
        assumptions += (f"data and denoiser stay in the ball of radius {radius:.6g} about 0",)
    subject = f"KL(q_{grid[-1]:g} || {kernel_name}" + ("" if start_mean is None else f" from {law}") + ")"
    return Certificate(subject, terms, confidence, assumptions, warnings)


# KL(q_T || N(m, I)) is KL(q_T || N(0, I)) of the law moved by -m/alpha(T).
def _moment_about_start(target, start_mean, horizon):
    """E|X_0 - start_mean/alpha(T)|^2 of a target."""
    if target is None:
        raise ValueError(
            "start_mean= is for target=. With a curve centre the data, and give second_moment= about their mean."
        )
    return target.moment_about(np.asarray(start_mean, np.float64) / ou.alpha(float(horizon)))


def moment_of(curve, second_moment, default=None):
    """E|X_0|^2 as given, which the curve must not disprove; by default that of measured rows, else `default`."""
    if second_moment is None and getattr(curve, "squares", None) is not None:
        return float(np.mean(curve.squares))
    second_moment = default if second_moment is None else second_moment
    if second_moment is None:
        return None
    second_moment = checked_moment(second_moment, curve.dim)
    check_second_moment(curve, second_moment)
    return second_moment


def _check_matched(matched, curve, grid):
    """Raise ValueError unless `matched` can have set a variance: the curve of other rows, finite, of one dimension."""
    if matched is curve and isinstance(curve, MeasuredCurve):
        raise ValueError("matched= is a curve of other rows than the curve's: leave it out for a cross-fitted one.")
    if getattr(matched, "dim", curve.dim) != curve.dim:
        raise ValueError(f"matched has dimension {matched.dim}, the curve {curve.dim}.")
    if not np.isfinite(np.asarray(matched(ou.snr(grid[:-1])), np.float64)).all():
        raise ValueError("matched is not finite at some of the grid's times: check it, and where it was measured.")


class Sampler(NamedTuple):
    """A kernel, a grid and a denoiser's loss curve, as the arguments of `certify`."""

    kernel: str
    grid: np.ndarray
    curve: Any
    matched: Any = None
    basis: Any = None


def certify_difference(first: Sampler, second: Sampler, *, confidence=CONFIDENCE) -> Certificate:
    """The path KL of one sampler less that of another, of one model or of two, measured on the same rows.

    The constant that makes a learned model's path KL unknown is the data's, so it drops out: the difference is
    unbiased, and its interval is that of paired rows.

    Args:
      first, second: grids with the same ends; curves of the same rows, measured with the same key.
      confidence: of the interval.

    Raises:
      ValueError: the ends or the numbers of rows differ, or a curve is not measured.
    """
    check_confidence(confidence)
    grids = [check_grid(one.grid) for one in (first, second)]
    if not np.allclose(grids[0][[0, -1]], grids[1][[0, -1]], rtol=1e-9, atol=0):
        raise ValueError(f"grids must share their ends: {grids[0][[0, -1]]} and {grids[1][[0, -1]]}.")
    for one in (first, second):
        if not isinstance(one.curve, MeasuredCurve):
            raise ValueError("a paired difference is of measured loss curves: see information.loss_curve.")
    sizes = [(one.curve.n, one.curve.dim) for one in (first, second)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"the curves must be of the same rows: they are of (n, d) = {sizes[0]} and {sizes[1]}.")
    squares = [one.curve.squares for one in (first, second)]
    if not any(each is None for each in squares) and not np.allclose(*squares, rtol=1e-5):
        raise ValueError("the curves must be of the same rows, in one order: their |X_0|^2 differ.")
    for one in (first, second):
        if one.kernel == "moment_matched" and one.matched is None:
            raise ValueError("a difference with moment_matched needs matched=, the curve of other rows that set it.")
        if one.matched is not None:
            _check_matched(one.matched, one.curve, check_grid(one.grid))
    each = [_absolute(one, grid) for one, grid in zip((first, second), grids, strict=True)]
    size = min(len(samples) for samples in each)
    gaps = in_groups(each[0], size) - in_groups(each[1], size)
    gaps = _units(gaps, first.curve.row_ids)
    found = copied(first.curve.row_ids) + (doubts(gaps) if size == first.curve.n else ())
    value = _absolute_value(first, grids[0]) - _absolute_value(second, grids[1])
    names = f"{first.kernel}, {len(grids[0]) - 1} steps, less {second.kernel}, {len(grids[1]) - 1} steps"
    source = f"path KL of {names}; {first.curve.n} rows, paired"
    bias = sum(
        interpolation_error(one.kernel, grid, one.curve, matched=one.matched, basis=one.basis, integral=False)
        for one, grid in zip((first, second), grids, strict=True)
    )
    term = measured_term(DIFFERENCE, value, gaps, source, unit="nats, a difference", bias=bias)
    each = [_caveats(one.curve, grids[0], one.basis, confidence, asymptotic=True) for one in (first, second)]
    assumptions, warnings = (tuple(dict.fromkeys(a + b)) for a, b in zip(*each, strict=True))
    assumptions += ("both curves saw the same rows with the same noise",)
    subject = f"path KL of {first.kernel} less that of {second.kernel}"
    return Certificate(subject, (term,), confidence, assumptions, warnings + found)


def measured_term(name, value, units, source, **options):
    """A Term of a value that is the mean of independent units (n,), with their standard error and skewness."""
    options = {"degrees": len(units) - 1, "skewness": skewness(units)} | options
    return Term(name, float(value), standard_error(units), "measured", source, **options)


# Up to the constant C of the data a path KL is its excess plus (1/2) int L.
def _absolute(one, grid):
    samples = path_kl_samples(one.kernel, grid, one.curve, matched=one.matched, basis=one.basis)
    return samples + in_groups(level_samples(one.curve, grid), len(samples))


def _absolute_value(one, grid):
    excess = path_kl(one.kernel, grid, one.curve, matched=one.matched, basis=one.basis)
    return excess + information_gain(one.curve, grid[0], grid[-1])


def in_groups(samples, size):
    """Means of every size-th sample, as the groups of a measured curve are made."""
    return samples if len(samples) == size else np.array([samples[g::size].mean() for g in range(size)])


def initialisation(second_moment, curve, horizon, *, exact, law="N(0, I)"):
    """KL(q_horizon || the start's law): exact from an exact mmse curve, else its Gaussian bound.

    second_moment: E|X_0 - m/alpha(horizon)|^2, m the mean of the start's law N(m, I), which `law` writes in words.
    """
    if second_moment is None:
        return Term(INITIALISATION, math.nan, 0.0, "unknown", "needs second_moment = E|X_0|^2")
    value = float(initial_kl(second_moment, curve.dim, horizon))
    if exact and not curve.replicates:
        value = max(value - mutual_information(curve, horizon), 0.0)
        return Term(INITIALISATION, value, 0.0, "exact", f"KL(q_T || {law}), from E|X_0|^2 and the mmse")
    status = "bound" if exact else "assumed"
    return Term(INITIALISATION, value, 0.0, status, f"Gaussian bound on KL(q_T || {law}), from E|X_0|^2")


def early_stopping(second_moment, dim, early_stop, target=None):
    """What stopping early costs: W2(data, q_early_stop) and their total variation, beside the terms in nats."""
    if second_moment is None:
        w2 = Term(EARLY_STOPPING_W2, math.nan, 0.0, "unknown", "needs second_moment = E|X_0|^2", unit="W2")
    else:
        status, how = ("assumed" if target is None else "bound"), "distance of X_0 and the X_t made from it"
        w2 = Term(EARLY_STOPPING_W2, early_stopping_w2(second_moment, dim, early_stop), 0.0, status, how, unit="W2")
    if target is None:
        how = "the data's law need not have a density"
        return w2, Term(EARLY_STOPPING_TV, math.nan, 0.0, "unknown", how, unit="TV")
    kl = target.smoothing_kl(early_stop)
    how = "from a bound on KL(q_0 || q_t)" if math.isfinite(kl) else "the law has no density, q_t has one"
    return w2, Term(EARLY_STOPPING_TV, total_variation(kl), 0.0, "bound", how, unit="TV")


def _discretisation(kernel_name, grid, known, matched, basis, radius, confidence, *, given):
    if kernel_name == "moment_matched" and matched is None and radius is None and cross_fits(kernel_name, known):
        return cross_fitted(kernel_name, known, basis, lambda half: grid)
    value = path_kl(kernel_name, grid, known, matched=matched, basis=basis)
    samples = path_kl_samples(kernel_name, grid, known, matched=matched, basis=basis)
    source = _source(kernel_name, basis, grid)
    if not len(samples):
        if given:
            check_mmse(known, _levels(grid))
        status, how = ("assumed", ", the curve as given") if given else ("exact", "")
        return Term(DISCRETISATION, value, 0.0, status, source + how)
    if not isinstance(known, MeasuredCurve):
        return measured_term(DISCRETISATION, value, samples, f"{source}, Monte Carlo mmse")
    source += f", {known.n} rows"
    if kernel_name == "covariance_matched" and known.coarse is not None:
        left = abs(value - path_kl(kernel_name, grid, known.coarse))
        source += f", Lanczos truncated within {left:.1e}"
    bias = interpolation_error(kernel_name, grid, known, matched=matched, basis=basis)
    source += f", interpolated within {bias:.1e}"
    if radius is None:
        return measured_term(DISCRETISATION, value, _units(samples, known.row_ids), source, bias=bias)
    least, most = range_of_rows(kernel_name, grid, known, matched, radius, basis=basis)
    margin = bounded(samples, least, most, confidence)
    source += ", betting interval of bounded rows"
    return Term(DISCRETISATION, value, standard_error(samples), "measured", source, margin=margin, bias=bias)


def _units(samples, ids):
    """Independent units of samples: copied rows together, where the samples are of rows and not of groups of rows."""
    return samples if ids is None or len(samples) != len(ids) else independent(samples, ids)


def cross_fits(kernel_name, curve):
    """Whether `cross_fitted` applies: rows enough for two halves, and a path KL that halves have."""
    return isinstance(curve, MeasuredCurve) and curve.n >= FEWEST_TO_HALVE and kernel_name != "covariance_matched"


def cross_fitted(kernel_name, curve, basis, grid_of) -> Term:
    """The discretisation of a run planned on these very rows: each half's rows, planned for by the other half.

    Rows that set a variance or a grid look better on them than any others will; this looks slightly worse than it is,
    as half the rows plan worse than all. The run's own value lies between the cross-fitted one and the halves' values
    in sample; their difference is the term's allowance, because chance in the variance and grid is in no row's spread.
    `grid_of` maps a half's curve to its grid.
    """
    halves, value, in_sample, samples, bias = curve.halves, 0.0, 0.0, [], 0.0
    planned = [grid_of(half) for half in halves]
    for own, other, own_grid, grid in zip(halves, halves[::-1], planned, planned[::-1], strict=True):
        options = {"matched": other, "basis": basis}
        value += own.n * path_kl(kernel_name, grid, own, **options) / curve.n
        in_sample += own.n * path_kl(kernel_name, own_grid, own, basis=basis) / curve.n
        samples.append(path_kl_samples(kernel_name, grid, own, **options))
        bias += own.n * interpolation_error(kernel_name, grid, own, **options) / curve.n
    ids = None if curve.row_ids is None else np.concatenate([half.row_ids for half in halves])
    source = f"{_source(kernel_name, basis, planned[-1])}, {curve.n} rows, cross-fitted, interpolated within {bias:.1e}"
    units = _units(np.concatenate(samples), ids)
    return measured_term(DISCRETISATION, value, units, source, allowance=abs(value - in_sample), bias=bias)


def _source(kernel_name, basis, grid):
    apart = "" if basis is None else ", a variance for each direction"
    return f"path KL of {kernel_name}{apart}, {len(grid) - 1} steps"


def _score_error(known, grid, *, exact):
    if exact:
        return Term(SCORE_ERROR, 0.0, 0.0, "assumed", "the score is the target's own")
    if not isinstance(known, MeasuredCurve):
        return Term(SCORE_ERROR, math.nan, 0.0, "unknown", "(1/2) int (L - mmse) dsnr, and the mmse is unknown")
    level = information_gain(known, grid[0], grid[-1])
    how = f"{level:.6g} - C; C = (1/2) int mmse dsnr is the data's, and unknown"
    return Term(SCORE_ERROR, math.nan, 0.0, "unknown", how)


def _caveats(known, grid, basis, confidence, *, asymptotic):
    """Assumptions and warnings that come with a curve."""
    if not isinstance(known, MeasuredCurve):
        return (), ()
    assumptions = ("rows of the data are independent" + ("; intervals are asymptotic" if asymptotic else ""),)
    warnings = tuple(f"the loss is worse than noise would allow: {text}" for text in violations(known, _levels(grid)))
    needed = math.ceil(2 * ROWS_BEYOND / (1 - confidence))
    if asymptotic and known.n < needed:
        warnings += (f"{known.n} rows are few for a {confidence:.4g} interval: it may cover less; take {needed}",)
    if basis is not None and known.own_axes:
        warnings += ("the basis is made of these very rows, which understate the excess: take axes of other rows",)
    return assumptions, warnings


def _of_the_rows(kernel_name, grid, known, matched, *, asymptotic):
    """What copies among the rows and their tails say against the interval."""
    if not isinstance(known, MeasuredCurve):
        return ()
    if kernel_name == "covariance_matched":  # its samples are of groups: the rows' own are those of ancestral sampling
        kernel_name, matched = "ancestral", None
    samples = _units(path_kl_samples(kernel_name, grid, known, matched=matched), known.row_ids)
    return copied(known.row_ids) + (doubts(samples) if asymptotic else ())


def _other_moment(known, second_moment):
    squares = getattr(known, "squares", None)
    if squares is None or abs(np.mean(squares) - second_moment) <= 5 * standard_error(squares) + 1e-6 * second_moment:
        return ()
    return (f"the rows have E|X_0|^2 = {np.mean(squares):.6g}, not {second_moment:.6g}: initialisation may cost more",)


def _between_levels(term):
    """A warning where interpolation adds more to an interval than a standard error does, and enough to matter."""
    if term.bias <= max(term.standard_error, TELLING):
        return ()
    return (
        f"between the levels of the curve the loss may change the discretisation by {term.bias:.3g} nats, more than "
        f"the standard error {term.standard_error:.3g}: measure with loss_curve(..., grid=grid), or with more n_nodes",
    )


def _levels(grid):
    first, last = np.log(ou.snr(grid[[0, -1]]))
    return np.exp(np.linspace(first, last, 61))


def check_confidence(confidence):
    """Raise ValueError unless confidence is a probability between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a probability between 0 and 1: confidence = {confidence:g}. Take 0.95, say.")
