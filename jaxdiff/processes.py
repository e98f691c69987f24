"""The Ornstein-Uhlenbeck clock, and the three views of a score: score, denoiser, noise.

Every formula takes a NumPy time (float64 on the host) or a traced one.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.tree_util import Partial

from jaxdiff.types import (
    DenoiserFn,
    Particles,
    Process,
    ScoreFn,
    as_score,
    check_number,
    described,
    float_time,
    value_of,
)

SAME_ROW, SAME_END = 2e-3, 1e-3  # how far rounding may move a row of a table, and relatively an end
SAME_ZERO = 1e-6  # how far rounding may move a time of 0
EARLIEST, LATEST = 1e-12, 40.0  # OU times between which snr and its square root are ordinary float32 numbers
# alpha^2 that stands for 0 where a schedule begins in pure noise, as in diffusers' schedulers: the draw from N(0, I) is
# then 3e-8 E|X_0|^2 nats away from the law there, and no step from there to the data is too long for float32.
NEARLY_ZERO = 2.0**-24


def namespace(value):
    """numpy for host values, jax.numpy for JAX arrays and tracers."""
    return jnp if isinstance(value, jax.Array) else np


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


def root(value):
    """The square root of value >= 0, with derivative 0 at 0: for what stays 0 when the grid changes a little."""
    xp, zero = namespace(value), value == 0
    return xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, value)))


def forward(x0: Particles, t, z: Particles) -> Particles:
    """Noised data X_t = alpha(t) x0 + sigma(t) z; shapes (..., d), () -> (..., d)."""
    t = like(t, x0)
    return (ou.alpha(t) * x0.astype(t.dtype) + ou.sigma(t) * z.astype(t.dtype)).astype(x0.dtype)


def like(t, x):
    """The time t, or another number, in the dtype of x, a float, or in float32 where x has 16 bits.

    So a float64 scalar never promotes float32 particles, and 16 bits never round a time.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"positions must be of a float dtype: x is {x.dtype}. Use x.astype(jnp.float32).")
    return jnp.asarray(t, np.promote_types(x.dtype, np.float32))


def wide(values):
    """Positions, or what a model returns, with 16 bits widened to float32; other dtypes stay."""
    values = jnp.asarray(values)
    return values.astype(np.float32) if values.dtype.itemsize < 4 else values


def check_ends(horizon, early_stop):
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


# Tweedie: s = (alpha m - x) / sigma^2, and the noise is (x - alpha m) / sigma = -sigma s.
# Positions of 16 bits go to the model as they are. All else is float32, and the result is rounded once.
def _score_of_denoiser(denoiser, x: Particles, t) -> Particles:
    t = like(t, x)
    return ((ou.alpha(t) * wide(value_of(denoiser, x, t, "denoiser")) - wide(x)) / ou.sigma(t) ** 2).astype(x.dtype)


def _denoiser_of_score(score, x: Particles, t) -> Particles:
    t = like(t, x)
    return ((wide(x) + ou.sigma(t) ** 2 * wide(value_of(score, x, t))) / ou.alpha(t)).astype(x.dtype)


def _noise_of_score(score, x: Particles, t) -> Particles:
    t = like(t, x)
    return (-ou.sigma(t) * wide(value_of(score, x, t))).astype(x.dtype)


def _score_of_noise(noise, x: Particles, t) -> Particles:
    t = like(t, x)
    return (-wide(value_of(noise, x, t, "noise prediction")) / ou.sigma(t)).astype(x.dtype)


def _clipped(denoiser, radius, x: Particles, t) -> Particles:
    m = value_of(denoiser, x, t, "denoiser")
    out = wide(m)
    size = lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(out), axis=-1, keepdims=True), radius))  # no square overflows
    square = jnp.sum((out / size) ** 2, axis=-1, keepdims=True)
    outside = square > (radius / size) ** 2
    share = radius / size / jnp.sqrt(jnp.where(outside, square, 1))  # no root is differentiated at 0
    return (out * jnp.where(outside, share, 1)).astype(m.dtype)


def clipped(denoiser: DenoiserFn, radius) -> DenoiserFn:
    """The denoiser projected onto the ball of a radius about 0; never worse for data that lie in it."""
    check_number(radius, "radius")
    return Partial(_clipped, as_score(denoiser, "denoiser"), float(radius))


def score_from_denoiser(denoiser: DenoiserFn) -> ScoreFn:
    """The score of a denoiser m(x, t) = E[X_0 | X_t = x] (Tweedie's formula)."""
    return Partial(_score_of_denoiser, as_score(denoiser, "denoiser"))


