"""The Ornstein-Uhlenbeck clock, and the three views of a score: score, denoiser, noise.

Every formula takes a NumPy time (float64 on the host) or a traced one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdiff.types import DenoiserFn, Particles, Process, ScoreFn, as_score

EARLIEST, LATEST = 1e-12, 40.0  # OU times between which snr and its square root are ordinary float32 numbers


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


def forward(x0: Particles, t, z: Particles) -> Particles:
    """Noised data X_t = alpha(t) x0 + sigma(t) z; shapes (..., d), () -> (..., d)."""
    t = like(t, x0)
    return ou.alpha(t) * x0 + ou.sigma(t) * z


def like(t, x):
    """The time t in the dtype of x, a float, so that a float64 scalar never promotes float32 particles."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"positions must be of a float dtype: x is {x.dtype}. Use x.astype(jnp.float32).")
    return jnp.asarray(t, x.dtype)


def check_ends(horizon, early_stop):
    """Raise ValueError unless EARLIEST <= early_stop < horizon <= LATEST."""
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
def _score_of_denoiser(denoiser, x: Particles, t) -> Particles:
    t = like(t, x)
    return (ou.alpha(t) * denoiser(x, t) - x) / ou.sigma(t) ** 2


def _denoiser_of_score(score, x: Particles, t) -> Particles:
    t = like(t, x)
    return (x + ou.sigma(t) ** 2 * score(x, t)) / ou.alpha(t)


def _noise_of_score(score, x: Particles, t) -> Particles:
    t = like(t, x)
    return -ou.sigma(t) * score(x, t)


def _score_of_noise(noise, x: Particles, t) -> Particles:
    t = like(t, x)
    return -noise(x, t) / ou.sigma(t)


def _clipped(denoiser, radius, x: Particles, t) -> Particles:
    m = denoiser(x, t)
    return m * (radius / jnp.maximum(jnp.linalg.norm(m, axis=-1, keepdims=True), radius))


def clipped(denoiser: DenoiserFn, radius) -> DenoiserFn:
    """The denoiser projected onto the ball of a radius about 0; never worse for data that lie in it."""
    return Partial(_clipped, as_score(denoiser), float(radius))


def score_from_denoiser(denoiser: DenoiserFn) -> ScoreFn:
    """The score of a denoiser m(x, t) = E[X_0 | X_t = x] (Tweedie's formula)."""
    return Partial(_score_of_denoiser, as_score(denoiser))


def denoiser_from_score(score: ScoreFn) -> DenoiserFn:
    """The posterior mean E[X_0 | X_t = x] implied by a score."""
    return Partial(_denoiser_of_score, as_score(score))


def score_from_noise(noise: DenoiserFn) -> ScoreFn:
    """The score of a noise prediction E[Z | X_t = x], as DDPM networks are trained."""
    return Partial(_score_of_noise, as_score(noise))


def noise_from_score(score: ScoreFn) -> DenoiserFn:
    """The noise E[Z | X_t = x] implied by a score."""
    return Partial(_noise_of_score, as_score(score))
