"""The affine step of kernels with one evaluation a step: x' = keep x + gain s(x, t) + spread z.

Such kernels differ in what they freeze over a step (the score, the denoiser) and in the variance of the noise. Both
enter through the three coefficients only, which each kernel's file derives. The step is written in terms of the score s
and not of the denoiser m = (x + sigma^2 s)/alpha, because then every coefficient has a form without cancellation.
"""

from typing import Any, NamedTuple

from jaxdiff.arrays import aligned, rounded_product
from jaxdiff.types import Particles, ScoreFn


class Row(NamedTuple):
    """Coefficients of every step, arrays of shape (n_steps,); inside a step, scalars."""

    t: Any
    keep: Any
    gain: Any
    spread: Any


def step(score: ScoreFn, x: Particles, row: Row, z: Particles) -> Particles:
    """One step with noise."""
    return noiseless_step(score, x, row, z) + aligned(row.spread, z) * z


def noiseless_step(score: ScoreFn, x: Particles, row: Row, z: Any) -> Particles:
    """One step of an ODE; z is None."""
    return rounded_product(row.keep, x, row.t) + row.gain * score(x, row.t)


def identity(x: Any) -> Any:
    """`init` and `position` of a kernel whose state is the position."""
    return x
