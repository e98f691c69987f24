"""Laws in any number of dimensions up to a width, as arrays of that width, so that one trace serves all of them.

Every law has the noised score (alpha pull - x)/w, w = alpha^2 variance + sigma^2, and the denoiser (alpha variance x +
sigma^2 pull)/w. In a `Product` of coordinates +-bump + N(0, variance) each coordinate has its own pull. A `Mixture` of
isotropic normal laws pulls towards its means, with weights that are sums over the coordinates that exist; the values of
the padded coordinates do not matter. The same laws are also given as targets, whose curves make the predictions.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import noise, targets
from jaxdiff.processes import ou

COMPONENTS, BUMP_VARIANCE, RANK = 8, 0.25, 8
ALL = 2**30  # a rank above any width
PRODUCTS = {  # bump, variance of the first `rank` coordinates (0 in the others), rank
    "N(0, I)": (0.0, 1.0, ALL),
    "N(0, I/4)": (0.0, 0.25, ALL),
    "point mass": (0.0, 0.0, ALL),
    "±1 in each coordinate": (1.0, 0.0, ALL),
    "8 directions": (0.0, 1.0, RANK),
}
BUMPS, POINTS = "8 bumps", "points ±√d u"
MIXTURES = (BUMPS, POINTS)
LAWS = (*PRODUCTS, *MIXTURES)


class Product(NamedTuple):
    """Independent coordinates +-bump + N(0, variance); variance (width,)."""

    bump: jax.Array
    variance: jax.Array


class Mixture(NamedTuple):
    """Normal laws of one isotropic variance: log_weights (8,), means (8, width), 0 where mask (width,) is False."""

    log_weights: jax.Array
    means: jax.Array
    variance: jax.Array
    mask: jax.Array


def _pull(law, x, alpha, w):
    if isinstance(law, Product):
        return law.bump * jnp.tanh(alpha * law.bump * x / w)
    along = jnp.matmul(jnp.where(law.mask, x, 0), law.means.T, precision="highest")
    logits = law.log_weights + (alpha * along - alpha**2 * jnp.sum(law.means**2, -1) / 2) / w
    return jnp.matmul(jax.nn.softmax(logits, -1), law.means, precision="highest")


def score(law, x, t):
    """The gradient of log q_t at x (..., width); t one time, or (..., 1)."""
    alpha, w = ou.alpha(t), ou.alpha(t) ** 2 * law.variance + ou.sigma(t) ** 2
    return (alpha * _pull(law, x, alpha, w) - x) / w


def denoiser(law, x, t):
    """E[X_0 | X_t = x], of the same shapes."""
    alpha, w = ou.alpha(t), ou.alpha(t) ** 2 * law.variance + ou.sigma(t) ** 2
    return (alpha * law.variance * x + ou.sigma(t) ** 2 * _pull(law, x, alpha, w)) / w


def draws(law, key, n, width):
    """(n, width) exact draws in float32; the draws of a coordinate do not depend on the width."""
    key_label, key_normal = jax.random.split(key)
    z = jnp.sqrt(law.variance) * noise.initial(key_normal, jnp.arange(n), width)
    if isinstance(law, Product):
        return law.bump * jnp.sign(noise.initial(key_label, jnp.arange(n), width)) + z
    return law.means[jax.random.categorical(key_label, law.log_weights, shape=(n,))] + z


def product(index, mask):
    """The product of a traced index into PRODUCTS."""
    bump, variance, rank = (jnp.asarray(column)[index] for column in zip(*PRODUCTS.values(), strict=True))
    inside = jnp.arange(mask.size) < rank
    return Product(bump.astype(jnp.float32), jnp.where(inside, variance, 0).astype(jnp.float32))


def mixture(index, mask):
    """The mixture of a traced index into MIXTURES."""
    own = [_components(name, mask.size) for name in MIXTURES]
    log_weights, means, variance = (jnp.asarray(np.stack(part), jnp.float32)[index] for part in zip(*own, strict=True))
    return Mixture(log_weights, jnp.where(mask, means, 0), variance, mask)


def _components(name, width):
    """Log weights, means (8, width), variance; the means in fewer coordinates are the first coordinates of these."""
    if name == BUMPS:
        means = np.stack([np.random.default_rng(k).normal(size=width) for k in range(COMPONENTS)])
        return np.full(COMPONENTS, -np.log(COMPONENTS)), means, BUMP_VARIANCE
    means = np.outer([1.0, -1.0] + [0.0] * (COMPONENTS - 2), np.ones(width))
    return np.where(np.arange(COMPONENTS) < 2, -np.log(2), -np.inf), means, 0.0


def inverse_gram(name, d):
    """(8, 8): y^T this y is the squared length of x's projection on the span of the means, y = means @ x."""
    means = _components(name, d)[1]
    return np.linalg.pinv(means @ means.T, rcond=1e-10, hermitian=True)


def rank_of(name, d):
    """The number of coordinates, or directions, in which the law differs from all other directions."""
    most = {BUMPS: COMPONENTS, POINTS: 1}.get(name) or PRODUCTS[name][2]
    return min(most, d)


def means_in_their_span(d):
    """The bumps' means (8, min(8, d)), in coordinates of the space that they span."""
    return np.linalg.qr(_components(BUMPS, d)[1].T, "r").T


@functools.cache
def reduced(name, d):
    """The law in the directions that differ from the others: one coordinate of a product, or the span of the means."""
    if name == POINTS:
        return targets.point_masses([[-np.sqrt(d)], [np.sqrt(d)]])
    if name == BUMPS:
        means = means_in_their_span(d)
        return targets.mixture(np.full(COMPONENTS, 1 / COMPONENTS), means, np.full(means.shape, BUMP_VARIANCE))
    bump, variance, _ = PRODUCTS[name]
    return targets.mixture([0.5, 0.5], [[-bump], [bump]], [[variance]] * 2) if bump else _normal(variance)


@functools.cache
def target(name, d):
    """The law in d dimensions; only the curve of the bumps' span is estimated."""
    inside, rest = reduced(name, d), _normal(rest_variance(name))
    copies = 1 if name in MIXTURES else rank_of(name, d)
    return targets.product([inside] * copies + [rest] * (d - copies * inside.dim))


def rest_variance(name):
    """The variance of each of the other coordinates or directions."""
    return BUMP_VARIANCE if name == BUMPS else 0.0


@functools.cache
def _normal(variance):
    return targets.gaussian([0.0], [variance])
