"""Accuracy or budget in, plan out: horizon, grid, kernel, and what it will cost."""

import dataclasses
import functools
import math

import numpy as np

from jaxdiff.certificate import CONFIDENCE, DISCRETISATION, rows_to_tell
from jaxdiff.curves import MeasuredCurve
from jaxdiff.curves.curve import as_curve
from jaxdiff.curves.panels import antiderivative
from jaxdiff.grids import exponential_then_uniform, runs_in_float32
from jaxdiff.guarantees.certify import (
    certify,
    check_confidence,
    cross_fits,
    cross_fitted,
    in_groups,
    measured_term,
    moment_of,
)
from jaxdiff.guarantees.information import initial_kl, mutual_information
from jaxdiff.guarantees.path_kl import path_kl, path_kl_error, path_kl_samples
from jaxdiff.planning.best_grid import FEW_CANDIDATES, PAIRS, Search
from jaxdiff.planning.from_dimension import KERNEL as DATA_FREE_KERNEL
from jaxdiff.planning.from_dimension import data_free_plan
from jaxdiff.planning.goal import MOST_EVALS, check_goal, check_reachable, steps_to_reach
from jaxdiff.planning.record import Plan
from jaxdiff.processes import ou
from jaxdiff.processes.ou import LATEST, check_ends

