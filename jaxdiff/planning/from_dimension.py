"""The plan that holds for all data of a dimension and second moment: ancestral sampling by a closed-form bound."""

import functools

import numpy as np

from jaxdiff.certificate import CONFIDENCE, DISCRETISATION, INITIALISATION, SCORE_ERROR, Certificate, Term
from jaxdiff.checks import checked_moment
from jaxdiff.grids import exponential_then_uniform, longest_step, runs_in_float32
from jaxdiff.guarantees.bounds import any_grid, benton2024
from jaxdiff.guarantees.information import initial_kl
from jaxdiff.guarantees.terms import early_stopping
from jaxdiff.planning.goal import check_reachable, steps_to_reach
from jaxdiff.planning.record import Plan
from jaxdiff.processes import ou
from jaxdiff.processes.ou import LATEST, check_ends

KERNEL = "ancestral"  # no curve sets its variance
HORIZONS = 2001  # on the ladder they are chosen from
MOST_STEPS = 1_000_000  # of the closed form
SLACK = 1.001  # of the least bound, for a shorter horizon
FINE_STEPS = 10_000  # the bound of a grid of more keeps no order between its nodes


# Down a grid geometric in snr + d/M ancestral sampling is bounded in closed form, whatever the data; so the best
# horizon is read off a ladder.
def data_free_plan(target_kl, evals, early_stop, dim, second_moment, horizon) -> Plan:
    """The plan for a target_kl or evals; see `plan`."""
    if isinstance(dim, bool) or not 1 <= dim < np.inf or dim != int(dim):
        raise ValueError(f"dim must be a positive whole number: dim = {dim}.")
    moment = checked_moment(second_moment, dim)
    if moment == 0:
        raise ValueError("second_moment = 0 says that the data are all 0: there is nothing to sample.")
    dim, free = int(dim), horizon is None
    check_ends(LATEST if free else horizon, early_stop)
    horizons = np.geomspace(early_stop, LATEST, HORIZONS)[1:] if free else np.array([float(horizon)])
    start = functools.partial(initial_kl, moment, dim)
    check_reachable(target_kl, start, horizons, early_stop)

    def totals(n):
        """Nats of n steps from each horizon; infinite where float32 does not allow the first step, the longest."""
        bound = start(horizons) + any_grid.geometric_kl(KERNEL, horizons, early_stop, n, dim, moment)
        return np.where(_first_step(horizons, early_stop, n, moment / dim) <= longest_step(), bound, np.inf)

    n = evals if evals is not None else steps_to_reach(target_kl, lambda n: totals(n).min(), most=MOST_STEPS)
    least = totals(n or MOST_STEPS).min()
    if least == np.inf:
        raise _too_few(n or MOST_STEPS, horizons.min(), early_stop, moment / dim)
    if n is None:
        raise ValueError(
            f"target_kl = {target_kl:g} takes more than {MOST_STEPS} steps, which are good for {least:.3g} nats: ask "
            f"for more than that."
        )
    best = float(horizons[np.argmax(totals(n) <= (target_kl or totals(n).min() * SLACK))])  # the shortest that will do
    grid = any_grid.geometric_grid(best, early_stop, int(n), moment / dim)
    certificate = _certificate(grid, dim, moment)
    return Plan(best, grid, KERNEL, int(n), certificate, _alternatives(certificate, grid, dim, moment))


# In equal steps of log(snr + 1/Mbar) OU time falls by (snr + 1/Mbar)/(2 snr (1 + snr)) each, less as snr rises.
def _first_step(horizons, early_stop, n_steps, mean_variance):
    """The longest step of `any_grid.geometric_grid`, the first, in OU time; shape of horizons."""
    first, last = ou.snr(horizons), ou.snr(float(early_stop))
    start = first + 1 / mean_variance
    return horizons - ou.time(first + start * np.expm1(np.log1p((last - first) / start) / n_steps))


def _too_few(n_steps, horizon, early_stop, mean_variance):
    """The error where so many steps begin with one that float32 does not allow, from the shortest horizon even."""
    step = float(_first_step(np.array(horizon), early_stop, n_steps, mean_variance))
    return ValueError(
        f"{n_steps} steps from horizon {horizon:g} begin with one of OU time {step:.3g}; a float32 run takes steps of "
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
    assumptions = (f"the data have E|X_0|^2 = {moment:.6g} at most; nothing else is known of them",)
    warnings = ()
    if start > terms[1].value:
        warnings = (
            f"the initialisation costs most: {len(grid) - 1} steps are bounded best from a horizon as short as "
            f"{grid[0]:.3g}, and what comes out stays near N(0, I); take more evals, or a horizon of your own",
        )
    return Certificate(f"KL(q_{grid[-1]:g} || {KERNEL}), for all such data", terms, CONFIDENCE, assumptions, warnings)


def _alternatives(certificate, grid, dim, moment):
    """What bounds promise of exponential Euler on Benton's grid: for as many steps, and how many are as good."""
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
