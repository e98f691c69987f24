"""Moment matching: the ancestral mean with the innovation's own variance, one for all directions or one for each."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdiff.arrays import aligned, namespace
from jaxdiff.checks import described
from jaxdiff.curves.curve import check_basis, dim_of
from jaxdiff.kernels._affine import identity, noiseless_step, step
from jaxdiff.kernels.ancestral import coefficients as ancestral_coefficients
from jaxdiff.processes import ou
from jaxdiff.types import Basis, Kernel, ScoreFn, as_score


def moment_matched(score: ScoreFn, mmse: Callable[..., Any], *, basis: Basis = None, dim: int | None = None) -> Kernel:
    """Ancestral kernel whose variance is widened by what the posterior mean leaves open.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      mmse: a Curve, snr -> E|X_0 - m(X_t, t)|^2 summed over coordinates; for a learned score its held-out loss.
      basis: None widens all directions alike; the curve's own basis, `curve.basis`, each by the error along it. That
        costs one matrix product a step, or none for "coordinates".
      dim: d, where mmse is a plain callable.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t. A traced grid needs an mmse that can be traced; a
      Curve is a host function.

    Raises:
      TypeError: mmse has no `.dim` and none is given.
      ValueError: the basis is not the curve's.

    Accuracy: weak order 1; exact in one step on N(mu, v I) and on a point mass, where its path KL is 0; with a basis on
      every Gaussian of which it is the eigenbasis.
    Source: Bao et al. 2022 (Analytic-DPM, the optimal isotropic variance), arXiv:2201.06503.
    """
    if not callable(mmse):
        raise TypeError(f"mmse must be a Curve or another function of the snr: it is {described(mmse)}.")
    dim = dim_of(mmse, dim)
    if basis is None:
        return Kernel("moment_matched", as_score(score), Coefficients(mmse, dim), identity, step, identity, 1, 1)
    check_basis(basis, mmse)
    turned = step if isinstance(basis, str) else StepInBasis(basis)
    return Kernel("moment_matched", as_score(score), Coefficients(mmse, None), identity, turned, identity, 1, 1)


# X_{t_next} | X_t = x has the ancestral mean, and by total variance the ancestral variance v0 plus that of
# alpha_next (sigma_h^2/sigma^2) X_0. With V/d a coordinate for Cov(X_0 | X_t) the sum is v0 (1 + (snr_next - snr) V/d).
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one error curve; kernels of one curve are equal, so a rebuilt one recompiles nothing.

    dim None: the spread has d columns, one for each direction of the curve's basis.
    """

    mmse: Callable[..., Any]
    dim: int | None

    def __call__(self, grid):
        """The table of a grid, float64 on the host."""
        row, snr = ancestral_coefficients(grid), ou.snr(grid)
        growth = snr[1:] - snr[:-1]
        if self.dim is not None:
            xp = namespace(grid)
            widen = 1 + growth * xp.maximum(self.mmse(snr[:-1]), 0) / self.dim
            return row._replace(spread=row.spread * xp.sqrt(widen))
        widen = 1 + growth[:, None] * np.maximum(self.mmse.directions(snr[:-1]), 0)
        return row._replace(spread=row.spread[:, None] * np.sqrt(widen))


@dataclasses.dataclass(frozen=True, eq=False)
class StepInBasis:
    """The affine step with noise whose deviations are row.spread (d,) along the columns of a basis (d, d)."""

    basis: np.ndarray

    def __call__(self, score, x, row, z):
        """One step with noise."""
        axes = jnp.asarray(self.basis, x.dtype)
        return noiseless_step(score, x, row, z) + jnp.matmul(aligned(row.spread, z) * z, axes.T, precision="highest")

    def __eq__(self, other):
        """Steps in the very same basis are equal, so that a rebuilt kernel recompiles nothing."""
        return isinstance(other, StepInBasis) and self.basis is other.basis

    def __hash__(self):
        """Of the basis as an object."""
        return id(self.basis)