def denoiser_from_score(score: ScoreFn) -> DenoiserFn:
    """The posterior mean E[X_0 | X_t = x] implied by a score."""
    return Partial(_denoiser_of_score, as_score(score))


def score_from_noise(noise: DenoiserFn) -> ScoreFn:
    """The score of a noise prediction E[Z | X_t = x], as DDPM networks are trained."""
    return Partial(_score_of_noise, as_score(noise, "noise"))


def noise_from_score(score: ScoreFn) -> DenoiserFn:
    """The noise E[Z | X_t = x] implied by a score."""
    return Partial(_noise_of_score, as_score(score))


@functools.cache
def vp_linear(beta_min=0.1, beta_max=20.0) -> Process:
    """VP with beta linear over t in [0, 1]: -2 log alpha = beta_min t + (beta_max - beta_min) t^2/2.

    Source: Song et al., ICLR 2021, arXiv:2011.13456, eq. 33.
    """
    low, slope = float(beta_min), float(beta_max - beta_min)
    decay = lambda t: low * t + slope * t**2 / 2  # -2 log alpha

    def time(snr):
        xp = namespace(snr)
        reached = xp.log1p(1 / snr)
        return 2 * reached / (low + xp.sqrt(low**2 + 2 * slope * reached))

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
def vp_cosine(s=0.008) -> Process:
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
def ve(sigma_min=0.01, sigma_max=50.0) -> Process:
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


def ddpm(alphas_cumprod=None) -> Process:
    """DDPM's discrete table as a process: time n is row n, between rows log snr is interpolated linearly.

    Args:
      alphas_cumprod: (steps,) alpha_n^2, decreasing; default the 1,000 steps of beta from 1e-4 to 0.02. A model that
        takes whole times alone is run on grids of them, to_ou(process, n): n then comes back whole. The last row may be
        0 (zero terminal SNR). It then stands for alpha^2 = 2^-24, or a quarter of the row before where that is less:
        for alpha^2 = A, the start from N(0, I) is A E|X_0|^2/2 nats away from the law there, to first order in A. A
        model of the noise or of the score says nothing about the data at such a row: begin its grid a row earlier.

    Raises:
      ValueError: the table does not decrease inside (0, 1).
    Source: Ho, Jain, Abbeel, NeurIPS 2020, arXiv:2006.11239; Lin et al., WACV 2024, arXiv:2305.08891 (zero terminal
      SNR); 2^-24 as in diffusers' EulerDiscreteScheduler.
    """
    if alphas_cumprod is None:
        alphas_cumprod = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    return _ddpm(tuple(np.asarray(alphas_cumprod, np.float64).ravel().tolist()))


@functools.cache  # the same process, so that a rebuilt kernel recompiles nothing
def _ddpm(table):
    table = np.array(table)
    if len(table) < 2 or not (np.diff(table) < 0).all() or table[-1] < 0 or table[0] >= 1:
        raise ValueError(
            "alphas_cumprod must be a table (steps,) that decreases inside (0, 1); the last row alone may be 0."
        )
    table[-1] = table[-1] or min(NEARLY_ZERO, table[-2] / 4)
    level, rows = np.log(table) - np.log1p(-table), np.arange(len(table), dtype=np.float64)
    log_snr = lambda t: _interpolated(t, rows, level)
    return Process(
        "ddpm",
        lambda t: 1 / namespace(t).sqrt(1 + namespace(t).exp(-log_snr(t))),
        lambda t: 1 / namespace(t).sqrt(1 + namespace(t).exp(log_snr(t))),
        lambda t: namespace(t).exp(log_snr(t)),
        lambda snr: _whole(_interpolated(namespace(snr).log(snr), level[::-1], rows[::-1])),
        (0.0, len(table) - 1.0),
    )


def _interpolated(at, x, y):
    xp, dtype = namespace(at), getattr(at, "dtype", np.float64)
    return xp.interp(at, xp.asarray(x, dtype), xp.asarray(y, dtype))


def _whole(row):
    """A row of the table where rounding has moved it off one."""
    nearest = namespace(row).round(row)
    return namespace(row).where(abs(row - nearest) < SAME_ROW, nearest, row)


