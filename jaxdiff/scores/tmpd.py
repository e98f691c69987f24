"""TMPD: the posterior of an inverse problem by the row sums of the denoiser's covariance."""

from typing import Any

import jax.numpy as jnp

from jaxdiff.processes import ou
from jaxdiff.scores.posterior import posterior, rounding
from jaxdiff.types import DenoiserFn, Number


def tmpd(denoiser: DenoiserFn, operator: Any, y: Any, *, noise_std: Number) -> DenoiserFn:
    """The denoiser of the law given y = A X_0 + noise, with row sums in place of the covariance A C A^T.

    C = (sigma^2/alpha) dD/dx, as in `mmps`, and A C A^T is replaced by the diagonal matrix of A C A^T 1. This costs two
    products with the transposed Jacobian. Exact for a normal law if A C A^T is diagonal. Bias: positively correlated
    observations count as noisier than they are, except along (1, ..., 1); negatively correlated ones count as less
    noisy. An observation whose row sum is not positive is noised by noise_std alone, and ignored where noise_std is 0.

    Args:
      denoiser, operator, y, noise_std: as in `mmps`.

    Returns:
      A denoiser, a pytree.

    Raises:
      ValueError: y or noise_std does not fit.
    Source: Boys et al. 2023, arXiv:2310.06721.
    """
    return posterior(_by_row_sums, denoiser, operator, y, noise_std)


def _by_row_sums(operator, along, back, variance, r, t):
    factor = ou.sigma(t) ** 2 / ou.alpha(t)
    noise, share = variance / (variance + factor), factor / (variance + factor)
    sums = operator.forward(back(operator.transposed(jnp.ones_like(r))))
    total = noise + share * jnp.maximum(sums, 0)
    positive = total > share * rounding(t, r) + jnp.finfo(r.dtype).tiny
    return share * back(operator.transposed(jnp.where(positive, r / jnp.where(positive, total, 1), 0)))
