"""The constraints that every mmse curve obeys, a check of them, and an interpolant that obeys them."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from jaxdiff.arrays import Scalar
from jaxdiff.curves.curve import Curve, as_curve
from jaxdiff.curves.measured import MeasuredCurve
from jaxdiff.legendre import gauss
from jaxdiff.processes import ou
from jaxdiff.types import ErrorCurve, Numbers

# The snr at which a curve is checked where none are given: four in one unit of log snr, from OU time 6 to 1.7e-4.
LEVELS = np.exp(np.linspace(-12, 8, 81))
NODES = 12  # of Gauss' rule between two levels, where the integrand is smooth: exact for polynomials up to degree 23


def mmse_from_nodes(snr: Any, values: Any, dim: Any, *, total_variance: Scalar | None = None) -> Curve:
    """A smooth mmse curve through values known at some snr, which obeys the constraints of every mmse curve.

    The constraints are that V is nonincreasing, that d/V - snr is nondecreasing, and that V <= min(M, d/snr). Let
    e = V/(d - snr V) be the variance of the isotropic Gaussian with this error. The constraints together say that e is
    nonincreasing and at most M/d. So e is interpolated by a monotone cubic in log snr, and is constant beyond the
    nodes.

    Args:
      snr: (nodes,) increasing and positive, at least two; an array or a list.
      values: (nodes,) V, total over the d coordinates; an array or a list.
      dim: d.
      total_variance: M = Tr Cov(X_0), the value at snr 0, if known.

    Raises:
      ValueError: the nodes are not valid, or the values break a constraint by more than rounding; the message says
        where.
    """
    snr, values = np.asarray(snr, np.float64), np.asarray(values, np.float64)
    if snr.ndim != 1 or snr.shape != values.shape or len(snr) < 2 or not (np.diff(snr) > 0).all() or snr[0] <= 0:
        raise ValueError(
            f"snr must be at least two increasing positive numbers, and values one number for each: their shapes are "
            f"{snr.shape} and {values.shape}."
        )
    broken = violations(Curve(lambda at: np.interp(at, snr, values), dim), snr)
    if total_variance is not None and values[0] * (1 + snr[0] * total_variance / dim) > total_variance * (1 + 1e-9):
        broken += (
            f"at snr {snr[0]:.4g} it is {values[0]:.6g}, more than total_variance = {total_variance:.6g} allows there",
        )
    if broken:
        raise ValueError(f"no mmse curve has these values: {broken[0]}. Check the values.")
    return constrained(snr, np.clip(values, 0, (1 - 1e-12) * dim / snr), dim)


def violations(curve: ErrorCurve, snr: Numbers | None = None, *, dim: Scalar | None = None) -> tuple[str, ...]:
    """Sentences that say where a curve breaks a constraint by more than five standard errors; () if it breaks none.

    The loss of a learned denoiser may break the constraints. Such a denoiser could be improved by adding noise to its
    input.

    Args:
      curve: a Curve; or, together with dim, a callable.
      snr: (levels,) where the curve is checked. Default: the levels of a measured curve, else 81 levels between e^-12
        and e^8.
      dim: d, where curve is a plain callable.
    """
    curve = as_curve(curve, dim)
    if snr is None:
        snr = np.exp(np.sort(curve.spline.levels)) if isinstance(curve, MeasuredCurve) else LEVELS
    snr = np.asarray(snr, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        value, error = np.asarray(curve(snr)), 5 * np.asarray(curve.standard_error(snr))
    rounding = 16 * float(np.finfo(value.dtype).eps) if value.dtype.kind == "f" else 0.0
    value = value.astype(np.float64)
    slack = max(1e-9, rounding) * np.abs(value) + 1e-13 * np.nan_to_num(np.abs(value)).max(initial=0) + error
    found = []

    def note(broken, sentence):
        if broken.any():
            k = int(np.argmax(broken))
            found.append(f"at snr {snr[k]:.4g} (t = {ou.time(snr[k]):.3g}) it is {sentence(k)}")

    note(~np.isfinite(value) | ~np.isfinite(error), lambda k: f"{value[k]}")
    note(value < -slack, lambda k: f"negative, {value[k]:.6g}")
    note(value - slack > curve.dim / snr, lambda k: f"{value[k]:.6g}, above d/snr = {curve.dim / snr[k]:.6g}")
    rises = np.diff(value, prepend=value[:1]) > slack + np.roll(error, 1)
    note(rises, lambda k: f"{value[k]:.6g}, more than the {value[k - 1]:.6g} at the smaller snr {snr[k - 1]:.4g}")
    if not found:  # d/V - snr is nondecreasing: V is at most what its value at the snr before allows
        most = value[:-1] / (1 + np.diff(snr) * value[:-1] / curve.dim)
        above = np.concatenate([[False], value[1:] > most + slack[1:] + error[:-1]])
        note(above, lambda k: f"{value[k]:.6g}, above the {most[k - 1]:.6g} that the value before allows")
    return tuple(found)


def check_mmse(curve: ErrorCurve, snr: Numbers | None = None) -> None:
    """Raise ValueError where a curve breaks a constraint; see `violations`. For curves that were not measured."""
    broken = violations(curve, snr)
    if broken:
        raise ValueError(f"the curve cannot be an mmse curve: {broken[0]}. Pass a loss_curve if it was measured.")


def check_second_moment(curve: Curve, second_moment: Scalar) -> None:
    """Raise ValueError if the second moment is less than the data's mmse implies.

    d/V - snr does not decrease, so E|X_0|^2 >= d/(d/V - snr) at any snr. Five standard errors are subtracted from a
    Monte Carlo V. The loss of a learned denoiser gives no such bound, and is not checked.
    """
    if curve.cross is not None or isinstance(curve, MeasuredCurve):
        return
    check_mmse(curve)
    value = np.asarray(curve(LEVELS), np.float64) * (1 - 1e-6) - 5 * curve.standard_error(LEVELS)
    least = float(np.max(curve.dim / (curve.dim / np.maximum(value, 1e-300) - LEVELS)))
    if least > second_moment * (1 + 1e-9):
        raise ValueError(
            f"second_moment = {second_moment:.6g} is too small: by the curve E|X_0|^2 is at least {least:.6g}. Check "
            f"the curve and the moment."
        )


def constrained(snr: Float64[np.ndarray, " nodes"], values: Float64[np.ndarray, " nodes"], dim: int) -> Curve:
    """The Curve V = d e/(1 + snr e) through values at nodes: e a monotone cubic in log snr, constant beyond them.

    It is integrated by Gauss' rule between nodes, where e is smooth.
    """
    u, variance = np.log(snr), values / (dim - snr * values)
    slopes = monotone_slopes(u, variance)

    def at(v):
        i = np.clip(np.searchsorted(u, v, side="right") - 1, 0, len(u) - 2)
        x = np.clip((v - u[i]) / (u[i + 1] - u[i]), 0, 1)
        width = u[i + 1] - u[i]
        value = (1 + 2 * x) * (1 - x) ** 2 * variance[i] + x**2 * (3 - 2 * x) * variance[i + 1]
        return value + width * x * (1 - x) * ((1 - x) * slopes[i] - x * slopes[i + 1])

    def value(where):
        e = at(np.log(where))
        return dim * e / (1 + where * e)

    def integral(where):  # piece by piece; no piece contains a node in its interior
        v = np.log(np.ravel(where))
        first = min(v.min(), u[0])
        cuts = np.unique(np.concatenate([[first], u[(u > first) & (u < v.max())], v]))
        inner, weights = gauss(cuts[:-1], cuts[1:], NODES)
        inner = np.exp(inner)
        pieces = np.sum(weights * inner * value(inner), axis=1)
        total = np.concatenate([[0.0], np.cumsum(pieces)])
        return total[np.searchsorted(cuts, v)].reshape(np.shape(where))

    return Curve(value, dim, integral=integral)


# Fritsch and Butland's harmonic mean of the two secants: 0 where they differ in sign, and never more than three times
# the smaller one, so the interpolant does not overshoot.
def monotone_slopes(
    x: Float64[np.ndarray, " nodes"], y: Float64[np.ndarray, " nodes"]
) -> Float64[np.ndarray, " nodes"]:
    """Slopes at the nodes of a cubic Hermite interpolant that is monotone wherever the values are; flat at the ends."""
    width, secant = np.diff(x), np.diff(y) / np.diff(x)
    before, after = secant[:-1], secant[1:]
    w1, w2 = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    same = before * after > 0
    safe = lambda part: np.where(same, part, 1.0)
    inner = np.where(same, (w1 + w2) / (w1 / safe(before) + w2 / safe(after)), 0.0)
    return np.concatenate([[0.0], inner, [0.0]])
