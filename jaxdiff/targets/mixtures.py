"""Laws whose noised scores are known in closed form: a Gaussian, a Gaussian mixture, weighted points."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxdiff.arrays import aligned, like, rounded_product, wide
from jaxdiff.noise import computed_in
from jaxdiff.processes import ou
from jaxdiff.targets.components import Components, checked_weights, eigen, moments, smoothing_kl, tolerances
from jaxdiff.targets.exact_laws import normal_covariance, quantiles_of
from jaxdiff.targets.mmse import mmse_of
from jaxdiff.targets.softmax import below_the_largest, log_sum_exp, softmax
from jaxdiff.targets.target import Target
from jaxdiff.types import Numbers, Particles

# Up to these numbers of components and coordinates the score is computed without matrix products, which would be thin
# and slow (`_few_score`). Above, matrix products are faster, as measured on a CPU.
FEW_COMPONENTS, FEW_COORDINATES = 16, 64
BLOCK = 8  # terms that `_few_score` writes out in its sums over coordinates


def gaussian(mean: Numbers, cov: Numbers) -> Target:
    """The normal law N(mean, cov); mean (d,), cov (d,) a diagonal or (d, d). Zero variances are allowed.

    Its mmse is the closed form sum_i s_i/(1 + snr s_i) over the eigenvalues s_i of cov.

    Raises:
      ValueError: the shapes disagree, a number is not finite, or cov is not symmetric positive semi-definite.
    """
    mean = _array("mean", mean, 1)
    return _target("gaussian", _components(np.ones(1), mean[None], np.asarray(cov)[None]))


def mixture(weights: Numbers, means: Numbers, covs: Numbers) -> Target:
    """A mixture of K normal laws; weights (K,) positive with sum 1, means (K, d), covs (K, d) or (K, d, d).

    In one dimension and for up to 16 components its mmse is a Gauss quadrature, with a relative error below 1e-11
    however different the widths are. Otherwise the mmse is a Monte Carlo average over 2,048 to 8,192 fixed antithetic
    pairs of draws, or fewer where a level would take more than 1e10 multiplications. The draws form 16 independent
    replicates, which give the standard error: about 0.2 % of the path KL of ancestral sampling, some percent of the far
    smaller one of covariance matching. It takes seconds; for 1,797 points in 64 dimensions ten to twenty seconds at
    first use.

    Raises:
      ValueError: the shapes disagree, a number is not finite, weights do not sum to 1, or a cov is not symmetric
        positive semi-definite.
    """
    return _target("mixture", _components(weights, _array("means", means, 2), covs))


def point_masses(points: Numbers, weights: Numbers | None = None) -> Target:
    """The discrete law on points (n, d), with equal weights by default: a data set as a distribution.

    The mmse is computed as for `mixture`. The density exists for t > 0 only.

    Raises:
      ValueError: the shapes disagree, a number is not finite, or weights do not sum to 1.
    """
    points = _array("points", points, 2)
    weights = np.full(len(points), 1 / len(points)) if weights is None else weights
    return _target("point_masses", _components(weights, points, np.broadcast_to(0.0, points.shape)))


def _target(name, components):
    mean, total_variance, second_moment = moments(components)
    return Target(
        name=name,
        dim=components.means.shape[1],
        second_moment=second_moment,
        score=Partial(_score_of(components), components),
        sample=functools.partial(_sample, components),
        log_density=functools.partial(_log_density, components),
        mmse=mmse_of(components),
        smoothing_kl=functools.partial(smoothing_kl, components),
        mean=mean,
        total_variance=total_variance,
        cov=normal_covariance(components),
        quantiles=quantiles_of(components),
    )


def _components(weights, means, covs):
    """The Components of checked arguments; small errors from the rounding of the arguments' dtypes are removed."""
    given, weights = weights, _array("weights", weights, 1)
    symmetry, definite, _ = tolerances(covs)
    covs, (k, d) = np.asarray(covs, np.float64), means.shape
    if weights.shape != (k,) or covs.shape not in ((k, d), (k, d, d)):
        raise ValueError(
            f"the shapes must agree: weights {weights.shape}, means {means.shape}, covs {covs.shape}. For K components "
            f"in d dimensions: (K,), (K, d) and (K, d) or (K, d, d)."
        )
    weights = checked_weights(weights, given)
    if not np.isfinite(covs).all():
        raise ValueError("cov must be finite: it holds nan or inf.")
    return Components(np.log(weights), means, *_once(*eigen(covs, symmetry, definite)))


