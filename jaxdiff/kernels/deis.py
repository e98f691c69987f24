"""DEIS: the probability-flow ODE with a polynomial in time through the latest predictions of the noise."""

import dataclasses

from jaxdiff.arrays import namespace
from jaxdiff.kernels._lagrange import lagrange
from jaxdiff.kernels._multistep import (
    Init,
    Row,
    Step,
    bounded,
    check_order,
    half_log_snr,
    history,
    noise_in,
    position,
)
from jaxdiff.legendre import gauss
from jaxdiff.processes import Process, ou
from jaxdiff.types import Kernel, Nodes, ScoreFn, Whole, as_score


def deis(score: ScoreFn, order: Whole = 3, *, process: Process = ou, lower_order_final: bool = False) -> Kernel:
    """DEIS-tAB: kernel of the probability-flow ODE that interpolates the latest predictions of the noise in time.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      order: number of predictions, 1 to 4 for DEIS-tAB0 to tAB3; 1 is DDIM. The first steps use as many as there are.
      process: the process in whose time they are interpolated: the OU process, or processes.vp_linear() as published.
      lower_order_final: use no more predictions than steps are left, for few steps of which the last is long.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t.

    Raises:
      ValueError: another order.

    Accuracy: order 1 to 4, one evaluation a step; exact where the predicted noise is a polynomial of the time.
      (Starting with fewer predictions leaves an error of order 2, times about e^(-2 grid[0]).)
    Long steps: where a step in the time of `process` is more than twice as long as a step before it, and the polynomial
      would amplify errors of the predictions more than three times, that step uses fewer (`_multistep.bounded`).
    Source: Zhang, Chen, ICLR 2023, arXiv:2204.13902.
    """
    check_order(order, 4)
    coefficients = Coefficients(int(order), process, bool(lower_order_final))
    return Kernel("deis", as_score(score), coefficients, Init(int(order) - 1), Step(noise_in), position, 1, 0)


# x' = (alpha'/alpha) x - alpha' int_l^l' e^-u e(u) du.
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one order."""

    order: int
    process: Process
    lower_final: bool

    def __call__(self, grid: Nodes) -> Row:
        """The table of a grid, float64 on the host."""
        xp, level = namespace(grid), half_log_snr(grid)
        times = self.process.time(ou.snr(grid))  # the variable of the polynomials; may lie beyond the process's ends
        nodes, known = history(times, self.order, lower_final=self.lower_final)
        u, w = gauss(level[:-1], level[1:])
        mass, at = ou.alpha(grid[1:])[:, None] * w * xp.exp(-u), self.process.time(xp.exp(2 * u))
        weigh = lambda known: -xp.einsum("nq,nqp->np", mass, lagrange(nodes, known, at))
        known = bounded(times, nodes, known, -xp.expm1(-xp.diff(level)), weigh)
        return Row(grid[:-1], xp.exp(grid[:-1] - grid[1:]), weigh(known), 0 * grid[:-1])
