"""Files of samples, written in parts as they come."""

import csv
import itertools
import pathlib
import shutil

import numpy as np

MOST = 2**32  # limit on the number of samples, because particle indices are 32-bit here
SHOWN = 1000  # the most samples that are kept for the picture
ENDINGS = (".npy", ".csv", ".tsv")
LEAST_BYTES = 2  # least size of a number in a text file: one digit and one separator


def write(path, rows, n, names=None, labels=None):
    """Write n samples, which come in parts, into a .npy, .csv or .tsv file; text files start with the columns' names.

    Args:
      path: a new file.
      rows: the parts, arrays (rows, d), or (rows, ...) of images, whose rows are n together.
      n: the number of samples.
      names: the names of the columns, or None.
      labels: (n,) names of the samples' classes; a text file gets them as the last column, `label`.

    Returns:
      The first rows of the first part, 1,000 at most.
    """
    first, rows = _peek(rows)
    if path.suffix == ".npy":
        with path.open("wb") as stream:
            kind = first.dtype.newbyteorder("<")
            header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False}
            np.lib.format.write_array_header_1_0(stream, header | {"shape": (n, *first.shape[1:])})
            for part in rows:
                stream.write(np.ascontiguousarray(part, kind).data)
        return first
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n")
        if names or labels is not None:
            names = names or [f"column {i}" for i in range(first.shape[1])]
            table.writerow([*names, *([] if labels is None else ["label"])])
        last = itertools.repeat(()) if labels is None else ((label,) for label in labels)
        for part in rows:
            cells = ([int(x) if x.is_integer() else x for x in row] for row in part.tolist())
            table.writerows([*row, *next(last)] for row in cells)
    return first


def _peek(parts):
    """The first rows of the first part, and an iterator over all parts."""
    parts = iter(parts)
    part = next(parts)
    return part[:SHOWN].copy(), itertools.chain([part], parts)


def check_room(path, n, shape):
    """Raise ValueError unless n samples of this shape can be written to `path`.

    The ending of the path must be known, images go into .npy files alone, and the disk must have enough room.
    """
    path, dim = pathlib.Path(path), int(np.prod(shape))
    if not 1 <= n <= MOST:
        raise ValueError(f"the number of samples must lie between 1 and {MOST}: n = {n}.")
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'}: samples are written to {', '.join(ENDINGS)}.")
    if len(shape) > 1 and path.suffix != ".npy":
        raise ValueError(
            f"{path} ends in {path.suffix}, and the samples are images of shape {shape}: give a .npy file."
        )
    there = next(folder for folder in path.absolute().parents if folder.exists())
    free, needed = shutil.disk_usage(there).free, n * dim * (8 if path.suffix == ".npy" else LEAST_BYTES)
    if needed > free:
        raise ValueError(
            f"{n} samples of {dim} columns take {_size(needed)} at least, and {_size(free)} are free at {there}: draw "
            f"fewer samples, or choose another place with --out."
        )


def _size(count):
    """A number of bytes as a text with its unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:,.4g} TB" if count < 1e6 else f"{count:.1e} TB"
