"""The compiled program: particles down a table of steps, on one device or many.

From the outside in: devices, each with its share of the particles; chunks, each down the whole grid while it is in
cache; bodies of the scan, two steps of which share one call of the cipher; steps.

Particles of 16 bits are widened to float32 where they enter a chunk and rounded where they leave it. The steps between
are those of a float32 run: 2,000 small updates of a bfloat16 would all round to nothing.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxdiff import noise
from jaxdiff.sampling.score_calls import asked, plan_of
from jaxdiff.sampling.steps import Descent


def ran(static, arguments, carried):
    """What one of the functions below returns, for `compiled.Recent`: carried is what may be donated."""
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