KERNEL = "moment_matched"  # never worse than exponential Euler and ancestral sampling
BENTON, OPTIMAL = "exponential_then_uniform", "optimal"
EARLY_STOP = 1e-3
NEGLIGIBLE = 1e-6  # nats of initialisation at the longest horizon looked at, or 1e-3 of what is asked for
ROUNDING = 1e-12  # nats that are none
STALLED, LEAST_GAIN = 2, 0.02  # a search gives up where so many times the steps gain less than this share
FEW_STEPS = 100  # to which covariance matching is offered as an alternative
WIDEST = 3.0  # a number of steps or a ratio is given where the ends of its interval are within this factor
FAR = 3.0  # deviations between the mean and 0, from which a start near the mean is recommended


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
    confidence=None,
    center=False,
) -> Plan:
    """The sampler of least predicted path KL for a budget, or the cheapest for an accuracy.

    Three strengths, by what is known of the data: `dim` and `second_moment` alone (a bound for all such data, ancestral
    sampling); a known `target` (exact); the loss `curve` of a trained model (measured, up to the model's own error).

    Args:
      target_kl: nats that initialisation and discretisation may cost together; or
      evals: score evaluations a sample may cost.
      early_stop: OU time to stop at, default 1e-3; a measured curve brings its own, and its horizon.
      dim: d, alone or with a plain callable as curve.
      second_moment: E|X_0|^2; default that of a measured curve's rows, else d, standardised data.
      target: a known law, sampled with its exact score.
      curve: the loss curve of a learned denoiser on held-out data (or a callable snr -> loss with dim=).
      horizon: OU time to start from; by default the best one is found together with the grid.
      kernel: a kernel with a path KL; default "moment_matched", in the basis of the curve where it has one and the rows
        are enough to tell that it pays, or "ancestral" where only dim is known.
      confidence: with target_kl and a curve or target: the target must hold at the upper end of the certificate's
        interval at this confidence, `certificate.known_upper`, instead of at the measured value. Default None.
      center: True plans for a run of a target that starts from N(alpha(horizon) mean, I): `x = made.start(x)` moves
        draws x of N(0, I) there. Grid, evaluations and nats are then those of the law moved to mean 0. The run ends at
        the same law q_early_stop as without. False, the default, plans for a run from N(0, I). Such a run of a law
        whose mean is far from 0 starts at a longer horizon. That costs exponential Euler many steps, and kernels of the
        reverse bridge about one for every 9 units of OU time. The certificate then warns and recommends center=True.

    Returns:
      A Plan: the kernel on its optimal grid; for moment matching build it with `basis=plan.basis`. The alternatives say
      what other kernels and Benton's grid give for the same evaluations, and how many exponential Euler on Benton's
      grid needs to be as good. No step of the grid is longer than grids.longest_step(), which float32 allows.

    Raises:
      ValueError: neither or both of a pair of arguments, a target_kl that no number of steps reaches, fewer evals than
        steps of float32 from the horizon to the early stop, or center=True without a target that tells its mean; the
        message says what would do.
    """
    check_goal(target_kl, evals)
    _check_planned_confidence(confidence, target_kl, target is None and curve is None)
    early_stop = EARLY_STOP if early_stop is None and not isinstance(curve, MeasuredCurve) else early_stop
    if center and target is None:
        raise ValueError(
            "center=True needs target=, which tells its mean. Else centre the data, and give second_moment= about "
            "their mean."
        )
    if target is None and curve is None:
        _check_data_free(dim, kernel)
        return data_free_plan(target_kl, evals, early_stop, dim, second_moment, horizon)
    if target is not None and curve is not None:
        raise ValueError("give at most one of target= (exact score) and curve= (learned denoiser).")
    known = as_curve(curve if target is None else target.mmse, dim)
    if target is not None and second_moment is not None:
        raise ValueError("a target brings its own second_moment: leave it out.")
    if target is not None:
        second_moment = target.moment_about(target.mean) if center else target.second_moment
    else:
        second_moment = moment_of(known, second_moment, known.dim)
    if isinstance(known, MeasuredCurve):
        horizon, early_stop = _ends(known, horizon, early_stop)
    kernel = KERNEL if kernel is None else kernel
    basis = known.basis if kernel == KERNEL and known.dim > 1 else None
    start = functools.partial(_start, known, second_moment, target is not None and not known.replicates)
    hint = "" if center else _far_mean(target)
    grid = _grid(Search(kernel, known, basis), start, target_kl, evals, horizon, early_stop, hint)
    ends, n = (float(grid[0]), float(grid[-1])), len(grid) - 1
    doubt = ""
    if basis is not None and cross_fits(kernel, known):
        doubt = doubt_of_directions(known, ends, n, confidence or CONFIDENCE)
        basis, grid = (None, _planner(kernel, OPTIMAL, ends, n, None)(known)) if doubt else (basis, grid)
    start_mean = ou.alpha(ends[0]) * target.mean if center and target is not None else None
    given = {"curve": known, "second_moment": second_moment}
    if target is not None:
        given = {"target": target, "start_mean": start_mean}
    certifies = functools.partial(certify, kernel, basis=basis, confidence=confidence or CONFIDENCE, **given)
    certificate = certifies(grid)
    grid_at = lambda n, curve: _planner(kernel, OPTIMAL, ends, n, basis)(curve)
    if cross_fits(kernel, known):
        certified = lambda n: _cross_fitted(kernel, known, basis, certificate, lambda curve: grid_at(n, curve))
        enough, certificate = _enough_steps(certified, n, kernel, target_kl, confidence, hint)
    elif confidence is not None:
        certified = lambda n: certificate if n == len(grid) - 1 else certifies(grid_at(n, known))
        enough, certificate = _enough_steps(certified, n, kernel, target_kl, confidence, hint)
    else:
        enough = n
    grid = grid if enough == n else grid_at(enough, known)
    said = tuple(text for text in (doubt, hint) if text)
    certificate = dataclasses.replace(certificate, warnings=(*certificate.warnings, *said))
    alternatives = _alternatives(kernel, grid, known, basis, certificate)
    return Plan(ends[0], grid, kernel, len(grid) - 1, certificate, alternatives, basis, start_mean)


def _far_mean(target):
    """What to do about a target whose mean is far from 0, in words; "" where there is nothing to do."""
    if target is None or target.mean is None or target.total_variance is None:
        return ""
    away, deviation = float(np.linalg.norm(target.mean)), math.sqrt(target.total_variance)
    if away <= FAR * max(deviation, math.sqrt(target.dim)):
        return ""
    return (
        f"the mean is {away:.4g} from 0, with a deviation of {deviation:.4g}, so that a run from N(0, I) starts at a "
        f"longer horizon than one that starts near the mean: plan with center=True, and start from Plan.start(x)"
    )


def _planner(kernel, shape, ends: tuple[float, float], n_steps, basis):
    """curve -> its grid of a shape."""
    if shape == BENTON:
        return lambda curve: exponential_then_uniform(*ends, n_steps)
    return lambda curve: Search(kernel, curve, basis).best(n_steps, *ends)


