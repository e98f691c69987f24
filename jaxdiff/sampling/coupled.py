"""End points of one sampler on a grid and on its refinements, from the same starts and the same Brownian path."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float64, Int

from jaxdiff import noise
from jaxdiff.arrays import Whole
from jaxdiff.conditions import of_particles
from jaxdiff.noise import KeyLike
from jaxdiff.processes import ou
from jaxdiff.sampling import compiled
from jaxdiff.sampling.storing import score_of_step
from jaxdiff.types import Grid, Kernel, Particles


class EndPoints(NamedTuple):
    """Where particles end, and where they stopped being finite.

    Attributes:
      x: (particles, d), positions at the end of the grid.
      finite_until: (particles,) the first step after which a particle is not finite; the number of steps if none.
    """

    x: Float[Array, "particles d"]
    finite_until: Int[Array, " particles"]


def refined(grid: Grid, parts: Whole) -> Float64[np.ndarray, " finer"]:
    """A grid whose steps are divided into `parts` steps each, equal in log snr; the grid's own nodes stay as they are.

    grid: (n_steps + 1,) -> (parts n_steps + 1,).
    """
    level = np.log(ou.snr(grid))
    place = np.arange(1, parts) / parts
    between = ou.time(np.exp(level[:-1, None] + np.diff(level)[:, None] * place))
    return np.append(np.concatenate([grid[:-1, None], between], axis=1).ravel(), grid[-1])


# With the denoiser frozen, the reverse SDE is linear. The noise that a part of a step adds then has, at the end of the
# step, a variance in proportion to the part's growth of snr. So increments z_j of the parts make the increment
#   sum_j w_j z_j,   w_j^2 = growth of part j / growth of the step,   sum_j w_j^2 = 1,
# of the whole step. It is standard normal and independent over the steps whatever the weights are.
def weights_of(grid: Grid, slots: Whole, parts: Whole) -> Float[np.ndarray, "steps slots parts"]:
    """The weights with which increments of a grid's parts add up to increments of its steps.

    A step has `slots` increments in the order of time, each the sum of `parts` finer ones.
    """
    growth = np.diff(ou.snr(refined(grid, slots * parts))).reshape(len(grid) - 1, slots, parts)
    return np.sqrt(growth / growth.sum(-1, keepdims=True))


def end_points(
    kernel: Kernel, grid: Grid, x: Particles, key: KeyLike, *, parts: Whole = 1, first: Whole = 0
) -> EndPoints:
    """Where particles end if each increment of the kernel is made from `parts` increments of a refined grid.

    Runs with the same key whose grids have parts n_steps in common follow one Brownian path: end_points(kernel, grid,
    x, key, parts=8) and end_points(kernel, refined(grid, 8), x, key). With parts = 1 the increments are those of
    `sample` for particles first, first + 1, ...

    Args:
      kernel: a kernel whose grid is in OU time. Where its score has k conditions, particle i has condition i mod k.
      grid: (n_steps + 1,) decreasing times, checked.
      x: (particles, d), float32 or float64, the positions at the first time.
      key: a JAX key.
      parts: finer increments in each increment of the kernel.
      first: the number of the first particle.
    """
    slots = max(kernel.noises_per_step, 1)
    rounded = lambda column: np.asarray(column).astype(x.dtype)
    rows = jax.tree.map(rounded, kernel.coefficients(grid)), rounded(weights_of(grid, slots, parts))
    static = kernel.init, kernel.step, kernel.position, kernel.noises_per_step, kernel.evals_per_step
    score = of_particles(kernel.score, first + np.arange(len(x)))
    return EndPoints(*compiled.recent(_run, static, (score, rows, key, x, np.uint32(first))))


def _run(static, arguments, _):
    init, step, position, noises, evals = static
    score, rows, key, x, first_particle = arguments
    n_steps, slots, parts = rows[1].shape
    index = first_particle + jnp.arange(len(x), dtype=jnp.uint32)

    def increment(weights, first):
        """The sum over increments first, first + 1, ... of weights times increments."""
        add = lambda i, z: z + weights[i] * noise.normal(key, index, first + i.astype(jnp.uint32), x.shape[1], x.dtype)
        return lax.fori_loop(0, parts, add, jnp.zeros_like(x))

    def one(carried, at):
        (state, until), (k, (row, weights)) = carried, at
        first = k.astype(jnp.uint32) * jnp.uint32(slots * parts)
        z = [increment(weights[s], first + jnp.uint32(s * parts)) for s in range(noises)]
        z = None if noises == 0 else z[0] if noises == 1 else jnp.stack(z)
        state = step(score_of_step(score, state, evals, k), state, row, z)
        until = jnp.where((until == n_steps) & ~_finite(position(state)), k, until)
        return (state, until), None

    start = init(x), jnp.full(len(x), n_steps, jnp.int32)
    (state, until), _ = lax.scan(one, start, (jnp.arange(n_steps, dtype=jnp.int32), rows))
    return position(state), until


def _finite(x: Particles) -> Bool[Array, " particles"]:
    return jnp.isfinite(x).all(-1)
