"""What a training shows while it runs: lines of metrics, TensorBoard events, and pictures of samples and loss."""

import importlib
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import noise
from jaxdiff.app import plots
from jaxdiff.app.data import Dataset
from jaxdiff.app.training_folder import TrainingFolder
from jaxdiff.curves import loss_curve
from jaxdiff.events import on_rows
from jaxdiff.files import draft_folder, put
from jaxdiff.grids import log_snr
from jaxdiff.kernels import unipc
from jaxdiff.processes import score_from_denoiser
from jaxdiff.sampling.sample import sample
from jaxdiff.scores import denoiser_of
from jaxdiff.types import Sampler

ROWS = 256  # held-out rows of a picture of the loss
SAMPLES, STEPS = 64, 20  # in a picture of samples, by UniPC on log snr
NODES, NOISES = 41, 1  # of the loss curve
NAMES = ("samples_", "loss_curve_")


class Watcher:
    """Called by `fit` at every measurement, with the measured numbers and the network.

    Args:
      folder: where the metrics and the pictures go.
      dataset: in rows, with labels where the network takes some.
      event: the shape of what the network takes.
      image_shape: of rows that are shown as images; None for others.
      ends: the horizon and the early stop.
      every: optimiser steps between two pictures; 0 for none.
      started: the step from which the training goes on.
    """

    def __init__(
        self,
        folder: TrainingFolder,
        dataset: Dataset,
        event: Any,
        image_shape: Any,
        ends: Any,
        every: int,
        started: int,
    ) -> None:
        """Open TensorBoard's file, if the package is installed."""
        self.folder, self.dataset, self.event, self.image_shape = folder, dataset, tuple(event), image_shape
        self.ends, self.every, self.drawn = ends, every, started
        self.board = _board(folder.folder / "tensorboard")

    def __call__(self, measured: dict[str, Any], network: Any) -> None:
        """Write the numbers, and every so many steps the pictures."""
        self.folder.add_metrics(measured)
        step = int(measured["step"])
        if self.board is not None:
            _write(self.board, step, measured)
        if self.every and step - self.drawn >= self.every:
            self.drawn = step
            self._draw(step, network)

    def _draw(self, step, network):
        """The pictures of one network, which replace earlier ones of the same step."""
        data, labels = self.dataset, self.dataset.labels
        few = data.held_out[:ROWS]
        own = None if labels is None else labels.held_out[: len(few)]
        with draft_folder(self.folder.folder, "pictures") as place:
            names = [f"{name}{step:09d}.png" for name in NAMES]
            x = self._samples(network, None if own is None else np.resize(own, SAMPLES))
            classes = None if own is None else (np.resize(own, SAMPLES), own)
            shown = self._restored(x), self._restored(few), self._restored(data.train[: plots.SHOWN])
            plots.samples(place / names[0], *shown, self.image_shape, labels=classes, rows="held-out rows")
            how = {"horizon": self.ends[0], "early_stop": self.ends[1], "n_nodes": NODES, "n_noises": NOISES}
            curve = loss_curve(on_rows(denoiser_of(network, own), self.event), few, jax.random.key(0), **how)
            plots.loss_curve(place / names[1], curve, float(data.train.var(0).sum()))
            for name in names:
                put(place / name, self.folder.folder / name)

    def _samples(self, network, labels):
        """SAMPLES rows; those of equal number start at the same place in every picture."""
        denoiser = on_rows(denoiser_of(network, labels), self.event)
        sampler = Sampler(unipc(score_from_denoiser(denoiser)), log_snr(self.ends[0], self.ends[1], STEPS))
        start = noise.initial(jax.random.key(0), jnp.arange(SAMPLES, dtype=jnp.uint32), self.dataset.dim, jnp.float32)
        return np.nan_to_num(np.asarray(sample(sampler, start, key=jax.random.key(1), denoise=True)))

    def _restored(self, rows):
        if self.dataset.pixels is not None:
            rows = rows.reshape(len(rows), *self.event)
        return self.dataset.restore(rows)

    def close(self) -> None:
        """Write what TensorBoard has not written yet."""
        if self.board is not None:
            self.board.close()


def newest(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """The last picture of a name that a Watcher drew; None if there is none."""
    return max(pathlib.Path(folder).glob(f"{name}*.png"), default=None)


def _board(folder):
    """A writer of TensorBoard's events; None where the package is not installed."""
    try:
        writers = importlib.import_module("tensorboard.summary.writer.event_file_writer")
    except ImportError:
        return None
    return writers.EventFileWriter(str(folder))


def _write(board, step, measured):
    """The losses and the speed as scalars of TensorBoard."""
    protocol = "tensorboard.compat.proto"
    events, summaries = (importlib.import_module(f"{protocol}.{name}_pb2") for name in ("event", "summary"))
    shown = {name: measured[name] for name in ("train_loss", "held_out_loss", "steps_per_second")}
    values = [summaries.Summary.Value(tag=name, simple_value=float(value)) for name, value in shown.items()]
    board.add_event(events.Event(wall_time=time.time(), step=step, summary=summaries.Summary(value=values)))
    board.flush()