def doubt_of_directions(curve, ends: tuple[float, float], n_steps, confidence):
    """Why one variance for all directions is planned, in words; "" where the rows tell that one for each costs less.

    Both are cross-fitted, each on its own grid of n_steps between the ends, and compared by groups of rows.
    The rows tell it if their difference is above 0 with this confidence.
    """
    term = _saved_by_directions(curve, ends, n_steps)
    reach = term.depth(confidence)
    if term.value > reach:
        return ""
    costs = f"by these {curve.n} rows a variance for each direction costs {abs(term.value):.3g} nats"
    if term.value <= -term.reach(confidence):
        return f"{costs} more than one for all of them, which is planned"
    side = "more" if term.value <= 0 else "less"
    said = (
        f"{costs} {side} than one for all of them, {reach:.2g} of it by chance: they do not tell that it pays, and one"
    )
    rows = f"; about {rows_to_tell(curve.n, reach, term.value):,} rows would tell" if term.value > 0 else ""
    return f"{said} for all is planned{rows}"


def _saved_by_directions(curve, ends, n_steps):
    """What a variance for each direction saves beside one for all, cross-fitted and paired: a Term."""
    halves, value, gaps = curve.halves, 0.0, []
    for own, other in zip(halves, halves[::-1], strict=True):
        samples = []
        for basis, sign in ((None, 1), (curve.basis, -1)):
            grid = _planner(KERNEL, OPTIMAL, ends, n_steps, basis)(other)
            value += sign * own.n / curve.n * path_kl(KERNEL, grid, own, matched=other, basis=basis)
            samples.append(path_kl_samples(KERNEL, grid, own, matched=other, basis=basis))
        gaps.append(in_groups(samples[0], len(samples[1])) - samples[1])
    return measured_term("saved by directions", value, np.concatenate(gaps), "")


def _measured(kernel, shape, ends, n_steps, curve, basis):
    """The path KL of a sampler on its grid of a shape, cross-fitted where the curve's rows set variance or grid.

    With its standard error. Infinite where the grid has a step that float32 does not allow.
    """
    planner = _planner(kernel, shape, ends, n_steps, basis)
    if cross_fits(kernel, curve) and (kernel == KERNEL or shape == OPTIMAL):
        if shape != OPTIMAL and not runs_in_float32(planner(curve)):
            return math.inf, 0.0
        term = cross_fitted(kernel, curve, basis, planner)
        return term.value, term.standard_error
    grid = planner(curve)
    if not runs_in_float32(grid):
        return math.inf, 0.0
    return path_kl(kernel, grid, curve, basis=basis), path_kl_error(kernel, grid, curve, basis=basis)


def _cross_fitted(kernel, curve, basis, certificate, grid_of):
    """The certificate with its discretisation cross-fitted."""
    term = cross_fitted(kernel, curve, basis, grid_of)
    terms = tuple(term if one.name == DISCRETISATION else one for one in certificate.terms)
    return dataclasses.replace(certificate, terms=terms)


def _enough_steps(certified, n, kernel, target_kl, confidence, hint):
    """Steps and certificate, from n steps on until the certificate reaches target_kl, at its upper end if asked to.

    `certified` maps a number of steps to a certificate. More steps lower the discretisation, but not the width that the
    number of rows gives to the interval: the search ends where STALLED times the steps gain less than LEAST_GAIN.
    """
    at, before = n, math.inf
    while True:
        certificate = certified(n)
        reached = certificate.known if confidence is None else certificate.known_upper
        if target_kl is None or reached <= target_kl:
            return n, certificate
        if before == math.inf or n >= STALLED * at:
            if reached > (1 - LEAST_GAIN) * before:
                raise _too_few_rows(target_kl, n, certificate, confidence)
            at, before = n, reached
        n += max(1, math.ceil(n * min(reached / target_kl - 1, 1) / 2))
        if n > MOST_EVALS:
            raise _out_of_reach(target_kl, MOST_EVALS, kernel, reached, hint)


def _too_few_rows(target_kl, n, certificate, confidence):
    value, remedy = f"{certificate.known:.3g} nats with {n} steps", "more rows"
    if confidence is not None:
        value = f"{certificate.known_upper:.3g} nats at the upper end of the {confidence:g} interval with {n} steps"
        remedy = "more rows, lower confidence="
    return ValueError(
        f"target_kl = {target_kl:g} is out of reach of these rows: {value}, and more steps hardly lower that. Take "
        f"{remedy}, or ask for more nats."
    )


def _check_planned_confidence(confidence, target_kl, data_free):
    if confidence is None:
        return
    if target_kl is None or data_free:
        raise ValueError(
            "confidence= says how surely target_kl= is reached by a measured curve= or a target=: give those, or leave "
            "confidence out."
        )
    check_confidence(confidence)