def _once(variances, axes):
    """Variances and axes, with a first axis of 1 where they are the same for all components."""
    same = (variances == variances[0]).all() and (axes is None or (axes == axes[0]).all())
    return (variances[:1], None if axes is None else axes[:1]) if same else (variances, axes)


def _array(name, value, ndim):
    """A float64 array with so many dimensions, not empty and finite."""
    array = np.asarray(value, np.float64)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name} must have {ndim} dimension(s) and not be empty: it has shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite: it holds nan or inf.")
    return array


# At time t component k is N(alpha mean_k, alpha^2 cov_k + sigma^2 I): in its eigenbasis, residual r and variances v,
#   log density -(1/2) sum (r^2/v + log 2 pi v),   score -r/v.   The mixture's score is the softmax-weighted mean.
# This formula is computed in five ways. Which of them is the fastest was measured (benchmarks/step_throughput.py).
# Particles of 16 bits are widened to float32, and the score is rounded once.
def _score_of(components):
    k, d = components.means.shape
    if components.axes is not None:
        return _full_covariance_score
    if k == 1:
        return _gaussian_score
    if k <= FEW_COMPONENTS and d <= FEW_COORDINATES:
        return _few_score
    return _shared_score if len(components.variances) == 1 else _many_score


def _full_covariance_score(components, x: Particles, t) -> Particles:
    """Full covariances: from the residuals (..., K, d) in every component's eigenbasis."""
    given, (c, x, t) = x.dtype, _at(components, x, t)
    residual, variance = _residuals(c, x, t)
    weight = softmax(_log_parts(c, residual, variance), axis=-1)
    return -jnp.einsum("...k,...ke,kde->...d", weight, residual / aligned(variance, residual), c.axes).astype(given)


def _gaussian_score(components, x: Particles, t) -> Particles:
    """One component: elementwise."""
    given, (c, x, t) = x.dtype, _at(components, x, t)
    mean, variance = _noised(c, t)
    return ((aligned(mean[0], x) - x) * aligned(1 / variance[0], x)).astype(given)


def _few_score(components, x: Particles, t) -> Particles:
    """Few components and coordinates: coordinates are the first axis, and sums are written out.

    XLA on a CPU runs thin matrix products, and sums over a short last axis, at a tenth of its speed.
    """
    given, (c, x, t) = x.dtype, _at(components, x, t)
    x = jnp.moveaxis(x, -1, 0)
    column = lambda array: array.reshape(array.shape + (1,) * (x.ndim - 1))
    mean, variance = _noised(c, t)
    constant = c.log_weights - 0.5 * jnp.sum(jnp.log(variance), axis=-1)
    precision = jnp.broadcast_to(1 / variance, mean.shape)
    mean, precision, constant = map(column, (mean, precision, constant))
    squares = _sum_in_blocks(lambda at: (mean[:, at] - x[None, at]) ** 2 * precision[:, at], len(x))
    logit = constant - 0.5 * squares
    weight = jnp.exp(below_the_largest(logit, axis=0))
    pull = sum(weight[k][None] * ((mean[k] - x) * precision[k]) for k in range(len(c.means)))
    return jnp.moveaxis(pull / jnp.expand_dims(sum(weight), 0), 0, -1).astype(given)


def _sum_in_blocks(term, d):
    """The sum over coordinates of term(coordinates) (K, coordinates, ...), eight of them written out."""
    blocks = d // BLOCK
    remaining = [term(slice(i, i + 1))[:, 0] for i in range(blocks * BLOCK, d)]
    if blocks == 0:
        return sum(remaining)
    along = sum(term(slice(i, blocks * BLOCK, BLOCK)) for i in range(BLOCK))
    return sum(remaining, jnp.sum(along, axis=1))


