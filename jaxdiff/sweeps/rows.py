"""The finished rows of a sweep, and the file that they are written to."""

import contextlib
import json
import pathlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxdiff.files import WriteError, locked
from jaxdiff.sweeps.settings import GIVEN, name_of


@contextlib.contextmanager
def lock_of(path):
    """Hold a lock on a sweep's file while the sweep runs. Where several processes run it, the first one locks it.

    Raises:
      ValueError: another sweep holds the lock.
    """
    with contextlib.ExitStack() as stack:
        if path is not None and jax.process_index() == 0:
            path = pathlib.Path(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.touch()
            try:
                stack.enter_context(locked(path, wait=False))
            except BlockingIOError:
                raise ValueError(
                    f"another sweep is writing to {path}: wait until it ends, or use another file for each sweep."
                ) from None
        yield


class Rows:
    """The rows of a sweep by cell; they are also written to a file if there is one.

    Args:
      path: the file, which may hold rows already; or None.
      names: the columns that identify a row.
      wanted: the arguments of the function; a result cannot have one of these names.
    """

    def __init__(self, path, names, wanted):
        """Read the rows of the file, and remove a last line that was not written to its end."""
        self.path = None if path is None else pathlib.Path(path)
        self.rows = {}
        if self.path is None:
            return
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        for row in map(json.loads, whole.splitlines()):
            if list(row)[: len(names)] != names or {*wanted, *GIVEN} & set(list(row)[len(names) :]):
                raise ValueError(
                    f"{self.path} holds another sweep, with the columns {', '.join(list(row))}: use another "
                    f"file for each sweep."
                )
            self.rows[json.dumps([[name, row[name]] for name in names])] = row
        if whole != text and jax.process_index() == 0:
            self.path.write_text(whole, encoding="utf-8")

    def lacking(self, cells):
        """The cells without a row; they are the same in every process."""
        there = np.array([name_of(cell) in self.rows for cell in cells])
        if self.path is not None and jax.process_count() > 1:
            counts = multihost_utils.process_allgather(np.array([len(there), there.sum()]))
            if (counts != counts[0]).any():
                raise ValueError(
                    f"processes read different rows from {self.path}: put the file where all of them can read it."
                )
        return [cell for cell, one in zip(cells, there, strict=True) if not one]

    def add(self, cells, results):
        """Add the rows of some cells, and write them to the file."""
        rows = []
        for cell, result in zip(cells, results, strict=True):
            if repeated := set(cell) & set(result):
                raise ValueError(
                    f"the function returns {', '.join(sorted(repeated))}, the name of a column: rename the result."
                )
            rows.append({name: choice.label for name, choice in cell.items()} | result)
            self.rows[name_of(cell)] = rows[-1]
        if self.path is not None and jax.process_index() == 0:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("".join(json.dumps(row) + "\n" for row in rows))
            except OSError as error:
                raise WriteError(error.errno, error.strerror, str(self.path)) from error

    def finish(self):
        """Wait in every process until the file is complete, because the next sweep may read it in any of them."""
        if self.path is not None and jax.process_count() > 1:
            multihost_utils.sync_global_devices("sweep written")

    def of(self, cell):
        """The row of a cell."""
        return self.rows[name_of(cell)]
