"""The path KL of a sampler, its independent estimates by rows or replicates, and the error of interpolation.

Everything is float64 on the host, in nats. The path KL of single steps is defined in `step_cost`.
"""

from typing import Any

import numpy as np

from jaxdiff.arrays import Scalar
from jaxdiff.curves import Curve, MeasuredCurve
from jaxdiff.curves.curve import as_curve, check_basis
from jaxdiff.grids import check_grid
from jaxdiff.guarantees.step_cost import check_directions, cost_of, losses, unchecked_step_cost, variance_at
from jaxdiff.intervals import Samples, independent
from jaxdiff.kernels.covariance_matched import log_det
from jaxdiff.processes import ou
from jaxdiff.types import Basis, ErrorCurve, Grid, Kernel, PathCost, Times


def path_kl(
    kernel: Kernel | PathCost | str,
    curve: ErrorCurve,
    grid: Times,
    *,
    matched: ErrorCurve | None = None,
    basis: Basis = None,
    dim: Scalar | None = None,
) -> float:
    """The path KL of a sampler down a grid, in nats, without the initial KL.

    With the mmse curve of the data and the exact score it is KL(forward path || sampler's path), for any data with a
    second moment, and an upper bound on the KL of the end points. With the loss curve of a learned denoiser it is the
    excess over the path KL of the same denoiser used continuously. Rounding errors are about 1e-13 times
    d log(snr_end/snr_start).

    Args:
      kernel, curve, matched, basis, dim: see `step_cost`.
      grid: (n_steps + 1,) decreasing OU times.

    Raises:
      ValueError: as `step_cost`, or the grid is not valid.
    """
    cost, curve, grid = cost_of(kernel, matched, basis), as_curve(curve, dim), check_grid(grid)
    check_directions(cost, curve)
    return _total(cost, curve, grid)


def _total(cost, curve, grid):
    return float(np.sum(unchecked_step_cost(cost, curve)(grid[:-1], grid[1:])))


def path_kl_samples(
    kernel: Kernel | PathCost | str,
    curve: Curve,
    grid: Times,
    *,
    matched: ErrorCurve | None = None,
    basis: Basis = None,
) -> Samples:
    """Independent estimates (n,) of path_kl, their mean: one for each row, group of rows or Monte Carlo replicate.

    The array is empty for a curve that is known exactly. `matched` must come from other data or be the curve itself. In
    the latter case the variance of the mean has an error of relative order 1/n. See `step_cost` for the arguments.
    """
    cost, grid = cost_of(kernel, matched, basis), check_grid(grid)
    check_directions(cost, curve)
    if isinstance(curve, MeasuredCurve) and cost.basis is None and cost.uses != "log_det":
        constant, weights = _of_rows(cost, curve, grid)
        return constant + curve.rows @ weights
    if cost.basis is not None:
        for one in curve.replicates:
            check_basis(curve.basis, one)
    cost = cost.with_variance(curve) if cost.variance is None else cost
    return np.array([_total(cost, one, grid) for one in curve.replicates])


def path_kl_error(
    kernel: Kernel | PathCost | str,
    curve: Curve,
    grid: Times,
    *,
    matched: ErrorCurve | None = None,
    basis: Basis = None,
) -> float:
    """The standard error of path_kl, from path_kl_samples; copies of a row count as one row. 0 for an exact curve."""
    samples, ids = path_kl_samples(kernel, curve, grid, matched=matched, basis=basis), None
    if isinstance(curve, MeasuredCurve) and curve.row_ids is not None and len(samples) == curve.n:
        ids = curve.row_ids
    return standard_error(independent(samples, ids))


