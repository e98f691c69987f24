"""Checks of the rows that a network is trained on or measured on."""

import jax.numpy as jnp
import numpy as np


def float_rows(data, name):
    """Rows (n, d) as a float array; raises ValueError if there are none or they are not finite."""
    data = np.asarray(data)
    if data.dtype.kind not in "fiub" and not jnp.issubdtype(data.dtype, jnp.floating):
        raise ValueError(f"{name} must hold real numbers: its dtype is {data.dtype}. Encode the values as numbers.")
    if data.ndim != 2:
        flat = f" For images use {name}.reshape(len({name}), -1)." if data.ndim > 2 else ""
        raise ValueError(f"{name} must be rows, (n, d): its shape is {data.shape}.{flat}")
    if 0 in data.shape:
        raise ValueError(f"{name} has no values, its shape is {data.shape}: give at least one row and one column.")
    if data.dtype.kind in "iub":
        return data.astype(np.float32)
    if not np.isfinite(data).all():
        bad = np.argwhere(~np.isfinite(data))
        row, column = bad[0]
        raise ValueError(
            f"{name} has {len(bad)} values that are not finite, first {data[row, column]} at row {row}, column "
            f"{column}: fill or drop them."
        )
    return data
