"""Files that are complete or absent: each is written as a draft beside its final place and renamed when it is done."""

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


# Errors of NumPy's readers for damaged files, found by flipping and cutting bytes. OSError is not among them: its
# message says what is wrong.
UNREADABLE = (ValueError, EOFError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)
ENDING = re.compile("[a-z0-9_]{8}")  # random part of a name that tempfile makes


class WriteError(OSError):
    """A file cannot be written. Made from errno, the system's message and the file."""

    def __str__(self):
        """The file and the system's message in one sentence."""
        return f"{self.filename} cannot be written: {self.strerror}."


@contextlib.contextmanager
def written(path):
    """Yields a new path to write a file or folder to; if the block succeeds, this draft replaces `path`.

    Raises:
      WriteError: the disk is full, or the folder cannot be written to.
    """
    path = pathlib.Path(path)
    with draft_folder(path.parent, path.name) as place:
        draft = place / path.name
        yield draft
        put(draft, path)


@contextlib.contextmanager
def draft_folder(folder, name):
    """A new hidden folder inside `folder`, for the drafts of `name` and other files; it is removed at the end.

    It is locked as long as its process lives, so that `clear` removes only draft folders of processes that ended.

    Raises:
      WriteError: a draft cannot be written; the error names the final path of the draft.
    """
    folder, place = pathlib.Path(folder), None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place, stack = _new_draft_folder(folder, name)
        with stack:
            yield place
    except OSError as error:
        file = _final_path(error.filename, folder, name, place)
        if error.errno is None or file is None:
            raise
        raise WriteError(error.errno, error.strerror, str(file)) from error


def _final_path(file, folder, name, place):
    """The final path of the draft that an error is about; None if it is about another file."""
    if place is None or not isinstance(file, str):
        return folder / name
    file = pathlib.Path(file)
    return folder / file.relative_to(place) if file.is_relative_to(place) else None


def _new_draft_folder(folder, name):
    """A new draft folder, locked, and the stack that unlocks and removes it."""
    while True:
        place = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):  # another process cleared it before the lock was held
                stack.enter_context(locked(place))
                place.stat()
                return place, stack.pop_all()


def clear(folder, names):
    """Remove the draft folders of `names` that killed processes left in a folder."""
    for place in pathlib.Path(folder).glob(".*-*"):
        name, _, ending = place.name[1:].rpartition("-")
        if name in names and ENDING.fullmatch(ending) and place.is_dir() and not place.is_symlink():
            # A draft folder of a living process is locked and raises BlockingIOError, which is an OSError.
            with contextlib.suppress(OSError), locked(place, wait=False) as held:
                if held:
                    shutil.rmtree(place, ignore_errors=True)


def put(draft, path):
    """Rename a draft, a file or a folder, into its place."""
    if not draft.exists():
        raise FileNotFoundError(f"nothing was written for {path}: write to the draft's path")
    if path.is_dir():
        path.rename(draft.parent / f"{draft.name}-replaced")
    draft.replace(path)


@contextlib.contextmanager
def locked(path, *, shared=False, wait=True):
    """Hold a lock on a file or a folder. The system releases it when the process ends, even by being killed.

    Yields whether the lock is held; Windows and some network file systems have no such locks.

    Raises:
      BlockingIOError: another process holds the lock, and wait is False.
    """
    if fcntl is None:
        yield False
        return
    writable = not os.path.isdir(path) and os.access(path, os.W_OK)  # NFS needs it for an exclusive lock
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
    """Write a record as indented JSON, as `to_json` makes it."""
    with written(path) as draft:
        draft.write_text(to_json(record), encoding="utf-8")


def to_json(record):
    """A record as indented JSON text. Unknown numbers must be None.

    Raises:
      ValueError: a number is not finite; the message names its place in the record.
    """
    place, value = next(_not_finite(record, ""), (None, None))
    if place is not None:
        raise ValueError(f"{place} is {value}: JSON has finite numbers alone. Write None for an unknown number.")
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
    """The first line of an error's message, or the name of its class if there is no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def check_folder(path):
    """Raise OSError unless `path` is a folder that can be written into, or one can be made there."""
    path = pathlib.Path(path).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "cannot be written to" if there.is_dir() else "is a file"
        raise OSError(f"no run folder can be made at {path}: {there} {what}. Choose another with --out.")
