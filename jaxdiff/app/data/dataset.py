"""A data set in memory or in a file: standardised, and split into train, held-out and test rows."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Real, Shaped

from jaxdiff.app.data.labels import Labels, split_labels
from jaxdiff.app.data.scales import PixelScale
from jaxdiff.app.data.scans import moments
from jaxdiff.app.data.views import View
from jaxdiff.app.errors import DataError
from jaxdiff.arrays import Whole

IMAGE_SHAPES = {"digits": (8, 8)}  # of built-in sets whose rows are images
# Standard deviations from the mean. Float32 numbers of this size are 0.06 apart, so in a sum with a larger value the
# other rows would lose most of their digits.
FURTHEST = 1e6
FRACTIONS = (2 / 3, 1 / 6, 1 / 6)  # of train, held-out and test rows
LEAST_ROWS = 24  # rows of a data set; a sixth of them are four held-out rows, another sixth four test rows


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
      train, held_out, test: float32 rows (n, d), scaled such that each column of the train rows has mean 0 and variance
        1; or float32 images (n, H, W, C) in [-1, 1]. The train rows of images and of large tables are a `View`.
      mean, scale: (d,) of the train rows; scale is 1 where a column is constant. Of images, the middle and half of the
        width of their range: numbers.
      constant: how many columns are constant on the train rows.
      reading: how the file was read; the default for rows that come from no file.
      whole: (d,) of bool: the columns that vary and hold only whole numbers in the file; None if unknown.
      labels: the classes of the rows; None without labels.
      pixels: how images were scaled; None for tables.
    """

    name: str
    train: Any
    held_out: np.ndarray
    test: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    constant: int
    reading: Reading = UNREAD
    whole: np.ndarray | None = None
    labels: Labels | None = None
    pixels: PixelScale | None = None

    @property
    def dim(self) -> int:
        """The number of columns, or of values of an image."""
        return math.prod(self.event_shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one row: (d,), or (H, W, C) of images."""
        return tuple(self.train.shape[1:])

    def moments(self) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
        """Mean and covariance of the train rows, flattened; the covariance of rows in memory is that of `covariance`.

        Those of a view of more than 2^26 values are computed in one pass, and the covariance is not shrunk.
        """
        if isinstance(self.train, View) and len(self.train) * self.dim > 2**26:
            return moments(self.train)
        rows = np.asarray(self.train).reshape(len(self.train), -1)
        return rows.mean(0), covariance(rows)

    def in_rows(self, most: Whole) -> "Dataset":
        """This data set in memory, as rows (n, d): images are flattened, and at most `most` train rows are kept.

        The train rows that are kept lie evenly apart. Samples in rows must be reshaped to images before `restore`.
        """
        kept = np.unique(np.linspace(0, len(self.train) - 1, min(int(most), len(self.train))).astype(np.int64))
        flat = lambda rows: np.asarray(rows).reshape(len(rows), -1)
        labels = self.labels
        if labels is not None:
            labels = dataclasses.replace(labels, train=labels.train[kept])
        parts = {"train": flat(self.train[kept]), "held_out": flat(self.held_out), "test": flat(self.test)}
        return dataclasses.replace(self, **parts, labels=labels)

    def second_moment(self, part: str) -> float:
        """E|X_0|^2 over the rows of "train", "held_out" or "test"."""
        return float(np.sum(np.square(getattr(self, part), dtype=np.float64)) / len(getattr(self, part)))

    @functools.cached_property
    def _constant_columns(self):
        """(d,) of bool: the columns that are constant on the train rows, which `split` sets to exactly 0 there."""
        if isinstance(self.train, View):
            return self.train.scale.constant
        return ~self.train.any(axis=0)

    def restore(self, x: Any, *, rounded: bool = False) -> Real[np.ndarray, "..."]:
        """Standardised rows (..., d), or images (..., H, W, C), in the units of the file; images in its dtype too.

        A column that is constant on the train rows gets exactly its constant, whatever x holds there, because a sampler
        leaves the noise of the early stop in it. A held-out or test row with another value there gets the constant too.

        Args:
          x: standardised rows.
          rounded: round the columns that hold only whole numbers in the file.
        """
        if self.pixels is not None:
            return self.pixels.undo(x)
        rows = np.where(self._constant_columns, self.mean, np.asarray(x) * self.scale + self.mean)
        if rounded and self.whole is not None:
            rows[..., self.whole] = np.round(rows[..., self.whole]) + 0.0  # no -0
        return rows


def split(
    rows: Shaped[np.ndarray, "n d"], *, name: str, seed: Whole = 0, reading: Reading = UNREAD, labels: Any = None
) -> Dataset:
    """Checked rows (n, d) -> Dataset: shuffled by the seed; two thirds train, a sixth held out, a sixth test.

    labels: the result of `labels.encode`.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    rows, whole = rows[order], (rows == np.round(rows)).all(axis=0)
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
            f"{name}: {rows[row, column]:g} in column {place(column, reading)} (from 0) lies more than {FURTHEST:g} "
            f"standard deviations of the train rows from their mean: drop it, or rescale the column."
        )
    train_part, held_out, test = np.split(standardised.astype(np.float32), [first, second])
    parts = {"train": train_part, "held_out": held_out, "test": test}
    units = {"mean": train[0] + unit * mean, "scale": unit * deviation}
    more = {"labels": split_labels(name, labels, np.split(order, [first, second])), "whole": whole & ~constant}
    return Dataset(name, **parts, **units, constant=int(constant.sum()), reading=reading, **more)


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


def place(column: Whole, reading: Reading) -> Whole:
    """The position in the file of a column that was read."""
    return column if reading.columns is None else reading.columns[column]
