"""The path KL of a sampler, its independent estimates by rows or replicates, and how far interpolation may be off.

Everything is float64 on the host, in nats. `step_cost` has the costs of single steps, and says what they mean.
"""

import numpy as np

from jaxdiff.curves import MeasuredCurve
from jaxdiff.curves.curve import as_curve, check_basis
from jaxdiff.grids import check_grid
from jaxdiff.guarantees.step_cost import check_directions, cost_of, losses, unchecked_step_cost, variance_at
from jaxdiff.intervals import independent
from jaxdiff.kernels.covariance_matched import log_det
from jaxdiff.processes import ou


def path_kl(kernel, grid, curve, *, matched=None, basis=None, dim=None):
    """Path-space KL of a sampler run down a grid, in nats, without the initial KL; see step_cost for the arguments.

    With the mmse curve of the data and the exact score it is KL(forward path || sampler's path), an upper bound on the
    KL of the end points, and the equality holds for any data with a second moment. With the loss curve of a learned
    denoiser it is the excess over using that denoiser continuously.
    Rounding: about 1e-13 relative to d log(snr_end/snr_start).
    """
    cost, curve, grid = cost_of(kernel, matched, basis), as_curve(curve, dim), check_grid(grid)
    check_directions(cost, curve)
    return _total(cost, curve, grid)


def _total(cost, curve, grid):
    return float(np.sum(unchecked_step_cost(cost, curve)(grid[:-1], grid[1:])))


def path_kl_samples(kernel, grid, curve, *, matched=None, basis=None):
    """Independent estimates of path_kl, which is their mean: of rows, groups of rows, Monte Carlo replicates; (n,).

    Empty for a curve that is known exactly. `matched` must come from other data, or be the curve itself (then the
    spread is right to first order, with an error of O(1/n)).
    """
    cost, grid = cost_of(kernel, matched, basis), check_grid(grid)
    check_directions(cost, curve)
    if isinstance(curve, MeasuredCurve) and cost.basis is None and cost.uses != "log_det":
        constant, weights = _of_rows(cost, grid, curve)
        return constant + curve.rows @ weights
    if cost.basis is not None:
        for one in curve.replicates:
            check_basis(curve.basis, one)  # most hold this very array
    cost = cost.with_variance(curve) if cost.variance is None else cost
    return np.array([_total(cost, one, grid) for one in curve.replicates])


def path_kl_error(kernel, grid, curve, *, matched=None, basis=None):
    """Standard error of path_kl from the spread of path_kl_samples, copies of a row together; 0 for an exact curve."""
    samples, ids = path_kl_samples(kernel, grid, curve, matched=matched, basis=basis), None
    if isinstance(curve, MeasuredCurve) and curve.row_ids is not None and len(samples) == curve.n:
        ids = curve.row_ids
    return standard_error(independent(samples, ids))


def interpolation_error(kernel, grid, curve, *, matched=None, basis=None, integral=True):
    """How wrong path_kl may be, in nats, because a MeasuredCurve knows the losses at its levels only; 0 for others.

    The estimates of `Spline.error` and `Spline.integral_error`, weighted and added up without regard to signs. A grid
    given to `loss_curve` has its own nodes among the levels; what is left is the error of (1/2) int L dsnr, which
    integral=False leaves out.
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


def standard_error(samples):
    """Of the mean of independent samples (n,); 0 where there are none."""
    return float(np.std(samples, ddof=1) / np.sqrt(len(samples))) if len(samples) > 1 else 0.0


def level_samples(curve, grid):
    """(n,) independent estimates of (1/2) int L dsnr between a grid's ends, one for each row of a MeasuredCurve."""
    return curve.rows[:, : len(curve.spline.levels)] @ _half_integral(curve.spline, np.log(ou.snr(grid)))


# No narrower range holds for every clipped D: one that knows X_0 may be anywhere in the ball between two levels and
# elsewhere at the levels, so the loss takes 0 and 4 R^2 at either, whatever the weights' signs.
def range_of_rows(cost, grid, curve, radius):
    """Smallest and largest path KL that a row can have, if |X_0 - D| <= 2 radius always.

    Raises:
      ValueError: the kernel's path KL holds a noise term, or its variance is not set from other data, or a row's loss
        shows that data or denoiser leave the ball.
    """
    if cost.uses != "loss" or cost.basis is not None:
        raise ValueError("radius= is for ancestral and moment_matched without basis: other path KLs are not bounded.")
    if cost.matches and (cost.variance is None or cost.variance is curve):
        raise ValueError("radius= needs matched=, the curve that set the variance, from other rows than these.")
    levels = np.exp(curve.spline.levels)
    losses, most = curve.rows[:, : len(levels)], 4 * radius**2 * levels
    if (losses > most * (1 + 1e-6)).any():
        worst = float(np.sqrt((losses / levels).max()))
        raise ValueError(f"a row is {worst:.4g} from its denoised self, more than 2 radius = {2 * radius:.4g}: clip D.")
    constant, weights = _of_rows(cost, check_grid(grid), curve)
    ends = weights[: len(most)] * most
    return constant + float(np.minimum(ends, 0).sum()), constant + float(np.maximum(ends, 0).sum())


def _half_integral(spline, u):
    """(levels,): values of snr L at the levels -> (1/2) int L dsnr from u[0] to u[-1]."""
    return 0.5 * (spline.integral_basis(u[-1:]) - spline.integral_basis(u[:1]))[0]


def _of_rows(cost, grid, curve):
    """Constant and weights (2 levels,): the path KL of a row of a MeasuredCurve is constant + weights @ row."""
    snr = ou.snr(grid)
    u, spline = np.log(snr), curve.spline
    line = cost.terms(grid[:-1], grid[1:], variance_at(cost, curve, snr[:-1]), curve)
    at_nodes = spline.basis(u[:-1])
    loss = (line.loss / snr[:-1]) @ at_nodes
    loss -= _half_integral(spline, u)
    return float(np.sum(line.constant)), np.concatenate([loss, (line.cross / np.sqrt(snr[:-1])) @ at_nodes])
