"""Reconstruction guidance (DPS): the posterior of an inverse problem as if the denoiser were exact."""

from typing import Any

from jax.core import Tracer

from jaxdiff.arrays import like
from jaxdiff.processes import ou
from jaxdiff.scores.posterior import posterior
from jaxdiff.types import DenoiserFn, Number


def reconstruction_guidance(
    denoiser: DenoiserFn, operator: Any, y: Any, *, noise_std: Number, scaled: bool = False, weight: Number = 1.0
) -> DenoiserFn:
    """The denoiser of the law given y = A X_0 + noise, with X_0 replaced by the denoiser in the likelihood.

    D_y = D + weight (sigma^2/alpha) J^T A^T (y - A D)/v, J = dD/dx. DPS has v = noise_std^2, as if X_0 given X_t had no
    variance. The scaled form has v = noise_std^2 + sigma^2/alpha^2; with noise_std = 0 this is Ho et al.'s
    D + weight alpha J^T A^T (y - A D), which they apply to the hidden coordinates of a mask alone. The published
    algorithm of DPS divides each step by |y - A D| instead of v, with a tuned factor. Its result depends on the number
    of steps, so it is not the denoiser of any score.

    Bias on a normal law N(0, C) on the line with A = 1: samples of the reverse ODE with DPS have variance
    C exp(-C/noise_std^2) in place of C/(1 + C/noise_std^2), so DPS is always too sure. The scaled form with weight 1 is
    always too unsure: X_0 given X_t has a variance below sigma^2/alpha^2. In several dimensions its reverse ODE is too
    sure in some directions as well (benchmarks/posterior.py).

    Args:
      denoiser, operator, y, noise_std: as in `mmps`.
      scaled: whether v includes sigma^2/alpha^2.
      weight: a factor of the correction, traced.

    Returns:
      A denoiser, a pytree. It is stiff in DPS's form where noise_std is small.

    Raises:
      ValueError: y or noise_std does not fit, or noise_std is 0 and `scaled` is False.
    Source: Chung et al. 2023, arXiv:2209.14687 (DPS); Ho et al. 2022, arXiv:2204.03458 (scaled).
    """
    if not scaled and not isinstance(noise_std, Tracer) and noise_std == 0:
        raise ValueError("DPS divides by noise_std^2: noise_std = 0. Use scaled=True, or mmps.")
    return posterior(_scaled if scaled else _unscaled, denoiser, operator, y, noise_std, weight)


def _unscaled(operator, along, back, variance, r, t, weight):
    return ou.sigma(t) ** 2 / ou.alpha(t) / variance * like(weight, r) * back(operator.transposed(r))


# (sigma^2/alpha)/(noise_std^2 + sigma^2/alpha^2) = alpha/(1 + noise_std^2 alpha^2/sigma^2), and its reciprocal form has
# no division by sigma.
def _scaled(operator, along, back, variance, r, t, weight):
    alpha2, sigma2 = ou.alpha(t) ** 2, ou.sigma(t) ** 2
    factor = ou.alpha(t) * sigma2 / (variance * alpha2 + sigma2)
    return factor * like(weight, r) * back(operator.transposed(r))
