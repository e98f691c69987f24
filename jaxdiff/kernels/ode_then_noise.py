"""Two intervals of the probability-flow ODE down, one of the forward process back up."""

from jaxdiff.arrays import namespace, root
from jaxdiff.kernels._affine import Row, identity, step
from jaxdiff.processes import ou
from jaxdiff.types import Kernel, ScoreFn, as_score


def ode_then_noise(score: ScoreFn) -> Kernel:
    """Kernel that goes from t_k to t_{k+2} by the probability-flow ODE, denoiser frozen, and is noised up to t_{k+1}.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t. The last step, which has one interval left, is that of
      the ODE.

    Accuracy: weak order 1; exact on a point mass. KL eps^2 takes about d log^(3/2)(1/delta)/eps steps, where the
      reverse SDE takes d log^2(1/delta)/eps^2.
    Source: Jain, Zhang 2025, arXiv:2508.16306.
    """
    return Kernel("ode_then_noise", as_score(score), coefficients, identity, step, identity, 1, 1)


# DDIM from t to t'':  F x + (alpha'' - alpha F) m = e^g x + sigma sigma'' (e^h - 1) s, g = t - t''; see eta_family.
# Then e^-(t' - t'') of it and noise of variance 1 - e^-2(t' - t'').
def coefficients(grid):
    """The table of a grid, float64 on the host."""
    xp, t, t_next = namespace(grid), grid[:-1], grid[1:]
    beyond = xp.concatenate([grid[2:], grid[-1:]])
    g, back = t - beyond, t_next - beyond
    gain = xp.expm1(2 * g) / (xp.exp(g) + ou.sigma(beyond) / ou.sigma(t))
    return Row(t, xp.exp(t - t_next), xp.exp(-back) * gain, root(-xp.expm1(-2 * back)))  # the last step has back = 0
