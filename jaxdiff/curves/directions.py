"""Bases of directions along which a loss curve is measured, and coordinates in them."""

import jax.numpy as jnp
import numpy as np

from jaxdiff.types import Basis


def principal_axes(rows):
    """(d, d): eigenvectors of the covariance of rows (n, d), in columns; a basis for `loss_curve` on other rows."""
    return np.linalg.eigh(np.atleast_2d(np.cov(np.asarray(rows, np.float64), rowvar=False)))[1]


def checked_basis(basis: Basis, data, name="basis") -> Basis:
    """The basis asked for: None and "coordinates" as they are, "pca" and arrays as orthonormal columns, float64."""
    if basis is None or (isinstance(basis, str) and basis == "coordinates"):
        return basis
    dim = data.shape[1]
    if isinstance(basis, str):
        if basis != "pca":
            raise ValueError(f"basis is 'pca', 'coordinates' or an array (d, d): basis = {basis!r}.")
        return principal_axes(data)
    basis = np.asarray(basis, np.float64)
    if basis.shape != (dim, dim) or not np.abs(basis.T @ basis - np.eye(dim)).max() <= 1e-6:
        raise ValueError(f"{name} must have orthonormal columns, shape ({dim}, {dim}): it has shape {basis.shape}.")
    return basis


def change_of_basis(axes, basis):
    """The matrix (d, d) from coordinates in `axes` to those in `basis`; None where both coordinates are the same."""
    if basis is None or basis is axes:
        return None
    if isinstance(basis, str):
        return None if axes is None else axes.T
    return basis if axes is None else axes.T @ basis


def in_axes(x, axes):
    """Coordinates of x (..., d) along the columns of axes (d, d); x itself where axes is None."""
    return x if axes is None else jnp.matmul(x, axes, precision="highest")
