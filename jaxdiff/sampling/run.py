"""One run of `sample`: checks its arguments, places them on devices, makes the table of steps, calls the program."""

import dataclasses
import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_context
from jax.sharding import Mesh, PartitionSpec

from jaxdiff import conditions, events, noise
from jaxdiff.arrays import namespace
from jaxdiff.checks import as_array, check_whole, described
from jaxdiff.grids import check_grid
from jaxdiff.kernels import ddim
from jaxdiff.processes.models import check_times
from jaxdiff.progress import counter
from jaxdiff.sampling import compiled, score_calls, static
from jaxdiff.sampling.devices import device_of, mesh_of, placed, spread
from jaxdiff.sampling.program import call, run, run_iterations, run_remaining
from jaxdiff.sampling.run_checks import check_asked, check_particles, check_steps, warn_of_wrong_jax
from jaxdiff.types import Kernel, Sampler

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # jax 0.9
    from jax.core import get_opaque_trace_state

SOURCES = ("counter", "jax")  # the values of noise=
REFRESH = 1.0  # seconds between two moves of the bar
# A block has at most this factor more steps than the block before, because one timing may be too short by chance. A
# larger factor may make a block last far longer than REFRESH.
GROWTH = 16


def kernel_and_grid(kernel, grid):
    """The kernel and the grid of a run that was given a Sampler, or a kernel and a grid.

    Raises:
      TypeError: a kernel came without a grid, or a Sampler with one.
    """
    if isinstance(kernel, Sampler):
        if grid is not None:
            raise TypeError("a Sampler has its own grid: leave grid out, and pass the key as key=key.")
        return kernel.kernel, kernel.grid
    if grid is None and isinstance(kernel, Kernel):
        raise TypeError(
            f"{kernel.name} needs a grid, and grid is None: pass one of jaxdiff.grids, or a Sampler in place of both."
        )
    return kernel, grid


