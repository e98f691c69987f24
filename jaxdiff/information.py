"""What one error curve says: Fisher and mutual information, entropy, initial KL, and the path KL of every sampler.

Everything is float64 on the host, in nats. `step_cost`, `path_kl` and `path_kl_error` are those of `path_costs`,
`loss_curve` that of `curves`.
"""

import numpy as np

from jaxdiff.curves import MeasuredCurve, loss_curve, principal_axes
from jaxdiff.interpolation import antiderivative, constrained, integrated
from jaxdiff.path_costs import KERNELS, path_kl, path_kl_error, path_kl_samples, step_cost
from jaxdiff.processes import ou
from jaxdiff.types import Curve, as_curve

__all__ = [
    "KERNELS",
    "denoised_w2",
    "early_stopping_w2",
    "entropy",
    "fisher_information",
    "information_bounds",
    "information_error",
    "information_gain",
    "initial_kl",
    "loss_curve",
    "mmse_curve",
    "mmse_from_nodes",
    "mutual_information",
    "path_kl",
    "path_kl_error",
    "path_kl_samples",
    "principal_axes",
    "step_cost",
    "violations",
]

LEVELS = np.exp(np.linspace(-12, 8, 81))  # where a curve is held against the constraints
NO_SNR, NEGLIGIBLE = 1e-30, 1e-10  # where V is the total variance; nats of an integral that are none


def mmse_curve(target) -> Curve:
    """The mmse curve V(snr) of a target, exact score.

    Closed form for a Gaussian, quadrature on the line, sums for products, else Monte Carlo with a standard error; a
    data set as point masses by its exact posterior weights. See the constructors in `targets`.
    """
    return target.mmse


def mmse_from_nodes(snr, values, dim, *, total_variance=None) -> Curve:
    """A smooth mmse curve through values known at some snr, that obeys what every mmse curve obeys.

    V is nonincreasing, d/V - snr nondecreasing, V <= min(M, d/snr). All of that says that e = V/(d - snr V), the
    variance of the isotropic Gaussian with this error, is nonincreasing and at most M/d: it is interpolated by a
    monotone cubic in log snr and is constant beyond the nodes.

    Args:
      snr: (nodes,) increasing, at least two.
      values: (nodes,) V, total over the d coordinates.
      dim: d.
      total_variance: M = Tr Cov(X_0), the value at snr 0, if known.

    Raises:
      ValueError: the values break a constraint by more than rounding; the message says where.
    """
    snr, values = np.asarray(snr, np.float64), np.asarray(values, np.float64)
    if snr.ndim != 1 or snr.shape != values.shape or len(snr) < 2 or not (np.diff(snr) > 0).all() or snr[0] <= 0:
        raise ValueError(
            f"nodes are two increasing positive snr at least, one value each: shapes {snr.shape}, {values.shape}."
        )
    broken = violations(Curve(lambda at: np.interp(at, snr, values), dim), snr)
    if total_variance is not None and values[0] * (1 + snr[0] * total_variance / dim) > total_variance * (1 + 1e-9):
        broken += (
            f"at snr {snr[0]:.4g} it is {values[0]:.6g}, more than total variance {total_variance:.6g} leaves there",
        )
    if broken:
        raise ValueError(f"no mmse curve has these values: {broken[0]}.")
    return constrained(snr, np.clip(values, 0, (1 - 1e-12) * dim / snr), dim)


