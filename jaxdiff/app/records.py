"""What the files of a run may hold: the type and range of each field, checked when a file is read."""

import json
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.app.data.labels import Labels
from jaxdiff.app.data.scales import PixelScale
from jaxdiff.app.networks import KINDS
from jaxdiff.checks import MOST_SEED
from jaxdiff.grids import check_grid
from jaxdiff.kernels import PATH_COSTS
from jaxdiff.planning.w2_candidates import KERNELS
from jaxdiff.processes.default_times import check_ends

TOLERANCE = 1e-6  # relative, of times that were stored as log snr, and of products of a stored basis
SPLITS = ("train", "held_out", "test")


class Field(NamedTuple):
    """What a value must be: `wanted` says it in words, `holds` checks it."""

    wanted: str
    holds: Callable[[Any], bool]


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value):
    return (_is_whole(value) or isinstance(value, float)) and abs(value) <= sys.float_info.max


def _whole(least, most=math.inf):
    return Field(
        f"a whole number, at least {least}" if most == math.inf else f"a whole number from {least} to {most}",
        lambda value: _is_whole(value) and least <= value <= most,
    )


def _each(holds, size=None):
    """A check for a list, of `size` values if that is given, each of which passes `holds`."""
    return lambda value: isinstance(value, list) and size in (None, len(value)) and all(map(holds, value))


def _shape(least, wanted):
    """null, or a list of `least` to three positive whole numbers."""
    each = _each(lambda one: _is_whole(one) and one > 0)
    return Field(wanted, lambda value: value is None or (each(value) and least <= len(value) <= 3))


OF_KERNEL: dict[str, list[dict[str, Any]]] = {}  # the options that a plan gives to a kernel
for _name, _options in KERNELS:
    OF_KERNEL.setdefault(_name, []).append(_options)
