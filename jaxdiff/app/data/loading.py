"""Loads a data set: a built-in one, a file, a folder of images, or an array."""

import os
import pathlib
import warnings
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.app.data import delimited, parquet
from jaxdiff.app.data.archives import open_npy, read_npz, reshaping
from jaxdiff.app.data.built_in import LOADERS, built_in
from jaxdiff.app.data.columns import positions_of
from jaxdiff.app.data.dataset import LEAST_ROWS, UNREAD, Dataset, Reading, place, split
from jaxdiff.app.data.images import read_folder
from jaxdiff.app.data.labels import FILES, check_file, encode, read_labels
from jaxdiff.app.data.lazy import split_images, split_table
from jaxdiff.app.errors import DataError
from jaxdiff.arrays import Whole

BUILT_IN = tuple(LOADERS)
ENDINGS = ".npy, .npz, .csv, .tsv or .parquet"


class _Read(NamedTuple):
    """The contents of a source: rows or images, their labels, notes of the reader, and names of numbered classes."""

    rows: np.ndarray
    labels: Any = None
    reading: Reading = UNREAD
    classes: tuple[str, ...] | None = None


def load(
    source: str | os.PathLike | np.ndarray,
    *,
    seed: Whole = 0,
    header: Any = None,
    columns: Any = None,
    key: str | None = None,
    labels: Any = None,
) -> Dataset:
    """A built-in name, an array, a folder of images, or a path to a file whose rows are samples -> Dataset.

    Files are .npy, .npz, .parquet, and text with commas, semicolons or tabs: .csv, .tsv. Arrays of three or four
    dimensions, (n, H, W) or (n, H, W, C), are images; so are the PNG and JPEG files of a folder, whose subfolders are
    classes. A .npy file of 64 MiB or more is memory-mapped, and its train rows stay in the file. The reader decides
    whether a text file has a header (`headers.header_of`) and an index column (`columns.index_columns`). Each
    assumption is a UserWarning and a note in `Dataset.reading`.

    Args:
      source: the name, the array or the path.
      seed: of the split.
      header: whether the first line of a text file names the columns; None lets the reader decide.
      columns: the columns to read: positions from 0, or names in a text file; None for all but an index column.
      key: the array of an .npz archive that holds the rows; None if there is only one.
      labels: classes of the rows, whole numbers or text: the name or position of a column of a table, the name of an
        array in an .npz archive, a .npy, .csv, .tsv or .txt file with one label a row, or an array. Built-in sets and
        subfolders have labels of their own.

    Raises:
      DataError: the file is missing, empty, not numeric or not finite; no column varies; the labels do not fit the
        rows; or the file can be read in two ways.
    """
    if isinstance(labels, (str, os.PathLike)) and not _is_column(labels):
        check_file(pathlib.Path(labels))  # before a table is read, which may fail for lack of its labels
    if isinstance(source, str) and source in BUILT_IN:
        _refuse_options(source, header=header, columns=columns, key=key, labels=labels)
        known = built_in(source)
        reading = UNREAD if known.columns is None else Reading(names=known.columns)
        read, name = _Read(known.rows, known.labels, reading, known.classes), source
    elif isinstance(source, (str, os.PathLike)):
        path = pathlib.Path(source)
        read, name = _read(path, header, columns, key, labels), path.stem
    else:
        _refuse_options("an array", header=header, columns=columns, key=key)
        read, name, source = _Read(np.asarray(source), _of_option(labels, len(source))), "array", "the array"
    for note in read.reading.notes:
        warnings.warn(f"{source}: {note}", stacklevel=2)
    return _split(read, source, name, seed)


def _split(read, source, name, seed):
    """Make a Dataset of the rows: check them, number their labels, split and scale them."""
    rows, reading = read.rows, read.reading
    _check_shape(rows, source)
    coded = None
    if read.labels is not None:
        values, names = encode(source, read.labels, len(rows))
        coded = values, names if read.classes is None else read.classes
    if rows.ndim > 2:
        return split_images(rows, source=source, name=name, seed=seed, reading=reading, labels=coded)
    if isinstance(rows, np.memmap):
        return split_table(rows, source=source, name=name, seed=seed, reading=reading, labels=coded)
    return split(_check_rows(rows, source, reading), name=name, seed=seed, reading=reading, labels=coded)


