"""Arrays that XLA writes to memory: the same values, gradients and batches, and one computation for several readers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, kernels, sample, targets
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


def compiled(name, score, key):
    """The compiled program of a kernel for 256 particles in 20 dimensions."""
    kernel, grid = getattr(kernels, name)(score), grids.log_snr(3.0, 0.1, 8)
    x = jax.ShapeDtypeStruct((256, 20), jnp.float32)
    return jax.jit(lambda x: sample(kernel, x, grid, key)).lower(x).compile().as_text()


# XLA would compute the end of an evaluation again in every reader: 22 times in rk4, 5 times in heun and 3 in unipc.
@pytest.mark.parametrize(("name", "evals"), [("heun", 2), ("rk4", 4), ("seeds", 2), ("unipc", 1), ("deis", 1)])
def test_no_evaluation_is_computed_twice(name, evals, key):
    def score(x, t):
        y = x
        for _ in range(3):
            y = y * x + t * y.sum(-1, keepdims=True)
        return -x - jnp.sign(y) / 100

    assert compiled(name, score, key).count(" sign(") == evals


# Without rings the loop copies 4 to 8 arrays in every step.
@pytest.mark.parametrize("name", ["deis", "dpm_solver", "exponential_adams", "unipc", "sa_solver"])
def test_few_arrays_are_copied_in_a_step(name, key):
    law = targets.mixture([0.5, 0.5], np.stack([np.ones(20), -np.ones(20)]), np.ones((2, 20)) / 4)
    text = compiled(name, law.score, key)
    bodies = set(re.findall(r"body=%([\w.]+)", text))
    parts = [part for part in re.split(r"\n(?=%|ENTRY)", text) if part.split(" ")[0].lstrip("%") in bodies]
    step = max(parts, key=len)
    assert len(re.findall(r"f32\[(?:20,256|256,20)\]\S* copy\(", step)) <= 1
