"""How long a step of a Langevin kernel may be: where it diverges, and what variance it settles at."""

import numpy as np

from jaxdiff.kernels.langevin import Coefficients
from jaxdiff.processes import ou
from jaxdiff.types import Kernel

EXCESS = 0.05  # of a stationary variance, where no step is asked for


def longest_step(kernel: Kernel, *, lipschitz=None) -> float:
    """The running time of a step from which on a Langevin kernel diverges, on laws of a given curvature.

    With L the largest curvature of -log q: "plain" 2/L. "exponential" none if its variance v <= 2/L, as it is by
    default, else -v log(1 - 2/(L v)). "underdamped", g its friction and u = g h: where
    max(u/2 - tanh(u/2), 1 - u/(e^u - 1)) comes to g^2/L.

    Args:
      kernel: from `kernels.langevin`.
      lipschitz: L > 0, how fast the score falls at most. Default 1/sigma^2 at the kernel's time, which holds for the
        exact score of all data; that of a learned one can be more.

    Raises:
      ValueError: lipschitz is not positive, or the kernel is not Langevin's.
    Source: the linear recursions of each scheme; of "underdamped" trace and determinant of its two-by-two map.
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
    """What friction^2/curvature has to exceed for underdamped steps of u/friction to be stable."""
    return max(u / 2 - np.tanh(u / 2), 1 + u * np.exp(-u) / np.expm1(-u))


def stationary_variance(kernel: Kernel, h, variance) -> float:
    """The variance at which steps of running time h settle where the law at the kernel's time is N(0, variance).

    Exact score; the fixed point of the covariance under the kernel's own coefficients, inf where they diverge. Closed
    forms for "plain" and "exponential" are in `kernels.langevin`.
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


def default_step(kernel: Kernel, *, lipschitz=None) -> float:
    """The longest step whose stationary variances are wrong by 5 % at most on N(0, V), V >= 1/L; L as above.

    The error falls with V for "plain" and "underdamped", to 0, and for "exponential" from a (v - V)/(v (2V - a)) to
    -a/(2v): so the two ends of the range decide.
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
            f"no step is found for friction {settings.friction:g} and curvature {1 / least:.3g}: rounding is in the "
            f"way. Pass step_size=, below {np.exp(limit):.3g}."
        )
    return float(np.exp(_root(excess, low, high)))


def _root(function, low, high):
    from scipy.optimize import brentq

    return float(brentq(function, low, high))  # pyright: ignore[reportArgumentType]


def _settings(kernel):
    if not isinstance(kernel.coefficients, Coefficients):
        raise ValueError(f"these are the limits of kernels.langevin: the kernel is {kernel.name}.")
    return kernel.coefficients


def _curvature(kernel, lipschitz):
    if lipschitz is None:
        return float(1 / ou.sigma(_settings(kernel).time) ** 2)
    if not 0 < lipschitz < np.inf:
        raise ValueError(f"lipschitz is how fast the score falls at most, positive: lipschitz = {lipschitz:g}.")
    return float(lipschitz)
