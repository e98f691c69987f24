"""Calls Orbax, raises its file errors as an OSError, silences its threads, and computes checksums of its files."""

import contextlib
import gc
import hashlib
import io
import logging
import os
import re
import sys
import time

LAST_WRITES = 0.5  # seconds to wait after an error, so that TensorStore's threads print their last messages before
CHECKSUM = "sha256"  # name of the file with the checksum, in the folder of the checkpoint


# TensorStore puts the system's error number into a text of its own. Its threads, Orbax's and asyncio's tasks print
# tracebacks beside it, until shortly after Orbax returns and again when they are collected ("Event loop is closed").
def checkpointing(work, path, *, in_thread=False):
    """Call work with an Orbax checkpointer; raise errors of the file system as an OSError about `path`.

    in_thread: whether other threads work meanwhile. Their standard error is then left as it is.
    """
    import orbax.checkpoint as ocp

    number = None
    with _silent_loggers("absl", "asyncio"), contextlib.nullcontext() if in_thread else _silent_process():
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


# Each use adds a filter of its own, so that uses in two threads may overlap.
@contextlib.contextmanager
def _silent_loggers(*names):
    """Silence the loggers of these names."""
    loggers, nothing = [logging.getLogger(name) for name in names], lambda record: False
    try:
        for logger in loggers:
            logger.addFilter(nothing)
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(nothing)


@contextlib.contextmanager
def _silent_process():
    """Silence standard error and sys.unraisablehook."""
    hook = sys.unraisablehook
    try:
        sys.unraisablehook = lambda unraisable: None
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sys.unraisablehook = hook


def checksum(folder):
    """SHA-256 of the names and bytes of all files of a folder, except the file of the checksum itself."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CHECKSUM:
            found.update(path.relative_to(folder).as_posix().encode() + b"\0")
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
