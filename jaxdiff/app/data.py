"""Loads data from built-in sets and files: checked, standardised, split into train, held-out and test rows."""

import dataclasses
import functools
import os
import pathlib
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, Real, Shaped

from jaxdiff.app import delimited
from jaxdiff.app.archives import read_npy, read_npz, reshaping
from jaxdiff.app.columns import positions_of
from jaxdiff.app.errors import DataError
from jaxdiff.arrays import Whole

BUILT_IN = ("digits",)
IMAGE_SHAPES = {"digits": (8, 8)}  # of built-in sets whose rows are images
# Standard deviations from the mean. Float32 numbers of this size are 0.06 apart, so in a sum with a larger value the
# other rows would lose most of their digits.
FURTHEST = 1e6
FRACTIONS = (2 / 3, 1 / 6, 1 / 6)  # of train, held-out and test rows
LEAST_ROWS = 24  # rows of a data set; a sixth of them are four held-out rows, another sixth four test rows
ENDINGS = ".npy, .npz, .csv or .tsv"


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file was read. `load` with this header, columns and key reads the same rows again.

    Attributes:
      header: whether the first line of a text file gave names; None for other files.
      columns: the positions, from 0, of the columns that were read; None for all columns of an array.
      key: the name of the array that was chosen in an .npz archive; None for other files.
      names: the names of the columns that were read; None if the file has none.
      notes: sentences about everything that was assumed.
    """

    header: bool | None = None
    columns: tuple[int, ...] | None = None
    key: str | None = None
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


UNREAD = Reading()


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Standardised rows, split; `restore` maps back to the file's units.

    Attributes:
      name: built-in name or the file's stem.
      train, held_out, test: (n, d) float32; on the train rows every column has zero mean and unit variance.
      mean, scale: (d,) of the train rows; scale is 1 where a column is constant.
      constant: how many columns are constant on the train rows.
      reading: how the file was read; the default for rows that come from no file.
      whole: (d,) of bool: the columns that vary and hold only whole numbers in the file; None if unknown.
    """

    name: str
    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    constant: int
    reading: Reading = UNREAD
    whole: np.ndarray | None = None

    @property
    def dim(self) -> int:
        """The number of columns."""
        return self.train.shape[1]

    def second_moment(self, part: str) -> float:
        """E|X_0|^2 over the rows of "train", "held_out" or "test"."""
        return float(np.sum(np.square(getattr(self, part), dtype=np.float64)) / len(getattr(self, part)))

    @functools.cached_property
    def _constant_columns(self):
        """(d,) of bool: the columns that are constant on the train rows, which `split` sets to exactly 0 there."""
        return ~self.train.any(axis=0)

    def restore(self, x: Any, *, rounded: bool = False) -> Float[np.ndarray, "*rows d"]:
        """Standardised rows (..., d) in the units of the file.

        A column that is constant on the train rows gets exactly its constant, whatever x holds there, because a sampler
        leaves the noise of the early stop in it. A held-out or test row with another value there gets the constant too.

        Args:
          x: standardised rows.
          rounded: round the columns that hold only whole numbers in the file.
        """
        rows = np.where(self._constant_columns, self.mean, np.asarray(x) * self.scale + self.mean)
        if rounded and self.whole is not None:
            rows[..., self.whole] = np.round(rows[..., self.whole]) + 0.0  # no -0
        return rows


def load(
    source: str | os.PathLike, *, seed: Whole = 0, header: Any = None, columns: Any = None, key: str | None = None
) -> Dataset:
    """A built-in name, or a path to a file whose rows are samples -> Dataset.

    Files are .npy, .npz, and text with commas, semicolons or tabs: .csv, .tsv. The reader decides whether a text file
    has a header (`headers.header_of`) and an index column (`columns.index_columns`). Each assumption is a UserWarning
    and a note in `Dataset.reading`.

    Args:
      source: the name or the path.
      seed: of the split.
      header: whether the first line of a text file names the columns; None lets the reader decide.
      columns: the columns to read: positions from 0, or names in a text file; None for all but an index column.
      key: the array of an .npz archive that holds the rows; None if there is only one.

    Raises:
      DataError: the file is missing, empty, not two-dimensional, not numeric or not finite; no column varies; or the
        file can be read in two ways.
    """
    if source in BUILT_IN:
        _refuse_options(source, header=header, columns=columns, key=key)
        rows, reading, name = _built_in(source), UNREAD, str(source)
    else:
        rows, reading = _read(pathlib.Path(source), header, columns, key)
        name = pathlib.Path(source).stem
    for note in reading.notes:
        warnings.warn(f"{source}: {note}", stacklevel=2)
    return split(_check(rows, source, reading), name=name, seed=seed, reading=reading)


