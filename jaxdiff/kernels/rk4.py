"""The classical Runge-Kutta method for the probability-flow ODE in EDM's coordinates."""

from typing import Any, NamedTuple

from jaxdiff.arrays import namespace, rounded_product
from jaxdiff.kernels._affine import identity
from jaxdiff.processes import noise_from_score, ou
from jaxdiff.types import Kernel, Nodes, Particles, ScoreFn, as_score


def rk4(score: ScoreFn) -> Kernel:
    """Kernel of dy/dv = n by the Runge-Kutta method of order 4, y = x/alpha, v = sigma/alpha, n the predicted noise.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).

    Returns:
      A Kernel of four evaluations a step. Times are OU times and run down: 0 < t_next < t.

    Accuracy: order 4; exact on a point mass.
    Source: Kutta 1901; in these coordinates as Heun's method of Karras et al., NeurIPS 2022, arXiv:2206.00364.
    """
    return Kernel("rk4", as_score(score), coefficients, identity, step, identity, 4, 0)


class Row(NamedTuple):
    """Coefficients of every step, arrays of shape (n_steps,): times, alphas over alpha at t, steps times alpha."""

    t: Any
    t_half: Any
    t_next: Any
    keep_half: Any
    keep: Any
    gain_half: Any  # alpha at t_half times half the step in v
    gain: Any  # alpha' times the step


def coefficients(grid: Nodes) -> Row:
    """The table of a grid, float64 on the host."""
    xp, t, t_next = namespace(grid), grid[:-1], grid[1:]
    v, v_next = (1 / xp.sqrt(ou.snr(at)) for at in (t, t_next))
    half, length = ou.time(1 / ((v + v_next) / 2) ** 2), v_next - v
    return Row(
        t, half, t_next, xp.exp(t - half), xp.exp(t - t_next), ou.alpha(half) * length / 2, ou.alpha(t_next) * length
    )


def step(score: ScoreFn, x: Particles, row: Row, z: Any) -> Particles:
    """One step; z is None."""
    noise = noise_from_score(score)
    middle, end = (rounded_product(keep, x, row.t) for keep in (row.keep_half, row.keep))
    first = noise(x, row.t)
    second = noise(middle + row.gain_half * first, row.t_half)
    third = noise(middle + row.gain_half * second, row.t_half)
    fourth = noise(end + row.gain * third, row.t_next)
    return end + row.gain * ((first + 2 * second + 2 * third + fourth) / 6)
