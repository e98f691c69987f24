"""The record of an error curve, the squared error of a denoiser as a function of the snr."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.checks import check_whole
from jaxdiff.types import Basis, ErrorCurve, Numbers


def _zero(snr):
    return np.zeros_like(np.asarray(snr, np.float64))


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """snr -> squared error of a denoiser, total over the d coordinates: the mmse V, or a model's loss L.

    Attributes:
      value: snr > 0 -> float64, same shape.
      dim: d.
      standard_error: snr -> standard error of value; zero for a curve known exactly.
      cross: snr -> K = E<D(X_t) - X_0, Z>, which the path KL of exponential Euler needs too. None for the exact
        denoiser, whose K is sqrt(snr) V.
      integral: snr -> an antiderivative of value. None: `panels.integrated` computes one.
      integral_error: snr (n,) -> an error bound for integrals between the least and the largest of them. None: the
        integral is exact.
      log_det: (snr, h) -> E log det(I + h Cov(X_0 | X_t)), which the path KL of covariance matching needs. None:
        unknown.
      directions: snr -> (*shape of snr, d), the squared errors along the columns of `basis`, whose sum is value. None:
        unknown.
      basis: (d, d) with orthonormal columns, or "coordinates" for the unit vectors; None where directions is None.
      replicates: independent unbiased estimates of the curve, which is their mean; () for a curve known exactly.
    """

    value: Callable[..., Any] = dataclasses.field(repr=False)
    dim: int
    standard_error: Callable[..., Any] = dataclasses.field(default=_zero, repr=False)
    cross: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    integral: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    integral_error: Callable[..., float] | None = dataclasses.field(default=None, repr=False)
    log_det: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    directions: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    basis: Basis = dataclasses.field(default=None, repr=False)
    replicates: tuple["Curve", ...] = dataclasses.field(default=(), repr=False)

    def __call__(self, snr: Numbers) -> Any:
        """The squared error at snr, float64 of the same shape."""
        return self.value(snr)


def dim_of(curve: Any, dim: Any = None) -> int:
    """The dimension of an error curve: its own, or `dim` where the curve is a plain callable.

    Raises:
      TypeError: neither is known.
      ValueError: both are known and differ, or `dim` is not a positive whole number.
    """
    own = getattr(curve, "dim", dim)
    if own is None:
        raise TypeError(f"the error curve {curve!r} carries no dimension: pass a Curve, or dim=d beside the callable.")
    check_whole(own, "dim")
    if dim not in (None, own):
        raise ValueError(f"the error curve has dimension {own}, but dim = {dim}: leave dim= out.")
    return int(own)


def as_curve(curve: Any, dim: Any = None) -> Curve:
    """A Curve made from a plain callable snr -> total squared error and its dim; a Curve is returned unchanged."""
    dim = dim_of(curve, dim)
    return curve if isinstance(curve, Curve) else Curve(curve, dim)


def check_basis(basis: Basis, curve: ErrorCurve) -> None:
    """Raise ValueError unless the curve has errors along the directions of this basis."""
    own = getattr(curve, "basis", None)
    if own is None:
        raise ValueError("the curve has no errors along directions: measure it with loss_curve(..., basis='pca').")
    if not (basis is own or (np.shape(basis) == np.shape(own) and np.all(basis == own))):
        raise ValueError("basis must be the one that the curve was measured in: pass basis=curve.basis.")
