"""Moment matching: the ancestral mean with the innovation's own variance."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxdiff.kernels.affine import identity, step
from jaxdiff.kernels.ancestral import coefficients as ancestral_coefficients
from jaxdiff.processes import namespace, ou
from jaxdiff.types import Kernel, ScoreFn, as_score, dim_of


def moment_matched(score: ScoreFn, mmse: Callable[..., Any], *, dim: int | None = None) -> Kernel:
    """Ancestral kernel whose variance is widened by what the posterior mean leaves open.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      mmse: a Curve, snr -> E|X_0 - m(X_t, t)|^2 summed over coordinates; for a learned score its held-out loss.
      dim: d, where mmse is a plain callable.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t. A traced grid needs an mmse that can be traced; a
      Curve is a host function.

    Raises:
      TypeError: mmse has no `.dim` and none is given.

    Accuracy: weak order 1; exact in one step on N(mu, v I) and on a point mass, where its path KL is 0.
    Source: Bao et al. 2022 (Analytic-DPM, the optimal isotropic variance), arXiv:2201.06503.
    """
    table = Coefficients(mmse, dim_of(mmse, dim))
    return Kernel("moment_matched", as_score(score), table, identity, step, identity, 1, 1)


# X_{t_next} | X_t = x has the ancestral mean, and by total variance the ancestral variance v0 plus that of
# alpha_next (sigma_h^2/sigma^2) X_0. With V/d a coordinate for Cov(X_0 | X_t) the sum is v0 (1 + (snr_next - snr) V/d).
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one error curve; kernels of one curve are equal, so a rebuilt one recompiles nothing."""

    mmse: Callable[..., Any]
    dim: int

    def __call__(self, grid):
        """The table of a grid, float64 on the host."""
        row = ancestral_coefficients(grid)
        widen = 1 + (ou.snr(grid[1:]) - ou.snr(grid[:-1])) * self.mmse(ou.snr(grid[:-1])) / self.dim
        return row._replace(spread=row.spread * namespace(grid).sqrt(widen))
