"""The terms of a certificate other than the discretisation: initialisation, score error and early stopping."""

import math

import numpy as np

from jaxdiff.arrays import Scalar
from jaxdiff.certificate import (
    EARLY_STOPPING_TV,
    EARLY_STOPPING_W2,
    INITIALISATION,
    SCORE_ERROR,
    Term,
    total_variation,
)
from jaxdiff.checks import checked_moment
from jaxdiff.curves import Curve, MeasuredCurve
from jaxdiff.curves.constraints import check_second_moment
from jaxdiff.guarantees.information import early_stopping_w2, information_gain, initial_kl, mutual_information
from jaxdiff.processes import ou
from jaxdiff.targets import Target
from jaxdiff.types import Grid, Numbers


def moment_of(curve: Curve, second_moment: Scalar | None, default: Scalar | None = None) -> float | None:
    """E|X_0|^2 as given; by default the mean over the rows of a measured curve, else `default`.

    Raises:
      ValueError: the curve implies that E|X_0|^2 is larger.
    """
    squares = getattr(curve, "squares", None)
    if second_moment is None and squares is not None:
        return float(np.mean(squares))
    second_moment = default if second_moment is None else second_moment
    if second_moment is None:
        return None
    second_moment = checked_moment(second_moment, curve.dim)
    check_second_moment(curve, second_moment)
    return second_moment


# KL(q_T || N(m, I)) equals KL(q_T || N(0, I)) of the law shifted by -m/alpha(T).
def moment_about_start(target: Target | None, start_mean: Numbers, horizon: Scalar) -> float:
    """E|X_0 - start_mean/alpha(T)|^2 of a target, T the horizon."""
    if target is None:
        raise ValueError(
            "start_mean= needs target=. With curve= centre the data instead, and give second_moment= about their mean."
        )
    return target.moment_about(np.asarray(start_mean, np.float64) / ou.alpha(float(horizon)))


def initialisation(
    second_moment: Scalar | None, curve: Curve, horizon: Scalar, *, exact: bool, law: str = "N(0, I)"
) -> Term:
    """KL(q_horizon || law that the run starts from): its exact value from an exact mmse curve, else a Gaussian bound.

    Args:
      second_moment: E|X_0 - m/alpha(horizon)|^2 for a start from N(m, I); None where it is unknown.
      curve: the error curve.
      horizon: the first time of the run.
      exact: whether the curve is the mmse of a known law.
      law: how the Term writes N(m, I).
    """
    if second_moment is None:
        return Term(INITIALISATION, math.nan, 0.0, "unknown", "needs second_moment = E|X_0|^2")
    value = float(initial_kl(second_moment, curve.dim, horizon))
    if exact and not curve.replicates:
        value = max(value - mutual_information(curve, horizon), 0.0)
        return Term(INITIALISATION, value, 0.0, "exact", f"KL(q_T || {law}), from E|X_0|^2 and the mmse")
    status = "bound" if exact else "assumed"
    return Term(INITIALISATION, value, 0.0, status, f"Gaussian bound on KL(q_T || {law}), from E|X_0|^2")


def score_error(known: Curve, grid: Grid, *, exact: bool) -> Term:
    """The path KL that the score's own error adds: 0 for the exact score, unknown for a learned one."""
    if exact:
        return Term(SCORE_ERROR, 0.0, 0.0, "assumed", "the score is the target's own")
    if not isinstance(known, MeasuredCurve):
        return Term(SCORE_ERROR, math.nan, 0.0, "unknown", "(1/2) int (L - mmse) dsnr, and the mmse is unknown")
    level = information_gain(known, grid[0], grid[-1])
    how = f"{level:.6g} - C; C = (1/2) int mmse dsnr depends on the data's law alone, and is unknown"
    return Term(SCORE_ERROR, math.nan, 0.0, "unknown", how)


def early_stopping(
    second_moment: Scalar | None, dim: Scalar, early_stop: float, target: Target | None = None
) -> tuple[Term, Term]:
    """Bounds on W2(data, q_early_stop) and on the total variation between the two. They are not terms in nats."""
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
