"""SEEDS-2: the reverse SDE with the noise predicted at the middle of each step."""

from typing import Any, NamedTuple

from jaxtyping import Array, Float

from jaxdiff.arrays import namespace, rounded_product
from jaxdiff.kernels._affine import identity
from jaxdiff.kernels._multistep import half_log_snr
from jaxdiff.processes import noise_from_score, ou
from jaxdiff.types import Kernel, Nodes, Particles, ScoreFn, as_score


def seeds(score: ScoreFn) -> Kernel:
    """Kernel of the reverse SDE dY = (Y + 2 s) du + sqrt(2) dB, with the noise predicted half way in log(alpha/sigma).

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).

    Returns:
      A Kernel of two evaluations and two Gaussian increments a step. Times are OU times and run down: 0 < t_next < t.
      SEEDS-1 is eta_family(score, 1.0, frozen="noise").

    Accuracy: the law's error is of order 2 on Gaussian data; on a point mass a step is not exact.
    Source: Gonzalez et al., NeurIPS 2023, arXiv:2305.14267, SEEDS-2.
    """
    return Kernel("seeds", as_score(score), coefficients, identity, step, identity, 2, 2)


class Row(NamedTuple):
    """Coefficients of every step, arrays of shape (n_steps,): of the stage at the middle, and of the whole step."""

    t: Any
    t_half: Any
    keep_half: Any
    gain_half: Any
    spread_half: Any
    keep: Any
    gain: Any
    spread: Any  # of the increment before the middle
    spread_on: Any  # of the increment after it


# SEEDS-1 from t to r: (alpha_r/alpha) x - 2 sigma_r (e^h - 1) n + sigma_r sqrt(e^2h - 1) z, h the growth of l. SEEDS-2
# takes this step to the middle, where h is halved, and with the noise n predicted there it takes the whole step. Both
# use increments of one Brownian path.
def coefficients(grid: Nodes) -> Row:
    """The table of a grid, float64 on the host."""
    xp, level, t, t_next = namespace(grid), half_log_snr(grid), grid[:-1], grid[1:]
    h = xp.diff(level)
    half = ou.time(xp.exp(2 * level[:-1] + h))
    sigma, early = ou.sigma(half), ou.sigma(t_next)
    beyond = early * xp.sqrt(xp.expm1(h))
    return Row(
        t=t,
        t_half=half,
        keep_half=xp.exp(t - half),
        gain_half=-2 * sigma * xp.expm1(h / 2),
        spread_half=sigma * xp.sqrt(xp.expm1(h)),
        keep=xp.exp(t - t_next),
        gain=-2 * early * xp.expm1(h),
        spread=beyond * xp.exp(h / 2),
        spread_on=beyond,
    )


def step(score: ScoreFn, x: Particles, row: Row, z: Float[Array, "2 *particles d"]) -> Particles:
    """One step with two increments, z (2, ..., d)."""
    noise = noise_from_score(score)
    inside = rounded_product(row.keep_half, x, row.t) + row.gain_half * noise(x, row.t) + row.spread_half * z[0]
    moved = rounded_product(row.keep, x, row.t) + row.gain * noise(inside, row.t_half)
    return moved + row.spread * z[0] + row.spread_on * z[1]
