"""The randomised midpoint method for the probability-flow ODE."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.arrays import namespace, rounded_product
from jaxdiff.checks import check_number
from jaxdiff.kernels._affine import identity
from jaxdiff.types import Kernel, Nodes, Particles, ScoreFn, Whole, as_score


def randomized_midpoint(score: ScoreFn, seed: Whole = 0) -> Kernel:
    """Kernel of the probability-flow ODE: the linear part is exact, the score is taken at a random time of each step.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      seed: of the random times, which are uniform over each step and common to all particles. Give independent runs
        different seeds.

    Returns:
      A Kernel of two evaluations a step. Times are OU times and run down: 0 < t_next < t.

    Accuracy: strong order 3/2. The mean of one step over the random time has an error of order 3, its standard
      deviation is of order 2.
    Source: Gupta, Cai, Chen, ICLR 2025, arXiv:2406.00924 (its predictor; the corrector there is underdamped Langevin).
    """
    check_number(seed, "seed", "a whole number")
    return Kernel("randomized_midpoint", as_score(score), Coefficients(int(seed)), identity, step, identity, 2, 0)


class Row(NamedTuple):
    """Coefficients of every step, arrays of shape (n_steps,)."""

    t: Any
    t_inside: Any
    keep_inside: Any
    gain_inside: Any
    keep: Any
    gain: Any


# With the score frozen to the random time t - u h: x_u = e^(u h) x + (e^(u h) - 1) s; then
#   x' = e^h x + h e^((1 - u) h) s(x_u, t - u h), whose mean over u is e^h x + int_0^h e^(h - v) s dv.
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one seed."""

    seed: int

    def __call__(self, grid: Nodes) -> Row:
        """The table of a grid, float64 on the host."""
        xp, t, h = namespace(grid), grid[:-1], grid[:-1] - grid[1:]
        inside = np.random.default_rng(self.seed).uniform(size=len(t)) * h
        gain = h * xp.exp(h - inside)
        return Row(t, t - inside, xp.exp(inside), xp.expm1(inside), xp.exp(h), gain)


def step(score: ScoreFn, x: Particles, row: Row, z: Any) -> Particles:
    """One step; z is None."""
    inside = rounded_product(row.keep_inside, x, row.t) + row.gain_inside * score(x, row.t)
    return rounded_product(row.keep, x, row.t) + row.gain * score(inside, row.t_inside)
