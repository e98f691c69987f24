"""A stochastic Runge-Kutta exponential integrator for the reverse SDE."""

from typing import Any, NamedTuple

from jaxdiff.arrays import namespace, rounded_product
from jaxdiff.kernels._affine import identity
from jaxdiff.types import Kernel, Nodes, Particles, ScoreFn, as_score


def stochastic_runge_kutta(score: ScoreFn) -> Kernel:
    """Kernel of the reverse SDE dY = (Y + 2 s) du + sqrt(2) dB: linear part exact, score linear between two values.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).

    Returns:
      A Kernel of two evaluations a step. Times are OU times and run down: 0 < t_next < t.

    Accuracy: the law's error is of order 2 on Gaussian data.
    Source: Wu, Chen, Wei 2024, arXiv:2410.04760, show what such a correction of exponential Euler gains; the
      coefficients here are those of the exponential Heun method, which have the same order.
    """
    return Kernel("stochastic_runge_kutta", as_score(score), coefficients, identity, step, identity, 2, 1)


class Row(NamedTuple):
    """Coefficients of every step, arrays of shape (n_steps,)."""

    t: Any
    t_next: Any
    keep: Any
    gain: Any
    spread: Any
    slope: Any  # of the difference of the two scores


# Exponential Euler, with the step's own noise, predicts the end of the step, where the score is s'. Along the step the
# score is taken as s + (u/h) (s' - s), and 2 int_0^h e^(h-u) (u/h) du = 2 ((e^h - 1)/h - 1).
def coefficients(grid: Nodes) -> Row:
    """The table of a grid, float64 on the host."""
    xp, h = namespace(grid), grid[:-1] - grid[1:]
    return Row(grid[:-1], grid[1:], xp.exp(h), 2 * xp.expm1(h), xp.sqrt(xp.expm1(2 * h)), 2 * _phi(h))


def _phi(h):
    """(e^h - 1)/h - 1, by its series for small h, where the formula cancels."""
    xp, small = namespace(h), h < 0.1
    series = h / 2 * (1 + h / 3 * (1 + h / 4 * (1 + h / 5 * (1 + h / 6 * (1 + h / 7 * (1 + h / 8))))))
    return xp.where(small, series, xp.expm1(h) / xp.where(small, 1, h) - 1)


def step(score: ScoreFn, x: Particles, row: Row, z: Particles) -> Particles:
    """One step with noise."""
    first = score(x, row.t)
    predicted = rounded_product(row.keep, x, row.t) + row.gain * first + row.spread * z
    return predicted + row.slope * (score(predicted, row.t_next) - first)