def _many_score(components, x: Particles, t) -> Particles:
    """Many components: four matrix products. Positions relative to the mixture's mean keep cancellation small."""
    given, (c, x, t) = x.dtype, _centred(components, x, t)
    mean, variance = _noised(c, t)
    precision = 1 / variance
    constant = c.log_weights - 0.5 * jnp.sum(mean**2 * precision + jnp.log(variance), axis=-1)
    pull = mean * precision
    weight = jax.nn.softmax(aligned(constant, x) + x @ pull.T - 0.5 * (x**2 @ precision.T), axis=-1)
    return (weight @ pull - (weight @ precision) * x).astype(given)


def _shared_score(components, x: Particles, t) -> Particles:
    """Many components of one covariance, as points are: |x|^2 cancels, so two matrix products are enough."""
    given, (c, x, t) = x.dtype, _centred(components, x, t)
    mean, variance = _noised(c, t)
    constant = c.log_weights - 0.5 * jnp.sum(mean**2 / variance, axis=-1)
    weight = jax.nn.softmax(aligned(constant, x) + x @ (mean / variance).T, axis=-1)
    return ((weight @ mean - x) / aligned(variance[0], x)).astype(given)


def _centred(components, x, t):
    """Components and particles minus the mixture's mean, noised to time t, and the time."""
    c, x, t = _at(components, x, t)
    centre = jnp.exp(c.log_weights) @ c.means
    return c._replace(means=c.means - centre[None]), x - aligned(ou.alpha(t) * centre, x), t


def _noised(c, t):
    """Means and variances (K, d) at time t, rounded alike for every shape of the particles."""
    alpha, sigma = ou.alpha(t), ou.sigma(t)
    return rounded_product(alpha, c.means, t), alpha**2 * c.variances + rounded_product(sigma, sigma, t)


def _at(components, x, t):
    """Components, particles and time in the dtype of x, or in float32 where x has 16 bits. Checks the width of x."""
    dim = components.means.shape[-1]
    if x.shape[-1] != dim:
        raise ValueError(f"x has width {x.shape[-1]}, this target has dimension {dim}: pass x of shape (..., {dim}).")
    t = like(t, x)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, t.dtype), components), wide(x), t


def _log_density(components, x: Particles, t=0.0) -> Float[Array, "*particles"]:
    c, x, t = _at(components, x, t)
    return log_sum_exp(_log_parts(c, *_residuals(c, x, t)), axis=-1)


def _residuals(c, x, t):
    """Residuals (..., K, d) in the components' eigenbases, and variances (K, d)."""
    mean, variance = _noised(c, t)
    residual = x[..., None, :] - aligned(mean, x[..., None, :])
    if c.axes is not None:
        residual = jnp.einsum("...kd,kde->...ke", residual, c.axes)
    return residual, variance


def _log_parts(c, residual, variance):
    """(..., K) log of weight times density of each component."""
    variance = aligned(variance, residual)
    parts = jnp.sum(residual**2 / variance + jnp.log(2 * jnp.pi * variance), axis=-1)
    return aligned(c.log_weights, parts) - 0.5 * parts


def _sample(components, key, n, dtype=None) -> Float[Array, "n d"]:
    """(n, d) exact draws; dtype defaults to JAX's float. Draws of 16 bits are computed in float32 and rounded."""
    dtype = jnp.dtype(dtype or jnp.result_type(float))
    c = jax.tree.map(lambda leaf: jnp.asarray(leaf, computed_in(dtype)), components)
    key_label, key_normal = jax.random.split(key)
    label = jax.random.categorical(key_label, c.log_weights, shape=(n,))
    own = lambda part: part if len(part) == 1 else part[label]
    z = jnp.sqrt(own(c.variances)) * jax.random.normal(key_normal, (n, c.means.shape[1]), c.means.dtype)
    return (c.means[label] + (z if c.axes is None else jnp.einsum("ne,nde->nd", z, own(c.axes)))).astype(dtype)
