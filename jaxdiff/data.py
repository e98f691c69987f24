"""Data in: built-in sets and files, checked, standardised, split once into train, held-out and test rows."""

import dataclasses
import pathlib

import numpy as np

from jaxdiff.files import UNREADABLE, brief

BUILT_IN = ("digits",)
IMAGE_SHAPES = {"digits": (8, 8)}
FURTHEST = 1e6  # standard deviations; float32 keeps nothing of the other rows beyond
SHARES = (2 / 3, 1 / 6, 1 / 6)


class DataError(ValueError):
    """The data cannot be used; the message names what came and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Standardised rows, split; `restore` maps back to the file's units.

    Attributes:
      name: built-in name or the file's stem.
      train, held_out, test: (n, d) float32, zero mean and unit variance a column on the train rows.
      mean, scale: (d,) of the train rows; scale is 1 where a column is constant.
      constant: how many columns are constant on the train rows.
    """

    name: str
    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    constant: int

    @property
    def dim(self):
        """Columns."""
        return self.train.shape[1]

    def second_moment(self, part):
        """E|X_0|^2 over the rows of "train", "held_out" or "test"."""
        return float(np.sum(np.square(getattr(self, part), dtype=np.float64)) / len(getattr(self, part)))

    def restore(self, x):
        """Standardised rows in the units of the file."""
        return np.asarray(x) * self.scale + self.mean


def load(source, *, seed=0):
    """A built-in name, or a path to .npy, .npz or .csv whose rows are samples -> Dataset.

    Raises:
      DataError: the file is missing, empty, not two-dimensional, not numeric, not finite, or no column varies.
    """
    rows, name = (_built_in(source), source) if source in BUILT_IN else (_read(pathlib.Path(source)), _stem(source))
    return split(_check(rows, source), name=name, seed=seed)


def split(rows, *, name, seed=0):
    """Checked rows (n, d) -> Dataset: shuffled by the seed, two thirds train, a sixth held out, a sixth test."""
    rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    first, second = np.round(np.cumsum(SHARES)[:2] * len(rows)).astype(int)
    train = rows[:first]
    with np.errstate(over="ignore", invalid="ignore"):  # values near 1e308; refused below
        reach = np.abs(train - train[0]).max(0)
        constant = reach <= 4 * np.spacing(np.abs(train[0]))
        if constant.all():
            raise DataError(
                f"{name}: no column varies over the {len(train)} train rows: shuffle or check the file's columns."
            )
        unit = np.where(constant, 1.0, reach)  # first to +-1, so that no square over- or underflows
        small = (rows - train[0]) / unit
        mean, deviation = small[:first].mean(0), np.where(constant, 1.0, small[:first].std(0))
        standardised = (small - mean) / deviation
    beyond = np.argwhere(~(np.abs(standardised) <= FURTHEST))
    if len(beyond):
        row, column = beyond[0]
        raise DataError(
            f"{name}: {rows[row, column]:g} in column {column} (from 0) lies more than {FURTHEST:g} standard "
            f"deviations of the train rows from their mean: drop it, or rescale the column."
        )
    train_part, held_out, test = np.split(standardised.astype(np.float32), [first, second])
    parts = {"train": train_part, "held_out": held_out, "test": test}
    return Dataset(name, **parts, mean=train[0] + unit * mean, scale=unit * deviation, constant=int(constant.sum()))


def covariance(rows):
    """Covariance of rows (n, d), off the diagonal shrunk towards 0 by its own noise; of full rank on varying columns.

    The share taken is sum Var(s_ij)/sum s_ij^2 over i != j, at most 1: a twentieth for the digits, most where n < d.
    Source: Schaefer, Strimmer 2005, Stat. Appl. Genet. Mol. Biol. 4, article 32, target D.
    """
    centred = np.asarray(rows, np.float64) - np.mean(rows, axis=0, dtype=np.float64)
    n, off = len(centred), ~np.eye(centred.shape[1], dtype=bool)
    second = centred.T @ centred / n
    noise = ((centred**2).T @ centred**2 / n - second**2) / (n - 1)
    size = np.sum(second[off] ** 2)
    share = min(1.0, np.sum(noise[off]) / size) if size > 0 else 0.0
    return np.where(off, (1 - share) * second, second) * n / (n - 1)


def _stem(source):
    return pathlib.Path(source).stem


def _built_in(source):
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(f"{source} ships inside scikit-learn: pip install 'jaxdiff[data]'.") from error
    return np.asarray(load_digits(return_X_y=True)[0])


def _read(path):
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}: give a .npy, .npz or .csv file of rows, or the name {', '.join(BUILT_IN)}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes): write the samples into it as rows.")
    readers = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path} ends in {path.suffix or 'nothing'}: rows are read from .npy, .npz or .csv.")
    return readers[path.suffix.lower()](path)


def _read_npy(path):
    with path.open("rb") as stream:
        try:
            return np.lib.format.read_array(stream, allow_pickle=False)
        except UNREADABLE as error:
            raise DataError(f"{path} is no plain .npy array ({brief(error)}): save it with np.save.") from error


def _read_npz(path):
    with path.open("rb") as stream:
        try:
            arrays = np.load(stream, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("it is one .npy array")
            names = arrays.files
            rows = arrays[names[0]] if len(names) == 1 else None
        except UNREADABLE as error:
            raise DataError(f"{path} is no .npz archive of numbers ({brief(error)}): save it with np.savez.") from error
    if rows is None:
        raise DataError(f"{path} holds {len(names)} arrays {names}: save one array of rows in it.")
    return rows


def _read_csv(path):
    import csv

    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [[cell.strip() for cell in line] for line in csv.reader(stream)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no UTF-8 text with commas ({error}): export it as CSV.") from error
    lines = [line for line in lines if any(line)]
    body = lines[1:] if lines and not any(_is_number(cell) for cell in lines[0]) else lines
    width = len(lines[0]) if lines else 0
    for number, line in enumerate(body, start=len(lines) - len(body) + 1):
        if len(line) != width:
            raise DataError(f"{path}: row {number} has {len(line)} cells, the first has {width}: make the rows equal.")
        for column, cell in enumerate(line, start=1):
            if not _is_number(cell):
                remedy = "separate columns by commas" if set(cell) & set(";\t") else "encode or drop it"
                raise DataError(f"{path}: row {number}, column {column} is {cell!r}, not a number: {remedy}.")
    return np.array(body, np.float64).reshape(len(body), width)


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _check(rows, source):
    if rows.dtype.kind not in "fiub":
        raise DataError(f"{source} holds {rows.dtype} values, not real numbers: encode them as numbers first.")
    if rows.ndim != 2:
        raise DataError(f"{source} has {rows.ndim} dimension(s), shape {rows.shape}: rows must be samples, (n, d).")
    if rows.shape[1] == 0 or rows.shape[0] == 0:
        raise DataError(f"{source} has shape {rows.shape}, no values: write the samples into it as rows.")
    if rows.shape[0] < 24:
        raise DataError(f"{source} has {rows.shape[0]} rows: at least 24 are needed to train, plan and test on apart.")
    rows = rows.astype(np.float64)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{source}: {len(bad)} value(s) are not finite, first {rows[row, column]} at row {row}, column {column} "
            f"(from 0): fill or drop them."
        )
    if (rows == rows[0]).all():
        raise DataError(f"{source}: no column varies, all {len(rows)} rows are the same: there is nothing to learn.")
    return rows
