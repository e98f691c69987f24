"""Exact values of the bounded quantities on eleven laws: closed forms, quadratures, quantiles and lattices.

On the line, the law after a sampler's affine steps is a sum over a lattice of points, so that the density of its
samples is known. A product of n equal coordinates has n times the KL of one coordinate and sqrt(n) times its W2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import rel_entr
from scipy.stats import norm

from benchmarks.laws import line
from benchmarks.laws.mixtures import anisotropic, ring
from benchmarks.oracles.finite_horizon import gap
from jaxdiff import information, kernels, sample, targets
from jaxdiff.guarantees.path_kl import standard_error
from jaxdiff.processes import ou

SMALL = 1e-30  # an snr where the mmse is the total variance
DATA = 1e-9  # a time at which points are normal laws of no width
QUANTILES = (np.arange(100_000) + 0.5) / 100_000
DRAWS = 2**13  # for the KL of a start in more than one dimension
FINE = 0.3  # lattice points a standard deviation of a step's noise


class Case(NamedTuple):
    """A law and its known quantities.

    line, copies: one of its equal coordinates as a law on the line, and their number. radius: of a ball with the data.
    normal: mean and variances of a normal law.
    """

    law: Any
    line: Any = None
    copies: int = 1
    radius: float | None = None
    normal: tuple | None = None

    @property
    def total_variance(self):
        """Tr Cov(X_0)."""
        return float(self.law.mmse(np.array([SMALL]))[0])


def cases():
    """Eleven laws by name."""
    rng = np.random.default_rng(0)
    spectrum, turned = np.where(np.arange(64) < 8, 1.0, 1e-6), np.linalg.qr(rng.normal(size=(16, 16)))[0]
    full, points = np.geomspace(0.01, 4, 16), 0.5 * rng.normal(size=(64, 16))
    coin, bumps = line.Law([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0]), line.Law([0.3, 0.7], [-1.0, 1.0], [0.05, 0.05])
    mass, normal = line.Law([1.0], [1.0], [0.0]), line.Law([1.0], [0.0], [1.0])
    gaussian = lambda cov, v: Case(targets.gaussian(np.zeros(len(v)), cov), normal=(np.zeros(len(v)), v))
    return {
        "N(0, 1)": gaussian(np.ones(1), np.ones(1))._replace(line=normal),
        "N(0, I), d = 64": gaussian(np.ones(64), np.ones(64)),
        "point mass": Case(mass.target, mass, 1, 1.0, (np.ones(1), np.zeros(1))),
        "two points": Case(coin.target, coin, 1, 1.0),
        "product of two points, d = 64": Case(targets.product([coin.target] * 64), coin, 64, 8.0),
        "rank 8 + 1e-6, d = 64": gaussian(spectrum, spectrum),
        "two bumps": Case(bumps.target, bumps),
        "ring of 8, d = 2": Case(ring()),
        "64 points, d = 16": Case(targets.point_masses(points), radius=float(np.linalg.norm(points, axis=1).max())),
        "full covariance, d = 16": gaussian((turned * full) @ turned.T, full),
        "8 components, d = 16": Case(anisotropic(16)),
    }


def initial_kl(law, curve, horizon):
    """KL(q_T || N(0, I)): the bound minus I(X_0; X_T)."""
    bound = information.initial_kl(law.second_moment, law.dim, horizon)
    return bound - information.mutual_information(curve, horizon)


def stopping_w2(case, early_stop):
    """W2(data, q_early_stop) of a normal law or on the line, and the error of that value."""
    if case.normal is not None:
        (mean, v), alpha = case.normal, ou.alpha(early_stop)
        spread = np.sqrt(v) - np.sqrt(alpha**2 * v + ou.sigma(early_stop) ** 2)
        return np.hypot(np.linalg.norm(spread), (1 - alpha) * np.linalg.norm(mean)), 0.0
    at, data = (case.line.quantiles(QUANTILES, t) for t in (early_stop, DATA))
    w2 = np.sqrt(np.mean((at - data) ** 2) * case.copies)
    return w2, 1e-3 * w2  # middle sums over tails


class Lattice(NamedTuple):
    """A density p on equally spaced points y of the line."""

    y: np.ndarray
    p: np.ndarray

    def against(self, law, t):
        """KL(q_t || p), KL(p || q_t) and TV."""
        q, dy = np.exp(np.asarray(law.target.log_density(jnp.asarray(self.y)[:, None], t))), self.y[1] - self.y[0]
        apart = CubicSpline(self.y, q - self.p)
        ends = np.concatenate([self.y[:1], apart.roots(extrapolate=False), self.y[-1:]])  # |q - p| has kinks in between
        tv = np.sum(np.abs(np.diff(apart.antiderivative()(ends)))) / 2
        return float(rel_entr(q, self.p).sum() * dy), float(rel_entr(self.p, q).sum() * dy), float(tv)


def chain(law, kernel, grid, start=(0.0, 1.0)):
    """The law of a particle on the line after a kernel's affine steps, from a normal start.

    Of a kernel in d dimensions it is the law of one coordinate; the law and the noise are equal in all of them.
    """
    rows = kernel.coefficients(grid)
    if np.ndim(rows.spread) > 1:
        rows = rows._replace(spread=rows.spread[:, 0])
    mean, deviation = law.at(np.append(rows.t, rows.t[-1] if kernel.own_clock else grid[-1])[:, None])
    low = min((mean - line.REACH * deviation).min(), start[0] - line.REACH * start[1])
    high = max((mean + line.REACH * deviation).max(), start[0] + line.REACH * start[1])
    y = np.linspace(low, high, int((high - low) / (FINE * rows.spread.min())) + 2)
    p = norm.pdf(y, *start)
    for t, keep, gain, spread in zip(*rows, strict=True):
        to = keep * y + gain * np.asarray(line.evaluated(law.score, jnp.asarray(y)[:, None], jnp.asarray(t)))[:, 0]
        p = np.exp(-(((y[:, None] - to) / spread) ** 2) / 2) @ p * ((y[1] - y[0]) / (spread * np.sqrt(2 * np.pi)))
    return Lattice(y, p)


def after_steps(case, t, running_time, h):
    """KL to q_t and W2 to it after plain Langevin steps from N(0, I), and the quantiles of a coordinate."""
    n_steps = round(running_time / h)
    end = chain(case.line, kernels.langevin(case.line.score, t), np.linspace(running_time, 0, n_steps + 1))
    x = line.after_langevin(case.line, case.line.score, t, (0.0, 1.0), h, n_steps)
    away = line.w2(x, case.line.quantiles(line.LEVELS_AT, t)) * case.copies**0.5
    return end.against(case.line, t)[1] * case.copies, away, x


def continuous_kl(normal, t, running_time):
    """KL to q_t of Langevin in continuous time from N(0, I), for data of no variance: an OU process."""
    mean, v = ou.alpha(t) * normal[0], ou.sigma(t) ** 2
    left = np.exp(-running_time / v)
    excess = (1 - v) * left**2 / v
    return float(np.sum((left * mean) ** 2 / v + excess - np.log1p(excess)) / 2)


def down_the_ode(case, x, grid):
    """W2(data, samples) after the exact ODE and after steps of ddim; x: a coordinate's quantiles at the start."""
    steps = sample(kernels.ddim(case.line.score), jnp.asarray(x)[:, None], grid, jax.random.key(0))
    ends = (line.through_the_ode(case.line, x, grid[0], grid[-1]), np.asarray(steps)[:, 0])
    data = case.line.quantiles(line.LEVELS_AT, DATA)
    return tuple(line.w2(end, data) * case.copies**0.5 for end in ends)


