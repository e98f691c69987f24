"""The training loop: fits a denoiser to data and keeps the average of its parameters with the least held-out loss."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxdiff import interrupts
from jaxdiff.arrays import Whole
from jaxdiff.noise import KeyLike
from jaxdiff.processes.default_times import check_ends
from jaxdiff.progress import counter
from jaxdiff.sampling.arguments import Scalar
from jaxdiff.training.checkpoints import load_network, save_network
from jaxdiff.training.losses import path_kl_weight
from jaxdiff.training.optimiser import adamw, compiled_block, optimiser_step
from jaxdiff.training.rows import float_rows
from jaxdiff.training.validation_loss import CHECKS, HeldOutLoss

__all__ = ["Fit", "Interrupted", "fit", "load_network", "path_kl_weight", "save_network"]

BLOCK_SECONDS = 0.5  # duration of a compiled block of steps; the bar moves, and Ctrl-C has an effect, between blocks
# A block has at most this factor more steps than the block before, because one timing may be too short by chance. A
# larger factor may make a block last far longer than BLOCK_SECONDS.
GROWTH = 4
# Arguments that `fit` checks itself, with messages of its own: the annotation accepts anything.
NetworkLike = Any  # a flax.nnx.Module, network(x, t, key=)
RowsLike = Any  # (n, d) real numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A trained network and the history of its training.

    Attributes:
      network: the NNX module with the average of the parameters that had the least held-out loss; the last average if
        there were no held-out rows.
      history: a dict for each measurement: step, train_loss (mean since the last measurement), held_out_loss (nan
        without held-out rows).
      held_out_rows: how many held-out rows a measurement uses.
      held_out_levels: at how many noise levels it uses each of them.
    """

    network: nnx.Module
    history: list[dict]
    held_out_rows: int = 0
    held_out_levels: int = 0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended `fit` early.

    A KeyboardInterrupt: a program that does not catch it ends, as Ctrl-C usually does.

    Attributes:
      fit: the Fit of the steps done.
      step: the number of steps done.
    """

    def __init__(self, fit, step):
        """Keep the Fit and the number of steps."""
        super().__init__(f"training was interrupted after {step} steps")
        self.fit, self.step = fit, step


def fit(
    network: NetworkLike,
    data: RowsLike,
    key: KeyLike,
    *,
    steps: Whole,
    batch_size: Whole = 256,
    learning_rate: Scalar = 2e-3,
    weight_decay: Scalar = 1e-2,
    ema_decay: Scalar = 0.999,
    horizon: Scalar = 5.0,
    early_stop: Scalar = 1e-3,
    weight: str | Callable[..., Any] = path_kl_weight,
    held_out: RowsLike = None,
    progress: bool = False,
) -> Fit:
    """Train a denoiser network with AdamW on the denoising loss.

    Args:
      network: an NNX module, network(x, t, key=) -> denoiser, called with x (batch, d) and t (batch,) as in
        losses.denoising. It is left unchanged.
      data: (n, d) training rows; whole numbers become float32.
      key: a JAX key for batches, times, noise and dropout.
      steps: optimiser steps; the learning rate warms up over a twentieth of them and decays as a cosine.
      batch_size, learning_rate, weight_decay: arguments of AdamW. Gradients are clipped to norm sqrt(d).
      ema_decay: decay of the parameter average that is returned; at step k it is at most (1 + k)/(10 + k).
      horizon, early_stop, weight: arguments of losses.denoising.
      held_out: (m, d) rows. With them `fit` returns the average with the least held-out loss instead of the last one.
        The loss is measured 25 times, always on the same rows with the same noise. The numbers of rows and noise levels
        follow from steps and batch_size, such that the measurements take about a tenth of the time. `Fit` has both.
      progress: show a bar.

    Returns:
      Fit, with losses as in losses.denoising. The result does not depend on the speed of the machine.

    Raises:
      ValueError: steps, batch_size or learning_rate is not positive; early_stop does not lie below the horizon; the
        rows are not (n, d), are empty or are not finite; or a loss is not finite during training.
      TypeError: network is not an NNX module.
      Interrupted: Ctrl-C was pressed. The exception holds the best network so far.
    """
    _check_numbers(steps, batch_size, learning_rate)
    check_ends(horizon, early_stop)
    _check_network(network)
    data = jnp.asarray(float_rows(data, "data"))
    graph, params, others = nnx.split(network, nnx.Param, ...)
    # The state is split off, and jax.jit used: nnx.jit walks through the module in every call, which takes ten times as
    # long as the call itself.
    network_of = lambda params: nnx.merge(graph, params, others)
    options = {"weight": weight, "horizon": horizon, "early_stop": early_stop}
    optimiser = adamw(data.shape[1], steps, learning_rate, weight_decay)
    step = optimiser_step(optimiser, network_of, key, batch_size=batch_size, ema_decay=ema_decay, options=options)
    size = -(-steps // CHECKS)
    held_out_loss = None if held_out is None else HeldOutLoss(held_out, data.shape[1], steps, batch_size, options)
    state = jax.tree.map(jnp.copy, (params, optimiser.init(params), params))
    carried = state, jnp.zeros(size, jnp.float32)
    # Both programs are compiled before training starts, when an interrupt loses no work yet.
    run_block = compiled_block(step, carried, data)
    history = _History(network_of, params, held_out_loss, learning_rate)
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
                history.add(carried[0], carried[1], first, done)
            if pressed():
                raise Interrupted(history.fitted(), done)
    return history.fitted()


class _History:
    """The measurements of a training run, and the best average of the parameters so far.

    Args:
      network_of: parameters -> the network.
      params: the parameters that training starts from.
      held_out_loss: a HeldOutLoss, or None.
      learning_rate: named in messages.
    """

    def __init__(self, network_of, params, held_out_loss, learning_rate):
        self.network_of, self.held_out_loss, self.learning_rate = network_of, held_out_loss, learning_rate
        self.best, self.least, self.rows = params, np.inf, []
        self.measure = None if held_out_loss is None else held_out_loss.compiled(network_of, params)

    def add(self, state, losses, first, done):
        """Measure the average after `done` steps; keep it as the best one if its held-out loss is the least so far.

        losses: the training losses of steps first, ..., done - 1.
        """
        average = state[2]
        train_loss = float(np.mean(np.asarray(losses, np.float64)[: done - first]))
        held_out_loss = np.nan if self.measure is None else self.measure(average)
        if not np.isfinite(train_loss if self.measure is None else train_loss + held_out_loss):
            raise ValueError(
                f"the loss at step {done} is {train_loss} on training and {held_out_loss} on held-out rows: lower "
                f"learning_rate = {self.learning_rate:g}."
            )
        self.rows.append({"step": done, "train_loss": train_loss, "held_out_loss": held_out_loss})
        if self.measure is None or held_out_loss < self.least:
            self.best, self.least = jax.tree.map(jnp.copy, average), held_out_loss

    def fitted(self):
        """The Fit of the best average."""
        sizes = (self.held_out_loss.rows, self.held_out_loss.levels) if self.held_out_loss is not None else (0, 0)
        return Fit(self.network_of(self.best), self.rows, *sizes)


def _check_numbers(steps, batch_size, learning_rate):
    """Raise ValueError unless all three are positive, and the learning rate is finite."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1: steps = {steps}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1: batch_size = {batch_size}.")
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate must be positive and finite: learning_rate = {learning_rate:g}.")


def _check_network(network):
    """Raise TypeError unless the network is an NNX module."""
    if isinstance(network, nnx.Module):
        return
    kind = type(network)
    how = ""
    if any(base.__module__.startswith("flax.linen") for base in kind.__mro__):
        how = " That is a Linen module: write it in NNX, or wrap it with flax.nnx.bridge.ToNNX and initialise it."
    raise TypeError(
        f"network must be a flax.nnx.Module, called as network(x, t, key=key): it is a {kind.__name__}.{how}"
    )
