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

import jax
import jax.numpy as jnp
from flax import nnx

LAST_WRITES = 0.5  # seconds that TensorStore's threads may go on after an error
CHECKSUM = "sha256"  # the file beside a checkpoint's own


def save_network(network, path):
    """Write a network's variables as an Orbax checkpoint into the new folder `path`, with a checksum of its files.

    Raises:
      OSError: the disk is full, or the like.
    """
    path, state = pathlib.Path(path), nnx.to_pure_dict(nnx.state(network))
    _checkpointing(lambda checkpointer: checkpointer.save(path.absolute(), state), path)
    (path / CHECKSUM).write_text(_checksum(path), encoding="utf-8")


# Of a damaged chunk Orbax says no more than Exception, for which no other fault may pass: so the files are held against
# their checksum before it reads them.
def load_network(network, path):
    """A network like the one given, with the variables of a checkpoint.

    Raises:
      FileNotFoundError: there is no checksum.
      ValueError: the files are not those that were written, or of another network, or hold numbers that are not finite.
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


# TensorStore wraps the system's error number in a text of its own. Its threads, Orbax's and asyncio's tasks print
# tracebacks beside it, for a moment longer than Orbax works and when they are collected: "Event loop is closed".
def _checkpointing(work, path):
    """work(checkpointer) with Orbax's; an error of the file system is an OSError about `path` and nothing else."""
    import orbax.checkpoint as ocp

    number = None
    with _silent("absl", "asyncio"):
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                return work(checkpointer)
        except Exception as error:  # Orbax raises plain ones; raised again unless the system gave an error number
            told = re.search(r"os_error_code='(\d+)'", str(error))
            number = getattr(error, "errno", None) if told is None else int(told[1])
            if number is None:
                raise
        time.sleep(LAST_WRITES)
        gc.collect()
    raise OSError(number, os.strerror(number), str(path))


@contextlib.contextmanager
def _silent(*names):
    """Loggers of these names log nothing, standard error and the hook for errors that nobody catches get nothing."""
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
    """SHA-256 of the names and bytes of a folder's files, but for the one that it is kept in."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CHECKSUM:
            found.update(path.relative_to(folder).as_posix().encode() + b"\0")
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