def needed_horizon(law, constant):
    """The time from which on the spectral gap on the line is at least a constant; 0 if it always is."""
    short = lambda t: gap(law, t) - constant
    return 0.0 if short(0.02) > 0 else brentq(short, 0.02, 10.0, xtol=1e-6)


def log_stretch(law, t, t_next):
    """The logarithm of the largest stretch of the exact ODE around a quantile, from densities: it keeps mass."""
    density = lambda at: law.target.log_density(jnp.asarray(law.quantiles(line.LEVELS_AT, at))[:, None], at)
    return float(np.max(density(t) - density(t_next)))


def moments_of(case):
    """Mean and covariance of the data, or the variances of equal coordinates."""
    if case.line is not None:
        return tuple(np.tile(part, case.copies) for part in case.line.moments())
    points = case.law.score.args[0].means
    return points.mean(0), np.cov(points.T, bias=True)


def start_kl(case, t, moments):
    """KL(start || q_t) and five standard errors, from N(0, I) or the Gaussian of the moments."""
    if case.line is not None:
        mean, deviation = line.gaussian_start(case.line, t, moments is not None)
        y = mean + deviation * np.linspace(-10, 10, 20_001)
        return Lattice(y, norm.pdf(y, mean, deviation)).against(case.line, t)[1] * case.copies, 0.0
    eye, alpha = np.eye(case.law.dim), ou.alpha(t)
    mean, cov = (0.0, eye) if moments is None else (alpha * moments[0], alpha**2 * moments[1] + ou.sigma(t) ** 2 * eye)
    root, z = np.linalg.cholesky(cov), np.random.default_rng(0).normal(size=(DRAWS, case.law.dim))
    log_p = norm.logpdf(z).sum(1) - np.log(np.diag(root)).sum()
    kl = log_p - np.asarray(case.law.log_density(jnp.asarray(mean + z @ root.T), t))
    return kl.mean(), 5 * standard_error(kl)
