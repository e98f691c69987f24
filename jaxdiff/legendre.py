"""Gauss-Legendre quadrature on intervals, and Legendre series from values at its nodes."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from numpy.polynomial import legendre


@functools.cache
def rule(n: int) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """The n nodes and weights of Gauss' rule on [-1, 1], exact for polynomials of degree 2 n - 1."""
    return legendre.leggauss(n)


def gauss(
    low: Float[Any, " intervals"], high: Float[Any, " intervals"], n: int = 64
) -> tuple[Float[Any, "intervals n"], Float[Any, "intervals n"]]:
    """Nodes and weights (intervals, n) of Gauss' rule on every interval between ends `low` and `high` (intervals,).

    64 nodes integrate the exponentials and polynomials in the kernels' coefficients exactly to rounding, without the
    cancellation that closed forms have for a short step. The ends may be JAX arrays.
    """
    x, w = rule(n)
    half = (high - low)[:, None] / 2
    return low[:, None] + half * (1 + x), half * w


@functools.cache
def series(n: int) -> Float64[np.ndarray, "n n"]:
    """(n, n): entry [j, k] is the weight of the value at node j in the Legendre coefficient of degree k.

    Coefficients by this projection are those of the polynomial of degree n - 1 through the values.
    """
    nodes, weights = rule(n)
    return weights[:, None] * legendre.legvander(nodes, n - 1) * (np.arange(n) + 0.5)
