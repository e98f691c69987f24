"""DPM-Solver++ multistep: the denoiser's divided differences, with the published coefficients."""

import dataclasses

from jaxdiff.arrays import namespace
from jaxdiff.checks import check_number
from jaxdiff.kernels._multistep import (
    Init,
    Row,
    Step,
    check_order,
    denoised,
    denoiser_history,
    half_log_snr,
    linear_part,
    position,
)
from jaxdiff.legendre import gauss
from jaxdiff.processes import ou
from jaxdiff.types import Kernel, Nodes, Number, ScoreFn, Whole, as_score


def dpm_solver(score: ScoreFn, order: Whole = 2, *, eta: Number = 0.0, lower_order_final: bool = False) -> Kernel:
    """DPM-Solver++ (2M, 3M) for the probability-flow ODE; with eta = 1 SDE-DPM-Solver++ (2M) for the reverse SDE.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      order: 1, 2 or 3; the first steps use as many denoisers as there are.
      eta: the noise of the family dY = (Y + (1 + eta^2) s) du + eta sqrt(2) dB, >= 0; 0 is the ODE.
      lower_order_final: use no more denoisers than steps are left, which helps with few steps.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t.

    Raises:
      ValueError: another order, order 3 with noise, or a negative eta.

    Accuracy: order 1 and 2. 3M as published is of order 2 too, since its second difference enters with half its weight;
      exponential_adams has orders 3 and 4. With eta > 0 the law's error is of order 1 and 2 on Gaussian data. Exact on
      a point mass.
    Long steps: where a step is more than twice as long as a step before it, and the polynomial would amplify errors of
      the denoiser more than three times, that step uses fewer denoisers (`_multistep.bounded`). On a flow grid from
      .999 to 0 in ten steps the standard deviation .5 of N(0, 1/4) comes out as .498 for order 3 (2.19 at full order).
    Source: Lu et al. 2022, arXiv:2211.01095 (2M; its SDE form in the appendix); 3M as in its authors' code.
    """
    check_order(order, 3)
    check_number(eta, "eta")
    if not eta >= 0 or (eta > 0 and order == 3):
        raise ValueError(f"eta must not be negative, and 0 for order 3: eta = {eta:g}.")
    coefficients = Coefficients(int(order), float(eta), bool(lower_order_final))
    return Kernel(
        "dpm_solver", as_score(score), coefficients, Init(int(order) - 1), Step(denoised), position, 1, int(eta > 0)
    )


# With u in [0, h] since the node, a = 1 + eta^2 and moments M_k = int a e^(-a (h - u)) (u/h)^k du:
#   m(u) = m + D_1 u/h + D_2 (u/h)^2  gives  x' = keep x + alpha' (M_0 m + M_1 D_1 + M_2 D_2).
# 2M takes M_0/2 for M_1, and 3M takes M_2/2 for M_2. The differences, with r_j = h_j/h of the steps before:
#   2M: D_1 = (m - m_1)/r_1.   3M: D_2 = ((m - m_1)/r_1 - (m_1 - m_2)/r_2)/(r_1 + r_2), D_1 = (m - m_1)/r_1 + r_1 D_2.
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one order and eta."""

    order: int
    eta: float = 0.0
    lower_final: bool = False

    def __call__(self, grid: Nodes) -> Row:
        """The table of a grid, float64 on the host."""
        xp, level = namespace(grid), half_log_snr(grid)
        keep, spread = linear_part(grid, self.eta)
        h, (nodes, known) = xp.diff(level), denoiser_history(grid, 3, self.eta, lower_final=self.lower_final)
        r_1, r_2 = (xp.where(known[:, j], (nodes[:, j - 1] - nodes[:, j]) / xp.where(h > 0, h, 1), 1) for j in (1, 2))
        zero, moments = 0 * h, _moments(h, 1 + self.eta**2)
        first = zero + 1, zero, zero
        slope = 1 / r_1, -1 / r_1, zero
        curve = slope[0] / (r_1 + r_2), (slope[1] - 1 / r_2) / (r_1 + r_2), 1 / r_2 / (r_1 + r_2)
        rows = [xp.stack([moments[0] * one for one in first], -1)]
        rows.append(rows[0] + xp.stack([moments[0] / 2 * one for one in slope], -1))
        slope_3m = [s + r_1 * c for s, c in zip(slope, curve, strict=True)]
        pairs = zip(first, slope_3m, curve, strict=True)
        rows.append(xp.stack([moments[0] * f + moments[1] * s + moments[2] / 2 * c for f, s, c in pairs], -1))
        weights = rows[0]
        for order in range(2, self.order + 1):
            weights = xp.where(known[:, order - 1, None], rows[order - 1], weights)
        return Row(grid[:-1], keep, ou.alpha(grid[1:])[:, None] * weights[:, : self.order], spread)


def _moments(h, a):
    """M_0, M_1 and M_2, each (n_steps,)."""
    u, w = gauss(0 * h, 0 * h + 1)  # in units of h
    mass = w * (a * h)[:, None] * namespace(h).exp(-a * h[:, None] * (1 - u))
    return [(mass * u**k).sum(-1) for k in range(3)]
