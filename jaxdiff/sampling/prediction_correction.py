"""Prediction-correction with a finite horizon T_1: inexact Langevin at T_1, then the reversal from T_1."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from jaxdiff import kernels
from jaxdiff.grids import check_grid, log_snr
from jaxdiff.kernels._affine import identity
from jaxdiff.kernels.langevin_limits import default_step, longest_step
from jaxdiff.noise import KeyLike
from jaxdiff.processes import ou
from jaxdiff.processes.default_times import EARLY_STOP, check_ends
from jaxdiff.sampling.arguments import GridLike, NoiseSource, ParticlesLike, Scalar, WholeNumber
from jaxdiff.sampling.sample import sample_in_turn
from jaxdiff.targets.components import gaussian_moments
from jaxdiff.types import Kernel, Sampler, ScoreFn, as_score

REVERSAL_STEPS = 20  # steps of the default grid of the reversal: a usual number of evaluations for solvers of order 2
ORDER = 2  # order of UniPC, the default kernel of the reversal
SAME_TIME = 1e-9  # relative distance below which two times count as equal: rounding alone
ROUNDING = 1e-12  # relative; a quotient so little above a whole number of steps is rounded down to it


class Evals(NamedTuple):
    """Score evaluations of each particle: those of Langevin at T_1 and those of the reversal."""

    langevin: int
    reversal: int

    @property
    def total(self):
        """The sum of the two."""
        return self.langevin + self.reversal


class Scheme(NamedTuple):
    """The plan of `predict_correct`.

    Attributes:
      stages: the samplers, in the order in which they run.
      step_size: running time of a Langevin step; 0 if there is no Langevin stage.
      longest_step: Langevin diverges if its steps are this long or longer.
      evals: score evaluations of each particle.
    """

    stages: tuple[Sampler, ...]
    step_size: float
    longest_step: float
    evals: Evals

    def __str__(self):
        """One line for each stage, one for the Langevin step and one for the evaluations."""
        lines = [_said(kernel, grid) for kernel, grid in self.stages]
        split = f"{self.evals.langevin} evaluations at the horizon, {self.evals.reversal} in the reversal"
        return "\n".join([*lines, f"Langevin step {self.step_size:.4g} (diverges from {self.longest_step:.4g})", split])


def _said(kernel, grid):
    if kernel.evals_per_step == 0:
        return kernel.name
    clock = "running time" if kernel.own_clock else "t"
    return f"{kernel.name}: {len(grid) - 1} steps, {clock} {grid[0]:g} to {grid[-1]:g}"


def scheme(
    score: ScoreFn,
    *,
    horizon: Scalar,
    langevin_time: Scalar,
    step_size: Scalar | None = None,
    langevin: str | Kernel = "plain",
    lipschitz: Scalar | None = None,
    moments: tuple[Any, Any] | None = None,
    reversal: Kernel | None = None,
    grid: GridLike = None,
) -> Scheme:
    """The stages that `predict_correct` runs, and their evaluations. It has the same arguments and errors."""
    if not 0 <= langevin_time < math.inf:
        raise ValueError(f"langevin_time must be a running time, 0 or more: langevin_time = {langevin_time:g}.")
    score = as_score(score)
    reversal = kernels.unipc(score, ORDER) if reversal is None else reversal
    grid = log_snr(horizon, EARLY_STOP, REVERSAL_STEPS) if grid is None else check_grid(grid)
    check_ends(horizon, grid[-1])
    for name, kernel in (("reversal", reversal), ("langevin", langevin)):
        if not isinstance(kernel, Kernel) and not (name == "langevin" and isinstance(kernel, str)):
            raise TypeError(f"{name} must come from jaxdiff.kernels, as kernels.ddim(score) does: it is {kernel!r}.")
    if step_size is not None and not (step_size > 0 or step_size == langevin_time == 0):  # plans without Langevin: 0
        raise ValueError(f"step_size must be a positive running time of a Langevin step: step_size = {step_size:g}.")
    if reversal.own_clock:
        raise ValueError(
            f"reversal must be a kernel in OU time, such as kernels.ddim(score): the grid of "
            f"{reversal.name} is its own running time."
        )
    corrector = kernels.langevin(score, float(horizon), scheme=langevin) if isinstance(langevin, str) else langevin
    limit = longest_step(corrector, lipschitz=lipschitz)
    for name, time in (("grid[0]", grid[0]), ("the time of langevin", corrector.coefficients.time)):
        if abs(time - horizon) > SAME_TIME * horizon:
            raise ValueError(f"Langevin and the reversal must both be at the horizon {horizon:g}: {name} is {time:g}.")
    if langevin_time > 0 and step_size is None:
        step_size = default_step(corrector, lipschitz=lipschitz)
    n_steps = _n_steps(langevin_time, step_size, limit) if langevin_time > 0 else 0
    stages = [] if moments is None else [Sampler(gaussian_start(score, horizon, *moments), np.array([1.0, 0.0]))]
    stages += [Sampler(corrector, np.linspace(langevin_time, 0, n_steps + 1))] if n_steps else []
    return Scheme(
        (*stages, Sampler(reversal, grid)),
        float(langevin_time / n_steps) if n_steps else 0.0,
        limit,
        Evals(n_steps * corrector.evals_per_step, Sampler(reversal, grid).evals),
    )


def _n_steps(langevin_time, step_size, limit):
    """The least number of equal steps that are no longer than step_size; raises ValueError if Langevin diverges."""
    n_steps = max(1, math.ceil(langevin_time / step_size * (1 - ROUNDING)))
    if langevin_time / n_steps >= limit:
        raise ValueError(
            f"Langevin steps of {langevin_time / n_steps:.6g} diverge: they must be shorter than {limit:.6g}. Lower "
            f"step_size = {step_size:.6g}, or pass lipschitz= if the score's Lipschitz constant is below 1/sigma^2."
        )
    return n_steps


def predict_correct(
    score: ScoreFn,
    x: ParticlesLike,
    key: KeyLike,
    *,
    horizon: Scalar,
    langevin_time: Scalar,
    step_size: Scalar | None = None,
    langevin: str | Kernel = "plain",
    lipschitz: Scalar | None = None,
    moments: tuple[Any, Any] | None = None,
    reversal: Kernel | None = None,
    grid: GridLike = None,
    noise: NoiseSource = "counter",
    chunk: Any = None,
    mesh: Mesh | None = None,
    donate: bool = False,
    first_particle: WholeNumber = 0,
) -> Float[Array, "particles *event"]:
    """Sample by inexact Langevin at a finite horizon T_1 for a running time T_2, then by the reversal from T_1.

    All stages run in one compiled program.

    Args:
      score: s(x, t), exact or approximate; shapes (..., d), () -> (..., d).
      x: (particles, d) or (particles, *event) draws of N(0, I), as noise.initial(key, jnp.arange(n), d) makes them.
      key: a JAX key; the stages draw from fold_in(key, 0), fold_in(key, 1), ...
      horizon: T_1, an OU time.
      langevin_time: T_2, the running time of Langevin at T_1; 0 for no Langevin stage.
      step_size: an upper bound on the Langevin step. The steps are equal and end at T_2. The default step changes
        stationary variances by 5 % at most (`kernels.langevin_limits.default_step`).
      langevin: "plain", "exponential" or "underdamped"; or a kernel of `kernels.langevin` at the horizon, which may
        have another score, for example a truncated one.
      lipschitz: Lipschitz constant of the drift at T_1: a bound on the eigenvalues of minus the score's Jacobian. The
        default 1/sigma^2 holds for the exact score of any data. A learned score can exceed it.
      moments: (mean (d,), cov (d,) or (d, d)) of the data's d coordinates. Langevin then starts from the Gaussian with
        the moments that X_t has at T_1. Default: from N(0, I).
      reversal: a kernel of an ODE or SDE. Default unipc(score, 2).
      grid: (n_steps + 1,) OU times from the horizon down. Default log_snr(horizon, 1e-3, 20).
      noise, chunk, mesh, donate, first_particle: as for `sample`.

    Returns:
      The positions at the last time of the grid, in the shape of x. `scheme(score, horizon=..., ...).evals`, with
      the same options, has the evaluations of each particle at T_1 and in the reversal.

    Raises:
      ValueError: Langevin diverges at the step, and the message has the limit; the grid does not start at the horizon;
        horizon, langevin_time or step_size is out of range.

    Compilation is as for `sample`. score, x and key may be traced (jit, vmap, grad); all other arguments must be
    concrete. If langevin and reversal are both kernels, their scores are evaluated instead of `score`.

    Accuracy: `bounds.pedrotti2023`. For N(0, V) the stationary variance of "plain" with step h is V/(1 - h/(2V)), and
    the start decays as (1 - h/V)^n in n steps.
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
    """The one row of the table of `gaussian_start`: mean (1, d), root of the covariance (1, d) or (1, d, d)."""

    mean: Any
    root: Any


def gaussian_start(score: ScoreFn, horizon: Scalar, mean: Any, cov: Any) -> Kernel:
    """A kernel that maps draws of N(0, I) to draws of N(alpha mean, alpha^2 cov + sigma^2 I) in one step.

    The step does not evaluate the score.

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
        raise ValueError(f"x has width {x.shape[-1]}, the moments have {row.mean.shape[-1]}: they must agree.")
    if row.root.ndim == 1:
        return row.mean + x * row.root
    return row.mean + jnp.matmul(x, row.root, precision="highest")  # the default precision of a GPU keeps 10 bits
