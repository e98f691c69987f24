"""A run of `sample`: arguments checked and placed on devices, the table of steps, the compiled call."""

import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_context
from jax.extend.core import get_opaque_trace_state
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdiff import noise
from jaxdiff.arrays import namespace
from jaxdiff.checks import as_array, check_whole, described
from jaxdiff.grids import check_grid
from jaxdiff.kernels import ddim
from jaxdiff.processes.models import check_times
from jaxdiff.progress import counter
from jaxdiff.sampling import compiled, score_calls, static
from jaxdiff.sampling.program import ran, run, run_bodies, run_rest
from jaxdiff.sampling.run_checks import check_asked, check_particles, check_steps, warn_of_wrong_jax
from jaxdiff.types import Kernel, Sampler

SOURCES = {"auto": "counter", "counter": "counter", "jax": "jax"}
REFRESH, GROWTH = 1.0, 16  # seconds between two moves of the bar; how much longer a block may be than the one before


def kernel_and_grid(kernel, grid):
    """Kernel and grid of a run that was given a Sampler, or both.

    Raises:
      TypeError: a kernel without a grid, or a Sampler with one.
    """
    if isinstance(kernel, Sampler):
        if grid is not None:
            raise TypeError("a Sampler brings its grid: leave grid out, and pass the key as key=key.")
        return kernel.kernel, kernel.grid
    if grid is None and isinstance(kernel, Kernel):
        raise TypeError(f"{kernel.name} needs a grid: pass one of jaxdiff.grids, or a Sampler in place of both.")
    return kernel, grid


class Run:
    """What sample and trajectory share: checked arguments, the table, the static program, and its compilations."""

    def __init__(self, kernel, x, grid, key, source, chunk, mesh, first_particle):
        """Arguments as for `sample`; source is its noise."""
        if not isinstance(kernel, Kernel):
            raise TypeError(
                f"kernel must come from jaxdiff.kernels, as kernels.ancestral(score) does: it is {described(kernel)}."
            )
        noise.check_key(key)
        x = as_array(x, "x", "(particles, d) of floats")
        check_particles(x, first_particle)
        if not isinstance(source, str) or source not in SOURCES:
            raise ValueError(f"noise must be one of {', '.join(map(repr, SOURCES))}: it is {described(source)}.")
        if chunk is not None:
            check_whole(chunk, "chunk")
            chunk = int(chunk)
        if mesh is not None and not isinstance(mesh, Mesh):
            raise TypeError(f"mesh must be a jax.sharding.Mesh, as jax.make_mesh makes it: it is {described(mesh)}.")
        warn_of_wrong_jax()
        if not isinstance(grid, Tracer):
            grid = check_grid(grid, own_clock=kernel.own_clock)
            check_steps(grid, noise.computed_in(x.dtype), kernel.own_clock)
        self.kernel, self.grid, self.key, self.n = kernel, grid, key, len(x)
        coefficients = kernel.coefficients(grid)
        check_asked(kernel, grid, coefficients)
        self.first = tuple(np.uint32(int(first_particle) >> shift & 0xFFFFFFFF) for shift in (32, 0))
        # Inside a trace of any kind the program becomes part of the caller's.
        self.traced = not _at_top_level()
        mesh, axes = (mesh, mesh.axis_names) if mesh is not None else _mesh_of(x)
        self.x = x if mesh is None else _spread(x, mesh, axes, self.traced)
        self.table = self.columns(coefficients)
        platform = (mesh.devices.flat[0] if isinstance(mesh, Mesh) else _device_of(x)).platform
        self.program = static.Program(
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
        return compiled.recent(
            ran,
            (function, program, platform),
            (score, table, self.key, self.first, more),
            carried,
            donate=donate,
            compiler_options=static.compiler_options(platform),
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
            check_times(self.kernel.score, last)
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
        score = score_calls.asked(self.kernel.score, self.x.shape, self.program.stored)
        plan = score_calls.plan_of(self.program, score, n_steps, self.x.shape)
        bodies, done, block = n_steps // plan.unroll, 0, 1
        with counter(n_steps, self.kernel.name) as moved:
            while done < bodies:
                block = min(block, bodies - done)
                began = time.perf_counter()
                span = np.int32(done), np.int32(done + block)
                state = jax.block_until_ready(self(run_bodies, self.table, state, span, donate=True))
                moved(block * plan.unroll)
                done, took = done + block, time.perf_counter() - began
                block = max(1, round(block * min(REFRESH / took, GROWTH)))
            state = jax.block_until_ready(self(run_rest, self.table, state, donate=True))
            moved(n_steps - bodies * plan.unroll)
        x = self.kernel.position(state)
        if last is not None:
            x = self.called(run, last[0], self.kernel.score, last[1], x)
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
