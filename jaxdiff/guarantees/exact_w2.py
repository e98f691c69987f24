"""Exact W2 distances of samples from known laws: of all kernels on normal laws, of ODE kernels on laws on the line."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Float64

from jaxdiff.arrays import Scalar, Whole
from jaxdiff.certificate import Term
from jaxdiff.guarantees.line_w2 import map_w2
from jaxdiff.processes import ou
from jaxdiff.sampling import compiled
from jaxdiff.sampling.coupled import end_points
from jaxdiff.sampling.score_calls import evaluate
from jaxdiff.targets import Target
from jaxdiff.types import Grid, Kernel

EXACT_W2 = "exact W2"
MOST_NUMBERS = 512  # in a kernel's state for one particle: 100 steps then take 3 s, with twice as many 18 s
AFFINE = 1e-9  # relative: float64 steps that are further from affine maps than this are not affine


class Normal(NamedTuple):
    """The mean (d,) and the covariance (d, d) of a normal law, float64."""

    mean: Float64[np.ndarray, " d"]
    cov: Float64[np.ndarray, "d d"]


def normal_w2(one: Normal, other: Normal) -> float:
    """W2 of two normal laws; covariances may be singular.

    Source: Dowson, Landau 1982, J. Multivariate Analysis 12. The trace of the root of C^(1/2) D C^(1/2) is the sum of
    the singular values of C^(1/2) D^(1/2).
    """
    shared = np.linalg.svd(_root(one.cov) @ _root(other.cov), compute_uv=False).sum()
    square = np.sum((one.mean - other.mean) ** 2) + np.trace(one.cov) + np.trace(other.cov) - 2 * shared
    return math.sqrt(max(float(square), 0.0))


def _root(cov):
    """The symmetric root of a covariance."""
    values, axes = np.linalg.eigh(cov)
    return (axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T


def end_law(kernel: Kernel, grid: Grid, dim: Whole) -> Normal | None:
    """The law of a sampler's end points from N(0, I), where all of its steps are affine maps; else None.

    Steps are affine where the score is, as that of a normal law. The state of a kernel with memory is propagated as a
    whole: its mean, and the covariance of all of its numbers. A state of more than 512 numbers gives None, because the
    time grows with the cube of their number.
    """
    with jax.enable_x64(True):
        rows = jax.tree.map(lambda column: jnp.asarray(column, jnp.float64), kernel.coefficients(grid))
        state = jax.eval_shape(kernel.init, jax.ShapeDtypeStruct((1, dim), jnp.float64))
        if sum(leaf.size for leaf in jax.tree.leaves(state)) > MOST_NUMBERS:
            return None
        static = kernel.init, kernel.step, kernel.position, kernel.noises_per_step
        mean, cov, bent = compiled.recent(_law, static, (kernel.score, rows, jnp.zeros((1, dim))))
        law = Normal(np.asarray(mean), np.asarray(cov))
    return law if float(bent) < AFFINE and np.isfinite(law.cov).all() else None


# With x' = a x + b + c z in each step, the mean becomes a m + b, and the covariance a C a^T + c c^T. The matrices a and
# c are the derivatives of a step. A step is affine if it is its own linearisation, which is compared at another point.
def _law(static, arguments, _):
    """Mean and covariance at the end, and by how much a step differs from an affine map, relative to its size."""
    init, step, position, noises = static
    score, rows, zero = arguments
    _, whole = ravel_pytree(init(zero))
    flat = lambda state: ravel_pytree(state)[0]
    shape = (noises, *zero.shape) if noises > 1 else zero.shape

    def moved(state, z, row):
        z = z.reshape(shape) if noises else None
        return flat(step(Partial(evaluate, score), whole(state), row, z))

    def one(carried, row):
        mean, cov, bent = carried
        silent = jnp.zeros(max(noises, 1) * zero.size)
        a, c = jax.jacfwd(moved, (0, 1))(mean, silent, row)
        after = moved(mean, silent, row)
        away, z = (
            jnp.cos(1.0 + 2.0 * jnp.arange(like.size, dtype=mean.dtype)) for like in (mean, silent)
        )  # no special directions
        error = jnp.abs(moved(mean + away, z, row) - (after + a @ away + c @ z)).max()
        size = 1 + jnp.abs(after).max() + jnp.abs(a).max() + jnp.abs(c).max()
        return (after, a @ cov @ a.T + c @ c.T, jnp.maximum(bent, error / size)), None

    start, ends = lambda x: flat(init(x.reshape(zero.shape))), lambda state: position(whole(state)).reshape(-1)
    first = jax.jacfwd(start)(zero.reshape(-1))
    (mean, cov, bent), _ = lax.scan(one, (start(zero.reshape(-1)), first @ first.T, jnp.zeros(())), rows)
    last = jax.jacfwd(ends)(mean)
    return ends(mean), last @ cov @ last.T, bent


def exact_w2(kernel: Kernel, grid: Grid, target: Target, t: Scalar = 0.0) -> float | None:
    """W2 of a sampler's end points from the law q_t of a target, in float64; None where it is not known.

    It is known for normal laws, and for ODE kernels on laws on the line, from quantiles (line_w2). The kernel's score
    is the target's own; the particles start from N(0, I).
    """
    found = None if target.cov is None else end_law(kernel, grid, target.dim)
    if found is not None:
        return normal_w2(found, _noised(target, t))
    quantiles = target.quantiles
    if quantiles is not None and not kernel.noises_per_step:
        return map_w2(lambda x: _through(kernel, grid, x), lambda levels: quantiles(levels, t))
    return None


def _noised(target, t):
    """The normal law of X_t."""
    alpha, cov = ou.alpha(t), target.cov
    cov = np.diag(cov) if cov.ndim == 1 else cov
    return Normal(alpha * target.mean, alpha**2 * cov + ou.sigma(t) ** 2 * np.eye(target.dim))


def _through(kernel, grid, x):
    """Where an ODE kernel takes points of the line, in float64."""
    with jax.enable_x64(True):
        return np.asarray(end_points(kernel, grid, jnp.asarray(x)[:, None], jax.random.key(0)).x)[:, 0]


def exact_terms(kernel: Kernel, grid: Grid, target: Target | None, scale: Any) -> list[Term]:
    """A Term outside the sum with the exact W2 of the samples from the data, where that is known.

    A law with a scale for each coordinate has no exact distance here.
    """
    if target is None or np.ndim(scale) > 0:
        return []
    value = exact_w2(kernel, grid, target)
    if value is None:
        return []
    source = "samples and data, which the sum above bounds"
    return [Term(EXACT_W2, float(scale) * value, 0.0, "exact", source, unit=EXACT_W2)]
