"""The Ornstein-Uhlenbeck process, whose time is the clock of every kernel.

Every formula takes a NumPy time (float64 on the host) or a traced one.
"""

from jaxdiff.arrays import like, namespace
from jaxdiff.processes.process import Process
from jaxdiff.types import Numbers, Particles


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
