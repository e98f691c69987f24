"""Saving and loading the parameters of a network."""

import os
import pathlib
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxdiff.training.checkpoints.orbax_files import CHECKSUM, checkpointing, checksum

Network = TypeVar("Network", bound=nnx.Module)


def save_network(network: nnx.Module, path: str | os.PathLike) -> None:
    """Write a network's variables as an Orbax checkpoint into the new folder `path`, with a checksum of its files.

    Raises:
      OSError: the system cannot write the files, for example because the disk is full.
    """
    path, state = pathlib.Path(path), nnx.to_pure_dict(nnx.state(network))
    checkpointing(lambda checkpointer: checkpointer.save(path.absolute(), state), path)
    (path / CHECKSUM).write_text(checksum(path), encoding="utf-8")


# Orbax raises a plain Exception for a damaged chunk, as it does for many other faults. The files are therefore compared
# with their checksum before Orbax reads them.
def load_network(network: Network, path: str | os.PathLike) -> Network:
    """A copy of the given network with the variables of a checkpoint.

    Raises:
      FileNotFoundError: there is no checksum.
      ValueError: the files were changed, belong to another network, or hold numbers that are not finite.
      OSError: the files cannot be read.
    """
    path = pathlib.Path(path)
    if (path / CHECKSUM).read_text(encoding="utf-8") != checksum(path):
        raise ValueError("its files are not those that were written")
    graph, state = nnx.split(network)
    like = nnx.to_pure_dict(state)
    saved = checkpointing(lambda checkpointer: checkpointer.restore(path.absolute(), like), path)
    for place, leaf in jax.tree_util.tree_leaves_with_path(saved):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not jnp.isfinite(leaf).all():
            raise ValueError(f"{jax.tree_util.keystr(place, simple=True, separator='.')} is not finite")
    nnx.replace_by_pure_dict(state, saved)
    return nnx.merge(graph, state)