def violations(curve, snr=None, *, dim=None):
    """Sentences on where a curve is no mmse curve, beyond five standard errors of it; () if it may be one.

    The loss of a learned denoiser can be any of this, and is the worse for it: more noise would help it. `snr`
    (levels,) defaults to 81 levels between e^-12 and e^8, or to the nodes of a measured curve.
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
    if not found:  # d/V - snr nondecreasing, as V against the most that the node before allows
        most = value[:-1] / (1 + np.diff(snr) * value[:-1] / curve.dim)
        above = np.concatenate([[False], value[1:] > most + slack[1:] + error[:-1]])
        note(above, lambda k: f"{value[k]:.6g}, above the {most[k - 1]:.6g} that the value before allows")
    return tuple(found)


def check_mmse(curve, snr=None):
    """Raise ValueError where a curve that was given, not measured, is no mmse curve; see `violations`."""
    broken = violations(curve, snr)
    if broken:
        raise ValueError(f"the curve cannot be an mmse curve: {broken[0]}. Pass a loss_curve if it was measured.")


def check_second_moment(curve, second_moment):
    """Raise ValueError if E|X_0|^2 is less than the data's mmse leaves it; a learned denoiser's loss says nothing.

    d/V - snr does not decrease, so M >= d/(d/V - snr) at any snr; of a Monte Carlo V five standard errors come off.
    """
    if curve.cross is not None or isinstance(curve, MeasuredCurve):
        return
    check_mmse(curve)
    value = np.asarray(curve(LEVELS), np.float64) * (1 - 1e-6) - 5 * curve.standard_error(LEVELS)
    least = float(np.max(curve.dim / (curve.dim / np.maximum(value, 1e-300) - LEVELS)))
    if least > second_moment * (1 + 1e-9):
        raise ValueError(
            f"second_moment = {second_moment:.6g} is less than the {least:.6g} that the curve shows E|X_0|^2 to be at "
            f"least."
        )


def fisher_information(curve, t):
    """J(t) = E|grad log q_t|^2 = d/sigma^2 - (alpha^2/sigma^4) V, from the mmse curve; shape of t."""
    snr = ou.snr(np.asarray(t, np.float64))
    return (1 + snr) * (curve.dim - snr * curve(snr))


def information_gain(curve, t, t_next):
    """(1/2) int V dsnr from t down to t_next: I(X_0; X_t_next) - I(X_0; X_t) in nats for the mmse curve."""
    low, high = antiderivative(curve, ou.snr(np.array([t, t_next], np.float64)))
    return float(high - low) / 2


def information_error(curve, t, t_next):
    """How wrong information_gain can be by quadrature, in nats; 0 for a closed form and for splines.

    Bounded by the size of the last Legendre coefficients kept, for series that fall as those of analytic curves do.
    Monte Carlo error is not in it: see the curve's standard_error and replicates. What a spline misses between its
    levels is not in it either: see path_costs.interpolation_error.
    """
    error = integrated(curve).integral_error
    return 0.0 if error is None else error(ou.snr(np.array([t, t_next], np.float64))) / 2


def information_bounds(curve, grid):
    """Lower and upper bound on information_gain over a grid from the mmse at its nodes alone, in nats.

    d/V - snr is nondecreasing, so between nodes h apart d log(1 + h V/d) of the first bounds int V from above and
    -d log(1 - h V_next/d) of the second from below.
    """
    snr = ou.snr(np.asarray(grid, np.float64))
    value, h = np.minimum(curve(snr), curve.dim / snr), np.diff(snr) / curve.dim
    return -curve.dim / 2 * np.sum(np.log1p(-h * value[1:])), curve.dim / 2 * np.sum(np.log1p(h * value[:-1]))


def mutual_information(curve, t):
    """I(X_0; X_t) = (1/2) int_0^snr(t) V in nats, from the mmse curve; t a number."""
    at = lambda snr: float(curve(np.array([snr]))[0])
    snr, whole = float(ou.snr(float(t))), at(NO_SNR)
    low = snr
    while low * (whole - at(low)) > NEGLIGIBLE:  # V does not increase: between the two it is known that well
        low /= 10
    return low * (whole + at(low)) / 4 + (information_gain(curve, ou.time(low), t) if low < snr else 0.0)


def entropy(curve, t):
    """Differential entropy of q_t in nats, I(X_0; X_t) + (d/2) log(2 pi e sigma^2); t a number."""
    return mutual_information(curve, t) + curve.dim / 2 * float(np.log(2 * np.pi * np.e * ou.sigma(float(t)) ** 2))


def initial_kl(second_moment, dim, horizon):
    """Upper bound on KL(q_horizon || N(0, I)) in nats: (1/2)[e^-2T (m2 - d) - d log(1 - e^-2T)]; shape of horizon.

    The exact value is less by I(X_0; X_horizon).
    """
    decay = np.exp(-2 * np.asarray(horizon, np.float64))
    return (0.5 * (decay * (second_moment - dim) - dim * np.log1p(-decay)))[()]


def early_stopping_w2(second_moment, dim, early_stop):
    """Upper bound on W2(data, q_early_stop), in the data's units: the distance of X_0 and X_t built from it."""
    alpha, sigma = ou.alpha(early_stop), ou.sigma(early_stop)
    return float(np.sqrt((1 - alpha) ** 2 * second_moment + sigma**2 * dim))


def denoised_w2(curve, early_stop):
    """Upper bound on W2(data, law of D(X_t)) at t = early_stop, in the data's units: sqrt(E|X_0 - D(X_t)|^2).

    D is the denoiser that the curve is the loss of, the posterior mean where the curve is an mmse. A bound on the
    distance of X_0 and the D(X_t) made from it, so from the curve of held-out rows it has their standard error.
    """
    return float(np.sqrt(curve(ou.snr(np.array([early_stop], np.float64)))[0]))
