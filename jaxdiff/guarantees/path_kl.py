"""The path KL of a sampler, step by step, as an exact function of one error curve.

Everything is float64 on the host. With the exact score the numbers are path KLs (Girsanov, and the martingale
e^-t s_t); with a learned denoiser they are the discretisation excess, the part beyond the network's own error.
"""

from typing import NamedTuple

import numpy as np

from jaxdiff.curves import MeasuredCurve
from jaxdiff.curves.curve import as_curve, check_basis
from jaxdiff.curves.panels import antiderivative
from jaxdiff.grids import check_grid
from jaxdiff.intervals import independent
from jaxdiff.processes import ou

ELEMENTS_AT_ONCE = 2**17  # steps times directions: 1 MiB, which stays in a cache
TOGETHER, OVERFLOWS = 8, 1e35  # directions that share a logarithm; a widening whose eighth power is still a float64


class Linear(NamedTuple):
    """A step's cost before the integral, constant + loss L + cross K; loss has d columns where directions are apart."""

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


# The same means, variance widened by w = 1 + h tau/d:  (d/2)(log w + 1/w - 1) + h L/(2w); with tau and L told apart by
# directions, (1/2)(log w_i + 1/w_i - 1) + h L_i/(2 w_i) in each.
def _moment_matched(t, t_next, tau, curve):
    h = ou.snr(t_next) - ou.snr(t)
    together = tau.shape == h.shape
    h = h if together else h[..., None]
    r = h * tau / (curve.dim if together else 1)
    constant = 0.5 * (np.log1p(r) - r / (1 + r))
    constant = curve.dim * constant if together else constant.sum(-1)
    return Linear(constant, h / (2 * (1 + r)), np.zeros_like(t - t_next))


# With tau_i = max(L_i, 0) of the same curve that is (1/2) (sum log w_i + h sum min(L_i, 0)), and no division is left.
def _own_variances(loss, snr, start, end, parts):
    """Costs before the integral, from losses (times, d) along directions that set the variances themselves."""
    h = snr[end] - snr[start]
    if loss.min() >= 0:
        return 0.5 * _log_of_products(h, loss, start, parts)
    return 0.5 * (_log_of_products(h, np.maximum(loss, 0), start, parts) + h * np.minimum(loss, 0).sum(1)[start])


# (1 + a)(1 + b) = 1 + (a + b + a b): of numbers that are not negative nothing cancels. One logarithm serves eight.
def _log_of_products(h, tau, start, parts):
    """(steps,) sum over directions of log(1 + h tau[start]); h (steps,), tau (times, d), neither negative."""
    together = TOGETHER if h.max(initial=0.0) * tau.max(initial=0.0) < OVERFLOWS else 1
    if tau.shape[1] % together:
        tau = np.pad(tau, ((0, 0), (0, -tau.shape[1] % together)))
    found = np.empty(len(h))
    for part in parts:
        r, left = tau[start[part]], together
        r *= h[part, None]
        while left > 1:
            first, second = np.split(r, 2, axis=1)
            r, left = first * second, left // 2
            r += first
            r += second
        found[part] = np.log1p(r).sum(1)
    return found


# The innovation's own mean and covariance: (1/2) E log det(I + h Cov(X_0 | X_t)), for the exact score.
def _covariance_matched(t, t_next, tau, curve):
    snr, zero = ou.snr(t), np.zeros(np.broadcast(t, t_next).shape)
    return Linear(_log_det(curve, snr, ou.snr(t_next) - snr) / 2, zero, zero)


def _log_det(curve, snr, h):
    if curve.log_det is None:
        raise ValueError(
            "covariance matching needs a curve with log_det: a known target's, or loss_curve(..., products=...)."
        )
    return curve.log_det(snr, h)


KERNELS = {
    "exponential_euler": _exponential_euler,
    "ancestral": _ancestral,
    "moment_matched": _moment_matched,
    "covariance_matched": _covariance_matched,
}
PER_DIRECTION = "moment_matched_per_direction"


def sampler_of(name, curve):
    """(kernel name, basis) of a sampler's name: a kernel's own, or PER_DIRECTION, in the curve's basis."""
    return ("moment_matched", curve.basis) if name == PER_DIRECTION else (name, None)


def label_of(name: str) -> str:
    """A sampler's name in words."""
    return {"exponential_euler": "exponential Euler", "ddim": "DDIM"}.get(name, name.replace("_", " "))


