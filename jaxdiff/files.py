"""Files that are whole or absent: everything is written beside its place and renamed into it."""

import contextlib
import json
import os
import pathlib
import tempfile
import tokenize
import zipfile
import zlib

# What NumPy's readers raise at damaged bytes, found by flipping and cutting them; not OSError, which speaks for itself.
UNREADABLE = (ValueError, EOFError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)


@contextlib.contextmanager
def written(path):
    """A fresh path beside `path` (a file or a folder) to write to; on success it takes the place of `path`."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as room:
        draft = pathlib.Path(room) / path.name
        yield draft
        if not draft.exists():
            raise FileNotFoundError(f"nothing was written for {path}")
        if path.is_dir():
            path.rename(pathlib.Path(room) / f"{path.name}-replaced")
        draft.replace(path)


def write_json(path, record):
    """A record as indented JSON; nan is refused, an unknown is None."""
    with written(path) as draft:
        draft.write_text(to_json(record), encoding="utf-8")


def to_json(record):
    """Indented JSON text; nan is refused, an unknown is None."""
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


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
