"""Bounds on the path KL from dimension and total variance alone: for every law that has no more, on every grid."""

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
from jaxdiff.types import Grid


def upper(kernel_name, grid, dim, total_variance, *, cells=1000) -> Certificate:
    """Upper bound in nats on the path KL of every law with Tr Cov(X_0) <= total_variance, exact score.

    The maximum of `from_nodes.upper` over all node values that are possible: Mbar >= s_0 >= ... >= s_N >= 0 with
    Mbar = total_variance/dim. It is bounded from above, never sampled: [0, Mbar] is cut into cells, a node takes the
    best of its share in its cell (closed form), and the order is kept between cells. More cells are tighter, one cell
    drops the order. On smooth grids that hardly matters; on ragged ones it can double the bound.

    Args:
      kernel_name: "exponential_euler", "ancestral" or "moment_matched".
      grid: (n_steps + 1,) OU times.
      dim: d.
      total_variance: Tr Cov(X_0) or more, in the data's units squared.
      cells: of [0, Mbar]; 1000 are within about 1 % of the limit.

    Raises:
      ValueError: another kernel, a bad grid, dim, variance or number of cells.
    Source: THEORY 4 for exponential Euler, the others by the same argument (`brackets`); constants ours.
    """
    check_kernel(kernel_name)
    grid, mean_variance = grids.check_grid(grid), _mean_variance(dim, total_variance)
    edges = _edges(mean_variance, grid, cells)[:, None]
    ends = edges / (1 + ou.snr(grid) * edges)
    shares = upper_by_node(kernel_name, grid, np.clip(_peaks(kernel_name, grid), ends[:-1], ends[1:]))
    best = np.zeros(len(shares))  # by the cell of the latest node; the next one's cell is the same or lower
    for share in shares.T:
        best = share + np.maximum.accumulate(best[::-1])[::-1]
    return certificate(
        f"path KL of {kernel_name}, at most",
        dim * np.max(best),
        f"worst mmse on {len(grid)} nodes, {OURS}",
        assumptions=(_variance_text(total_variance),),
    )


def lower(kernel_name, grid, dim, total_variance) -> Certificate:
    """What every law with Tr Cov(X_0) <= total_variance costs at least, in nats, exact score: attained.

    exponential_euler: the path KL of N(0, Mbar I), d sum [(1/2) log((Mbar + y_k)/(Mbar + y_{k+1}))
    - b_k (1 + y_k)/(Mbar + y_k)]. ancestral and moment_matched: 0, the path KL of a point mass. Arguments and errors as
    for `upper`. Source: ours.
    """
    # By from_nodes.lower a step costs d f(s_k), f(s) = (1/2) log((s + y)/(s + y')) - A/(s + y), and f falls in s: with
    # D = y - y', A = e^2t b, D/2 - A = e^2t int_0^g (1 - e^-u)^2 du > 0, the sign of f' is that of
    # A y' - D y/2 - (D/2 - A) s < 0. So the least is at the largest s, Mbar, at every node: an isotropic Gaussian.
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


def geometric_grid(horizon, early_stop, n_steps, mean_variance) -> Grid:
    """Times whose snr + 1/mean_variance is geometric: (n_steps + 1,), float64, exact ends.

    The ancestral bound's worst mmse on it is the isotropic Gaussian's of this variance, at every node but the last.

    Raises:
      ValueError: the ends or n_steps are none, or mean_variance is not positive.
    """
    grid = grids.uniform(horizon, early_stop, n_steps)
    start, log_ratio = _stretch(horizon, early_stop, mean_variance)
    rise = np.expm1(log_ratio * np.arange(1, n_steps) / n_steps)
    grid[1:-1] = ou.time(ou.snr(grid[0]) + start * rise)
    return grids.check_grid(grid)


