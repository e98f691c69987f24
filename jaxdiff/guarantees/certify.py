"""Certifies a run: an upper bound on KL(law of the data || law of the samples), term by term."""

import math
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.arrays import Scalar
from jaxdiff.certificate import CONFIDENCE, DISCRETISATION, Certificate, Term
from jaxdiff.checks import check_confidence
from jaxdiff.curves import Curve, MeasuredCurve
from jaxdiff.curves.constraints import check_mmse
from jaxdiff.curves.curve import as_curve
from jaxdiff.grids import check_grid
from jaxdiff.guarantees import caveats
from jaxdiff.guarantees.certify_w2 import certify_w2
from jaxdiff.guarantees.cross_fit import cross_fits, cross_fitted, measured_term, source_of, units_of
from jaxdiff.guarantees.path_kl import interpolation_error, path_kl, path_kl_samples, range_of_rows, standard_error
from jaxdiff.guarantees.step_cost import cost_of
from jaxdiff.guarantees.terms import early_stopping, initialisation, moment_about_start, moment_of, score_error
from jaxdiff.intervals import bounded
from jaxdiff.noise import KeyLike
from jaxdiff.processes import ou
from jaxdiff.targets import Target
from jaxdiff.types import Basis, ErrorCurve, Grid, Kernel, Numbers, PathCost, Rows, Sampler, Times


def certify(
    kernel: Sampler | Kernel | str,
    grid: Times | None = None,
    *,
    target: Target | None = None,
    curve: ErrorCurve | None = None,
    matched: ErrorCurve | None = None,
    basis: Basis = None,
    second_moment: Scalar | None = None,
    radius: Scalar | None = None,
    dim: Scalar | None = None,
    confidence: float | int = CONFIDENCE,
    start_mean: Numbers | None = None,
    metric: str = "kl",
    key: KeyLike | None = None,
    rows: Rows | None = None,
) -> Certificate:
    """The terms of an upper bound on KL(q_early_stop || law of the samples), in nats, for a run from N(start_mean, I).

    With metric="w2" they are those of a bound on W2(data, samples), as `certify_w2` measures it for the same sampler.
    That function has more options.

    Args:
      kernel: a Sampler, as Plan.sampler makes it. Or, with a grid, a kernel or the name of one that has a path KL; see
        information.step_cost.
      grid: (n_steps + 1,) the grid of the run; not with a Sampler.
      target: a known law, sampled with its exact score. Give this or curve.
      curve: the loss curve of a learned denoiser, measured on held-out data that did not set the grid either.
      matched: with the name "moment_matched", the curve that its variance was set from, of other data. By default it is
        the curve itself, and the term is cross-fitted: the variance is set on one half of the rows and the path KL
        measured on the other. A Sampler brings the curve that its kernel was made with.
      basis: with the name "moment_matched", the directions, each with its own variance: the curve's own basis.
      second_moment: E|X_0|^2, for the initialisation and early stopping where only a curve is given. Their status is
        then "assumed". By default the mean over the rows of a measured curve.
      radius: the data lie in a ball of this radius about 0, and the denoiser is clipped to it (processes.clipped). The
        interval is then a betting interval (intervals.bounded), which holds at any number of rows. It needs `matched`
        from other rows, and a kernel whose path KL has no noise term (ancestral, moment-matched without basis).
      dim: d, where curve is a plain callable.
      confidence: that of the intervals, between 0 and 1.
      start_mean: (d,) the mean of the normal law that the run of a target starts from, as Plan.start_mean; default 0.
        With a curve centre the data instead, which does not change the curve.
      metric: "kl" for the path KL, or "w2" for the samples. The latter takes target, rows or dim, and a key.
      key: a JAX key for metric="w2".
      rows: (n, d) independent rows of the data that did not train the score, for metric="w2".

    Returns:
      A Certificate. Its terms in nats add up to the bound. Two more terms say what early stopping costs in W2 and in
      total variation. With a loss curve the discretisation is the excess over the path KL of the same network used
      continuously. The network's own error is then unknown: it contains a constant of the data that held-out rows do
      not determine.

    Raises:
      ValueError: neither or both of target and curve are given; a bad grid or confidence; a kernel without a path KL;
        a curve given as exact that cannot be an mmse curve, or that implies a larger E|X_0|^2 than second_moment; a
        `matched` that is not a curve of other rows; losses that are too large for the ball of `radius`.
    """
    if metric != "kl" or key is not None or rows is not None:
        of_kl = {"curve": curve, "matched": matched, "basis": basis, "second_moment": second_moment, "radius": radius}
        _check_w2(metric, key, of_kl | {"start_mean": start_mean})
        of_data: dict[str, Any] = {"target": target, "rows": rows, "dim": dim}
        return certify_w2(_sampler(kernel, grid), key, confidence=confidence, **of_data)
    if (target is None) == (curve is None):
        raise ValueError("give exactly one of target= (exact score) and curve= (learned denoiser).")
    check_confidence(confidence)
    known = as_curve(curve if target is None else target.mmse, dim)
    if target is not None and not (second_moment is None and radius is None and matched is None):
        raise ValueError(
            "a target brings its own second_moment and curve: leave second_moment=, radius= and matched= out."
        )
    if radius is not None and not (isinstance(known, MeasuredCurve) and 0 < radius < math.inf):
        raise ValueError(f"radius= must be positive and finite, and needs a curve= of loss_curve: radius = {radius:g}.")
    cost, grid = _judged(kernel, grid, known, matched, basis)
    second_moment = moment_of(known, second_moment) if target is None else target.second_moment
    about = Known(known, second_moment, target, start_mean)
    return certificate_of(cost, grid, about, confidence=confidence, radius=radius)


