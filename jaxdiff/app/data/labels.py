"""Labels of rows: read, checked, and numbered from 0, with the names of the classes."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxdiff.app.data.archives import read_npy
from jaxdiff.app.data.cells import number
from jaxdiff.app.errors import DataError

MISSING = ("", "na", "n/a", "<na>", "nan", "null", "none", "?")  # labels that stand for a missing one
FILES = (".npy", ".csv", ".tsv", ".txt")


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Classes of the rows of a data set, whole numbers from 0.

    Attributes:
      train, held_out, test: (n,) int32, one for each row of the part.
      names: of the classes: names[label].
    """

    train: Int[np.ndarray, " train"]
    held_out: Int[np.ndarray, " held_out"]
    test: Int[np.ndarray, " test"]
    names: tuple[str, ...]


def split_labels(source: Any, coded: tuple[np.ndarray, tuple[str, ...]] | None, parts: Any) -> Labels | None:
    """Labels of the rows with the numbers `parts` (train, held-out, test); None without labels.

    Raises:
      DataError: a class has no train row.
    """
    if coded is None:
        return None
    values, names = coded
    train, held_out, test = (values[part] for part in parts)
    absent = np.flatnonzero(np.bincount(train, minlength=len(names)) == 0)
    if len(absent):
        raise DataError(
            f"{source}: no row of class {names[absent[0]]!r} is among the {len(train)} train rows: add rows of this "
            f"class, drop the class, or choose another seed."
        )
    return Labels(train, held_out, test, names)


def check_file(path: pathlib.Path) -> None:
    """Raise DataError unless the file exists and has one of the endings of files of labels."""
    if not path.is_file():
        raise DataError(f"{path} does not exist: labels are a column of the table, or a {', '.join(FILES)} file.")
    if path.suffix.lower() not in FILES:
        raise DataError(f"{path} ends in {path.suffix or 'nothing'}: labels are read from {', '.join(FILES)}.")


def read_labels(path: pathlib.Path, n: int) -> Any:
    """The n labels of a file with one a line (.csv, .tsv, .txt), or of a .npy array.

    A text file of n + 1 lines has a header, which is left out.

    Raises:
      DataError: the file is missing, cannot be read, or has another ending.
    """
    check_file(path)
    if path.suffix.lower() == ".npy":
        return read_npy(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip("\r\n").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}): write one label a line.") from error
    return np.array([line.strip().strip('"') for line in lines[len(lines) == n + 1 :]], dtype=str)


def encode(source: Any, labels: Any, n: int) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    """Labels, whole numbers or text, as int32 from 0, and the names of the classes: numbers by size, text sorted.

    Raises:
      DataError: there are not n labels, one is missing or not whole, all are the same, or a class has one row.
    """
    labels = np.asarray(labels)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (n,):
        raise DataError(f"{source} has labels of shape {labels.shape} for {n} rows: give one label for each row.")
    if labels.dtype.kind not in "fiub":
        labels = _of_text(source, labels)
    if labels.dtype.kind == "f":
        labels = _whole(source, labels)
    if labels.dtype.kind == "b":
        labels = labels.astype(np.int64)
    classes, first, values, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise DataError(f"{source}: all {n} labels are {str(classes[0])!r}: leave the labels out, or give two classes.")
    if counts.min() < 2:
        name, row = str(classes[counts.argmin()]), first[counts.argmin()]
        raise DataError(
            f"{source}: class {name!r} has one row, row {row} (from 0): add rows of this class, or drop the row."
        )
    return values.reshape(n).astype(np.int32), tuple(map(str, classes))


def _of_text(source, labels):
    """Text as it is, or as numbers if every label is one."""
    cells = ["" if label is None else str(label).strip() for label in labels]
    missing = [row for row, cell in enumerate(cells) if cell.lower() in MISSING]
    if missing:
        raise DataError(
            f"{source}: {len(missing)} label(s) are missing, first {cells[missing[0]]!r} at row {missing[0]} (from 0): "
            f"fill them or drop these rows."
        )
    numbers = [number(cell) for cell in cells]
    return np.array(cells if None in numbers else numbers)


def _whole(source, labels):
    """Floats that are whole, as whole numbers."""
    missing = np.flatnonzero(~np.isfinite(labels))
    if len(missing):
        raise DataError(
            f"{source}: {len(missing)} label(s) are missing, first {labels[missing[0]]} at row {missing[0]} (from 0): "
            f"fill them or drop these rows."
        )
    odd = np.flatnonzero(labels != np.round(labels))
    if len(odd):
        raise DataError(
            f"{source}: label {labels[odd[0]]:g} at row {odd[0]} (from 0) is not whole: labels are whole numbers or "
            f"text. Round it, or name the column that holds the classes."
        )
    return labels.astype(np.int64)
