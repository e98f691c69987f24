"""Checks and statistics of rows that need not fit into memory, computed in float64 block by block."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdiff.app.data.scales import ColumnScale
from jaxdiff.app.data.views import View, release, spans
from jaxdiff.app.errors import DataError


def check_finite(source: Any, array: np.ndarray) -> tuple[float, float]:
    """The least and the largest value of an array. Raises DataError with the count of values that are not finite."""
    low, high, bad, first = np.inf, -np.inf, 0, None
    for part in spans(len(array), int(np.prod(array.shape[1:]))):
        block = array[part]
        least, most = float(block.min()), float(block.max())
        if np.isfinite([least, most]).all():
            low, high = min(low, least), max(high, most)
        else:
            wrong = ~np.isfinite(block)
            if first is None:
                place = tuple(map(int, np.argwhere(wrong)[0]))
                first = block[place], part.start + place[0], place[1:]
            bad += int(wrong.sum())
        release(array)
    if first is not None:
        value, row, rest = first
        where = f"column {rest[0]}" if len(rest) == 1 else f"pixel {rest}"
        raise DataError(
            f"{source}: {bad} value(s) are not finite, first {value} at row {row}, {where} (from 0): fill or drop them."
        )
    return low, high


class Spread(NamedTuple):
    """Count, mean and sum of squared (or products of) deviations of some values; `joined` adds others."""

    n: int
    mean: np.ndarray
    squares: np.ndarray

    def joined(self, values: np.ndarray, *, products: bool = False) -> "Spread":
        """With the rows of values (m, d) too.

        Source: Chan, Golub, LeVeque 1983, The American Statistician 37, 242, equation 2.1.
        """
        m, mean = len(values), values.mean(0)
        centred, shift = values - mean, mean - self.mean
        own = centred.T @ centred if products else np.square(centred).sum(0)
        between = np.outer(shift, shift) if products else shift**2
        n = self.n + m
        return Spread(n, self.mean + shift * (m / n), self.squares + own + between * (self.n * m / n))


NONE = Spread(0, np.zeros(()), np.zeros(()))


def column_scale(name: Any, array: np.ndarray, is_train: Any) -> tuple[ColumnScale, np.ndarray]:
    """The scale of the columns of a table from its train rows, and which columns hold only whole numbers.

    is_train: a slice of rows -> truth values.

    Raises:
      DataError: no column varies over the train rows.
    """
    parts = list(spans(len(array), array.shape[1]))
    origin, furthest, whole = np.zeros(0), np.zeros(array.shape[1]), np.ones(array.shape[1], bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for part in parts:
            block, train = array[part].astype(np.float64), is_train(part)
            whole &= (block == np.round(block)).all(0)
            if train.any():
                origin = block[train][0] if not origin.size else origin
                furthest = np.maximum(furthest, np.abs(block[train] - origin).max(0))
            release(array)
        constant = furthest <= 4 * np.spacing(np.abs(origin))
        if constant.all():
            raise DataError(f"{name}: no column varies over the train rows: shuffle or check the file's columns.")
        unit, spread = np.where(constant, 1.0, furthest), NONE
        for part in parts:
            rows = array[part].astype(np.float64)[is_train(part)]
            if len(rows):
                spread = spread.joined(np.where(constant, 0.0, (rows - origin) / unit))
            release(array)
    deviation = np.where(constant, 1.0, np.sqrt(spread.squares / spread.n))
    return ColumnScale(origin, unit, spread.mean, deviation, constant), whole & ~constant


def moments(view: View) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Mean and covariance (over n - 1) of the rows of a view, each flattened, in one pass."""
    spread = NONE
    for block in view.blocks():
        spread = spread.joined(block.reshape(len(block), -1).astype(np.float64), products=True)
    return spread.mean, spread.squares / max(spread.n - 1, 1)


def channel_moments(view: View) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Mean and variance of each channel over all pixels of all images of a view, in one pass."""
    spread = NONE
    for block in view.blocks():
        spread = spread.joined(block.reshape(-1, block.shape[-1]).astype(np.float64))
    return spread.mean, spread.squares / spread.n
