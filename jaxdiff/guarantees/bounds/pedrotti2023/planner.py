"""Plans the scheme for a W2 distance: horizon, Langevin's time and step, and the grid of the reversal."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.certificate import Certificate
from jaxdiff.grids import log_snr
from jaxdiff.guarantees.bounds.brackets import check_dim
from jaxdiff.guarantees.bounds.pedrotti2023.langevin_kl import BIAS, RATE, STEP_LIMIT, start_kl
from jaxdiff.guarantees.bounds.pedrotti2023.log_sobolev import lsi_constant, sufficient_horizon
from jaxdiff.guarantees.bounds.pedrotti2023.wasserstein import Tabulated, along_a_grid, checked_second_moment, w2
from jaxdiff.guarantees.information import early_stopping_w2
from jaxdiff.processes import ou
from jaxdiff.processes.default_times import EARLIEST
from jaxdiff.types import Grid, Number, Numbers, Whole

FRACTION = 1 / 3  # of the target that is allowed to each of three errors: early stopping, Langevin, the grid
# Horizons that are tried, in geometric progression. More find a slightly cheaper plan and take longer: 80 take seconds.
HORIZONS = 80
LAST_HORIZON = 8.0  # the last of them, at least: the KL of N(0, I) to q_8 is of order e^-16 R^2
MOST_STEPS = 2**15  # of a planned grid; numbers of steps are powers of 2
LATEST_STOP = 3.0  # upper end of the bisection for the early stop; there the data keep 5 % of their size


class FiniteHorizonPlan(NamedTuple):
    """A plan of the scheme, and its certificate.

    Attributes:
      horizon: T_1.
      langevin_time: T_2.
      step_size: of Langevin, running time; 0 where the start needs no step.
      grid: of the reversal, by `kernels.ddim`.
      evals: score evaluations at T_1 and in the reversal.
      certificate: the bound, as `w2` gives it.
    """

    horizon: float
    langevin_time: float
    step_size: float
    grid: Grid
    evals: tuple[int, int]
    certificate: Certificate


def plan_w2(
    target_w2: Number,
    dim: Whole,
    radius: Number,
    *,
    early_stop: Number | None = None,
    moments: tuple[Numbers, Numbers] | None = None,
    one_sided: Callable[..., Any] | None = None,
    second_moment: Number | None = None,
) -> FiniteHorizonPlan:
    """T_1, T_2, Langevin's step and the grid of `kernels.ddim`, of least evaluations, for W2(data, samples) <= target.

    For the exact score. A third of the target each is given to early stopping, Langevin and the grid. The bound holds
    for all data of this radius, and asks for far more evaluations than most of them need. Without one_sided there is a
    plan for a target of 1 at radius 0.5, and none for a target of 0.3; the message then has log G.

    Args:
      target_w2: in the data's units.
      dim, radius, moments, one_sided, second_moment: as for `w2`.
      early_stop: default the latest that a third of the target allows.

    Returns:
      A FiniteHorizonPlan, whose certificate's "W2 in all" is at most the target.

    Raises:
      ValueError: the target is not positive, early_stop alone exceeds its third, or no grid of 32,768 steps is enough:
        the message has log G.
    """
    check_dim(dim)
    if not 0 < target_w2 < np.inf:
        raise ValueError(f"target_w2 is a distance, positive: target_w2 = {target_w2:g}.")
    moment2, allowance = checked_second_moment(second_moment, radius), FRACTION * target_w2
    early_stop = _checked_stop(early_stop, allowance, moment2, dim)
    least = max(sufficient_horizon(1 - 1e-3, radius), 2 * early_stop)
    horizons = np.geomspace(least, max(sufficient_horizon(1e-3, radius), LAST_HORIZON), HORIZONS)
    table = None if one_sided is None else Tabulated.of(one_sided, early_stop, horizons[-1])
    best, stretch = _cheapest(horizons, early_stop, allowance, dim, radius, table, moments)
    if best is None:
        raise ValueError(
            f"no grid of {MOST_STEPS} steps reaches W2 {target_w2:g}: the reversal can stretch by e^{stretch:.3g}. The "
            f"bound is too loose for radius {radius:g} down to {early_stop:.3g}; pass one_sided= if you know it better."
        )
    horizon, evals, h = best
    grid = log_snr(horizon, early_stop, evals[1])
    certificate = w2(
        horizon,
        h * evals[0],
        dim,
        radius,
        grid=grid,
        step_size=h if evals[0] else None,
        moments=moments,
        one_sided=one_sided,
        second_moment=second_moment,
    )
    return FiniteHorizonPlan(horizon, h * evals[0], h, grid, evals, certificate)


def _cheapest(horizons, early_stop, allowance, dim, radius, one_sided, moments):
    """(horizon, evaluations, Langevin's step) of fewest evaluations, or None; and the least log G that was met."""
    best, least_stretch = None, np.inf
    for horizon in horizons:
        n_steps, stretch = _enough_steps(horizon, early_stop, allowance, dim, radius, one_sided)
        least_stretch = min(least_stretch, stretch)
        if n_steps is None:
            continue
        h, count = _enough_langevin(horizon, stretch, allowance, dim, radius, moments)
        if best is None or count + n_steps < sum(best[1]):
            best = (float(horizon), (count, n_steps), h)
    return best, least_stretch


def _checked_stop(early_stop, allowance, second_moment, dim):
    """The early stop that was given, if it costs no more than the allowance; by default the latest that does not."""
    if early_stop is None:
        return _latest_stop(allowance, second_moment, dim)
    cost = early_stopping_w2(second_moment, dim, early_stop)
    if cost > allowance:
        raise ValueError(
            f"stopping at {early_stop:g} alone can cost W2 {cost:.4g}, a third of the target is {allowance:.4g}: stop "
            f"at {_latest_stop(allowance, second_moment, dim):.4g}."
        )
    return early_stop


def _latest_stop(allowance, second_moment, dim):
    """The latest time at which stopping costs no more than the allowance, by bisection."""
    low, high = EARLIEST, LATEST_STOP
    if early_stopping_w2(second_moment, dim, low) > allowance:
        raise ValueError(
            f"a third of the target, {allowance:.3g}, is less than stopping at {low:g} can cost: take a larger target."
        )
    for _ in range(100):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if early_stopping_w2(second_moment, dim, middle) <= allowance else (low, middle)
    return float(low)


def _enough_steps(horizon, early_stop, allowance, dim, radius, one_sided):
    """The fewest steps of ddim, a power of 2, that cost no more than the allowance, or None; and log G."""
    none, n_steps, stretch = lambda t: 0.0, 1, np.inf
    while n_steps <= MOST_STEPS:
        grid = log_snr(horizon, early_stop, n_steps)
        stretch, _, cost = along_a_grid(grid, dim, radius, one_sided, none)
        if cost <= allowance:
            return n_steps, stretch
        n_steps *= 2
    return None, stretch


def _enough_langevin(horizon, stretch, allowance, dim, radius, moments):
    """Step and number of steps after which Langevin costs the allowance at most; half of its KL is the step bias."""
    constant, smooth = float(lsi_constant(horizon, radius)), float(1 / ou.sigma(horizon) ** 2)
    goal = constant / 2 * (allowance * np.exp(-stretch)) ** 2
    kl = start_kl(horizon, dim, radius, moments=moments)
    if kl <= goal:
        return 0.0, 0
    h = min(1 / (STEP_LIMIT * smooth), goal / 2 * constant / (BIAS * smooth**2 * dim))
    return float(h), int(np.ceil(np.log(2 * kl / goal) / (RATE * constant * h)))
