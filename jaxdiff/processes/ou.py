"""The Ornstein-Uhlenbeck process, whose time is the clock of every kernel.

Every formula takes a NumPy time (float64 on the host) or a traced one.
"""

from typing import Any

import numpy as np

from jaxdiff.arrays import like, namespace
from jaxdiff.checks import check_number
from jaxdiff.processes.process import Process
from jaxdiff.types import Numbers, Particles

# The OU times between which snr and its square root are normal float32 numbers, neither subnormal nor infinite.
EARLIEST, LATEST = 1e-12, 40.0
EARLY_STOP = 1e-3  # default OU time to stop at: sigma is 0.045 there, in units of the data's standard deviation
EARLY_STOP_OF_A_NETWORK = 2e-3  # default of `jaxdiff train`: sigma is 0.063; few rows say little about less noise


def _alpha(t):
    return namespace(t).exp(-t)


def _sigma(t):
    xp = namespace(t)
    return xp.sqrt(-xp.expm1(-2 * t))


def _snr(t):
    return 1 / namespace(t).expm1(2 * t)


def _time(snr):
    return namespace(snr).log1p(1 / snr) / 2


ou = Process("ou", _alpha, _sigma, _snr, _time)
"""dX = -X dt + sqrt(2) dB: alpha = e^-t, sigma^2 = 1 - e^-2t, snr = alpha^2/sigma^2 = 1/(e^2t - 1)."""


def forward(x0: Particles, t: Numbers, z: Particles) -> Particles:
    """Noised data X_t = alpha(t) x0 + sigma(t) z; shapes (..., d), () -> (..., d)."""
    t = like(t, x0)
    return (ou.alpha(t) * x0.astype(t.dtype) + ou.sigma(t) * z.astype(t.dtype)).astype(x0.dtype)


def check_ends(horizon: Any, early_stop: Any) -> None:
    """Raise ValueError unless EARLIEST <= early_stop < horizon <= LATEST."""
    check_number(horizon, "horizon")
    check_number(early_stop, "early_stop")
    if not EARLIEST <= early_stop < np.inf:
        raise ValueError(
            f"early_stop must be a positive time, at least {EARLIEST:g}: early_stop = {early_stop:g}. Take 1e-3, say."
        )
    if not early_stop < horizon < np.inf:
        raise ValueError(f"early_stop must lie below the horizon: early_stop = {early_stop:g}, horizon = {horizon:g}.")
    if horizon > LATEST:
        raise ValueError(
            f"horizon must be at most {LATEST:g}, where snr = e^-{2 * LATEST:g} still is a float32: horizon = "
            f"{horizon:g}. Take 5, say."
        )
