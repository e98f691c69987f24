"""Saving and loading the parameters of a network."""

import contextlib
import gc
import hashlib
import io
import logging
import os
import pathlib
import re
import sys
import time
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

Network = TypeVar("Network", bound=nnx.Module)
LAST_WRITES = 0.5  # seconds to wait after an error, so that TensorStore's threads print their last messages before
CHECKSUM = "sha256"  # name of the file with the checksum, in the folder of the checkpoint


def save_network(network: nnx.Module, path: str | os.PathLike) -> None:
    """Write a network's variables as an Orbax checkpoint into the new folder `path`, with a checksum of its files.

    Raises:
      OSError: the system cannot write the files, for example because the disk is full.
    """
    path, state = pathlib.Path(path), nnx.to_pure_dict(nnx.state(network))
    _checkpointing(lambda checkpointer: checkpointer.save(path.absolute(), state), path)
    (path / CHECKSUM).write_text(_checksum(path), encoding="utf-8")


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
    if (path / CHECKSUM).read_text(encoding="utf-8") != _checksum(path):
        raise ValueError("its files are not those that were written")
    graph, state = nnx.split(network)
    like = nnx.to_pure_dict(state)
    saved = _checkpointing(lambda checkpointer: checkpointer.restore(path.absolute(), like), path)
    for place, leaf in jax.tree_util.tree_leaves_with_path(saved):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not jnp.isfinite(leaf).all():
            raise ValueError(f"{jax.tree_util.keystr(place, simple=True, separator='.')} is not finite")
    nnx.replace_by_pure_dict(state, saved)
    return nnx.merge(graph, state)


# TensorStore puts the system's error number into a text of its own. Its threads, Orbax's and asyncio's tasks print
# tracebacks beside it, until shortly after Orbax returns and again when they are collected ("Event loop is closed").
def _checkpointing(work, path):
    """Call work with an Orbax checkpointer; raise errors of the file system as an OSError about `path`."""
    import orbax.checkpoint as ocp

    number = None
    with _silent("absl", "asyncio"):
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                return work(checkpointer)
        except Exception as error:  # Orbax raises plain ones
            found = re.search(r"os_error_code='(\d+)'", str(error))
            number = getattr(error, "errno", None) if found is None else int(found[1])
            if number is None:
                raise
        time.sleep(LAST_WRITES)
        gc.collect()
    raise OSError(number, os.strerror(number), str(path))


@contextlib.contextmanager
def _silent(*names):
    """Silence the loggers of these names, standard error and sys.unraisablehook."""
    loggers = [logging.getLogger(name) for name in names]
    before, hook = [logger.disabled for logger in loggers], sys.unraisablehook
    try:
        sys.unraisablehook = lambda unraisable: None
        for logger in loggers:
            logger.disabled = True
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sys.unraisablehook = hook
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _checksum(folder):
    """SHA-256 of the names and bytes of all files of a folder, except the file of the checksum itself."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CHECKSUM:
            found.update(path.relative_to(folder).as_posix().encode() + b"\0")
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
