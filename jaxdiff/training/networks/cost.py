"""The number of parameters of a network, and the number of floating-point operations in a call."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def parameters(network: Any) -> int:
    """How many numbers of an NNX network are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))


def flops(network: Any, shape: Any) -> float:
    """Floating-point operations of one call network(x, t) with one row, as XLA counts them before it optimises.

    A product of (1, a) with (a, b) counts as 2 a b. Exponentials and other transcendental functions are not counted.
    A loop whose length XLA does not know counts as one of its turns.

    Args:
      network: an NNX module.
      shape: the shape of an event, (d,) or (H, W, C).
    """
    graph, state = nnx.split(network)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    t = jax.ShapeDtypeStruct((), jnp.float32)
    counted = jax.jit(lambda state, x, t: nnx.merge(graph, state)(x, t)).lower(state, x, t).cost_analysis()
    return float((counted or {}).get("flops", 0.0))


def describe(network: Any, shape: Any) -> str:
    """A line about a network: "U-Net, 1.2 M parameters, 34 MFLOPs a call", for a call with one row."""
    name = getattr(network, "title", type(network).__name__)
    return f"{name}, {_short(parameters(network), '')} parameters, {_short(flops(network, shape), 'FLOPs')} a call"


def _short(number, unit):
    """A number with at most three digits, a prefix and a unit: "34 MFLOPs", or "1.24 M" without a unit."""
    size, prefix = next(((size, prefix) for size, prefix in UNITS if number >= size), (1, ""))
    value = number / size
    digits = 0 if size == 1 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {prefix}{unit}".strip()
