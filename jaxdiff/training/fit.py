"""The training loop: fits a denoiser to data and keeps the average of its parameters with the least held-out loss."""

import dataclasses
import signal
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxdiff.arrays import Whole
from jaxdiff.noise import KeyLike
from jaxdiff.processes.default_times import check_ends
from jaxdiff.sampling.arguments import Scalar
from jaxdiff.training.batches import fingerprint, source_of
from jaxdiff.training.checkpoints import load_network, save_network
from jaxdiff.training.history import History
from jaxdiff.training.loop import Exploded, blocks_of, run
from jaxdiff.training.losses import path_kl_weight, weight_of
from jaxdiff.training.optimiser import Settings, State, optimiser_of
from jaxdiff.training.resume import Saving, about_run
from jaxdiff.training.sharding import layout_of
from jaxdiff.training.signature import check_labels, check_network
from jaxdiff.training.times import times_of
from jaxdiff.training.validation_loss import CHECKS, held_out_loss_of

__all__ = ["Exploded", "Fit", "Interrupted", "fit", "load_network", "path_kl_weight", "save_network"]

# Arguments that `fit` checks itself, with messages of its own: the annotation accepts anything.
NetworkLike = Any  # a flax.nnx.Module, network(x, t, condition, key=key)
RowsLike = Any  # (n, *event) real numbers, or a source of them
Labels = Any  # (n,) whole numbers


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
    """Ctrl-C or SIGTERM ended `fit` early.

    A KeyboardInterrupt: a program that does not catch it ends, as Ctrl-C usually does.

    Attributes:
      fit: the Fit of the steps done.
      step: the number of steps done.
      signal: the number of the signal.
    """

    def __init__(self, fit, step, number=signal.SIGINT):
        """Keep the Fit, the number of steps and the signal."""
        super().__init__(f"training was interrupted after {step} steps")
        self.fit, self.step, self.signal = fit, step, number


