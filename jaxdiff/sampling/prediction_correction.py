"""Prediction-correction with a finite horizon: inexact Langevin at T_1, and the reversal begins there."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdiff import kernels
from jaxdiff.grids import check_grid, log_snr
from jaxdiff.kernels._affine import identity
from jaxdiff.kernels.langevin_limits import default_step, longest_step
from jaxdiff.processes import ou
from jaxdiff.processes.ou import EARLY_STOP, check_ends
from jaxdiff.sampling.sample import sample_in_turn
from jaxdiff.targets.components import gaussian_moments
from jaxdiff.types import Kernel, Sampler, as_score

REVERSAL_STEPS = 20  # of the reversal's grid, where none is given
ORDER = 2  # of its kernel, UniPC, where none is given
SAME_TIME, ROUNDING = 1e-9, 1e-12  # relative


class Evals(NamedTuple):
    """Score evaluations of every particle: during the time T_2 at T_1, and on the way back."""

    langevin: int
    reversal: int

    @property
    def total(self):
        """Both."""
        return self.langevin + self.reversal


class Scheme(NamedTuple):
    """What predict_correct runs: samplers in order, the step of Langevin, and the evaluations.

    step_size: running time of a Langevin step, 0 without any. longest_step: from which on it would diverge.
    """

    stages: tuple[Sampler, ...]
    step_size: float
    longest_step: float
    evals: Evals

    def __str__(self):
        """The stages, a line each."""
        lines = [_said(kernel, grid) for kernel, grid in self.stages]
        split = f"{self.evals.langevin} evaluations at the horizon, {self.evals.reversal} in the reversal"
        return "\n".join([*lines, f"Langevin step {self.step_size:.4g} (diverges from {self.longest_step:.4g})", split])


def _said(kernel, grid):
    if kernel.evals_per_step == 0:
        return kernel.name
    clock = "running time" if kernel.own_clock else "t"
    return f"{kernel.name}: {len(grid) - 1} steps, {clock} {grid[0]:g} to {grid[-1]:g}"


def scheme(
    score,
    *,
    horizon,
    langevin_time,
    step_size=None,
    langevin: str | Kernel = "plain",
    lipschitz=None,
    moments=None,
    reversal=None,
    grid=None,
) -> Scheme:
    """The stages of `predict_correct`, checked, with the evaluations of each; arguments and errors as there."""
    if not 0 <= langevin_time < math.inf:
        raise ValueError(f"langevin_time is a running time, 0 or more: langevin_time = {langevin_time:g}.")
    score = as_score(score)
    reversal = kernels.unipc(score, ORDER) if reversal is None else reversal
    grid = log_snr(horizon, EARLY_STOP, REVERSAL_STEPS) if grid is None else check_grid(grid)
    check_ends(horizon, grid[-1])
    for name, kernel in (("reversal", reversal), ("langevin", langevin)):
        if not isinstance(kernel, Kernel) and not (name == "langevin" and isinstance(kernel, str)):
            raise TypeError(f"{name} must come from jaxdiff.kernels, as kernels.ddim(score) does: it is {kernel!r}.")
    if step_size is not None and not (step_size > 0 or step_size == langevin_time == 0):  # as a plan without Langevin
        raise ValueError(f"step_size is the running time of a Langevin step, positive: step_size = {step_size:g}.")
    if reversal.own_clock:
        raise ValueError(f"the reversal runs down OU times: {reversal.name} has a clock of its own.")
    corrector = kernels.langevin(score, horizon, scheme=langevin) if isinstance(langevin, str) else langevin
    limit = longest_step(corrector, lipschitz=lipschitz)
    for name, time in (("grid[0]", grid[0]), ("the time of langevin", corrector.coefficients.time)):
        if abs(time - horizon) > SAME_TIME * horizon:
            raise ValueError(f"Langevin and the reversal meet at the horizon {horizon:g}: {name} is {time:g}.")
    if langevin_time > 0 and step_size is None:
        step_size = default_step(corrector, lipschitz=lipschitz)
    n_steps = _n_steps(langevin_time, step_size, limit) if langevin_time > 0 else 0
    stages = [] if moments is None else [Sampler(gaussian_start(score, horizon, *moments), np.array([1.0, 0.0]))]
    stages += [Sampler(corrector, np.linspace(langevin_time, 0, n_steps + 1))] if n_steps else []
    return Scheme(
        (*stages, Sampler(reversal, grid)),
        langevin_time / n_steps if n_steps else 0.0,
        limit,
        Evals(n_steps * corrector.evals_per_step, Sampler(reversal, grid).evals),
    )


def _n_steps(langevin_time, step_size, limit):
    """How many equal steps no longer than asked; raises ValueError where they diverge."""
    n_steps = max(1, math.ceil(langevin_time / step_size * (1 - ROUNDING)))
    if langevin_time / n_steps >= limit:
        raise ValueError(
            f"Langevin steps of {langevin_time / n_steps:.6g} diverge: they must be shorter than {limit:.6g}. Lower "
            f"step_size = {step_size:.6g}, or pass lipschitz= if the score falls more slowly than 1/sigma^2."
        )
    return n_steps


def predict_correct(
    score,
    x,
    key,
    *,
    horizon,
    langevin_time,
    step_size=None,
    langevin: str | Kernel = "plain",
    lipschitz=None,
    moments=None,
    reversal=None,
    grid=None,
    noise="auto",
    chunk=None,
    mesh=None,
    donate=False,
    first_particle=0,
):
    """Sample by inexact Langevin at a finite horizon T_1 for a time T_2, then revert from there: one compiled program.

    Args:
      score: s(x, t), exact or not; shapes (..., d), () -> (..., d).
      x: (particles, d) draws of N(0, I), as noise.initial(key, jnp.arange(n), d) makes.
      key: a JAX key; the stages draw from fold_in(key, 0), fold_in(key, 1), ...
      horizon: T_1, an OU time.
      langevin_time: T_2, the running time of Langevin at T_1; 0 leaves it out.
      step_size: the longest a Langevin step may be; the steps are equal and end at T_2. Default: one that leaves its
        stationary variances wrong by 5 % at most (`kernels.langevin_limits.default_step`).
      langevin: "plain", "exponential" or "underdamped", or a kernel of `kernels.langevin` at the horizon, of another
        score even: a truncated one.
      lipschitz: how fast the score falls at most at T_1. Default 1/sigma^2, as the exact score of any data does; a
        learned one can fall faster.
      moments: (mean (d,), cov (d,) or (d, d)) of the data: Langevin starts from the Gaussian of those at T_1. Default
        N(0, I).
      reversal: a kernel of an ODE or SDE. Default unipc(score, 2).
      grid: (n_steps + 1,) OU times from the horizon down. Default log_snr(horizon, 1e-3, 20).
      noise, chunk, mesh, donate, first_particle: as for `sample`.

    Returns:
      (particles, d) at the last time of the grid. Evaluations: `scheme(score, horizon=..., ...).evals`, for the same
      options, is how many each particle takes at T_1 and in the reversal.

    Raises:
      ValueError: a step at which Langevin diverges, with the limit (it is exact for laws of that curvature, linear
        recursions); a grid that does not start at the horizon; horizon, langevin_time or step_size out of range.

    Compiled once per shape and methods, as `sample`. Works inside jit, vmap and grad of score, x and key; all other
    arguments are concrete. Where langevin and reversal are both kernels, theirs are the scores that are evaluated.

    Accuracy: `bounds.pedrotti2023`. On N(0, V) Langevin settles at V/(1 - h/(2V)) ("plain"), and forgets its start as
    (1 - h/V)^n.
    Source: Pedrotti, Maas, Mondelli, arXiv:2305.14164, sections 4.1 and 4.2.
    """
    made = scheme(
        score,
        horizon=horizon,
        langevin_time=langevin_time,
        step_size=step_size,
        langevin=langevin,
        lipschitz=lipschitz,
        moments=moments,
        reversal=reversal,
        grid=grid,
    )
    options = {"noise": noise, "chunk": chunk, "mesh": mesh, "donate": donate, "first_particle": first_particle}
    return sample_in_turn(made.stages, x, key, **options)


class StartRow(NamedTuple):
    """The one row of the map of N(0, I) onto a Gaussian: mean (1, d), root (1, d) or (1, d, d)."""

    mean: Any
    root: Any


def gaussian_start(score, horizon, mean, cov) -> Kernel:
    """A kernel of one step, without evaluations, that takes N(0, I) to N(alpha mean, alpha^2 cov + sigma^2 I).

    Raises:
      ValueError: shapes disagree, a number is not finite, or cov is not symmetric positive semi-definite.
    """
    mean, values, axes = gaussian_moments(mean, cov)
    scale = np.sqrt(ou.alpha(horizon) ** 2 * values + ou.sigma(horizon) ** 2)
    root = scale if axes is None else (axes * scale) @ axes.T
    row = StartRow((ou.alpha(horizon) * mean)[None], root[None])
    return Kernel(
        "gaussian_start", as_score(score), lambda grid: row, identity, _spread_out, identity, 0, 0, own_clock=True
    )


def _spread_out(score, x, row, z):
    if x.shape[-1] != row.mean.shape[-1]:
        raise ValueError(f"x has width {x.shape[-1]}, the moments are of dimension {row.mean.shape[-1]}.")
    if row.root.ndim == 1:
        return row.mean + x * row.root
    return row.mean + jnp.matmul(x, row.root, precision="highest")  # by default a GPU keeps ten bits of it
