"""Weights of the denoising loss, on one scale, and what theory says of the path KL of a network trained on each.

Times are uniform in log snr, so a weight w(snr) stands for the loss int w L dlog(snr). What a network adds to the path
KL is (1/2) int snr (L - V) dlog(snr), with the mmse V. Theorem 1 has the same integral as int g^2/2 E|s_theta - s|^2
dt, g^2 = 2 on the OU clock. So Theorem 1's weight is snr here. That is also the weight of the squared error of the
noise, with times uniform in log snr.

Let J_w = int w (L - V) dlog(snr), and r = w/snr. Then min(r) 2 KL <= J_w <= max(r) 2 KL. If network A has a J_w below
that of network B, then KL(A) <= (max r / min r) KL(B). This factor is 1 for Theorem 1's weight alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.processes import ou
from jaxdiff.training.losses import path_kl_weight, weight_of

HORIZON, EARLY_STOP = 5.0, 2e-3
THEOREM, DEFAULT = "snr: Theorem 1", "snr + 0.1: default"
EDGES = np.linspace(np.log(ou.snr(HORIZON)), np.log(ou.snr(EARLY_STOP)), 97)  # of cells of equal length in log snr
LEVELS = (EDGES[1:] + EDGES[:-1]) / 2
BANDS = (0.1, 1.0, 10.0)  # snr between one band and the next


class Weight(NamedTuple):
    """A weight of the denoiser's squared error as a function of t, for times uniform in log snr, and its source."""

    function: Callable
    source: str


def _sigmoid(t):
    return ou.snr(t) * jax.nn.sigmoid(2 - jnp.log(ou.snr(t)))


def _cosine(t):
    return ou.snr(t) / jnp.cosh(jnp.log(ou.snr(t)) / 2)


def _edm(t):
    # EDM draws log s from N(-1.2, 1.2^2), s = sigma/alpha, for data of deviation 0.5. In units of that deviation the
    # mean is -1.2 - log 0.5, and log snr = -2 log s.
    return (ou.snr(t) + 1) * jnp.exp(-(((jnp.log(ou.snr(t)) + 2 * (-1.2 - np.log(0.5))) / 2.4) ** 2) / 2)


WEIGHTS = {
    THEOREM: Weight(weight_of("snr"), "path KL; the noise's error, times uniform in log snr"),
    DEFAULT: Weight(path_kl_weight, "jaxdiff's own"),
    "likelihood": Weight(weight_of("likelihood"), "the score's error, times uniform in log snr"),
    "EDM": Weight(weight_of("EDM"), "arXiv:2206.00364, its weight alone"),
    "EDM and its times": Weight(_edm, "arXiv:2206.00364, weight times density of the times"),
    "min-snr-5": Weight(weight_of("min-snr"), "arXiv:2303.09556"),
    "sigmoid": Weight(_sigmoid, "arXiv:2303.00848, bias 2"),
    "noise, cosine times": Weight(_cosine, "arXiv:2102.09672, the noise's error on the cosine schedule"),
    "uniform": Weight(weight_of("uniform"), "the data's error"),
}


def spread(name):
    """The factor max r / min r between the snr of the horizon and of the early stop; 1 for Theorem 1's weight."""
    ratio = values(WEIGHTS[name].function, EDGES) / np.exp(EDGES)
    return float(ratio.max() / ratio.min())


def values(function, levels=LEVELS):
    """The values of a weight at levels in log snr."""
    return np.asarray(function(jnp.asarray(ou.time(np.exp(levels)))), np.float64)


def scaled(name, variances):
    """The weight times a number, such that the best linear denoiser has the same loss under every weight.

    The optimiser clips gradients, so the scale of a weight matters. variances: (d,) eigenvalues of the covariance.
    """
    snr = np.exp(LEVELS)
    linear = np.sum(variances / (1 + np.multiply.outer(snr, variances)), axis=1)
    size = lambda function: np.mean(values(function) * linear)
    function = WEIGHTS[name].function
    factor = float(size(path_kl_weight) / size(function))
    return lambda t: factor * function(t)


def band_of(snr):
    """The number of the band of each snr, from 0."""
    return np.searchsorted(BANDS, snr)


def in_bands(errors):
    """(bands,) means over log snr, and their share of a path KL in nats, of errors (levels,) at LEVELS."""
    own, width = band_of(np.exp(LEVELS)), LEVELS[1] - LEVELS[0]
    of = lambda values: np.array([values[own == band].sum() for band in range(len(BANDS) + 1)])
    return of(errors) / np.bincount(own), of(np.exp(LEVELS) * errors) * width / 2
