"""How a network is called: with a condition and a key where its signature takes them."""

import inspect
from typing import Any

import numpy as np
from flax import nnx


def call(network: Any, x: Any, t: Any, condition: Any = None, key: Any = None) -> Any:
    """network(x, t), with the condition as third argument if there is one, and key=key if the signature has one."""
    extra = {"key": key} if key is not None and takes(network, "key") else {}
    return network(x, t, **extra) if condition is None else network(x, t, condition, **extra)


def takes(network: Any, name: str) -> bool:
    """Whether the network's call has an argument of this name."""
    arguments = inspect.signature(type(network).__call__).parameters.values()
    return any(one.name == name or one.kind is one.VAR_KEYWORD for one in arguments)


def check_network(network: Any) -> None:
    """Raise TypeError unless the network is an NNX module, ValueError if it has state that training cannot update."""
    if not isinstance(network, nnx.Module):
        kind = type(network)
        how = ""
        if any(base.__module__.startswith("flax.linen") for base in kind.__mro__):
            how = " That is a Linen module: write it in NNX, or wrap it with flax.nnx.bridge.ToNNX and initialise it."
        raise TypeError(
            f"network must be a flax.nnx.Module, called as network(x, t, key): it is a {kind.__name__}.{how}"
        )
    for _, part in nnx.iter_modules(network):
        if isinstance(part, nnx.BatchNorm):
            raise ValueError(
                "network= has a BatchNorm, whose running statistics fit does not update: use LayerNorm or GroupNorm."
            )
        if isinstance(part, nnx.Dropout) and part.rate > 0 and part.rngs is not None:
            raise ValueError(
                f"network has a Dropout of rate {part.rate:g} with rngs of its own, which would draw the same mask in "
                "every step: build the Dropout without rngs, and pass it the argument key of the network's call."
            )


def check_labels(network: Any, labels: Any, n: int, name: str = "labels") -> np.ndarray:
    """The labels as int32 (n,).

    Raises:
      ValueError: the network has no classes, or the labels are not n whole numbers below its number of classes.
    """
    classes = getattr(network, "n_classes", None) or 0
    if not classes or not takes(network, "condition"):
        raise ValueError(
            f"the network has no classes, and {name} were given: build it with n_classes=, or leave {name} out."
        )
    labels = np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be one whole number for each of the {n} rows: shape {labels.shape}, dtype {labels.dtype}."
        )
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        raise ValueError(
            f"{name} has {len(bad)} values outside 0, ..., {classes - 1}, first {labels[bad[0]]} at row {bad[0]}: "
            f"number the classes from 0, or build the network with a larger n_classes."
        )
    return labels.astype(np.int32)
