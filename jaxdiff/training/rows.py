"""Checks of the rows that a network is trained on or measured on."""

import jax.numpy as jnp
import numpy as np


def float_rows(data, name):
    """Rows (n, *event) as a float array; raises ValueError if there are none or they are not finite."""
    data = np.asarray(data)
    if data.dtype.kind not in "fiub" and not jnp.issubdtype(data.dtype, jnp.floating):
        raise ValueError(f"{name} must hold real numbers: its dtype is {data.dtype}. Encode the values as numbers.")
    if data.ndim < 2:
        raise ValueError(f"{name} must be rows (n, d) or arrays (n, *event): its shape is {data.shape}.")
    if 0 in data.shape:
        raise ValueError(f"{name} has no values, its shape is {data.shape}: give at least one row and one column.")
    if data.dtype.kind in "iub":
        return data.astype(np.float32)
    if not np.isfinite(data).all():
        bad = np.argwhere(~np.isfinite(data))
        row, *place = bad[0].tolist()
        at = f"column {place[0]}" if len(place) == 1 else f"place {tuple(place)}"
        raise ValueError(
            f"{name} has {len(bad)} values that are not finite, first {data[tuple(bad[0])]} at row {row}, {at}: fill "
            "or drop them."
        )
    return data
