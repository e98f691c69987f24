"""Samples: particles down the grid of a sampler, of several in turn, or with the path kept."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdiff.checks import as_numbers, described
from jaxdiff.sampling import program
from jaxdiff.sampling.program import run_in_turn, run_saving, run_stages
from jaxdiff.sampling.run import Run, kernel_and_grid
from jaxdiff.types import Kernel, Sampler

SAME_TIME = 1e-9  # relative: how close a time to save at must be to one of the grid


def sample(
    kernel: Kernel | Sampler,
    x,
    grid=None,
    key=None,
    *,
    noise="auto",
    chunk=None,
    mesh=None,
    donate=False,
    progress=False,
    first_particle=0,
    denoise=False,
):
    """Run particles down a grid with a kernel.

    Args:
      kernel: from jaxdiff.kernels; or a Sampler, which brings its grid: sample(plan.sampler(score), x, key=key). The
        score acts on every particle by itself.
      x: (particles, d), where they start: at an OU horizon, draws of N(0, I), as noise.initial(key, jnp.arange(n), d)
        makes. The result has its dtype, a float. A run of float32 or float64 computes in that dtype; particles of 16
        bits are widened, computed in float32 and rounded at the end (see below).
      grid: (n_steps + 1,) decreasing times, checked here; a traced array is trusted.
      key: a JAX key, new style or old. Particle i sees noise.normal(key, first_particle + i, step, d).
      noise: "counter", which "auto" means, or "jax": jax.random.normal, a key for every particle and step; slower.
      chunk: particles that run down the whole grid before the next ones start. None chooses (`layout.choose`), and
        takes all at once where the score does not accept fewer or depends on the rows that particles have in x. A
        score that mixes particles needs chunk=len(x).
      mesh: a jax.sharding.Mesh, over all axes of which the particles are spread; an x that is already sharded along its
        first axis needs none. Nothing is exchanged between steps. The result is spread like x; whole on every device
        where the particles do not divide evenly.
      donate: reuse the memory of x, which is then deleted. No effect inside jit.
      progress: show a bar, moved by the host between compiled blocks of steps. No effect inside jit.
      first_particle: the index of x[0], for runs in several calls.
      denoise: end with the score's denoiser at the last time t of the grid, (x + sigma^2 s(x, t))/alpha, which costs
        one evaluation more. The samples then approximate the law of E[X_0 | X_t], which is within sqrt(E|X_0 - D|^2) of
        the data in W2, D the denoiser (`information.denoised_w2`), and lie closer to data than X_t does. They have no
        density to speak of: a bound in nats is for the samples before this step.

    Returns:
      (particles, d) at the last time of the grid, or denoised.

    Raises:
      ValueError: the grid is not one or has a step of OU time 9 (float32) or 29 (float64) and more, x is not
        (particles, d), the score returns another shape than x, the score depends on the rows that particles have in x
        while they are cut into chunks or spread over devices, or a concrete grid asks a score of
        processes.score_from_model outside processes.ou_ends. A kernel of one evaluation a step asks at all times of the
        grid but the last, which may lie below the model's first time; a kernel of more, or denoise=True, asks at the
        last one too. Or denoise=True with a kernel whose grid is its own running time (Langevin).
      TypeError: x is not of a float dtype, or kernel, grid or key is another kind of thing.

    Particles of 16 bits (bfloat16, float16): coefficients, times, noise, updates and the positions between steps are
    float32. The result is that of the same run of x.astype(jnp.float32), rounded once. The score gets float32 x and t,
    and returns float32 or the dtype of the particles. A network in bfloat16 casts its input, as in
    lambda x, t: network(x.astype(jnp.bfloat16), t). One that raises TypeError at a float32 x gets x in the dtype of the
    particles. The gain is memory outside the run: that of x, of the result and of a trajectory.

    A condition for each particle belongs into the score as an array with len(x) rows in the order of x:
    jax.tree_util.Partial(lambda condition, x, t: ..., condition). The particles then run all at once on one device. A
    score that counts or cuts rows itself, table[jnp.arange(len(x))] or table[: len(x)], or draws random numbers of
    x.shape, gives a particle another value in another chunk; it is seen in the score's jaxpr, and all particles run at
    once, or the run is refused.

    The noise is the same bits for any batch, chunk and mesh. So are float32 positions under a score made of elementwise
    operations (a sum of two products a b + c d in it may be rounded in two ways). Matrix products round differently for
    other numbers of rows, and XLA reorders products of float64 by the shape: there the positions agree to rounding.

    Compiled once per shape of x, length of the grid, kernel method, options and score function. New parameters of a
    score that is a pytree, new keys, and grids of equal length reuse the program; a new lambda is a new function and
    compiles anew. The last 32 programs used are kept (compiled.MOST), some 4 MB each. With an older one its score goes,
    and the arrays that the score holds; run again, it compiles again. jax.clear_caches() lets go of all of them.
    Works inside jit, vmap and grad. Memory beyond x and the result does not grow with the steps, and on a CPU not with
    the particles; a reverse-mode gradient holds one state for every second step of one chunk.
    """
    kernel, grid = kernel_and_grid(kernel, grid)
    run = Run(kernel, x, grid, key, noise, chunk, mesh, first_particle)
    last = run.denoising() if denoise else None
    if progress and not run.traced:
        return run.watched(donate, last)
    if last is None:
        return run.own(run(program.run, run.table, run.x, donate=donate))
    programs, tables = zip((run.program, run.table), last, strict=True)
    return run.own(run.called(run_stages, programs, run.kernel.score, tables, run.x, donate=donate))


def sample_in_turn(stages, x, key, *, noise="auto", chunk=None, mesh=None, donate=False, first_particle=0):
    """Run particles down several grids, one after the other, in one compiled program.

    Args:
      stages: samplers, or pairs (kernel, grid), each as for `sample`. Stage i draws its noise from
        jax.random.fold_in(key, i).
      x, key, noise, chunk, mesh, donate, first_particle: as for `sample`.

    Returns:
      (particles, d) at the end of the last stage; errors, compilation and sameness of noise as for `sample`.
    """
    try:
        stages = [(kernel, grid) for kernel, grid in stages]
    except (TypeError, ValueError):
        raise TypeError(f"stages are pairs (kernel, grid): they are {described(stages)}.") from None
    if not stages:
        raise ValueError("stages are pairs (kernel, grid), one at least: there are none.")
    runs = [Run(kernel, x, grid, key, noise, chunk, mesh, first_particle) for kernel, grid in stages]
    each, scores, tables = zip(*((run.program, run.kernel.score, run.table) for run in runs), strict=True)
    return runs[0].own(runs[0].called(run_in_turn, each, scores, tables, runs[0].x, donate=donate))


def trajectory(
    kernel: Kernel | Sampler,
    x,
    grid=None,
    key=None,
    save_at=(),
    *,
    noise="auto",
    chunk=None,
    mesh=None,
    first_particle=0,
):
    """Run particles down a grid and keep where they are at some of its times.

    Args:
      kernel, x, grid, key, noise, chunk, mesh, first_particle: as for `sample`.
      save_at: times of the grid, in any order, matched to a relative 1e-9; the run ends at the last of them.

    Returns:
      (len(save_at), particles, d), the positions `sample` would pass through, in the dtype of x; nothing else is kept.

    Raises:
      ValueError: a time is not one of the grid; else as `sample`. The grid must be concrete.
    """
    kernel, grid = kernel_and_grid(kernel, grid)
    if isinstance(grid, Tracer):
        raise TypeError("trajectory needs a concrete grid: it finds the times to save at on the host.")
    run = Run(kernel, x, grid, key, noise, chunk, mesh, first_particle)
    nodes, order = np.unique(_places(run.grid, save_at), return_inverse=True)
    if len(nodes) == 0:
        return jnp.zeros((0, run.n, run.x.shape[1]), run.x.dtype)
    # Step k comes to node k + 1 and writes into the row of the first saved node that is not before it.
    last = int(nodes[-1])
    rows = np.searchsorted(nodes, np.arange(1, last + 1)).astype(np.int32)
    table = jax.tree.map(lambda column: column[:last], run.table), rows
    saved = jnp.pad(run.x[None], ((0, len(nodes) - 1), (0, 0), (0, 0)))
    saved = run.own(run(run_saving, table, saved) if last > 0 else saved, axis=1)
    return saved if np.array_equal(order, np.arange(len(nodes))) else saved[order]


def _places(grid, save_at):
    """The nodes of a grid at given times."""
    times = np.atleast_1d(as_numbers(save_at, "save_at", "a list of times of the grid"))
    if times.ndim > 1:
        raise ValueError(f"save_at must be a list of times of the grid: it has shape {times.shape}.")
    place = np.abs(grid - times[:, None]).argmin(axis=1)
    missed = ~(np.abs(grid[place] - times) <= SAME_TIME * np.abs(grid[place]))
    if missed.any():
        at = int(np.argmax(missed))
        raise ValueError(
            f"save_at[{at}] = {times[at]:.6g} is not a time of the grid; the nearest is grid[{place[at]}] = "
            f"{grid[place[at]]:.6g}. Save at times of the grid, grid[::10] say."
        )
    return place
