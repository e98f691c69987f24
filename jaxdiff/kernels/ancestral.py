"""Ancestral sampling (DDPM with the posterior variance): the bridge to the data, with the posterior mean for X_0."""

from typing import Any

import numpy as np

from jaxdiff.arrays import namespace
from jaxdiff.kernels._affine import Row, identity, step
from jaxdiff.processes import ou
from jaxdiff.types import Kernel, Nodes, PathCost, ScoreFn, StepTerms, as_score


def ancestral(score: ScoreFn) -> Kernel:
    """Reverse-SDE kernel that draws X_{t_next} given X_t = x and X_0 = m(x, t), the posterior mean.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t.

    Accuracy: weak order 1; exact in one step on a point mass. On N(0, I) data one step lowers the variance by
      sigma_h^2 (sigma^2 - sigma_next^2)/sigma^2, h = t - t_next (from t = 0.2 to 0.1: 0.0816).
    Source: Ho, Jain, Abbeel, NeurIPS 2020, arXiv:2006.11239 (the posterior variance).
    """
    return Kernel("ancestral", as_score(score), coefficients, identity, step, identity, 1, 1, path_cost=PATH_COST)


# By Bayes' rule X_{t_next}, given X_t = x and X_0 = m, is normal (docs/theory.md, equation 2) with
#   mean e^-h (sigma_next^2/sigma^2) x + alpha_next (sigma_h^2/sigma^2) m,   variance sigma_next^2 sigma_h^2 / sigma^2.
# Insert m = (x + sigma^2 s)/alpha and sigma^2 = sigma_h^2 + e^-2h sigma_next^2:
#   mean e^h x + e^h sigma_h^2 s = e^h x + 2 sinh(h) s.
def coefficients(grid: Nodes) -> Row:
    """The table of a grid, float64 on the host."""
    xp, t, t_next = namespace(grid), grid[:-1], grid[1:]
    h = t - t_next
    return Row(t=t, keep=xp.exp(h), gain=2 * xp.sinh(h), spread=ou.sigma(t_next) * ou.sigma(h) / ou.sigma(t))


# docs/theory.md, equation 5 with A = I: the bridge and the step are Gaussians with the same variance, so a step costs
# h L/2 with h = snr_next - snr.
def step_terms(t: Any, t_next: Any, tau: Any, curve: Any) -> StepTerms:
    """The terms of single steps; tau is not used."""
    h = ou.snr(t_next) - ou.snr(t)
    return StepTerms(np.zeros_like(h), h / 2, np.zeros_like(h))


PATH_COST = PathCost("ancestral", step_terms)
