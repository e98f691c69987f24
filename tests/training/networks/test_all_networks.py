"""What every network keeps: untrained it is exact, rows are independent, labels, dropout, dtypes, costs."""

import functools
import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff.training.networks import DiT, ResidualMLP, UNet, parameters

SHAPE, CLASSES = (4, 4, 2), 3
D = math.prod(SHAPE)
ROOT = np.random.default_rng(0).normal(size=(D, D)) / np.sqrt(D)
MEAN, COV, BY_CHANNEL = np.linspace(-1, 1, D), ROOT @ ROOT.T, np.array([0.5, 2.0])
KINDS = ("mlp", "unet", "dit")


def network(kind, **options):
    if kind == "mlp":
        return ResidualMLP(D, **{"width": 16, "depth": 2, "rngs": nnx.Rngs(0)} | options)
    if kind == "unet":
        return UNet(SHAPE, **{"width": 8, "attention": (2,), "rngs": nnx.Rngs(0)} | options)
    return DiT(SHAPE, **{"width": 16, "depth": 2, "heads": 2, "rngs": nnx.Rngs(0)} | options)


def event(kind):
    return (D,) if kind == "mlp" else SHAPE


def drawn(kind, n=4):
    return jax.random.normal(jax.random.key(1), (n, *event(kind)), jnp.float32)


def moved(net, size=0.2):
    """The network with every parameter moved at random, so that no part of it is zero."""
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    draw = lambda path, leaf: (
        leaf
        + size
        * jax.random.normal(jax.random.key(zlib.crc32(jax.tree_util.keystr(path).encode())), leaf.shape, leaf.dtype)
    )
    return nnx.merge(graph, jax.tree_util.tree_map_with_path(draw, params), rest)


def called(net, x, t, condition=None, key=None):
    graph, state = nnx.split(net)
    return np.asarray(jax.jit(lambda s, x, t, c, k: nnx.merge(graph, s)(x, t, c, key=k))(state, x, t, condition, key))


@functools.cache
def labelled(kind):
    return moved(network(kind, n_classes=CLASSES, cov=COV))


# For X_0 of N(mean, cov), E[X_0 | X_t = x] = mean + alpha cov (alpha^2 cov + sigma^2 I)^-1 (x - alpha mean).
def exact(x, t, cov):
    alpha, sigma2 = np.exp(-t), -np.expm1(-2 * t)
    gain = alpha * np.linalg.solve(alpha**2 * cov + sigma2 * np.eye(D), cov)
    flat = np.asarray(x, np.float64).reshape(len(x), D)
    return (MEAN + (flat - alpha * MEAN) @ gain).reshape(x.shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["axes", "channels"])
