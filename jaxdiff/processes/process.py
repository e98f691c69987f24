"""The record of a forward process: signal and noise scale as functions of its own time."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.core import Tracer

from jaxdiff.arrays import float_time

# Relative difference that is accepted between functions of a Process. The interpolation in a table of few rows may
# cause as much; mistakes in formulas cause more.
ALIKE = 0.05


@dataclasses.dataclass(frozen=True)
class OfTime:
    """A function of a time that converts its argument by float_time; equal to another one of an equal function."""

    function: Callable[..., Any]

    def __call__(self, t: Any) -> Any:
        """The function's value."""
        return self.function(float_time(t))


@dataclasses.dataclass(frozen=True)
class Process:
    """A forward noising X_t = alpha(t) X_0 + sigma(t) Z.

    Attributes:
      name: how messages call the process.
      alpha, sigma: functions of the process's own time, a NumPy float or a traced one. Whole numbers and 16-bit floats
        are converted first (`float_time`).
      snr: the function alpha^2/sigma^2, which falls or rises from one end to the other.
      time: the inverse of snr.
      ends: the first and the last time of the process, between which its models can be evaluated. The data may be at
        either end.

    Raises:
      TypeError: one of the functions cannot be called.
      ValueError: the ends are not two different numbers, or the functions contradict one another at one of three times
        between the ends. Functions that return traced values are not compared.
    """

    name: str
    alpha: Callable[..., Any]
    sigma: Callable[..., Any]
    snr: Callable[..., Any]
    time: Callable[..., Any]
    ends: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self):
        """Make every function convert its time to a float, and compare the functions."""
        for field in ("alpha", "sigma", "snr", "time"):
            function = getattr(self, field)
            if not callable(function):
                raise TypeError(
                    f"{field} of the process {self.name!r} must be a function of a time: it is {function!r}."
                )
            object.__setattr__(self, field, function if isinstance(function, OfTime) else OfTime(function))
        object.__setattr__(self, "ends", _two_ends(self))
        _check_functions(self)


def _two_ends(process):
    ends = np.asarray(process.ends, np.float64)
    if ends.shape != (2,) or np.isnan(ends).any() or ends[0] == ends[1] or np.isinf(ends.min()):
        raise ValueError(
            f"ends of the process {process.name!r} must be its first and its last time, two different numbers, such as "
            f"(0.0, 1.0): ends = {process.ends!r}."
        )
    return float(ends[0]), float(ends[1])


def _check_functions(process):
    """Raise ValueError unless snr is alpha^2/sigma^2 and monotone, and time is its inverse."""
    first, last = sorted(process.ends)
    span = last - first if math.isfinite(last) else 2.0
    times = first + span * np.array([0.25, 0.5, 0.75])
    with np.errstate(all="ignore"):
        found = [(process.alpha(t), process.sigma(t), process.snr(t), process.time(process.snr(t))) for t in times]
    if any(isinstance(value, Tracer) for row in found for value in row):
        return
    alpha, sigma, snr, back = np.array(found, np.float64).T
    # A process without a last time may have an snr of 0 or inf at these times already: nothing is compared there.
    ordinary = (snr > 0) & (snr < math.inf)
    failed = {
        "snr must be positive": ~(snr >= 0),
        "snr must be alpha^2/sigma^2": ordinary & ~(np.abs(snr * sigma**2 - alpha**2) <= ALIKE * alpha**2),
        "time must be the inverse of snr": ordinary & ~(np.abs(back - times) <= ALIKE * span),
    }
    for rule, where in failed.items():
        if where.any():
            k = int(np.argmax(where))
            raise ValueError(
                f"{rule}: at the time {times[k]:g} of the process {process.name!r} alpha = {alpha[k]:.4g}, sigma = "
                f"{sigma[k]:.4g}, snr = {snr[k]:.4g} and time(snr) = {back[k]:.4g}."
            )
    if len(set(np.sign(np.diff(snr)))) > 1:
        raise ValueError(
            f"snr must fall or rise all the way: at the times {times} of the process {process.name!r} it is {snr}."
        )
