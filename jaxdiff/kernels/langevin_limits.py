"""How long a step of a Langevin kernel may be: the step at which it diverges, and its stationary variance."""

import numpy as np

from jaxdiff.kernels.langevin import Coefficients
from jaxdiff.processes import ou
from jaxdiff.types import Kernel, Number

EXCESS = 0.05  # relative error of a stationary variance for the default step; a smaller one needs more steps


def longest_step(kernel: Kernel, *, lipschitz: Number | None = None) -> float:
    """The least running time of a step at which a Langevin kernel diverges, on laws of a given curvature.

    Let L be the largest curvature of -log q. "plain": 2/L. "exponential": inf if its variance v <= 2/L, as by default,
    else -v log(1 - 2/(L v)). "underdamped" with friction g: h = u/g at which max(u/2 - tanh(u/2), 1 - u/(e^u - 1))
    equals g^2/L.

    Args:
      kernel: from `kernels.langevin`.
      lipschitz: L > 0, the fastest decrease of the score. Default 1/sigma^2 at the kernel's time, which holds for the
        exact score of all data; a learned score may decrease faster.

    Raises:
      ValueError: lipschitz is not positive, or the kernel is not made by `kernels.langevin`.
    Source: the linear recursion of each scheme; for "underdamped" the trace and determinant of its two-by-two map.
    """
    settings, curvature = _settings(kernel), _curvature(kernel, lipschitz)
    if settings.scheme == "plain":
        return 2 / curvature
    if settings.scheme == "exponential":
        v = ou.sigma(settings.time) ** 2 if settings.variance is None else settings.variance
        return np.inf if v * curvature <= 2 else float(-v * np.log1p(-2 / (curvature * v)))
    goal = settings.friction**2 / curvature
    excess = lambda log_u: _strain(np.exp(log_u)) / goal - 1
    return float(np.exp(_root(excess, np.log(min(goal, 1)) - 1, np.log(2 * goal + 4)))) / settings.friction


def _strain(u):
    """The least friction^2/curvature for which underdamped steps of u/friction are stable."""
    return max(u / 2 - np.tanh(u / 2), 1 + u * np.exp(-u) / np.expm1(-u))


def stationary_variance(kernel: Kernel, h: Number, variance: Number) -> float:
    """The stationary variance of steps of running time h where the law at the kernel's time is N(0, variance).

    For the exact score. It is the fixed point of the covariance under the kernel's own coefficients, and inf where they
    diverge. `kernels.langevin` has closed forms for "plain" and "exponential".
    """
    settings = _settings(kernel)
    rows = settings.rows(np.array([settings.time]), np.array([float(h)]), np.array([False]))
    k, row = 1 / variance, {name: float(column[0]) for name, column in rows._asdict().items()}
    if settings.scheme == "underdamped":
        step = np.array([[1 - row["pull"] * k, row["drift"]], [-row["drift"] * k, row["keep"]]])
        root = np.array([[row["spread"], 0.0], [row["shared"], row["own"]]])
    else:
        step, root = np.array([[row["keep"] - row["gain"] * k]]), np.array([[row["spread"]]])
    if np.abs(np.linalg.eigvals(step)).max() >= 1:
        return np.inf
    size = len(step) ** 2
    return float(np.linalg.solve(np.eye(size) - np.kron(step, step), (root @ root.T).ravel())[0])


def default_step(kernel: Kernel, *, lipschitz: Number | None = None) -> float:
    """The longest step with stationary variances wrong by at most 5 % on every N(0, V), V >= 1/L; L as in longest_step.

    As V grows the relative error falls to 0 for "plain" and "underdamped". For "exponential" it is monotone, from
    a (v - V)/(v (2V - a)) to -a/(2v). So the two ends of the range of V decide.
    """
    settings, least = _settings(kernel), 1 / _curvature(kernel, lipschitz)
    if settings.scheme == "plain":
        return 2 * EXCESS / (1 + EXCESS) * least
    if settings.scheme == "exponential":
        v = ou.sigma(settings.time) ** 2 if settings.variance is None else settings.variance
        a = 2 * EXCESS * v * min(1, least / (abs(v - least) + EXCESS * v))
        return float(-v * np.log1p(-a / v))
    limit = np.log(longest_step(kernel, lipschitz=lipschitz))
    excess = lambda log_h: min(stationary_variance(kernel, np.exp(log_h), least) / least, 2) - 1 - EXCESS
    low, high = limit - 15, limit - 1e-9
    if not excess(low) < 0 < excess(high):
        raise ValueError(
            f"no step is found for friction {settings.friction:g} and curvature {1 / least:.3g}, because of rounding. "
            f"Pass step_size=, below {np.exp(limit):.3g}."
        )
    return float(np.exp(_root(excess, low, high)))


def _root(function, low, high):
    from scipy.optimize import brentq

    return float(brentq(function, low, high))  # pyright: ignore[reportArgumentType]


def _settings(kernel):
    if not isinstance(kernel.coefficients, Coefficients):
        raise ValueError(f"these limits are for kernels.langevin: the kernel is {kernel.name}.")
    return kernel.coefficients


def _curvature(kernel, lipschitz):
    if lipschitz is None:
        return float(1 / ou.sigma(_settings(kernel).time) ** 2)
    if not 0 < lipschitz < np.inf:
        raise ValueError(f"lipschitz is how fast the score falls at most, positive: lipschitz = {lipschitz:g}.")
    return float(lipschitz)
