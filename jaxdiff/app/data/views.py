"""Rows that stay where they are, in a file or an array, and are standardised when they are read."""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

BLOCK_BYTES = 2**24  # of float64 values that are read at once


class Rest:
    """The numbers 0, ..., n - 1 without some that are left out, in order, without an array of n numbers.

    The i-th number that remains is i plus the count of those left out before it.
    """

    def __init__(self, n: int, left_out: Int[np.ndarray, " m"]):
        """n: how many numbers. left_out: different numbers below n."""
        self.length = n - len(left_out)
        self._before = np.sort(left_out) - np.arange(len(left_out))  # how many remain before each one left out

    def __len__(self) -> int:
        """How many numbers remain."""
        return self.length

    def __getitem__(self, places: Any) -> Any:
        """The numbers at these places, which lie below the length."""
        return places + np.searchsorted(self._before, places, side="right")


class View:
    """Some rows of an array, standardised to float32 when they are read by `view[indices]` or `view[slice]`.

    Attributes:
      array: (rows, ...) of any real dtype; a memory-mapped array is not copied.
      rows: the numbers of the view's rows in the array: an array, or `Rest`.
      scale: has `apply`, raw rows -> standardised float32 rows.
    """

    ndim = property(lambda self: len(self.shape))
    dtype = np.dtype(np.float32)

    def __init__(self, array: np.ndarray, rows: Any, scale: Any):
        """See the attributes."""
        self.array, self.rows, self.scale = array, rows, scale
        self._event = scale.apply(np.zeros((1, *array.shape[1:]), array.dtype)).shape[1:]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, *event)."""
        return (len(self), *self._event)

    def places(self, indices: Any) -> Any:
        """The numbers in the array of the view's rows at the indices: a whole number, a slice, or an array.

        Raises:
          IndexError: an index is no whole number or lies outside the view.
        """
        n = len(self)
        if isinstance(indices, slice):
            return self.rows[np.arange(*indices.indices(n))]
        indices = np.asarray(indices)
        if indices.dtype == bool and indices.shape == (n,):
            indices = np.flatnonzero(indices)
        if indices.size and indices.dtype.kind not in "iu":
            raise IndexError(f"rows are chosen by whole numbers or slices: the indices are {indices.dtype}.")
        indices = indices.astype(np.int64)
        outside = indices[(indices < -n) | (indices >= n)]
        if outside.size:
            raise IndexError(f"row {outside.flat[0]} does not exist: the view has {n} rows.")
        return self.rows[np.where(indices < 0, indices + n, indices)]

    def __getitem__(self, indices: Any) -> Float[np.ndarray, "..."]:
        """Standardised rows; see `places` for the indices."""
        places = self.places(indices)
        rows = np.asarray(self.array[np.atleast_1d(places)])
        release(self.array)  # rows lie apart, and each of them brings the pages around it into memory
        standardised = self.scale.apply(rows)
        return standardised if np.ndim(places) else standardised[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows, in memory."""
        rows, first = np.empty(self.shape, dtype or np.float32), 0
        for block in self.blocks():
            rows[first : first + len(block)] = block
            first += len(block)
        return rows

    def blocks(self) -> Iterator[Float[np.ndarray, "..."]]:
        """All rows in blocks of limited size, in the order of the view."""
        for part in spans(len(self), int(np.prod(self._event))):
            yield self[part]
            release(self.array)


def spans(n: int, values: int) -> Iterator[slice]:
    """Slices that cover n rows of so many values each; the float64 values of one take at most BLOCK_BYTES."""
    size = max(1, BLOCK_BYTES // (8 * max(values, 1)))
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


def release(array: np.ndarray) -> None:
    """Give the pages of a memory-mapped array back to the system, which reads them again when they are needed."""
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
