"""The optimiser steps of training: AdamW on random batches, with an average of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.training.losses import denoising


def adamw(dim, steps, learning_rate, weight_decay):
    """AdamW with gradients clipped to norm sqrt(dim), and a learning rate that warms up and decays as a cosine."""
    warmup = max(1, steps // 20)
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, max(steps, warmup + 1))
    clip = optax.clip_by_global_norm(float(np.sqrt(dim)))
    return optax.chain(clip, optax.adamw(schedule, weight_decay=weight_decay))


def optimiser_step(optimiser, network_of, key, *, batch_size, ema_decay, options):
    """A function (data, index, state) -> (state, training loss) for optimiser step `index`.

    Args:
      optimiser: an optax.GradientTransformation.
      network_of: parameters -> the network.
      key: a JAX key, from which each step derives its batch, times, noise and dropout.
      batch_size, ema_decay: see `fit`.
      options: arguments of losses.denoising.

    The state is (parameters, state of the optimiser, average of the parameters).
    """

    def loss(params, x0, key):
        key_loss, key_dropout = jax.random.split(key)
        network = network_of(params)
        return denoising(lambda x, t: network(x, t, key=key_dropout), x0, key_loss, **options)

    def step(data, index, state):
        params, moments, average = state
        key_batch, key_loss = jax.random.split(jax.random.fold_in(key, index))
        x0 = data[jax.random.randint(key_batch, (batch_size,), 0, len(data))]
        value, gradient = jax.value_and_grad(loss)(params, x0, key_loss)
        update, moments = optimiser.update(gradient, moments, params)
        params = optax.apply_updates(params, update)
        decay = jnp.minimum(ema_decay, (1 + index) / (10 + index)).astype(jnp.float32)
        return (params, moments, optax.incremental_update(params, average, 1 - decay)), value

    return step


def compiled_block(step, carried, data):
    """Compile a function (carried, data, first, span) that does the steps span[0], ..., span[1] - 1.

    `carried` is (state, losses), where the loss of step i is written into losses[i - first]. It is donated. The span is
    traced, so that blocks of all lengths use one program.
    """

    def block(carried, data, first, span):
        def body(index, carried):
            state, values = carried
            state, value = step(data, index, state)
            return state, values.at[index - first].set(value)

        return jax.lax.fori_loop(span[0], span[1], body, carried)

    span = np.int32(0), np.int32(0)
    return jax.jit(block, donate_argnums=0).lower(carried, data, np.int32(0), span).compile()
