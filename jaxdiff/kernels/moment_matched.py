"""Moment matching: the ancestral mean, and an innovation whose variance includes the posterior variance of X_0."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Integer

from jaxdiff.arrays import aligned, namespace
from jaxdiff.checks import described
from jaxdiff.curves.curve import check_basis, dim_of
from jaxdiff.kernels._affine import Row, identity, noiseless_step, step
from jaxdiff.kernels.ancestral import coefficients as ancestral_coefficients
from jaxdiff.processes import ou
from jaxdiff.types import Basis, Kernel, Nodes, Particles, PathCost, ScoreFn, StepTerms, Whole, as_score

TOGETHER = 8  # directions whose factors are multiplied before one logarithm is taken
OVERFLOWS = 1e35  # the eighth power of a larger factor may overflow float64; then one logarithm is taken of each


def moment_matched(
    score: ScoreFn, mmse: Callable[..., Any], *, basis: Basis = None, dim: Whole | None = None
) -> Kernel:
    """Ancestral kernel whose innovation has the true step's variance, which includes the posterior variance of X_0.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      mmse: a Curve, snr -> E|X_0 - m(X_t, t)|^2 summed over coordinates; for a learned score its held-out loss.
      basis: None sets one variance for all directions. `curve.basis`, the curve's own basis, sets a variance for each
        direction, from the error along it. That costs one matrix product a step, or none for "coordinates".
      dim: d, where mmse is a plain callable.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t. A traced grid needs an mmse that can be traced; a
      Curve is a host function.

    Raises:
      TypeError: mmse has no `.dim` and none is given.
      ValueError: the basis is not the curve's.

    Accuracy: weak order 1. One step is exact, and the path KL is 0, on N(mu, v I) and on a point mass. With a basis
      the same holds on every Gaussian whose covariance has this eigenbasis.
    Source: Bao et al. 2022 (Analytic-DPM, the optimal isotropic variance), arXiv:2201.06503.
    """
    if not callable(mmse):
        raise TypeError(f"mmse must be a Curve or another function of the snr: it is {described(mmse)}.")
    dim = dim_of(mmse, dim)
    cost = dataclasses.replace(PATH_COST, variance=mmse, basis=basis)
    if basis is None:
        coefficients, chosen = Coefficients(mmse, dim), step
    else:
        check_basis(basis, mmse)
        coefficients, chosen = Coefficients(mmse, None), step if isinstance(basis, str) else StepInBasis(basis)
    return Kernel("moment_matched", as_score(score), coefficients, identity, chosen, identity, 1, 1, path_cost=cost)


# Given X_t = x, X_{t_next} has the ancestral mean. By the law of total variance its covariance is the ancestral v0 I
# plus that of alpha_next (sigma_h^2/sigma^2) X_0. With (V/d) I in place of Cov(X_0 | X_t) the sum is
# v0 (1 + (snr_next - snr) V/d) I.
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one error curve; kernels of one curve are equal, so a rebuilt one recompiles nothing.

    dim None: the spread has d columns, one for each direction of the curve's basis.
    """

    mmse: Callable[..., Any]
    dim: int | None

    def __call__(self, grid: Nodes) -> Row:
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

    def __call__(self, score: ScoreFn, x: Particles, row: Row, z: Particles) -> Particles:
        """One step with noise."""
        axes = jnp.asarray(self.basis, x.dtype)
        return noiseless_step(score, x, row, z) + jnp.matmul(aligned(row.spread, z) * z, axes.T, precision="highest")

    def __eq__(self, other):
        """Steps in the very same basis are equal, so that a rebuilt kernel recompiles nothing."""
        return isinstance(other, StepInBasis) and self.basis is other.basis

    def __hash__(self):
        """Of the basis as an object."""
        return id(self.basis)


# docs/theory.md, equation 5 with A = w I, w = 1 + h tau/d and h = snr_next - snr. A step costs
#   (d/2)(log w + 1/w - 1) + h L/(2w).
# With a variance for each direction, w_i = 1 + h tau_i, it costs the sum of (1/2)(log w_i + 1/w_i - 1) + h L_i/(2 w_i).
def step_terms(t: Any, t_next: Any, tau: Any, curve: Any) -> StepTerms:
    """The terms of single steps; tau (steps,) is the total over the directions, tau (steps, d) the error of each."""
    h = ou.snr(t_next) - ou.snr(t)
    together = tau.shape == h.shape
    h = h if together else h[..., None]
    r = h * tau / (curve.dim if together else 1)
    constant = 0.5 * (np.log1p(r) - r / (1 + r))
    constant = curve.dim * constant if together else constant.sum(-1)
    return StepTerms(constant, h / (2 * (1 + r)), np.zeros_like(t - t_next))


# Where tau_i = max(L_i, 0) is read from the same curve, the sum is (1/2)(sum log w_i + h sum min(L_i, 0)). It needs no
# division.
def costs_of_own_losses(
    h: Float64[np.ndarray, " steps"],
    loss: Float64[np.ndarray, "times d"],
    start: Integer[np.ndarray, " steps"],
    parts: Sequence[Any],
) -> Float64[np.ndarray, " steps"]:
    """Costs (steps,) before the integral, where the losses themselves set the variance of every direction.

    h: (steps,) growth of the snr. loss: (times, d). start: (steps,) the row of `loss` for each step. parts: slices of
    the steps that are computed at once.
    """
    if loss.min() >= 0:
        return 0.5 * _log_of_products(h, loss, start, parts)
    return 0.5 * (_log_of_products(h, np.maximum(loss, 0), start, parts) + h * np.minimum(loss, 0).sum(1)[start])


# (1 + a)(1 + b) = 1 + (a + b + a b), in which no digits are lost because a and b are not negative. So the factors of
# eight directions are multiplied, and one logarithm is taken.
def _log_of_products(h, tau, start, parts):
    """(steps,) sum over directions of log(1 + h tau[start]); h (steps,), tau (times, d), neither negative."""
    together = TOGETHER if h.max(initial=0.0) * tau.max(initial=0.0) < OVERFLOWS else 1
    if tau.shape[1] % together:
        tau = np.pad(tau, ((0, 0), (0, -tau.shape[1] % together)))
    found = np.empty(len(h))
    for part in parts:
        r, left = tau[start[part]], together
        r *= h[part, None]
        while left > 1:
            first, second = np.split(r, 2, axis=1)
            r, left = first * second, left // 2
            r += first
            r += second
        found[part] = np.log1p(r).sum(1)
    return found


PATH_COST = PathCost("moment_matched", step_terms, matches=True, of_own_losses=costs_of_own_losses)
