"""A run folder: the model, the split it was trained on, and what later commands leave beside them."""

import dataclasses
import json
import pathlib
import zlib

import jax
import numpy as np
from flax import nnx

from jaxdiff import kernels
from jaxdiff.curves import MeasuredCurve, loss_curve, measured_curve
from jaxdiff.data import Dataset
from jaxdiff.files import write_json, written
from jaxdiff.grids import check_grid
from jaxdiff.networks import ResidualMLP
from jaxdiff.scores import denoiser_of
from jaxdiff.train import load_network, save_network

SPLITS = ("train", "held_out", "test")
DERIVED = (
    "model.json",
    "plan.json",
    "report.json",
    "report.html",
    "samples.npy",
    "samples.png",
    "loss_curve.png",
    "grids.png",
    "held_out_curve.npz",
    "test_curve.npz",
)


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


def build(dataset, network):
    """The network of a record {"width", "depth", "dropout", "seed"} for a data set."""
    moments = {"mean": dataset.train.mean(0), "cov": np.cov(dataset.train.T).reshape(dataset.dim, dataset.dim)}
    options = {name: network[name] for name in ("width", "depth", "dropout")}
    return ResidualMLP(dataset.dim, **moments, **options, rngs=nnx.Rngs(network["seed"]))


def save(folder, model, dataset, network):
    """Write a trained run: checkpoint/, data.npz, model.json; model.json last, what an older model left goes first."""
    folder = pathlib.Path(folder)
    for name in DERIVED:
        (folder / name).unlink(missing_ok=True)
    with written(folder / "checkpoint") as draft:
        save_network(network, draft)
    with written(folder / "data.npz") as draft, draft.open("wb") as stream:
        parts = {name: getattr(dataset, name) for name in (*SPLITS, "mean", "scale")}
        np.savez_compressed(stream, **parts)
    write_json(folder / "model.json", model | {"data": dataset.name, "constant_columns": dataset.constant})


def load(folder):
    """The run in a folder.

    Raises:
      RunError: it is missing or incomplete.
    """
    folder = pathlib.Path(folder)
    model = _read_json(folder / "model.json", "jaxdiff train DATA --out " + str(folder))
    with np.load(_present(folder / "data.npz", "jaxdiff train")) as arrays:
        parts = {name: arrays[name] for name in (*SPLITS, "mean", "scale")}
    dataset = Dataset(name=model["data"], constant=model["constant_columns"], **parts)
    _present(folder / "checkpoint", "jaxdiff train")
    return Run(folder, model, dataset, load_network(build(dataset, model["network"]), folder / "checkpoint"))


def load_plan(run):
    """The record of plan.json, whose kernel and grid can be run.

    Raises:
      RunError: it is missing or damaged.
    """
    path, maker = run.folder / "plan.json", f"jaxdiff plan {run.folder}"
    record = _read_json(path, maker)
    try:
        if record["kernel"] not in kernels.__all__:
            raise ValueError(f"no kernel {record['kernel']!r}")
        record["grid"] = check_grid(np.array(record["grid"], np.float64))
        return {name: record[name] for name in ("horizon", "grid", "kernel", "evals", "predicted_kl")}
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error!r}): make it again with {maker}.") from error


def _read_json(path, maker):
    try:
        return json.loads(_present(path, maker).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): make it again with {maker}.") from error


def _present(path, maker):
    if not path.exists():
        raise RunError(f"{path} does not exist: make it with {maker}.")
    return path


def measure(run, split, *, progress=False) -> MeasuredCurve:
    """The network's loss curve on the rows of a split, kept in the folder as SPLIT_curve.npz."""
    path = run.folder / f"{split}_curve.npz"
    ends = {"horizon": run.horizon, "early_stop": run.early_stop}
    rows = getattr(run.dataset, split)
    curve = loss_curve(denoiser_of(run.network), rows, run.key(split), **ends, progress=progress)
    with written(path) as draft, draft.open("wb") as stream:
        np.savez(
            stream, u=curve.spline.u, losses=curve.losses, crosses=curve.crosses, covariance=curve.covariance, n=curve.n
        )
    return curve


def measured(run, split) -> MeasuredCurve:
    """The loss curve that `measure` kept."""
    with np.load(_present(run.folder / f"{split}_curve.npz", f"jaxdiff plan {run.folder}")) as arrays:
        parts = {name: arrays[name] for name in ("u", "losses", "crosses", "covariance")}
        return measured_curve(n=int(arrays["n"]), dim=run.dataset.dim, **parts)
