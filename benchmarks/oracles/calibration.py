"""Simulation-based calibration: the ranks of the truth among posterior samples of a method, or among exact draws.

With X_0 from the law and y = A X_0 + noise, X_0 and DRAWS independent draws of the posterior given y are exchangeable,
so the rank of X_0 among them is uniform on 0, ..., DRAWS.
Source: Talts et al. 2018, arXiv:1804.06788.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.laws.inverse_problems import ACROSS, PLANE_MIXTURE, ROW, six_dimensions
from benchmarks.oracles import normal_mixtures
from benchmarks.samplers.inverse_problems import draws, grid_of, score_of
from jaxdiff import targets
from jaxdiff.processes import denoiser_from_score

HORIZON, EARLY_STOP, STEPS, NOISE = 8.0, 1e-4, 64, 0.3
DRAWS, BINS = 63, 16  # four ranks a bin
EXACT, BEST, WORST = "exact draws", "seen best", "seen worst"


class Subject(NamedTuple):
    """A mixture's weights, means and covariances, A (m, d), and the directions (d,) along which ranks are counted."""

    parts: tuple[Any, Any, Any]
    matrix: np.ndarray
    directions: dict[str, np.ndarray]


def normal():
    """The law in six dimensions. Its directions A^T w have the w of largest and of least variance of A X_0."""
    mean, cov, matrix = six_dimensions()
    along = np.linalg.eigh(matrix @ cov @ matrix.T)[1].T @ matrix
    return Subject((np.ones(1), mean[None], cov[None]), matrix, {BEST: along[-1], WORST: along[0]})


def mixture():
    """The mixture in the plane. A sees nothing of the second direction."""
    return Subject(PLANE_MIXTURE, ROW, {BEST: ROW[0], WORST: ACROSS})


def observed(x, matrix, noise_std, rng):
    """Observations (n, m) of rows x (n, d)."""
    return x @ matrix.T + noise_std * rng.normal(size=(len(x), len(matrix)))


def counts(subject, method, n):
    """{direction: (BINS,) how many of n ranks fall into each bin}; the truths are the same for every method."""
    rng = np.random.default_rng(2)
    truth = normal_mixtures.draws(*subject.parts, n, rng)
    x = posterior_draws(subject, method, observed(truth, subject.matrix, NOISE, rng), rng)
    below = {name: np.sum(x @ unit < (truth @ unit)[:, None], axis=1) for name, unit in subject.directions.items()}
    return {name: np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS) for name, ranks in below.items()}


def posterior_draws(subject, method, y, rng):
    """DRAWS posterior samples for each y, (len(y), DRAWS, d)."""
    if method == EXACT:
        posteriors = [normal_mixtures.posterior(*subject.parts, subject.matrix, one, NOISE) for one in y]
        return np.stack([normal_mixtures.draws(*one, DRAWS, rng) for one in posteriors])
    denoiser = denoiser_from_score(targets.mixture(*subject.parts).score)
    score = score_of(method, denoiser, subject.matrix, np.repeat(y, DRAWS, axis=0), NOISE)
    d = subject.matrix.shape[1]
    return draws(score, len(y) * DRAWS, d, grid_of(HORIZON, EARLY_STOP, STEPS), jax.random.key(3)).reshape(-1, DRAWS, d)