def to_ou(process, t):
    """The OU time of the same signal-to-noise ratio as a process has at its time t, in [EARLIEST, LATEST].

    Args:
      process: a Process.
      t: times of the process, any shape; whole numbers are as good as floats. Concrete times must lie between the
        process's ends, but for rounding; traced times are trusted.

    Returns:
      OU times of the shape of t, float64 unless t is a JAX array. Pure noise (flow's time 1) has no finite OU time and
      gives LATEST. `sample` refuses the long step that follows; grids.from_process makes a grid that avoids it.

    Raises:
      ValueError: a concrete time lies outside the ends.
    """
    t = float_time(t) if isinstance(t, jax.Array) else np.asarray(t, np.float64)[()]
    if not isinstance(t, Tracer):
        t = _within_ends(process, t)
    with np.errstate(divide="ignore"):  # pure data or pure noise
        same = ou.time(process.snr(t))  # traced where the process has traced parameters
    return namespace(same).clip(same, EARLIEST, LATEST)


def _within_ends(process, t):
    """Concrete times of a process, those that rounding has moved across an end moved back to the end."""
    first, last = sorted(process.ends)
    slack = [max(min(SAME_END * abs(end), SAME_ROW), SAME_ZERO) for end in (first, last)]
    times = np.asarray(t)
    outside = ~((first - slack[0] <= times) & (times <= last + slack[1]))
    if outside.any():
        raise ValueError(
            f"the process {process.name!r} has times from {first:g} to {last:g}: t = {times[outside].flat[0]:.6g}. "
            f"Take times between process.ends."
        )
    return namespace(t).clip(t, first, last)


def from_ou(process, t):
    """The process's time of the same signal-to-noise ratio as OU time t; any shape, whole numbers too.

    Raises:
      ValueError: a concrete OU time lies outside `ou_ends(process)`, but for rounding. Traced times, and a process with
        traced parameters, are trusted.
    """
    if not any(isinstance(time, Tracer) for time in (t, *_ou_times_of_ends(process))):
        _check_ou_times(process, t, "from_ou is asked for the time at")
    return process.time(ou.snr(t))


def ou_ends(process):
    """(horizon, early_stop): the OU times of a process's noisiest and cleanest time, whichever end comes first.

    A model of the process can be asked between them; they are the ends of the longest grid for it.
    """
    first, last = map(float, _ou_times_of_ends(process))
    return max(first, last), min(first, last)


def _ou_times_of_ends(process):
    """The OU times of a process's first and last time, numbers under a trace too, unless its parameters are traced."""
    with jax.ensure_compile_time_eval():  # a process may be written in jax.numpy
        return [to_ou(process, end) for end in process.ends]


def process_of(score):
    """The process of the model that a score was made of by score_from_model, or None.

    Scores that the package has made of such a score (`truncated`, `clipped`, the conversions between score, denoiser
    and noise) are seen through; a function of yours around one is not.
    """
    if not isinstance(score, Partial):
        return None
    if isinstance(score.func, _FromModel):
        return score.func.process
    if isinstance(score.func, _FromScore) or not getattr(score.func, "__module__", "").startswith("jaxdiff."):
        return None
    return next((found for part in score.args if (found := process_of(part)) is not None), None)


def range_of(score):
    """(horizon, early_stop): the OU times at which a score can be asked, or None where any will do.

    They are the `ou_ends` of the process whose model the score was made of, as far as `process_of` sees one.
    """
    process = process_of(score)
    return None if process is None else ou_ends(process)


def check_times(score, times):
    """Raise ValueError where one of concrete OU times (n,) lies outside the range_of a score, but for rounding."""
    process = process_of(score)
    if process is not None:
        _check_ou_times(process, times, "the score is asked at")


def _check_ou_times(process, times, asked):
    """Raise ValueError where one of concrete OU times is not one of the process, but for rounding."""
    horizon, early_stop = ou_ends(process)
    rounding, times = max(SAME_END, _eps(times)), np.asarray(times, np.float64)
    outside = ~_inside(process, times, rounding)
    if outside.any():
        raise ValueError(
            f"{asked} OU time {times[outside].flat[0]:.6g}, but the process {process.name!r} has OU times from "
            f"{early_stop:.6g} to {horizon:.6g} alone, its own times {min(process.ends):g} to {max(process.ends):g}. "
            f"Stay between horizon, early_stop = processes.ou_ends(process)."
        )


def _inside(process, t, rounding):
    """Are OU times those of a process, to a relative rounding?"""
    horizon, early_stop = ou_ends(process)
    return (early_stop * (1 - rounding) <= t) & (t <= horizon * (1 + rounding))


PREDICTIONS = ("score", "noise", "denoiser", "v", "flow")