def step_cost(kernel_name, curve, *, matched=None, basis=None, dim=None):
    """The path KL of single steps, a function of (t, t_next) that broadcasts.

    Args:
      kernel_name: a constructor: "exponential_euler", "ancestral", "moment_matched", or, for a curve that has log_det,
        "covariance_matched".
      curve: a Curve, or a callable snr -> total squared error with dim= beside it.
      matched: the curve that set the moment-matched kernel's variance; default the curve itself, which is optimal.
      basis: of the moment-matched kernel, where it matches the variance of every direction: the curve's own basis.
      dim: d, where curve is a plain callable.

    Returns:
      (t, t_next) -> float64 nats, t > t_next. Summed along a grid it is path_kl. A single exponential-Euler step with a
      learned score can be negative: its cost is measured against a network used continuously.

    Raises:
      ValueError: a kernel without a path KL, such as an ODE, or a basis that is not the curve's.
    """
    curve = as_curve(curve, dim)
    matched = curve if matched is None else matched
    _check_kernel(kernel_name, basis, curve, matched)
    return _step_cost(kernel_name, curve, matched, basis)


def _step_cost(kernel_name, curve, matched, basis):
    """As `step_cost`, of arguments that were checked."""
    row = KERNELS[kernel_name]

    def cost(t, t_next):
        t, t_next = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(t_next, np.float64))
        times, place = np.unique(np.stack([t.ravel(), t_next.ravel()]), return_inverse=True)
        start, end = place.reshape(2, -1)
        snr = ou.snr(times)
        loss, integral = _losses(curve, snr, basis), antiderivative(curve, snr)
        size = max(1, ELEMENTS_AT_ONCE // (1 if basis is None else curve.dim))
        parts = [slice(first, first + size) for first in range(0, len(start), size)]
        if kernel_name == "moment_matched" and basis is not None and matched is curve:
            cost = _own_variances(loss, snr, start, end, parts)
            return (cost - 0.5 * (integral[end] - integral[start])).reshape(t.shape)
        cross = _cross(curve, snr) if kernel_name == "exponential_euler" else np.zeros_like(snr)
        tau = np.maximum(loss if matched is curve else _losses(matched, snr, basis), 0)

        def steps(part):
            line = row(times[start[part]], times[end[part]], tau[start[part]], curve)
            losses = line.loss * loss[start[part]]
            return line.constant + (losses if basis is None else losses.sum(-1)) + line.cross * cross[start[part]]

        before = np.concatenate([steps(part) for part in parts])
        return (before - 0.5 * (integral[end] - integral[start])).reshape(t.shape)

    return cost


def path_kl(kernel_name, grid, curve, *, matched=None, basis=None, dim=None):
    """Path-space KL of a sampler run down a grid, in nats, without the initial KL; see step_cost for the arguments.

    With the mmse curve of the data and the exact score it is KL(forward path || sampler's path), an upper bound on the
    KL of the end points, and the equality holds for any data with a second moment. With the loss curve of a learned
    denoiser it is the excess over using that denoiser continuously.
    Rounding: about 1e-13 relative to d log(snr_end/snr_start).
    """
    grid = check_grid(grid)
    return float(np.sum(step_cost(kernel_name, curve, matched=matched, basis=basis, dim=dim)(grid[:-1], grid[1:])))


def path_kl_samples(kernel_name, grid, curve, *, matched=None, basis=None):
    """Independent estimates of path_kl, which is their mean: of rows, groups of rows, Monte Carlo replicates; (n,).

    Empty for a curve that is known exactly. `matched` must come from other data, or be the curve itself (then the
    spread is right to first order, with an error of O(1/n)).
    """
    matched = curve if matched is None else matched
    _check_kernel(kernel_name, basis, curve, matched)
    grid = check_grid(grid)
    if isinstance(curve, MeasuredCurve) and basis is None and kernel_name != "covariance_matched":
        constant, weights = _of_rows(kernel_name, grid, curve, matched)
        return constant + curve.rows @ weights
    _check_kernel(kernel_name, None if basis is None else curve.basis, *curve.replicates)  # most hold this very array
    costs = (_step_cost(kernel_name, one, matched, basis) for one in curve.replicates)
    return np.array([float(np.sum(cost(grid[:-1], grid[1:]))) for cost in costs])


def path_kl_error(kernel_name, grid, curve, *, matched=None, basis=None):
    """Standard error of path_kl from the spread of path_kl_samples, copies of a row together; 0 for an exact curve."""
    samples, ids = path_kl_samples(kernel_name, grid, curve, matched=matched, basis=basis), None
    if isinstance(curve, MeasuredCurve) and curve.row_ids is not None and len(samples) == curve.n:
        ids = curve.row_ids
    return standard_error(independent(samples, ids))


def interpolation_error(kernel_name, grid, curve, *, matched=None, basis=None, integral=True):
    """How wrong path_kl may be, in nats, because a MeasuredCurve knows the losses at its levels only; 0 for others.

    The estimates of `Spline.error` and `Spline.integral_error`, weighted and added up without regard to signs. A grid
    given to `loss_curve` has its own nodes among the levels; what is left is the error of (1/2) int L dsnr, which
    integral=False leaves out.
    """
    if not isinstance(curve, MeasuredCurve):
        return 0.0
    matched = curve if matched is None else matched
    _check_kernel(kernel_name, basis, curve, matched)
    grid = check_grid(grid)
    snr, spline = ou.snr(grid), curve.spline
    u, nodes = np.log(snr[:-1]), np.exp(spline.u)
    missed = lambda near, weight: float(np.sum(np.abs(weight) * spline.error(near, u)))
    around, total = spline.around(u), 0.0
    if kernel_name == "covariance_matched":
        total += missed(_log_det(curve, nodes[around], np.diff(snr)[:, None]), 0.5)
    else:
        tau = np.maximum(_losses(matched, snr[:-1], basis), 0)
        line = KERNELS[kernel_name](grid[:-1], grid[1:], tau, curve)
        losses = (nodes * _losses(curve, nodes, basis).T).T
        total += missed(losses[around], (line.loss.T / snr[:-1]).T)
        total += missed(curve.crosses[around], line.cross / np.sqrt(snr[:-1]))
    return total + (spline.integral_error(curve.losses, *np.log(snr[[0, -1]])) / 2 if integral else 0.0)


def standard_error(samples):
    """Of the mean of independent samples (n,); 0 where there are none."""
    return float(np.std(samples, ddof=1) / np.sqrt(len(samples))) if len(samples) > 1 else 0.0


def level_samples(curve, grid):
    """(n,) independent estimates of (1/2) int L dsnr between a grid's ends, one for each row of a MeasuredCurve."""
    return curve.rows[:, : len(curve.spline.levels)] @ _half_integral(curve.spline, np.log(ou.snr(grid)))


# No narrower range holds for every clipped D: one that knows X_0 may be anywhere in the ball between two levels and
# elsewhere at the levels, so the loss takes 0 and 4 R^2 at either, whatever the weights' signs.
def range_of_rows(kernel_name, grid, curve, matched, radius, *, basis=None):
    """Smallest and largest path KL that a row can have, if |X_0 - D| <= 2 radius always.

    Raises:
      ValueError: the kernel's path KL holds a noise term or `matched` is not from other data, or a row's loss shows
        that data or denoiser leave the ball.
    """
    if kernel_name not in ("ancestral", "moment_matched") or basis is not None:
        raise ValueError("radius= is for ancestral and moment_matched without basis: other path KLs are not bounded.")
    if kernel_name == "moment_matched" and (matched is None or matched is curve):
        raise ValueError("radius= needs matched=, the curve that set the variance, from other rows than these.")
    levels = np.exp(curve.spline.levels)
    losses, most = curve.rows[:, : len(levels)], 4 * radius**2 * levels
    if (losses > most * (1 + 1e-6)).any():
        worst = float(np.sqrt((losses / levels).max()))
        raise ValueError(f"a row is {worst:.4g} from its denoised self, more than 2 radius = {2 * radius:.4g}: clip D.")
    constant, weights = _of_rows(kernel_name, check_grid(grid), curve, curve if matched is None else matched)
    ends = weights[: len(most)] * most
    return constant + float(np.minimum(ends, 0).sum()), constant + float(np.maximum(ends, 0).sum())


def _half_integral(spline, u):
    """(levels,): values of snr L at the levels -> (1/2) int L dsnr from u[0] to u[-1]."""
    return 0.5 * (spline.integral_basis(u[-1:]) - spline.integral_basis(u[:1]))[0]


def _of_rows(kernel_name, grid, curve, matched):
    """Constant and weights (2 levels,): the path KL of a row of a MeasuredCurve is constant + weights @ row."""
    snr = ou.snr(grid)
    u, spline = np.log(snr), curve.spline
    line = KERNELS[kernel_name](grid[:-1], grid[1:], np.maximum(matched(snr[:-1]), 0), curve)
    at_nodes = spline.basis(u[:-1])
    loss = (line.loss / snr[:-1]) @ at_nodes
    loss -= _half_integral(spline, u)
    return float(np.sum(line.constant)), np.concatenate([loss, (line.cross / np.sqrt(snr[:-1])) @ at_nodes])


def _losses(curve, snr, basis):
    return np.asarray(curve(snr) if basis is None else curve.directions(snr), np.float64)


def _cross(curve, snr):
    return np.sqrt(snr) * curve(snr) if curve.cross is None else curve.cross(snr)


def _check_kernel(kernel_name, basis, *curves):
    if kernel_name not in KERNELS:
        raise ValueError(
            f"path KL is not defined for {kernel_name!r}: it is for {', '.join(KERNELS)} (an ODE has none)."
        )
    if basis is None:
        return
    if kernel_name != "moment_matched":
        raise ValueError(f"basis= is an option of moment_matched alone: {kernel_name} has none.")
    for curve in curves:
        check_basis(basis, curve)
