"""Pi-GDM: the posterior of an inverse problem by one variance for all directions."""

import dataclasses
import math
from typing import Any

from jaxdiff.arrays import like
from jaxdiff.checks import check_whole
from jaxdiff.processes import ou
from jaxdiff.scores.linear_map import linear_map
from jaxdiff.scores.posterior import conjugate_gradients, posterior
from jaxdiff.types import DenoiserFn, Number, Whole

ITERATIONS = 32  # of conjugate gradients, where there are as many observations; a mask needs one


def pi_gdm(
    denoiser: DenoiserFn,
    operator: Any,
    y: Any,
    *,
    noise_std: Number,
    data_variance: Number = 1.0,
    iterations: Whole | None = None,
) -> DenoiserFn:
    """The denoiser of the law given y = A X_0 + noise, with r_t^2 I as the covariance of X_0 given X_t.

    D_y = D + (sigma^2/alpha) J^T A^T (noise_std^2 I + r_t^2 A A^T)^-1 (y - A D), J = dD/dx. For data N(m, v I) the
    covariance is r_t^2 = v sigma^2/(alpha^2 v + sigma^2). For v = 1 it is sigma^2, the form in OU time of the paper's
    s^2/(1 + s^2) with s = sigma/alpha. Exact for N(m, v I). Bias on other laws: directions of variance below v are
    corrected too little at middle times, and those above v too much.

    Args:
      denoiser, operator, y, noise_std: as in `mmps`.
      data_variance: v > 0.
      iterations: steps of conjugate gradients; each costs a product with A and one with its transpose, and none with
        the Jacobian. None: the number of observations, at most 32.

    Returns:
      A denoiser, a pytree.

    Raises:
      ValueError: y, noise_std, data_variance or iterations do not fit.
    Source: Song, Vahdat, Mardani, Kautz, ICLR 2023.
    """
    operator = linear_map(operator)
    if iterations is None:
        iterations = min(math.prod(operator.observed), ITERATIONS)
    check_whole(iterations, "iterations")
    if not 0 < data_variance < math.inf:
        raise ValueError(f"data_variance must be positive and finite: data_variance = {data_variance:g}.")
    return posterior(_ByOneVariance(int(iterations)), denoiser, operator, y, noise_std, float(data_variance))


@dataclasses.dataclass(frozen=True)
class _ByOneVariance:
    iterations: int

    def __call__(self, operator, along, back, variance, r, t, data_variance):
        sigma2, alpha, data_variance = ou.sigma(t) ** 2, ou.alpha(t), like(data_variance, r)
        # sigma2 times `scaled` is r_t^2; the system is divided by variance + r_t^2.
        scaled = data_variance / (alpha**2 * data_variance + sigma2)
        total = variance + scaled * sigma2
        noise, share = variance / total, scaled * sigma2 / total
        covariance = lambda u: share * operator.forward(operator.transposed(u))
        u = conjugate_gradients(operator, noise, covariance, r, self.iterations, 0)
        return share / (scaled * alpha) * back(operator.transposed(u))
