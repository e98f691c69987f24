"""The step that one-evaluation kernels share: x' = keep x + gain s(x, t) + spread z.

What is frozen over a step (the score, the denoiser) and how its variance is set decides the three coefficients, and
nothing else: a kernel file derives them. Written in the score rather than the denoiser m = (x + sigma^2 s)/alpha,
because then every coefficient has a form without cancellation.
"""

from typing import Any, NamedTuple

from jaxdiff.arrays import aligned, rounded_product


class Row(NamedTuple):
    """Coefficients of every step, arrays of shape (n_steps,); inside a step, scalars."""

    t: Any
    keep: Any
    gain: Any
    spread: Any


def step(score, x, row, z):
    """One step with noise."""
    return noiseless_step(score, x, row, z) + aligned(row.spread, z) * z


def noiseless_step(score, x, row, z):
    """One step of an ODE; z is None."""
    return rounded_product(row.keep, x, row.t) + row.gain * score(x, row.t)


def identity(x):
    """Position and state are the same thing."""
    return x