def _sampler(kernel, grid) -> Any:
    """The Sampler of a kernel and a grid; the first argument where there is no grid."""
    return kernel if grid is None else Sampler(kernel, grid)


def _check_w2(metric, key, of_kl):
    """Raise ValueError unless the arguments are those of a certificate in W2."""
    if metric not in ("kl", "w2"):
        raise ValueError(f"metric must be 'kl' (path KL) or 'w2' (the samples): metric = {metric!r}.")
    if metric == "kl":
        raise ValueError("key= and rows= are for a certificate in W2: pass metric='w2' too, or leave them out.")
    if key is None:
        raise ValueError("metric='w2' runs particles and needs key=, as jax.random.key(0): key = None.")
    for name, value in of_kl.items():
        if value is not None:
            raise ValueError(f"{name}= is for a certificate in path KL: leave {name}= out with metric='w2'.")


def _judged(kernel, grid, curve, matched, basis):
    """The PathCost and the checked grid of a Sampler, or of a name and a grid."""
    if isinstance(kernel, Sampler):
        if not (grid is None and matched is None and basis is None):
            raise ValueError("a Sampler brings its own grid, curve and basis: leave grid, matched= and basis= out.")
        kernel, grid = kernel
        cost = cost_of(kernel)
        cost = cost.with_variance(None) if cost.variance is curve else cost
    else:
        if grid is None:
            raise ValueError(
                f"give the grid of the run: certify({kernel!r}, grid, ...), or a Sampler in place of both."
            )
        cost = cost_of(kernel, matched, basis)
        if matched is not None:
            check_variance_curve(matched, curve, check_grid(grid))
    grid = check_grid(grid)
    if cost.variance is not None:
        check_variance_curve(cost.variance, curve, grid)
    return cost, grid


def check_variance_curve(matched: ErrorCurve, curve: Curve, grid: Grid) -> None:
    """Raise ValueError unless `matched` can have set a variance: of other rows, finite, of the curve's dimension."""
    if matched is curve and isinstance(curve, MeasuredCurve):
        raise ValueError(
            "matched= must be a curve of other rows than curve=: leave it out, and the variance is cross-fitted."
        )
    dim = getattr(matched, "dim", curve.dim)
    if dim != curve.dim:
        raise ValueError(f"matched has dimension {dim}, the curve {curve.dim}: measure both on data of one dimension.")
    if not np.isfinite(np.asarray(matched(ou.snr(grid[:-1])), np.float64)).all():
        raise ValueError(
            "matched is not finite at some of the grid's times: measure it from the grid's first time to its last."
        )


