"""Covariance matching: the ancestral mean, and an innovation whose covariance is computed from the score's Jacobian."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.arrays import aligned
from jaxdiff.checks import check_number
from jaxdiff.kernels._affine import identity
from jaxdiff.kernels.ancestral import coefficients as ancestral_coefficients
from jaxdiff.lanczos import SpectralFunction, applied, applied_in_full
from jaxdiff.processes import ou
from jaxdiff.types import Kernel, Nodes, Particles, PathCost, ScoreFn, StepTerms, Whole, as_score


def covariance_matched(score: ScoreFn, *, products: Whole | None = None) -> Kernel:
    """Ancestral kernel whose innovation has the exact conditional covariance.

    Args:
      score: s(x, t), the gradient of log q_t at x, differentiable; shapes (..., d), () -> (..., d), rows independent.
      products: None is for small d. It forms the covariance by d products with the score's Jacobian, and computes its
        square root from the eigenvalues, for every particle. A whole number applies the square root by so many steps
        of Lanczos' method. Each step takes one product with the Jacobian and one with its transpose. The result is
        exact if `products` is at least d, or at least the number of different eigenvalues of the covariance.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t. A step costs one evaluation and the products. First
      derivatives exist in forward and reverse mode, also where variances coincide. Negative posterior variances are
      replaced by 0; the derivative at 0 is the one towards positive variances. Second derivatives are finite only
      where the innovation's variances differ from each other.

    Raises:
      ValueError: products is less than 1.

    Accuracy: weak order 2, path KL O(1/N^2); exact in one step on every Gaussian, without knowing its eigenbasis.
    Source: Ou et al. 2024, arXiv:2406.10808 (learned, diagonal); here from the Jacobian, by the second Tweedie formula.
    """
    if products is not None:
        check_number(products, "products", "a whole number, or None")
    if products is not None and (products < 1 or products != int(products)):
        raise ValueError(f"products must be a whole number, at least 1, or None: products = {products}.")
    chosen = step if products is None else LanczosStep(int(products))
    score = as_score(score)
    return Kernel("covariance_matched", score, coefficients, identity, chosen, identity, 1, 1, path_cost=PATH_COST)


class Row(NamedTuple):
    """Coefficients of every step, arrays of shape (n_steps,): the ancestral ones, and the growth of the snr."""

    t: Any
    keep: Any
    gain: Any
    spread: Any
    growth: Any  # (snr_next - snr)/snr
    variance: Any  # sigma^2


def coefficients(grid: Nodes) -> Row:
    """The table of a grid, float64 on the host."""
    row = ancestral_coefficients(grid)
    snr, snr_next = ou.snr(grid[:-1]), ou.snr(grid[1:])
    return Row(*row, growth=(snr_next - snr) / snr, variance=ou.sigma(grid[:-1]) ** 2)


def _root(variances):
    """sqrt(max(l, 1))."""
    return jnp.sqrt(jnp.maximum(variances, 1))


# (max(a, 1) - max(b, 1))/(a - b) is the fraction of the interval from b to a that lies above 1. At a = b = 1 it is
# taken as 1, because the posterior variances of an exact score can only grow from 0. Rounding can move a posterior
# variance of 0 slightly below 0. So an eigenvalue that is below 1 by no more than rounding counts as 1.
def _divided(a, b):
    """The divided differences of `_root`."""
    nearly = 1 - jnp.finfo(a.dtype).eps ** 0.5
    a, b = (jnp.where(one > nearly, jnp.maximum(one, 1), one) for one in (a, b))
    equal = a == b
    above = (jnp.maximum(a, 1) - jnp.maximum(b, 1)) / jnp.where(equal, 1, a - b)
    return jnp.where(equal, (a >= 1).astype(a.dtype), above) / (_root(a) + _root(b))


ROOT = SpectralFunction(_root, _divided)


# Cov(X_0 | X_t = x) = (sigma^2/alpha) dm/dx = (I + sigma^2 ds/dx)/snr, so by total variance the step's covariance is
#   v0 (I + (snr_next - snr) Cov(X_0 | X_t = x)) = v0 (I + growth (I + sigma^2 ds/dx)),   v0 the ancestral variance.
# The Jacobian of a learned score may be asymmetric, and its symmetric part may give negative variances. The step uses
# the symmetric part, and replaces negative posterior variances by 0.
def step(score: ScoreFn, x: Particles, row: Row, z: Particles) -> Particles:
    """One step with noise."""
    s, along = jax.linearize(lambda x: score(x, row.t), x)
    eye = jnp.eye(x.shape[-1], dtype=x.dtype)
    columns = jax.vmap(lambda direction: along(jnp.broadcast_to(direction, x.shape)), out_axes=-1)(eye)
    jacobian = (columns + jnp.swapaxes(columns, -1, -2)) / 2
    eye = aligned(eye, jacobian)
    covariance = eye + row.growth * (eye + row.variance * jacobian)
    return row.keep * x + row.gain * s + row.spread * applied_in_full(ROOT, covariance, z)


@dataclasses.dataclass(frozen=True)
class LanczosStep:
    """One step with noise whose root of the covariance is applied by Lanczos' method."""

    products: int

    def __call__(self, score: ScoreFn, x: Particles, row: Row, z: Particles) -> Particles:
        """One step with noise."""
        d = x.shape[-1]
        rows = lambda value: value.reshape(-1, d)
        s, along = jax.linearize(lambda x: score(x, row.t), x)
        back = jax.linear_transpose(along, x)

        def covariance(v):
            v = v.reshape(x.shape)
            return rows(v + row.growth * (v + row.variance * ((along(v) + back(v)[0]) / 2)))

        noise = applied(ROOT, covariance, rows(z), min(self.products, d)).reshape(x.shape)
        return row.keep * x + row.gain * s + row.spread * noise


# docs/theory.md, equation 5: mean and covariance are those of the true step, so a step costs
# (1/2) E log det(I + h Cov(X_0 | X_t)).
def step_terms(t: Any, t_next: Any, tau: Any, curve: Any) -> StepTerms:
    """The terms of single steps; tau is not used."""
    snr, zero = ou.snr(t), np.zeros(np.broadcast(t, t_next).shape)
    return StepTerms(log_det(curve, snr, ou.snr(t_next) - snr) / 2, zero, zero)


def log_det(curve: Any, snr: Any, h: Any) -> Any:
    """E log det(I + h Cov(X_0 | X_t)) of a curve, for snr and h of one shape.

    Raises:
      ValueError: the curve does not have it.
    """
    if curve.log_det is None:
        raise ValueError(
            "covariance matching needs a curve with log_det: a known target's, or loss_curve(..., products=...)."
        )
    return curve.log_det(snr, h)


PATH_COST = PathCost("covariance_matched", step_terms, uses="log_det")
