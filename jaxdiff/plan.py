"""Accuracy or budget in, plan out: horizon, grid, kernel, and what it will cost."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from jaxdiff.certify import DISCRETISATION, FEWEST_TO_HALVE, certify, cross_fitted
from jaxdiff.curves import MeasuredCurve
from jaxdiff.data_free import KERNEL as DATA_FREE_KERNEL
from jaxdiff.data_free import data_free_plan
from jaxdiff.goals import MOST_EVALS, check_goal, check_reachable, checked_moment, steps_to_reach
from jaxdiff.grids import exponential_then_uniform, fewest, optimal
from jaxdiff.information import initial_kl, mutual_information
from jaxdiff.interpolation import antiderivative
from jaxdiff.path_costs import path_kl, step_cost
from jaxdiff.processes import LATEST, check_ends, ou
from jaxdiff.types import Plan, as_curve

KERNEL = "moment_matched"  # never worse than exponential Euler and ancestral sampling
BENTON, OPTIMAL = "exponential_then_uniform", "optimal"
EARLY_STOP = 1e-3
NEGLIGIBLE = 1e-6  # nats of initialisation at the longest horizon looked at, or 1e-3 of what is asked for
CANDIDATES, PAIRS = 1000, 2**25  # times that a grid is looked for among; pairs of them times directions
ROUNDING = 1e-12  # nats that are none
FEW_CANDIDATES, FEW_STEPS = 400, 100  # of covariance matching, whose steps cost a log det: not polished; not offered


def plan(
    target_kl=None,
    early_stop=None,
    *,
    dim=None,
    second_moment=None,
    target=None,
    curve=None,
    evals=None,
    horizon=None,
    kernel=None,
) -> Plan:
    """The sampler of least predicted path KL for a budget, or the cheapest for an accuracy.

    Three strengths, by what is known of the data: `dim` and `second_moment` alone (a bound for all such data, ancestral
    sampling); a known `target` (exact); the loss `curve` of a trained model (measured, up to the model's own error).

    Args:
      target_kl: nats that initialisation and discretisation may cost together; or
      evals: score evaluations a sample may cost.
      early_stop: OU time to stop at, default 1e-3; a measured curve brings its own, and its horizon.
      dim: d, alone or with a plain callable as curve.
      second_moment: E|X_0|^2; default d, standardised data.
      target: a known law, sampled with its exact score.
      curve: the loss curve of a learned denoiser on held-out data (or a callable snr -> loss with dim=).
      horizon: OU time to start from; by default the best one is found together with the grid.
      kernel: a kernel with a path KL; default "moment_matched", in the basis of the curve where it has one, or
        "ancestral" where only dim is known.

    Returns:
      A Plan: the kernel on its optimal grid; for moment matching build it with `basis=plan.basis`. The alternatives say
      what other kernels and Benton's grid give for the same evaluations, and how many exponential Euler on Benton's
      grid needs to be as good.

    Raises:
      ValueError: neither or both of a pair of arguments, or a target_kl that no number of steps reaches; the message
        says what would do.
    """
    check_goal(target_kl, evals)
    early_stop = EARLY_STOP if early_stop is None and not isinstance(curve, MeasuredCurve) else early_stop
    if target is None and curve is None:
        _check_data_free(dim, kernel)
        return data_free_plan(target_kl, evals, early_stop, dim, second_moment, horizon)
    if target is not None and curve is not None:
        raise ValueError("give at most one of target= (exact score) and curve= (learned denoiser).")
    known = as_curve(curve if target is None else target.mmse, dim)
    if target is not None and second_moment is not None:
        raise ValueError("a target brings its own second_moment: leave it out.")
    second_moment = target.second_moment if target is not None else checked_moment(second_moment, known.dim)
    if isinstance(known, MeasuredCurve):
        horizon, early_stop = _ends(known, horizon, early_stop)
    kernel = KERNEL if kernel is None else kernel
    basis = known.basis if kernel == KERNEL and known.dim > 1 else None
    start = functools.partial(_start, known, second_moment, target is not None and not known.replicates)
    grid = _grid(kernel, known, basis, start, target_kl, evals, horizon, early_stop)
    given = {"curve": known, "second_moment": second_moment} if target is None else {"target": target}
    certificate = certify(kernel, grid, basis=basis, **given)
    if isinstance(known, MeasuredCurve) and known.n >= FEWEST_TO_HALVE and kernel != "covariance_matched":
        grid, certificate = _cross_fitted(kernel, grid, known, basis, certificate, target_kl)
    alternatives = _alternatives(kernel, grid, known, basis)
    return Plan(float(grid[0]), grid, kernel, len(grid) - 1, certificate, alternatives, basis)


def _cross_fitted(kernel, grid, curve, basis, certificate, target_kl):
    """Grid and certificate with the discretisation cross-fitted, with as many steps as that takes to a target_kl."""
    others = certificate.known - certificate[DISCRETISATION].value
    options, n = _search_options(kernel, curve, basis), len(grid) - 1
    best = lambda one: optimal(step_cost(kernel, one, basis=basis), n, grid[0], grid[-1], **options)
    while True:
        term = cross_fitted(kernel, curve, basis, best)
        reached = others + term.value
        if target_kl is None or reached <= target_kl:
            break
        n += max(1, math.ceil(n * (reached / target_kl - 1) / 2))
        if n > MOST_EVALS:
            raise ValueError(f"target_kl = {target_kl:g} takes more than {MOST_EVALS} steps: ask for more nats.")
    grid = best(curve) if n != len(grid) - 1 else grid
    terms = tuple(term if one.name == DISCRETISATION else one for one in certificate.terms)
    return grid, dataclasses.replace(certificate, terms=terms)


def _check_data_free(dim, kernel):
    if dim is None:
        raise ValueError("say what is known of the data: dim= (with second_moment=), target= or curve=.")
    if kernel not in (None, DATA_FREE_KERNEL):
        raise ValueError(f"of dim alone the plan is for {DATA_FREE_KERNEL}: {kernel} needs target= or curve=.")


def _ends(curve, *asked):
    """Horizon and early stop of a measured curve, which those asked for must not contradict."""
    for name, asks, has in zip(("horizon", "early_stop"), asked, curve.ends, strict=True):
        if asks is not None and not np.isclose(asks, has, rtol=1e-6):
            raise ValueError(
                f"the curve was measured with {name} = {has:g}, not {asks:g}: leave it out or measure anew."
            )
    return curve.ends


def _start(curve, second_moment, exact, t):
    """KL(q_t || N(0, I)), or its Gaussian bound; t an array."""
    bound = initial_kl(second_moment, curve.dim, t)
    if not exact:
        return bound
    t = np.asarray(t, np.float64)
    latest = t.max()
    along = antiderivative(curve, ou.snr(np.append(t.ravel(), latest)))
    told = mutual_information(curve, latest) + (along[:-1] - along[-1]).reshape(t.shape) / 2
    return np.maximum(bound - told, 0.0)


def _grid(kernel, curve, basis, start, target_kl, evals, horizon, early_stop):
    """The best grid for the goal, from the horizon or from the best one."""
    cost = step_cost(kernel, curve, basis=basis)
    free = horizon is None
    check_ends(LATEST if free else horizon, early_stop)
    horizon = _longest(start, early_stop, target_kl) if free else horizon
    check_reachable(target_kl, start, np.array([horizon]), early_stop)
    options = _search_options(kernel, curve, basis) | ({"start_cost": start} if free else {})
    if evals is not None and kernel == "covariance_matched":
        options["n_candidates"] = max(FEW_CANDIDATES, 2 * int(evals))
    if evals is not None:
        return optimal(cost, int(evals), horizon, early_stop, **options)
    left = target_kl if free else target_kl - float(start(np.array([horizon]))[0])
    most = MOST_EVALS if options.get("polish", True) else FEW_CANDIDATES // 2
    grid = fewest(cost, left, horizon, early_stop, most=most, **options)
    if grid is None:
        raise ValueError(f"target_kl = {target_kl:g} takes more than {most} steps of {kernel}: ask for more nats.")
    return grid


def _longest(start, early_stop, target_kl):
    """A horizon beyond which initialisation costs next to nothing."""
    goal = NEGLIGIBLE if target_kl is None else min(NEGLIGIBLE, 1e-3 * target_kl)
    times = np.geomspace(early_stop, LATEST, 400)[1:]
    enough = times[start(times) <= goal]
    return float(enough[0]) if len(enough) else LATEST


def _search_options(kernel, curve, basis) -> dict[str, Any]:
    if kernel == "covariance_matched":
        return {"n_candidates": FEW_CANDIDATES, "polish": False}
    each = 1 if basis is None else curve.dim
    return {"n_candidates": int(min(CANDIDATES, math.isqrt(2 * PAIRS // each)))}


def _alternatives(kernel, grid, curve, basis):
    """What other samplers reach between the same ends with as many evaluations, and what exponential Euler needs."""
    n_steps, benton = len(grid) - 1, functools.partial(exponential_then_uniform, grid[0], grid[-1])
    found = [("exponential_euler", BENTON, None), ("ancestral", BENTON, None), ("ancestral", OPTIMAL, None)]
    found += [(KERNEL, BENTON, basis), (KERNEL, OPTIMAL, None)]
    small = n_steps <= FEW_STEPS and curve.dim * FEW_CANDIDATES**2 <= PAIRS
    if curve.log_det is not None and not curve.replicates and small:
        found.append(("covariance_matched", OPTIMAL, None))
    rows = []
    for name, shape, apart in found:
        if name == kernel and shape == OPTIMAL and apart is basis:
            continue
        cost = step_cost(name, curve, basis=apart)
        options = _search_options(name, curve, apart)
        other = benton(n_steps) if shape == BENTON else optimal(cost, n_steps, grid[0], grid[-1], **options)
        rows.append(_row(name, shape, n_steps, path_kl(name, other, curve, basis=apart), apart))
    reached = path_kl(kernel, grid, curve, basis=basis)
    euler = lambda n: path_kl("exponential_euler", benton(n), curve)
    needed = steps_to_reach(reached, euler) if reached > ROUNDING else None
    if needed is not None:
        rows.append(_row("exponential_euler", BENTON, needed, euler(needed), None))
    return tuple(rows)


def _row(kernel, grid, evals, kl, basis):
    return {"kernel": kernel, "grid": grid, "evals": evals, "path_kl": kl, "per_direction": basis is not None}
