"""The path KL of single steps, as a function of one error curve.

Everything is float64 on the host. With the exact score the numbers are path KLs, by Girsanov's theorem and the
martingale property of e^-t s_t. With a learned denoiser they are the excess that discretisation adds to the path KL of
the same network used continuously. docs/theory.md derives both.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.arrays import Scalar
from jaxdiff.curves.curve import Curve, as_curve, check_basis
from jaxdiff.curves.panels import antiderivative
from jaxdiff.kernels import PATH_COSTS
from jaxdiff.processes import ou
from jaxdiff.types import Basis, ErrorCurve, Kernel, PathCost

# Steps times directions that are computed at once: 1 MiB of float64, which fits into a CPU's cache. More would be
# written to memory and read again.
ELEMENTS_AT_ONCE = 2**17


def step_cost(
    kernel: Kernel | PathCost | str,
    curve: ErrorCurve,
    *,
    matched: ErrorCurve | None = None,
    basis: Basis = None,
    dim: Scalar | None = None,
) -> Callable[[Any, Any], Any]:
    """The path KL of single steps, a function of (t, t_next) that broadcasts.

    Args:
      kernel: a kernel with a path KL, or the name of one: "exponential_euler", "ancestral", "moment_matched", or, for a
        curve that has log_det, "covariance_matched".
      curve: a Curve; or, together with dim, a callable snr -> total squared error.
      matched: with the name "moment_matched", the curve that its variance is set from; default `curve`, the optimum.
      basis: with the name "moment_matched", the directions, each with its own variance: the curve's own basis.
      dim: d, where curve is a plain callable.

    Returns:
      (t, t_next) -> float64 nats, t > t_next, both numbers or arrays. The sum along a grid is path_kl. A single
      exponential-Euler step with a learned score can have a negative cost, because it is compared with the same network
      used continuously.

    Raises:
      ValueError: the kernel has no path KL, as an ODE, or the basis is not the curve's.
    """
    cost, curve = cost_of(kernel, matched, basis), as_curve(curve, dim)
    check_directions(cost, curve)
    return unchecked_step_cost(cost, curve)


def cost_of(kernel: Any, matched: ErrorCurve | None = None, basis: Basis = None) -> PathCost:
    """The PathCost of a Kernel or of a kernel's name; a PathCost is returned unchanged.

    Raises:
      ValueError: the kernel has no path KL, or `matched` or `basis` is given without a name. A Kernel has its own.
    """
    found = kernel.path_cost if isinstance(kernel, Kernel) else kernel
    if isinstance(found, PathCost):
        if matched is not None or basis is not None:
            raise ValueError("a Kernel brings its own curve and basis: leave matched= and basis= out.")
        return found
    if not isinstance(kernel, str) or kernel not in PATH_COSTS:
        name = kernel.name if isinstance(kernel, Kernel) else kernel
        raise ValueError(f"path KL is not defined for {name!r}: it is for {', '.join(PATH_COSTS)} (an ODE has none).")
    found = PATH_COSTS[kernel]
    if basis is not None and not found.matches:
        raise ValueError(f"basis= is an option of moment_matched alone: leave basis= out for {kernel}.")
    return dataclasses.replace(found, basis=basis).with_variance(matched)


def check_directions(cost: PathCost, *curves: ErrorCurve) -> None:
    """Raise ValueError unless the curves, and the curve that the variance is set from, have the basis of the cost."""
    if cost.basis is not None:
        for curve in (*curves, *(() if cost.variance is None else (cost.variance,))):
            check_basis(cost.basis, curve)


def variance_at(cost: PathCost, curve: Curve, snr: Any) -> np.ndarray:
    """The error that the kernel's variance is set from, (times,) or (times, d); negative values are set to 0."""
    return np.maximum(losses(curve if cost.variance is None else cost.variance, snr, cost.basis), 0)


def unchecked_step_cost(cost: PathCost, curve: Curve) -> Callable[[Any, Any], Any]:
    """Like `step_cost`, for a PathCost and a Curve that were checked."""

    def nats(t, t_next):
        t, t_next = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(t_next, np.float64))
        times, place = np.unique(np.stack([t.ravel(), t_next.ravel()]), return_inverse=True)
        start, end = place.reshape(2, -1)
        integral = antiderivative(curve, ou.snr(times))
        before = _before_the_integral(cost, curve, times, start, end)
        return (before - 0.5 * (integral[end] - integral[start])).reshape(t.shape)

    return nats


def _before_the_integral(cost, curve, times, start, end):
    """(steps,) constant + loss L + cross K of the steps from times[start] to times[end]."""
    snr = ou.snr(times)
    loss = losses(curve, snr, cost.basis)
    size = max(1, ELEMENTS_AT_ONCE // (1 if cost.basis is None else curve.dim))
    parts = [slice(first, first + size) for first in range(0, len(start), size)]
    own = cost.variance is None or cost.variance is curve
    if own and cost.basis is not None and cost.of_own_losses is not None:
        return cost.of_own_losses(snr[end] - snr[start], loss, start, parts)
    cross = _cross(curve, snr) if cost.uses == "cross" else np.zeros_like(snr)
    tau = np.maximum(loss, 0) if own else variance_at(cost, curve, snr)

    def steps(part):
        line = cost.terms(times[start[part]], times[end[part]], tau[start[part]], curve)
        found = line.loss * loss[start[part]]
        return line.constant + (found if cost.basis is None else found.sum(-1)) + line.cross * cross[start[part]]

    return np.concatenate([steps(part) for part in parts])


def losses(curve: ErrorCurve, snr: Any, basis: Basis) -> np.ndarray:
    """The squared error of a curve at snr (times,): (times,) in total, or (times, d) along a basis."""
    return np.asarray(curve(snr) if basis is None else curve.directions(snr), np.float64)


def _cross(curve, snr):
    return np.sqrt(snr) * curve(snr) if curve.cross is None else curve.cross(snr)
