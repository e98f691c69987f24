"""Files that are whole or absent: everything is written beside its place and renamed into it."""

import contextlib
import json
import pathlib
import tempfile


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
        draft.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
