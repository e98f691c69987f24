"""Run folders: the model, the split of the data that it was trained on, and the files that later commands add."""

import contextlib
import dataclasses
import json
import os
import pathlib
import zlib
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import PRNGKeyArray

from jaxdiff.app.curve_record import curve_of
from jaxdiff.app.data import Dataset
from jaxdiff.app.data.scales import PixelScale
from jaxdiff.app.networks import build
from jaxdiff.app.records import OF_PLAN, PLAN, SPLITS, check_model, data_of, grid_of, labels_of
from jaxdiff.curves import MeasuredCurve, loss_curve, measured_curve, principal_axes
from jaxdiff.events import on_rows
from jaxdiff.files import UNREADABLE, brief, locked, written
from jaxdiff.scores import denoiser_in_axes, denoiser_of, guided
from jaxdiff.training.checkpoints import load_network
from jaxdiff.training.networks import ResidualMLP
from jaxdiff.training.networks.preconditioning import MOST_AXES
from jaxdiff.types import DenoiserFn

PARTS = ("model.json", "data.npz", "checkpoint")  # the files of a trained run
IN_AXES_FROM = 256  # columns; from so many on, a network's two products with its axes take most of its time
# Files that become wrong when the plan, or the model, is replaced.
OF_THE_PLAN = ("samples.npy", "samples_labels.npy", "samples.png", "report.json", "report.html", "quality.png")
OF_THE_MODEL = ("plan.json", "loss_curve.png", "grids.png", "held_out_curve.npz", "test_curve.npz", *OF_THE_PLAN)
# A record vouches for all files that belong to it. An older record is removed first, and a new one is written last.
RECORDS = ("model.json", "plan.json")
MAKERS = {"held_out": "plan", "test": "certify"}  # the commands that write the loss curve of each split


class RunError(ValueError):
    """A file of a run folder is missing or unusable; the message names the command that writes it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A trained run, as `jaxdiff train` writes it.

    Attributes:
      folder: its path.
      model: the contents of model.json: data set, network, horizon, early_stop, seed, history.
      dataset: train, held-out and test rows, standardised.
      network: the trained NNX module.
    """

    folder: pathlib.Path
    model: dict
    dataset: Dataset
    network: nnx.Module

    @property
    def horizon(self) -> float:
        """OU time at which sampling starts."""
        return self.model["horizon"]

    @property
    def early_stop(self) -> float:
        """OU time at which sampling stops."""
        return self.model["early_stop"]

    def key(self, purpose: str) -> PRNGKeyArray:
        """A JAX key from the seed of this run; each purpose, which is any name, has its own key."""
        return jax.random.fold_in(jax.random.key(self.model["seed"]), np.uint32(zlib.crc32(purpose.encode())))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of what the network takes: (d,), or (H, W, C) of images. The data set has rows (n, d)."""
        return tuple(self.model["event_shape"] or (self.dataset.dim,))

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes of the network; None where it takes no labels."""
        labels = self.dataset.labels
        return None if labels is None or self.model["network"]["n_classes"] is None else labels.names

    def labels(self, split: str) -> np.ndarray | None:
        """The labels (n,) of the rows of a split; None where the network takes no labels."""
        return None if self.classes is None else getattr(self.dataset.labels, split)

    def denoiser(self, labels: Any = None, guidance: float = 1.0) -> DenoiserFn:
        """The denoiser of rows (n, d).

        Args:
          labels: (n,), one for each row; None: of no class in particular.
          guidance: the weight of classifier-free guidance; 1 is the conditional denoiser.
        """
        check_guidance(self, guidance)
        own = lambda labels: on_rows(denoiser_of(self.network, labels), self.event_shape)
        return own(labels) if labels is None or guidance == 1 else guided(own(labels), own(None), guidance)

    def in_axes(self, labels: Any = None, guidance: float = 1.0) -> tuple[DenoiserFn, np.ndarray] | None:
        """The denoiser in the coordinates of the network's principal axes, and the axes.

        None for a network other than the MLP, and if there are too few columns for this to save time.
        """
        check_guidance(self, guidance)
        if not isinstance(self.network, ResidualMLP) or self.dataset.dim < IN_AXES_FROM:
            return None
        denoiser, axes = denoiser_in_axes(self.network, labels)
        if labels is not None and guidance != 1:
            denoiser = guided(denoiser, denoiser_in_axes(self.network)[0], guidance)
        return denoiser, axes

    def restore(self, rows: Any, *, rounded: bool = False) -> np.ndarray:
        """Standardised rows (n, d) in the units of the data; of images (n, *shape in the file)."""
        rows = np.asarray(rows)
        if self.dataset.pixels is not None:
            rows = rows.reshape(len(rows), *self.event_shape)
        return self.dataset.restore(rows, rounded=rounded)


def check_guidance(run: Run, guidance: float) -> None:
    """Raise ValueError unless the weight is finite, and 1 where the network takes no labels."""
    if not np.isfinite(guidance):
        raise ValueError(f"guidance must be a finite weight, such as 1.5: guidance = {guidance}.")
    if guidance != 1 and run.classes is None:
        raise ValueError(
            f"guidance = {guidance:g} needs a network that takes labels, and that of {run.folder} takes none: leave "
            f"guidance out, or train on data with labels."
        )


