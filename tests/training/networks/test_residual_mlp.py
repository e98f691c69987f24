"""The residual MLP: starts as the best linear denoiser, keeps shapes and dtypes, refuses the wrong width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import tree_leaves, tree_structure

from jaxdiff import kernels, scores, targets
from jaxdiff.processes import denoiser_from_score
from jaxdiff.scores import denoiser_of
from jaxdiff.training.networks import ResidualMLP

MEAN, COV = np.array([0.5, -1.0, 2.0]), np.array([[1.0, 0.6, 0.0], [0.6, 0.5, 0.0], [0.0, 0.0, 0.0]])


def network(**options):
    return ResidualMLP(3, mean=MEAN, cov=COV, width=16, depth=2, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize("t", [4.0, 0.5, 0.01])
def test_untrained_network_is_the_exact_denoiser_of_a_gaussian(t):
    x = jax.random.normal(jax.random.key(0), (6, 3), jnp.float32)
    exact = jax.jit(denoiser_from_score(targets.gaussian(MEAN, COV).score))(x.astype(jnp.float64), t)
    np.testing.assert_allclose(jax.jit(network().__call__)(x, jnp.float32(t)), exact, atol=2e-5)


@pytest.mark.parametrize("t", [4.0, 0.5, 0.01])
def test_the_trained_part_sees_noised_data_of_mean_zero_and_unit_covariance(t, monkeypatch):
    seen = []
    monkeypatch.setattr(
        ResidualMLP, "correction", lambda self, y, t, condition, key: seen.append(y) or jnp.zeros_like(y)
    )
    n, root = 40_000, np.linalg.cholesky(COV + 1e-12 * np.eye(3))
    first, second = np.asarray(jax.random.normal(jax.random.key(1), (2, n, 3)))
    x = np.exp(-t) * (MEAN + first @ root.T) + np.sqrt(-np.expm1(-2 * t)) * second
    network()(jnp.asarray(x, jnp.float32), jnp.float32(t))
    y = np.asarray(seen[0], np.float64)
    assert np.abs(y.mean(0)).max() < 5 / np.sqrt(n)
    assert np.abs(np.cov(y.T) - np.eye(3)).max() < 5 * np.sqrt(2 / n)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("batch", [(), (4,), (2, 4)])
def test_shapes_and_dtypes_are_kept_for_one_time_and_a_time_each(batch, dtype):
    x = jnp.ones((*batch, 3), dtype)
    for t in (jnp.asarray(0.3, dtype), jnp.full(batch, 0.3, dtype)):
        out = jax.eval_shape(network().__call__, x, t)
        assert out.shape == x.shape
        assert out.dtype == dtype


def test_parameter_count_is_that_of_the_layers():
    width, dim, clock = 16, 3, 32
    linear = lambda a, b: a * b + b
    block = linear(width, 2 * width) + 2 * linear(width, width)
    expected = linear(dim, width) + linear(clock, width) + 2 * block + linear(width, dim)
    assert sum(leaf.size for leaf in tree_leaves(nnx.state(network(), nnx.Param))) == expected


def test_wrong_width_is_refused():
    with pytest.raises(ValueError, match="x has width 2, this network was built for 3"):
        network()(jnp.ones((4, 2)), 0.3)


def test_dropout_needs_a_key_and_acts_only_with_one():
    def output(key):
        net = network(dropout=0.5)
        net.leave.kernel[...] = jnp.ones_like(net.leave.kernel[...])
        for block in net.blocks:
            block.down.kernel[...] = jnp.ones_like(block.down.kernel[...])
        return net(jnp.ones((2, 3), jnp.float32), 0.3, key=key)

    np.testing.assert_array_equal(output(None), output(None))
    assert bool(jnp.any(output(jax.random.key(0)) != output(jax.random.key(1))))


def test_networks_of_one_shape_have_equal_static_parts_as_scores():
    first, second = (scores.from_network(ResidualMLP(3, width=8, depth=1, rngs=nnx.Rngs(seed))) for seed in (0, 1))
    assert tree_structure(first) == tree_structure(second)
    x = jnp.ones((2, 3))
    np.testing.assert_allclose(denoiser_of(network())(x, 0.3), network()(x, 0.3), rtol=1e-6)


# Untrained it is the exact denoiser of a Gaussian, on which covariance matching from its Jacobian is exact in a step.
@pytest.mark.parametrize("products", [None, 3])
def test_covariance_matching_reads_a_networks_jacobian(products):
    kernel = kernels.covariance_matched(scores.from_network(network()), products=products)
    t, t_next = 1.5, 0.2
    row = jax.tree.map(lambda column: jnp.asarray(column[0], jnp.float32), kernel.coefficients(np.array([t, t_next])))
    compiled = jax.jit(lambda x, z: kernel.step(kernel.score, x, row, z))
    step = lambda x, z: np.asarray(compiled(jnp.asarray(x, jnp.float32), jnp.asarray(z, jnp.float32)))
    noised = lambda t: np.exp(-2 * t) * COV - np.expm1(-2 * t) * np.eye(3)
    zero, one = np.zeros((3, 3)), np.eye(3)
    gain = step(one, zero) - step(zero, zero)
    root = step(zero, one) - step(zero, zero)
    np.testing.assert_allclose(gain.T @ noised(t) @ gain + root.T @ root, noised(t_next), atol=2e-4)
