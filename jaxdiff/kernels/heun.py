"""Heun's method for the probability-flow ODE in EDM's coordinates, with or without churn."""

import dataclasses
import math
from typing import Any, NamedTuple

from jaxdiff.arrays import namespace, root, rounded_product
from jaxdiff.checks import as_numbers, check_number, described
from jaxdiff.kernels._affine import identity
from jaxdiff.processes import noise_from_score, ou
from jaxdiff.types import Kernel, Nodes, Number, Numbers, Particles, ScoreFn, as_score


def heun(
    score: ScoreFn, churn: Number = 0.0, *, noise_scale: Number = 1.0, between: Numbers = (0.0, math.inf)
) -> Kernel:
    """Kernel of dy/dv = n by Heun's method, y = x/alpha, v = sigma/alpha, n the predicted noise.

    Args:
      score: s(x, t), the gradient of log q_t at x; shapes (..., d), () -> (..., d).
      churn: S_churn >= 0. Each of N steps begins with noise that raises v by the factor
        1 + min(churn/N, sqrt(2) - 1); 0 is the ODE.
      noise_scale: S_noise, a factor of that noise; with 1 the law after it is the noised law.
      between: (S_tmin, S_tmax), the v at which noise is added.

    Returns:
      A Kernel of two evaluations a step. Times are OU times and run down: 0 < t_next < t.

    Raises:
      ValueError: churn or noise_scale is negative, or `between` is not an interval.

    Accuracy: order 2; exact on a point mass. With a constant churn and noise_scale = 1 the law's error is of order 2 on
      Gaussian data as N grows. With a churn in proportion to N, or another noise_scale, the error falls more slowly or
      not at all.
    Source: Karras et al., NeurIPS 2022, arXiv:2206.00364, algorithms 1 and 2 (whose last step, to v = 0, is Euler's).
    """
    check_number(churn, "churn")
    check_number(noise_scale, "noise_scale")
    ends = as_numbers(between, "between", "(low, high)")
    if ends.shape != (2,):
        raise ValueError(f"between must be (low, high), two numbers: it is {described(between)}.")
    low, high = map(float, ends)
    if not (churn >= 0 and noise_scale >= 0 and low <= high):
        raise ValueError(
            f"churn and noise_scale are not negative, and between is (low, high): churn = {churn:g}, noise_scale = "
            f"{noise_scale:g}, between = {between}."
        )
    coefficients = Coefficients(float(churn), float(noise_scale), (low, high))
    chosen = stochastic_step if churn > 0 else step
    return Kernel("heun", as_score(score), coefficients, identity, chosen, identity, 2, int(churn > 0))


class Row(NamedTuple):
    """Coefficients of every step, arrays of shape (n_steps,)."""

    t: Any
    t_next: Any
    keep: Any  # alpha'/alpha
    gain: Any  # alpha' (v' - v)


class ChurnedRow(NamedTuple):
    """Coefficients of the noise, arrays of shape (n_steps,), and of the step of the ODE that follows it."""

    lift: Any  # alpha after the noise over alpha before
    spread: Any
    ode: Row


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for one churn."""

    churn: float
    noise_scale: float
    between: tuple[float, ...]

    def __call__(self, grid: Nodes) -> Row | ChurnedRow:
        """The table of a grid, float64 on the host."""
        xp, t, t_next = namespace(grid), grid[:-1], grid[1:]
        v, v_next = (1 / xp.sqrt(ou.snr(at)) for at in (t, t_next))
        if self.churn == 0:
            return Row(t, t_next, xp.exp(t - t_next), ou.alpha(t_next) * (v_next - v))
        inside = (self.between[0] <= v) & (v <= self.between[1])
        grown = v * (1 + xp.where(inside, min(self.churn / len(t), math.sqrt(2) - 1), 0))
        up = ou.time(1 / grown**2)
        ode = Row(up, t_next, xp.exp(up - t_next), ou.alpha(t_next) * (v_next - grown))
        spread = self.noise_scale * ou.alpha(up) * root((grown - v) * (grown + v))
        return ChurnedRow(xp.exp(t - up), spread, ode)


def step(score: ScoreFn, x: Particles, row: Row, z: Any) -> Particles:
    """One step of the ODE; z is None."""
    noise = noise_from_score(score)
    slope, base = noise(x, row.t), rounded_product(row.keep, x, row.t)
    return base + row.gain * ((slope + noise(base + row.gain * slope, row.t_next)) / 2)


def stochastic_step(score: ScoreFn, x: Particles, row: ChurnedRow, z: Particles) -> Particles:
    """Noise, then one step of the ODE."""
    return step(score, rounded_product(row.lift, x, row.spread) + row.spread * z, row.ode, None)
