"""The log-Sobolev constant of noised data in a ball, and the horizons from which on it is close to 1."""

from typing import Any

import numpy as np

from jaxdiff.processes import ou
from jaxdiff.processes.default_times import EARLIEST, LATEST
from jaxdiff.types import Number, Numbers


def lsi_constant(time: Numbers, radius: Number) -> Any:
    """A log-Sobolev constant of q_t for data with |X_0| <= R: alpha(t) = (1/sigma^2)(1 - alpha_t^2 R^2/sigma^2).

    Where the value is positive, -log q_t has curvature alpha(t) or more everywhere (Bakry and Emery). Two points at
    distance R from 0 attain that curvature at 0. Where the value is not positive, nothing is claimed. `time` may be an
    array.
    """
    check_radius(radius)
    return (1 - ou.snr(np.asarray(time, np.float64)) * radius**2) / ou.sigma(np.asarray(time, np.float64)) ** 2


def sufficient_horizon(delta: Number, radius: Number) -> float:
    """The smallest time from which on lsi_constant >= 1 - delta; at most `simple_horizon`, with the same arguments.

    With u = e^-2t the condition is (1 - delta) u^2 + (R^2 - 1 + 2 delta) u - delta <= 0.
    """
    _check_delta(delta)
    check_radius(radius)
    b = radius**2 - 1 + 2 * delta
    root = np.hypot(b, 2 * np.sqrt(delta * (1 - delta)))
    u = 2 * delta / (b + root) if b > 0 else (root - b) / (2 * (1 - delta))
    return float(-np.log(min(u, 1.0)) / 2)


def simple_horizon(delta: Number, radius: Number) -> float:
    """(1/2) log(1 + R^2/delta), a time from which on lsi_constant >= 1 - delta; delta in (0, 1), R >= 0."""
    _check_delta(delta)
    check_radius(radius)
    return float(np.log1p(radius**2 / delta) / 2)


def check_radius(radius: Number) -> None:
    """Raise ValueError unless the radius is finite and not negative."""
    if not 0 <= radius < np.inf:
        raise ValueError(f"radius bounds the norm of the data, finite and not negative: radius = {radius:g}.")


def check_horizon(time: Number) -> None:
    """Raise ValueError unless the horizon is an OU time that the package can represent."""
    if not EARLIEST <= time <= LATEST:
        raise ValueError(f"the horizon must be an OU time in [{EARLIEST:g}, {LATEST:g}]: it is {time:g}.")


def _check_delta(delta):
    if not 0 < delta < 1:
        raise ValueError(f"delta, how far the constant may fall below 1, must lie in (0, 1): delta = {delta:g}.")
