"""Error curves of a denoiser, and the path KL of a sampler as an exact function of one of them.

Everything is float64 on the host. With the exact score the numbers are path KLs (THEORY: Girsanov and the martingale
e^-t s_t); with a learned denoiser they are the discretisation excess, the part beyond the network's own error.
"""

import dataclasses

import numpy as np

from jaxdiff.curves import MeasuredCurve, loss_curve
from jaxdiff.grids import check_grid
from jaxdiff.interpolation import antiderivative
from jaxdiff.processes import ou
from jaxdiff.types import as_curve

__all__ = [
    "fisher_information",
    "information_gain",
    "initial_kl",
    "loss_curve",
    "mmse_curve",
    "path_kl",
    "path_kl_error",
    "step_cost",
]


def mmse_curve(target):
    """The mmse curve V(snr) of a target, exact score."""
    return target.mmse


# A step from t to t_next, h = snr_next - snr, costs the path KL
#   linear(L, K) + endpoint - (1/2) int_snr^snr_next L,      linear(L, K) = constant + a L(snr) + b K(snr):
# linear in the losses, so held-out averages plug in without bias and standard errors follow from one covariance.


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """A step's cost before the integral: constant + loss L + cross K, arrays over steps."""

    constant: np.ndarray
    loss: np.ndarray
    cross: np.ndarray


# Girsanov with the score frozen: E|s_theta|^2, E<s_theta, s_v> by Stein, and int E|s_v|^2 dv, a = 1 - e^-g:
#   (d/sigma^2)(g - 2a) + g (alpha^2/sigma^4) L - 2 (g - a)(alpha/sigma^3) K + (d/2) log(y/y_next),  y = 1/snr.
def _exponential_euler(t, t_next, tau, curve):
    g, snr = t - t_next, ou.snr(t)
    a = -np.expm1(-g)
    constant = curve.dim * ((1 + snr) * (g - 2 * a) + 0.5 * np.log(ou.snr(t_next) / snr))
    return Linear(constant, g * snr * (1 + snr), -2 * (g - a) * np.sqrt(snr) * (1 + snr))


# KL of two Gaussians of one variance, means alpha_next (sigma_h^2/sigma^2) |X_0 - D| apart: h L / 2.
def _ancestral(t, t_next, tau, curve):
    h = ou.snr(t_next) - ou.snr(t)
    return Linear(np.zeros_like(h), h / 2, np.zeros_like(h))


# The same means, variance widened by w = 1 + h tau/d:  (d/2)(log w + 1/w - 1) + h L/(2w).
def _moment_matched(t, t_next, tau, curve):
    h = ou.snr(t_next) - ou.snr(t)
    r = h * tau / curve.dim
    return Linear(curve.dim / 2 * (np.log1p(r) - r / (1 + r)), h / (2 * (1 + r)), np.zeros_like(h))


# The innovation's own mean and covariance: (1/2) E log det(I + h Cov(X_0 | X_t)), for the exact score.
def _covariance_matched(t, t_next, tau, curve):
    if curve.log_det is None:
        raise ValueError(
            "covariance matching needs a curve with log_det: a Gaussian's, or a target's in one dimension."
        )
    snr, zero = ou.snr(t), np.zeros(np.broadcast(t, t_next).shape)
    return Linear(curve.log_det(snr, ou.snr(t_next) - snr) / 2, zero, zero)


KERNELS = {
    "exponential_euler": _exponential_euler,
    "ancestral": _ancestral,
    "moment_matched": _moment_matched,
    "covariance_matched": _covariance_matched,
}


def _check_name(kernel_name):
    if kernel_name not in KERNELS:
        raise ValueError(
            f"path KL is not defined for {kernel_name!r}: it is for {', '.join(KERNELS)} (an ODE has none)."
        )


