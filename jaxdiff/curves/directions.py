"""Bases of directions along which a loss curve is measured, and coordinates in them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from jaxdiff.types import Basis, Rows


def principal_axes(rows: Rows) -> Float64[np.ndarray, "d d"]:
    """(d, d): the eigenvectors of the covariance of rows (n, d), in columns; a basis for `loss_curve` on other rows."""
    return np.linalg.eigh(np.atleast_2d(np.cov(np.asarray(rows, np.float64), rowvar=False)))[1]


def checked_basis(basis: Basis, data: np.ndarray, name: str = "basis") -> Basis:
    """None and "coordinates" unchanged; "pca" as the principal axes of data (n, d); an array checked, in float64."""
    if basis is None or (isinstance(basis, str) and basis == "coordinates"):
        return basis
    dim = data.shape[1]
    if isinstance(basis, str):
        if basis != "pca":
            raise ValueError(f"{name} must be 'pca', 'coordinates' or an array (d, d): {name} = {basis!r}.")
        return principal_axes(data)
    basis = np.asarray(basis, np.float64)
    if basis.shape != (dim, dim) or not np.abs(basis.T @ basis - np.eye(dim)).max() <= 1e-6:
        raise ValueError(f"{name} must have orthonormal columns and shape ({dim}, {dim}): its shape is {basis.shape}.")
    return basis


def change_of_basis(axes: Any, basis: Basis) -> Any:
    """The matrix (d, d) from coordinates in `axes` to those in `basis`; None where both coordinates are the same."""
    if basis is None or basis is axes:
        return None
    if isinstance(basis, str):
        return None if axes is None else axes.T
    return basis if axes is None else axes.T @ basis


def in_axes(x: Any, axes: Any) -> Any:
    """The coordinates of x (..., d) along the columns of axes (d, d); x itself where axes is None."""
    return x if axes is None else jnp.matmul(x, axes, precision="highest")
