"""The score truncated to what data in a ball allow."""

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdiff.arrays import like, wide
from jaxdiff.checks import as_numbers, check_number, value_of
from jaxdiff.processes.ou import ou
from jaxdiff.types import Particles, ScoreFn, as_score

MARGIN = 0.05  # of a radius read off data


def truncated(score: ScoreFn, radius) -> ScoreFn:
    """The score, projected radially onto the ball around -x/sigma^2 of radius alpha R/sigma^2, where the true one lies.

    In other words its denoiser is pulled back into the ball of radius R about 0, if it has left it. At each x and t the
    result is a 1-Lipschitz function of the score's value, equal to it inside the ball, and for data with |X_0| <= R no
    further from the true score: no loss in L2 can grow. As a function of x its Lipschitz constant is at most
    sqrt(L^2 + 1/sigma^4) where the score's is L.

    Args:
      score: s(x, t); shapes (..., d), () -> (..., d).
      radius: R > 0 with |X_0| <= R, as known or as `radius_of` reads off data.

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
    centre, reach = -wide(x) / ou.sigma(t) ** 2, like(radius, x) * (ou.alpha(t) / ou.sigma(t) ** 2)
    size = jnp.maximum(jnp.max(jnp.abs(s - centre), axis=-1, keepdims=True), reach)  # so that no square overflows
    square = jnp.sum(((s - centre) / size) ** 2, axis=-1, keepdims=True)
    outside = square > (reach / size) ** 2
    share = reach / size / jnp.sqrt(jnp.where(outside, square, 1))  # the gradient of a root at 0 is never taken
    return jnp.where(outside, centre + share * (s - centre), s).astype(x.dtype)


def radius_of(data, *, margin=MARGIN):
    """A radius for `truncated`: the largest norm among data rows (n, d), times 1 + margin.

    No sample shows how far its law reaches: rows beyond the radius may exist, and for them the promises of `truncated`
    do not hold. Of n rows, another of the same law lies beyond the largest seen with probability 1/(n + 1).

    Raises:
      ValueError: data are not (n, d), not finite or all 0, or the margin is negative.
    """
    rows = as_numbers(data, "data", "an array of rows (n, d)")
    check_number(margin, "margin")
    if rows.ndim != 2 or not np.isfinite(rows).all() or not rows.any():
        raise ValueError(f"data are finite rows (n, d), not all of them 0: they have shape {rows.shape}.")
    if not 0 <= margin < np.inf:
        raise ValueError(f"margin is a share of the largest norm, 0 or more: margin = {margin:g}.")
    return float((1 + margin) * np.sqrt(np.sum(rows**2, axis=1)).max())
