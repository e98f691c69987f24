"""Standardisation of columns and of pixels: applied to rows, undone on samples, recorded as JSON."""

import dataclasses
from typing import Any

import numpy as np

from jaxdiff.app.errors import DataError

RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))  # of images, the usual ones


@dataclasses.dataclass(frozen=True, eq=False)
class ColumnScale:
    """Columns of a table with zero mean and unit variance on the train rows; constant columns are zero.

    A value x becomes ((x - origin)/unit - mean)/deviation. With this origin and unit no square over- or underflows.

    Attributes:
      origin, unit, mean, deviation: (d,) float64.
      constant: (d,) of bool.
    """

    origin: np.ndarray
    unit: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    constant: np.ndarray

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n, d) in the units of the file -> standardised float32 rows, infinite where float32 overflows."""
        with np.errstate(over="ignore"):
            small = np.where(self.constant, 0.0, (rows.astype(np.float64) - self.origin) / self.unit)
            return ((small - self.mean) / self.deviation).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class PixelScale:
    """Images with values in [-1, 1] and channels last, and the way back.

    Attributes:
      low, high: the values in the file that become -1 and 1.
      dtype: of the file.
      channel_added: whether images (n, H, W) got a last axis of size 1.
    """

    low: float
    high: float
    dtype: str
    channel_added: bool

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Images of the file -> float32 images (n, H, W, C)."""
        images = images[..., None] if self.channel_added else images
        centred = images.astype(np.float64) - (self.low + self.high) / 2
        return (centred / ((self.high - self.low) / 2)).astype(np.float32)

    def undo(self, images: Any) -> np.ndarray:
        """Images in [-1, 1] in the dtype and range of the file: whole numbers are rounded and clipped, floats not."""
        images = np.asarray(images, np.float64) * ((self.high - self.low) / 2) + (self.low + self.high) / 2
        images = images[..., 0] if self.channel_added else images
        if np.dtype(self.dtype).kind in "iub":
            images = np.clip(np.rint(images), self.low, self.high)
        return images.astype(self.dtype)

    def record(self) -> dict[str, Any]:
        """The fields as JSON data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "PixelScale":
        """The scale that `record` wrote; ValueError if a field is missing or wrong."""
        try:
            scale = cls(float(record["low"]), float(record["high"]), str(np.dtype(record["dtype"])), True)
            scale = dataclasses.replace(scale, channel_added=record["channel_added"] is True)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"the record of the pixels is {record!r}, which lacks a field or a type: make it again by training."
            ) from error
        if not -np.inf < scale.low < scale.high < np.inf:
            raise ValueError(
                f"the pixels run from {scale.low:g} to {scale.high:g}, which is no range: low must lie below high."
            )
        return scale


def pixel_scale(source: Any, low: float, high: float, dtype: np.dtype, *, channel_added: bool) -> PixelScale:
    """The scale of images whose values run from low to high.

    Bytes have the range [0, 255]. Other images get the first of the ranges [0, 1], [-1, 1], [0, 255], [0, 65535] that
    holds all values and of which they fill more than half, and otherwise their own range.

    Raises:
      DataError: all values are the same.
    """
    if low == high:
        raise DataError(f"{source}: all pixels are {low:g}: give images that differ.")
    fits = ((0.0, 255.0),) if dtype == np.uint8 else RANGES
    for a, b in fits:
        if a <= low and high <= b and (dtype == np.uint8 or high - low > (b - a) / 2):
            return PixelScale(a, b, str(dtype), channel_added)
    return PixelScale(float(low), float(high), str(dtype), channel_added)
