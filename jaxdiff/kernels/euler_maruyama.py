"""The Euler-Maruyama method for the reverse SDE."""

from jaxdiff.arrays import namespace
from jaxdiff.kernels._affine import Row, identity, step
from jaxdiff.types import Kernel, Nodes, ScoreFn, as_score


def euler_maruyama(score: ScoreFn) -> Kernel:
    """Kernel of the reverse SDE dY = (Y + 2 s) du + sqrt(2) dB with the drift frozen over a step.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t.

    Accuracy: weak order 1; on N(0, I) data one step of length h adds h^2 to the variance. Exponential Euler costs the
      same and solves the linear part exactly.
    Source: Song et al., ICLR 2021, arXiv:2011.13456.
    """
    return Kernel("euler_maruyama", as_score(score), coefficients, identity, step, identity, 1, 1)


# x' = x + h (x + 2 s) + sqrt(2 h) z.
def coefficients(grid: Nodes) -> Row:
    """The table of a grid, float64 on the host."""
    h = grid[:-1] - grid[1:]
    return Row(t=grid[:-1], keep=1 + h, gain=2 * h, spread=namespace(grid).sqrt(2 * h))
