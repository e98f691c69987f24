"""What methods for inverse problems share: the posterior denoiser as a function of x, t and y, and conjugate gradients.

The observation is y = A X_0 + noise, noise N(0, noise_std^2 I). With X_t = alpha X_0 + sigma Z, Tweedie's formula for
the law of X_0 given y says
    E[X_0 | X_t = x, y] = D + (sigma^2/alpha) grad_x log p(y | X_t = x),   D = E[X_0 | X_t = x].
Every method here takes p(y | X_t = x) as N(A D, noise_std^2 I + A C A^T) with a matrix C that is held fixed in the
gradient, and J = dD/dx:
    D_y = D + (sigma^2/alpha) J^T A^T (noise_std^2 I + A C A^T)^-1 (y - A D).
The exact covariance is C = Cov(X_0 | X_t = x) = (sigma^2/alpha) J, which is symmetric.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.tree_util import Partial

from jaxdiff.arrays import like, wide
from jaxdiff.checks import as_array, described, value_of
from jaxdiff.processes import ou
from jaxdiff.scores.linear_map import LinearMap, linear_map, residual
from jaxdiff.types import DenoiserFn, as_score


def posterior(
    correction: Callable[..., Any], denoiser: DenoiserFn, operator: Any, y: Any, noise_std: Any, *more: Any
) -> DenoiserFn:
    """The posterior denoiser of a method as a pytree: of (x, t), or of (x, t, y) where y is None.

    Args:
      correction: (problem, times, rest, *more) -> the term that the method adds to D; see `corrected`.
      more: numbers of the method, traced.

    Raises:
      ValueError: y does not end with the observation's shape, or noise_std is not one finite number, 0 or more.
    """
    operator = linear_map(operator)
    denoiser = as_score(denoiser, "denoiser")
    traced = isinstance(noise_std, Tracer)
    if np.shape(noise_std) != () or not (traced or 0 <= float(noise_std) < np.inf):
        raise ValueError(f"noise_std must be one number, finite and 0 or more: it is {described(noise_std)}.")
    std = noise_std if traced else np.float64(noise_std)
    function = Partial(corrected, Partial(correction), denoiser, operator, std, more)
    if y is None:
        return function
    y = as_array(y, "y", f"whose last axes are those of an observation, {operator.observed}")
    if y.shape[y.ndim - len(operator.observed) :] != operator.observed:
        raise ValueError(f"y must end with the observation's axes {operator.observed}: it has shape {y.shape}.")
    return Partial(_observed, function, y)


def _observed(function, y, x, t):
    return function(x, t, y)


def corrected(correction, denoiser, operator: LinearMap, noise_std, more, x, t, y):
    """D_y(x, t) = D + correction at one OU time t. Only the denoiser computes in 16 bits."""
    t, dtype = like(t, x), x.dtype
    at = lambda v: wide(value_of(denoiser, v.astype(dtype), t, "denoiser"))
    denoised, along = jax.linearize(at, wide(x))
    back = jax.linear_transpose(along, wide(x))
    r = residual(operator, y, denoised)
    added = correction(operator, along, lambda v: back(v)[0], like(noise_std, x) ** 2, r, t, *more)
    return (denoised + added).astype(dtype)


def dots(operator: LinearMap, u, v):
    """Inner products of observations, with axes of length 1 in place of theirs."""
    return jnp.sum(u * v, axis=tuple(range(-len(operator.observed), 0)), keepdims=True)


# A denoiser (x + sigma^2 s)/alpha has rounding errors of eps |x|/alpha, and its Jacobian has errors of eps/alpha. The
# Jacobian itself is about alpha Cov(X_0) at late times, so in float32 no digit of it is correct beyond t = 8.
def rounding(t: Any, r: Any) -> Any:
    """The size below which an eigenvalue of the denoiser's Jacobian at time t counts as 0."""
    return 4 * jnp.finfo(r.dtype).eps / ou.alpha(t)


# Learned denoisers have Jacobians that are not positive, and noise_std may be 0. A direction along which the covariance
# is not positive is not followed, and the solution of the steps before it stays. A negative covariance could otherwise
# cancel the noise, and the step along that direction would have any length.
def conjugate_gradients(
    operator: LinearMap, noise: Any, covariance: Callable[..., Any], r: Any, iterations: int, least: Any
) -> Any:
    """The solution u of noise u + covariance(u) = r for every particle, by conjugate gradients from 0.

    `covariance` is symmetric, and `noise` is a number, 0 or more. A particle stops where its residual is 0 to rounding,
    or where <p, covariance(p)> is at most `least` |A^T p|^2 for its direction p.
    """
    tiny, axes = jnp.finfo(r.dtype).tiny, tuple(range(-len(operator.event), 0))
    done = jnp.finfo(r.dtype).eps ** 2 * dots(operator, r, r)

    def step(_, state):
        u, rest, direction, square = state
        image = covariance(direction)
        variance = dots(operator, direction, image)
        length2 = jnp.sum(operator.transposed(direction) ** 2, axis=axes).reshape(variance.shape)
        goes = (variance > least * length2 + tiny) & (square > done)
        curvature, image = noise * dots(operator, direction, direction) + variance, noise * direction + image
        length = jnp.where(goes, square / jnp.where(goes, curvature, 1), 0)
        u, rest = u + length * direction, rest - length * image
        new = dots(operator, rest, rest)
        turn = jnp.where(goes, new / jnp.where(goes, square, 1), 0)
        return u, rest, jnp.where(goes, rest + turn * direction, 0), jnp.where(goes, new, 0)

    return lax.fori_loop(0, iterations, step, (jnp.zeros_like(r), r, r, dots(operator, r, r)))[0]
