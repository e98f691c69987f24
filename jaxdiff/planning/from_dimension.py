"""Plans for all data of a dimension and second moment: ancestral sampling, by a bound in closed form."""

import functools
from typing import Any

import numpy as np

from jaxdiff.arrays import Scalar
from jaxdiff.certificate import CONFIDENCE, DISCRETISATION, INITIALISATION, SCORE_ERROR, Certificate, Term
from jaxdiff.checks import checked_moment
from jaxdiff.grids import exponential_then_uniform, longest_step, runs_in_float32
from jaxdiff.guarantees.bounds import any_grid, benton2024
from jaxdiff.guarantees.information import initial_kl
from jaxdiff.guarantees.terms import early_stopping
from jaxdiff.planning.goal import check_reachable, steps_to_reach
from jaxdiff.planning.record import Plan
from jaxdiff.processes import ou
from jaxdiff.processes.default_times import LATEST, check_ends

KERNEL = "ancestral"  # its variance needs no curve, and its bound has a closed form
HORIZONS = 2001  # candidate horizons, geometric from the early stop to LATEST: neighbours differ by about 0.5 %
MOST_STEPS = 1_000_000  # the most steps that a target_kl may take; the bound in closed form takes no longer for more
SLACK = 1.001  # For evals the shortest horizon is taken whose bound is within this factor of the least one.
# Grids of more steps are bounded with cells=1 of any_grid.upper, which ignores that the mmse falls along the grid. This
# takes far less time, and on so fine a grid it hardly changes the bound.
FINE_STEPS = 10_000


# On a grid that is geometric in snr + d/M, ancestral sampling has a bound in closed form that holds for all data. It is
# computed for many candidate horizons at once.
def data_free_plan(
    target_kl: Scalar | None,
    evals: Scalar | None,
    early_stop: Any,
    dim: Any,
    second_moment: Scalar | None,
    horizon: Any,
) -> Plan:
    """The plan for a target_kl or evals; see `plan` for the arguments and errors."""
    if isinstance(dim, bool) or not 1 <= dim < np.inf or dim != int(dim):
        raise ValueError(f"dim must be a positive whole number: dim = {dim}.")
    moment = checked_moment(second_moment, dim)
    if moment == 0:
        raise ValueError("second_moment must be positive: second_moment = 0 says that the data are all 0.")
    dim, free = int(dim), horizon is None
    check_ends(LATEST if free else horizon, early_stop)
    horizons = np.geomspace(early_stop, LATEST, HORIZONS)[1:] if free else np.array([float(horizon)])
    start = functools.partial(initial_kl, moment, dim)
    check_reachable(target_kl, start, horizons, early_stop)

    def totals(n):
        """The bound in nats of n steps from each horizon; infinite where the first and longest step needs float64."""
        bound = start(horizons) + any_grid.geometric_kl(KERNEL, horizons, early_stop, n, dim, moment)
        return np.where(_first_step(horizons, early_stop, n, moment / dim) <= longest_step(), bound, np.inf)

    n = evals if evals is not None else steps_to_reach(target_kl, lambda n: totals(n).min(), most=MOST_STEPS)
    least = totals(n or MOST_STEPS).min()
    if least == np.inf:
        raise _too_few(n or MOST_STEPS, horizons.min(), early_stop, moment / dim)
    if n is None:
        raise ValueError(
            f"target_kl = {target_kl:g} takes more than {MOST_STEPS} steps, whose bound is {least:.3g} nats: ask for "
            f"more nats than that."
        )
    best = float(horizons[np.argmax(totals(n) <= (target_kl or totals(n).min() * SLACK))])  # the shortest
    grid = any_grid.geometric_grid(best, early_stop, int(n), moment / dim)
    certificate = _certificate(grid, dim, moment)
    return Plan(best, grid, KERNEL, int(n), certificate, _alternatives(certificate, grid, dim, moment))


# A small step of log(snr + 1/Mbar) changes OU time by -(snr + 1/Mbar)/(2 snr (1 + snr)) times its length. The factor
# falls as snr rises, so the first of equal steps is the longest in OU time.
def _first_step(horizons, early_stop, n_steps, mean_variance):
    """The length in OU time of the first and longest step of `any_grid.geometric_grid`; shape of horizons."""
    first, last = ou.snr(horizons), ou.snr(float(early_stop))
    start = first + 1 / mean_variance
    return horizons - ou.time(first + start * np.expm1(np.log1p((last - first) / start) / n_steps))


def _too_few(n_steps, horizon, early_stop, mean_variance):
    """The error for so few steps that float32 does not allow the first one, even from the shortest horizon."""
    step = float(_first_step(np.array(horizon), early_stop, n_steps, mean_variance))
    return ValueError(
        f"{n_steps} steps from horizon {horizon:g} begin with a step of OU time {step:.3g}, but float32 allows "
        f"{longest_step():.3g} at most. Take more evals, a shorter horizon, or data scaled to variance 1."
    )


def _bound(kernel_name, grid, dim, moment):
    cells = {} if len(grid) <= FINE_STEPS else {"cells": 1}
    return any_grid.upper(kernel_name, grid, dim, moment, **cells)[DISCRETISATION]


def _certificate(grid, dim, moment):
    start = float(initial_kl(moment, dim, grid[0]))
    terms = (
        Term(INITIALISATION, start, 0.0, "bound", "Gaussian bound on KL(q_T || N(0, I)), from E|X_0|^2"),
        _bound(KERNEL, grid, dim, moment),
        Term(SCORE_ERROR, 0.0, 0.0, "assumed", "the score is exact"),
        *early_stopping(moment, dim, grid[-1]),
    )
    assumptions = (f"the data have E|X_0|^2 = {moment:.6g} at most; nothing else is assumed of them",)
    warnings = ()
    if start > terms[1].value:
        warnings = (
            f"the initialisation is the largest term: with {len(grid) - 1} steps the bound is least for the short "
            f"horizon {grid[0]:.3g}, and the samples stay close to N(0, I); take more evals, or give a longer horizon=",
        )
    return Certificate(f"KL(q_{grid[-1]:g} || {KERNEL}), for all such data", terms, CONFIDENCE, assumptions, warnings)


def _alternatives(certificate, grid, dim, moment):
    """Bounds for exponential Euler on Benton's grid: for as many steps, and the steps that equal the plan's bound."""
    goal, benton = certificate[DISCRETISATION].value, functools.partial(exponential_then_uniform, grid[0], grid[-1])
    allowed = lambda cost: lambda n: cost(n) if runs_in_float32(benton(n)) else np.inf
    euler = allowed(
        lambda n: any_grid.upper("exponential_euler", benton(n), dim, moment, cells=1)[DISCRETISATION].value
    )
    found = [("any_grid", len(grid) - 1, euler), ("any_grid", steps_to_reach(goal, euler), euler)]
    if grid[0] >= 1 >= grid[-1] and moment <= dim:
        terms = DISCRETISATION, "second order"
        theorem = allowed(lambda n: sum(benton2024.theorem1(benton(n), dim)[name].value for name in terms))
        found.append(("benton2024.theorem1", steps_to_reach(goal, theorem), theorem))
    found = list(dict.fromkeys(found))
    row = {"kernel": "exponential_euler", "grid": "exponential_then_uniform", "per_direction": False}
    return tuple(
        row | {"evals": n, "path_kl": float(cost(n)), "bound": bound}
        for bound, n, cost in found
        if n is not None and cost(n) < np.inf
    )
