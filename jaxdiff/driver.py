"""The compiled program: particles down a table of steps, on one device or many.

From the outside in: devices, each with its share of the particles; chunks, each down the whole grid while it is in
cache; bodies of the scan, two steps of which share one call of the cipher; steps.

Particles of 16 bits are widened to float32 where they enter a chunk and rounded where they leave it. The steps between
are those of a float32 run: 2,000 small updates of a bfloat16 would all round to nothing.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import PartitionSpec
from jax.tree_util import Partial

from jaxdiff import noise, positions, programs, schedule
from jaxdiff.types import check_agrees, value_of


class Program(NamedTuple):
    """All that is static: runs with equal programs, shapes and trees share a compilation.

    init, step, position, noises: the kernel's. source: "counter" or "jax". chunk: particles at a time, None chooses.
    mesh, axes: what the particles are spread over, None and () for one device. platform: "cpu", "gpu" or "tpu".
    stored: dtype of the particles that come in and go out; a run computes in noise.computed_in(stored).
    """

    init: Callable
    step: Callable
    position: Callable
    noises: int
    source: str
    chunk: int | None
    mesh: jax.sharding.Mesh | None
    axes: tuple[str, ...]
    platform: str
    stored: jnp.dtype

    @property
    def dtype(self):
        """What the steps compute in."""
        return noise.computed_in(self.stored)

    @property
    def shares(self):
        """Devices that the particles are spread over."""
        return 1 if self.mesh is None else math.prod(self.mesh.shape[axis] for axis in self.axes)


def compiler_options(platform):
    """For the outermost jit: unless told otherwise XLA uses half of a 512-bit vector unit, where there is one."""
    return {"xla_cpu_prefer_vector_width": 512} if platform == "cpu" else None


def ran(static, arguments, carried):
    """What one of the functions below returns, for `programs.Recent`: carried is what may be donated."""
    function, program, _ = static
    score, table, key, first, more = arguments
    return function(program, score, table, carried, key, first, *more)


def run(program, score, table, x, key, first):
    """Positions (n, d) after all steps; `first`, two uint32 words (high, low), is the index of the first particle."""

    def walk(descent, x):
        return program.position(descent.rest(descent.bodies(program.init(x.astype(program.dtype))))).astype(x.dtype)

    return _spread(program, walk, score, table, x, key, first)


def run_in_turn(programs, scores, tables, x, key, first):
    """Positions (n, d) after all steps of every program in order; program i draws from fold_in(key, i).

    Between two programs the particles stay in the dtype that is computed in.
    """
    stored, x = x.dtype, x.astype(programs[0].dtype)
    for i, (program, score, table) in enumerate(zip(programs, scores, tables, strict=True)):
        x = run(program, score, table, x, jax.random.fold_in(key, i), first)
    return x.astype(stored)


def run_stages(programs, score, tables, x, key, first):
    """Positions (n, d) after all steps of every program in order, of one score and one stream of noise.

    Between two programs the particles stay in the dtype that is computed in.
    """
    stored, x = x.dtype, x.astype(programs[0].dtype)
    for program, table in zip(programs, tables, strict=True):
        x = run(program, score, table, x, key, first)
    return x.astype(stored)


def run_bodies(program, score, table, state, key, first, span):
    """The state after bodies span[0], ..., span[1] - 1 of the scan: a traced range, for a bar between blocks."""

    def walk(descent, state):
        return descent.bodies(state, span)

    return _spread(program, walk, score, table, state, key, first)


def run_rest(program, score, table, state, key, first):
    """The state after the steps that fill no body, the last of the table."""

    def walk(descent, state):
        return descent.rest(state)

    return _spread(program, walk, score, table, state, key, first)


def run_saving(program, score, table, saved, key, first):
    """saved (m, n, d) after all steps of a table (kernel's table, rows): they start at saved[0].

    Step k writes where it comes to into saved[rows[k]]; rows never decrease, so that a row keeps what was last written.
    """

    def step(score, carried, row, z):
        state, saved = carried
        state = program.step(score, state, row[0], z)
        reached = program.position(state).astype(saved.dtype)
        return state, lax.dynamic_update_index_in_dim(saved, reached, row[1], 1)

    def walk(descent, saved):
        saved = jnp.moveaxis(saved, 0, 1)  # particles in front, as in every state
        _, saved = descent.rest(descent.bodies((program.init(saved[:, 0].astype(program.dtype)), saved)))
        return jnp.moveaxis(saved, 1, 0)

    return _spread(program._replace(step=step), walk, score, table, saved, key, first, axis=1)


_traces = programs.Recent(4 * programs.MOST)  # a score is traced with up to four numbers of particles


def _value(static, arguments, donated):
    return value_of(*arguments)


def _called(score, x, t):
    """A score, traced once however often it is called in a program."""
    return _traces(_value, None, (score, x, t))


def _opened(score):
    """The score as a function of its arrays, x and t, made anew so that JAX keeps no trace of it; and the arrays."""
    leaves, tree = jax.tree.flatten(score)
    return lambda leaves, x, t: _called(jax.tree.unflatten(tree, leaves), x, t), leaves


def _shape(score, x, t):
    """Shape and dtype of the score at such x and t."""
    function, arrays = _opened(score)
    return jax.eval_shape(function, arrays, x, t)


@dataclasses.dataclass(frozen=True)
class Asked:
    """How a run that computes in float32 asks the score of particles stored in 16 bits.

    seen: dtype in which the score gets x. stored: a dtype that the score may return besides that of the run.
    """

    seen: jnp.dtype
    stored: jnp.dtype

    def __call__(self, score, x, t):
        """The score at x, in the dtype of the run."""
        out = score(x.astype(self.seen), t)
        return out.astype(x.dtype) if out.dtype == self.stored else out


def asked(score, shape, stored):
    """The score as a run asks it: as it is, or as Asked where particles of shape (n, d) are stored in 16 bits.

    It gets float32 x and t. A model that JAX cannot evaluate at a float32 x (TypeError: its convolutions hold bfloat16
    weights, say) gets x in the dtype of storage.
    """
    computed = noise.computed_in(stored)
    if stored == computed:
        return score
    at = jax.ShapeDtypeStruct(shape, computed), jax.ShapeDtypeStruct((), computed)
    wide, narrow = (Partial(Asked(seen, stored), score) for seen in (computed, stored))
    try:
        _shape(wide, *at)
    except TypeError as refused:
        try:
            _shape(narrow, *at)
        except TypeError:
            raise refused from None
        return narrow
    return wide


def plan_of(program, score, n_steps, shape):
    """The schedule of a run of (n, d) particles on one device, of a score as `asked` returns it.

    Runs while tracing, once a compilation. A chunk is chosen only if the score also takes that many particles, and does
    not look at where a particle stands among them: one that carries something for every particle is given them all.

    Raises:
      ValueError: the score does not keep x's shape and dtype, or depends on where a particle stands among the others
        while the particles are to be cut into chunks or spread over devices.
    """
    n = shape[0]
    function, arrays = _opened(score)
    traced = lambda n: jax.make_jaxpr(function, return_shape=True)(
        arrays, jax.ShapeDtypeStruct((n, *shape[1:]), program.dtype), jax.ShapeDtypeStruct((), program.dtype)
    )
    jaxpr, given = traced(n)
    check_agrees(given, shape, program.dtype)

    mark, chunk = schedule.mark_beside(jaxpr.jaxpr), program.chunk
    marked, by_row = _read(traced, mark)
    if marked is None:
        chunk = chunk or n
        # What does not fit may be a table of few rows, cut by NumPy.
        others = schedule.small_mark_beside(jaxpr.jaxpr, n), schedule.round_mark_beside(jaxpr.jaxpr)
        by_row = _is_cut(program, n) and any(_read(traced, other)[1] for other in others if other is not None)
    elif by_row:
        # lax.map in batches joins their rows to those of a rest, as a score may join two halves of the rows that it
        # treats in two ways. A round number of particles leaves no rest.
        by_row = _read(traced, schedule.round_mark_beside(jaxpr.jaxpr))[1] is not False
    if by_row:
        chunk = _all_at_once(program, n)
    jaxpr, n = (jaxpr, n) if marked is None else (marked, mark)
    found = schedule.traits(jaxpr.jaxpr, n)
    return schedule.choose(found, shape, n_steps, program.noises, chunk=chunk, platform=program.platform)


def _read(traced, mark):
    """The score's jaxpr for so many particles, and whether rows matter in it; (None, None) if it does not take them."""
    try:
        jaxpr, given = traced(mark)
    except Exception:  # shapes do not fit; what else is wrong was raised with the run's own number of particles
        return None, None
    return (jaxpr, positions.matter(jaxpr, mark)) if given.shape[:1] == (mark,) else (None, None)


def _is_cut(program, n):
    """Are there other particles than these n, or are these cut into chunks?"""
    return program.shares > 1 or (program.chunk or n) < n


def _all_at_once(program, n):
    """n, the chunk of a score that depends on where a particle stands; ValueError if the particles are cut up."""
    if _is_cut(program, n):
        cut = f"across {program.shares} devices" if program.shares > 1 else f"into chunks of {program.chunk}"
        raise ValueError(
            f"the score of a particle depends on its row in x (through jnp.arange(len(x)), a slice up to len(x) or "
            f"random numbers of x.shape), but the particles are cut {cut}, in which they have other rows. Run all of "
            f"them at once on one device, with chunk=None. A condition for each particle is an array of len(x) rows in "
            f"the score, as in jax.tree_util.Partial(lambda condition, x, t: ..., condition)."
        )
    return n


def _spread(program, walk, score, table, carried, key, first, axis=0):
    """Walk over the particles of `carried`, which lie along an axis of its leaves, on all devices of the mesh."""
    if program.mesh is None:
        return _in_chunks(program, walk, score, table, carried, key, first, axis)
    spec = PartitionSpec(*[None] * axis, program.axes)

    def mine(score, table, carried, key, first):
        share = jax.tree.leaves(carried)[0].shape[axis]
        begin = _advance(first, lax.axis_index(program.axes).astype(jnp.uint32) * jnp.uint32(share))
        return _in_chunks(program, walk, score, table, carried, key, begin, axis)

    everywhere = PartitionSpec()
    return jax.shard_map(
        mine,
        mesh=program.mesh,
        in_specs=(everywhere, everywhere, spec, everywhere, everywhere),
        out_specs=spec,
        check_vma=False,
    )(score, table, carried, key, first)


def _in_chunks(program, walk, score, table, carried, key, first, axis):
    """Walk chunk by chunk, in place: what is carried is overwritten by what comes out, of the same shapes.

    The last chunk ends with the last particle and may overlap its neighbour: its part is read before all others.
    """
    x = jax.tree.leaves(carried)[0]
    n, dim = x.shape[axis], x.shape[-1]
    score = asked(score, (n, dim), program.stored)
    plan = plan_of(program, score, len(jax.tree.leaves(table)[0]), (n, dim))

    def alone(part, start):
        keys = _keys(program, key, _advance(first, start), plan.chunk)
        return walk(Descent(program, plan, score, table, keys, dim), part)

    if plan.chunk >= n:
        return alone(carried, jnp.uint32(0))
    chunks, last = -(-n // plan.chunk), n - plan.chunk
    cut = lambda leaf, start: lax.dynamic_slice_in_dim(leaf, start, plan.chunk, axis)
    tail = jax.tree.map(lambda leaf: cut(leaf, last), carried)

    def body(carried, i):
        start = jnp.minimum(i * plan.chunk, last)
        part = jax.tree.map(lambda leaf, end: jnp.where(i == chunks - 1, end, cut(leaf, start)), carried, tail)
        # For the gradient a chunk keeps where it starts and is walked again.
        out = jax.checkpoint(alone, prevent_cse=False)(part, start.astype(jnp.uint32))
        put = lambda leaf, new: lax.dynamic_update_slice_in_dim(leaf, new, start, axis)
        return jax.tree.map(put, carried, out), None

    return lax.scan(body, carried, jnp.arange(chunks, dtype=jnp.int32))[0]


def _advance(words, count):
    """A 64-bit index, two uint32 words (high, low), plus a uint32."""
    low = words[1] + count
    return words[0] + (low < count).astype(jnp.uint32), low


def _keys(program, key, first, n):
    """What the noise of n particles is made from: two words each, or a JAX key each."""
    particle = _advance(first, lax.iota(jnp.uint32, n))
    if program.noises == 0:
        return None
    if program.source == "counter":
        return noise.particle_keys(key, particle)
    return jax.vmap(lambda high, low: jax.random.fold_in(jax.random.fold_in(key, high), low))(*particle)


class Descent(NamedTuple):
    """The steps of a chunk of particles: bodies of plan.unroll steps, and a rest shorter than one."""

    program: Program
    plan: schedule.Schedule
    score: Callable
    table: NamedTuple
    keys: Any
    dim: int

    @property
    def n_steps(self):
        """Rows of the table."""
        return len(jax.tree.leaves(self.table)[0])

    def bodies(self, state, span=None):
        """The state after all bodies, or after those of a traced range."""
        # For the gradient one state a body is kept; its noise and scores are computed again.
        body = jax.checkpoint(lambda b, state: jax.tree.map(_laid_out, self._body(b * self.plan.unroll, state)))
        if span is not None:
            return self._back(lax.fori_loop(span[0], span[1], body, self._turn(state)))
        along = jnp.arange(self.n_steps // self.plan.unroll, dtype=jnp.int32)
        return self._back(lax.scan(lambda state, b: (body(b, state), None), self._turn(state), along)[0])

    def rest(self, state):
        """The state after the last n_steps mod unroll steps."""
        left = self.n_steps % self.plan.unroll
        if left == 0:
            return state
        steps = lambda state: self._written_out(jnp.int32(self.n_steps - left), left, state)
        # A loop, the second turn of which is empty: outside of one XLA fuses the steps into the copy of their result.
        turn = lambda state, i: (lax.cond(i == 0, steps, lambda state: state, state), None)
        return self._back(lax.scan(turn, self._turn(state), jnp.arange(2))[0])

    def _body(self, first, state):
        """plan.unroll steps from a traced one on, a multiple of unroll."""
        if self.plan.fused or self.plan.unroll == 1:
            return self._written_out(first, self.plan.unroll, state)
        # XLA on CPU has no fusion with two outputs, and recomputes what is made from counters wherever it is used. So
        # two increments are made as one complex array, which steps in an inner loop see from two sides.
        pair = lax.complex(*self._pair(first.astype(jnp.uint32) >> jnp.uint32(1)))

        def step(state, side):
            i, phase = side
            return self._step(first + i, jnp.real(pair * phase), state), None

        sides = jnp.arange(2, dtype=jnp.int32), jnp.asarray([1, -1j], pair.dtype)
        return lax.scan(step, state, sides)[0]

    def _written_out(self, first, count, state):
        """`count` steps from a traced one on, a multiple of unroll."""
        for i, z in enumerate(self._increments(first.astype(jnp.uint32), count)):
            state = self._step(first + i, z, state)
        return state

    def _step(self, k, z, state):
        """Step k with increments z, both with particles where the plan has them."""
        row = jax.tree.map(lambda column: lax.dynamic_index_in_dim(column, k, keepdims=False), self.table)
        if z is not None:
            z = self._back(z.astype(self.program.dtype), axis=z.ndim - 2)
        return self._turn(self.program.step(Partial(_called, self.score), self._back(state), row, z))

    def _turn(self, state):
        """Particles onto the last axis, the fast one, if the plan says so."""
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), state) if self.plan.particles_last else state

    def _back(self, state, axis=0):
        """Particles in front, as kernels see them."""
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, axis), state) if self.plan.particles_last else state

    def _increments(self, first, count):
        """The noise of each of `count` steps: None, one array, or the step's arrays in front."""
        noises = self.program.noises
        if noises == 0:
            return [None] * count
        draws = self._draws(first * jnp.uint32(noises), count * noises)
        return [draws[i] if noises == 1 else jnp.stack(draws[i : i + noises]) for i in range(0, len(draws), noises)]

    def _draws(self, first, count):
        """Consecutive increments from a traced one on."""
        if self.plan.unroll * self.program.noises % 2 == 0:  # so that the first of them is even
            block = first >> jnp.uint32(1)
            return [z for i in range(-(-count // 2)) for z in self._pair(block + jnp.uint32(i))][:count]
        which = [first + jnp.uint32(m) for m in range(count)]
        pairs = [self._pair(m >> jnp.uint32(1)) for m in which]
        return [jnp.where(m & jnp.uint32(1) == 1, b, a) for m, (a, b) in zip(which, pairs, strict=True)]

    def _pair(self, block):
        """Increments 2 block and 2 block + 1 of every particle, with particles where the plan has them."""
        computed = self.program.dtype
        if self.program.source == "jax":
            draw = lambda key, m: jax.random.normal(jax.random.fold_in(key, m), (self.dim,), computed)
            return [self._turn(jax.vmap(draw, (0, None))(self.keys, 2 * block + jnp.uint32(i))) for i in range(2)]
        last, coordinate = self.plan.particles_last, lax.iota(jnp.uint32, self.dim)
        keys = tuple(word[None] if last else word[:, None] for word in self.keys)
        return noise.pair(keys, block, coordinate[:, None] if last else coordinate, computed)


def _laid_out(x):
    """x with its last axis the fast one; left alone, XLA may lay an array out for what reads it."""
    constrained = lambda x: with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))
    return lax.platform_dependent(x, cpu=constrained, default=lambda x: x)
