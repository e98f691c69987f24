"""Bounds on the path KL from dimension and total variance alone, for every law with at most this variance, any grid."""

from typing import Any

import numpy as np

from jaxdiff import grids
from jaxdiff.certificate import Certificate
from jaxdiff.guarantees.bounds.brackets import (
    OURS,
    certificate,
    check_dim,
    check_kernel,
    lower_by_step,
    slope,
    upper_by_node,
)
from jaxdiff.processes import ou
from jaxdiff.types import Grid, Number, Numbers, Whole


def upper(kernel_name: str, grid: Numbers, dim: Whole, total_variance: Number, *, cells: Whole = 1000) -> Certificate:
    """Upper bound in nats on the path KL of every law with Tr Cov(X_0) <= total_variance, exact score.

    The bound is the maximum of `from_nodes.upper` over all possible values at the nodes, Mbar >= s_0 >= ... >= s_N >= 0
    with Mbar = total_variance/dim. This maximum is itself bounded from above: [0, Mbar] is divided into cells, every
    node's term is maximised within its cell in closed form, and the cells of later nodes are the same or lower. More
    cells give a tighter bound. One cell ignores the order of the values: on smooth grids this hardly matters, on
    irregular ones it can double the bound.

    Args:
      kernel_name: "exponential_euler", "ancestral" or "moment_matched".
      grid: (n_steps + 1,) OU times.
      dim: d.
      total_variance: Tr Cov(X_0) or more, in the data's units squared.
      cells: number of cells of [0, Mbar]; 1000 come within about 1 % of the limit.

    Raises:
      ValueError: another kernel, or a grid, dim, variance or number of cells that is not valid.
    Source: the inequalities of `brackets`; constants ours.
    """
    check_kernel(kernel_name)
    grid, mean_variance = grids.check_grid(grid), _mean_variance(dim, total_variance)
    edges = _edges(mean_variance, grid, cells)[:, None]
    ends = edges / (1 + ou.snr(grid) * edges)
    terms = upper_by_node(kernel_name, grid, np.clip(_peaks(kernel_name, grid), ends[:-1], ends[1:]))
    best = np.zeros(len(terms))  # for each cell of the latest node; the next node's cell is the same or lower
    for term in terms.T:
        best = term + np.maximum.accumulate(best[::-1])[::-1]
    return certificate(
        f"path KL of {kernel_name}, at most",
        dim * np.max(best),
        f"worst mmse on {len(grid)} nodes, {OURS}",
        assumptions=(_variance_text(total_variance),),
    )


def lower(kernel_name: str, grid: Numbers, dim: Whole, total_variance: Number) -> Certificate:
    """Lower bound in nats on the path KL of every law with Tr Cov(X_0) <= total_variance, exact score; it is attained.

    exponential_euler: the path KL of N(0, Mbar I), d sum [(1/2) log((Mbar + y_k)/(Mbar + y_{k+1}))
    - b_k (1 + y_k)/(Mbar + y_k)]. ancestral and moment_matched: 0, the path KL of a point mass. Arguments and errors as
    for `upper`. Source: ours.
    """
    # By from_nodes.lower a step costs d f(s_k) or more, f(s) = (1/2) log((s + y)/(s + y')) - A/(s + y). With D = y - y'
    # and A = e^2t b, D/2 - A = e^2t int_0^g (1 - e^-u)^2 du > 0. The derivative f' has the sign of
    # A y' - D y/2 - (D/2 - A) s < 0, so f decreases. The least cost is at the largest s, Mbar, at every node: that of
    # an isotropic Gaussian.
    check_kernel(kernel_name)
    grid, mean_variance = grids.check_grid(grid), _mean_variance(dim, total_variance)
    v = mean_variance / (1 + ou.snr(grid) * mean_variance)
    euler = kernel_name == "exponential_euler"
    return certificate(
        f"path KL of {kernel_name}, at least",
        dim * np.sum(lower_by_step(kernel_name, grid, v)) if euler else 0.0,
        f"attained by N(0, {mean_variance:g} I), {OURS}" if euler else "attained by a point mass",
        assumptions=(_variance_text(total_variance),),
    )


def geometric_grid(horizon: Number, early_stop: Number, n_steps: Whole, mean_variance: Number) -> Grid:
    """The grid with snr + 1/mean_variance in geometric progression: (n_steps + 1,), float64, exact ends.

    On this grid the ancestral bound is largest for the mmse of the isotropic Gaussian of this variance, at every node
    except the last.

    Raises:
      ValueError: the ends or n_steps are not valid, or mean_variance is not positive.
    """
    grid = grids.uniform(horizon, early_stop, n_steps)
    start, log_ratio = _stretch(horizon, early_stop, mean_variance)
    rise = np.expm1(log_ratio * np.arange(1, n_steps) / n_steps)
    grid[1:-1] = ou.time(ou.snr(grid[0]) + start * rise)
    return grids.check_grid(grid)