PLANNED = tuple(dict.fromkeys((*PATH_COSTS, *OF_KERNEL)))  # kernels of a plan
NUMBER = Field("a finite number", _is_number)
NUMBER_OR_NULL = Field("a finite number or null", lambda value: value is None or _is_number(value))
RECORD = Field("a record", lambda value: isinstance(value, dict))
MODEL = {
    "data": Field("a name", lambda value: isinstance(value, str)),
    "dim": _whole(1),
    "constant_columns": _whole(0),
    "horizon": NUMBER,
    "early_stop": NUMBER,
    "seed": _whole(0, MOST_SEED),
    "image_shape": _shape(2, "null or two or three positive whole numbers"),
    "event_shape": _shape(1, "null or one to three positive whole numbers"),
    "pixels": Field("null or a record", lambda value: value is None or isinstance(value, dict)),
    "train_rows": _whole(1),
    "stopped_at": Field("null or a whole number", lambda value: value is None or _is_whole(value)),
    "network": RECORD,
    "history": Field("a list of records", _each(RECORD.holds)),
}
# What records of earlier versions lack.
ADDED = {"history": [], "event_shape": None, "pixels": None, "train_rows": 1, "stopped_at": None}
OF_NETWORK = {"kind": "mlp", "n_classes": None}
OF_PLAN = {"metric": "kl", "options": {}, "predicted_w2": None, "target_w2": None, "guidance": 1.0}
NETWORK = {
    "kind": Field(
        f"one of {', '.join(KINDS)} or FILE.py:NAME",
        lambda value: isinstance(value, str) and (value in KINDS or ":" in value),
    ),
    "n_classes": Field("null or a whole number, at least 2", lambda value: value is None or _whole(2).holds(value)),
    "dropout": Field("a number in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1),
    "seed": _whole(0, MOST_SEED),
}
SIZES = {"width": _whole(1), "depth": _whole(0)}
MULTIPLIERS = {"multipliers": Field("a list of whole numbers", _each(lambda one: _is_whole(one) and one > 0))}
PLAN = {
    "horizon": NUMBER,
    "grid": Field("a list of finite numbers", _each(_is_number)),
    "metric": Field("kl or w2", lambda value: value in ("kl", "w2")),
    "kernel": Field(f"one of {', '.join(PLANNED)}", lambda value: isinstance(value, str) and value in PLANNED),
    "options": Field(
        "a record of orders and truth values",
        lambda value: isinstance(value, dict) and all(isinstance(one, int) for one in value.values()),
    ),
    "per_direction": Field("true or false", lambda value: isinstance(value, bool)),
    "evals": _whole(1),
    "predicted_kl": NUMBER_OR_NULL,
    "predicted_w2": NUMBER_OR_NULL,
    "target_kl": NUMBER_OR_NULL,
    "target_w2": NUMBER_OR_NULL,
    "guidance": NUMBER,
}


def _check(record, fields, inside=""):
    """Raise ValueError unless a record has all fields, each with a value that it allows."""
    if not isinstance(record, dict):
        raise ValueError("it holds no record")
    for name, field in fields.items():
        if name not in record:
            raise ValueError(f"{inside}{name} is missing")
        if not field.holds(record[name]):
            raise ValueError(f"{inside}{name} is {json.dumps(record[name])[:60]}, not {field.wanted}")


def demand(*conditions):
    """Raise ValueError with the sentence of the first pair (sentence, condition) whose condition is false."""
    for sentence, holds in conditions:
        if not holds:
            raise ValueError(sentence)


def check_model(record):
    """The record of a trained model, with what earlier versions did not write. ValueError for any other value."""
    record = ADDED | record if isinstance(record, dict) else record
    _check(record, MODEL)
    record = record | {"network": OF_NETWORK | record["network"]}
    network = record["network"]
    own = {} if ":" in str(network["kind"]) else SIZES | (MULTIPLIERS if network["kind"] == "unet" else {})
    _check(network, NETWORK | own, "network.")
    check_ends(record["horizon"], record["early_stop"])
    dim, constant, image, event = (record[name] for name in ("dim", "constant_columns", "image_shape", "event_shape"))
    classes, n_classes = record.get("classes"), network["n_classes"]
    demand(
        (f"constant_columns is {constant}, more than dim = {dim}", constant <= dim),
        (f"image_shape is {image}, which does not make dim = {dim} pixels", image is None or math.prod(image) == dim),
        (f"event_shape is {event}, which does not make dim = {dim} values", event is None or math.prod(event) == dim),
        (f"network.n_classes is {n_classes}, not the number of classes", n_classes in (None, len(classes or []))),
    )
    if record["pixels"] is not None:
        PixelScale.from_record(record["pixels"])
    return record


def grid_of(record, horizon, early_stop):
    """The grid of a plan's record. Raises ValueError unless the plan can be run and runs between these times."""
    _check(record, PLAN)
    options = OF_KERNEL.get(record["kernel"], [{}])
    steps = record["evals"] // (2 if record["kernel"] == "heun" else 1)
    grid = check_grid(record["grid"])
    ends = f"grid runs from {grid[0]:.6g} to {grid[-1]:.6g}, the model from {horizon:.6g} to {early_stop:.6g}"
    moment_matched = record["kernel"] == "moment_matched"
    demand(
        (ends, np.allclose(grid[[0, -1]], [horizon, early_stop], rtol=TOLERANCE, atol=0)),
        (f"horizon is {record['horizon']:.6g}, not the grid's", math.isclose(record["horizon"], grid[0])),
        (f"evals is {record['evals']}, and the grid has {len(grid) - 1} steps", steps == len(grid) - 1),
        (
            f"options is {json.dumps(record['options'])[:60]}, which {record['kernel']} lacks",
            record["options"] in options,
        ),
        (f"per_direction is true of {record['kernel']}", moment_matched or not record["per_direction"]),
    )
    return grid


def data_of(arrays, dim):
    """The arrays of a data set of `dim` columns: splits, mean, scale, and which columns hold whole numbers.

    Raises:
      ValueError: an array is missing, has another shape or type or is not finite, or the scale is not positive.
    """
    shapes = dict.fromkeys(SPLITS, ("rows", dim)) | {"mean": (dim,), "scale": (dim,)}
    parts = {name: finite_array(arrays, name, shape) for name, shape in shapes.items()}
    demand(
        *((f"{split} has no rows", len(parts[split]) > 0) for split in SPLITS),
        ("scale is not positive", (parts["scale"] > 0).all()),
    )
    whole = arrays["whole"] if "whole" in arrays else np.zeros(dim, bool)  # earlier versions did not write it
    demand(("whole is not a truth value for each column", whole.dtype == bool and whole.shape == (dim,)))
    return parts | {"whole": whole}


def labels_of(arrays, parts, classes):
    """The labels of the rows in `parts`; None if the record of the model has no classes, as earlier ones have not.

    Raises:
      ValueError: the names of the classes are no different texts, or the labels do not number them for each row.
    """
    if classes is None:
        return None
    named = _each(lambda name: isinstance(name, str))(classes) and 1 < len(set(classes)) == len(classes)
    demand((f"classes is {json.dumps(classes)[:60]}, not two different names or more", named))
    labels = {}
    for name in SPLITS:
        demand((f"{name}_labels is missing", f"{name}_labels" in arrays))
        labels[name] = values = arrays[f"{name}_labels"]
        fits = values.dtype == np.int32 and values.shape == parts[name].shape[:1]
        fits = fits and (values >= 0).all() and (values < len(classes)).all()
        demand((f"{name}_labels is not a number below {len(classes)} for each row", fits))
    return Labels(**labels, names=tuple(classes))


def finite_array(arrays, name, shape):
    """An array of finite numbers (whole numbers for row_ids) of a shape, in which a word stands for any size."""
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    array = arrays[name]
    kinds, numbers = ("iu", "whole numbers") if name == "row_ids" else ("f", "floating-point numbers")
    if array.dtype.kind not in kinds or array.dtype.itemsize < 4:
        raise ValueError(f"{name} holds {array.dtype}, not {numbers}")
    fits = array.ndim == len(shape) and all(
        isinstance(wanted, str) or wanted == size for wanted, size in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {array.shape}, not ({', '.join(map(str, shape))})")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite")
    return array
