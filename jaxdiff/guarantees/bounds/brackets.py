"""Lower and upper sums over the nodes of a grid for a sampler's path KL, for the exact score and any law.

Let v = V/d at a node be the mmse of one coordinate, and s(snr) = 1/(d/V - snr) the variance of the isotropic Gaussian
that has the law's mmse at this snr. Then
    v = s/(1 + snr s),    and s does not increase with snr: dV/dsnr = -E|Cov(X_0 | X_t)|_F^2 <= -V^2/d.
A step from node k to k + 1, h = snr_{k+1} - snr_k, costs exactly
    d [ head_k(v_k) - (1/2d) int V dsnr ].
Between the nodes s_{k+1} <= s <= s_k, so
    log(1 + h v') <= (1/d) int V dsnr <= log(1 + h v_k),    v' = s_{k+1}/(1 + snr_k s_{k+1}) = v_{k+1}/(1 - h v_{k+1}).
Isotropic Gaussians attain both ends. The bounds on the path KL follow from these inequalities, which are our own.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64

from jaxdiff.certificate import CONFIDENCE, DISCRETISATION, Certificate, Term
from jaxdiff.processes import ou
from jaxdiff.types import Grid, Number

OURS = "constants ours"


def slope(kernel_name: str, grid: Grid) -> Float64[np.ndarray, " steps"]:
    """The derivative of each step's head at v = 0, (n_steps,)."""
    snr, g = ou.snr(grid[:-1]), -np.diff(grid)
    if kernel_name == "exponential_euler":
        return _frozen(g) * snr * (1 + snr)
    return np.diff(ou.snr(grid)) / 2


def head(kernel_name: str, grid: Grid, v: Float64[np.ndarray, "*rows steps"]) -> Float64[np.ndarray, "*rows steps"]:
    """The first part of each step's cost for one coordinate, head_k(v_k); v (..., n_steps) at the steps' starts.

    ancestral: h v/2. moment_matched: (1/2) log(1 + h v). exponential_euler: Girsanov's -b J/d with
    J = (1 + snr)(d - snr V), and (1/2) log(snr_next/snr) from int J dt = (1/2) int (d/snr - V) dsnr.
    """
    rise = slope(kernel_name, grid) * v
    if kernel_name == "moment_matched":
        return np.log1p(2 * rise) / 2
    if kernel_name == "ancestral":
        return rise
    snr = ou.snr(grid)
    return np.log(snr[1:] / snr[:-1]) / 2 - _frozen(-np.diff(grid)) * (1 + snr[:-1]) + rise


def upper_by_node(
    kernel_name: str, grid: Grid, v: Float64[np.ndarray, "*rows nodes"]
) -> Float64[np.ndarray, "*rows nodes"]:
    """Each node's term in the upper bound for one coordinate, nats; v (..., n_steps + 1) in [0, 1/snr], same shape."""
    snr = ou.snr(grid)
    h, later = np.diff(snr), v[..., 1:]
    # v' of this module's docstring; the sum is 1 - h v, without its cancellation at v = 1/snr.
    carried = later / ((1 - snr[1:] * later) + snr[:-1] * later)
    terms = np.zeros(np.shape(v))
    terms[..., :-1] += head(kernel_name, grid, v[..., :-1])
    terms[..., 1:] -= np.log1p(h * carried) / 2
    return terms


def lower_by_step(
    kernel_name: str, grid: Grid, v: Float64[np.ndarray, "*rows nodes"]
) -> Float64[np.ndarray, "*rows steps"]:
    """Each step's lower bound for one coordinate, its cost for N(0, s_k), nats (..., n_steps); v (..., n_steps + 1)."""
    start = v[..., :-1]
    return head(kernel_name, grid, start) - np.log1p(np.diff(ou.snr(grid)) * start) / 2


def check_kernel(
    kernel_name: Any, names: tuple[str, ...] = ("exponential_euler", "ancestral", "moment_matched")
) -> None:
    """Raise ValueError unless kernel_name is one of `names`, for which a bound holds."""
    if kernel_name not in names:
        raise ValueError(f"no such bound for {kernel_name!r}: it is for {', '.join(names)}.")


def check_dim(dim: Any) -> None:
    """Raise ValueError unless dim is a whole number, at least 1."""
    if isinstance(dim, bool) or not hasattr(dim, "__index__") or dim < 1:
        raise ValueError(f"dim is the number of coordinates, a whole number from 1: dim = {dim!r}.")


def certificate(
    subject: str,
    value: Number,
    source: str,
    *,
    standard_error: Number = 0.0,
    status: str = "bound",
    assumptions: tuple[str, ...] = (),
) -> Certificate:
    """A Certificate of one term, the discretisation."""
    term = Term(DISCRETISATION, float(value), float(standard_error), status, source)
    return Certificate(subject, (term,), CONFIDENCE, ("the score is exact", *assumptions))


def _frozen(g):
    """b = 2(1 - e^-g) - g, the factor of J at a step's start in the cost of freezing the score over the step."""
    return -2 * np.expm1(-g) - g
