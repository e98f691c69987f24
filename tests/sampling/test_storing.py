"""Arrays that XLA writes to memory: the same values, gradients and batches, and one computation for several readers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, kernels, sample
from jaxdiff.sampling.storing import stored

X = jnp.linspace(-1, 1, 12).reshape(4, 3)


def kept(x, never):
    return stored(jnp.sin(x), never)


def test_values_gradients_and_batches_are_those_of_the_array():
    never = jnp.int32(0)
    np.testing.assert_array_equal(jax.jit(kept)(X, never), jnp.sin(X))
    np.testing.assert_allclose(jax.grad(lambda x: kept(x, never).sum())(X), jnp.cos(X), rtol=1e-12)
    np.testing.assert_array_equal(jax.vmap(kept, (0, None))(X, never), jnp.sin(X))
    np.testing.assert_array_equal(jax.vmap(kept)(X, jnp.zeros(4, jnp.int32)), jnp.sin(X))
    both = jax.jit(lambda never: stored((X, 2 * X), never))(never)
    np.testing.assert_array_equal(both[1], 2 * X)


# A kernel of the user's may carry counts and marks beside positions.
def test_whole_numbers_and_truth_values_are_stored_too():
    state = {"x": X, "count": jnp.arange(4), "done": jnp.array([True, False])}
    kept = jax.jit(stored)(state, jnp.int32(0))
    assert all(np.array_equal(kept[name], state[name]) for name in state)
    slope = jax.grad(lambda x: stored({"x": x, "count": jnp.arange(4)}, jnp.int32(0))["x"].sum())(X)
    np.testing.assert_array_equal(slope, jnp.ones_like(X))


# The score has one arc tangent. XLA would copy it into every reader: that of rk4 would come about twenty times.
@pytest.mark.parametrize(("name", "evals"), [("heun", 2), ("rk4", 4), ("seeds", 2), ("unipc", 1)])
def test_no_evaluation_is_computed_twice(name, evals, key):
    def score(x, t):
        return -x / (1 + t) + jnp.atan2(x.sum(-1, keepdims=True), 1 + x**2) / 10

    kernel, grid = getattr(kernels, name)(score), grids.log_snr(3.0, 0.1, 8)
    x = jax.ShapeDtypeStruct((256, 20), jnp.float32)
    text = jax.jit(lambda x: sample(kernel, x, grid, key)).lower(x).compile().as_text()
    assert text.count(" atan2(") == evals
