"""The leaves of a state: their names, shapes and dtypes, copies on the host, and back onto the devices."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Leaf(NamedTuple):
    """The record of one leaf in a checkpoint: its path in the tree, its shape, and the name of its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def leaves_of(state):
    """(Leaf, value) of every leaf of a state, in the order of the tree.

    Raises:
      ValueError: a leaf is no array, key or number.
    """
    found = []
    for path, value in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "the state"
        if not hasattr(value, "dtype"):
            if not isinstance(value, bool | int | float):
                kind = type(value).__name__
                raise ValueError(f"{name} is a {kind}: a checkpoint holds arrays, JAX keys and numbers.")
            dtype, shape = type(value).__name__, ()
        else:
            dtype, shape = str(value.dtype), tuple(value.shape)
        found.append((Leaf(name, shape, dtype), value))
    return found


def host_copy(value) -> np.ndarray:
    """A copy of a leaf in the host's memory, which later donation or writing does not change; a key gives its data."""
    return np.array(jax.random.key_data(value) if _is_key(value) else value, copy=True)


def start_copies(values):
    """Start the transfers of all arrays to the host, so that they overlap."""
    for value in values:
        if isinstance(value, jax.Array) and not _is_key(value):
            value.copy_to_host_async()


def placed(array: np.ndarray, like: Any) -> Any:
    """A stored array as `like` is: key, JAX array with its dtype and sharding, NumPy array, or number."""
    if _is_key(like):
        key = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
        return jax.device_put(key, like.sharding)
    if isinstance(like, bool | int | float) and not isinstance(like, np.generic):
        return type(like)(array)
    array = array.astype(like.dtype, copy=False)
    if isinstance(like, np.ndarray | np.generic):
        return array if isinstance(like, np.ndarray) else array[()]
    return jax.device_put(array, like.sharding)


def difference(saved: list[Leaf], wanted: list[Leaf]) -> str | None:
    """The first difference of two lists of leaves in words; None if one can stand for the other."""
    for one, other in zip(saved, wanted, strict=False):
        if one.name != other.name:
            return f"leaf {one.name} of the checkpoint is where {other.name} is expected"
        if one.shape != other.shape:
            return f"{one.name} has shape {one.shape} in the checkpoint, {other.shape} is expected"
        if _kind(one.dtype) != _kind(other.dtype):
            return f"{one.name} holds {one.dtype} in the checkpoint, {other.dtype} is expected"
    if len(saved) > len(wanted):
        return f"leaf {saved[len(wanted)].name} of the checkpoint is not expected"
    return f"leaf {wanted[len(saved)].name} is missing in the checkpoint" if len(saved) < len(wanted) else None


def _is_key(value):
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _kind(name):
    """Dtypes of one kind stand for each other: the precisions of floating-point numbers, of integers, and so on."""
    kinds = {"float": "floating", "bfloat": "floating", "int": "integer", "uint": "unsigned"}
    return kinds.get(name.rstrip("0123456789"), name)
