"""Exponential Adams: the probability-flow ODE with a polynomial through the latest denoisers, integrated exactly."""

import dataclasses

from jaxdiff.kernels._multistep import (
    Init,
    Row,
    Step,
    check_order,
    denoised,
    denoiser_history,
    denoiser_weights,
    linear_part,
    position,
)
from jaxdiff.types import Kernel, Nodes, ScoreFn, Whole, as_score


def exponential_adams(score: ScoreFn, order: Whole = 3, *, lower_order_final: bool = False) -> Kernel:
    """Kernel of the probability-flow ODE that interpolates the latest `order` denoisers in log(alpha/sigma).

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      order: 1 to 4; 1 is DDIM. The first steps use as many denoisers as there are.
      lower_order_final: use no more denoisers than steps are left, which helps with few steps.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t.

    Raises:
      ValueError: another order.

    Accuracy: order 1 to 4, one evaluation a step; exact on a point mass. (Starting with fewer denoisers leaves an error
      of order 2, times about e^(-2 grid[0]).)
    Long steps: where a step is more than twice as long as a step before it, and the polynomial would amplify errors of
      the denoiser more than three times, that step uses fewer denoisers (`_multistep.bounded`). On a flow grid from
      .999 to 0 in ten steps the standard deviation .5 of N(0, 1/4) comes out as .489 for order 4 (16.6 at full order).
    Source: Hochbruck, Ostermann, Acta Numerica 2010 (exponential Adams methods); in the denoiser as DPM-Solver++, Lu et
      al. 2022, arXiv:2211.01095, whose third order is not exact (see dpm_solver).
    """
    check_order(order, 4)
    coefficients = Coefficients(int(order), bool(lower_order_final))
    return Kernel(
        "exponential_adams", as_score(score), coefficients, Init(int(order) - 1), Step(denoised), position, 1, 0
    )


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one order."""

    order: int
    lower_final: bool = False

    def __call__(self, grid: Nodes) -> Row:
        """The table of a grid, float64 on the host."""
        nodes, known = denoiser_history(grid, self.order, 0.0, lower_final=self.lower_final)
        keep, spread = linear_part(grid, 0.0)
        return Row(grid[:-1], keep, denoiser_weights(grid, nodes, known, 0.0), spread)