def fit(
    network: NetworkLike,
    data: RowsLike,
    key: KeyLike,
    *,
    labels: Labels = None,
    steps: Whole,
    batch_size: Whole = 256,
    optimiser: Any = "adamw",
    learning_rate: Scalar = 2e-3,
    weight_decay: Scalar = 1e-2,
    ema_decay: Scalar = 0.999,
    horizon: Scalar = 5.0,
    early_stop: Scalar = 1e-3,
    weight: str | Callable[..., Any] = path_kl_weight,
    times: str | Callable[..., Any] = "log_snr",
    accumulate: Whole = 1,
    drop_labels: Scalar = 0.1,
    held_out: RowsLike = None,
    held_out_labels: Labels = None,
    mesh: Any = None,
    spread_parameters: bool = False,
    checkpoints: Any = None,
    resume: bool = False,
    on_measure: Callable[..., Any] | None = None,
    progress: bool = False,
) -> Fit:
    """Train a denoiser network on the denoising loss.

    Args:
      network: an NNX module, called as network(x, t) with x (batch, *event), t (batch,). It gets key=, a JAX key that
        switches dropout on, and the condition (batch,), if its signature has arguments of these names. It is left
        unchanged. Its parameters keep their dtype; the loss is computed in float32 or float64.
      data: (n, *event) training rows, or a source with len, shape, dtype and source[indices], for example a
        memory-mapped array. Whole numbers become float32. More than 1 GiB stays on the host, which feeds the batches.
      key: a JAX key for batches, times, noise and dropout. The batch of a step depends on the key and the step alone.
      labels: (n,) whole numbers below network.n_classes, the conditions of the rows.
      steps: optimiser steps; the learning rate warms up over a twentieth of them and decays as a cosine.
      batch_size, accumulate: a step uses accumulate parts of batch_size rows each, one part in memory at a time. The
        gradient is that of the mean over all of them.
      optimiser: "adamw", "muon", or an optax.GradientTransformation, which ignores learning_rate and weight_decay. The
        named ones clip gradients to norm sqrt(d), where d is the number of values in a row.
      learning_rate, weight_decay: arguments of the named optimisers.
      ema_decay: decay of the parameter average that is returned; at step k it is at most (1 + k)/(10 + k), so that the
        untrained parameters are soon forgotten. TensorFlow's ExponentialMovingAverage with num_updates has this form.
      horizon, early_stop, weight: arguments of losses.denoising.
      times: "log_snr" (stratified uniformly in log snr), "low_discrepancy", "importance" (drawn where the measured loss
        is large, and divided out), or a function (key, n) -> times (n,).
      drop_labels: the chance that a label is replaced by the null class network.n_classes.
      held_out: (m, *event) rows. With them `fit` returns the average with the least held-out loss instead of the last
        one. The loss is measured 25 times, always on the same rows with the same noise. The numbers of rows and noise
        levels follow from steps and batch_size, such that the measurements take about a tenth of the time. `Fit` has
        both.
      held_out_labels: (m,) labels of the held-out rows; needed if labels are given.
      mesh: a jax.sharding.Mesh, over whose first axis the rows of a batch are spread.
      spread_parameters: spread parameters and the optimiser's state over the same axis too.
      checkpoints: a Checkpoints object, for a program of one process. The state is saved about every minute, at the
        end, and on Ctrl-C or SIGTERM.
      resume: go on from the last checkpoint, to the same bits as a run that was not stopped.
      on_measure: called at every measurement with a dict (step, losses, seconds, steps_per_second) and the network.
      progress: show a bar.

    Returns:
      Fit, with losses as in losses.denoising. The result does not depend on the speed of the machine.

    Raises:
      ValueError: a number is out of range; early_stop does not lie below the horizon; the rows have fewer than two
        axes, are empty or are not finite; labels do not fit the network; the devices do not divide the batch; or the
        checkpoint is of another run.
      Exploded: a ValueError; a loss is not finite during training.
      TypeError: network is not an NNX module.
      Interrupted: Ctrl-C was pressed, or SIGTERM came. The exception holds the best network so far.
    """
    _check_numbers(steps, batch_size, learning_rate, accumulate, drop_labels, ema_decay)
    check_ends(horizon, early_stop)
    check_network(network)
    source = source_of(data)
    labels = None if labels is None else check_labels(network, labels, source.n)
    layout = layout_of(mesh, spread_parameters, int(batch_size))
    options = {"weight": weight_of(weight), "horizon": horizon, "early_stop": early_stop}
    null, drawn = getattr(network, "n_classes", None), times_of(times, horizon, early_stop)
    settings = Settings(batch_size, accumulate, ema_decay, drawn, options["weight"], drop_labels, null, layout)
    rows = held_out, _held_out_labels(network, labels, held_out, held_out_labels)
    held_out_loss = held_out_loss_of(*rows, source.event, steps, batch_size * accumulate, options)
    named = {"steps": steps, "batch_size": batch_size, "accumulate": accumulate, "optimiser": optimiser}
    named |= {"learning_rate": learning_rate, "weight_decay": weight_decay, "ema_decay": ema_decay, "times": times}
    named |= {"horizon": horizon, "early_stop": early_stop, "weight": weight, "drop_labels": drop_labels}
    chosen = optimiser_of(optimiser, int(np.prod(source.event)), steps, learning_rate, weight_decay)
    graph, params, others = nnx.split(network, nnx.Param, ...)
    about = {}
    if checkpoints is not None:
        about = about_run(named, fingerprint(source, labels, held_out_loss), (params, others), key)
    # The state is split off, and jax.jit used: nnx.jit walks through the module in every call, which takes ten times as
    # long as the call itself.
    network_of = lambda params: nnx.merge(graph, params, others)
    size = -(-steps // CHECKS)
    start = State(params, chosen.init(params), params, drawn.start)
    carried = layout.state(jax.tree.map(jnp.copy, start)), layout.place(jnp.zeros(size, jnp.float32))
    advice = f"lower learning_rate = {learning_rate:g}."
    history = History(network_of, params, held_out_loss, layout, on_measure, advice)
    saving = Saving(checkpoints, about, key, -(-steps // size), layout, advice)
    done, carried = saving.start(carried, history, resume)
    # Both programs are compiled before training starts, when an interrupt loses no work yet.
    blocks, close = blocks_of(chosen, network_of, key, source, labels, settings, carried)
    try:
        stopped, done = run(blocks, carried, history, saving, done=done, steps=steps, size=size, progress=progress)
    finally:
        close()
    fitted = _fitted(network_of, history, held_out_loss)
    if stopped:
        raise Interrupted(fitted, done, stopped)
    return fitted


def _fitted(network_of, history, held_out_loss):
    """The Fit of the best average."""
    sizes = (held_out_loss.rows, held_out_loss.levels) if held_out_loss is not None else (0, 0)
    return Fit(network_of(history.best), history.rows, *sizes)


def _held_out_labels(network, labels, held_out, held_out_labels):
    """The labels of the held-out rows, checked."""
    if held_out_labels is None:
        if labels is not None and held_out is not None:
            raise ValueError("labels and held_out were given without held_out_labels: give the held-out rows' labels.")
        return None
    if held_out is None:
        raise ValueError("held_out_labels were given without held_out: give the rows too.")
    return check_labels(network, held_out_labels, len(held_out), "held_out_labels")


def _check_numbers(steps, batch_size, learning_rate, accumulate, drop_labels, ema_decay):
    """Raise ValueError unless the counts and the learning rate are positive, and the shares lie between 0 and 1."""
    for name, value in (("steps", steps), ("batch_size", batch_size), ("accumulate", accumulate)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: {name} = {value}.")
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate must be positive and finite: learning_rate = {learning_rate:g}.")
    if not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay must lie between 0 and 1, 1 excluded: ema_decay = {ema_decay:g}.")
    if not 0 <= drop_labels <= 1:
        raise ValueError(f"drop_labels must be a chance between 0 and 1: drop_labels = {drop_labels:g}.")
