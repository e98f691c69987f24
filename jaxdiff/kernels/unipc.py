"""UniPC: an exponential multistep method in the denoiser that corrects every position with the denoiser there."""

import dataclasses

import numpy as np

from jaxdiff.arrays import namespace
from jaxdiff.kernels._multistep import (
    CorrectedInit,
    CorrectedRow,
    CorrectedStep,
    before,
    check_order,
    denoised,
    denoiser_history,
    denoiser_weights,
    half_log_snr,
    position,
)
from jaxdiff.kernels.dpm_solver import Coefficients as DPMSolver
from jaxdiff.kernels.exponential_adams import Coefficients as ExponentialAdams
from jaxdiff.types import Kernel, Nodes, ScoreFn, Whole, as_score


def unipc(score: ScoreFn, order: Whole = 3, *, lower_order_final: bool = False) -> Kernel:
    """UniPC, B(h) = e^h - 1, in the denoiser: kernel of the probability-flow ODE, predictor and corrector of one order.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      order: 1, 2 or 3; the first steps use as many denoisers as there are.
      lower_order_final: predict with no more denoisers than steps are left, which helps with few steps.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t. It takes one evaluation a step: the denoiser at the
      predicted position corrects this position, and is used for the next prediction. The last position is not
      corrected.

    Raises:
      ValueError: another order.

    Accuracy: order 2, 3 and 4 for `order` 1, 2 and 3: one more than the predictor's. Exact on a point mass. (Starting
      with fewer denoisers leaves an error of order 3, times about e^(-2 grid[0]).)
    Long steps: where a step is more than twice as long as a step before it, and the polynomial would amplify errors of
      the denoiser more than three times, that step uses fewer denoisers (`_multistep.bounded`). On a flow grid from
      .999 to 0 in ten steps the standard deviation .5 of N(0, 1/4) comes out as .494; the full order makes it 5.68.
    Source: Zhao et al., NeurIPS 2023, arXiv:2302.04867.
    """
    check_order(order, 3)
    coefficients = Coefficients(int(order), bool(lower_order_final))
    init, step = CorrectedInit(int(order)), CorrectedStep(denoised)
    return Kernel("unipc", as_score(score), coefficients, init, step, position, 1, 0)


# UniP-1, -2 and -3 are DDIM, DPM-Solver++ 2M and exponential Adams 3. UniC-p integrates the polynomial through the
# denoiser at the new node and the p before it; for p = 1 the paper takes half of each.
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one order."""

    order: int
    lower_final: bool = False

    def __call__(self, grid: Nodes) -> CorrectedRow:
        """The table of a grid, float64 on the host."""
        xp, level = namespace(grid), half_log_snr(grid)
        row = DPMSolver(min(self.order, 2), lower_final=self.lower_final)(grid)
        nodes, known = denoiser_history(grid, self.order, 0.0, lower_final=self.lower_final)
        if self.order == 3:
            weights = xp.where(known[:, 2:], ExponentialAdams(3)(grid).weights, _padded(row.weights, 3))
            row = row._replace(weights=weights)
        nodes = xp.concatenate([level[1:, None], nodes], axis=1)
        known = xp.concatenate([xp.ones_like(known[:, :1]), known], axis=1)
        weights = denoiser_weights(grid, nodes, known, 0.0)
        halves = xp.where(np.arange(self.order + 1) < 2, weights.sum(-1, keepdims=True) / 2, 0)
        weights = xp.where(known.sum(-1, keepdims=True) > 2, weights, halves)
        return before(row, weights)


def _padded(weights, width):
    xp = namespace(weights)
    return xp.concatenate([weights, xp.zeros((len(weights), width - weights.shape[1]))], axis=1)
