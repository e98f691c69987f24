"""Euler's method for the probability-flow ODE."""

from jaxdiff.kernels._affine import Row, identity, noiseless_step
from jaxdiff.types import Kernel, Nodes, ScoreFn, as_score


def euler(score: ScoreFn) -> Kernel:
    """Kernel of the probability-flow ODE dX/dt = -X - s by Euler's method: x and the score are frozen over a step.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t.

    Accuracy: order 1. On a point mass a step from t to t/2 near 0 multiplies the distance from the point by 3/4 instead
      of 0.7071, and no step multiplies it by less than 1/2; ddim is exact there.
    Source: Song et al., ICLR 2021, arXiv:2011.13456.
    """
    return Kernel("euler", as_score(score), coefficients, identity, noiseless_step, identity, 1, 0)


# x' = x + h (x + s).
def coefficients(grid: Nodes) -> Row:
    """The table of a grid, float64 on the host."""
    h = grid[:-1] - grid[1:]
    return Row(t=grid[:-1], keep=1 + h, gain=h, spread=0 * h)
