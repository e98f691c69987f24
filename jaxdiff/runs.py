"""A run folder: the model, the split it was trained on, and what later commands leave beside them."""

import contextlib
import dataclasses
import json
import pathlib
import zlib

import jax
import numpy as np
from flax import nnx

from jaxdiff.curves import MeasuredCurve, loss_curve, measured_curve, principal_axes
from jaxdiff.data import Dataset, covariance
from jaxdiff.files import UNREADABLE, brief, to_json, written
from jaxdiff.grids import check_grid
from jaxdiff.information import KERNELS
from jaxdiff.networks import ResidualMLP
from jaxdiff.processes import check_ends
from jaxdiff.scores import denoiser_in_axes, denoiser_of
from jaxdiff.train import load_network, save_network

PARTS = ("model.json", "data.npz", "checkpoint")  # put in place from the last to the first: a model.json means all
SPLITS = ("train", "held_out", "test")
IN_AXES_FROM = 256  # columns, from which a network's two products with its axes would cost more than all else
OF_THE_PLAN = ("samples.npy", "samples.png", "report.json", "report.html")
OF_THE_MODEL = ("plan.json", "loss_curve.png", "grids.png", "held_out_curve.npz", "test_curve.npz", *OF_THE_PLAN)


class RunError(ValueError):
    """A run folder lacks something; the message names the command that makes it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What `jaxdiff train` leaves, loaded.

    Attributes:
      folder: where it lies.
      model: the record in model.json: data set, network, horizon, early_stop, seed, history.
      dataset: the split, standardised.
      network: the trained NNX module.
    """

    folder: pathlib.Path
    model: dict
    dataset: Dataset
    network: nnx.Module

    @property
    def horizon(self):
        """OU time where sampling starts."""
        return self.model["horizon"]

    @property
    def early_stop(self):
        """OU time where sampling stops."""
        return self.model["early_stop"]

    def key(self, purpose):
        """A JAX key of this run's seed for one purpose, different for each."""
        return jax.random.fold_in(jax.random.key(self.model["seed"]), np.uint32(zlib.crc32(purpose.encode())))


def build(dataset, network, *, moments=True):
    """The network of a record {"width", "depth", "dropout", "seed"} for a data set; moments: of its rows.

    A checkpoint brings the moments, which cost an eigendecomposition.
    """
    moments = {"mean": dataset.train.mean(0), "cov": covariance(dataset.train)} if moments else {}
    options = {name: network[name] for name in ("width", "depth", "dropout")}
    return ResidualMLP(dataset.dim, **moments, **options, rngs=nnx.Rngs(network["seed"]))


def save(folder, model, dataset, network):
    """Write a trained run: model.json, data.npz, checkpoint/. An older run stays until all three are written."""
    folder = pathlib.Path(folder)
    record = {"data": dataset.name, "dim": dataset.dim, "constant_columns": dataset.constant}
    parts = {name: getattr(dataset, name) for name in (*SPLITS, "mean", "scale")}
    with contextlib.ExitStack() as stack:
        drafts = {name: stack.enter_context(written(folder / name)) for name in PARTS}
        save_network(network, drafts["checkpoint"])
        with drafts["data.npz"].open("wb") as stream:
            np.savez_compressed(stream, **parts)
        drafts["model.json"].write_text(to_json(model | record), encoding="utf-8")
        discard(folder, ("model.json", *OF_THE_MODEL))


def discard(folder, names):
    """Remove what an older model or plan left in a run folder; returns the names that were there."""
    left = [name for name in names if (folder / name).exists()]
    for name in left:
        (folder / name).unlink()
    return left


