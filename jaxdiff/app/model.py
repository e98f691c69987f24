"""A trained model as plain functions: its score, its denoiser, and the scaling of its data."""

import dataclasses
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.app import run_folder
from jaxdiff.processes import Process, ou
from jaxdiff.scores import denoiser_of, from_network, guided
from jaxdiff.types import DenoiserFn, Rows, ScoreFn


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """The affine map between rows in the units of the data file and standardised rows. It is a pytree.

    Attributes:
      mean: (d,) means of the train rows; of images the middle of their range, ().
      scale: (d,) standard deviations of the train rows; 1 for a column that is constant there. Of images half of the
        width of their range, ().
      constant: (d,) of bool: the columns that are constant on the train rows; of images False.
    """

    mean: Any
    scale: Any
    constant: Any

    def standardise(self, x: Rows) -> Float[Array, "*rows d"]:
        """Rows (..., d) of the file's units -> standardised rows; on the train rows each column has mean 0."""
        x = _floating(x)
        return (x - self.mean.astype(x.dtype)) / self.scale.astype(x.dtype)

    def undo(self, x: Rows) -> Float[Array, "*rows d"]:
        """Standardised rows (..., d) -> rows in the file's units; a constant column gets its constant."""
        x = _floating(x)
        mean = self.mean.astype(x.dtype)
        return jnp.where(self.constant, mean, x * self.scale.astype(x.dtype) + mean)


jax.tree_util.register_dataclass(Scaling, data_fields=["mean", "scale", "constant"], meta_fields=[])


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained model. Its functions work under `jax.jit` and `jax.vmap`, and on rows that are standardised.

    Attributes:
      folder: the run folder.
      score: s(x, t), the score at standardised rows x (..., d), or images (..., H, W, C), and an OU time t (); a
        pytree.
      denoiser: D(x, t), the estimate of E[X_0 | X_t = x], of the same shapes; a pytree.
      process: the forward process, whose clock is the times of score and denoiser: `jaxdiff.processes.ou`.
      scaling: between the units of the data file and standardised rows.
      network: the Flax NNX module.
      class_names: the names of the labels 0, 1, ...; None if the data have no labels.
      record: the contents of the run's model.json: data set, network, horizon, early_stop, seed, history.
    """

    folder: pathlib.Path
    score: ScoreFn
    denoiser: DenoiserFn
    process: Process
    scaling: Scaling
    network: Any
    class_names: tuple[str, ...] | None
    record: dict[str, Any]

    def conditional(self, labels: Any, guidance: float = 1.0) -> "Model":
        """This model with the score and the denoiser of labels, and of guidance.

        Args:
          labels: (n,) whole numbers, one for each particle, or one number for all: positions in `class_names`.
          guidance: the weight of classifier-free guidance; 1 is the conditional law.

        Raises:
          ValueError: the network takes no labels.
        """
        if self.class_names is None:
            raise ValueError(f"the network of {self.folder} takes no labels: train it on data with labels.")
        own = lambda function: guided(function(self.network, labels), function(self.network), guidance)
        return dataclasses.replace(self, score=own(from_network), denoiser=own(denoiser_of))

    @property
    def horizon(self) -> float:
        """OU time at which sampling starts."""
        return self.record["horizon"]

    @property
    def early_stop(self) -> float:
        """OU time at which sampling stops."""
        return self.record["early_stop"]

    def standardise(self, x: Rows) -> Float[Array, "*rows d"]:
        """Rows (..., d) in the units of the data file -> standardised rows."""
        return self.scaling.standardise(x)

    def undo(self, x: Rows) -> Float[Array, "*rows d"]:
        """Standardised rows (..., d), such as samples -> rows in the units of the data file."""
        return self.scaling.undo(x)


def load(run: str | os.PathLike, *, network: str | None = None) -> Model:
    """The model in a run folder, as `jaxdiff train` writes it.

    network: FILE.py:NAME of a network of the user that was moved since training.

    Raises:
      RunError: the folder is missing, incomplete or damaged. It is a ValueError.
    """
    found = run_folder.load(run, network=network)
    data = found.dataset
    mean, scale, constant = np.asarray(data.mean), np.asarray(data.scale), ~data.train.any(axis=0)
    if data.pixels is not None:
        mean, scale, constant = mean[0], scale[0], np.array(False)
    return Model(
        folder=found.folder,
        score=from_network(found.network),
        denoiser=denoiser_of(found.network),
        process=ou,
        scaling=Scaling(mean, scale, constant),
        network=found.network,
        class_names=found.classes,
        record=found.model,
    )


def _floating(x):
    """Rows as a JAX array of floating point; whole numbers get JAX's default precision."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
