"""Networks of images: sizes, symmetries of their parts, default moments, and a U-Net that learns four images."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxdiff.training.networks import DiT, UNet
from jaxdiff.training.networks.attention import SelfAttention
from jaxdiff.training.networks.dit import DiTBlock, positions


def rngs():
    return nnx.Rngs(0)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"3 levels needs a height and a width divisible by 4: images are 10 x 8"):
        UNet((10, 8, 1), multipliers=(1, 1, 1), rngs=rngs())
    with pytest.raises(ValueError, match=r"no level is 3 pixels high: attention must name some of \[8, 4\]"):
        UNet((8, 8, 1), attention=(3,), rngs=rngs())
    with pytest.raises(ValueError, match="width, blocks and every multiplier must be at least 1"):
        UNet((8, 8, 1), blocks=0, rngs=rngs())
    with pytest.raises(ValueError, match="patches of 3 x 3 pixels do not divide images of 8 x 8"):
        DiT((8, 8, 1), patch=3, rngs=rngs())
    with pytest.raises(ValueError, match="multiple of 4"):
        DiT((8, 8, 1), width=6, heads=2, rngs=rngs())
    with pytest.raises(ValueError, match="the heads must divide the features: 5 heads, 16 features"):
        DiT((8, 8, 1), width=16, heads=5, rngs=rngs())
    with pytest.raises(ValueError, match=r"must be \(height, width, channels\)"):
        DiT((8, 8), rngs=rngs())


def test_moments_and_inputs_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"cov has shape \(3, 3\): for events of shape \(4, 4, 1\) it must be"):
        DiT((4, 4, 1), cov=np.eye(3), rngs=rngs())
    with pytest.raises(ValueError, match=r"the mean has shape \(3,\)"):
        DiT((4, 4, 1), mean=np.zeros(3), rngs=rngs())
    with pytest.raises(ValueError, match=r"x has shape \(2, 4, 5, 1\), this network was built for events of shape"):
        DiT((4, 4, 1), rngs=rngs())(jnp.zeros((2, 4, 5, 1), jnp.float32), 0.3)


@pytest.mark.parametrize(("size", "channels", "levels"), [(8, 1, 1), (12, 3, 3), (64, 3, 4)])
def test_images_of_other_sizes_keep_their_shape(size, channels, levels):
    net = UNet((size, size, channels), width=4, multipliers=(1,) * levels, rngs=rngs())
    x = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float64)
    out = jax.eval_shape(lambda x: net(x, jnp.float32(0.3)), x)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert (net.axes is None) == (size == 64)  # 12,288 numbers: a covariance of them has no place in memory


def test_attention_and_a_block_permute_with_their_tokens():
    tokens, vector = jax.random.normal(jax.random.key(0), (2, 9, 16)), jax.random.normal(jax.random.key(1), (2, 1, 16))
    tokens, vector, order = (
        tokens.astype(jnp.float32),
        vector.astype(jnp.float32),
        np.random.default_rng(0).permutation(9),
    )
    attention = SelfAttention(16, 4, dtype=jnp.float32, rngs=rngs())
    np.testing.assert_allclose(attention(tokens)[:, order], attention(tokens[:, order]), atol=1e-5)
    block = DiTBlock(16, 4, 0.0, jnp.float32, rngs())
    np.testing.assert_array_equal(block(tokens, vector, None), tokens)  # the gates are closed
    block.modulate.kernel[...] = jax.random.normal(jax.random.key(2), (16, 96), jnp.float32) / 4
    out = block(tokens, vector, None)
    assert jnp.abs(out - tokens).max() > 0.1
    np.testing.assert_allclose(out[:, order], block(tokens[:, order], vector, None), atol=1e-5)


# Attention by its definition: a softmax of the products of queries and keys over the root of a head's width.
def test_attention_is_the_softmax_average_of_the_values():
    net, x = SelfAttention(8, 2, dtype=jnp.float32, rngs=rngs()), np.random.default_rng(1).normal(size=(1, 5, 8))
    query, key, value = np.split(x[0] @ np.asarray(net.enter.kernel[...], np.float64), 3, axis=1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        weight = np.exp(query[:, part] @ key[:, part].T / 2)
        heads.append(weight / weight.sum(1, keepdims=True) @ value[:, part])
    expected = np.concatenate(heads, axis=1) @ np.asarray(net.leave.kernel[...], np.float64)
    np.testing.assert_allclose(net(jnp.asarray(x, jnp.float32))[0], expected, atol=1e-5)


def test_positions_differ_by_a_rotation_that_depends_on_the_shift_alone():
    table = positions(6, 5, 8).reshape(6, 5, 8).astype(np.float64)
    assert len(np.unique(table.reshape(30, 8).round(4), axis=0)) == 30
    products = np.einsum("ijk,ijk->ij", table[1:, :-1], table[:-1, 1:])  # one row down, one column to the left
    np.testing.assert_allclose(products, products[0, 0], atol=1e-5)
    np.testing.assert_allclose(np.sum(table**2, -1), 4, atol=1e-5)


# Four images and their best linear denoiser: only a network that is not linear can tell them apart.
@pytest.mark.loose_promotion
# For some hundred steps attention has no gradient to speak of, so the transformer needs more of them.
@pytest.mark.parametrize(("net_of", "steps"), [(UNet, 220), pytest.param(DiT, 700, marks=pytest.mark.slow)])
def test_a_network_learns_four_images_better_than_the_linear_denoiser(net_of, steps):
    images = np.sign(np.random.default_rng(0).normal(size=(4, 4, 4, 1)))
    flat = images.reshape(4, 16)
    options = {"mean": flat.mean(0), "cov": np.cov(flat.T, bias=True), "rngs": rngs()}
    of_net = {UNet: {"width": 8, "multipliers": (1,), "attention": ()}, DiT: {"patch": 2, "width": 32, "depth": 2}}
    own = of_net[net_of]
    net = net_of((4, 4, 1), **own, **options)
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    optimiser = optax.adam(3e-3)
    x0, t = jnp.asarray(np.tile(images, (64 if net_of is DiT else 16, 1, 1, 1)), jnp.float32), jnp.float32(0.3)

    def loss(params, key):
        x = jnp.exp(-t) * x0 + jnp.sqrt(-jnp.expm1(-2 * t)) * jax.random.normal(key, x0.shape, jnp.float32)
        return jnp.mean((x0 - nnx.merge(graph, params, rest)(x, t)) ** 2)

    @jax.jit
    def step(params, state, key):
        value, gradient = jax.value_and_grad(loss)(params, key)
        update, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, update), state, value

    state, values = optimiser.init(params), []
    for i in range(steps):
        params, state, value = step(params, state, jax.random.key(i))
        values.append(float(value))
    linear = np.mean([float(loss(nnx.state(net, nnx.Param), jax.random.key(i))) for i in range(20)])
    assert np.mean(values[-20:]) < 0.5 * linear
