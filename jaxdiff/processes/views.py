"""Conversions between score, denoiser and noise prediction at an OU time."""

from jax.tree_util import Partial

from jaxdiff.arrays import like, wide
from jaxdiff.checks import value_of
from jaxdiff.processes.ou import ou
from jaxdiff.types import DenoiserFn, Particles, ScoreFn, as_score


# Tweedie: s = (alpha m - x) / sigma^2, and the noise is (x - alpha m) / sigma = -sigma s.
# Positions of 16 bits are handed to the model as they are. The rest is computed in float32, and the result rounded
# once.
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
