"""Each step: the probability-flow ODE over two intervals of the grid, then noise back over one."""

from jaxdiff.arrays import namespace, root
from jaxdiff.kernels._affine import Row, identity, step
from jaxdiff.processes import ou
from jaxdiff.types import Kernel, Nodes, ScoreFn, as_score


def ode_then_noise(score: ScoreFn) -> Kernel:
    """Kernel that follows the probability-flow ODE from t_k to t_{k+2}, denoiser frozen, then adds noise up to t_{k+1}.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t. The last step, for which one interval is left, is a
      step of the ODE without noise.

    Accuracy: weak order 1; exact on a point mass. For a KL of eps^2 it needs about d log^(3/2)(1/delta)/eps steps, the
      reverse SDE d log^2(1/delta)/eps^2.
    Source: Jain, Zhang 2025, arXiv:2508.16306.
    """
    return Kernel("ode_then_noise", as_score(score), coefficients, identity, step, identity, 1, 1)


# DDIM from t to t'':  F x + (alpha'' - alpha F) m = e^g x + sigma sigma'' (e^h - 1) s, g = t - t''; see eta_family. The
# forward process then multiplies this by e^-(t' - t'') and adds noise of variance 1 - e^-2(t' - t'').
def coefficients(grid: Nodes) -> Row:
    """The table of a grid, float64 on the host."""
    xp, t, t_next = namespace(grid), grid[:-1], grid[1:]
    beyond = xp.concatenate([grid[2:], grid[-1:]])
    g, back = t - beyond, t_next - beyond
    gain = xp.expm1(2 * g) / (xp.exp(g) + ou.sigma(beyond) / ou.sigma(t))
    return Row(t, xp.exp(t - t_next), xp.exp(-back) * gain, root(-xp.expm1(-2 * back)))  # the last step has back = 0
