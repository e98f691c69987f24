"""The Optax loop: fit a denoiser to data, keep an average of its parameters, save and load it."""

import contextlib
import dataclasses
import functools
import gc
import hashlib
import io
import logging
import os
import pathlib
import re
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxdiff.losses import denoising, path_kl_weight
from jaxdiff.processes import check_ends
from jaxdiff.progress import bar

BLOCKS = 25  # the held-out loss is measured, and the bar moves, this often
HELD_OUT_LEVELS = 64
LAST_WRITES = 0.5  # seconds that TensorStore's threads may go on after an error
CHECKSUM = "sha256"  # the file beside a checkpoint's own


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A trained network and how it got there: rows of step, train_loss, held_out_loss (nan without held-out data)."""

    network: nnx.Module
    history: list[dict]


def fit(
    network,
    data,
    key,
    *,
    steps,
    batch_size=256,
    learning_rate=2e-3,
    weight_decay=1e-2,
    ema_decay=0.999,
    horizon=5.0,
    early_stop=1e-3,
    weight=path_kl_weight,
    held_out=None,
    progress=False,
) -> Fit:
    """Train a denoiser network with AdamW on the denoising loss.

    Args:
      network: an NNX module, network(x, t, key) -> denoiser; left unchanged.
      data: (n, d) training rows.
      key: a JAX key for batches, times, noise and dropout.
      steps: optimiser steps; the learning rate warms up over a twentieth of them and decays as a cosine.
      batch_size, learning_rate, weight_decay: of AdamW; gradients are clipped to norm 1 a coordinate.
      ema_decay: of the parameter average that is returned; shortened to (1 + k)/(10 + k) at step k while that is less.
      horizon, early_stop, weight: of losses.denoising.
      held_out: (m, d) rows; with them the average of least held-out loss is returned, not the last.
      progress: show a bar.

    Returns:
      Fit(network, history), losses as in losses.denoising.

    Raises:
      ValueError: steps, batch_size or learning_rate is not positive, early_stop does not lie below the horizon, or a
        loss stops being finite.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1: steps = {steps}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1: batch_size = {batch_size}.")
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate must be positive and finite: learning_rate = {learning_rate:g}.")
    check_ends(horizon, early_stop)
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    data = jnp.asarray(data)
    warmup = max(1, steps // 20)
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, max(steps, warmup + 1))
    clip = optax.clip_by_global_norm(float(np.sqrt(data.shape[1])))
    optimiser = optax.chain(clip, optax.adamw(schedule, weight_decay=weight_decay))

    def loss(params, x0, key):
        key_loss, key_dropout = jax.random.split(key)
        trained = nnx.merge(graph, params, rest)
        options = {"weight": weight, "horizon": horizon, "early_stop": early_stop}
        return denoising(lambda x, t: trained(x, t, key_dropout), x0, key_loss, **options)

    def step(data, state, index):
        params, moments, average = state
        key_batch, key_loss = jax.random.split(jax.random.fold_in(key, index))
        x0 = data[jax.random.randint(key_batch, (batch_size,), 0, len(data))]
        value, gradient = jax.value_and_grad(loss)(params, x0, key_loss)
        update, moments = optimiser.update(gradient, moments, params)
        params = optax.apply_updates(params, update)
        decay = jnp.minimum(ema_decay, (1 + index) / (10 + index)).astype(jnp.float32)
        return (params, moments, optax.incremental_update(params, average, 1 - decay)), value

    # Plain jit over split state: nnx.jit walks the module at every call, ten times the cost.
    def block(state, data, indices):
        return jax.lax.scan(functools.partial(step, data), state, indices)

    run_block = jax.jit(block, donate_argnums=0)
    judge = jax.jit(lambda params, x0: _held_out_loss(nnx.merge(graph, params, rest), x0, weight, horizon, early_stop))

    state = jax.tree.map(jnp.copy, (params, optimiser.init(params), params))
    best, least, history = params, np.inf, []
    size = -(-steps // BLOCKS)
    for first in bar(range(0, steps, size), "train", enabled=progress):
        state, values = run_block(state, data, jnp.arange(first, min(first + size, steps)))
        train_loss = float(values.mean())
        held_out_loss = np.nan if held_out is None else float(judge(state[2], jnp.asarray(held_out)))
        if not np.isfinite(train_loss if held_out is None else train_loss + held_out_loss):
            raise ValueError(
                f"the loss by step {first + len(values)} is {train_loss} on training and {held_out_loss} on held-out "
                f"rows: lower learning_rate = {learning_rate:g}."
            )
        history.append({"step": first + len(values), "train_loss": train_loss, "held_out_loss": held_out_loss})
        if held_out is None or held_out_loss < least:
            best, least = jax.tree.map(jnp.copy, state[2]), held_out_loss
    return Fit(nnx.merge(graph, best, rest), history)


def _held_out_loss(denoiser, x0, weight, horizon, early_stop):
    """The denoising loss averaged over levels, with the same times and noise whenever it is called."""
    keys = jax.random.split(jax.random.key(0), HELD_OUT_LEVELS)
    options = {"weight": weight, "horizon": horizon, "early_stop": early_stop}
    return jnp.mean(jax.lax.map(lambda key: denoising(denoiser, x0, key, **options), keys))


def save_network(network, path):
    """Write a network's variables as an Orbax checkpoint into the new folder `path`, with a checksum of its files.

    Raises:
      OSError: the disk is full, or the like.
    """
    path, state = pathlib.Path(path), nnx.to_pure_dict(nnx.state(network))
    _checkpointing(lambda checkpointer: checkpointer.save(path.absolute(), state), path)
    (path / CHECKSUM).write_text(_checksum(path), encoding="utf-8")


# Of a damaged chunk Orbax says no more than Exception, for which no other fault may pass: so the files are held against
# their checksum before it reads them.
def load_network(network, path):
    """A network like the one given, with the variables of a checkpoint.

    Raises:
      FileNotFoundError: there is no checksum.
      ValueError: the files are not those that were written, or of another network, or hold numbers that are not finite.
      OSError: the files cannot be read.
    """
    path = pathlib.Path(path)
    if (path / CHECKSUM).read_text(encoding="utf-8") != _checksum(path):
        raise ValueError("its files are not those that were written")
    graph, state = nnx.split(network)
    like = nnx.to_pure_dict(state)
    saved = _checkpointing(lambda checkpointer: checkpointer.restore(path.absolute(), like), path)
    for place, leaf in jax.tree_util.tree_leaves_with_path(saved):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not jnp.isfinite(leaf).all():
            raise ValueError(f"{jax.tree_util.keystr(place, simple=True, separator='.')} is not finite")
    nnx.replace_by_pure_dict(state, saved)
    return nnx.merge(graph, state)


# TensorStore wraps the system's error number in a text of its own. Its threads, Orbax's and asyncio's tasks print
# tracebacks beside it, for a moment longer than Orbax works and when they are collected: "Event loop is closed".
def _checkpointing(work, path):
    """work(checkpointer) with Orbax's; an error of the file system is an OSError about `path` and nothing else."""
    import orbax.checkpoint as ocp

    number = None
    with _silent("absl", "asyncio"):
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                return work(checkpointer)
        except Exception as error:
            told = re.search(r"os_error_code='(\d+)'", str(error))
            number = getattr(error, "errno", None) if told is None else int(told[1])
            if number is None:
                raise
        time.sleep(LAST_WRITES)
        gc.collect()
    raise OSError(number, os.strerror(number), str(path))


@contextlib.contextmanager
def _silent(*names):
    """Loggers of these names log nothing, standard error and the hook for errors that nobody catches get nothing."""
    loggers = [logging.getLogger(name) for name in names]
    before, hook = [logger.disabled for logger in loggers], sys.unraisablehook
    try:
        sys.unraisablehook = lambda unraisable: None
        for logger in loggers:
            logger.disabled = True
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sys.unraisablehook = hook
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _checksum(folder):
    """SHA-256 of the names and bytes of a folder's files, but for the one that it is kept in."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CHECKSUM:
            found.update(path.relative_to(folder).as_posix().encode() + b"\0")
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
