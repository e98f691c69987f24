"""Accuracy or budget in, plan out: horizon, grid, kernel, and what it will cost."""

import functools

import numpy as np

from jaxdiff.certify import certify
from jaxdiff.curves import MeasuredCurve
from jaxdiff.grids import exponential_then_uniform, frontier, optimal
from jaxdiff.information import initial_kl, path_kl, step_cost
from jaxdiff.processes import ou
from jaxdiff.types import Plan, as_curve

KERNEL = "moment_matched"  # never worse than the other two, for any law and grid
HORIZON, EARLY_STOP = 5.0, 1e-3
MOST_STEPS = 100_000
MOST_PLANNED = (50, 500, 2000)


def plan(
    target_kl=None, early_stop=None, *, target=None, curve=None, dim=None, second_moment=None, evals=None, horizon=None
) -> Plan:
    """The sampler of least predicted path KL for a budget, or the cheapest for an accuracy.

    Args:
      target_kl: nats that initialisation and discretisation may cost together; or
      evals: score evaluations a sample may cost.
      early_stop: OU time to stop at, default 1e-3; a measured curve brings its own, and its horizon.
      target: a known law, sampled with its exact score; or
      curve: the loss curve of a learned denoiser on held-out data (or a callable snr -> loss with dim=).
      second_moment: E|X_0|^2 for the initialisation, with a curve; default d, standardised data.
      horizon: OU time to start from; default 5, or where the initialisation takes a tenth of target_kl.

    Returns:
      A Plan: the moment-matched kernel on its optimal grid. Its alternatives say what the other kernels and Benton's
      grid give for the same evaluations, and how many exponential Euler on Benton's grid needs to be as good.

    Raises:
      ValueError: neither or both of a pair of arguments, or a target_kl that no number of steps reaches.
    """
    if (target is None) == (curve is None):
        raise ValueError("give exactly one of target= (exact score) and curve= (learned denoiser).")
    check_goal(target_kl, evals)
    curve = as_curve(curve if target is None else target.mmse, dim)
    second_moment = _second_moment(target, curve, second_moment)
    if isinstance(curve, MeasuredCurve):
        horizon, early_stop = _ends(curve, horizon, early_stop)
    early_stop = EARLY_STOP if early_stop is None else early_stop
    if horizon is None:
        horizon = HORIZON if target_kl is None else _horizon(target_kl / 10, second_moment, curve.dim)
    n_steps = int(evals or _fewest(target_kl, curve, second_moment, horizon, early_stop))
    grid = _optimal(step_cost(KERNEL, curve), n_steps, horizon, early_stop)
    known = {"curve": curve, "second_moment": second_moment} if target is None else {"target": target}
    certificate = certify(KERNEL, grid, **known)
    return Plan(horizon, grid, KERNEL, n_steps, certificate, _alternatives(curve, grid))


def _ends(curve, *asked):
    """Horizon and early stop of a measured curve, which those asked for must not contradict."""
    own = tuple(float(t) for t in ou.time(np.exp(curve.spline.u[[0, -1]])))
    for name, asks, has in zip(("horizon", "early_stop"), asked, own, strict=True):
        if asks is not None and not np.isclose(asks, has, rtol=1e-6):
            raise ValueError(
                f"the curve was measured with {name} = {has:g}, not {asks:g}: leave it out or measure anew."
            )
    return own


def check_goal(target_kl, evals):
    """Refuse all but one positive goal: target_kl in nats, or evals a sample."""
    if (target_kl is None) == (evals is None):
        raise ValueError("give exactly one of target_kl (nats) and evals (score evaluations).")
    if target_kl is not None and not 0 < target_kl < np.inf:
        raise ValueError(f"target_kl must be positive and finite, in nats: target_kl = {target_kl:g}.")
    if evals is not None and (not 1 <= evals <= MOST_PLANNED[-1] or evals != int(evals)):
        raise ValueError(f"evals must be a whole number from 1 to {MOST_PLANNED[-1]}: evals = {evals}.")


def steps_to_reach(goal, cost, *, most=MOST_STEPS):
    """The fewest steps n with cost(n) <= goal, for a cost that falls with n; None beyond `most`."""
    high = 1
    while cost(high) > goal:
        if high >= most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= goal else (middle, high)
    return high


def _candidates(n_steps):
    return 1000 if n_steps <= 500 else 2 * n_steps


def _optimal(cost, n_steps, horizon, early_stop):
    return optimal(cost, n_steps, horizon, early_stop, n_candidates=_candidates(n_steps))


def _fewest(target_kl, curve, second_moment, horizon, early_stop):
    left = target_kl - initial_kl(second_moment, curve.dim, horizon)
    if left <= 0:
        raise ValueError(
            f"target_kl = {target_kl:g} is less than the initialisation costs at horizon {horizon:g}, "
            f"{target_kl - left:.3g} nats: ask for more than that, or take a longer horizon (train --horizon)."
        )
    cost = step_cost(KERNEL, curve)
    for most in MOST_PLANNED:
        reached = frontier(cost, most, horizon, early_stop, n_candidates=_candidates(most)) <= left
        if reached.any():
            return int(np.argmax(reached)) + 1
    raise ValueError(f"target_kl = {target_kl:g} takes more than {most} steps: ask for more nats.")


def _horizon(allowance, second_moment, dim):
    """The least horizon, on a ladder of tenths, whose initialisation costs at most `allowance` nats."""
    for horizon in np.arange(1, 400) / 10:
        if initial_kl(second_moment, dim, horizon) <= allowance:
            return float(horizon)
    raise ValueError(f"no horizon below 40 brings the initialisation to {allowance:g} nats: is second_moment right?")


def _second_moment(target, curve, second_moment):
    if target is not None:
        return target.second_moment
    return float(curve.dim) if second_moment is None else float(second_moment)


def _alternatives(curve, grid):
    n_steps, horizon, early_stop = len(grid) - 1, grid[0], grid[-1]
    benton = functools.partial(exponential_then_uniform, horizon, early_stop)
    reached = path_kl(KERNEL, grid, curve)
    ancestral_grid = _optimal(step_cost("ancestral", curve), n_steps, horizon, early_stop)
    same_evals = [
        ("exponential_euler", "exponential_then_uniform", benton(n_steps)),
        ("ancestral", "exponential_then_uniform", benton(n_steps)),
        ("ancestral", "optimal", ancestral_grid),
        ("moment_matched", "exponential_then_uniform", benton(n_steps)),
    ]
    rows = [
        {"kernel": kernel, "grid": name, "evals": n_steps, "path_kl": path_kl(kernel, alternative, curve)}
        for kernel, name, alternative in same_evals
    ]
    as_good = steps_to_reach(reached, lambda n: path_kl("exponential_euler", benton(n), curve)) if reached > 0 else None
    if as_good is not None:
        kl = path_kl("exponential_euler", benton(as_good), curve)
        rows.append(
            {"kernel": "exponential_euler", "grid": "exponential_then_uniform", "evals": as_good, "path_kl": kl}
        )
    return tuple(rows)
