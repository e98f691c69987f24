"""Predictor and corrector: after every step of a kernel, a few Langevin steps at the time of its end."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff.arrays import namespace
from jaxdiff.checks import check_number, described
from jaxdiff.kernels._multistep import CorrectedInit
from jaxdiff.processes import ou
from jaxdiff.types import Kernel, Nodes, Number, ScoreFn, Whole

UNROLLED = 4  # corrector steps that are unrolled in their loop: faster to run, slower to compile


@dataclasses.dataclass(frozen=True)
class Excess:
    """The step rule h(t) = 2 b sigma_t^2/(1 + b): overdamped Langevin's stationary variances then err by b at most.

    The plain scheme's variances are too large, by the factor 1 + b in directions in which the data have no variance,
    and by less in others. The exponential scheme's are exact in directions without variance and too small in others.
    """

    b: float = 0.05

    def __call__(self, t: Any) -> Any:
        """Running time of a corrector step at OU time t."""
        return 2 * self.b * ou.sigma(t) ** 2 / (1 + self.b)


def predictor_corrector(
    predictor: Kernel, corrector: Kernel, m: Whole, *, step_size: Number | Callable[..., Any] | None = None
) -> Kernel:
    """Kernel that takes a step of the predictor, and then m steps of the corrector at the time of the step's end.

    Args:
      predictor: a kernel on OU times; its score maps (..., d), () -> (..., d).
      corrector: a Langevin kernel of the same score; its own time is not used. An underdamped corrector draws a new
        momentum after every step of the predictor.
      m: number of corrector steps, >= 1.
      step_size: running time of each: a number, or a function of the OU time t. Default Excess(0.05), with variances
        wrong by 5 % at most. That rule does not hold for an "underdamped" corrector, which needs a step_size.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t. A step costs the predictor's evaluations and m of the
      corrector's.

    Raises:
      ValueError: the scores differ, the predictor corrects itself (unipc, sa_solver) or is not on OU times, the
        corrector is not Langevin, m or step_size is not positive, or there is no step_size for "underdamped".

    Accuracy: that of the predictor. The corrector removes a part of its error and adds the bias of `langevin`.
    Source: Song et al., ICLR 2021, arXiv:2011.13456 (whose "snr" rule for the step size is not used here); Chen et al.
      2023, arXiv:2305.11798 (underdamped).
    """
    for name, kernel in (("predictor", predictor), ("corrector", corrector)):
        if not isinstance(kernel, Kernel):
            raise TypeError(f"{name} must be a kernel, made from jaxdiff.kernels: it is {described(kernel)}.")
    check_number(m, "m", "a whole number")
    if not (step_size is None or callable(step_size)):
        check_number(step_size, "step_size", "a number or a function of the OU time")
    if predictor.own_clock or not corrector.own_clock:
        raise ValueError(
            f"the predictor must run on OU times and the corrector at one fixed OU time: they are {predictor.name} and "
            f"{corrector.name}."
        )
    if isinstance(predictor.init, CorrectedInit):
        raise ValueError(f"{predictor.name} corrects itself and would undo another corrector: take another predictor.")
    if not _same(predictor.score, corrector.score):
        raise ValueError("predictor and corrector must be made from the same score: pass one score to both kernels.")
    if m < 1 or m != int(m) or not (step_size is None or callable(step_size) or step_size > 0):
        raise ValueError(f"m is a whole number, at least 1, and step_size positive: m = {m}, step_size = {step_size}.")
    if step_size is None and corrector.noises_per_step > 1:
        raise ValueError("an underdamped corrector needs its step_size: running time of each step, or a function of t.")
    noises = predictor.noises_per_step, corrector.noises_per_step
    step_size = Excess() if step_size is None else step_size
    return Kernel(
        "predictor_corrector",
        predictor.score,
        Coefficients(predictor.coefficients, corrector.coefficients, int(m), step_size),
        predictor.init,
        Step(predictor.step, predictor.position, corrector.init, corrector.step, corrector.position, int(m), noises),
        predictor.position,
        predictor.evals_per_step + int(m) * corrector.evals_per_step,
        noises[0] + int(m) * noises[1],
    )


def _same(first, second):
    leaves = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=False)
    return jax.tree.structure(first) == jax.tree.structure(second) and all(a is b for a, b in leaves)


class Row(NamedTuple):
    """The predictor's row, the row of the corrector's first step after it, and that of the other corrector steps."""

    predictor: Any
    first: Any
    others: Any  # None where there is only one corrector step


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for two kernels and a step size."""

    predictor: Callable[..., Any]
    corrector: Any
    m: int
    step_size: Number | Callable[..., Any]

    def __call__(self, grid: Nodes) -> Row:
        """The table of a grid, float64 on the host."""
        xp, t = namespace(grid), grid[1:]
        size = self.step_size(t) if callable(self.step_size) else self.step_size
        h = xp.broadcast_to(xp.asarray(size, t.dtype), t.shape)
        if xp is np and not (h > 0).all():
            raise ValueError(f"step_size must be positive: it is {h.min():g} at t = {t[h.argmin()]:g}.")
        rows = lambda first: self.corrector.rows(t, h, np.full(len(t), first))
        return Row(self.predictor(grid), rows(True), rows(False) if self.m > 1 else None)


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the predictor, m of the corrector."""

    predict: Callable[..., Any]
    read: Callable[..., Any]
    start: Callable[..., Any]
    correct: Callable[..., Any]
    read_corrected: Callable[..., Any]
    m: int
    noises: tuple[int, int]

    def __call__(self, score: ScoreFn, state: Any, row: Row, z: Any) -> Any:
        """One step; z has the predictor's increments in front."""
        count, each = self.noises
        z = z[None] if count + self.m * each == 1 else z
        state = self.predict(score, state, row.predictor, _increments(z[:count]))
        z = z[count:].reshape(self.m, each, *z.shape[1:])
        moving = self.correct(score, self.start(self.read(state)), row.first, _increments(z[0]))
        if self.m > 1:
            again = lambda moving, z: (self.correct(score, moving, row.others, _increments(z)), None)
            moving, _ = jax.lax.scan(again, moving, z[1:], unroll=UNROLLED)
        return _moved(state, self.read_corrected(moving))


def _increments(z):
    """The argument z of a kernel's step, from its stacked increments (number, ..., d)."""
    return None if len(z) == 0 else z[0] if len(z) == 1 else z


def _moved(state, x):
    """The state with its particles at x."""
    return x if isinstance(state, jax.Array) else state._replace(x=x)
