"""Forward processes in use elsewhere: VP with linear and cosine schedules, VE, EDM, flow matching and DDPM tables."""

import functools

import numpy as np

from jaxdiff.arrays import namespace
from jaxdiff.processes.conversion import whole_row
from jaxdiff.processes.process import Process
from jaxdiff.types import Number, Numbers

# The alpha^2 that replaces 0 where a schedule begins in pure noise, as in diffusers' schedulers. N(0, I) is then within
# 3e-8 E|X_0|^2 nats of the law there, and no step from there to the data is too long for float32.
NEARLY_ZERO = 2.0**-24


@functools.cache
def vp_linear(beta_min: Number = 0.1, beta_max: Number = 20.0) -> Process:
    """VP with beta linear over t in [0, 1]: -2 log alpha = beta_min t + (beta_max - beta_min) t^2/2.

    Source: Song et al., ICLR 2021, arXiv:2011.13456, eq. 33.
    """
    low, slope = float(beta_min), float(beta_max - beta_min)
    decay = lambda t: low * t + slope * t**2 / 2  # -2 log alpha

    def time(snr):
        xp = namespace(snr)
        decayed = xp.log1p(1 / snr)  # -2 log alpha
        return 2 * decayed / (low + xp.sqrt(low**2 + 2 * slope * decayed))

    return Process(
        "vp_linear",
        lambda t: namespace(t).exp(-decay(t) / 2),
        lambda t: namespace(t).sqrt(-namespace(t).expm1(-decay(t))),
        lambda t: 1 / namespace(t).expm1(decay(t)),
        time,
        (0.0, 1.0),
    )


# With a = pi/2/(1 + s): alpha = cos((t + s) a)/cos(s a), and 1 - alpha^2 = sin(t a) sin((t + 2 s) a)/cos(s a)^2.
@functools.cache
def vp_cosine(s: Number = 0.008) -> Process:
    """VP with alpha = cos((t + s)/(1 + s) pi/2)/cos(s/(1 + s) pi/2), t in [0, 1).

    Source: Nichol, Dhariwal, ICML 2021, arXiv:2102.09672.
    """
    s, a = float(s), float(np.pi / 2 / (1 + s))
    top, low = float(np.cos(s * a)), float(np.sin(s * a))
    alpha = lambda t: namespace(t).cos((t + s) * a) / top
    variance = lambda t: namespace(t).sin(t * a) * namespace(t).sin((t + 2 * s) * a) / top**2

    def time(snr):  # tan((t + s) a)^2 = 1/(alpha cos(s a))^2 - 1
        xp = namespace(snr)
        cosine2 = top**2 * snr / (1 + snr)
        return xp.arctan2(xp.sqrt(low**2 + top**2 / (1 + snr)), xp.sqrt(cosine2)) / a - s

    sigma = lambda t: namespace(t).sqrt(variance(t))
    return Process("vp_cosine", alpha, sigma, lambda t: alpha(t) ** 2 / variance(t), time, (0.0, 1.0))


@functools.cache
def ve(sigma_min: Number = 0.01, sigma_max: Number = 50.0) -> Process:
    """VE with sigma = sigma_min (sigma_max/sigma_min)^t, t in [0, 1].

    Source: Song et al., ICLR 2021, arXiv:2011.13456, eq. 30.
    """
    sigma_min, ratio = float(sigma_min), float(np.log(sigma_max / sigma_min))
    sigma = lambda t: sigma_min * namespace(t).exp(ratio * t)
    time = lambda snr: -namespace(snr).log(snr * sigma_min**2) / (2 * ratio)
    return Process("ve", _one, sigma, lambda t: 1 / sigma(t) ** 2, time, (0.0, 1.0))


def _one(t):
    return 0 * t + 1


edm = Process("edm", _one, lambda t: t, lambda t: 1 / t**2, lambda snr: 1 / namespace(snr).sqrt(snr))
"""X_t = X_0 + t Z: the time is the noise level. Karras et al., NeurIPS 2022, arXiv:2206.00364."""

flow = Process(
    "flow",
    lambda t: 1 - t,
    lambda t: t,
    lambda t: ((1 - t) / t) ** 2,
    lambda snr: 1 / (1 + namespace(snr).sqrt(snr)),
    (0.0, 1.0),
)
"""X_t = (1 - t) X_0 + t Z: rectified flow, flow matching with data at 0. Liu et al. 2022, arXiv:2209.03003."""


def ddpm(alphas_cumprod: Numbers | None = None) -> Process:
    """DDPM's discrete table as a process. Time n is row n; between rows log snr is interpolated linearly.

    Args:
      alphas_cumprod: (steps,) alpha_n^2, decreasing; default the 1,000 steps with beta from 1e-4 to 0.02. A model that
        takes whole times only is run on grids to_ou(process, n): n is then handed to the model whole. The last row may
        be 0 (zero terminal SNR). It is replaced by alpha^2 = 2^-24, or by a quarter of the row before where that is
        less. For alpha^2 = A the KL of N(0, I) to the law there is A E|X_0|^2/2 nats, to first order in A. The output
        of a model of the noise or of the score has no information about the data at such a row: begin its grid one row
        earlier.

    Raises:
      ValueError: the table does not decrease inside (0, 1).
    Source: Ho, Jain, Abbeel, NeurIPS 2020, arXiv:2006.11239; Lin et al., WACV 2024, arXiv:2305.08891 (zero terminal
      SNR); 2^-24 as in diffusers' EulerDiscreteScheduler.
    """
    if alphas_cumprod is None:
        alphas_cumprod = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    return _ddpm(tuple(np.asarray(alphas_cumprod, np.float64).ravel().tolist()))


@functools.cache  # equal tables give the same process, so a rebuilt kernel is not compiled again
def _ddpm(table):
    table = np.array(table)
    if len(table) < 2 or not (np.diff(table) < 0).all() or table[-1] < 0 or table[0] >= 1:
        raise ValueError(
            "alphas_cumprod must be a table (steps,) that decreases inside (0, 1); the last row alone may be 0."
        )
    table[-1] = table[-1] or min(NEARLY_ZERO, table[-2] / 4)
    level, rows = np.log(table) - np.log1p(-table), np.arange(len(table), dtype=np.float64)
    log_snr = lambda t: _linear_between(t, rows, level)
    return Process(
        "ddpm",
        lambda t: 1 / namespace(t).sqrt(1 + namespace(t).exp(-log_snr(t))),
        lambda t: 1 / namespace(t).sqrt(1 + namespace(t).exp(log_snr(t))),
        lambda t: namespace(t).exp(log_snr(t)),
        lambda snr: whole_row(_linear_between(namespace(snr).log(snr), level[::-1], rows[::-1])),
        (0.0, len(table) - 1.0),
    )


def _linear_between(at, x, y):
    """Linear interpolation of y, known at x, in the dtype of `at`."""
    xp, dtype = namespace(at), getattr(at, "dtype", np.float64)
    return xp.interp(at, xp.asarray(x, dtype), xp.asarray(y, dtype))
