"""The Optax loop: fit a denoiser to data, keep an average of its parameters, save and load it."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxdiff import interrupts
from jaxdiff.processes.ou import check_ends
from jaxdiff.progress import counter
from jaxdiff.training.losses import denoising, path_kl_weight

CHECKS = 25  # the held-out loss is measured this often
CHECK_SHARE = 0.1  # of the time that training takes, for all of the checks together
STEP_COST = 1.5  # forward passes of a batch that take as long as an optimiser step: 1.5 at 784 columns, 3 in theory
MOST_REPEATS, MOST_CHECKED = 64, 2**15  # noise levels a held-out row; rows times levels a check
BLOCK_SECONDS, GROWTH = 0.5, 4  # time between two moves of the bar; how much longer a block may be than the one before


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A trained network and how it got there.

    Attributes:
      network: the NNX module with the averaged parameters of least held-out loss, or the last without held-out rows.
      history: a dict for each check: step, train_loss (mean since the last check), held_out_loss (nan without rows).
      held_out_rows, held_out_levels: how many held-out rows each check uses, and at how many noise levels each row.
    """

    network: nnx.Module
    history: list[dict]
    held_out_rows: int = 0
    held_out_levels: int = 0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended `fit` early. `fit` holds the Fit until then, and `step` the number of steps done.

    A KeyboardInterrupt, so that a program which knows nothing of it ends as usual.
    """

    def __init__(self, fit, step):
        """Keep what was trained so far."""
        super().__init__(f"training was interrupted after {step} steps")
        self.fit, self.step = fit, step


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
      data: (n, d) training rows; whole numbers are taken as float32.
      key: a JAX key for batches, times, noise and dropout.
      steps: optimiser steps; the learning rate warms up over a twentieth of them and decays as a cosine.
      batch_size, learning_rate, weight_decay: of AdamW; gradients are clipped to norm 1 a coordinate.
      ema_decay: of the parameter average that is returned; shortened to (1 + k)/(10 + k) at step k while that is less.
      horizon, early_stop, weight: of losses.denoising.
      held_out: (m, d) rows; with them the average of least held-out loss is returned, not the last. The loss is
        measured 25 times, always on the same rows with the same noise. The number of rows and of noise levels follows
        from steps and batch_size, so that the checks take about a tenth of the time; `Fit` states both.
      progress: show a bar.

    Returns:
      Fit(network, history, ...), losses as in losses.denoising. The result does not depend on the machine's speed.

    Raises:
      ValueError: steps, batch_size or learning_rate is not positive, early_stop does not lie below the horizon, the
        rows are not (n, d), empty or not finite, or a loss stops being finite.
      TypeError: network is no NNX module.
      Interrupted: Ctrl-C was pressed. The exception holds the best network so far.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1: steps = {steps}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1: batch_size = {batch_size}.")
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate must be positive and finite: learning_rate = {learning_rate:g}.")
    check_ends(horizon, early_stop)
    _check_network(network)
    data = jnp.asarray(_rows(data, "data"))
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    warmup = max(1, steps // 20)
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, max(steps, warmup + 1))
    clip = optax.clip_by_global_norm(float(np.sqrt(data.shape[1])))
    optimiser = optax.chain(clip, optax.adamw(schedule, weight_decay=weight_decay))
    options = {"weight": weight, "horizon": horizon, "early_stop": early_stop}

    def loss(params, x0, key):
        key_loss, key_dropout = jax.random.split(key)
        trained = nnx.merge(graph, params, rest)
        return denoising(lambda x, t: trained(x, t, key_dropout), x0, key_loss, **options)

    def step(data, index, state):
        params, moments, average = state
        key_batch, key_loss = jax.random.split(jax.random.fold_in(key, index))
        x0 = data[jax.random.randint(key_batch, (batch_size,), 0, len(data))]
        value, gradient = jax.value_and_grad(loss)(params, x0, key_loss)
        update, moments = optimiser.update(gradient, moments, params)
        params = optax.apply_updates(params, update)
        decay = jnp.minimum(ema_decay, (1 + index) / (10 + index)).astype(jnp.float32)
        return (params, moments, optax.incremental_update(params, average, 1 - decay)), value

    # Plain jit over split state: nnx.jit walks the module at every call, ten times the cost. The span is traced: one
    # program serves blocks of any length.
    def block(carried, data, first, span):
        def body(index, carried):
            state, values = carried
            state, value = step(data, index, state)
            return state, values.at[index - first].set(value)

        return jax.lax.fori_loop(span[0], span[1], body, carried)

    size = -(-steps // CHECKS)
    check = None if held_out is None else _Check(held_out, data.shape[1], steps, batch_size, options)
    state = jax.tree.map(jnp.copy, (params, optimiser.init(params), params))
    carried, spans = (state, jnp.zeros(size, jnp.float32)), (np.int32(0), np.int32(0))
    # Compiled here, where an interrupt has nothing to lose.
    run_block = jax.jit(block, donate_argnums=0).lower(carried, data, np.int32(0), spans).compile()
    judge = lambda params: np.nan
    if check is not None:
        loss_of = jax.jit(lambda params, pieces: check.loss(nnx.merge(graph, params, rest), pieces))
        compiled = loss_of.lower(params, check.pieces).compile()
        judge = lambda params: float(compiled(params, check.pieces))
    best, least, history = params, np.inf, []

    def note(carried, first, done):
        """Add a row to the history, and keep the average if it is the best so far."""
        nonlocal best, least
        train_loss = float(np.mean(np.asarray(carried[1], np.float64)[: done - first]))
        held_out_loss = judge(carried[0][2])
        if not np.isfinite(train_loss + held_out_loss if check else train_loss):
            raise ValueError(
                f"the loss by step {done} is {train_loss} on training and {held_out_loss} on held-out rows: lower "
                f"learning_rate = {learning_rate:g}."
            )
        history.append({"step": done, "train_loss": train_loss, "held_out_loss": held_out_loss})
        if check is None or held_out_loss < least:
            best, least = jax.tree.map(jnp.copy, carried[0][2]), held_out_loss

    def fitted():
        sizes = (check.rows, check.levels) if check else (0, 0)
        return Fit(nnx.merge(graph, best, rest), history, *sizes)

    with interrupts.deferred() as pressed, counter(steps, "train", enabled=progress) as moved:
        done, length = 0, 1
        for first in range(0, steps, size):
            last = min(first + size, steps)
            while done < last and not pressed():
                length = min(length, last - done)
                began, span = time.perf_counter(), (np.int32(done), np.int32(done + length))
                carried = jax.block_until_ready(run_block(carried, data, np.int32(first), span))
                took, done = time.perf_counter() - began, done + length
                moved(length)
                length = max(1, round(length * min(BLOCK_SECONDS / took, GROWTH)))
            if done > first:
                note(carried, first, done)
            if pressed():
                raise Interrupted(fitted(), done)
    return fitted()


class _Check:
    """The held-out loss: the same rows, times and noise at every call.

    Attributes:
      pieces: (k, rows, d) rows, k pieces of at most batch_size rows each.
      rows, levels: how many rows, and at how many noise levels each of them.
    """

    def __init__(self, held_out, dim, steps, batch_size, options):
        held_out = _rows(held_out, "held_out")
        if held_out.shape[1] != dim:
            raise ValueError(f"held_out has {held_out.shape[1]} columns, data {dim}: they must agree.")
        # c checks of rows x levels forward passes each take the share c rows levels/(STEP_COST steps batch_size).
        budget = CHECK_SHARE * STEP_COST * steps * batch_size / min(CHECKS, steps)
        budget = int(min(budget, MOST_CHECKED))
        at_most = min(len(held_out), max(budget, 1))
        pieces = -(-at_most // batch_size)
        each = at_most // pieces
        self.rows, self.options = pieces * each, options
        self.levels = min(max(budget // self.rows, 1), MOST_REPEATS)
        chosen = np.random.default_rng(0).permutation(len(held_out))[: self.rows]  # the rows may come in an order
        self.pieces = jnp.asarray(held_out[chosen].reshape(pieces, each, dim))

    def loss(self, denoiser, pieces):
        """The denoising loss, averaged over pieces and levels."""
        keys = jax.random.split(jax.random.key(0), self.levels * len(pieces)).reshape(self.levels, len(pieces))
        one = lambda given: denoising(denoiser, *given, **self.options)
        return jnp.mean(jax.lax.map(lambda keys: jax.lax.map(one, (pieces, keys)), keys))


def _check_network(network):
    """Raise TypeError unless the network is an NNX module."""
    if isinstance(network, nnx.Module):
        return
    kind = type(network)
    how = ""
    if any(base.__module__.startswith("flax.linen") for base in kind.__mro__):
        how = " That is a Linen module: write it in NNX, or wrap it with flax.nnx.bridge.ToNNX and initialise it."
    raise TypeError(f"network must be a flax.nnx.Module, called as network(x, t, key): it is a {kind.__name__}.{how}")


def _rows(data, name):
    """Rows (n, d) as a float array; ValueError unless there are some and they are finite."""
    data = np.asarray(data)
    if data.dtype.kind not in "fiub" and not jnp.issubdtype(data.dtype, jnp.floating):
        raise ValueError(f"{name} must hold real numbers: its dtype is {data.dtype}.")
    if data.ndim != 2:
        flat = f" Images become rows with {name}.reshape(len({name}), -1)." if data.ndim > 2 else ""
        raise ValueError(f"{name} must be rows, (n, d): its shape is {data.shape}.{flat}")
    if 0 in data.shape:
        raise ValueError(f"{name} has shape {data.shape}, no values: there is nothing to train on.")
    if data.dtype.kind in "iub":
        return data.astype(np.float32)
    if not np.isfinite(data).all():
        bad = np.argwhere(~np.isfinite(data))
        row, column = bad[0]
        raise ValueError(
            f"{name} has {len(bad)} values that are not finite, first {data[row, column]} at row {row}, column "
            f"{column}: fill or drop them."
        )
    return data