def split(rows: Shaped[np.ndarray, "n d"], *, name: str, seed: Whole = 0, reading: Reading = UNREAD) -> Dataset:
    """Checked rows (n, d) -> Dataset: shuffled by the seed; two thirds train, a sixth held out, a sixth test."""
    rows, whole = rows[np.random.default_rng(seed).permutation(len(rows))], (rows == np.round(rows)).all(axis=0)
    first, second = np.round(np.cumsum(FRACTIONS)[:2] * len(rows)).astype(int)
    train = rows[:first]
    with np.errstate(over="ignore", invalid="ignore"):  # values near 1e308 raise an error below
        furthest = np.abs(train - train[0]).max(0)
        constant = furthest <= 4 * np.spacing(np.abs(train[0]))  # equal up to rounding
        if constant.all():
            raise DataError(
                f"{name}: no column varies over the {len(train)} train rows: shuffle or check the file's columns."
            )
        unit = np.where(constant, 1.0, furthest)  # scales the train rows to +-1, so that no square over- or underflows
        small = (rows - train[0]) / unit
        small[:first, constant] = 0.0  # instead of rounding errors; `restore` recognises the column by it
        mean, deviation = small[:first].mean(0), np.where(constant, 1.0, small[:first].std(0))
        standardised = (small - mean) / deviation
    beyond = np.argwhere(~(np.abs(standardised) <= FURTHEST))
    if len(beyond):
        row, column = beyond[0]
        raise DataError(
            f"{name}: {rows[row, column]:g} in column {_place(column, reading)} (from 0) lies more than {FURTHEST:g} "
            f"standard deviations of the train rows from their mean: drop it, or rescale the column."
        )
    train_part, held_out, test = np.split(standardised.astype(np.float32), [first, second])
    parts = {"train": train_part, "held_out": held_out, "test": test}
    units = {"mean": train[0] + unit * mean, "scale": unit * deviation}
    return Dataset(name, **parts, **units, constant=int(constant.sum()), reading=reading, whole=whole & ~constant)


def covariance(rows: Real[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"]:
    """Covariance of rows (n, d), shrunk towards its diagonal; of full rank on the columns that vary.

    Entries off the diagonal are multiplied by 1 - sum Var(s_ij)/sum s_ij^2 (sums over i != j), or 0 if that is
    negative: by 0.95 for the digits, and by much less where n < d.
    Source: Schaefer, Strimmer 2005, Stat. Appl. Genet. Mol. Biol. 4, article 32, target D.
    """
    centred = np.asarray(rows, np.float64) - np.mean(rows, axis=0, dtype=np.float64)
    n, off = len(centred), ~np.eye(centred.shape[1], dtype=bool)
    second = centred.T @ centred / n
    noise = ((centred**2).T @ centred**2 / n - second**2) / (n - 1)
    size = np.sum(second[off] ** 2)
    shrinkage = min(1.0, np.sum(noise[off]) / size) if size > 0 else 0.0
    return np.where(off, (1 - shrinkage) * second, second) * n / (n - 1)


def _built_in(source):
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(f"{source} ships inside scikit-learn: pip install 'jaxdiff[data]'.") from error
    return np.asarray(load_digits(return_X_y=True)[0])


def _read(path, header, columns, key):
    """The array of a file and how it was read."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}: give a {ENDINGS} file of rows, or the name {', '.join(BUILT_IN)}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes): write the samples into it as rows.")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        _refuse_options(path, key=key)
        table = delimited.read(path, header=header, columns=columns)
        return table.rows, Reading(table.header, table.columns, None, table.names, table.notes)
    _refuse_options(path, header=header)
    if suffix == ".npy":
        _refuse_options(path, key=key)
        rows = read_npy(path)
    elif suffix == ".npz":
        rows = read_npz(path, key)
    else:
        raise DataError(f"{path} ends in {path.suffix or 'nothing'}: rows are read from {ENDINGS}.")
    if columns is not None and rows.ndim == 2:
        columns = tuple(positions_of(path, columns, None, rows.shape[1]))
        rows = rows[:, list(columns)]
    return rows, Reading(None, columns, key)


def _refuse_options(source, **options):
    """Raise DataError for options that only apply to another kind of file."""
    for option, value in options.items():
        if value is not None:
            raise DataError(f"{source} is read without {option}, but {option} = {value!r} was given: leave it out.")


def _place(column, reading):
    """The position in the file of a column that was read."""
    return column if reading.columns is None else reading.columns[column]


def _check(rows, source, reading):
    if rows.dtype.kind not in "fiub":
        raise DataError(f"{source} holds {rows.dtype} values, not real numbers: encode them as numbers first.")
    if rows.ndim != 2:
        shape = f"{rows.ndim} dimension(s), shape {rows.shape}"
        raise DataError(f"{source} has {shape}: rows must be samples, (n, d){reshaping(rows)}.")
    if rows.shape[1] == 0 or rows.shape[0] == 0:
        raise DataError(f"{source} has shape {rows.shape}, no values: write the samples into it as rows.")
    if rows.shape[0] < LEAST_ROWS:
        raise DataError(
            f"{source} has {rows.shape[0]} rows: add some. Training, planning and testing use different rows, and need "
            f"at least {LEAST_ROWS} in all."
        )
    rows = rows.astype(np.float64)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{source}: {len(bad)} value(s) are not finite, first {rows[row, column]} at row {row}, column "
            f"{_place(column, reading)} (from 0): fill or drop them."
        )
    if (rows == rows[0]).all():
        raise DataError(f"{source}: no column varies, all {len(rows)} rows are the same: give rows that differ.")
    return rows
