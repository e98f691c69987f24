"""The terms of a certificate beside the discretisation: initialisation, score error and early stopping."""

import math

import numpy as np

from jaxdiff.certificate import (
    EARLY_STOPPING_TV,
    EARLY_STOPPING_W2,
    INITIALISATION,
    SCORE_ERROR,
    Term,
    total_variation,
)
from jaxdiff.checks import checked_moment
from jaxdiff.curves import MeasuredCurve
from jaxdiff.curves.constraints import check_second_moment
from jaxdiff.guarantees.information import early_stopping_w2, information_gain, initial_kl, mutual_information
from jaxdiff.processes import ou


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


# KL(q_T || N(m, I)) is KL(q_T || N(0, I)) of the law moved by -m/alpha(T).
def moment_about_start(target, start_mean, horizon):
    """E|X_0 - start_mean/alpha(T)|^2 of a target."""
    if target is None:
        raise ValueError(
            "start_mean= is for target=. With a curve centre the data, and give second_moment= about their mean."
        )
    return target.moment_about(np.asarray(start_mean, np.float64) / ou.alpha(float(horizon)))


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


def score_error(known, grid, *, exact):
    """What the score's own error costs: nothing for the exact score, unknown for a learned one."""
    if exact:
        return Term(SCORE_ERROR, 0.0, 0.0, "assumed", "the score is the target's own")
    if not isinstance(known, MeasuredCurve):
        return Term(SCORE_ERROR, math.nan, 0.0, "unknown", "(1/2) int (L - mmse) dsnr, and the mmse is unknown")
    level = information_gain(known, grid[0], grid[-1])
    how = f"{level:.6g} - C; C = (1/2) int mmse dsnr is the data's, and unknown"
    return Term(SCORE_ERROR, math.nan, 0.0, "unknown", how)


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
