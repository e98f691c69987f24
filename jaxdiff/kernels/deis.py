"""DEIS: the probability-flow ODE with a polynomial in time through the last predictions of the noise."""

import dataclasses

from jaxdiff.kernels.exponential_adams import check_order
from jaxdiff.kernels.multistep import Init, Row, Step, gauss, half_log_snr, history, lagrange, noise_in, position
from jaxdiff.processes import namespace, ou
from jaxdiff.types import Kernel, ScoreFn, as_score


def deis(score: ScoreFn, order: int = 3, *, lower_order_final: bool = False) -> Kernel:
    """DEIS-tAB: kernel of the probability-flow ODE, the last predictions of the noise interpolated in OU time.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      order: 1 to 4 predictions, DEIS-tAB0 to tAB3; 1 is DDIM. The first steps use as many as there are.
      lower_order_final: use no more of them than steps are left, for few steps and a long last one.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t.

    Raises:
      ValueError: another order.

    Accuracy: order 1 to 4, one evaluation a step; exact where the predicted noise is a polynomial of the time.
    Source: Zhang, Chen, ICLR 2023, arXiv:2204.13902 (t is there the time of a linear VP schedule).
    """
    check_order(order, 4)
    coefficients = Coefficients(order, bool(lower_order_final))
    return Kernel("deis", as_score(score), coefficients, Init(order - 1), Step(noise_in), position, 1, 0)


# x' = (alpha'/alpha) x - alpha' int_l^l' e^-u e(u) du.
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one order."""

    order: int
    lower_final: bool = False

    def __call__(self, grid):
        """The table of a grid, float64 on the host."""
        xp, level = namespace(grid), half_log_snr(grid)
        nodes, known = history(grid, self.order, lower_final=self.lower_final)
        u, w = gauss(level[:-1], level[1:])
        mass = ou.alpha(grid[1:])[:, None] * w * xp.exp(-u)
        weights = -xp.einsum("nq,nqp->np", mass, lagrange(nodes, known, ou.time(xp.exp(2 * u))))
        return Row(grid[:-1], xp.exp(grid[:-1] - grid[1:]), weights, 0 * grid[:-1])
