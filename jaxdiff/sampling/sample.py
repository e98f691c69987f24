"""Sampling: run particles along a grid, along several grids in turn, or with saved positions on the way."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh
from jaxtyping import Array, Float

from jaxdiff.checks import as_numbers, described
from jaxdiff.noise import KeyLike
from jaxdiff.sampling import program
from jaxdiff.sampling.arguments import GridLike, NoiseSource, ParticlesLike, WholeNumber
from jaxdiff.sampling.program import run_in_turn, run_saving, run_stages
from jaxdiff.sampling.run import Run, kernel_and_grid
from jaxdiff.types import Kernel, Sampler

SAME_TIME = 1e-9  # relative distance below which a time to save at counts as a time of the grid: rounding alone


def sample(
    kernel: Kernel | Sampler,
    x: ParticlesLike,
    grid: GridLike = None,
    key: KeyLike = None,
    *,
    noise: NoiseSource = "counter",
    chunk: Any = None,
    mesh: Mesh | None = None,
    donate: bool = False,
    progress: bool = False,
    first_particle: WholeNumber = 0,
    denoise: bool = False,
) -> Float[Array, "particles *event"]:
    """Run particles along a grid with a kernel.

    Args:
      kernel: a kernel from jaxdiff.kernels, or a Sampler, which has its own grid: sample(plan.sampler(score), x,
        key=key). The score must treat each particle independently of the others.
      x: (particles, d), or (particles, *event) as images (particles, 8, 8, 1) are: the positions at the first time of
        the grid. The score gets them in this shape. At an OU horizon they are draws of N(0, I), as
        noise.initial(key, jnp.arange(n), d) makes them; d may be the shape of an event. The dtype is a float, and the
        result has the same. A run of float32 or float64 computes in that dtype. Particles of 16 bits are computed in
        float32 (see below).
      grid: (n_steps + 1,) decreasing times. A concrete grid is checked, a traced one is not.
      key: a JAX key, new style or old. Particle i gets the increments noise.normal(key, first_particle + i, step, d),
        where d is the number of its coordinates, in the order of x.reshape(particles, d).
      noise: "counter" for jaxdiff.noise, or "jax" for jax.random.normal with a key for every particle and step, which
        is slower.
      chunk: how many particles run along the whole grid before the next ones start, a whole number. By default
        `layout.choose` chooses. It takes all at once if the score does not accept fewer rows or depends on the row
        that a particle has in x. A score that mixes particles needs chunk=len(x).
      mesh: a jax.sharding.Mesh; the particles are spread over all its axes. An x that is already sharded along its
        first axis needs no mesh. Devices exchange nothing between steps. The result is spread like x, or whole on every
        device if the particles do not divide evenly.
      donate: reuse the memory of x, which is then deleted. No effect inside jit.
      progress: show a bar, which moves between compiled blocks of steps. No effect inside jit.
      first_particle: the index of x[0], for particles that are run in several calls.
      denoise: end with the score's denoiser at the last time t of the grid, (x + sigma^2 s(x, t))/alpha. This costs one
        evaluation more. The samples then approximate the law of D = E[X_0 | X_t], which is closer to the data than that
        of X_t: within sqrt(E|X_0 - D|^2) in W2 (`information.denoised_w2`). The law of D may have no density. A bound
        in nats therefore holds only for the samples before this step.

    Returns:
      The positions at the last time of the grid, or their denoised values, in the shape of x.

    Raises:
      ValueError: one of these.
        The grid does not decrease, or has a step of OU time 9 (float32), 29 (float64) or more.
        x has no axis of particles, the score returns another shape than x, or it has conditions and not one for each
        particle.
        The score depends on the row that a particle has in x, and chunk or mesh divides the rows.
        The score is of processes.score_from_model, and the grid evaluates it outside processes.ou_ends. A kernel with
        one evaluation a step evaluates at all times of the grid except the last, which may lie below the model's first
        time. A kernel with more, or denoise=True, evaluates at the last time too.
        denoise=True with a kernel whose grid is its own running time (Langevin).
      TypeError: x is not of a float dtype, or kernel, grid or key has a wrong type.

    Particles of 16 bits (bfloat16, float16): coefficients, times, noise, updates and the positions between steps are
    float32. The result is that of a run from x.astype(jnp.float32), rounded once. The score gets float32 x and t, and
    returns float32 or the dtype of the particles. A network in bfloat16 casts its input, as in
    lambda x, t: network(x.astype(jnp.bfloat16), t). A score that raises TypeError for a float32 x gets x in the dtype
    of the particles. 16 bits save memory for x, the result and a trajectory, and not during the run.

    To give each particle a condition, as a label, pass scores.conditioned(score, conditions) with a row for each
    particle. Chunks and devices then get the conditions of their particles. A score that holds such an array without
    `conditioned` runs all particles at once on one device. A score that uses row numbers itself, as
    table[jnp.arange(len(x))] or table[: len(x)], or draws random numbers of x.shape, would give a particle other values
    in another chunk. `sample` finds this in the score's jaxpr. It then runs all particles at once, or raises if chunk
    or mesh forbids that.

    The noise is equal to the last bit for any batch, chunk and mesh. So are float32 positions if the score consists of
    elementwise operations (but a sum of two products a b + c d in it may be rounded in two ways). Otherwise positions
    agree to rounding, because matrix products round differently for other numbers of rows, and XLA reorders products of
    float64 by the shape.

    One program is compiled for each shape of x, length of the grid, kernel method, options and score function. New
    keys, grids of equal length, and new parameters of a score that is a pytree reuse the program. A new lambda is a new
    function and is compiled again. The last 32 programs are kept (compiled.MOST), about 4 MB each. When an older one
    is dropped, its score and the score's arrays are dropped too. jax.clear_caches() drops all of them.

    Works inside jit, vmap and grad. The memory beyond x and the result does not depend on the number of steps, and on a
    CPU not on the number of particles. A reverse-mode gradient stores one state for every second step of one chunk.
    """
    kernel, grid = kernel_and_grid(kernel, grid)
    run = Run(kernel, x, grid, key, noise, chunk, mesh, first_particle, donate)
    last = run.denoising() if denoise else None
    if progress and not run.traced:
        return run.watched(donate, last)
    if last is None:
        return run.own(run(program.run, run.table, run.x, donate=donate))
    programs, tables = zip((run.program, run.table), last, strict=True)
    return run.own(run.called(run_stages, programs, run.kernel.score, tables, run.x, donate=donate))


def sample_in_turn(
    stages: Iterable[Any],
    x: ParticlesLike,
    key: KeyLike,
    *,
    noise: NoiseSource = "counter",
    chunk: Any = None,
    mesh: Mesh | None = None,
    donate: bool = False,
    first_particle: WholeNumber = 0,
) -> Float[Array, "particles *event"]:
    """Run particles along several grids, one after the other, in one compiled program.

    Args:
      stages: samplers, or pairs (kernel, grid), each as for `sample`. Stage i draws its noise from
        jax.random.fold_in(key, i).
      x, key, noise, chunk, mesh, donate, first_particle: as for `sample`.

    Returns:
      The positions at the end of the last stage, in the shape of x. Errors, compilation and reproducibility are those
      of `sample`.
    """
    try:
        stages = [(kernel, grid) for kernel, grid in stages]
    except (TypeError, ValueError):
        raise TypeError(f"stages must be a list of pairs (kernel, grid): it is {described(stages)}.") from None
    if not stages:
        raise ValueError("stages must hold one pair (kernel, grid) at least: it is empty.")
    used_last = len(stages) - 1  # the run that may reuse the memory of x
    runs = [
        Run(kernel, x, grid, key, noise, chunk, mesh, first_particle, donate and i == used_last)
        for i, (kernel, grid) in enumerate(stages)
    ]
    each, scores, tables = zip(*((run.program, run.kernel.score, run.table) for run in runs), strict=True)
    return runs[0].own(runs[0].called(run_in_turn, each, scores, tables, runs[0].x, donate=donate))


def trajectory(
    kernel: Kernel | Sampler,
    x: ParticlesLike,
    grid: GridLike = None,
    key: KeyLike = None,
    save_at: Any = (),
    *,
    noise: NoiseSource = "counter",
    chunk: Any = None,
    mesh: Mesh | None = None,
    first_particle: WholeNumber = 0,
) -> Float[Array, "saved particles *event"]:
    """Run particles along a grid and save their positions at some of its times.

    Args:
      kernel, x, grid, key, noise, chunk, mesh, first_particle: as for `sample`. The grid must be concrete.
      save_at: times of the grid in any order, equal to it up to a relative 1e-9. The run ends at the last of them.

    Returns:
      (len(save_at), particles, *event), the positions of the run of `sample` at these times, in the dtype of x.
      Positions at other times are not stored.

    Raises:
      ValueError: save_at holds a time that is not in the grid; otherwise as `sample`.
      TypeError: the grid is traced; otherwise as `sample`.
    """
    kernel, grid = kernel_and_grid(kernel, grid)
    if isinstance(grid, Tracer):
        raise TypeError("trajectory needs a concrete grid, to look up save_at before the run: the grid is traced.")
    run = Run(kernel, x, grid, key, noise, chunk, mesh, first_particle)
    nodes, order = np.unique(_places(run.grid, save_at), return_inverse=True)
    if len(nodes) == 0:
        return jnp.zeros((0, run.n, *run.event), run.x.dtype)
    # Step k ends at node k + 1. It writes its position into the row of the next saved node, where the last write stays.
    last = int(nodes[-1])
    rows = np.searchsorted(nodes, np.arange(1, last + 1)).astype(np.int32)
    table = jax.tree.map(lambda column: column[:last], run.table), rows
    saved = jnp.pad(run.x[None], ((0, len(nodes) - 1), (0, 0), (0, 0)))
    saved = run.own(run(run_saving, table, saved) if last > 0 else saved, axis=1)
    return saved if np.array_equal(order, np.arange(len(nodes))) else saved[order]


def _places(grid, save_at):
    """The numbers of the nodes of a grid at given times."""
    times = np.atleast_1d(as_numbers(save_at, "save_at", "a list of times of the grid"))
    if times.ndim > 1:
        raise ValueError(f"save_at must be a list of times of the grid: it has shape {times.shape}.")
    place = np.abs(grid - times[:, None]).argmin(axis=1)
    missed = ~(np.abs(grid[place] - times) <= SAME_TIME * np.abs(grid[place]))
    if missed.any():
        at = int(np.argmax(missed))
        raise ValueError(
            f"save_at[{at}] = {times[at]:.6g} is not a time of the grid; the nearest is grid[{place[at]}] = "
            f"{grid[place[at]]:.6g}. Take save_at from the grid, for example grid[::10]."
        )
    return place
