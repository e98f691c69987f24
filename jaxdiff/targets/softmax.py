"""The softmax of logits that XLA may compute twice, with different rounding errors.

Far from a mixture the logits of its components are so large that their rounding errors exceed 100. XLA may compute the
logits once for their maximum and once more for the exponentials, with a fused multiply-add in one place and not in the
other. Then exp(logit - maximum) is inf at the largest logit, or 0 at every one, and a plain softmax is nan.

Logits that are sums of matrix products have the same rounding errors in both places. `jax.nn.softmax` serves for them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ROUNDINGS = 32  # the largest disagreement of two computations of a logit, in units of its rounding error eps |logit|
HARMLESS = 32.0  # exp(32) and exp(-32) are float32 numbers, so the same factor in every weight cancels


def below_the_largest(logit: Float[Array, "*axes"], axis: int) -> Float[Array, "*axes"]:
    """Logits minus the largest along an axis, at most 0; the largest one is at most 32 below 0.

    Where 32 roundings of the largest logit exceed 32, all logits within these roundings count as equal and get 0. The
    result has the derivatives of the logits. Those of the maximum cancel in a softmax and are left out.
    """
    largest = jax.lax.stop_gradient(jnp.max(logit, axis=axis, keepdims=True))
    error = ROUNDINGS * jnp.finfo(logit.dtype).eps * jnp.abs(largest)
    below = logit - jnp.where(error > HARMLESS, largest - error, largest)
    return below - jax.lax.stop_gradient(jnp.maximum(below, 0))


def softmax(logit: Float[Array, "*axes"], axis: int) -> Float[Array, "*axes"]:
    """exp(logit) divided by its sum along an axis, finite for all finite logits."""
    weight = jnp.exp(below_the_largest(logit, axis))
    return weight / jnp.sum(weight, axis=axis, keepdims=True)


def log_sum_exp(logit: Float[Array, "*axes"], axis: int) -> Float[Array, "*rest"]:
    """The logarithm of the sum of exp(logit) along an axis: finite for finite logits, -inf if all are -inf."""
    largest = jax.lax.stop_gradient(jnp.max(logit, axis=axis))
    found = largest + jnp.log(jnp.sum(jnp.exp(below_the_largest(logit, axis)), axis=axis))
    return jnp.where(jnp.isfinite(largest), found, largest)
