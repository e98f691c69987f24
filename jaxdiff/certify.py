"""A run in, a Certificate out: what is known of the KL from the data's law to the samples'."""

from jaxdiff.curves import MeasuredCurve
from jaxdiff.grids import check_grid
from jaxdiff.information import initial_kl, path_kl, path_kl_error
from jaxdiff.types import Certificate, Curve, Term, as_curve

INITIALISATION = "initialisation"
DISCRETISATION = "discretisation"
SCORE_ERROR = "score error"


def certify(
    kernel_name, grid, *, target=None, curve=None, matched=None, second_moment=None, dim=None, confidence=0.95
) -> Certificate:
    """The terms of an upper bound on KL(q_early_stop || law of the samples), in nats, for a run from N(0, I).

    Args:
      kernel_name: a kernel with a path KL, as in information.step_cost.
      grid: the grid of the run.
      target: a known law sampled with its exact score; or
      curve: the loss curve of a learned denoiser, on data that neither it nor the grid has seen.
      matched: the curve that set the moment-matched variance, from other data; default the curve itself.
      second_moment: E|X_0|^2, for the initialisation when only a curve is given; the term is then "assumed".
      dim: d, where curve is a plain callable.
      confidence: of the intervals printed beside measured terms (asymptotic, normal).

    Returns:
      A Certificate of three terms. With a target they add up to the bound. With a loss curve the discretisation is the
      excess over the network used continuously, and the network's own error is unknown: a constant of the data that no
      held-out set determines.

    Raises:
      ValueError: neither or both of target and curve, a bad grid or confidence, or a kernel without a path KL.
    """
    if (target is None) == (curve is None):
        raise ValueError("give exactly one of target= (exact score) and curve= (learned denoiser).")
    grid = check_grid(grid)
    known = as_curve(curve if target is None else target.mmse, dim)
    second_moment = second_moment if target is None else target.second_moment
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a probability between 0 and 1: confidence = {confidence:g}. Take 0.95, say.")
    measured = isinstance(known, MeasuredCurve)
    status, how = _status(known, exact=target is not None or isinstance(curve, Curve))
    discretisation = Term(
        DISCRETISATION,
        path_kl(kernel_name, grid, known, matched=matched),
        path_kl_error(kernel_name, grid, known, matched=matched),
        status,
        f"path KL of {kernel_name}, {len(grid) - 1} steps{how}",
    )
    initialisation = _initialisation(second_moment, known.dim, grid[0], "assumed" if target is None else "bound")
    terms = (initialisation, discretisation, _score_error(target is not None))
    assumptions = ("rows of the data are independent; intervals are asymptotic",) if measured else ()
    if target is None and second_moment is not None:
        assumptions += (f"the data have E|X_0|^2 = {second_moment:.6g}",)
    return Certificate(f"KL(q_{grid[-1]:g} || {kernel_name})", terms, confidence, assumptions)


def _status(known, *, exact):
    """How the curve is known, and in words where that needs any."""
    if isinstance(known, MeasuredCurve):
        return "measured", f", {known.n} rows"
    if known.replicates:
        return "measured", ", Monte Carlo mmse"
    return ("exact", "") if exact else ("assumed", ", the curve as given")


def _initialisation(second_moment, dim, horizon, status):
    if second_moment is None:
        return Term(INITIALISATION, float("nan"), 0.0, "unknown", "needs second_moment = E|X_0|^2")
    value = initial_kl(second_moment, dim, horizon)
    return Term(INITIALISATION, value, 0.0, status, "Gaussian bound on KL(q_T || N(0, I)), from E|X_0|^2")


def _score_error(exact):
    if exact:
        return Term(SCORE_ERROR, 0.0, 0.0, "assumed", "the score is the target's own")
    return Term(SCORE_ERROR, float("nan"), 0.0, "unknown", "(1/2) int (L - mmse) dsnr, and the mmse is unknown")