def test_an_untrained_network_is_the_exact_denoiser_of_a_gaussian(kind, form):
    by_channel = np.tile(BY_CHANNEL, D // 2)  # channels last: the variances of a row's columns alternate
    full = COV if form == "axes" else np.diag(by_channel)
    given = COV if form == "axes" else by_channel if kind == "mlp" else BY_CHANNEL
    net, x = network(kind, mean=MEAN.reshape(event(kind)), cov=given, n_classes=CLASSES), drawn(kind)
    for t in (2.0, 0.1):
        out = called(net, x, jnp.float32(t), jnp.arange(4))
        np.testing.assert_allclose(out, exact(x, t, full), atol=3e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_gradient_after_a_few_steps(kind):
    graph, params, rest = nnx.split(network(kind, cov=COV, n_classes=CLASSES), nnx.Param, ...)
    x0, t, labels = drawn(kind), jnp.linspace(0.1, 1.0, 4, dtype=jnp.float32), jnp.arange(4)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: jnp.mean((nnx.merge(graph, p, rest)(x0, t, labels) - jnp.cos(3 * x0)) ** 2))(params)

    # At first only the last map has a gradient: the maps that start at zero are left one after the other.
    for _ in range(6):
        params = jax.tree.map(lambda p, g: p - jnp.float32(0.5) * g, params, gradient(params))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(params)):
        assert jnp.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_independent_and_one_time_equals_a_time_each(kind):
    net, x, labels = labelled(kind), drawn(kind), jnp.array([0, 2, 1, 3])
    together = called(net, x, jnp.full(4, 0.3, jnp.float32), labels)
    np.testing.assert_allclose(together, called(net, x, jnp.float32(0.3), labels), rtol=1e-4, atol=1e-5)
    changed = called(net, x.at[1:].set(7.0), jnp.full(4, 0.3, jnp.float32), labels)
    np.testing.assert_allclose(changed[0], together[0], rtol=1e-4, atol=1e-5)
    assert np.abs(changed[1:] - together[1:]).max() > 0.1
    graph, state = nnx.split(net)
    one = lambda x, label: nnx.merge(graph, state)(x, jnp.float32(0.3), label)
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(x, labels), together, rtol=1e-4, atol=1e-5)
    times = jnp.array([0.3, 1.0, 0.3, 0.3], jnp.float32)
    assert np.abs(called(net, x, times, labels)[1] - together[1]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_null_class_is_the_missing_label_and_labels_matter(kind):
    net, x, t = labelled(kind), drawn(kind), jnp.float32(0.3)
    null = called(net, x, t)
    np.testing.assert_allclose(called(net, x, t, jnp.full(4, CLASSES)), null, rtol=1e-5, atol=1e-6)
    assert np.abs(called(net, x, t, jnp.zeros(4, jnp.int32)) - null).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_out_of_range_gives_nan_in_its_row_alone(kind):
    out = called(labelled(kind), drawn(kind), jnp.float32(0.3), jnp.array([0, CLASSES + 1, -1, CLASSES]))
    assert np.isnan(out[1:3]).all()
    assert np.isfinite(out[[0, 3]]).all()


def test_known_labels_are_checked():
    net, x = labelled("mlp"), drawn("mlp")
    with pytest.raises(ValueError, match=r"the label 4 is not a class: give labels from 0 to 2"):
        net(x, 0.3, np.array([0, 4, 1, 1]))
    with pytest.raises(TypeError, match="labels must be whole numbers"):
        net(x, 0.3, jnp.ones(4))
    with pytest.raises(ValueError, match="built without classes"):
        network("mlp")(x, 0.3, jnp.zeros(4, jnp.int32))
    with pytest.raises(ValueError, match="n_classes must be at least 1"):
        network("mlp", n_classes=0)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_acts_only_with_a_key(kind):
    net, plain = moved(network(kind, dropout=0.5)), moved(network(kind))
    x, t = drawn(kind), jnp.float32(0.3)
    np.testing.assert_allclose(called(net, x, t), called(plain, x, t), rtol=1e-6)
    first, second = (called(net, x, t, key=jax.random.key(seed)) for seed in (0, 1))
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(first, called(net, x, t, key=jax.random.key(0)), rtol=1e-6)
    with pytest.raises(ValueError, match="dropout must be a rate"):
        network(kind, dropout=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_computes_within_its_rounding_and_keeps_float32_outside(kind):
    x, t = drawn(kind), jnp.float32(0.3)
    half, full = moved(network(kind, dtype=jnp.bfloat16), 0.1), moved(network(kind), 0.1)
    out, wanted = called(half, x, t), called(full, x, t)
    assert out.dtype == np.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(half, nnx.Param)))
    correction = np.abs(wanted - called(network(kind), x, t)).max()
    assert 0 < np.abs(out - wanted).max() < 0.05 * correction  # a unit in the last place of bfloat16 is 2^-7 = 0.008


def test_parameter_counts_are_those_of_the_layers():
    linear = lambda a, b: a * b + b
    conv = lambda a, b, size=3: size * size * a * b + b
    embedding = 4 * 16
    conditioning = linear(32, 16) + linear(16, 16) + embedding
    block = linear(16, 96) + 16 * 48 + linear(16, 16) + linear(16, 64) + linear(64, 16)
    dit = linear(2 * 2 * 2, 16) + conditioning + 2 * block + linear(16, 32) + linear(16, 8)
    assert parameters(network("dit", n_classes=CLASSES)) == dit

    def stage(a, b, attends=False):
        skip = 0 if a == b else conv(a, b, 1)
        attention = 2 * b + 3 * b * b + linear(b, b) if attends else 0
        return 2 * a + conv(a, b) + linear(32, 2 * b) + conv(b, b) + skip + attention

    down = stage(8, 8) + conv(8, 8) + stage(8, 16, True)
    up = stage(16 + 16, 16, True) + stage(16 + 8, 16, True) + conv(16, 16) + stage(16 + 8, 8) + stage(8 + 8, 8)
    ends = conv(2, 8) + 2 * 8 + conv(8, 2) + linear(32, 32) * 2
    assert parameters(network("unet")) == ends + down + 2 * stage(16, 16, True) + up
    assert parameters(network("mlp", n_classes=CLASSES)) - parameters(network("mlp")) == embedding
