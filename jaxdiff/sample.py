"""sample, sample_in_turn and trajectory: particles down a grid."""

import functools
import math
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_context
from jax.extend.core import get_opaque_trace_state
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdiff import driver, noise, processes, programs
from jaxdiff.grids import check_grid, longest_step
from jaxdiff.kernels import ddim
from jaxdiff.processes import namespace
from jaxdiff.progress import counter
from jaxdiff.types import Kernel, as_array, as_numbers, check_whole, described

SOURCES = {"auto": "counter", "counter": "counter", "jax": "jax"}
REFRESH, GROWTH = 1.0, 16  # seconds between two moves of the bar; how much longer a block may be than the one before
SAME_TIME = 1e-9  # relative: how close a time to save at must be to one of the grid


def sample(
    kernel: Kernel,
    x,
    grid,
    key,
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
      kernel: from jaxdiff.kernels. Its score acts on every particle by itself.
      x: (particles, d), where they start: at an OU horizon, draws of N(0, I), as noise.initial(key, jnp.arange(n), d)
        makes. The result has its dtype, a float. A run of float32 or float64 computes in that dtype; particles of 16
        bits are widened, computed in float32 and rounded at the end (see below).
      grid: (n_steps + 1,) decreasing times, checked here; a traced array is trusted.
      key: a JAX key, new style or old. Particle i sees noise.normal(key, first_particle + i, step, d).
      noise: "counter", which "auto" means, or "jax": jax.random.normal, a key for every particle and step; slower.
      chunk: particles that run down the whole grid before the next ones start. None chooses (`schedule.choose`), and
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
    compiles anew. The last 32 programs used are kept (programs.MOST), some 4 MB each. With an older one its score goes,
    and the arrays that the score holds; run again, it compiles again. jax.clear_caches() lets go of all of them.
    Works inside jit, vmap and grad. Memory beyond x and the result does not grow with the steps, and on a CPU not with
    the particles; a reverse-mode gradient holds one state for every second step of one chunk.
    """
    run = _Run(kernel, x, grid, key, noise, chunk, mesh, first_particle)
    last = run.denoising() if denoise else None
    if progress and not run.traced:
        return run.watched(donate, last)
    if last is None:
        return run.own(run(driver.run, run.table, run.x, donate=donate))
    programs, tables = zip((run.program, run.table), last, strict=True)
    return run.own(run.called(driver.run_stages, programs, run.kernel.score, tables, run.x, donate=donate))


def sample_in_turn(stages, x, key, *, noise="auto", chunk=None, mesh=None, donate=False, first_particle=0):
    """Run particles down several grids, one after the other, in one compiled program.

    Args:
      stages: pairs (kernel, grid), each as for `sample`. Stage i draws its noise from jax.random.fold_in(key, i).
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
    runs = [_Run(kernel, x, grid, key, noise, chunk, mesh, first_particle) for kernel, grid in stages]
    each, scores, tables = zip(*((run.program, run.kernel.score, run.table) for run in runs), strict=True)
    return runs[0].own(runs[0].called(driver.run_in_turn, each, scores, tables, runs[0].x, donate=donate))


def trajectory(kernel: Kernel, x, grid, key, save_at, *, noise="auto", chunk=None, mesh=None, first_particle=0):
    """Run particles down a grid and keep where they are at some of its times.

    Args:
      kernel, x, grid, key, noise, chunk, mesh, first_particle: as for `sample`.
      save_at: times of the grid, in any order, matched to a relative 1e-9; the run ends at the last of them.

    Returns:
      (len(save_at), particles, d), the positions `sample` would pass through, in the dtype of x; nothing else is kept.

    Raises:
      ValueError: a time is not one of the grid; else as `sample`. The grid must be concrete.
    """
    if isinstance(grid, Tracer):
        raise TypeError("trajectory needs a concrete grid: it finds the times to save at on the host.")
    run = _Run(kernel, x, grid, key, noise, chunk, mesh, first_particle)
    nodes, order = np.unique(_places(run.grid, save_at), return_inverse=True)
    if len(nodes) == 0:
        return jnp.zeros((0, run.n, run.x.shape[1]), run.x.dtype)
    # Step k comes to node k + 1 and writes into the row of the first saved node that is not before it.
    last = int(nodes[-1])
    rows = np.searchsorted(nodes, np.arange(1, last + 1)).astype(np.int32)
    table = jax.tree.map(lambda column: column[:last], run.table), rows
    saved = jnp.pad(run.x[None], ((0, len(nodes) - 1), (0, 0), (0, 0)))
    saved = run.own(run(driver.run_saving, table, saved) if last > 0 else saved, axis=1)
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


class _Run:
    """What sample and trajectory share: checked arguments, the table, the static program, and its compilations."""

    def __init__(self, kernel, x, grid, key, source, chunk, mesh, first_particle):
        if not isinstance(kernel, Kernel):
            raise TypeError(
                f"kernel must come from jaxdiff.kernels, as kernels.ancestral(score) does: it is {described(kernel)}."
            )
        noise.check_key(key)
        x = as_array(x, "x", "(particles, d) of floats")
        _check_particles(x, first_particle)
        if not isinstance(source, str) or source not in SOURCES:
            raise ValueError(f"noise must be one of {', '.join(map(repr, SOURCES))}: it is {described(source)}.")
        if chunk is not None:
            check_whole(chunk, "chunk")
            chunk = int(chunk)
        if mesh is not None and not isinstance(mesh, Mesh):
            raise TypeError(f"mesh must be a jax.sharding.Mesh, as jax.make_mesh makes it: it is {described(mesh)}.")
        _warn_of_wrong_jax()
        if not isinstance(grid, Tracer):
            grid = check_grid(grid, own_clock=kernel.own_clock)
            _check_steps(grid, noise.computed_in(x.dtype), kernel.own_clock)
        self.kernel, self.grid, self.key, self.n = kernel, grid, key, len(x)
        coefficients = kernel.coefficients(grid)
        _check_asked(kernel, grid, coefficients)
        self.first = tuple(np.uint32(int(first_particle) >> shift & 0xFFFFFFFF) for shift in (32, 0))
        # Inside a trace of any kind the program becomes part of the caller's.
        self.traced = not _at_top_level()
        mesh, axes = (mesh, mesh.axis_names) if mesh is not None else _mesh_of(x)
        self.x = x if mesh is None else _spread(x, mesh, axes, self.traced)
        self.table = self.columns(coefficients)
        platform = (mesh.devices.flat[0] if isinstance(mesh, Mesh) else _device_of(x)).platform
        self.program = driver.Program(
            kernel.init,
            kernel.step,
            kernel.position,
            kernel.noises_per_step,
            SOURCES[source],
            chunk,
            mesh,
            axes,
            platform,
            x.dtype,
        )

    def __call__(self, function, table, carried, *more, donate=False):
        """A function of the driver on the particles, under the own kernel."""
        return self.called(function, self.program, self.kernel.score, table, carried, *more, donate=donate)

    def called(self, function, program, score, table, carried, *more, donate=False):
        """A function of the driver, compiled, alone or as a part of the trace that is under way."""
        # Donation and compiler options are for the outermost jit.
        platform, donate = (None, False) if self.traced else (self.program.platform, donate)
        return programs.recent(
            driver.ran,
            (function, program, platform),
            (score, table, self.key, self.first, more),
            carried,
            donate=donate,
            compiler_options=driver.compiler_options(platform),
        )

    def own(self, out, axis=0):
        """The result without the particles that were added to fill the mesh."""
        if out.shape[axis] == self.n:
            return out
        whole = _placed(out, self.program.mesh, PartitionSpec(), self.traced)  # an uneven rest cannot stay spread
        return jax.lax.slice_in_dim(whole, 0, self.n, axis=axis)

    def denoising(self):
        """Program and table of the step from the grid's last time to the denoiser there: DDIM's, to time 0."""
        if self.kernel.own_clock:
            raise ValueError(
                f"denoise=True needs a kernel whose grid is in OU time: the grid of {self.kernel.name} is its own "
                f"running time."
            )
        last = self.grid[-1:]
        if not isinstance(last, Tracer):
            processes.check_times(self.kernel.score, last)
        step = ddim(self.kernel.score)
        program = self.program._replace(init=step.init, step=step.step, position=step.position, noises=0)
        return program, self.columns(step.coefficients(namespace(last).concatenate([last, 0 * last])))

    def columns(self, coefficients):
        """A table in the dtype that is computed in."""
        # Arrays, never constants: some GPU compilers fold a constant step size wrongly (jax 36958, 39336).
        table = jax.tree.map(lambda column: _rounded(column, noise.computed_in(self.x.dtype)), coefficients)
        return jax.tree.map(jnp.asarray, table) if self.traced else table

    def watched(self, donate, last=None):
        """As `sample`, with a bar: blocks of bodies, each as long as a bar may stand still.

        last: program and table of what comes after the grid, or None.
        """
        state, n_steps = self.kernel.init(self.x.astype(self.program.dtype)), len(self.grid) - 1
        state = jax.tree.map(jnp.copy, state)  # every leaf is donated, and two may be one array
        if donate:
            self.x.delete()
        score = driver.asked(self.kernel.score, self.x.shape, self.program.stored)
        plan = driver.plan_of(self.program, score, n_steps, self.x.shape)
        bodies, done, block = n_steps // plan.unroll, 0, 1
        with counter(n_steps, self.kernel.name) as moved:
            while done < bodies:
                block = min(block, bodies - done)
                began = time.perf_counter()
                span = np.int32(done), np.int32(done + block)
                state = jax.block_until_ready(self(driver.run_bodies, self.table, state, span, donate=True))
                moved(block * plan.unroll)
                done, took = done + block, time.perf_counter() - began
                block = max(1, round(block * min(REFRESH / took, GROWTH)))
            state = jax.block_until_ready(self(driver.run_rest, self.table, state, donate=True))
            moved(n_steps - bodies * plan.unroll)
        x = self.kernel.position(state)
        if last is not None:
            x = self.called(driver.run, last[0], self.kernel.score, last[1], x)
        return self.own(x.astype(self.program.stored))


def _rounded(column, dtype):
    """A column of the table in a dtype. A host's stays there: JAX would compile a conversion for every length."""
    if not isinstance(column, np.ndarray):
        return jnp.asarray(column, dtype)
    with np.errstate(over="ignore"):
        return column.astype(dtype)


def _at_top_level():
    state = functools.partial(get_opaque_trace_state, convention="jaxdiff")
    with eval_context():
        top = state()
    return state() == top


def _check_particles(x, first):
    if x.ndim != 2:
        help = "One particle is x[None]." if x.ndim < 2 else "Take x.reshape(len(x), -1), and undo it in the score."
        raise ValueError(f"x must be (particles, d): x has shape {x.shape}. {help}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must be of a float dtype, which the run keeps: x is {x.dtype}. Use x.astype(jnp.float32).")
    check_whole(first, "first_particle", 0)
    if not first < 2**64 - len(x):
        raise ValueError(f"first_particle must be an index below 2^64: first_particle = {first}.")


def _check_steps(grid, dtype, own_clock):
    longest = -np.diff(grid).min()
    if not own_clock and longest > longest_step(dtype):
        eps = float(jnp.finfo(dtype).eps)
        raise ValueError(
            f"a step of OU time {longest:.3g} leaves rounding of e^{longest:.3g} times {eps:.1g} "
            f"behind: put nodes between, or begin at 5, where noise is all there is of data of mean 0 and variance 1. "
            f"For a model's schedule that begins in pure noise, grids.from_process(process, times) does so."
        )


def _check_asked(kernel, grid, table):
    """Raise ValueError where the grid has the score of a model asked at concrete times that the model does not have."""
    columns = [
        column for path, column in jax.tree_util.tree_leaves_with_path(table) if getattr(path[-1], "name", "") == "t"
    ]
    if not kernel.own_clock:
        columns += [grid[:-1]] if kernel.evals_per_step == 1 else [grid[:-1], grid[1:]]
    for column in columns:
        if not isinstance(column, Tracer):
            processes.check_times(kernel.score, np.asarray(column, np.float64))


def _mesh_of(x) -> tuple[Mesh | None, tuple[str, ...]]:
    """The mesh and axes along which x is already spread, particles alone; (None, ()) on one device."""
    sharding = None if isinstance(x, Tracer) else x.sharding
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh) or len(sharding.device_set) == 1:
        return None, ()
    along, *others = (*sharding.spec, None)
    if along is None or any(axis is not None for axis in others):
        raise ValueError(
            f"x must be sharded along its first axis, the particles, alone: its sharding is {sharding.spec}. "
            f"jax.device_put(x, jax.NamedSharding(mesh, jax.P(mesh.axis_names))) does it."
        )
    return sharding.mesh, along if isinstance(along, tuple) else (along,)


def _spread(x, mesh, axes, traced):
    """x over the mesh, with particles added where they do not divide evenly."""
    devices = math.prod(mesh.shape[axis] for axis in axes)
    if len(x) % devices:
        x = jnp.pad(x, ((0, -len(x) % devices), (0, 0)))
    return _placed(x, mesh, PartitionSpec(axes), traced)


def _placed(x, mesh, spec, traced):
    """x spread over a mesh; inside a trace only where the mesh asks for it, the compiler doing it elsewhere."""
    sharding = NamedSharding(mesh, spec)
    if not traced:
        return jax.device_put(x, sharding)
    return jax.reshard(x, sharding) if AxisType.Explicit in mesh.axis_types else x


def _device_of(x):
    return jax.local_devices()[0] if isinstance(x, Tracer) else next(iter(x.devices()))


@functools.cache
def _warn_of_wrong_jax():
    if jax.__version__ == "0.10.2" and jax.default_backend() == "cpu":
        warnings.warn(
            "jax 0.10.2 returns wrong numbers on CPU (vmapped matvec with a reduction, jax-ml/jax issue 39103): "
            "pip install 'jax!=0.10.2', 0.10.1 say.",
            RuntimeWarning,
            stacklevel=4,
        )