def geometric(
    kernel_name: str,
    horizon: Number,
    early_stop: Number,
    n_steps: Whole,
    dim: Whole,
    total_variance: Number,
    *,
    simplified: bool = False,
) -> Certificate:
    """`upper` on geometric_grid(horizon, early_stop, n_steps, total_variance/dim), in closed form, nats.

    With L = log((snr_N + 1/Mbar)/(snr_0 + 1/Mbar)), x = L/N:
      ancestral: (d/2)[N (e^x - 1 - x) + x]; simplified, for N >= L: (d/2N)(0.7183 L^2 + L).
      moment_matched: (d/2)[(N - 1) log(1 + sinh^2(x/2)) + x]; simplified: (d/2N)(L^2/4 + L).

    Args:
      kernel_name: "ancestral" or "moment_matched".
      horizon, early_stop, n_steps: of the grid, OU times.
      dim: d.
      total_variance: Tr Cov(X_0) or more, positive.
      simplified: the second form, which can be solved for the number of steps.

    Raises:
      ValueError: another kernel, ends, dim or variance that are not valid, or the ancestral's simplified form with
        fewer than L steps.
    Source: the inequalities of `brackets`; constants ours.
    """
    # The terms of the nodes are concave in v. The ancestral one is largest at 1/h_{k-1} - 1/h_k = 1/(snr_k + 1/Mbar),
    # which is the largest v; the moment-matched one at half of it. The simplified forms use e^x - 1 - x <= (e - 2) x^2
    # for x <= 1, and log cosh z <= z^2/2.
    check_kernel(kernel_name, ("ancestral", "moment_matched"))
    mean_variance = _mean_variance(dim, total_variance)
    geometric_grid(horizon, early_stop, n_steps, mean_variance)  # raises ValueError where an argument is not valid
    _, log_ratio = _stretch(horizon, early_stop, mean_variance)
    simple = lambda: dim / 2 * _simple(kernel_name, log_ratio, n_steps)
    closed = lambda: geometric_kl(kernel_name, horizon, early_stop, n_steps, dim, total_variance)
    return certificate(
        f"path KL of {kernel_name}, at most",
        simple() if simplified else closed(),
        f"{n_steps} steps geometric in snr + 1/variance, {OURS}",
        assumptions=(_variance_text(total_variance),),
    )


def geometric_kl(
    kernel_name: str, horizon: Numbers, early_stop: Number, n_steps: Number, dim: Whole, total_variance: Number
) -> Any:
    """The value of `geometric` in nats, without checks; horizon may be an array."""
    x = _stretch(horizon, early_stop, total_variance / dim)[1] / n_steps
    if kernel_name == "ancestral":
        return dim / 2 * (n_steps * (np.expm1(x) - x) + x)
    return dim / 2 * ((n_steps - 1) * np.log1p(np.sinh(x / 2) ** 2) + x)


def _simple(kernel_name, log_ratio, n_steps):
    if kernel_name == "moment_matched":
        return (log_ratio**2 / 4 + log_ratio) / n_steps
    if n_steps < log_ratio:
        raise ValueError(
            f"the simplified bound needs n_steps >= L = {log_ratio:.4g}: n_steps = {n_steps}. "
            f"Take more steps, or simplified=False."
        )
    return (0.7183 * log_ratio**2 + log_ratio) / n_steps


def _stretch(horizon, early_stop, mean_variance):
    """snr_0 + 1/Mbar, and L = log((snr_N + 1/Mbar)/(snr_0 + 1/Mbar))."""
    if not 0 < mean_variance < np.inf:
        raise ValueError(f"a geometric grid needs a positive variance a coordinate, not {mean_variance:g}.")
    first, last = ou.snr(np.asarray(horizon, np.float64)), ou.snr(float(early_stop))
    start = first + 1 / mean_variance
    return start, np.log1p((last - first) / start)


# A node's term is concave in v. It is the sum of a v, or (1/2) log(1 + 2 a v), and of (1/2) log(1 - h v), h the step in
# snr before the node. Its derivative vanishes at 1/h - 1/2a, or at half of that. The first node has no h, and the last
# one no a.
def _peaks(kernel_name, grid):
    """The v at which each node's term is largest, (n_steps + 1,); it may be infinite or outside the possible values."""
    rise = np.append(slope(kernel_name, grid), 0.0)
    before = np.insert(np.diff(ou.snr(grid)), 0, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        peaks = np.where(rise > 0, 1 / before - 0.5 / np.abs(rise), -np.inf)
    return peaks / 2 if kernel_name == "moment_matched" else peaks


def _edges(mean_variance, grid, cells):
    """Edges of the cells of [0, Mbar] for s, geometric above the first cell, in which s is too small to matter."""
    if isinstance(cells, bool) or not hasattr(cells, "__index__") or cells < 1:
        raise ValueError(f"cells must be a whole number, at least 1: cells = {cells!r}.")
    if mean_variance == 0 or cells == 1:
        return np.array([0.0, mean_variance])
    smallest = 1e-3 * min(mean_variance, 1 / ou.snr(grid[-1]))
    return np.append(0.0, np.geomspace(smallest, mean_variance, cells))


def _mean_variance(dim, total_variance):
    """Mbar, the variance of one coordinate."""
    check_dim(dim)
    if not 0 <= total_variance < np.inf:
        raise ValueError(f"total_variance = Tr Cov(X_0) is finite and not negative: total_variance = {total_variance}.")
    return total_variance / dim


def _variance_text(total_variance):
    return f"the data have total variance {total_variance:.6g} at most"
