"""MMPS: the posterior of an inverse problem by the denoiser's own covariance."""

import dataclasses
import math
from typing import Any

from jaxdiff.checks import check_whole
from jaxdiff.processes import ou
from jaxdiff.scores.linear_map import linear_map
from jaxdiff.scores.posterior import conjugate_gradients, posterior, rounding
from jaxdiff.types import DenoiserFn, Number, Whole

ITERATIONS = 8  # of conjugate gradients, where there are as many observations


def mmps(
    denoiser: DenoiserFn, operator: Any, y: Any, *, noise_std: Number, iterations: Whole | None = None
) -> DenoiserFn:
    """The denoiser of the law given y = A X_0 + noise, with the covariance of X_0 given X_t from the denoiser.

    D_y = D + C A^T (noise_std^2 I + A C A^T)^-1 (y - A D) with C = (sigma^2/alpha) dD/dx (moment matching). Exact for a
    normal law with an exact denoiser, if `iterations` is at least the number of observations. Bias on other laws: X_0
    given X_t is treated as normal. Any bias falls to 0 as t falls to 0. The Jacobian of a learned denoiser is no
    covariance in some directions: the iterations stop before a direction along which it is not positive.

    Args:
      denoiser: D(x, t), differentiable in x; rows independent.
      operator: A, as `linear_map` takes it: a mask, a matrix (m, d), a LinearMap.
      y: the observation, (..., *observed): one for all particles, or one for each. Traced. None: the result takes y as
        third argument, D_y(x, t, y).
      noise_std: the standard deviation of the observation's noise, 0 or more.
      iterations: steps of conjugate gradients; each costs a product with the denoiser's Jacobian and one with its
        transpose. None: the number of observations, at most 8.

    Returns:
      A denoiser, a pytree. processes.score_from_denoiser makes a score of it.

    Raises:
      ValueError: y, noise_std or iterations do not fit.
    Source: Rozet et al. 2024, arXiv:2405.13712.
    """
    operator = linear_map(operator)
    if iterations is None:
        iterations = min(math.prod(operator.observed), ITERATIONS)
    check_whole(iterations, "iterations")
    return posterior(_ByCovariance(int(iterations)), denoiser, operator, y, noise_std)


# With total = noise_std^2 + sigma^2/alpha and A C A^T = (sigma^2/alpha) A J A^T the system is divided by total. Its two
# factors noise and share are then between 0 and 1 at all times, also where noise_std is 0.
@dataclasses.dataclass(frozen=True)
class _ByCovariance:
    iterations: int

    def __call__(self, operator, along, back, variance, r, t):
        factor = ou.sigma(t) ** 2 / ou.alpha(t)
        noise, share = variance / (variance + factor), factor / (variance + factor)

        def covariance(u):
            v = operator.transposed(u)
            return share * operator.forward((along(v) + back(v)) / 2)

        u = conjugate_gradients(operator, noise, covariance, r, self.iterations, share * rounding(t, r))
        return share * back(operator.transposed(u))