def _read(path, header, columns, key, labels):
    """The rows or images of a file or folder, their labels, and how they were read."""
    if path.is_dir():
        _refuse_options(path, header=header, columns=columns, key=key)
        images, classes, notes = read_folder(path)
        if classes is not None:
            _refuse_options(f"{path} with classes as subfolders", labels=labels)
        return _Read(images, classes or _of_option(labels, len(images)), Reading(notes=notes))
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: give a {ENDINGS} file of rows, a folder of images, or the name "
            f"{', '.join(BUILT_IN)}."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes): write the samples into it as rows.")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".parquet"):
        return _read_table(path, suffix, header, columns, key, labels)
    _refuse_options(path, header=header)
    if suffix == ".npy":
        _refuse_options(path, key=key)
        rows = open_npy(path)
    elif suffix == ".npz":
        rows, labels = _read_npz(path, key, labels)
    else:
        raise DataError(f"{path} ends in {path.suffix or 'nothing'}: rows are read from {ENDINGS}.")
    return _columns_of(path, rows, columns, key, labels)


def _read_table(path, suffix, header, columns, key, labels):
    """A table whose labels are a column of it or a file."""
    _refuse_options(path, key=key)
    column = labels if _is_column(labels) else None
    if suffix == ".parquet":
        _refuse_options(path, header=header)
        table = parquet.read(path, columns=columns, labels=column)
    else:
        table = delimited.read(path, header=header, columns=columns, labels=column)
    raw = table.labels if column is not None else _of_option(labels, len(table.rows))
    return _Read(table.rows, raw, Reading(table.header, table.columns, None, table.names, table.notes))


def _read_npz(path, key, labels):
    """The rows of an archive, and its array that `labels` names."""
    if isinstance(labels, str):
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name != labels]
        if len(names) + 1 == len(arrays.files):
            return read_npz(path, names[0] if key is None and len(names) == 1 else key), read_npz(path, labels)
    return read_npz(path, key), labels


def _columns_of(path, rows, columns, key, labels):
    """The chosen columns of an array; labels may be one of its columns, given by position."""
    if rows.ndim == 2 and _is_column(labels) and not isinstance(labels, np.ndarray):
        label = positions_of(path, [labels], None, rows.shape[1])[0]
        columns = [i for i in range(rows.shape[1]) if i != label] if columns is None else columns
        labels = np.asarray(rows[:, label])
    else:
        labels = _of_option(labels, len(rows) if rows.ndim else 0)
    positions: Any = columns
    if columns is not None and rows.ndim == 2:
        positions = tuple(positions_of(path, columns, None, rows.shape[1]))
        if isinstance(rows, np.memmap):
            raise DataError(
                f"{path} has {path.stat().st_size} bytes and is not read into memory as a whole, so columns cannot be "
                f"chosen: save the columns that you want, and the labels, in files of their own."
            )
        rows = rows[:, list(positions)]
    return _Read(rows, labels, Reading(None, positions, key))


def _is_column(labels):
    """Whether the option names a column: a whole number, or a text that is no file and has no file's ending."""
    if isinstance(labels, str):
        return not pathlib.Path(labels).is_file() and pathlib.Path(labels).suffix.lower() not in FILES
    return isinstance(labels, (int, np.integer))


def _of_option(labels, n):
    """The labels of an option that is a file or an array."""
    if isinstance(labels, (str, os.PathLike)):
        return read_labels(pathlib.Path(labels), n)
    return labels


def _refuse_options(source, **options):
    """Raise DataError for options that only apply to another kind of file."""
    for option, value in options.items():
        if value is not None:
            raise DataError(f"{source} is read without {option}, but {option} = {value!r} was given: leave it out.")


def _check_shape(rows, source):
    """Raise DataError unless these are enough rows or images of real numbers."""
    if rows.dtype.kind not in "fiub":
        raise DataError(f"{source} holds {rows.dtype} values, not real numbers: encode them as numbers first.")
    if rows.ndim not in (2, 3, 4):
        shape = f"{rows.ndim} dimension(s), shape {rows.shape}"
        raise DataError(
            f"{source} has {shape}: rows must be samples, (n, d), or images, (n, H, W) or (n, H, W, C)"
            f"{reshaping(rows)}."
        )
    if 0 in rows.shape:
        raise DataError(f"{source} has shape {rows.shape}, no values: write the samples into it as rows.")
    if rows.shape[0] < LEAST_ROWS:
        raise DataError(
            f"{source} has {rows.shape[0]} rows: add some. Training, planning and testing use different rows, and need "
            f"at least {LEAST_ROWS} in all."
        )


def _check_rows(rows, source, reading):
    """The rows of a table as float64. Raises DataError if a value is not finite, or no column varies."""
    rows = rows.astype(np.float64)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{source}: {len(bad)} value(s) are not finite, first {rows[row, column]} at row {row}, column "
            f"{place(column, reading)} (from 0): fill or drop them."
        )
    if (rows == rows[0]).all():
        raise DataError(f"{source}: no column varies, all {len(rows)} rows are the same: give rows that differ.")
    return rows
