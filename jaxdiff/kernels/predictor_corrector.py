"""Predictor and corrector: after every step down the grid, a few steps at the time arrived at."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxdiff.kernels.multistep import CorrectedInit
from jaxdiff.processes import namespace, ou
from jaxdiff.types import Kernel


@dataclasses.dataclass(frozen=True)
class Excess:
    """The rule h(t) = 2 b sigma_t^2/(1 + b): plain Langevin's stationary variance is then at most 1 + b times right.

    That is its excess b in directions in which the data have no variance, and less in all others.
    """

    b: float = 0.05

    def __call__(self, t):
        """Running time of a corrector step at OU time t."""
        return 2 * self.b * ou.sigma(t) ** 2 / (1 + self.b)


def predictor_corrector(
    predictor: Kernel, corrector: Kernel, m: int, *, step_size: float | Callable[..., Any] = Excess()
) -> Kernel:
    """Kernel that takes a step of the predictor, and then m steps of the corrector at the time arrived at.

    Args:
      predictor: a kernel on OU times; shapes as its own: scores map (..., d), () -> (..., d).
      corrector: a Langevin kernel of the same score; its own time is not used. It starts anew, with no momentum, after
        every step of the predictor.
      m: corrector steps, >= 1.
      step_size: running time of each: a number, or a function of the OU time t; by default Excess(0.05), whose bias in
        the variance is at most 5 %.

    Returns:
      A Kernel. Times are OU times and run down: 0 < t_next < t. A step costs the predictor's evaluations and m of the
      corrector's.

    Raises:
      ValueError: the scores differ, the predictor corrects itself (unipc, sa_solver) or runs on a clock of its own,
        the corrector does not, or m or step_size is not positive.

    Accuracy: of the predictor; what the corrector mends of its law, and the bias it brings, is that of `langevin`.
    Source: Song et al., ICLR 2021, arXiv:2011.13456 (whose "snr" rule for the step size is not used here).
    """
    if predictor.own_clock or not corrector.own_clock:
        raise ValueError(f"predict on OU times and correct at one: {predictor.name}, {corrector.name}.")
    if isinstance(predictor.init, CorrectedInit):
        raise ValueError(f"{predictor.name} corrects itself and would undo another corrector: take another predictor.")
    if not _same(predictor.score, corrector.score):
        raise ValueError("predictor and corrector must be made from the same score.")
    if m < 1 or m != int(m) or not (callable(step_size) or step_size > 0):
        raise ValueError(f"m is a whole number, at least 1, and step_size positive: m = {m}, step_size = {step_size}.")
    noises = predictor.noises_per_step, corrector.noises_per_step
    return Kernel(
        "predictor_corrector",
        predictor.score,
        Coefficients(predictor.coefficients, corrector.coefficients, step_size),
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
    """The predictor's row, and the corrector's at the time arrived at."""

    predictor: Any
    corrector: Any


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a grid for two kernels and a step size."""

    predictor: Callable[..., Any]
    corrector: Any
    step_size: float | Callable[..., Any]

    def __call__(self, grid):
        """The table of a grid, float64 on the host."""
        xp, t = namespace(grid), grid[1:]
        h = self.step_size(t) if callable(self.step_size) else xp.full_like(t, self.step_size)
        return Row(self.predictor(grid), self.corrector.rows(t, h))


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

    def __call__(self, score, state, row, z):
        """One step; z has the predictor's increments in front."""
        first, each = self.noises
        z = z[None] if first + self.m * each == 1 else z
        state = self.predict(score, state, row.predictor, _increments(z, 0, first))
        moving = self.start(self.read(state))
        for i in range(self.m):
            moving = self.correct(score, moving, row.corrector, _increments(z, first + i * each, each))
        return _moved(state, self.read_corrected(moving))


def _increments(z, start, count):
    """What a kernel of `count` increments a step is given."""
    return None if count == 0 else z[start] if count == 1 else z[start : start + count]


def _moved(state, x):
    """The state with its particles at x."""
    return x if isinstance(state, jax.Array) else state._replace(x=x)
