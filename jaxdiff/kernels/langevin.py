"""Inexact Langevin: Euler-Maruyama at one fixed noise time, with whatever score is at hand."""

import dataclasses

from jaxdiff.kernels.affine import Row, identity, step
from jaxdiff.processes import namespace
from jaxdiff.types import Kernel, ScoreFn, as_score


def langevin(score: ScoreFn, time: float) -> Kernel:
    """Kernel that moves particles towards q_time by dX = s(X, time) du + sqrt(2) dB, score frozen over a step.

    Args:
      score: s(x, t), exact or not; shapes (..., d), () -> (..., d).
      time: the fixed OU time of the law to sample, > 0.

    Returns:
      A Kernel. Its grid is its own running time, down to 0: np.linspace(langevin_time, 0, n_steps + 1).

    Raises:
      ValueError: time <= 0.

    Accuracy: on N(0, v) the stationary variance is v/(1 - h/(2v)), for h < 2v; beyond that it diverges.
    Source: Pedrotti, Maas, Mondelli, arXiv:2305.14164, section 4.1 (the scheme; T_2 is langevin_time).
    """
    if not time > 0:
        raise ValueError(f"time must be positive: time = {time:g}. It is the OU time whose law is sampled.")
    return Kernel(
        "langevin", as_score(score), Coefficients(float(time)), identity, step, identity, 1, 1, own_clock=True
    )


# Freeze s at x for a running time h: x' = x + h s + sqrt(2h) z.
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a running-time grid at one OU time."""

    time: float

    def __call__(self, grid):
        """The table of a grid, float64 on the host."""
        xp, h = namespace(grid), grid[:-1] - grid[1:]
        return Row(t=xp.full_like(h, self.time), keep=xp.ones_like(h), gain=h, spread=xp.sqrt(2 * h))