def step_cost(kernel_name, curve, *, matched=None, dim=None):
    """The path KL of single steps, a function of (t, t_next) that broadcasts.

    Args:
      kernel_name: a constructor: "exponential_euler", "ancestral", "moment_matched", or, for a curve that has log_det,
        "covariance_matched".
      curve: a Curve, or a callable snr -> total squared error with dim= beside it.
      matched: the curve that set the moment-matched kernel's variance; default the curve itself, which is optimal.
      dim: d, where curve is a plain callable.

    Returns:
      (t, t_next) -> float64 nats, t > t_next. Summed along a grid it is path_kl. A single exponential-Euler step with a
      learned score can be negative: its cost is measured against a network used continuously.

    Raises:
      ValueError: a kernel without a path KL, such as an ODE.
    """
    curve = as_curve(curve, dim)
    _check_name(kernel_name)

    def cost(t, t_next):
        t, t_next = np.asarray(t, np.float64), np.asarray(t_next, np.float64)
        times, place = np.unique(np.concatenate([t.ravel(), t_next.ravel()]), return_inverse=True)
        start, end = place[: t.size].reshape(t.shape), place[t.size :].reshape(t_next.shape)
        snr = ou.snr(times)
        loss, integral = curve(snr), antiderivative(curve, snr)
        cross = np.sqrt(snr) * loss if curve.cross is None else curve.cross(snr)
        tau = loss if matched is None else matched(snr)
        line = KERNELS[kernel_name](t, t_next, tau[start], curve)
        losses = line.loss * loss[start] + line.cross * cross[start]
        return line.constant + losses - 0.5 * (integral[end] - integral[start])

    return cost


def path_kl(kernel_name, grid, curve, *, matched=None, dim=None):
    """Path-space KL of a sampler run down a grid, in nats, without the initial KL; see step_cost for the arguments.

    With the mmse curve of the data and the exact score it is KL(forward path || sampler's path), an upper bound on the
    KL of the end points, and the equality holds for any data with a second moment. With the loss curve of a learned
    denoiser it is the excess over using that denoiser continuously.
    Rounding: about 1e-13 relative to d log(snr_end/snr_start).
    """
    grid = check_grid(grid)
    return float(np.sum(step_cost(kernel_name, curve, matched=matched, dim=dim)(grid[:-1], grid[1:])))


def path_kl_error(kernel_name, grid, curve, *, matched=None):
    """Standard error of path_kl: from a MeasuredCurve's covariance, a Monte Carlo curve's replicates, else 0.

    `matched` must come from other data, or be the curve itself (then the first-order error, exact to O(1/n)).
    """
    if curve.replicates:
        tau = curve if matched is None else matched
        values = [path_kl(kernel_name, grid, replicate, matched=tau) for replicate in curve.replicates]
        return float(np.std(values, ddof=1) / np.sqrt(len(values)))
    if not isinstance(curve, MeasuredCurve):
        return 0.0
    grid = check_grid(grid)
    snr = ou.snr(grid)
    u, rows = np.log(snr), curve.spline.basis(np.log(snr[:-1]))
    _check_name(kernel_name)
    tau = (curve if matched is None else matched)(snr[:-1])
    line = KERNELS[kernel_name](grid[:-1], grid[1:], tau, curve)
    loss = (line.loss / snr[:-1]) @ rows
    loss -= 0.5 * (curve.spline.integral_basis(u[-1:]) - curve.spline.integral_basis(u[:1]))[0]
    cross = (line.cross / np.sqrt(snr[:-1])) @ rows
    weights = np.concatenate([loss, cross])
    return float(np.sqrt(weights @ curve.covariance @ weights))


def fisher_information(curve, t):
    """J(t) = E|grad log q_t|^2 = d/sigma^2 - (alpha^2/sigma^4) V, from the mmse curve; shape of t."""
    snr = ou.snr(np.asarray(t, np.float64))
    return (1 + snr) * (curve.dim - snr * curve(snr))


def information_gain(curve, t, t_next):
    """(1/2) int V dsnr from t down to t_next: I(X_0; X_t_next) - I(X_0; X_t) in nats for the mmse curve."""
    low, high = antiderivative(curve, ou.snr(np.array([t, t_next], np.float64)))
    return float(high - low) / 2


def initial_kl(second_moment, dim, horizon):
    """Upper bound on KL(q_horizon || N(0, I)) in nats: (1/2)[e^-2T (m2 - d) - d log(1 - e^-2T)]."""
    decay = np.exp(-2 * horizon)
    return float(0.5 * (decay * (second_moment - dim) - dim * np.log1p(-decay)))
