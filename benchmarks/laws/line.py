"""Laws on the line by their densities and quantiles, for prediction-correction without samples.

A plain Langevin step of a density on a fine lattice is one matrix product. The reverse ODE on the line keeps the order
of particles, so that it maps quantiles to quantiles. There are 2,001 quantiles: an error in the masses of two modes of
less than one part in 2,001 is not seen.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr, ndtri

from jaxdiff import targets
from jaxdiff.processes import ou

LEVELS = 2001  # quantiles
FINE = 0.3  # lattice points a standard deviation of a Langevin step's noise
REACH = 8.0  # standard deviations beyond the outermost component


class Law:
    """A mixture of normals on the line, at all OU times; score, CDF and quantiles."""

    def __init__(self, weights, means, variances):
        self.weights, self.means, self.variances = (np.asarray(a, np.float64) for a in (weights, means, variances))
        self.target = targets.mixture(self.weights, self.means[:, None], self.variances[:, None])
        self.score = self.target.score

    @property
    def second_moment(self):
        """E X_0^2."""
        return self.target.second_moment

    def at(self, t):
        """Means and standard deviations of the components of q_t."""
        return ou.alpha(t) * self.means, np.sqrt(ou.alpha(t) ** 2 * self.variances + ou.sigma(t) ** 2)

    def moments(self):
        """Mean (1,) and variance (1,) of the data."""
        mean = self.weights @ self.means
        return np.array([mean]), np.array([self.second_moment - mean**2])

    def cdf(self, x, t):
        """P(X_t <= x)."""
        mean, deviation = self.at(t)
        return ndtr((np.asarray(x)[..., None] - mean) / deviation) @ self.weights

    def quantiles(self, levels, t):
        """Where cdf is `levels`, by bisection."""
        mean, deviation = self.at(t)
        low, high = (
            np.full(levels.shape, (mean - 40 * deviation).min()),
            np.full(levels.shape, (mean + 40 * deviation).max()),
        )
        for _ in range(100):
            middle = (low + high) / 2
            if ((middle == low) | (middle == high)).all():
                break
            below = self.cdf(middle, t) < levels
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2


LEVELS_AT = (np.arange(LEVELS) + 0.5) / LEVELS


def normal(mean=0.0, deviation=1.0):
    """Quantiles of a normal law."""
    return mean + deviation * ndtri(LEVELS_AT)


def gaussian_start(law, t, matched):
    """Mean and standard deviation of N(0, 1), or of the Gaussian with the data's moments at t."""
    if not matched:
        return 0.0, 1.0
    mean, variance = law.moments()
    return float(ou.alpha(t) * mean[0]), float(np.sqrt(ou.alpha(t) ** 2 * variance[0] + ou.sigma(t) ** 2))


@jax.jit
def evaluated(score, x, t):
    """The score at x and t, compiled."""
    return score(x, t)


def after_langevin(law, score, t, start, h, n_steps):
    """Quantiles after plain Langevin steps of h at OU time t, from a Gaussian start (mean, deviation)."""
    if n_steps == 0:
        return normal(*start)
    mean, deviation = law.at(t)
    low = min((mean - REACH * deviation).min(), start[0] - REACH * start[1])
    high = max((mean + REACH * deviation).max(), start[0] + REACH * start[1])
    spread = np.sqrt(2 * h)
    y = np.linspace(low, high, int((high - low) / (FINE * min(spread, start[1]))) + 2)
    to = y + h * np.asarray(evaluated(score, jnp.asarray(y)[:, None], jnp.asarray(t)))[:, 0]
    move = np.exp(-(((y[:, None] - to) / spread) ** 2) / 2)
    move /= move.sum(0)  # mass that would leave the lattice is kept
    p = np.exp(-(((y - start[0]) / start[1]) ** 2) / 2)
    p /= p.sum()
    for _ in range(n_steps):
        p = move @ p
    return _quantiles_of(y, p)


# Each point of the lattice stands for a cell around it, over which its mass is spread evenly.
def _quantiles_of(y, p):
    mass = np.concatenate([[0.0], np.cumsum(p)])
    edges = np.concatenate([y, [2 * y[-1] - y[-2]]]) - (y[1] - y[0]) / 2
    rising = np.concatenate([[True], np.diff(mass) > 0])
    return np.interp(LEVELS_AT * mass[-1], mass[rising], edges[rising])


def through_the_ode(law, quantiles, t, t_next):
    """Where the exact reverse ODE takes quantiles from t to t_next: to the quantiles of the same levels."""
    return law.quantiles(np.clip(law.cdf(quantiles, t), 1e-300, 1 - 1e-16), t_next)


def w2(quantiles, others):
    """W2 of two laws by their quantiles at LEVELS_AT."""
    return float(np.sqrt(np.mean((np.sort(quantiles) - others) ** 2)))
