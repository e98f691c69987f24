"""SA-Solver: exponential Adams for the eta family, with a corrector that uses the same noise as the predictor."""

import dataclasses

from jaxdiff.arrays import namespace
from jaxdiff.checks import check_number
from jaxdiff.kernels._multistep import (
    CorrectedInit,
    CorrectedRow,
    CorrectedStep,
    Init,
    Row,
    Step,
    before,
    check_order,
    denoised,
    denoiser_history,
    denoiser_weights,
    half_log_snr,
    linear_part,
    position,
)
from jaxdiff.types import Kernel, Nodes, Number, ScoreFn, Whole, as_score


def sa_solver(
    score: ScoreFn,
    predictor_order: Whole = 3,
    corrector_order: Whole = 3,
    *,
    eta: Number = 0.4,
    lower_order_final: bool = False,
) -> Kernel:
    """Kernel of dY = (Y + (1 + eta^2) s) du + eta sqrt(2) dB that interpolates denoisers in log(alpha/sigma).

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      predictor_order: 1 to 3, the number of denoisers that predict; the first steps use as many as there are.
      corrector_order: 0 to 3, the number of denoisers that correct, including that at the predicted position; 0 is no
        corrector.
      eta: >= 0, tau in the paper; 0 is the probability-flow ODE, 1 the reverse SDE.
      lower_order_final: use no more denoisers than steps are left, which helps with few steps.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t. One evaluation a step; the last position is not
      corrected.

    Raises:
      ValueError: another order, or a negative eta.

    Accuracy: by default order 3 for eta = 0; with noise the law's error is of order 2 on Gaussian data. Exact on a
      point mass. (Starting with fewer denoisers leaves an error of order 2, times about e^(-2 grid[0]).) A corrector
      of lower order lowers the order of the kernel: with eta = 0, corrector_order = 1 gives order 1 and
      corrector_order = 2 gives order 2.
    Long steps: where a step is more than twice as long as a step before it, and the polynomial would amplify errors of
      the denoiser more than three times, that step uses fewer denoisers (`_multistep.bounded`). On a flow grid from
      .999 to 0 in ten steps the standard deviation .5 of N(0, 1/4) comes out as .506; the full order makes it 13.0.
    Source: Xue et al., NeurIPS 2023, arXiv:2309.05019.
    """
    check_order(predictor_order, 3)
    check_order(corrector_order, 3, least=0)
    check_number(eta, "eta")
    if not eta >= 0:
        raise ValueError(f"eta must not be negative: eta = {eta:g}. 0 is the ODE, 1 the reverse SDE.")
    coefficients = Coefficients(int(predictor_order), int(corrector_order), float(eta), bool(lower_order_final))
    past = int(max(predictor_order, corrector_order)) - 1
    init, step = Init(past), Step(denoised)
    if corrector_order:
        init, step = CorrectedInit(past), CorrectedStep(denoised)
    return Kernel("sa_solver", as_score(score), coefficients, init, step, position, 1, int(eta > 0))


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for the two orders and one eta."""

    predictor_order: int
    corrector_order: int
    eta: float
    lower_final: bool

    def __call__(self, grid: Nodes) -> Row | CorrectedRow:
        """The table of a grid, float64 on the host."""
        xp, level = namespace(grid), half_log_snr(grid)
        keep, spread = linear_part(grid, self.eta)
        nodes, known = denoiser_history(grid, self.predictor_order, self.eta, lower_final=self.lower_final)
        row = Row(grid[:-1], keep, denoiser_weights(grid, nodes, known, self.eta), spread)
        if self.corrector_order == 0:
            return row
        depth = self.corrector_order - 1
        nodes, known = denoiser_history(grid, depth, self.eta, lower_final=self.lower_final, beside=1)
        nodes = xp.concatenate([level[1:, None], nodes], axis=1)
        known = xp.concatenate([xp.ones((len(nodes), 1), bool), known], axis=1)
        return before(row, denoiser_weights(grid, nodes, known, self.eta))
