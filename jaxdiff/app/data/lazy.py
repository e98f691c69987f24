"""Images and large tables as data sets: train rows stay in their array, held-out and test rows are read."""

from typing import Any

import numpy as np

from jaxdiff.app.data.dataset import FRACTIONS, FURTHEST, UNREAD, Dataset, Reading, place
from jaxdiff.app.data.labels import split_labels
from jaxdiff.app.data.scales import pixel_scale
from jaxdiff.app.data.scans import check_finite, column_scale
from jaxdiff.app.data.views import Rest, View
from jaxdiff.app.errors import DataError

# Of held-out and of test rows of a large data set: loss curves and qualities have standard errors below one per cent
# with so many, and one part takes at most 256 MiB.
MOST_ROWS = 10_000
MOST_VALUES = 2**26
PERMUTED = 2**20  # rows; up to so many are shuffled, of more only the held-out and test rows are drawn


def parts_of(n: int, values: int, seed: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """Numbers of the train, held-out and test rows of n rows of so many values each; only the seed decides.

    Up to PERMUTED rows these are the parts of `split`, two thirds, a sixth and a sixth, if the held-out and test parts
    have at most MOST_ROWS rows and MOST_VALUES values. Otherwise they have so many, and all others are train rows.
    """
    most = max(4, min(MOST_ROWS, MOST_VALUES // values))
    rng = np.random.default_rng(seed)
    first, second = np.round(np.cumsum(FRACTIONS)[:2] * n).astype(int)
    if n <= PERMUTED:
        order = rng.permutation(n)
        held_out, test = order[first:second][:most], order[second:][:most]
        return np.concatenate([order[:first], order[first:second][most:], order[second:][most:]]), held_out, test
    most = int(min(most, second - first, n - second))
    chosen = rng.choice(n, 2 * most, replace=False, shuffle=True)
    return Rest(n, chosen), chosen[:most], chosen[most:]


def split_images(images: np.ndarray, *, source: Any, name: str, seed: int, reading: Reading = UNREAD, labels=None):
    """Images (n, H, W) or (n, H, W, C) of real numbers -> Dataset with values in [-1, 1] and channels last.

    Raises:
      DataError: values are not finite, all are the same, channels seem to come first, or a class has no train row.
    """
    added = images.ndim == 3
    if not added and images.shape[3] > 4 and images.shape[1] in (1, 3, 4):
        raise DataError(
            f"{source} has shape {images.shape}: channels come last, (n, H, W, C): save x.transpose(0, 2, 3, 1)."
        )
    low, high = check_finite(source, images)
    scale = pixel_scale(source, low, high, images.dtype, channel_added=added)
    parts = parts_of(len(images), int(np.prod(images.shape[1:])), seed)
    train, held_out, test = (View(images, part, scale) for part in parts)
    middle, half = np.array((scale.low + scale.high) / 2), np.array((scale.high - scale.low) / 2)
    return Dataset(
        name, train, np.asarray(held_out), np.asarray(test), mean=middle, scale=half, constant=0, reading=reading,
        labels=split_labels(source, labels, parts), pixels=scale,
    )  # fmt: skip


def split_table(table: np.ndarray, *, source: Any, name: str, seed: int, reading: Reading = UNREAD, labels=None):
    """A memory-mapped table (n, d) -> Dataset whose train rows are a view; standardised as by `split`, to rounding.

    Raises:
      DataError: values are not finite or out of all proportion, no column varies, or a class has no train row.
    """
    check_finite(source, table)
    parts = parts_of(len(table), table.shape[1], seed)
    others = np.sort(np.concatenate(parts[1:]))

    def is_train(part):
        train = np.ones(part.stop - part.start, bool)
        train[others[np.searchsorted(others, part.start) : np.searchsorted(others, part.stop)] - part.start] = False
        return train

    scale, whole = column_scale(name, table, is_train)
    train, held_out, test = (View(table, part, scale) for part in parts)
    mean, deviation = scale.origin + scale.unit * scale.mean, scale.unit * scale.deviation
    dataset = Dataset(
        name, train, np.asarray(held_out), np.asarray(test), mean=mean, scale=deviation,
        constant=int(scale.constant.sum()),
        reading=reading, whole=whole,
        labels=split_labels(source, labels, parts),
    )  # fmt: skip
    _check_proportions(name, dataset, reading)
    return dataset


def _check_proportions(name, dataset, reading):
    """Raise DataError for a held-out or test value that is out of all proportion.

    With n train rows no train value lies more than sqrt(n) deviations from the mean, so most need no check.
    """
    blocks = [dataset.held_out, dataset.test]
    for block in [*blocks, *(dataset.train.blocks() if len(dataset.train) > FURTHEST**2 else ())]:
        beyond = np.argwhere(~(np.abs(block) <= FURTHEST))
        if len(beyond):
            row, column = beyond[0]
            value = block[row, column] * dataset.scale[column] + dataset.mean[column]
            raise DataError(
                f"{name}: {value:g} in column {place(column, reading)} (from 0) lies more than {FURTHEST:g} standard "
                f"deviations of the train rows from their mean: drop it, or rescale the column."
            )
