"""The optimiser steps of training: random batches, gradient accumulation, and an average of the parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.arrays import Scalar, Whole
from jaxdiff.convolutions import fast_in_loops
from jaxdiff.training.batches import dropped, rows_of_step
from jaxdiff.training.losses import row_losses
from jaxdiff.training.signature import call


class State(NamedTuple):
    """Everything that an optimiser step changes: parameters, optimiser, average of the parameters, drawn times."""

    params: Any
    moments: Any
    average: Any
    times: Any


def optimiser_of(optimiser, dim, steps, learning_rate, weight_decay):
    """AdamW or Muon by name, or the given optax.GradientTransformation, as it is.

    Named optimisers clip gradients to norm sqrt(dim), and their learning rate warms up and decays as a cosine.

    Raises:
      ValueError: no optimiser has this name.
    """
    if not isinstance(optimiser, str):
        return optimiser
    named = {"adamw": optax.adamw, "muon": optax.contrib.muon}
    if optimiser not in named:
        raise ValueError(
            f"optimiser must be adamw, muon or an optax.GradientTransformation: optimiser = {optimiser!r}."
        )
    warmup = max(1, steps // 20)
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, max(steps, warmup + 1))
    clip = optax.clip_by_global_norm(float(np.sqrt(dim)))
    return optax.chain(clip, named[optimiser](schedule, weight_decay=weight_decay))


class Settings(NamedTuple):
    """What an optimiser step does: the arguments of `fit`, checked.

    Attributes:
      times: a jaxdiff.training.times.Times.
      weight: a function of t.
      drop_labels, null: the chance that a label becomes the null class, and the number of that class.
      layout: where the arrays lie.
    """

    batch_size: Whole
    accumulate: Whole
    ema_decay: Scalar
    times: Any
    weight: Any
    drop_labels: Scalar
    null: int | None
    layout: Any


def optimiser_step(optimiser, network_of, key, settings, *, gathered=False):
    """A function (data, index, state) -> (state, training loss) for optimiser step `index`.

    Args:
      optimiser: an optax.GradientTransformation.
      network_of: parameters -> the network.
      key: a JAX key, from which each step derives its batch, times, noise and dropout.
      settings: Settings.
      gathered: whether data, (rows, labels or None), are the rows of the batch, instead of all rows.
    """
    size = settings.batch_size * settings.accumulate
    gradient = gradient_of(network_of, settings)

    def step(data, index, state):
        key_batch, key_loss = jax.random.split(jax.random.fold_in(key, index))
        batch = data
        if not gathered:
            rows = rows_of_step(key_batch, len(data[0]), size)
            batch = data[0][rows], None if data[1] is None else data[1][rows]
        x0, labels = batch
        labels = dropped(key_batch, labels, settings.drop_labels, settings.null)
        value, grads, times = gradient(state, x0, labels, key_loss)
        update, moments = optimiser.update(grads, state.moments, state.params)
        params = optax.apply_updates(state.params, update)
        decay = jnp.minimum(settings.ema_decay, (1 + index) / (10 + index)).astype(jnp.float32)
        average = optax.incremental_update(params, state.average, 1 - decay)
        return State(params, moments, average, times), value

    return step


def gradient_of(network_of, settings):
    """A function (state, x0, labels, key) -> (loss, its gradient, the next state of the times) of one batch.

    With accumulate = k the batch is computed in k parts, one after the other. The loss is the mean over all rows.
    """

    def loss(params, x0, labels, t, factors, key_noise, key_dropout):
        x0, labels, t = settings.layout.spread((x0, labels, t))
        z = settings.layout.spread(jax.random.normal(key_noise, x0.shape, x0.dtype))
        network = network_of(params)
        rows = row_losses(lambda x, t: call(network, x, t, labels, key_dropout), x0, t, z, settings.weight)
        return jnp.mean(rows if factors is None else factors.astype(rows.dtype) * rows), rows

    graded = fast_in_loops(jax.value_and_grad(loss, has_aux=True))  # steps run in a loop

    def gradient(state, x0, labels, key):
        key_loss, key_dropout = jax.random.split(key)
        key_time, key_noise = jax.random.split(key_loss)
        x0 = x0.astype(np.promote_types(x0.dtype, np.float32))
        t, factors = settings.times.draw(state.times, key_time, len(x0))
        t = t.astype(x0.dtype)
        given = x0, labels, t, factors
        if settings.accumulate == 1:
            (value, rows), grads = graded(state.params, *given, key_noise, key_dropout)
        else:
            value, rows, grads = _accumulated(graded, state.params, given, settings, key_noise, key_dropout)
        return value, grads, settings.times.learn(state.times, t, rows)

    return gradient


def _accumulated(graded, params, given, settings, key_noise, key_dropout):
    """The mean loss, the row losses and the mean gradient of the parts of a batch."""
    parts = jax.tree.map(lambda leaf: leaf.reshape(settings.accumulate, settings.batch_size, *leaf.shape[1:]), given)

    def part(total, at):
        number, piece = at
        keys = jax.random.fold_in(key_noise, number), jax.random.fold_in(key_dropout, number)
        (value, rows), grads = graded(params, *piece, *keys)
        return jax.tree.map(jnp.add, total, (value, grads)), rows

    first = jax.tree.map(lambda leaf: leaf[0], parts)
    (value, _), grads = jax.eval_shape(lambda piece: graded(params, *piece, key_noise, key_dropout), first)
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (value, grads))
    total, rows = jax.lax.scan(part, zero, (jnp.arange(settings.accumulate), parts))
    value, grads = jax.tree.map(lambda leaf: leaf / settings.accumulate, total)
    return value, rows.reshape(-1), grads
