"""Exponential Euler: the reverse SDE, its linear drift solved exactly, the score frozen over a step."""

from typing import Any

import numpy as np

from jaxdiff.arrays import namespace
from jaxdiff.kernels._affine import Row, identity, step
from jaxdiff.processes import ou
from jaxdiff.types import Kernel, Nodes, PathCost, ScoreFn, StepTerms, as_score


def exponential_euler(score: ScoreFn) -> Kernel:
    """Kernel of the reverse SDE of dX = -X dt + sqrt(2) dB that solves the linear drift exactly and freezes the score.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t.

    Accuracy: weak order 1; on N(0, I) data one step adds 2 (e^h - 1)^2 to the variance (at h = 0.1: 0.0221).
    Source: Benton et al., ICLR 2024, arXiv:2308.03686.
    """
    score = as_score(score)
    return Kernel("exponential_euler", score, coefficients, identity, step, identity, 1, 1, path_cost=PATH_COST)


# In reverse time the particle obeys dY = (Y + 2 s) du + sqrt(2) dW. Freeze s at (x, t):
#   Y_h = e^h x + 2 (e^h - 1) s + N(0, e^2h - 1),   h = t - t_next.
# The code uses expm1, because at h = 1e-5 the subtraction e^h - 1 loses five digits even in float64.
def coefficients(grid: Nodes) -> Row:
    """The table of a grid, float64 on the host."""
    xp, h = namespace(grid), grid[:-1] - grid[1:]
    return Row(t=grid[:-1], keep=xp.exp(h), gain=2 * xp.expm1(h), spread=xp.sqrt(xp.expm1(2 * h)))


# docs/theory.md, equation 10, by Girsanov's theorem. Without the integral of V, with g = t - t_next and a = 1 - e^-g, a
# step costs
#   (d/sigma^2)(g - 2a) + g (alpha^2/sigma^4) L - 2 (g - a)(alpha/sigma^3) K + (d/2) log(snr_next/snr).
def step_terms(t: Any, t_next: Any, tau: Any, curve: Any) -> StepTerms:
    """The terms of single steps; tau is not used."""
    g, snr = t - t_next, ou.snr(t)
    a = -np.expm1(-g)
    constant = curve.dim * ((1 + snr) * (g - 2 * a) + 0.5 * np.log(ou.snr(t_next) / snr))
    return StepTerms(constant, g * snr * (1 + snr), -2 * (g - a) * np.sqrt(snr) * (1 + snr))


PATH_COST = PathCost("exponential_euler", step_terms, uses="cross")
