"""The batches of training, which depend on the key and the step alone: from rows on the device, or fed by the host."""

import concurrent.futures
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.noise import KeyLike
from jaxdiff.training.rows import float_rows

RESIDENT_BYTES = 2**30  # arrays up to this size are copied to the device; larger ones are fed batch by batch
AHEAD = 2  # batches that the host gathers while the device computes
HASHED_BYTES = 2**26  # of larger data the fingerprint reads HASHED_ROWS rows at equal distances
HASHED_ROWS = 1024


def batch_rows(key: KeyLike, step: Any, n: int, size: int) -> jax.Array:
    """The numbers (size,) of the rows, out of n, in the batch of optimiser step `step`; key is that of `fit`."""
    return rows_of_step(jax.random.split(jax.random.fold_in(key, step))[0], n, size)


def rows_of_step(key_batch, n, size):
    """The numbers of the rows of a batch, from the first of the two keys of a step."""
    return jax.random.randint(key_batch, (size,), 0, n)


def dropped(key_batch, labels, chance, null):
    """The labels (n,), each replaced by the null class with this chance."""
    if labels is None or not chance:
        return labels
    gone = jax.random.uniform(jax.random.fold_in(key_batch, 1), labels.shape) < chance
    return jnp.where(gone, jnp.asarray(null, labels.dtype), labels)


class Resident:
    """Rows that lie on the device. A compiled step gathers its batch from them."""

    def __init__(self, data):
        """Check the rows."""
        self.rows = float_rows(data, "data")
        self.dtype, self.event, self.n = self.rows.dtype, self.rows.shape[1:], len(self.rows)


class Streamed:
    """Rows that stay where they are, such as a memory-mapped file. The host gathers the batches.

    The source has len, shape, dtype, and source[indices] for an array of indices.
    """

    def __init__(self, source):
        """Check shape and dtype; the values are read batch by batch."""
        shape, dtype = tuple(source.shape), np.dtype(source.dtype)
        if len(shape) < 2 or 0 in shape:
            raise ValueError(f"data must be rows (n, d) or arrays (n, *event): its shape is {shape}.")
        if dtype.kind not in "fiub" and not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"data must hold real numbers: its dtype is {dtype}. Encode the values as numbers.")
        self.source, self.event, self.n = source, shape[1:], shape[0]
        self.dtype = np.dtype(np.float32) if dtype.kind in "iub" else dtype

    def batch(self, rows):
        """The rows of these numbers, as floats; ValueError with count and first row of values that are not finite."""
        order = np.sort(rows)  # a file is read from front to back
        found = np.asarray(self.source[order], self.dtype)
        bad = np.argwhere(~np.isfinite(found))
        if len(bad):
            row, *place = bad[0].tolist()
            raise ValueError(
                f"the rows of a batch have {len(bad)} values that are not finite, first {found[tuple(bad[0])]} at row "
                f"{order[row]} of the data, place {tuple(place)}: fill or drop them."
            )
        return found[np.searchsorted(order, rows)]


def source_of(data: Any) -> Resident | Streamed:
    """Resident for arrays up to RESIDENT_BYTES, otherwise Streamed."""
    size = getattr(data, "nbytes", None)
    if size is None and hasattr(data, "shape") and hasattr(data, "dtype"):
        size = int(np.prod(data.shape)) * np.dtype(data.dtype).itemsize
    if size is not None and size > RESIDENT_BYTES:
        return Streamed(data)
    return Resident(data if isinstance(data, np.ndarray | jax.Array | list | tuple) else _whole(data))


def _whole(source):
    """A small source as an array."""
    return source[np.arange(len(source))] if hasattr(source, "shape") else source


class Prefetch:
    """Gathers the batches of the next steps in a thread while the device computes.

    Args:
      source: a Streamed.
      labels: (n,) or None.
      rows_at: step -> the numbers of its rows.
    """

    def __init__(self, source, labels, rows_at):
        """Start the thread."""
        self.source, self.labels, self.rows_at = source, labels, rows_at
        self.pool, self.waiting = concurrent.futures.ThreadPoolExecutor(1), {}

    def __call__(self, step):
        """The batch (rows, labels or None) of a step; the batches of the next steps are ordered."""
        for at in range(step, step + 1 + AHEAD):
            if at not in self.waiting:
                self.waiting[at] = self.pool.submit(self._gather, at)
        return self.waiting.pop(step).result()

    def _gather(self, step):
        rows = np.asarray(self.rows_at(np.int32(step)))
        return self.source.batch(rows), None if self.labels is None else self.labels[rows]

    def close(self):
        """End the thread."""
        self.pool.shutdown(wait=True, cancel_futures=True)


def fingerprint(source: Resident | Streamed, labels: Any, held_out_loss: Any = None) -> dict[str, Any]:
    """Shape, dtype and a SHA-256 of the data: of all values, or of some rows where the data are large.

    The hash covers the labels, and the rows and labels that the held-out loss uses.
    """
    step = 1
    each = int(np.prod(source.event)) * source.dtype.itemsize
    if source.n * each > HASHED_BYTES:
        step = max(1, source.n // HASHED_ROWS)
    chosen = np.arange(0, source.n, step)
    rows = source.rows[chosen] if isinstance(source, Resident) else source.batch(chosen)
    found = hashlib.sha256(np.ascontiguousarray(rows).tobytes())
    held_out = () if held_out_loss is None else (held_out_loss.pieces, held_out_loss.labels)
    for part in (labels, *held_out):
        found.update(b"none" if part is None else np.ascontiguousarray(part).tobytes())
    shape = [source.n, *source.event]
    return {"shape": shape, "dtype": str(source.dtype), "labels": labels is not None, "sha256": found.hexdigest()}
