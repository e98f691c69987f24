"""Predictions for samplers on padded laws, without the padding: moments of their output and path KLs.

Moments are linear recursions where the output is Gaussian, and sums over a density on a lattice where a coordinate or a
projection is a chain of its own. Along the span of eight bumps they are means over float64 samples in that span, with a
standard error.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from benchmarks.laws import padded as padded_laws
from benchmarks.samplers.padded_kernels import GRID, curve, kernel_of, table
from jaxdiff import information, noise, sample
from jaxdiff.processes import ou

REFERENCE = 2**16  # particles of the chain in the bumps' span
REACH, NEGLIGIBLE = 9.0, 1e-16  # standard deviations, and masses, of the line's lattice


def gaussian_variance(row, variance):
    """E x^2 after the chain from N(0, 1), for coordinates N(0, variance): a linear recursion."""
    after = 1.0
    for t, keep, gain, spread in zip(*row, strict=True):
        after = (keep - gain / (ou.alpha(t) ** 2 * variance + ou.sigma(t) ** 2)) ** 2 * after + spread**2
    return float(after)


def line_law(score, row, fine=0.2):
    """Points and masses of the chain of one coordinate from N(0, 1): its density on lattices symmetric about 0.

    A step maps points and adds a normal increment, lattice spacings are `fine` of its standard deviation; points of
    mass below NEGLIGIBLE, and what is more than REACH standard deviations away, are left out.
    """
    spacing = fine * row.spread[0]
    y = spacing * (np.arange(-int(REACH / spacing), int(REACH / spacing)) + 0.5)
    p = stats.norm.pdf(y) * spacing
    for t, keep, gain, spread in zip(*row, strict=True):
        at = np.pad(y, (0, -len(y) % 1024))[:, None]  # few shapes, few compilations
        to = keep * y + gain * np.asarray(_evaluated(score, at, t))[: len(y), 0]
        spacing = fine * spread
        cells = int((np.abs(to).max() + REACH * spread) / spacing) + 1
        y = spacing * (np.arange(-cells, cells) + 0.5)
        y = y[_distance(y, np.sort(to)) < REACH * spread]
        p = stats.norm.pdf((y[:, None] - to) / spread) @ p * fine
        y, p = y[p > NEGLIGIBLE], p[p > NEGLIGIBLE]
    return y, p


@jax.jit
def _evaluated(score, x, t):
    return score(x, t)


def _distance(y, to):
    """From each y to the nearest of sorted points."""
    after = np.clip(np.searchsorted(to, y), 1, len(to) - 1)
    return np.minimum(np.abs(y - to[after - 1]), np.abs(y - to[after]))


def predictions(name, law, d):
    """{quantity: (value, its standard error, 0 where it is exact)}."""
    exact = curve(law, d)
    found = of_the_span(name, law, d)
    if padded_laws.rank_of(law, d) < d:
        found["outside x²"] = gaussian_variance(table(name, law, d), padded_laws.rest_variance(law)), 0.0
    path_kl = information.path_kl(name, exact, GRID), information.path_kl_error(name, exact, GRID)
    return found | {"path KL": path_kl}


def of_the_span(name, law, d):
    """Predictions in the directions that differ from the others: by a recursion, on the line, or by samples."""
    if law == padded_laws.BUMPS:
        return of_the_chain_in_the_span(name, d)
    if law == padded_laws.POINTS:
        return {"inside x²": (_moments(name, law, d)[0], 0.0), "share": (0.5, 0.0)}
    bump, variance, _ = padded_laws.PRODUCTS[law]
    second = gaussian_variance(table(name, law, d), variance)
    second, fourth = _moments(name, law, 2) if bump else (second, 3 * second**2)
    return {"inside x²": (second, 0.0), "inside x⁴": (fourth, 0.0)}


@functools.cache
def _moments(name, law, d):
    """E x^2 and E x^4 of the chain on the line."""
    y, p = line_law(padded_laws.reduced(law, d).score, table(name, law, d))
    return float(p @ y**2), float(p @ y**4)


def of_the_chain_in_the_span(name, d):
    """Moments of the bumps' chain from unpadded float64 samples in the span of their means."""
    law, key = padded_laws.reduced(padded_laws.BUMPS, d), jax.random.key(d)
    x = noise.initial(key, jnp.arange(REFERENCE), law.dim, jnp.float64)
    x = np.asarray(sample(kernel_of(name, law.score, padded_laws.BUMPS, d), x, GRID, key))
    means = padded_laws.means_in_their_span(d)
    nearest = np.argmax(x @ means.T - np.sum(means**2, -1) / 2, -1)
    each = {"inside x²": np.mean(x**2, -1), "share": (nearest % 2 == 0).astype(np.float64)}
    return {what: (float(v.mean()), float(v.std(ddof=1) / np.sqrt(REFERENCE))) for what, v in each.items()}
