"""Plans a run for an accuracy or a budget: its horizon, grid and kernel, and a certificate of its path KL."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxdiff import events
from jaxdiff.arrays import Scalar
from jaxdiff.certificate import CONFIDENCE
from jaxdiff.curves import MeasuredCurve
from jaxdiff.curves.curve import as_curve
from jaxdiff.guarantees.certify import Known, certificate_of
from jaxdiff.guarantees.cross_fit import cross_fits, cross_fitted
from jaxdiff.guarantees.step_cost import cost_of
from jaxdiff.guarantees.terms import moment_of
from jaxdiff.noise import KeyLike
from jaxdiff.planning.alternatives import alternatives_to
from jaxdiff.planning.arguments import (
    check_centred,
    check_data_free,
    check_kl_only,
    check_planned_confidence,
    check_w2_only,
    checked_score,
    ends_of,
)
from jaxdiff.planning.best_grid import best
from jaxdiff.planning.directions import doubt_of_directions
from jaxdiff.planning.first_grid import first_grid, start_cost_of
from jaxdiff.planning.from_dimension import data_free_plan
from jaxdiff.planning.goal import check_goal, enough_steps
from jaxdiff.planning.record import Plan
from jaxdiff.planning.w2_plan import Known as SamplesKnown
from jaxdiff.planning.w2_plan import w2_plan
from jaxdiff.processes import ou
from jaxdiff.processes.default_times import EARLY_STOP
from jaxdiff.targets import Target
from jaxdiff.types import ErrorCurve, Kernel, PathCost, Rows, ScoreFn, Whole

KERNEL = "moment_matched"  # its path KL is never above that of exponential Euler or ancestral sampling on the same grid
FAR = 3.0  # standard deviations. If the mean is further from 0, the certificate recommends a start near the mean.


def plan(
    target_kl: Scalar | None = None,
    early_stop: Scalar | None = None,
    *,
    dim: Scalar | Sequence[Whole] | None = None,
    second_moment: Scalar | None = None,
    target: Target | None = None,
    curve: ErrorCurve | None = None,
    evals: Scalar | None = None,
    horizon: Scalar | None = None,
    kernel: Kernel | str | None = None,
    confidence: float | int | None = None,
    center: bool = False,
    target_w2: Scalar | None = None,
    metric: str | None = None,
    score: ScoreFn | None = None,
    rows: Rows | None = None,
    key: KeyLike | None = None,
    progress: bool = False,
) -> Plan:
    """The sampler of least predicted error for a budget of evaluations, or the one of fewest for an accuracy.

    The error is the path KL by default, and the distance of the samples in W2 with target_w2= or metric="w2". Path KL
    is right for a guarantee in KL, which holds for samplers with noise. W2 is right for the look of the samples, and
    for a deterministic map from noise to samples. `print(plan)` says which of the two a plan minimises.

    A plan in W2 needs a score, and compares samplers by running them: UniPC, DPM-Solver++, DDIM, Heun's method,
    SA-Solver and, with a curve, moment matching, on named grids and on fitted ones. It chooses the one whose end points
    are closest to those of many steps with the same score, and certifies it on other particles (`certify_w2`).

    How much a plan promises depends on what is known of the data. With `dim` and `second_moment` alone it is a bound
    for all such data, for ancestral sampling. With a known `target` the path KL is exact. With the loss `curve` of a
    trained model it is measured, and the model's own error is unknown.

    Args:
      target_kl: nats that initialisation and discretisation may cost together. Give this or evals.
      evals: score evaluations that a sample may cost.
      early_stop: OU time at which the run stops, default 1e-3. A measured curve has its own, and its own horizon.
      dim: d, alone or where curve is a plain callable. In W2, where neither target nor rows is given.
      second_moment: E|X_0|^2. The default is the mean over a measured curve's rows, else d, that of standardised data.
      target: a known law, sampled with its exact score.
      curve: the loss curve of a learned denoiser on held-out data; or, together with dim, a callable snr -> loss.
      horizon: OU time at which the run starts. By default the best one is found together with the grid; in W2 it is 5,
        more where the root mean square of the data's coordinates is above 1.
      kernel: a kernel with a path KL, or its name; in W2 the name of one of those above. The default is
        "moment_matched", or "ancestral" where only dim is known. Moment matching takes a variance for each direction
        where the curve has a basis and the held-out rows show that this costs less than one variance.
      confidence: with target_kl and a curve or target. target_kl must then hold at the upper end of the certificate's
        interval at this confidence, `certificate.known_upper`. By default it must hold at the measured value.
      center: True plans for a run of a target that starts from N(alpha(horizon) mean, I): `x = made.start(x)` moves
        draws x of N(0, I) there. Grid, evaluations and nats are then those of the law moved to mean 0. The run ends at
        the same law q_early_stop as without. False, the default, plans for a run from N(0, I). Such a run of a law
        whose mean is far from 0 starts at a longer horizon. That costs exponential Euler many steps, and kernels of the
        reverse bridge about one for every 9 units of OU time. The certificate then warns and recommends center=True.
      target_w2: the W2 distance that all known terms of the certificate may cost together, at the upper ends of their
        intervals. Give this, target_kl or evals.
      metric: "kl" or "w2", with evals; by default "kl".
      score: s(x, t), for a plan in W2; by default the target's.
      rows: (n, d) or (n, *event) rows of the data that did not train the score, for a plan in W2. dim may be the shape
        of an event there.
      key: a JAX key for the particles of a plan in W2; by default jax.random.key(0).
      progress: show a bar while a plan in W2 is made.

    Returns:
      A Plan: the kernel and its optimal grid, of which `plan.sampler(score)` makes the Sampler. Its alternatives are
      the path KL of other kernels and of Benton's grid for the same evaluations, and the evaluations with which
      exponential Euler on Benton's grid has the path KL of the plan. No step of the grid is longer than
      grids.longest_step(), the longest that float32 allows.

    Raises:
      ValueError: neither or both of target_kl and evals, or both of target and curve, are given; no number of steps
        reaches target_kl; so few evals take steps that are too long for float32; or center=True without a target whose
        mean is known. In W2: the score is not finite at some time; no reference converges; early stopping alone costs
        target_w2; times outside those of the model. The message says what to do.
    """
    if target_w2 is not None or metric == "w2":
        check_w2_only(target_kl, metric, second_moment, center)
        score = target.score if score is None and target is not None else score
        of_rows, rows, dim = events.by_rows(checked_score(score), rows, dim)
        known = SamplesKnown(of_rows, target, rows, dim, None if curve is None else as_curve(curve, dim))
        name = kernel.name if isinstance(kernel, Kernel) else kernel
        ends = {"horizon": horizon, "early_stop": early_stop}
        return w2_plan(target_w2, evals, known, **ends, kernel=name, confidence=confidence, key=key, progress=progress)
    check_kl_only(metric, score, rows, key)
    check_goal(target_kl, evals)
    check_planned_confidence(confidence, target_kl, target is None and curve is None)
    early_stop = EARLY_STOP if early_stop is None and not isinstance(curve, MeasuredCurve) else early_stop
    if target is None and curve is None:
        check_data_free(dim, kernel, center)
        return data_free_plan(target_kl, evals, early_stop, dim, second_moment, horizon)
    known, moment_about_start = _known(target, curve, dim, second_moment, center)
    cost = cost_of(KERNEL if kernel is None else kernel)
    if cost.matches and known.curve.dim > 1:
        cost = dataclasses.replace(cost, basis=known.curve.basis)
    if isinstance(known.curve, MeasuredCurve):
        horizon, early_stop = ends_of(known.curve, horizon, early_stop)
    exact = target is not None and not known.curve.replicates
    start = functools.partial(start_cost_of, known.curve, moment_about_start, exact)
    task = _Task(cost, known, start, target_kl, evals, confidence, "" if center else _far_mean(target))
    grid, doubt = first_grid(task, horizon, early_stop), ""
    if cost.basis is not None and cross_fits(cost, known.curve):
        doubt = doubt_of_directions(cost, known.curve, grid, confidence or CONFIDENCE)
        if doubt:
            task = task._replace(cost=dataclasses.replace(cost, basis=None))
            grid = best(task.cost, known.curve, grid[0], grid[-1], len(grid) - 1)
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
    """What is planned.

    Attributes:
      cost: the PathCost of the kernel.
      known: what is known of the data.
      start: t -> nats that a start at time t costs.
      target_kl, evals, confidence: see `plan`.
      hint: advice that ends the message of an error, or "".
    """

    cost: PathCost
    known: Known
    start: Callable
    target_kl: Scalar | None
    evals: Scalar | None
    confidence: float | int | None
    hint: str


def _known(target, curve, dim, second_moment, center):
    """What is known of the data, checked, and E|X_0 - m|^2, where m is the law's mean with center=True and else 0."""
    if target is not None and curve is not None:
        raise ValueError("give at most one of target= (exact score) and curve= (learned denoiser).")
    if target is None:
        check_centred(center, target)
        curve = as_curve(curve, dim)
        moment = moment_of(curve, second_moment, curve.dim)
        return Known(curve, moment), moment
    if second_moment is not None:
        raise ValueError("a target brings its own second_moment: leave it out.")
    known = Known(as_curve(target.mmse, dim), target.second_moment, target)
    return known, target.moment_about(target.mean) if center else target.second_moment