class Run:
    """The common part of `sample`, `sample_in_turn` and `trajectory`: checked arguments, table of steps, program."""

    def __init__(self, kernel, x, grid, key, source, chunk, mesh, first_particle, donate=False):
        """Arguments as for `sample`; source is its argument noise."""
        if not isinstance(kernel, Kernel):
            raise TypeError(
                f"kernel must come from jaxdiff.kernels, as kernels.ancestral(score) does: it is {described(kernel)}."
            )
        noise.check_key(key)
        x = as_array(x, "x", "(particles, *event) of floats")
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
        self.event, self.grid, self.key, self.n = x.shape[1:], grid, key, len(x)
        coefficients = kernel.coefficients(grid)
        check_asked(kernel, grid, coefficients)
        self.first = tuple(np.uint32(int(first_particle) >> shift & 0xFFFFFFFF) for shift in (32, 0))
        # Inside a trace of any kind the program becomes part of the caller's.
        self.traced = not _at_top_level()
        mesh, axes = (mesh, mesh.axis_names) if mesh is not None else mesh_of(x)
        conditions.check_conditions(kernel.score, self.n)
        score = events.on_rows(kernel.score, self.event)
        x = events.reshaped(x, (self.n, math.prod(self.event)), donate=donate and not self.traced)
        if mesh is not None:
            x = spread(x, mesh, axes, self.traced)
            score = conditions.with_conditions(score, lambda leaf: spread(leaf, mesh, axes, self.traced))
        self.x, self.kernel = x, dataclasses.replace(kernel, score=score)
        self.table = self.columns(coefficients)
        platform = (mesh.devices.flat[0] if isinstance(mesh, Mesh) else device_of(x)).platform
        self.program = static.Program(
            kernel.init,
            kernel.step,
            kernel.position,
            kernel.noises_per_step,
            kernel.evals_per_step,
            source,
            chunk,
            mesh,
            axes,
            platform,
            x.dtype,
        )

    def __call__(self, function, table, carried, *more, donate=False):
        """Call a function of `sampling.program` with this run's program, score and key."""
        return self.called(function, self.program, self.kernel.score, table, carried, *more, donate=donate)

    def called(self, function, program, score, table, carried, *more, donate=False):
        """Call a function of `sampling.program`: compiled, or inside a trace as a part of that trace."""
        # Donation and compiler options have an effect only in the outermost jit.
        platform, donate = (None, False) if self.traced else (self.program.platform, donate)
        return compiled.recent(
            call,
            (function, program, platform),
            (score, table, self.key, self.first, more),
            carried,
            donate=donate,
            compiler_options=static.compiler_options(platform),
        )

    def own(self, out, axis=0):
        """The result in the shape of the caller's particles, without those that `spread` added."""
        if out.shape[axis] != self.n:
            whole = placed(out, self.program.mesh, PartitionSpec(), self.traced)  # uneven numbers cannot stay spread
            out = jax.lax.slice_in_dim(whole, 0, self.n, axis=axis)
        return events.reshaped(out, (*out.shape[:-1], *self.event), donate=not self.traced)

    def denoising(self):
        """Program and table of the denoising step at the grid's last time: a DDIM step to time 0."""
        if self.kernel.own_clock:
            raise ValueError(
                f"denoise=True needs a kernel whose grid is in OU time: the grid of {self.kernel.name} is its own "
                f"running time."
            )
        last = self.grid[-1:]
        if not isinstance(last, Tracer):
            check_times(self.kernel.score, last)
        step = ddim(self.kernel.score)
        program = self.program._replace(init=step.init, step=step.step, position=step.position, noises=0, evals=1)
        return program, self.columns(step.coefficients(namespace(last).concatenate([last, 0 * last])))

    def columns(self, coefficients):
        """The table of steps in the dtype of the computation."""
        # The columns must be arrays: some GPU compilers fold a constant step size wrongly (jax-ml/jax 36958, 39336).
        table = jax.tree.map(lambda column: _rounded(column, noise.computed_in(self.x.dtype)), coefficients)
        return jax.tree.map(jnp.asarray, table) if self.traced else table

    def watched(self, donate, last=None):
        """Run as `sample` does, in blocks of about REFRESH seconds, and move a bar after each.

        A block is a number of iterations of the scan, each with `layout.unroll` steps.

        last: program and table of the denoising step, or None.
        """
        state, n_steps = self.kernel.init(self.x.astype(self.program.dtype)), len(self.grid) - 1
        state = jax.tree.map(jnp.copy, state)  # every leaf is donated, and two leaves may be the same array
        if donate:
            self.x.delete()
        score = score_calls.with_casts(self.kernel.score, self.x.shape, self.program.stored)
        layout = score_calls.layout_of(self.program, score, n_steps, self.x.shape)
        bodies, done, block = n_steps // layout.unroll, 0, 1
        with counter(n_steps, self.kernel.name) as moved:
            while done < bodies:
                block = min(block, bodies - done)
                began = time.perf_counter()
                span = np.int32(done), np.int32(done + block)
                state = jax.block_until_ready(self(run_iterations, self.table, state, span, donate=True))
                moved(block * layout.unroll)
                done, took = done + block, time.perf_counter() - began
                block = max(1, round(block * min(REFRESH / took, GROWTH)))
            state = jax.block_until_ready(self(run_remaining, self.table, state, donate=True))
            moved(n_steps - bodies * layout.unroll)
        x = self.kernel.position(state)
        if last is not None:
            x = self.called(run, last[0], self.kernel.score, last[1], x)
        return self.own(x.astype(self.program.stored))


def _rounded(column, dtype):
    """A column of the table in a dtype. NumPy converts its own arrays: JAX would compile a program for every length."""
    if not isinstance(column, np.ndarray):
        return jnp.asarray(column, dtype)
    with np.errstate(over="ignore"):
        return column.astype(dtype)


def _at_top_level():
    state = functools.partial(get_opaque_trace_state, convention="jaxdiff")
    with eval_context():
        top = state()
    return state() == top
