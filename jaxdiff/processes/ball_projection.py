"""Scores and denoisers projected to what data in a ball allow."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

from jaxdiff.arrays import like, wide
from jaxdiff.checks import as_numbers, check_number, value_of
from jaxdiff.processes.ou import ou
from jaxdiff.types import DenoiserFn, Number, Particles, ScoreFn, as_score

# Fraction that is added to the largest norm among rows to get a radius. A larger margin projects fewer correct scores,
# and makes every bound in terms of the radius larger.
MARGIN = 0.05


def clipped(denoiser: DenoiserFn, radius: Number) -> DenoiserFn:
    """The denoiser projected onto the ball of a radius about 0; never worse for data that lie in it."""
    check_number(radius, "radius")
    return Partial(_clipped, as_score(denoiser, "denoiser"), float(radius))


def _clipped(denoiser, radius, x: Particles, t) -> Particles:
    m = value_of(denoiser, x, t, "denoiser")
    out = wide(m)
    outside, factor = _shrinkage(out, radius)
    return (out * jnp.where(outside, factor, 1)).astype(m.dtype)


def _shrinkage(v, radius):
    """Whether vectors v (..., d) are longer than the radius, and the factors that shorten those that are to it.

    Both are (..., 1). No square overflows, since v is divided by its largest entry first, and no root is differentiated
    at 0.
    """
    size = lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(v), axis=-1, keepdims=True), radius))
    square = jnp.sum((v / size) ** 2, axis=-1, keepdims=True)
    outside = square > (radius / size) ** 2
    return outside, radius / size / jnp.sqrt(jnp.where(outside, square, 1))


def truncated(score: ScoreFn, radius: Number) -> ScoreFn:
    """The score, projected radially onto the ball around -x/sigma^2 of radius alpha R/sigma^2.

    The exact score of data with |X_0| <= R lies in this ball. In terms of the denoiser: where it leaves the ball of
    radius R about 0, it is projected back. At each x and t the result is a 1-Lipschitz function of the score's value,
    and equal to it inside the ball. It is no further from the exact score than the score was, so no loss in L2 grows.
    As a function of x its Lipschitz constant is at most sqrt(L^2 + 1/sigma^4), where L is the score's.

    Args:
      score: s(x, t); shapes (..., d), () -> (..., d).
      radius: R > 0 with |X_0| <= R, known or read off data by `radius_of`.

    Returns:
      A score, a pytree; another radius recompiles nothing.

    Raises:
      ValueError: radius is not positive and finite.
    Source: Pedrotti, Maas, Mondelli, arXiv:2305.14164 (truncation); the ball from s = (alpha E[X_0|X_t] - x)/sigma^2.
    """
    check_number(radius, "radius")
    if not 0 < radius < np.inf:
        raise ValueError(f"radius bounds the norm of the data, positive and finite: radius = {radius:g}.")
    return Partial(_truncated, as_score(score), np.float64(radius))


def _truncated(score, radius, x: Particles, t) -> Particles:
    t = like(t, x)
    s = wide(value_of(score, x, t))
    centre, radius = -wide(x) / ou.sigma(t) ** 2, like(radius, x) * (ou.alpha(t) / ou.sigma(t) ** 2)
    outside, factor = _shrinkage(s - centre, radius)
    return jnp.where(outside, centre + factor * (s - centre), s).astype(x.dtype)


def radius_of(data: Any, *, margin: Number = MARGIN) -> float:
    """A radius for `truncated`: 1 + margin times the largest norm among data rows (n, d).

    The law may have rows beyond the radius, for which the promises of `truncated` do not hold. After n rows, the next
    row of the same law is longer than all of them with probability 1/(n + 1).

    Raises:
      ValueError: data are not (n, d), not finite or all 0, or the margin is negative.
    """
    rows = as_numbers(data, "data", "an array of rows (n, d)")
    check_number(margin, "margin")
    if rows.ndim != 2 or not np.isfinite(rows).all() or not rows.any():
        raise ValueError(f"data are finite rows (n, d), not all of them 0: they have shape {rows.shape}.")
    if not 0 <= margin < np.inf:
        raise ValueError(f"margin, a fraction of the largest norm, must be 0 or more: margin = {margin:g}.")
    return float((1 + margin) * np.sqrt(np.sum(rows**2, axis=1)).max())
