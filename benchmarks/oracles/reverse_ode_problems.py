"""Laws whose reverse ODE has a known exact flow, with starting points and with perturbed scores.

Flows are closed forms for Gaussians, maps of quantiles on the line, and fine steps of RK4 elsewhere. On the line the
distances of the starts from the point that divides two bumps are spaced geometrically, and the starts are weighted by
N(0, 1), so that rare particles that end at the wrong bump are seen. The bumps and points have unequal weights: under
symmetry no particle would end at the wrong one.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from benchmarks.laws import line
from benchmarks.laws.by_dimension import digits
from benchmarks.samplers.devices import spread
from benchmarks.samplers.padded_tables import run, silence
from benchmarks.samplers.reverse_ode import HORIZON
from jaxdiff import grids, kernels, targets
from jaxdiff.processes import ou
from jaxdiff.types import as_score

ROUNDING = 1e-12
ON_LINE, STARTS, FEW_STARTS = 1024, 512, 256
CLOSEST, FARTHEST = 1e-13, 8.0  # distances of starts from the point that divides the bumps
MOST_FINE = 4096  # steps of a reference
FAR = 0.5  # distance from the exact end, over the rms of the law, of a stray particle
FIELDS = {"smooth": (1.0, 0.5), "rough in time": (1.0, 40.0), "rough in space": (30.0, 0.5)}  # radians per x, log snr


class Problem(NamedTuple):
    """A score, starts with weights that sum to 1, where the exact flow takes them, and how sure that is."""

    score: Any
    x: Any
    weights: Any
    end: Any
    uncertainty: float = ROUNDING
    law: str = ""
    kind: str = ""
    early_stop: float = 0.0


def gaussian_flow(mean, variance, x, delta):
    """Where the reverse ODE of a Gaussian takes x from the horizon to delta, coordinate by coordinate."""
    deviation = lambda time: np.sqrt(ou.alpha(time) ** 2 * variance + ou.sigma(time) ** 2)
    away = (x - ou.alpha(HORIZON) * mean) / deviation(HORIZON)
    return ou.alpha(delta) * mean + deviation(delta) * away


def gaussian(delta):
    """Four coordinates of variances 0.1 to 2."""
    mean, variance = np.array([1.0, -0.5, 0.3, 0.0]), np.array([0.1, 0.25, 0.5, 2.0])
    law, x = targets.gaussian(mean, variance), draws(4, STARTS)
    return Problem(law.score, *evenly(x), gaussian_flow(mean, variance, x, delta))


def draws(dim, n):
    """Draws (n, dim) of N(0, I)."""
    return np.random.default_rng(1).normal(size=(n, dim))


def evenly(x):
    """Starts and equal weights."""
    return x, np.full(len(x), 1 / len(x))


def starts_on_line(divide):
    """Points (n, 1) spaced by powers on both sides of one that divides, and weights of N(0, 1)."""
    steps = np.geomspace(CLOSEST, FARTHEST, ON_LINE // 2)
    x = divide + np.concatenate([-steps[::-1], steps])
    weights = np.exp(-(x**2) / 2) * np.concatenate([steps[::-1], steps])
    return x[:, None], weights / weights.sum()


def on_line(deviation, delta):
    """Two bumps at -1 and 1, of weights 0.3 and 0.7."""
    law = line.Law([0.3, 0.7], [-1.0, 1.0], [deviation**2] * 2)
    x, weights = starts_on_line(law.quantiles(np.array([0.3]), HORIZON)[0])
    return Problem(law.score, x, weights, line.through_the_ode(law, x[:, 0], HORIZON, delta)[:, None])


def by_fine_steps(law, n, delta, fine):
    """A law whose flow is followed by RK4."""
    x, weights = evenly(draws(law.dim, n))
    end, coarse = (fine_end(law.score, x, delta, steps) for steps in (fine, fine // 2))
    start = Problem(law.score, x, weights, end)
    return start._replace(uncertainty=max(ROUNDING, rms(start, coarse, end)))


def fine_end(score, x, delta, steps):
    """Where so many steps of RK4 lead."""
    grid = grids.log_snr(HORIZON, delta, steps)
    return np.asarray(run(kernels.rk4(score), grid, spread(x), draw=silence, most=MOST_FINE))


def bumps():
    """Three bumps of deviation 0.5 in eight dimensions."""
    means = np.random.default_rng(2).normal(size=(3, 8))
    return targets.mixture([0.2, 0.3, 0.5], means, np.full((3, 8), 0.25))


def ring():
    """Eight points of unequal weights on a circle of radius 2."""
    angles = np.arange(8) * np.pi / 4
    return targets.point_masses(2 * np.c_[np.cos(angles), np.sin(angles)], np.arange(1, 9) / 36)


GAUSSIAN, BROAD, BUMPS = "gaussian", "2 broad bumps", "3 broad bumps, d = 8"
PAIR, NARROW, RING, DIGITS = "2 points", "2 narrow bumps", "ring of 8 points", "225 digits"
LAWS = {**dict.fromkeys((GAUSSIAN, BROAD, BUMPS), "smooth"), **dict.fromkeys((PAIR, NARROW, RING, DIGITS), "rough")}
DEVIATIONS = {BROAD: 0.5, PAIR: 0.0, NARROW: 0.01}  # of the bumps on the line
RESOLVED = (PAIR, NARROW)  # rough laws on the line


def target_of(law):
    """The Target of a law whose flow is followed by RK4."""
    return {BUMPS: bumps, RING: ring, DIGITS: lambda: digits(8)}[law]()


def problem_of(law, delta, fine):
    """The problem of a law down to delta, with so many steps of a reference where it has no other."""
    if law == GAUSSIAN:
        found = gaussian(delta)
    elif law in DEVIATIONS:
        found = on_line(DEVIATIONS[law], delta)
    else:
        found = by_fine_steps(target_of(law), FEW_STARTS if law == DIGITS else STARTS, delta, fine)
    return found._replace(law=law, kind=LAWS[law], early_stop=delta)


def squares(problem, x, end):
    """Squared distances of particles to where they should be, over the mean square of that."""
    size = problem.weights @ np.sum(end**2, axis=-1)
    return np.sum((np.asarray(x) - end) ** 2, axis=-1) / size


def rms(problem, x, end):
    """Their root mean square; None where a particle is no number."""
    found = problem.weights @ squares(problem, x, end)
    return float(np.sqrt(found)) if np.isfinite(found) else None


def together(problem, ends, end):
    """(rms, median, strayed) over runs and particles, Nones if one diverged; strayed: the share far from its place."""
    each = np.array([squares(problem, x, end) for x in ends])
    if not np.isfinite(each).all():
        return None, None, None
    away, far = each.mean(0), (each > FAR**2).mean(0)
    median = np.quantile(np.sqrt(away), 0.5, weights=problem.weights, method="inverted_cdf")
    return float(np.sqrt(problem.weights @ away)), float(median), float(problem.weights @ far)


def _perturbed(score, eps, space, times, phases, x, time):
    u = jnp.log(ou.snr(time))
    angle = x @ space.astype(x.dtype) + times.astype(x.dtype) * u + phases.astype(x.dtype)
    wave = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1).reshape(x.shape)
    return score(x, time) - (eps.astype(x.dtype) / ou.sigma(time)) * wave


def perturbed(score, dim, eps, field):
    """A score whose predicted noise, -sigma s, is off by a vector of length eps: a wave for every two coordinates.

    field: its wave numbers, radians per unit of x and of log snr; directions and phases are drawn once, dim even.
    """
    rng, (wave, frequency) = np.random.default_rng(3), FIELDS[field]
    space = rng.normal(size=(dim, dim // 2))
    space *= wave / np.linalg.norm(space, axis=0)
    times, phases = frequency * rng.uniform(0.5, 1, dim // 2), rng.uniform(0, 2 * np.pi, dim // 2)
    size = np.float64(eps) / np.sqrt(dim // 2)
    return Partial(_perturbed, as_score(score), size, *map(jnp.asarray, (space, times, phases)))
