"""Files that are whole or absent: everything is written beside its place and renamed into it."""

import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import tempfile
import tokenize
import zipfile
import zlib

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


# What NumPy's readers raise at damaged bytes, found by flipping and cutting them; not OSError, which speaks for itself.
UNREADABLE = (ValueError, EOFError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)
ENDING = re.compile("[a-z0-9_]{8}")  # what tempfile puts behind a prefix


class WriteError(OSError):
    """A file cannot be written; made of errno, the system's words and the file, and printed as a sentence."""

    def __str__(self):
        """The file first."""
        return f"{self.filename} cannot be written: {self.strerror}."


@contextlib.contextmanager
def written(path):
    """A fresh path beside `path` (a file or a folder) to write to; on success it takes the place of `path`.

    Raises:
      WriteError: the disk is full, or the folder cannot be written to.
    """
    path = pathlib.Path(path)
    with room(path.parent, path.name) as place:
        draft = place / path.name
        yield draft
        put(draft, path)


@contextlib.contextmanager
def room(folder, name):
    """A new hidden folder inside `folder` for the drafts of `name` and others; at the end it is removed.

    It is locked while its process lives, so that `clear` can tell the rooms of killed processes from others.

    Raises:
      WriteError: a draft cannot be written; it names the place that the draft was for.
    """
    folder, place = pathlib.Path(folder), None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place, stack = _new_room(folder, name)
        with stack:
            yield place
    except OSError as error:
        file = _meant(error.filename, folder, name, place)
        if error.errno is None or file is None:
            raise
        raise WriteError(error.errno, error.strerror, str(file)) from error


def _meant(file, folder, name, place):
    """The file that a draft will become, from the path in an error; None where the error is about no draft."""
    if place is None or not isinstance(file, str):
        return folder / name
    file = pathlib.Path(file)
    return folder / file.relative_to(place) if file.is_relative_to(place) else None


def _new_room(folder, name):
    """A new room, locked, and the stack that unlocks and removes it."""
    while True:
        place = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):  # another process cleared it before the lock was held
                stack.enter_context(locked(place))
                place.stat()
                return place, stack.pop_all()


def clear(folder, names):
    """Remove the rooms for `names` that killed processes left in a folder; those of living ones stay."""
    for place in pathlib.Path(folder).glob(".*-*"):
        name, _, ending = place.name[1:].rpartition("-")
        if name in names and ENDING.fullmatch(ending) and place.is_dir() and not place.is_symlink():
            # BlockingIOError: its process lives
            with contextlib.suppress(OSError), locked(place, wait=False) as held:
                if held:
                    shutil.rmtree(place, ignore_errors=True)


def put(draft, path):
    """Rename a draft, a file or a folder, into its place."""
    if not draft.exists():
        raise FileNotFoundError(f"nothing was written for {path}")
    if path.is_dir():
        path.rename(draft.parent / f"{draft.name}-replaced")
    draft.replace(path)


@contextlib.contextmanager
def locked(path, *, shared=False, wait=True):
    """Hold a lock on a file or a folder. The system lets go of it when the process ends, however it ends.

    Yields whether the lock is held: Windows and some network file systems have none of the kind.

    Raises:
      BlockingIOError: another process holds it, and wait is False.
    """
    if fcntl is None:
        yield False
        return
    writable = not os.path.isdir(path) and os.access(path, os.W_OK)  # what NFS wants for an exclusive lock
    handle, held = os.open(path, os.O_RDWR if writable else os.O_RDONLY), True
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise
            held = False
        yield held
    finally:
        os.close(handle)


def write_json(path, record):
    """A record as indented JSON; nan is refused, an unknown is None."""
    with written(path) as draft:
        draft.write_text(to_json(record), encoding="utf-8")


def to_json(record):
    """Indented JSON text; an unknown is None.

    Raises:
      ValueError: a number is not finite; the message says where it stands.
    """
    place, value = next(_not_finite(record, ""), (None, None))
    if place is not None:
        raise ValueError(f"{place} is {value}: JSON has finite numbers alone.")
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def _not_finite(record, place):
    """(place, value) of every number in a record that is not finite."""
    if isinstance(record, float) and not math.isfinite(record):
        yield place or "the record", record
    if isinstance(record, dict):
        for name, value in record.items():
            yield from _not_finite(value, f"{place}.{name}" if place else str(name))
    if isinstance(record, list | tuple):
        for i, value in enumerate(record):
            yield from _not_finite(value, f"{place}[{i}]")


def brief(error):
    """The first line of an error, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def check_folder(path):
    """Raise OSError unless a folder can be made, or written into, at `path`."""
    path = pathlib.Path(path).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "cannot be written to" if there.is_dir() else "is a file"
        raise OSError(f"no run folder can be made at {path}: {there} {what}. Choose another with --out.")
