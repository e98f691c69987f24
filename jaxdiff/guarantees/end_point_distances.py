"""Runs a sampler and its refinements from the same starts, and measures how far apart they end."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import kernels, noise
from jaxdiff.checks import as_array, check_whole, described
from jaxdiff.processes import forward
from jaxdiff.sampling.coupled import EndPoints, end_points, refined
from jaxdiff.types import Grid, Kernel, Particles, Whole

Squares = Any  # (n,) squared distances

FEWEST = 8  # rows or particles; Student's interval of fewer means little
BLOCK = 4096  # particles run at once, so that the network's activations fit into memory
SETTLED = 1.5  # where a halving of the reference's steps gains less than this factor, the reference has not converged


class Starts(NamedTuple):
    """x (n, d) positions at the horizon, z (n, d) the noise in them, x0 (n, d) the rows, rows: how many of these."""

    x: Any
    z: Any
    x0: Any
    rows: int | None


class Ends(NamedTuple):
    """End points (n, d), float64.

    Attributes:
      coarse: of the sampler. reference, half, quarter: of the reference, and of runs with a half and a quarter of its
        steps. These four start at x, from_noise and limit at z.
      from_noise: of the sampler.
      limit: of the reference; None where there are no rows to compare them with.
      name: the reference in words.
      rounding: the size of its rounding error, relative to that of its end points.
    """

    coarse: np.ndarray
    reference: np.ndarray
    half: np.ndarray
    quarter: np.ndarray
    from_noise: np.ndarray
    limit: np.ndarray | None
    name: str
    rounding: float


class Gaps(NamedTuple):
    """Squared distances (n,) of end points.

    Attributes:
      coarse: of the sampler from the reference.
      fine: of the reference from a run with half its steps.
      halves: of that run from one with a quarter of the steps.
      start: of the sampler's runs from noised rows and from noise alone.
      reference: the reference in words.
      rounding: the size of the rounding error of its end points.
    """

    coarse: Any
    fine: Any
    halves: Any
    start: Any
    reference: str
    rounding: float


def starts_of(grid: Any, key: Any, target: Any, rows: Any, dim: Any, particles: int) -> Starts:
    """The starts of a certificate: noised rows, noised draws of the target, or noise alone."""
    if rows is not None:
        rows = as_array(rows, "rows", "(n, d) of floats")
        if rows.ndim != 2 or len(rows) < FEWEST:
            raise ValueError(f"rows must be (n, d) with at least {FEWEST} rows: they are {described(rows)}.")
        repeats, dim = -(-particles // len(rows)), rows.shape[1]
        x0 = jnp.tile(rows, (repeats, 1))
    elif target is not None:
        dim = target.dim
        x0 = jnp.asarray(target.sample(jax.random.fold_in(key, 1), particles))
    else:
        check_whole(dim, "dim")
        x0 = None
    n, dtype = particles if x0 is None else len(x0), jnp.float32 if x0 is None else noise.computed_in(x0.dtype)
    z = noise.initial(key, jnp.arange(n), int(dim), dtype)
    x = z if x0 is None else forward(x0.astype(dtype), grid[0], z)
    return Starts(x, z, x0, None if rows is None else len(rows))


def parts_of(grid: Grid, reference_steps: int) -> int:
    """Into how many parts the reference divides each step: a power of 2, at least 4."""
    return max(4, 2 ** math.ceil(math.log2(reference_steps / (len(grid) - 1))))


def ends_of(kernel: Kernel, grid: Grid, starts: Starts, key: Any, parts: int) -> Ends:
    """All runs of a certificate: the sampler from both starts; the reference, and twice with half its steps."""
    if kernel.noises_per_step:
        fine = kernel
        name = f"its limit: {kernel.name} in {parts * (len(grid) - 1)} steps, on the same Brownian path"
    else:
        fine = kernels.unipc(kernel.score)
        name = f"the probability-flow ODE: unipc in {parts * (len(grid) - 1)} steps"
    ended = lambda kernel, grid, x, parts: _finite(kernel, grid, x, parts, key)
    reference, half, quarter = (ended(fine, refined(grid, parts // k), starts.x, k) for k in (1, 2, 4))
    coarse = ended(kernel, grid, starts.x, parts)
    from_noise = coarse if starts.x0 is None else ended(kernel, grid, starts.z, parts)
    limit = None if starts.rows is None else ended(fine, refined(grid, parts), starts.z, 1)
    rounding = float(jnp.finfo(starts.x.dtype).eps) * parts * (len(grid) - 1)
    return Ends(coarse, reference, half, quarter, from_noise, limit, name, rounding)


def gaps_of(ends: Ends, scale: Any) -> Gaps:
    """The squared distances of end points in units of which the particles' own are `scale`, a number or (d,)."""
    scale = np.asarray(scale, np.float64)
    square = lambda x: np.sum((scale * x) ** 2, axis=1)
    return Gaps(
        coarse=square(ends.coarse - ends.reference),
        fine=square(ends.reference - ends.half),
        halves=square(ends.half - ends.quarter),
        start=square(ends.coarse - ends.from_noise),
        reference=ends.name,
        rounding=ends.rounding * math.sqrt(np.mean(square(ends.reference))),
    )


def halving(fine: Squares, halves: Squares, rounding: float) -> float:
    """The factor by which a halving of the steps lowers a distance; inf where the distance is a rounding error.

    fine: (n,) squared distances of runs from those with half their steps. halves: (n,) of the latter from runs with a
    quarter.
    """
    of_fine, of_halves = math.sqrt(np.mean(fine)), math.sqrt(np.mean(halves))
    return of_halves / of_fine if of_fine > rounding else math.inf


def rounding_of(x: np.ndarray, n_steps: int, dtype: Any) -> float:
    """The size of the rounding error of end points (n, d) after so many steps in a dtype."""
    return float(jnp.finfo(dtype).eps) * n_steps * math.sqrt(np.mean(np.sum(x**2, axis=1)))


def _finite(kernel, grid, x, parts, key):
    """End points (n, d) in float64. ValueError where some are not finite."""
    blocks = [end_points(kernel, grid, x[i : i + BLOCK], key, parts=parts, first=i) for i in range(0, len(x), BLOCK)]
    ended = EndPoints(*map(jnp.concatenate, zip(*blocks, strict=True)))
    if not np.isfinite(ended.x).all():
        raise no_end_points(kernel, grid, x, key, parts, ended)
    return np.asarray(ended.x, np.float64)


def no_end_points(
    kernel: Kernel, grid: Grid, x: Particles, key: Any, parts: Whole = 1, ended: EndPoints | None = None
) -> ValueError:
    """The error for end points that are not finite: the time, and the share of particles."""
    ended = end_points(kernel, grid, x, key, parts=parts) if ended is None else ended
    until = np.asarray(ended.finite_until)
    k = min(int(until.min()), len(grid) - 2)
    return ValueError(
        f"{np.mean(until < len(grid) - 1):.0%} of the particles are not finite at the end of {kernel.name} in "
        f"{len(grid) - 1} steps; the first is lost in the step from t = {grid[k]:.6g} to {grid[k + 1]:.6g}. Check the "
        f"score there."
    )
