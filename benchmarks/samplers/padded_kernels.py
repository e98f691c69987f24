"""Kernels with their coefficients on padded laws, by law and dimension."""

import functools

from benchmarks.laws import padded as padded_laws
from jaxdiff import grids, kernels

GRID = grids.exponential_then_uniform(5.0, 0.01, 40, n_uniform=16)


def curve(law, d):
    """The mmse curve of a law."""
    return padded_laws.target(law, d).mmse


def kernel_of(name, score, law, d):
    """The kernel of a name with the coefficients for the law in d dimensions."""
    return kernels.moment_matched(score, curve(law, d)) if name == "moment_matched" else getattr(kernels, name)(score)


@functools.cache
def table(name, law, d):
    """The kernel's coefficients down the grid, float64."""
    return kernel_of(name, padded_laws.reduced(law, d).score, law, d).coefficients(GRID)
