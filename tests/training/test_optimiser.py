"""Optimiser steps: the plain loop's bits, accumulation, 16-bit networks, given optimisers, importance sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_networks import Plain

from jaxdiff import losses, train
from jaxdiff.training.losses import row_losses
from jaxdiff.training.optimiser import Settings, State, gradient_of
from jaxdiff.training.sharding import OneDevice
from jaxdiff.training.times import times_of

pytestmark = pytest.mark.loose_promotion
IMAGES = np.asarray(jax.random.normal(jax.random.key(1), (80, 2, 3, 1), np.float32))
ENDS = 5.0, 1e-3


def network(seed=0, **options):
    return Plain(6, nnx.Rngs(seed), **options)


def leaves(module):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(module))]


def test_rows_get_the_bits_of_a_plain_loop_over_the_denoising_loss():
    rows, key, steps = IMAGES.reshape(80, 6), jax.random.key(4), 20
    fitted = train.fit(network(), rows, key, steps=steps, batch_size=16, learning_rate=1e-2)
    graph, params = nnx.split(network())
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 1, steps)
    optimiser = optax.chain(optax.clip_by_global_norm(float(np.sqrt(6))), optax.adamw(schedule, weight_decay=1e-2))

    def body(index, carried):
        params, moments, average = carried
        key_batch, key_loss = jax.random.split(jax.random.fold_in(key, index))
        x0 = jnp.asarray(rows)[jax.random.randint(key_batch, (16,), 0, 80)]
        of = lambda params: losses.denoising(nnx.merge(graph, params), x0, jax.random.split(key_loss)[0])
        update, moments = optimiser.update(jax.grad(of)(params), moments, params)
        params = optax.apply_updates(params, update)
        decay = jnp.minimum(0.999, (1 + index) / (10 + index)).astype(jnp.float32)
        return params, moments, optax.incremental_update(params, average, 1 - decay)

    loop = jax.jit(lambda params: jax.lax.fori_loop(0, steps, body, (params, optimiser.init(params), params)))
    for one, other in zip(leaves(fitted.network), jax.tree.leaves(loop(params)[2]), strict=True):
        np.testing.assert_array_equal(one, other)


def settings(**changed):
    named = {"batch_size": 8, "accumulate": 3, "ema_decay": 0.9, "times": times_of("log_snr", *ENDS)}
    named |= {"weight": losses.path_kl_weight, "drop_labels": 0.0, "null": None, "layout": OneDevice()}
    return Settings(**(named | changed))


def test_accumulated_parts_have_the_loss_and_gradient_of_one_batch(key):
    graph, params = nnx.split(network())
    of = lambda params: nnx.merge(graph, params)
    x0 = jnp.asarray(IMAGES[:24])
    value, grads, _ = jax.jit(lambda params: gradient_of(of, settings())(State(params, (), params, ()), x0, None, key))(
        params
    )
    key_time, key_noise = jax.random.split(jax.random.split(key)[0])
    t = losses.stratified_times(key_time, 24, *ENDS).astype(jnp.float32)
    parts = [jax.random.normal(jax.random.fold_in(key_noise, part), (8, 2, 3, 1), jnp.float32) for part in range(3)]
    whole = lambda params: jnp.mean(row_losses(of(params), x0, t, jnp.concatenate(parts), losses.path_kl_weight))
    expected, gradient = jax.jit(jax.value_and_grad(whole))(params)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_importance_sampling_has_the_expected_loss_and_gradient_of_uniform_times(key):
    graph, params = nnx.split(network())
    x0 = jnp.asarray(np.repeat(IMAGES, 10, 0))
    uneven = jnp.asarray(np.geomspace(1, 1e4, 64), jnp.float32), jnp.ones(64, jnp.float32)

    def moments(name, start):
        gradient = gradient_of(
            lambda params: nnx.merge(graph, params),
            settings(accumulate=1, times=times_of(name, *ENDS), weight=lambda t: jnp.ones_like(t)),
        )
        one = lambda key: gradient(State(params, (), params, start), x0, None, key)[:2]
        values = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(key, 60))
        flat = np.stack([np.asarray(values[0]), np.asarray(values[1]["leave"]["bias"][...])[:, 0]])
        return flat.mean(1), flat.std(1, ddof=1) / np.sqrt(60)

    (plain, error), (drawn, other) = moments("log_snr", ()), moments("importance", uneven)
    assert np.all(np.abs(plain - drawn) < 5 * np.hypot(error, other))
    assert np.all(other < 0.05 * np.abs(plain))


def test_a_16_bit_network_trains_with_float32_parameters_and_nearly_the_same_loss(key):
    fits = [
        train.fit(network(dtype=dtype), IMAGES, key, steps=50, batch_size=32, learning_rate=1e-2)
        for dtype in (jnp.float32, jnp.bfloat16)
    ]
    assert {leaf.dtype for leaf in leaves(fits[1].network)} == {np.dtype(np.float32)}
    wide, short = (np.array([row["train_loss"] for row in fitted.history]) for fitted in fits)
    assert not np.array_equal(wide, short)
    np.testing.assert_allclose(short, wide, rtol=0.05)


@pytest.mark.parametrize("optimiser", ["muon", optax.sgd(1e-3)])
@pytest.mark.parametrize("times", ["low_discrepancy", "importance"])
def test_other_optimisers_and_times_lower_the_loss(key, optimiser, times):
    options = {"steps": 150, "batch_size": 16, "held_out": IMAGES, "optimiser": optimiser, "times": times}
    history = train.fit(network(), IMAGES, key, learning_rate=1e-2, weight="min-snr", **options).history
    assert history[-1]["held_out_loss"] < 0.95 * history[0]["held_out_loss"]


def test_an_optimiser_without_a_name_and_bad_counts_are_refused(key):
    for options, says in (
        ({"optimiser": "lion"}, "optimiser = 'lion'"),
        ({"accumulate": 0}, "accumulate = 0"),
        ({"drop_labels": 1.5}, "drop_labels = 1.5"),
        ({"weight": "square"}, "weight = 'square'"),
    ):
        with pytest.raises(ValueError, match=says):
            train.fit(network(), IMAGES, key, steps=1, **options)