def load(folder: str | os.PathLike, *, network: str | None = None) -> Run:
    """The run in a folder.

    network: FILE.py:NAME of a network of the user that was moved since training.

    Raises:
      RunError: it is missing, incomplete or damaged.
    """
    folder = pathlib.Path(folder)
    if not folder.exists() and ("runs" / folder / "model.json").exists():
        raise RunError(f"{folder} does not exist: did you mean {'runs' / folder}?")
    with locked(folder, shared=True) if folder.is_dir() else contextlib.nullcontext():
        return _load(folder, f"jaxdiff train DATA --out {folder}", network)


def _load(folder, maker, moved):
    with _reading(folder / "model.json", maker) as path:
        model = check_model(read_json(path))
    with _reading(folder / "data.npz", maker) as path, path.open("rb") as stream, np.load(stream) as arrays:
        parts = data_of(arrays, model["dim"])
        splits = (parts[name] for name in SPLITS)
        units = {name: parts[name] for name in ("mean", "scale", "whole")}
        dataset = Dataset(model["data"], *splits, **units, constant=model["constant_columns"])
        labels = labels_of(arrays, parts, model.get("classes"))
        pixels = None if model["pixels"] is None else PixelScale.from_record(model["pixels"])
        dataset = dataclasses.replace(dataset, labels=labels, pixels=pixels)
    record = model["network"] if moved is None else model["network"] | {"kind": moved}
    untrained = build(dataset, record, shape=model["event_shape"], moments=False)
    with _reading(folder / "checkpoint", maker) as path:
        network = load_network(untrained, path)
    return Run(folder, model, dataset, network)


def load_plan(run: Run) -> dict[str, Any]:
    """The contents of plan.json, with the grid as an array.

    Raises:
      RunError: it is missing or damaged.
    """
    with _reading(run.folder / "plan.json", f"jaxdiff plan {run.folder}") as path:
        record = _plan_of(read_json(path), run)
        other = record.get("path_kl_plan")
        return {name: record[name] for name in PLAN} | {"path_kl_plan": other and _plan_of(other, run)}


def _plan_of(record, run):
    record = OF_PLAN | record  # earlier plans lack these
    return record | {"grid": grid_of(record, run.horizon, run.early_stop)}


def read_json(path: pathlib.Path) -> Any:
    """The JSON data of a file."""
    return json.loads(path.read_text(encoding="utf-8"))


# A record of another structure raises KeyError or TypeError, a checkpoint without one of its files FileNotFoundError.
# MemoryError and ImportError are not caught, because they say nothing about the file.
@contextlib.contextmanager
def _reading(path, maker):
    """Yield the path. A missing or damaged file raises a RunError that names the command which makes it again."""
    if not path.exists():
        raise RunError(f"{path} does not exist: make it with {maker}.")
    try:
        yield path
    except (*UNREADABLE, KeyError, TypeError, FileNotFoundError) as error:
        raise RunError(f"{path} is damaged ({brief(error).rstrip('.')}): make it again with {maker}.") from error


def measure(
    run: Run, split: str, *, grid: Any = None, basis: Any = None, guidance: float = 1.0, progress: bool = False
) -> MeasuredCurve:
    """Measure the network's loss curve on the rows of a split, along the principal axes of the train rows.

    split: "train", "held_out" or "test". A network that takes labels gets those of the rows.
    grid: times at which to measure the loss too.
    basis: directions to use instead of the principal axes. If the run has a denoiser `in_axes`, the principal axes are
      those stored in the network. Images of more than MOST_AXES values have no axes.
    guidance: the weight of the guided denoiser.
    """
    options = {"horizon": run.horizon, "early_stop": run.early_stop, "grid": grid, "progress": progress}
    rows, key, labels = getattr(run.dataset, split), run.key(split), run.labels(split)
    found = run.in_axes(labels, guidance)
    if found is None:
        if basis is None and run.dataset.dim <= MOST_AXES:
            basis = principal_axes(run.dataset.train)
        return loss_curve(run.denoiser(labels, guidance), rows, key, basis=basis, **options)
    denoiser, axes = found
    basis = axes if basis is None else basis
    axes = basis if np.array_equal(basis, axes) else axes
    return loss_curve(denoiser, rows, key, basis=basis, axes=axes, **options)


def keep(run: Run, split: str, curve: Any, *, into: pathlib.Path | None = None) -> None:
    """Write a split's loss curve as SPLIT_curve.npz into the run's folder, or into the folder `into`."""
    kept = {name: getattr(curve, name) for name in ("rows", "by_group", "basis", "squares", "row_ids")}
    kept = {name: value for name, value in kept.items() if value is not None}
    with written((into or run.folder) / f"{split}_curve.npz") as draft, draft.open("wb") as stream:
        np.savez(stream, u=curve.spline.u, extra=curve.spline.extra, **kept)


def measured(run: Run, split: str) -> MeasuredCurve:
    """The loss curve that `keep` wrote.

    Raises:
      RunError: the file is missing or damaged, or belongs to a run with other columns or times.
    """
    path, maker = run.folder / f"{split}_curve.npz", f"jaxdiff {MAKERS[split]} {run.folder}"
    with _reading(path, maker), path.open("rb") as stream, np.load(stream) as arrays:
        return measured_curve(dim=run.dataset.dim, **curve_of(arrays, run.dataset.dim, run.horizon, run.early_stop))
