"""Accuracy or budget in, plan out: horizon, grid, kernel, and the path KL to expect."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxdiff.certificate import CONFIDENCE
from jaxdiff.curves import MeasuredCurve
from jaxdiff.curves.curve import as_curve
from jaxdiff.guarantees.certify import Known, certificate_of, check_confidence
from jaxdiff.guarantees.cross_fit import cross_fits, cross_fitted
from jaxdiff.guarantees.step_cost import cost_of
from jaxdiff.guarantees.terms import moment_of
from jaxdiff.planning.alternatives import alternatives_to
from jaxdiff.planning.best_grid import best
from jaxdiff.planning.directions import doubt_of_directions
from jaxdiff.planning.first_grid import first_grid, start_cost_of
from jaxdiff.planning.from_dimension import KERNEL as DATA_FREE_KERNEL
from jaxdiff.planning.from_dimension import data_free_plan
from jaxdiff.planning.goal import check_goal, enough_steps
from jaxdiff.planning.record import Plan
from jaxdiff.processes import ou
from jaxdiff.processes.ou import EARLY_STOP
from jaxdiff.types import PathCost

KERNEL = "moment_matched"  # never worse than exponential Euler and ancestral sampling
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
      A Plan: the kernel on its optimal grid, which `plan.sampler(score)` makes. The alternatives say what other kernels
      and Benton's grid give for the same evaluations, and how many exponential Euler on Benton's grid needs to be as
      good. No step of the grid is longer than grids.longest_step(), which float32 allows.

    Raises:
      ValueError: neither or both of a pair of arguments, a target_kl that no number of steps reaches, fewer evals than
        steps of float32 from the horizon to the early stop, or center=True without a target that tells its mean; the
        message says what would do.
    """
    check_goal(target_kl, evals)
    _check_planned_confidence(confidence, target_kl, target is None and curve is None)
    early_stop = EARLY_STOP if early_stop is None and not isinstance(curve, MeasuredCurve) else early_stop
    if target is None and curve is None:
        _check_data_free(dim, kernel, center)
        return data_free_plan(target_kl, evals, early_stop, dim, second_moment, horizon)
    known, moment_about_start = _known(target, curve, dim, second_moment, center)
    cost = cost_of(KERNEL if kernel is None else kernel)
    if cost.matches and known.curve.dim > 1:
        cost = dataclasses.replace(cost, basis=known.curve.basis)
    if isinstance(known.curve, MeasuredCurve):
        horizon, early_stop = _ends(known.curve, horizon, early_stop)
    exact = target is not None and not known.curve.replicates
    start = functools.partial(start_cost_of, known.curve, moment_about_start, exact)
    task = _Task(cost, known, start, target_kl, evals, confidence, "" if center else _far_mean(target))
    grid, doubt = first_grid(task, horizon, early_stop), ""
    if cost.basis is not None and cross_fits(cost, known.curve):
        doubt = doubt_of_directions(cost, known.curve, grid, confidence or CONFIDENCE)
        if doubt:
            task = task._replace(cost=dataclasses.replace(cost, basis=None))
            grid = best(task.cost, known.curve, len(grid) - 1, grid[0], grid[-1])
    start_mean = ou.alpha(float(grid[0])) * target.mean if center and target is not None else None
    grid, certificate = _enough(task._replace(known=known._replace(start_mean=start_mean)), grid)
    said = tuple(text for text in (doubt, task.hint) if text)
    certificate = dataclasses.replace(certificate, warnings=(*certificate.warnings, *said))
    others = alternatives_to(task.cost, grid, known.curve, certificate)
    return Plan(
        float(grid[0]),
        grid,
        cost.kernel,
        len(grid) - 1,
        certificate,
        others,
        task.cost.basis,
        start_mean,
        known.curve if cost.matches else None,
    )


class _Task(NamedTuple):
    """What is planned: a kernel's PathCost, what is known of the data, and the goal.

    start: t -> nats that a start at time t costs. hint: advice that ends an error of too few steps, or "".
    """

    cost: PathCost
    known: Known
    start: Callable
    target_kl: float | None
    evals: int | None
    confidence: float | None
    hint: str


def _known(target, curve, dim, second_moment, center):
    """What is known of the data, checked, and E|X_0|^2, about the mean where the run starts near it."""
    if target is not None and curve is not None:
        raise ValueError("give at most one of target= (exact score) and curve= (learned denoiser).")
    if target is None:
        _check_centred(center, target)
        curve = as_curve(curve, dim)
        moment = moment_of(curve, second_moment, curve.dim)
        return Known(curve, moment), moment
    if second_moment is not None:
        raise ValueError("a target brings its own second_moment: leave it out.")
    known = Known(as_curve(target.mmse, dim), target.second_moment, target)
    return known, target.moment_about(target.mean) if center else target.second_moment


def _check_centred(center, target):
    if center and target is None:
        raise ValueError(
            "center=True needs target=, which tells its mean. Else centre the data, and give second_moment= about "
            "their mean."
        )


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


def _enough(task, grid):
    """The grid with as many steps as the goal takes by its certificate, from this grid on, and that certificate."""
    curve, n, ends = task.known.curve, len(grid) - 1, (float(grid[0]), float(grid[-1]))
    certifies = functools.partial(certificate_of, task.cost, known=task.known, confidence=task.confidence or CONFIDENCE)
    grid_at = lambda n, curve=curve: best(task.cost, curve, n, *ends)

    def certified(steps):
        """The certificate of so many steps, cross-fitted where the curve's rows set variance or grid."""
        planned = grid if steps == n else grid_at(steps)
        if not cross_fits(task.cost, curve):
            return certifies(planned)
        term = cross_fitted(task.cost, curve, functools.partial(grid_at, steps))
        return certifies(planned, discretisation=term)

    if not cross_fits(task.cost, curve) and task.confidence is None:
        return grid, certified(n)
    enough, certificate = enough_steps(certified, n, task.cost.kernel, task.target_kl, task.confidence, task.hint)
    return grid if enough == n else grid_at(enough), certificate


def _check_planned_confidence(confidence, target_kl, data_free):
    if confidence is None:
        return
    if target_kl is None or data_free:
        raise ValueError(
            "confidence= says how surely target_kl= is reached by a measured curve= or a target=: give those, or leave "
            "confidence out."
        )
    check_confidence(confidence)


def _check_data_free(dim, kernel, center):
    _check_centred(center, None)
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
