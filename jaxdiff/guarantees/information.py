"""Quantities that follow from one error curve: Fisher and mutual information, entropy, and distances to the data's law.

Everything is float64 on the host, in nats. The functions of an error curve that other modules define are exported here
too: `step_cost`, `path_kl`, `path_kl_samples` and `path_kl_error` of `guarantees`, and `loss_curve`, `principal_axes`,
`mmse_from_nodes` and `violations` of `curves`.
"""

from typing import Any

import numpy as np

from jaxdiff.arrays import Scalar
from jaxdiff.curves import Curve, loss_curve, principal_axes
from jaxdiff.curves.constraints import mmse_from_nodes, violations
from jaxdiff.curves.panels import antiderivative, integrated
from jaxdiff.guarantees.path_kl import path_kl, path_kl_error, path_kl_samples
from jaxdiff.guarantees.step_cost import step_cost
from jaxdiff.processes import ou
from jaxdiff.types import Numbers, Times

__all__ = [
    "denoised_w2",
    "early_stopping_w2",
    "entropy",
    "fisher_information",
    "information_bounds",
    "information_error",
    "information_gain",
    "initial_kl",
    "loss_curve",
    "mmse_from_nodes",
    "mutual_information",
    "path_kl",
    "path_kl_error",
    "path_kl_samples",
    "principal_axes",
    "step_cost",
    "violations",
]

NO_SNR = 1e-30  # an snr so small that V(snr) is the total variance of the data to all digits
NEGLIGIBLE = 1e-10  # nats. The error that `mutual_information` accepts in its integral below the least snr.


def fisher_information(curve: Curve, t: Numbers) -> Any:
    """The Fisher information J(t) = E|grad log q_t|^2 = d/sigma^2 - (alpha^2/sigma^4) V from the mmse curve.

    t: OU times of any shape, which is the shape of the result.
    """
    snr = ou.snr(np.asarray(t, np.float64))
    return (1 + snr) * (curve.dim - snr * curve(snr))


def information_gain(curve: Curve, t: Scalar, t_next: Scalar) -> float:
    """(1/2) int V dsnr from time t down to t_next. For the mmse curve it is I(X_0; X_t_next) - I(X_0; X_t), in nats."""
    low, high = antiderivative(curve, ou.snr(np.array([t, t_next], np.float64)))
    return float(high - low) / 2


def information_error(curve: Curve, t: Scalar, t_next: Scalar) -> float:
    """A bound on the quadrature error of information_gain, in nats; 0 for a closed form and for splines.

    The bound is the size of the last Legendre coefficients, and holds where the coefficients fall as those of an
    analytic curve. It does not contain the Monte Carlo error, for which see the curve's standard_error and replicates.
    Nor does it contain the error of a spline between its levels, for which see path_kl.interpolation_error.
    """
    error = integrated(curve).integral_error
    return 0.0 if error is None else error(ou.snr(np.array([t, t_next], np.float64))) / 2


def information_bounds(curve: Curve, grid: Times) -> tuple[Any, Any]:
    """Lower and upper bound on information_gain over a grid, in nats, from the mmse at the grid's nodes alone.

    Let two nodes be h apart in snr, with the mmse V at the first and V_next at the second. d/V - snr is nondecreasing,
    so int V dsnr between them is at most d log(1 + h V/d) and at least -d log(1 - h V_next/d).
    """
    snr = ou.snr(np.asarray(grid, np.float64))
    value, h = np.minimum(curve(snr), curve.dim / snr), np.diff(snr) / curve.dim
    return -curve.dim / 2 * np.sum(np.log1p(-h * value[1:])), curve.dim / 2 * np.sum(np.log1p(h * value[:-1]))


def mutual_information(curve: Curve, t: Scalar) -> float:
    """I(X_0; X_t) = (1/2) int V dsnr from snr 0 to that of the time t, in nats, from the mmse curve."""
    at = lambda snr: float(curve(np.array([snr]))[0])
    snr, whole = float(ou.snr(float(t))), at(NO_SNR)
    low = snr
    while low * (whole - at(low)) > NEGLIGIBLE:  # V does not increase, so below `low` it lies between at(low) and whole
        low /= 10
    return low * (whole + at(low)) / 4 + (information_gain(curve, ou.time(low), t) if low < snr else 0.0)


def entropy(curve: Curve, t: Scalar) -> float:
    """The differential entropy of q_t in nats, I(X_0; X_t) + (d/2) log(2 pi e sigma^2), from the mmse curve."""
    return mutual_information(curve, t) + curve.dim / 2 * float(np.log(2 * np.pi * np.e * ou.sigma(float(t)) ** 2))


def initial_kl(second_moment: Scalar, dim: Scalar, horizon: Numbers) -> Any:
    """Upper bound on KL(q_T || N(0, I)) in nats: (1/2)[e^-2T (E|X_0|^2 - d) - d log(1 - e^-2T)] at T = horizon.

    The exact value is this bound minus I(X_0; X_T). The horizon may be an array, whose shape the result has.
    """
    decay = np.exp(-2 * np.asarray(horizon, np.float64))
    return (0.5 * (decay * (second_moment - dim) - dim * np.log1p(-decay)))[()]


def early_stopping_w2(second_moment: Scalar, dim: Scalar, early_stop: Scalar) -> float:
    """Upper bound on W2(data, q_t) at t = early_stop, in the data's units: sqrt(E|X_0 - X_t|^2), X_t made from X_0."""
    alpha, sigma = ou.alpha(early_stop), ou.sigma(early_stop)
    return float(np.sqrt((1 - alpha) ** 2 * second_moment + sigma**2 * dim))


def denoised_w2(curve: Curve, early_stop: Scalar) -> float:
    """Upper bound on W2(data, law of D(X_t)) at t = early_stop, in the data's units: sqrt(E|X_0 - D(X_t)|^2).

    D is the denoiser whose loss the curve is; for an mmse curve it is the posterior mean. The curve of held-out rows
    has a standard error, and so has the bound made from it.
    """
    return float(np.sqrt(curve(ou.snr(np.array([early_stop], np.float64)))[0]))
