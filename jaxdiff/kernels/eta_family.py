"""The eta family: from the probability-flow ODE to the reverse SDE and beyond, with score, noise or denoiser frozen."""

import dataclasses

from jaxdiff.arrays import namespace, root
from jaxdiff.checks import check_number, described
from jaxdiff.kernels._affine import Row, identity, noiseless_step, step
from jaxdiff.processes import ou
from jaxdiff.types import Kernel, Nodes, Number, ScoreFn, as_score

FROZEN = ("score", "noise", "denoiser")


def eta_family(score: ScoreFn, eta: Number = 1.0, *, frozen: str = "denoiser") -> Kernel:
    """Kernel of dY = (Y + (1 + eta^2) s) du + eta sqrt(2) dB, which has the same marginals for every eta.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      eta: >= 0; 0 is the probability-flow ODE, 1 the reverse SDE. (The eta of `ddim` is a different one. On a point
        mass ddim has the exact joint law of two consecutive positions; this kernel follows the SDE with its eta.)
      frozen: what is constant over a step: "score" (eta = 1: exponential Euler), "noise" -sigma s, or "denoiser"
        (eta = 0: DDIM; eta = 1: ancestral sampling).

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t.

    Raises:
      ValueError: eta is negative, or `frozen` is not one of the three.

    Accuracy: (weak) order 1; with the denoiser frozen exact on a point mass. On N(0, I) data one step of the reverse
      SDE from t = 0.2 to 0.1 ends with variance 1.0221 (score), 0.9703 (noise), 0.9184 (denoiser).
    Source: Song et al., ICLR 2021, arXiv:2011.13456 (the family); Lu et al. 2022, arXiv:2211.01095 (what is frozen).
    """
    check_number(eta, "eta")
    if not eta >= 0 or not isinstance(frozen, str) or frozen not in FROZEN:
        raise ValueError(
            f"eta must not be negative, and frozen must be one of {FROZEN}: eta = {eta:g}, frozen = "
            f"{described(frozen)}."
        )
    chosen, noises = (step, 1) if eta > 0 else (noiseless_step, 0)
    coefficients = Coefficients(float(eta), frozen)
    return Kernel("eta_family", as_score(score), coefficients, identity, chosen, identity, 1, noises)


# With a = 1 + eta^2, h the growth of l = log(alpha/sigma), so that e^-h = e^-g sigma'/sigma, g = t - t_next:
#   score     e^g x + a (e^g - 1) s                                   + eta sqrt(e^2g - 1) z
#   noise     e^g x - a sigma' (e^h - 1) n,    n = -sigma s           + eta sqrt(e^2g - 1) z
#   denoiser  F x + (alpha' - alpha F) m,      F = (sigma'/sigma) e^(-eta^2 h), m = (x + sigma^2 s)/alpha
#                                                                     + sigma' sqrt(1 - e^(-2 eta^2 h)) z.
# sigma sigma' (e^h - 1) = sigma (e^g sigma - sigma') = (e^2g - 1)/(e^g + sigma'/sigma), since e^2g sigma^2 - sigma'^2 =
# e^2g - 1. And (alpha' - alpha F)/alpha = e^g (1 - e^(-a h)), whose sum with F is e^g.
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one eta and one choice of what is frozen."""

    eta: float
    frozen: str

    def __call__(self, grid: Nodes) -> Row:
        """The table of a grid, float64 on the host."""
        xp, t, t_next = namespace(grid), grid[:-1], grid[1:]
        g, a, ratio = t - t_next, 1 + self.eta**2, ou.sigma(t_next) / ou.sigma(t)
        keep, spread = xp.exp(g), self.eta * xp.sqrt(xp.expm1(2 * g))
        if self.frozen == "score":
            return Row(t, keep, a * xp.expm1(g), spread)
        if self.frozen == "noise":
            return Row(t, keep, a * xp.expm1(2 * g) / (xp.exp(g) + ratio), spread)
        h = xp.diff(xp.log(ou.snr(grid))) / 2
        gain = ou.sigma(t) ** 2 * xp.exp(g) * -xp.expm1(-a * h)
        return Row(t, keep, gain, ou.sigma(t_next) * root(-xp.expm1(-2 * self.eta**2 * h)))
