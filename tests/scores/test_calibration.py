"""Simulation-based calibration: ranks of the truth among posterior samples are uniform for MMPS, and not for DPS.

Talts et al. 2018, arXiv:1804.06788: with X_0 from the law and y from X_0, the rank of X_0 among L independent draws of
the posterior given y is uniform on 0..L. The draws of this file are seeded, so a pass does not change from run to run.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdiff import grids, kernels, noise, sample, scores, targets
from jaxdiff.processes import denoiser_from_score, score_from_denoiser

DRAWS, REPEATS, BINS = 15, 800, 16
FALSE_ALARM = 1e-3  # the probability of a failure for exact samples, with another seed
A = np.array([[1.0, 0.6]])
STD = 0.5
LAWS = {
    "normal": targets.gaussian([0.2, -0.4], [[1.2, 0.5], [0.5, 0.7]]),
    "mixture": targets.mixture([0.5, 0.5], [[-0.6, 0.4], [0.6, -0.2]], [[0.6, 0.7], [0.5, 0.6]]),
}


def ranks(law, method, key, **more):
    """The rank of the truth's first coordinate among DRAWS posterior samples, for REPEATS truths."""
    of_law, of_noise, of_start = jax.random.split(key, 3)
    truth = law.sample(of_law, REPEATS)
    y = truth @ A.T + STD * jax.random.normal(of_noise, (REPEATS, 1))
    rows = jnp.repeat(y, DRAWS, axis=0)
    score = score_from_denoiser(method(denoiser_from_score(law.score), A, rows, noise_std=STD, **more))
    start = noise.initial(of_start, jnp.arange(REPEATS * DRAWS), 2)
    ends = sample(kernels.unipc(score), start, grids.log_snr(7.0, 1e-3, 60), key)
    return np.sum(np.asarray(ends)[:, 0].reshape(REPEATS, DRAWS) < np.asarray(truth)[:, :1], axis=1)


def chance(found):
    """The p-value of a chi-square test of uniform ranks, one rank a bin."""
    return stats.chisquare(np.bincount(found, minlength=BINS)).pvalue


@pytest.mark.parametrize("law", LAWS)
def test_ranks_are_uniform_with_mmps(law, key):
    assert chance(ranks(LAWS[law], scores.mmps, key)) > FALSE_ALARM


@pytest.mark.parametrize("law", LAWS)
def test_calibration_notices_dps(law, key):
    found = ranks(LAWS[law], scores.reconstruction_guidance, key)
    assert chance(found) < 1e-12
    assert np.mean((found == 0) | (found == DRAWS)) > 1.5 * 2 / BINS  # too narrow: the truth lies outside too often


def test_exact_samples_give_uniform_ranks():
    rng = np.random.default_rng(0)
    assert chance(np.sum(rng.random((REPEATS, DRAWS)) < rng.random((REPEATS, 1)), axis=1)) > FALSE_ALARM
