"""The compiled program of a run: particles move through the steps of a table, on one device or on many.

The particles are divided twice. Each device of the mesh takes an equal part, and on a device each chunk runs down the
whole grid while it fits into the cache.

Particles of 16 bits are widened to float32 where they enter a chunk and rounded where they leave it, so the steps are
those of a float32 run: most of 2,000 small updates would round to nothing in bfloat16.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxdiff import noise
from jaxdiff.conditions import by_particle, with_conditions
from jaxdiff.sampling.score_calls import layout_of, with_casts
from jaxdiff.sampling.steps import ChunkSteps


def call(static, arguments, carried):
    """Call one of the functions below, in the form that `compiled.Recent` asks for; `carried` may be donated."""
    function, program, _ = static
    score, table, key, first, more = arguments
    return function(program, score, table, carried, key, first, *more)


def run(program, score, table, x, key, first):
    """Positions (n, d) after all steps; `first`, two uint32 words (high, low), is the index of the first particle."""

    def run_chunk(steps, x):
        state = steps.remaining(steps.iterations(program.init(x.astype(program.dtype))))
        return program.position(state).astype(x.dtype)

    return _on_devices(program, run_chunk, score, table, x, key, first)


def run_in_turn(programs, scores, tables, x, key, first):
    """Positions (n, d) after all steps of every program in order; program i draws from fold_in(key, i).

    Between two programs the particles keep the dtype of the computation.
    """
    stored, x = x.dtype, x.astype(programs[0].dtype)
    for i, (program, score, table) in enumerate(zip(programs, scores, tables, strict=True)):
        x = run(program, score, table, x, jax.random.fold_in(key, i), first)
    return x.astype(stored)


def run_stages(programs, score, tables, x, key, first):
    """Positions (n, d) after all steps of every program in order; all programs have one score and one key.

    Between two programs the particles keep the dtype of the computation.
    """
    stored, x = x.dtype, x.astype(programs[0].dtype)
    for program, table in zip(programs, tables, strict=True):
        x = run(program, score, table, x, key, first)
    return x.astype(stored)


def run_iterations(program, score, table, state, key, first, span):
    """The state after iterations span[0], ..., span[1] - 1 of the scan; span is traced, so a bar can move between."""

    def run_chunk(steps, state):
        return steps.iterations(state, span)

    return _on_devices(program, run_chunk, score, table, state, key, first)


def run_remaining(program, score, table, state, key, first):
    """The state after the last steps of the table, too few for an iteration of the scan."""

    def run_chunk(steps, state):
        return steps.remaining(state)

    return _on_devices(program, run_chunk, score, table, state, key, first)


def run_saving(program, score, table, saved, key, first):
    """saved (m, n, d), filled with positions along the path; the particles start at saved[0].

    table: (the kernel's table, rows). Step k writes its positions into saved[rows[k]]. The rows never decrease, so each
    row keeps the positions that were written last.
    """

    def step(score, carried, row, z):
        state, saved = carried
        state = program.step(score, state, row[0], z)
        x = program.position(state).astype(saved.dtype)
        return state, lax.dynamic_update_index_in_dim(saved, x, row[1], 1)

    def run_chunk(steps, saved):
        saved = jnp.moveaxis(saved, 0, 1)  # particles in front, as in every state
        start = program.init(saved[:, 0].astype(program.dtype))
        _, saved = steps.remaining(steps.iterations((start, saved)))
        return jnp.moveaxis(saved, 1, 0)

    return _on_devices(program._replace(step=step), run_chunk, score, table, saved, key, first, axis=1)


def _on_devices(program, run_chunk, score, table, carried, key, first, axis=0):
    """Run all chunks on all devices of the mesh.

    Args:
      run_chunk: (ChunkSteps, the chunk's part of `carried`) -> its new value, of the same shapes.
      carried: a pytree; the particles lie along `axis` of its leaves.
    """
    if program.mesh is None:
        return _in_chunks(program, run_chunk, score, table, carried, key, first, axis)
    spec = PartitionSpec(*[None] * axis, program.axes)
    leaves, tree = jax.tree.flatten(score)

    def on_one_device(leaves, table, carried, key, first):
        n = jax.tree.leaves(carried)[0].shape[axis]
        begin = _advanced(first, lax.axis_index(program.axes).astype(jnp.uint32) * jnp.uint32(n))
        return _in_chunks(program, run_chunk, jax.tree.unflatten(tree, leaves), table, carried, key, begin, axis)

    replicated = PartitionSpec()
    of_score = [PartitionSpec(program.axes) if own else replicated for own in by_particle(score)]
    return jax.shard_map(
        on_one_device,
        mesh=program.mesh,
        in_specs=(of_score, replicated, spec, replicated, replicated),
        out_specs=spec,
        check_vma=False,
    )(leaves, table, carried, key, first)


def _in_chunks(program, run_chunk, score, table, carried, key, first, axis):
    """Run chunk by chunk on one device, in place: each chunk's result overwrites its input.

    The last chunk ends with the last particle, so it may overlap the chunk before it. Its input is therefore read
    before any chunk runs.
    """
    x = jax.tree.leaves(carried)[0]
    n, dim = x.shape[axis], x.shape[-1]
    score = with_casts(score, (n, dim), program.stored)
    layout = layout_of(program, score, len(jax.tree.leaves(table)[0]), (n, dim))

    def chunk_from(part, start):
        keys = _keys(program, key, _advanced(first, start), layout.chunk)
        own = with_conditions(score, lambda leaf: lax.dynamic_slice_in_dim(leaf, start, layout.chunk, 0))
        return run_chunk(ChunkSteps(program, layout, own, table, keys, dim), part)

    if layout.chunk >= n:
        return chunk_from(carried, jnp.uint32(0))
    chunks, last = -(-n // layout.chunk), n - layout.chunk
    cut = lambda leaf, start: lax.dynamic_slice_in_dim(leaf, start, layout.chunk, axis)
    tail = jax.tree.map(lambda leaf: cut(leaf, last), carried)

    def body(carried, i):
        start = jnp.minimum(i * layout.chunk, last)
        part = jax.tree.map(lambda leaf, end: jnp.where(i == chunks - 1, end, cut(leaf, start)), carried, tail)
        # Reverse mode stores only the input of each chunk and runs the chunk again.
        out = jax.checkpoint(chunk_from, prevent_cse=False)(part, start.astype(jnp.uint32))
        put = lambda leaf, new: lax.dynamic_update_slice_in_dim(leaf, new, start, axis)
        return jax.tree.map(put, carried, out), None

    return lax.scan(body, carried, jnp.arange(chunks, dtype=jnp.int32))[0]


def _advanced(words, count):
    """A 64-bit index, two uint32 words (high, low), plus a uint32."""
    low = words[1] + count
    return words[0] + (low < count).astype(jnp.uint32), low


def _keys(program, key, first, n):
    """The keys of the noise of n particles: two cipher words each, or one JAX key each."""
    particle = _advanced(first, lax.iota(jnp.uint32, n))
    if program.noises == 0:
        return None
    if program.source == "counter":
        return noise.particle_keys(key, particle)
    return jax.vmap(lambda high, low: jax.random.fold_in(jax.random.fold_in(key, high), low))(*particle)