def _out_of_reach(target_kl, most, kernel, least, hint):
    return ValueError(
        f"target_kl = {target_kl:g} takes more than {most} steps of {kernel}, good for about {least:.3g} nats: ask for "
        f"more than that." + (f" Or: {hint}." if hint else "")
    )


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


def _grid(search, start, target_kl, evals, horizon, early_stop, hint):
    """The best grid for the goal, from the horizon or from the best one; an error of too few steps ends in the hint."""
    start_cost = start if horizon is None else None
    check_ends(LATEST if horizon is None else horizon, early_stop)
    horizon = _longest(start, early_stop, target_kl) if horizon is None else horizon
    check_reachable(target_kl, start, np.array([horizon]), early_stop)
    if evals is not None:
        return search.best(int(evals), horizon, early_stop, start_cost)
    spent = 0.0 if start_cost else float(start(np.array([horizon]))[0])
    grid = search.fewest(target_kl - spent, horizon, early_stop, start_cost)
    if grid is None:
        best = search.best(search.most, horizon, early_stop, start_cost)
        spent += float(np.sum(search.cost(best[:-1], best[1:])) + (start(best[:1])[0] if start_cost else 0.0))
        raise _out_of_reach(target_kl, search.most, search.kernel, spent, hint)
    return grid


def _longest(start, early_stop, target_kl):
    """A horizon beyond which initialisation costs next to nothing."""
    goal = NEGLIGIBLE if target_kl is None else min(NEGLIGIBLE, 1e-3 * target_kl)
    times = np.geomspace(early_stop, LATEST, 400)[1:]
    enough = times[start(times) <= goal]
    return float(enough[0]) if len(enough) else LATEST


def _alternatives(kernel, grid, curve, basis, certificate):
    """What other samplers reach between the same ends with as many evaluations, and what exponential Euler needs."""
    n_steps, ends = len(grid) - 1, (float(grid[0]), float(grid[-1]))
    found = [("exponential_euler", BENTON, None), ("ancestral", BENTON, None), ("ancestral", OPTIMAL, None)]
    found += [(KERNEL, BENTON, basis), (KERNEL, OPTIMAL, None)]
    if cross_fits(KERNEL, curve) and curve.basis is not None and basis is None:
        found.append((KERNEL, OPTIMAL, curve.basis))
    small = n_steps <= FEW_STEPS and curve.dim * FEW_CANDIDATES**2 <= PAIRS
    if curve.log_det is not None and not curve.replicates and small:
        found.append(("covariance_matched", OPTIMAL, None))
    rows = [
        _row(name, shape, n_steps, *_measured(name, shape, ends, n_steps, curve, apart), apart)
        for name, shape, apart in found
        if not (name == kernel and shape == OPTIMAL and apart is basis)
    ]
    rows = [row for row in rows if row["path_kl"] < math.inf]  # the others have a step that float32 does not allow
    euler = functools.partial(path_kl, "exponential_euler", curve=curve)
    counts = _steps_of_euler(lambda n: euler(exponential_then_uniform(*ends, n)), certificate)
    if counts is not None:
        n, fewest, most = counts
        row = _row("exponential_euler", BENTON, n, *_measured("exponential_euler", BENTON, ends, n, curve, None), None)
        rows.append(row | ({"evals_interval": [fewest, most]} if most > fewest else {}))
    return tuple(rows)


# The rows' error of exponential Euler's own path KL is left out: at the few nats of a plan it is far smaller.
def _steps_of_euler(cost, certificate):
    """How many steps are as good as the plan, and the ends of their interval; None where the rows do not tell it.

    They do not where they cannot tell the plan's discretisation from 0, or the interval is of more than WIDEST.
    """
    reached, (low, high) = certificate[DISCRETISATION].value, certificate.interval(DISCRETISATION)
    if low <= ROUNDING:
        return None
    n = steps_to_reach(reached, cost)
    fewest, most = (n, n) if high == low else (steps_to_reach(goal, cost) for goal in (high, low))
    if n is None or fewest is None or most is None or most > WIDEST * fewest:
        return None
    return n, fewest, most


def _row(kernel, grid, evals, kl, error, basis):
    row = {"kernel": kernel, "grid": grid, "evals": evals, "path_kl": kl, "per_direction": basis is not None}
    return row | ({"standard_error": error} if error > 0 else {})