def _far_mean(target):
    """Advice for a target whose mean is far from 0, as a sentence; else ""."""
    if target is None or target.mean is None or target.total_variance is None:
        return ""
    away, deviation = float(np.linalg.norm(target.mean)), math.sqrt(target.total_variance)
    if away <= FAR * max(deviation, math.sqrt(target.dim)):
        return ""
    return (
        f"the mean is {away:.4g} from 0 and the standard deviation {deviation:.4g}, so a run from N(0, I) needs a "
        f"longer horizon than one that starts near the mean: plan with center=True, and start from Plan.start(x)"
    )


def _enough(task, grid):
    """The best grid with as many steps as `grid` or more, whose certificate meets the goal; and the certificate."""
    curve, n, ends = task.known.curve, len(grid) - 1, (float(grid[0]), float(grid[-1]))
    certifies = functools.partial(certificate_of, task.cost, known=task.known, confidence=task.confidence or CONFIDENCE)
    grid_at = lambda n, curve=curve: best(task.cost, curve, *ends, n)

    def certified(steps):
        """The certificate of so many steps, cross-fitted where the curve's rows set the variance or the grid."""
        planned = grid if steps == n else grid_at(steps)
        if not cross_fits(task.cost, curve):
            return certifies(planned)
        term = cross_fitted(task.cost, curve, functools.partial(grid_at, steps))
        return certifies(planned, discretisation=term)

    if not cross_fits(task.cost, curve) and task.confidence is None:
        return grid, certified(n)
    enough, certificate = enough_steps(certified, n, task.cost.kernel, task.target_kl, task.confidence, task.hint)
    return grid if enough == n else grid_at(enough), certificate