def interpolation_error(
    kernel: Kernel | PathCost | str,
    curve: Curve,
    grid: Times,
    *,
    matched: ErrorCurve | None = None,
    basis: Basis = None,
    integral: bool = True,
) -> float:
    """An estimate of the error of path_kl, in nats, from interpolating a MeasuredCurve between its levels; else 0.

    It is the sum of the absolute values of the estimates of `Spline.error` and `Spline.integral_error`, times their
    weights in the path KL. If the grid was given to `loss_curve`, its nodes are levels, and only the error of
    (1/2) int L dsnr is left. integral=False leaves that error out.
    """
    if not isinstance(curve, MeasuredCurve):
        return 0.0
    cost, grid = cost_of(kernel, matched, basis), check_grid(grid)
    check_directions(cost, curve)
    snr, spline = ou.snr(grid), curve.spline
    u, nodes = np.log(snr[:-1]), np.exp(spline.u)
    missed = lambda near, weight: float(np.sum(np.abs(weight) * spline.error(near, u)))
    around, total = spline.around(u), 0.0
    if cost.uses == "log_det":
        total += missed(log_det(curve, nodes[around], np.diff(snr)[:, None]), 0.5)
    else:
        line = cost.terms(grid[:-1], grid[1:], variance_at(cost, curve, snr[:-1]), curve)
        weighted = (nodes * losses(curve, nodes, cost.basis).T).T
        total += missed(weighted[around], (line.loss.T / snr[:-1]).T)
        total += missed(curve.crosses[around], line.cross / np.sqrt(snr[:-1]))
    return total + (spline.integral_error(curve.losses, *np.log(snr[[0, -1]])) / 2 if integral else 0.0)


def standard_error(samples: Any) -> float:
    """The standard error of the mean of independent samples (n,); 0 for fewer than two."""
    return float(np.std(samples, ddof=1) / np.sqrt(len(samples))) if len(samples) > 1 else 0.0


def level_samples(curve: MeasuredCurve, grid: Grid) -> Samples:
    """(n,) independent estimates of (1/2) int L dsnr between a grid's ends, one for each row of the curve."""
    return curve.rows[:, : len(curve.spline.levels)] @ _half_integral(curve.spline, np.log(ou.snr(grid)))


# No narrower range holds for every clipped D: a denoiser can have the loss 0 at some levels and 4 R^2 at all others, in
# any pattern, and so in that of the weights' signs.
def range_of_rows(cost: PathCost, curve: MeasuredCurve, grid: Grid, radius: Scalar) -> tuple[float, float]:
    """The smallest and the largest path KL that a row can have if |X_0 - D| <= 2 radius always.

    Raises:
      ValueError: the kernel's path KL has a noise term, its variance is not set from other data, or a row's loss shows
        that the data or the denoiser leave the ball.
    """
    if cost.uses != "loss" or cost.basis is not None:
        raise ValueError(
            f"radius= is for ancestral and moment_matched without basis: the path KL of {cost.kernel} is not "
            f"bounded for single rows."
        )
    if cost.matches and (cost.variance is None or cost.variance is curve):
        raise ValueError("radius= needs matched=, the curve that set the variance, measured on other rows than curve=.")
    levels = np.exp(curve.spline.levels)
    losses, most = curve.rows[:, : len(levels)], 4 * radius**2 * levels
    if (losses > most * (1 + 1e-6)).any():
        worst = float(np.sqrt((losses / levels).max()))
        raise ValueError(
            f"|X_0 - D| is {worst:.4g} for a row, more than 2 radius = {2 * radius:.4g}: clip the denoiser with "
            f"processes.clipped, or take a larger radius."
        )
    constant, weights = _of_rows(cost, curve, check_grid(grid))
    ends = weights[: len(most)] * most
    return constant + float(np.minimum(ends, 0).sum()), constant + float(np.maximum(ends, 0).sum())


def _half_integral(spline, u):
    """(levels,) weights of the values of snr L at the levels in (1/2) int L dsnr from u[0] to u[-1]."""
    return 0.5 * (spline.integral_basis(u[-1:]) - spline.integral_basis(u[:1]))[0]


def _of_rows(cost, curve, grid):
    """Constant and weights (2 levels,): the path KL of each row of a MeasuredCurve is constant + weights @ row."""
    snr = ou.snr(grid)
    u, spline = np.log(snr), curve.spline
    line = cost.terms(grid[:-1], grid[1:], variance_at(cost, curve, snr[:-1]), curve)
    at_nodes = spline.basis(u[:-1])
    loss = (line.loss / snr[:-1]) @ at_nodes
    loss -= _half_integral(spline, u)
    return float(np.sum(line.constant)), np.concatenate([loss, (line.cross / np.sqrt(snr[:-1])) @ at_nodes])