def geometric(kernel_name, horizon, early_stop, n_steps, dim, total_variance, *, simplified=False) -> Certificate:
    """`upper` on geometric_grid(horizon, early_stop, n_steps, total_variance/dim), in closed form, nats.

    With L = log((snr_N + 1/Mbar)/(snr_0 + 1/Mbar)), x = L/N:
      ancestral: (d/2)[N (e^x - 1 - x) + x]; simplified, for N >= L: (d/2N)(0.7183 L^2 + L).
      moment_matched: (d/2)[(N - 1) log(1 + sinh^2(x/2)) + x]; simplified: (d/2N)(L^2/4 + L).

    Args:
      kernel_name: "ancestral" or "moment_matched".
      horizon, early_stop, n_steps: of the grid, OU times.
      dim: d.
      total_variance: Tr Cov(X_0) or more, positive.
      simplified: the second form, which reads as a number of steps.

    Raises:
      ValueError: another kernel, bad ends, dim or variance, or the ancestral's simplified form with fewer than L steps.
    Source: THEORY 4; constants ours.
    """
    # Node shares are concave in v and the ancestral one peaks at 1/h_{k-1} - 1/h_k = 1/(snr_k + 1/Mbar), the largest v;
    # the moment-matched one at half of it. e^x - 1 - x <= (e - 2) x^2 for x <= 1; log cosh z <= z^2/2.
    check_kernel(kernel_name, ("ancestral", "moment_matched"))
    mean_variance = _mean_variance(dim, total_variance)
    geometric_grid(horizon, early_stop, n_steps, mean_variance)  # raises where there is none
    _, log_ratio = _stretch(horizon, early_stop, mean_variance)
    simple = lambda: dim / 2 * _simple(kernel_name, log_ratio, n_steps)
    closed = lambda: geometric_kl(kernel_name, horizon, early_stop, n_steps, dim, total_variance)
    return certificate(
        f"path KL of {kernel_name}, at most",
        simple() if simplified else closed(),
        f"{n_steps} steps geometric in snr + 1/variance, {OURS}",
        assumptions=(_variance_text(total_variance),),
    )


def geometric_kl(kernel_name, horizon, early_stop, n_steps, dim, total_variance):
    """The value of `geometric`, in nats, unchecked; horizon may be an array."""
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
    """snr_0 + 1/Mbar, and L, the logarithm of how many times larger snr_N + 1/Mbar is."""
    if not 0 < mean_variance < np.inf:
        raise ValueError(f"a geometric grid needs a positive variance a coordinate, not {mean_variance:g}.")
    first, last = ou.snr(np.asarray(horizon, np.float64)), ou.snr(float(early_stop))
    start = first + 1 / mean_variance
    return start, np.log1p((last - first) / start)


# A node's share is concave in v: a rise of slope a at 0 (an a v, or (1/2) log(1 + 2 a v)) and (1/2) log(1 - h v), h the
# step before. Its derivative vanishes at 1/h - 1/2a, or at half of that. The first node has no h, the last no a.
def _peaks(kernel_name, grid):
    """Where each node's share is largest, (n_steps + 1,), infinite at times: to be clipped to what is possible."""
    rise = np.append(slope(kernel_name, grid), 0.0)
    before = np.insert(np.diff(ou.snr(grid)), 0, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        peaks = np.where(rise > 0, 1 / before - 0.5 / np.abs(rise), -np.inf)
    return peaks / 2 if kernel_name == "moment_matched" else peaks


def _edges(mean_variance, grid, cells):
    """Cells of [0, Mbar] for s: geometric, but for the one at 0, which ends where s no longer matters to any node."""
    if isinstance(cells, bool) or not hasattr(cells, "__index__") or cells < 1:
        raise ValueError(f"cells must be a whole number, at least 1: cells = {cells!r}.")
    if mean_variance == 0 or cells == 1:
        return np.array([0.0, mean_variance])
    smallest = 1e-3 * min(mean_variance, 1 / ou.snr(grid[-1]))
    return np.append(0.0, np.geomspace(smallest, mean_variance, cells))


def _mean_variance(dim, total_variance):
    """Mbar, the variance a coordinate."""
    check_dim(dim)
    if not 0 <= total_variance < np.inf:
        raise ValueError(f"total_variance = Tr Cov(X_0) is finite and not negative: total_variance = {total_variance}.")
    return total_variance / dim


def _variance_text(total_variance):
    return f"the data have total variance {total_variance:.6g} at most"