class Known(NamedTuple):
    """What is known of the data and the run.

    Attributes:
      curve: the target's mmse, or the loss of a learned denoiser.
      second_moment: E|X_0|^2; None where it is not known.
      target: the law of the data; None where only a curve is known.
      start_mean: (d,) the mean of the normal law that the run starts from; None for N(0, I).
    """

    curve: Curve
    second_moment: float | None
    target: Any = None
    start_mean: Any = None


def certificate_of(
    cost: PathCost,
    grid: Grid,
    known: Known,
    *,
    confidence: float | int = CONFIDENCE,
    radius: Scalar | None = None,
    discretisation: Term | None = None,
) -> Certificate:
    """The certificate of a PathCost down a checked grid; see `certify`.

    discretisation: its Term, where the caller has computed it; by default it is computed here.
    """
    curve, second_moment, target, start_mean = known
    exact = target is not None
    about_start, law = second_moment, "N(0, I)"
    if start_mean is not None:
        about_start, law = moment_about_start(target, start_mean, grid[0]), "N(start_mean, I)"
    if discretisation is None:
        discretisation = discretisation_of(cost, grid, curve, radius, confidence, given=not exact)
    terms = (
        initialisation(about_start, curve, grid[0], exact=exact, law=law),
        discretisation,
        score_error(curve, grid, exact=exact),
        *early_stopping(second_moment, curve.dim, grid[-1], target),
    )
    assumptions, warnings = caveats.caveats(curve, grid, cost.basis, confidence, asymptotic=radius is None)
    warnings += caveats.doubts_of_rows(cost, grid, curve, asymptotic=radius is None)
    warnings += caveats.moment_warning(curve, second_moment) + caveats.interpolation_warning(discretisation)
    if not exact and second_moment is not None:
        assumptions += (f"the data have E|X_0|^2 = {second_moment:.6g}",)
    if radius is not None:
        assumptions += (f"data and denoiser stay in the ball of radius {radius:.6g} about 0",)
    subject = f"KL(q_{grid[-1]:g} || {cost.kernel}" + ("" if start_mean is None else f" from {law}") + ")"
    return Certificate(subject, terms, confidence, assumptions, warnings)


def discretisation_of(
    cost: PathCost, grid: Grid, curve: Curve, radius: Scalar | None, confidence: float | int, *, given: bool
) -> Term:
    """The path KL of a PathCost down a grid as a Term; cross-fitted where the curve's own rows set the variance.

    given: True where the user gave the curve. Values that are not measured are then checked, and called "assumed".
    """
    if cost.matches and cost.variance is None and radius is None and cross_fits(cost, curve):
        return cross_fitted(cost, curve, lambda half: grid)
    value, samples, source = path_kl(cost, curve, grid), path_kl_samples(cost, curve, grid), source_of(cost, grid)
    if not len(samples):
        if given:
            check_mmse(curve, caveats.snr_between(grid))
        status, how = ("assumed", ", the curve as given") if given else ("exact", "")
        return Term(DISCRETISATION, value, 0.0, status, source + how)
    if not isinstance(curve, MeasuredCurve):
        return measured_term(DISCRETISATION, value, samples, f"{source}, Monte Carlo mmse")
    source += f", {curve.n} rows"
    if cost.uses == "log_det" and curve.coarse is not None:
        left = abs(value - path_kl(cost, curve.coarse, grid))
        source += f", Lanczos truncated within {left:.1e}"
    bias = interpolation_error(cost, curve, grid)
    source += f", interpolated within {bias:.1e}"
    if radius is None:
        return measured_term(DISCRETISATION, value, units_of(samples, curve.row_ids), source, bias=bias)
    margin = bounded(samples, *range_of_rows(cost, curve, grid, radius), confidence)
    source += ", betting interval of bounded rows"
    return Term(DISCRETISATION, value, standard_error(samples), "measured", source, margin=margin, bias=bias)
