"""The methods for linear inverse problems that studies compare, and their posterior samples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import grids, kernels, noise, sample, scores
from jaxdiff.processes import score_from_denoiser

DPS, SCALED, PI_GDM, TMPD, MMPS = "DPS", "scaled guidance", "Pi-GDM", "TMPD", "MMPS"
METHODS = {
    DPS: scores.reconstruction_guidance,
    SCALED: functools.partial(scores.reconstruction_guidance, scaled=True),
    PI_GDM: scores.pi_gdm,
    TMPD: scores.tmpd,
    MMPS: scores.mmps,
}


def score_of(method, denoiser, operator, y, noise_std):
    """The posterior score of a method; y (particles, *observed) has an observation for each particle."""
    three = METHODS[method](denoiser, operator, None, noise_std=noise_std)
    return score_from_denoiser(scores.conditioned(three, jnp.asarray(y)))


def draws(score, n, dim, grid, key, *, kernel=kernels.unipc, denoise=False):
    """n samples (n, dim) of a score, from noise; `kernel` makes a kernel of a score."""
    key_start, key_run = jax.random.split(key)
    start = noise.initial(key_start, jnp.arange(n), dim)
    return np.asarray(sample(kernel(score), start, grid, key_run, denoise=denoise))


def grid_of(horizon, early_stop, n_steps):
    """The grid of the studies: uniform in log snr."""
    return grids.log_snr(horizon, early_stop, n_steps)
