"""The networks that `jaxdiff train` builds: their record in a run folder, and the network of a record."""

import inspect
import math
import pathlib
from typing import Any

import numpy as np
from flax import nnx

from jaxdiff.app.data import Dataset, channel_moments
from jaxdiff.app.functions import function_of
from jaxdiff.training import networks
from jaxdiff.training.networks.preconditioning import MOST_AXES
from jaxdiff.training.signature import takes

KINDS = ("mlp", "unet", "dit")
SIZES = {"mlp": (192, 3), "unet": (32, 1), "dit": (128, 4)}  # width and depth by default
MOST_TOKENS = 256  # of a DiT; larger images get larger patches
SMALLEST = 4  # pixels, the least side of a U-Net's lowest level


def record_of(options: Any, dataset: Dataset) -> dict[str, Any]:
    """The record of the network that the options of `jaxdiff train` ask for: kind, sizes, seed, number of classes.

    Raises:
      ValueError: there is no such network, or it does not fit the data.
    """
    shape = dataset.event_shape
    labels = None if options.no_labels else dataset.labels
    n_classes = None if labels is None else len(labels.names)
    kind = options.network or ("mlp" if len(shape) == 1 else "unet")
    record = {"kind": kind, "dropout": options.dropout, "seed": options.seed, "n_classes": n_classes}
    if kind not in KINDS:
        if ":" not in kind:
            raise ValueError(f"--network must be one of {', '.join(KINDS)}, or FILE.py:NAME: it is {kind}.")
        for name in ("width", "depth"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is for {', '.join(KINDS)}, and {kind} sets its own: leave --{name} out.")
        return record
    if kind != "mlp" and len(shape) == 1:
        raise ValueError(f"--network {kind} is for images, and the data are rows of {shape[0]} columns: use mlp.")
    width, depth = SIZES[kind]
    record["width"] = width if options.width is None else options.width
    record["depth"] = depth if options.depth is None else options.depth
    return record | ({"multipliers": _levels(shape)} if kind == "unet" else {})


def _levels(shape):
    """The multipliers of a U-Net: two levels, and more as long as the sides can be halved to SMALLEST pixels."""
    found, sides = [1], shape[:2]
    while all(side % 2 == 0 and side // 2 >= SMALLEST for side in sides):
        found, sides = [*found, 2], [side // 2 for side in sides]
    return found


def _patch(shape):
    """The least patch, of 2 pixels or more, that divides an image into at most MOST_TOKENS; 1 where none does."""
    height, width = shape[:2]
    fits = lambda p: height % p == width % p == 0 and height * width <= MOST_TOKENS * p**2
    return next((p for p in range(2, min(height, width) + 1) if fits(p)), 1)


def build(dataset: Dataset, record: dict[str, Any], *, shape: Any = None, moments: bool = True) -> nnx.Module:
    """An untrained network for a data set.

    Args:
      dataset: the data set.
      record: the network's, as `record_of` makes it. Records of earlier versions have no kind, and mean an MLP.
      shape: the shape of an event; default that of the data set.
      moments: whether to compute the mean and the covariance of the train rows, which takes an eigendecomposition. A
        network that is loaded from a checkpoint gets them from there.

    Raises:
      ValueError: the file of a network of the user has no such function, or the function returns no NNX module.
    """
    shape = dataset.event_shape if shape is None else tuple(shape)
    kind, n_classes = record.get("kind", "mlp"), record.get("n_classes")
    given: dict[str, Any] = {"rngs": nnx.Rngs(record["seed"]), "n_classes": n_classes}
    given |= _moments(dataset, shape) if moments else {}
    if kind not in KINDS:
        return _of_user(kind, shape, given | {"dropout": record["dropout"]})
    given |= {"width": record["width"], "dropout": record["dropout"]}
    if kind == "unet":
        return networks.UNet(shape, **given, blocks=record["depth"], multipliers=tuple(record["multipliers"]))
    if kind == "dit":
        return networks.DiT(shape, **given, depth=record["depth"], patch=_patch(shape))
    return networks.ResidualMLP(math.prod(shape), **given, depth=record["depth"])


def _moments(dataset, shape):
    """Mean and covariance of the train rows: of all pairs of values, or of each channel of large images."""
    if len(shape) == 1 or math.prod(shape) <= MOST_AXES:
        return dict(zip(("mean", "cov"), dataset.moments(), strict=True))
    mean, variances = channel_moments(dataset.train)
    return {"mean": np.broadcast_to(mean, shape), "cov": variances}


def _of_user(name, shape, given):
    """The network that a function of the user builds: NAME(shape, ...), with those keywords that NAME takes."""
    place = pathlib.Path(name.rpartition(":")[0])
    if place.suffix == ".py" and not place.is_file():
        raise ValueError(f"{place} does not exist: give the file of the network by --network FILE.py:NAME.")
    function = function_of(name, "network")
    is_class = isinstance(function, type)  # the signature of an NNX class itself takes anything
    signature = inspect.signature(function.__init__ if is_class else function)
    parameters = signature.parameters.values()
    everything = any(one.kind is one.VAR_KEYWORD for one in parameters)
    taken = {one.name for one in parameters}
    keywords = {key: value for key, value in given.items() if everything or key in taken}
    try:
        signature.bind(*[None][:is_class], shape, **keywords)
    except TypeError as error:
        raise ValueError(
            f"{name} is called with the shape of an event and the keywords {', '.join(given)} that it has: {error}. "
            f"Give its other arguments defaults."
        ) from error
    network = function(shape, **keywords)
    if not isinstance(network, nnx.Module):
        raise ValueError(
            f"{name} must build a flax.nnx.Module, called as network(x, t): it returns a {type(network).__name__}."
        )
    if given["n_classes"] is not None and not takes_labels(network):
        raise ValueError(
            f"the data have {given['n_classes']} classes, and the network of {name} takes no labels: give its call an "
            f"argument condition and the module an attribute n_classes, or train with --no-labels."
        )
    return network


def takes_labels(network: Any) -> bool:
    """Whether a network has classes, and its call takes them."""
    return bool(getattr(network, "n_classes", None)) and takes(network, "condition")
