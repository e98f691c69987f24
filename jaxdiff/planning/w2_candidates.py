"""The samplers that a plan in W2 compares: kernels with their options on named and fitted grids, run by pilots."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import differential_evolution

from jaxdiff import kernels
from jaxdiff.curves import Curve
from jaxdiff.grids import runs_in_float32
from jaxdiff.planning.grid_shapes import LARGEST, NAMED, first_coefficients, shaped
from jaxdiff.planning.pilots import Pilots, Reference
from jaxdiff.types import Grid, Kernel, ScoreFn, Whole

# (name of a constructor in jaxdiff.kernels, its options). Moment matching also takes a curve.
KERNELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("unipc", {"order": 2}),
    ("unipc", {"order": 3}),
    ("unipc", {"order": 2, "lower_order_final": True}),
    ("unipc", {"order": 3, "lower_order_final": True}),
    ("dpm_solver", {"order": 2}),
    ("dpm_solver", {"order": 3}),
    ("ddim", {}),
    ("heun", {}),
    ("sa_solver", {}),
    ("moment_matched", {}),
)
FITTED, MATCHED = "fitted", "moment_matched"
# Coefficients of a fitted grid, sets of them, rounds of the search, and its seed: 200 runs of the pilots.
DEGREE, POPULATION, GENERATIONS, SEED = 4, 16, 12, 0


@dataclasses.dataclass(frozen=True, eq=False)
class Contender:
    """A kernel of a plan in W2, and the reference that its pilots are compared with.

    Attributes:
      name: of its constructor.
      options: keyword arguments of the constructor.
      kernel: the kernel with the score that is planned for.
      reference: end points in many steps.
    """

    name: str
    options: dict[str, Any]
    kernel: Kernel
    reference: Reference


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """A contender on a grid, run by pilots.

    Attributes:
      contender: the kernel.
      shape: the name of the grid's formula, or "fitted".
      grid: (n_steps + 1,) OU times.
      squares: (n,) squared distances from the reference.
    """

    contender: Contender
    shape: str
    grid: Grid
    squares: np.ndarray

    @property
    def evals(self) -> int:
        """Score evaluations for each sample."""
        return self.contender.kernel.evals_per_step * (len(self.grid) - 1)

    @property
    def distance(self) -> float:
        """The root mean square distance from the reference, and what the reference may be off by; inf if unknown."""
        return math.sqrt(float(np.mean(self.squares))) + self.contender.reference.error

    def to_dict(self) -> dict[str, Any]:
        """The row of a plan's alternatives, JSON data; w2 is None where the reference does not converge."""
        gain, distance = self.contender.reference.gain, self.distance
        row = {"kernel": self.contender.name, "options": self.contender.options, "grid": self.shape}
        row |= {"evals": self.evals, "w2": distance if math.isfinite(distance) else None}
        return row | {"gain": gain if math.isfinite(gain) else None}


def contenders(
    score: ScoreFn, curve: Curve | None, pilots: Pilots, only: str | None, track: Any = lambda found: found
) -> list[Contender]:
    """The kernels of a plan, with their references. Moment matching is one of them where there is a curve.

    only: the name of a kernel, alone of its kind; None: all. track: wraps the list, for a progress bar.
    """
    names = [one for one in KERNELS if only in (None, one[0]) and (one[0] != MATCHED or curve is not None)]
    if not names:
        raise ValueError(
            f"with metric='w2' kernel must be one of {', '.join(dict.fromkeys(name for name, _ in KERNELS))}, and "
            f"{MATCHED} needs curve=: kernel = {only!r}."
        )
    found, of_ode = [], None
    for name, options in track(names):
        kernel = made(name, options, score, curve)
        if kernel.noises_per_step:
            found.append(Contender(name, options, kernel, pilots.reference(kernel)))
        else:
            of_ode = pilots.reference(kernel) if of_ode is None else of_ode
            found.append(Contender(name, options, kernel, of_ode))
    return found


def made(name: str, options: dict[str, Any], score: ScoreFn, curve: Curve | None) -> Kernel:
    """The kernel of this name and options with a score; moment matching in the basis of the curve."""
    if name == MATCHED:
        assert curve is not None
        return kernels.moment_matched(score, curve, basis=curve.basis if curve.dim > 1 else None)
    return getattr(kernels, name)(score, **options)


def on_grid(contender: Contender, shape: str, grid: Grid, pilots: Pilots) -> Measured | None:
    """The contender on a grid; None where float32 does not allow a step, or where noise needs another grid."""
    places = None
    if contender.kernel.noises_per_step:
        moved = pilots.on_fine(grid)
        if moved is None:
            return None
        grid, places = moved
    if not runs_in_float32(grid):
        return None
    squares = pilots.squares(contender.kernel, grid, contender.reference, places)
    return Measured(contender, shape, grid, squares) if np.isfinite(squares).all() else None


def named(contender: Contender, evals: Whole, pilots: Pilots) -> list[Measured]:
    """The contender on all named grids with this many evaluations; an empty list where these make no step."""
    n = int(evals) // contender.kernel.evals_per_step
    if n < 1:
        return []
    ends = float(pilots.fine[0]), float(pilots.fine[-1])
    found = [on_grid(contender, make.__name__, make(*ends, n), pilots) for make in NAMED]
    return [one for one in found if one is not None]


def fitted(contender: Contender, evals: Whole, pilots: Pilots) -> Measured | None:
    """The contender on the grid of least distance among those of `grid_shapes`, by differential evolution.

    The pilots that a grid was fitted to are closer to their reference than others. Compare it on other pilots.
    """
    n = int(evals) // contender.kernel.evals_per_step
    if n < 2:
        return None
    ends = float(pilots.fine[0]), float(pilots.fine[-1])
    largest = LARGEST[:DEGREE]

    def error(theta):
        found = on_grid(contender, FITTED, shaped(theta, *ends, n), pilots)
        return 1e30 if found is None else float(np.mean(found.squares))

    fit = differential_evolution(
        error,
        list(zip(-largest, largest, strict=True)),
        init=first_coefficients(*ends, n, DEGREE, POPULATION, SEED),  # pyright: ignore[reportArgumentType]
        maxiter=GENERATIONS,
        polish=False,
        rng=SEED,
    )
    return on_grid(contender, FITTED, shaped(fit.x, *ends, n), pilots)


def least(found: Sequence[Measured]) -> list[Measured]:
    """The best grid of each kernel, nearest first; kernels whose reference does not converge last."""
    of_each: dict[int, Measured] = {}
    for one in sorted(found, key=lambda one: (one.distance, float(np.mean(one.squares)))):
        of_each.setdefault(id(one.contender), one)
    return list(of_each.values())
