"""Reads arrays from NumPy's files, and says how to reshape them into rows."""

import numpy as np

from jaxdiff.app.errors import DataError
from jaxdiff.files import UNREADABLE, brief

LARGE = 2**26  # bytes; a .npy file of so many is memory-mapped


def read_npy(path):
    """The array of a .npy file; DataError if the file has none, or one of Python objects."""
    with path.open("rb") as stream:
        try:
            return np.lib.format.read_array(stream, allow_pickle=False)
        except UNREADABLE as error:
            raise DataError(f"{path} is no plain .npy array ({brief(error)}): save it with np.save.") from error


def open_npy(path):
    """The array of a .npy file: in memory, or memory-mapped if the file has LARGE bytes or more; see `read_npy`."""
    if path.stat().st_size < LARGE:
        return read_npy(path)
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except UNREADABLE as error:
        raise DataError(f"{path} is no plain .npy array ({brief(error)}): save it with np.save.") from error


def read_npz(path, key=None):
    """The array called `key` of an .npz archive, or without a key its only one; DataError if there is none such."""
    with path.open("rb") as stream:
        try:
            arrays = np.load(stream, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("it is one .npy array")
            names = arrays.files
            chosen = names[0] if key is None and len(names) == 1 else key
            rows = arrays[chosen] if chosen in names else None
        except UNREADABLE as error:
            raise DataError(f"{path} is no .npz archive of numbers ({brief(error)}): save it with np.savez.") from error
    if rows is not None:
        return rows
    remedy = "choose one with key, --key NAME" if names else "save one array of rows in it"
    lacks = "" if key is None else f", none of them {key!r}"
    raise DataError(f"{path} holds {len(names)} arrays {names}{lacks}: {remedy}.")


def reshaping(array):
    """For a message: how to save an array of another shape as rows (n, d); empty if that is impossible."""
    if array.ndim == 0 or array.size == 0:
        return ""
    if array.ndim == 1:
        return "; one column of numbers is saved as x[:, None]"
    kind = "images are" if array.ndim in (3, 4) else "they are"
    d, shape = array[0].size, ", ".join(map(str, array.shape[1:]))
    return f"; {kind} saved as x.reshape({len(array)}, {d}), and made of samples by x.reshape(-1, {shape})"
