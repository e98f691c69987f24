"""What one error curve says: Fisher and mutual information, entropy, initial KL, and the path KL of every sampler.

Everything is float64 on the host, in nats. `step_cost`, `path_kl` and `path_kl_error` are those of `path_costs`,
`loss_curve` that of `curves`.
"""

import numpy as np

from jaxdiff.curves import Curve, loss_curve, principal_axes
from jaxdiff.curves.constraints import mmse_from_nodes, violations
from jaxdiff.curves.panels import antiderivative, integrated
from jaxdiff.guarantees.path_kl import path_kl, path_kl_error, path_kl_samples
from jaxdiff.guarantees.step_cost import step_cost
from jaxdiff.processes import ou

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

NO_SNR, NEGLIGIBLE = 1e-30, 1e-10  # where V is the total variance; nats of an integral that are none


def mmse_curve(target) -> Curve:
    """The mmse curve V(snr) of a target, exact score.

    Closed form for a Gaussian, quadrature on the line, sums for products, else Monte Carlo with a standard error; a
    data set as point masses by its exact posterior weights. See the constructors in `targets`.
    """
    return target.mmse


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
