"""Langevin at T1 and the reversal from there without samples: W2 to the data, and the T1 that is needed.

All coordinates of a product are alike. For points or bumps at -sqrt(d) u and sqrt(d) u, the law across u is N(0, I) at
every time, and its variance after Langevin steps and steps of the ODE follows from a recursion.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.laws import line, wrong_scores
from jaxdiff import grids, kernels, sample, targets
from jaxdiff.guarantees.bounds import lsi
from jaxdiff.kernels.langevin_limits import default_step
from jaxdiff.processes import ou

EARLY_STOP, BUDGET = 1e-3, 64
PRODUCT, APART = "product of two bumps", "bumps at ±√d u"
WEIGHTS = (0.3, 0.7)
NORMAL = line.Law([1.0], [0.0], [1.0])


@functools.cache
def law_of(family, d):
    """The one-dimensional law that is computed: of a coordinate, or along u."""
    if family == PRODUCT:
        return line.Law(WEIGHTS, [-1.0, 1.0], [0.05, 0.05])
    return line.Law(WEIGHTS, [-np.sqrt(d), np.sqrt(d)], [1.0, 1.0])


def w2(family, d, shift, horizon, n_steps, length):
    """W2/sqrt(d) of one pipeline: Langevin from N(0, I), then UniPC."""
    law = law_of(family, d)
    # Along u the error of L2 norm shift sqrt(d) is whole; of a product each coordinate has its share.
    size = shift * (1 if family == PRODUCT else np.sqrt(d))
    h = length * default_step(kernels.langevin(law.score, horizon))
    grid, away = grids.log_snr(horizon, EARLY_STOP, BUDGET - n_steps), 0.0
    for signed in (size, -size) if size else (size,):
        score = wrong_scores.shifted(law.score, signed)
        x = line.after_langevin(law, score, horizon, (0.0, 1.0), h, n_steps)
        end = np.asarray(sample(kernels.unipc(score, 2), jnp.asarray(x)[:, None], grid, jax.random.key(0)))[:, 0]
        away = max(away, line.w2(end, law.quantiles(line.LEVELS_AT, EARLY_STOP)))
    if family == PRODUCT:
        return away, h
    return float(np.hypot(away, np.sqrt(d - 1) * across(grid, h, n_steps)) / np.sqrt(d)), h


def across(grid, h, n_steps):
    """The final error of the standard deviation of a coordinate N(0, 1), with the exact score -x."""
    v = 1.0
    for _ in range(n_steps):
        v = (1 - h) ** 2 * v + 2 * h
    gain = sample(kernels.unipc(NORMAL.score, 2), jnp.ones((1, 1)), grid, jax.random.key(0))
    return abs(float(gain[0, 0]) * np.sqrt(v) - 1)


def score_of(family, d):
    """The score in d dimensions, u the first unit vector."""
    if family == APART:
        means = np.outer([-np.sqrt(d), np.sqrt(d)], np.eye(d)[0])
        return targets.mixture(WEIGHTS, means, np.ones((2, d))).score
    law = law_of(PRODUCT, 1)
    return jax.tree_util.Partial(lambda x, t: law.score(x[..., None], t)[..., 0])


def by_samples(family, d, x):
    """W2/sqrt(d) of samples (n, d), coordinate by coordinate."""
    law = law_of(family, d)
    away = lambda part, law: line.w2(np.quantile(part, line.LEVELS_AT), law.quantiles(line.LEVELS_AT, EARLY_STOP))
    if family == PRODUCT:
        return away(x, law)
    return float(np.hypot(away(x[:, 0], law), np.sqrt(d - 1) * away(x[:, 1:], NORMAL)) / np.sqrt(d))


def points(reach):
    """Two points on the line."""
    return line.Law(WEIGHTS, [-reach, reach], [0.0, 0.0])


def from_noise(law, t, others=0):
    """W2 to q_delta after the exact reverse ODE from N(0, I) at t; `others`: coordinates in which the data are 0."""
    end = law.quantiles(line.LEVELS_AT, EARLY_STOP)
    along = line.w2(line.through_the_ode(law, line.normal(), t, EARLY_STOP), end)
    across = ou.sigma(EARLY_STOP) * (1 / ou.sigma(t) - 1)
    return float(np.sqrt(along**2 + others * across**2))


def gap(law, t):
    """The spectral gap at t along the line; across it the gap is 1/sigma^2, which exceeds 1."""
    mean, deviation = law.at(t)
    box = ((mean - line.REACH * deviation).min(), (mean + line.REACH * deviation).max())
    return lsi.spectral_gap(lambda x: law.target.log_density(jnp.asarray(x), t), (box,))
