"""DDIM: the probability-flow ODE with the denoiser frozen over a step, and its variants with noise."""

import dataclasses

from jaxdiff.arrays import namespace
from jaxdiff.checks import check_number
from jaxdiff.kernels._affine import Row, identity, noiseless_step, step
from jaxdiff.processes import ou
from jaxdiff.types import Kernel, Nodes, Number, ScoreFn, as_score


def ddim(score: ScoreFn, eta: Number = 0.0) -> Kernel:
    """Kernel of the probability-flow ODE dX/dt = -X - s with the denoiser frozen; with eta > 0 it refreshes some noise.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      eta: 0 is the deterministic ODE step, 1 the ancestral step (Song, Meng, Ermon's eta).

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t.

    Raises:
      ValueError: eta is outside [0, 1]: the variance of the predicted noise could be negative.

    Accuracy: order 1; exact on a point mass. On N(0, I) data one step of the ODE multiplies the standard deviation by
      cos(theta - theta_next), alpha = cos theta (from t = 0.2 to 0.1: 0.9853).
    Source: Song, Meng, Ermon, ICLR 2021, arXiv:2010.02502.
    """
    check_number(eta, "eta")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1]: eta = {eta:g}. 0 is the ODE, 1 is ancestral sampling.")
    chosen, noises = (step, 1) if eta > 0 else (noiseless_step, 0)
    return Kernel("ddim", as_score(score), Coefficients(float(eta)), identity, chosen, identity, 1, noises)


# Keep the prediction m of X_0 and the prediction n = -sigma s of the noise, refresh a part v of the noise's variance:
#   x' = alpha_next m + sqrt(sigma_next^2 - v) n + sqrt(v) z,   v = eta^2 sigma_next^2 sigma_h^2 / sigma^2.
# With m = (x + sigma^2 s)/alpha the gain is e^h sigma^2 - sigma_next r, r = sqrt(sigma^2 - eta^2 sigma_h^2). Both parts
# are nearly equal, so multiply by their sum: e^2h sigma^4 - sigma_next^2 r^2
#   = sigma^2 (e^2h sigma^2 - sigma_next^2) + eta^2 sigma_next^2 sigma_h^2,   e^2h sigma^2 - sigma_next^2 = e^2h - 1.
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one eta."""

    eta: float

    def __call__(self, grid: Nodes) -> Row:
        """The table of a grid, float64 on the host."""
        xp, t, t_next = namespace(grid), grid[:-1], grid[1:]
        h = t - t_next
        sigma, sigma_next, refreshed = ou.sigma(t), ou.sigma(t_next), self.eta * ou.sigma(h)
        r = xp.sqrt((sigma - refreshed) * (sigma + refreshed))
        gain = (sigma**2 * xp.expm1(2 * h) + (sigma_next * refreshed) ** 2) / (xp.exp(h) * sigma**2 + sigma_next * r)
        return Row(t=t, keep=xp.exp(h), gain=gain, spread=sigma_next * refreshed / sigma)
