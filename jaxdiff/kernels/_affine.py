"""The step that one-evaluation kernels share: x' = keep x + gain s(x, t) + spread z.

What is frozen over a step (the score, the denoiser) and how its variance is set decides the three coefficients, and
nothing else: a kernel file derives them. Written in the score rather than the denoiser m = (x + sigma^2 s)/alpha,
because then every coefficient has a form without cancellation.
"""

from typing import Any, NamedTuple

from jaxdiff.arrays import aligned


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


# Equal draws for every batch size need equal rounding. XLA computes a b + c d with one fused multiply-add, and either
# product can be the one that is fused and so stays unrounded: on a CPU the choice differs between array shapes. Adding
# a zero that the compiler cannot fold, 0 times a traced number, makes the first product a sum of its own, which is
# rounded. Only the second product can then be fused with the addition that follows. This costs no measurable time.
def rounded_product(factor, x, traced):
    """factor times x, rounded before anything is added to it; `traced` is any finite number that is no constant."""
    return factor * x + 0 * traced


def identity(x):
    """Position and state are the same thing."""
    return x