def load(folder):
    """The run in a folder.

    Raises:
      RunError: it is missing, incomplete or damaged.
    """
    folder = pathlib.Path(folder)
    if not folder.exists() and ("runs" / folder / "model.json").exists():
        raise RunError(f"{folder} does not exist: did you mean {'runs' / folder}?")
    maker = f"jaxdiff train DATA --out {folder}"
    with _reading(folder / "model.json", maker) as path:
        model = json.loads(path.read_text(encoding="utf-8"))
        check_ends(model["horizon"], model["early_stop"])
        for name in ("data", "dim", "constant_columns", "seed", "image_shape"):
            model[name]  # a KeyError here, not later
        options = {name: model["network"][name] for name in ("width", "depth", "dropout", "seed")}
    with _reading(folder / "data.npz", maker) as path, path.open("rb") as stream, np.load(stream) as arrays:
        parts = {name: arrays[name] for name in (*SPLITS, "mean", "scale")}
        dataset = Dataset(name=model["data"], constant=model["constant_columns"], **parts)
        if {part.shape[-1] for part in parts.values()} != {model["dim"]}:
            raise ValueError(f"not {model['dim']} columns everywhere")
    untrained = build(dataset, options, moments=False)
    with _reading(folder / "checkpoint", maker) as path:
        network = load_network(untrained, path)
    return Run(folder, model, dataset, network)


def load_plan(run):
    """The record of plan.json, whose kernel and grid can be run.

    Raises:
      RunError: it is missing or damaged.
    """
    with _reading(run.folder / "plan.json", f"jaxdiff plan {run.folder}") as path:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["kernel"] not in KERNELS:
            raise ValueError(f"no kernel with a path KL: {record['kernel']!r}")
        record["grid"] = check_grid(record["grid"])
        kept = ("horizon", "grid", "kernel", "per_direction", "evals", "predicted_kl", "target_kl")
        return {name: record[name] for name in kept}


# KeyError and TypeError are what a record of another shape raises, FileNotFoundError a checkpoint that lacks a part. A
# lack of memory or of a library is no damage.
@contextlib.contextmanager
def _reading(path, maker):
    """A path that exists; a file damaged inside is a RunError that names the command to make it again."""
    if not path.exists():
        raise RunError(f"{path} does not exist: make it with {maker}.")
    try:
        yield path
    except (*UNREADABLE, KeyError, TypeError, FileNotFoundError) as error:
        raise RunError(f"{path} is damaged ({brief(error)}): make it again with {maker}.") from error


def measure(run, split, *, grid=None, basis=None, progress=False) -> MeasuredCurve:
    """The network's loss curve on the rows of a split, in the training rows' principal axes; not yet kept.

    With a grid the loss is measured at the nodes of the grid too. A basis replaces the principal axes. From
    IN_AXES_FROM columns on the principal axes are those that the network has.
    """
    options = {"horizon": run.horizon, "early_stop": run.early_stop, "grid": grid, "progress": progress}
    rows, key = getattr(run.dataset, split), run.key(split)
    if run.dataset.dim < IN_AXES_FROM:
        basis = principal_axes(run.dataset.train) if basis is None else basis
        return loss_curve(denoiser_of(run.network), rows, key, basis=basis, **options)
    denoiser, axes = denoiser_in_axes(run.network)
    basis = axes if basis is None else basis
    axes = basis if np.array_equal(basis, axes) else axes
    return loss_curve(denoiser, rows, key, basis=basis, axes=axes, **options)


def keep(run, split, curve):
    """Write a split's loss curve into the folder, as SPLIT_curve.npz."""
    with written(run.folder / f"{split}_curve.npz") as draft, draft.open("wb") as stream:
        kept = {name: getattr(curve, name) for name in ("rows", "by_group", "basis", "squares", "row_ids")}
        np.savez(stream, u=curve.spline.u, extra=curve.spline.extra, **kept)


def measured(run, split) -> MeasuredCurve:
    """The loss curve that `keep` wrote."""
    path = run.folder / f"{split}_curve.npz"
    with _reading(path, f"jaxdiff plan {run.folder}"), path.open("rb") as stream, np.load(stream) as arrays:
        parts = {name: arrays[name] for name in ("u", "rows", "by_group", "basis", "squares")}
        parts["extra"] = arrays.get("extra", ())  # an older file has equidistant nodes alone
        parts["row_ids"] = arrays.get("row_ids")  # earlier versions wrote none
        return measured_curve(dim=run.dataset.dim, **parts)