# With one snr the two positions differ by a factor, x = y/sqrt(alpha^2 + sigma^2), which is 1 on the OU clock. Of y the
# models predict the noise n, the denoiser m = (y - sigma n)/alpha, the score -n/sigma,
#   v = alpha n - sigma m, so that n = (sigma y + alpha v)/(alpha^2 + sigma^2), or
#   flow u = n - m,        so that n = (y + alpha u)/(alpha + sigma).
@dataclasses.dataclass(frozen=True)
class _FromModel:
    process: Process
    predicts: str

    def __call__(self, model, x: Particles, t) -> Particles:
        rounding = max(SAME_END, _eps(t))
        t = like(t, x)
        own = like(self.process.time(ou.snr(t)), x)
        alpha, sigma = like(self.process.alpha(own), x), like(self.process.sigma(own), x)
        y = (jnp.sqrt(alpha**2 + sigma**2) * x.astype(t.dtype)).astype(x.dtype)
        out = value_of(model, y, own, "model").astype(t.dtype)
        x_wide, y = wide(x), wide(y)
        score = {
            "score": lambda: sigma * out / ou.sigma(t),
            "noise": lambda: -out / ou.sigma(t),
            "denoiser": lambda: (ou.alpha(t) * out - x_wide) / ou.sigma(t) ** 2,
            "v": lambda: -(sigma * y + alpha * out) / (alpha**2 + sigma**2) / ou.sigma(t),
            "flow": lambda: -(y + alpha * out) / (alpha + sigma) / ou.sigma(t),
        }[self.predicts]()
        return jnp.where(_inside(self.process, t, rounding), score, jnp.nan).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class _FromScore:
    process: Process
    predicts: str

    def __call__(self, score, y: Particles, t) -> Particles:
        t = like(t, y)
        # Of x + sigma^2 s, which the denoiser is alpha times, eps e^t is left: no later than where e^-t is as much.
        at = jnp.minimum(like(to_ou(self.process, t), y), like(-math.log(_eps(y)) / 2, y))
        alpha, sigma = like(self.process.alpha(t), y), like(self.process.sigma(t), y)
        x = (y.astype(t.dtype) / jnp.sqrt(alpha**2 + sigma**2)).astype(y.dtype)
        s = value_of(score, x, at).astype(t.dtype)
        x = wide(x)
        noise, denoiser = -ou.sigma(at) * s, (x + ou.sigma(at) ** 2 * s) / ou.alpha(at)
        return {
            "score": lambda: -noise / sigma,
            "noise": lambda: noise,
            "denoiser": lambda: denoiser,
            "v": lambda: alpha * noise - sigma * denoiser,
            "flow": lambda: noise - denoiser,
        }[self.predicts]().astype(y.dtype)


def _eps(value):
    """The machine epsilon of an array's float dtype; 0 for values that are not float arrays."""
    dtype = getattr(value, "dtype", np.dtype(int))
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.floating) else 0.0


def score_from_model(model, process, predicts: str) -> ScoreFn:
    """The score on the OU clock of a model of another process.

    Args:
      model: f(y, t), shapes (..., d), () -> (..., d): y and t the process's own. y has the dtype of x; t has the dtype
        of y, or float32 where y has 16 bits: bfloat16 cannot tell two rows of a table of 1,000.
      process: vp_linear(), vp_cosine(), ve(), edm, flow, ddpm() or a Process of yours. Outside the times that it has,
        `ou_ends(process)`, the score is nan; `sample` refuses a concrete grid that asks there.
      predicts: "score" of its own law at t, "noise", "denoiser" E[X_0 | y], "v" = alpha noise - sigma denoiser, or
        "flow" = noise - denoiser, the velocity of rectified flow towards the noise.

    Raises:
      ValueError: it predicts something else.
      TypeError: process is none, but a function that makes one, say.
    """
    _check_model(process, predicts)
    return Partial(_FromModel(process, predicts), as_score(model, "model"))


def model_from_score(score: ScoreFn, process, predicts: str):
    """The model f(y, t) of another process that a score on the OU clock makes: the inverse of score_from_model."""
    _check_model(process, predicts)
    return Partial(_FromScore(process, predicts), as_score(score))


def _check_model(process, predicts):
    if not isinstance(process, Process):
        raise TypeError(f"process must be a Process, processes.vp_linear() say: it is {described(process)}.")
    if not isinstance(predicts, str) or predicts not in PREDICTIONS:
        raise ValueError(f"predicts is one of {PREDICTIONS}: predicts = {predicts!r}.")
