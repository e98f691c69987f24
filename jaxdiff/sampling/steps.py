"""The loop over the steps of a chunk of particles."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout as ArrayLayout
from jax.experimental.layout import with_layout_constraint
from jax.tree_util import Partial

from jaxdiff import noise
from jaxdiff.sampling.layout import Layout
from jaxdiff.sampling.rings import no_rings, rings_of
from jaxdiff.sampling.score_calls import evaluate
from jaxdiff.sampling.static import Program
from jaxdiff.sampling.storing import StoredScore, stored


class ChunkSteps(NamedTuple):
    """All steps of a chunk of particles: iterations of layout.unroll steps each, then the remaining steps.

    keys: those of the particles' noise. dim: d.
    """

    program: Program
    layout: Layout
    score: Callable
    table: NamedTuple
    keys: Any
    dim: int

    @property
    def n_steps(self):
        """Rows of the table."""
        return len(jax.tree.leaves(self.table)[0])

    def iterations(self, state, span=None):
        """The state after all iterations, or after iterations span[0], ..., span[1] - 1 of a traced span."""
        # Reverse mode stores one state an iteration and computes its noise and scores again.
        rings = self._rings(state)
        one = jax.checkpoint(lambda i, carried: jax.tree.map(_last_axis_fastest, self._iteration(i, carried, rings)))
        count = self.n_steps // self.layout.unroll
        first, last = (np.int32(0), np.int32(count)) if span is None else span
        carried = rings.packed(self._for_loop(state), first * self.layout.unroll)
        if span is not None:
            carried = lax.fori_loop(first, last, one, carried)
        else:
            indices = jnp.arange(count, dtype=jnp.int32)
            carried = lax.scan(lambda carried, i: (one(i, carried), None), carried, indices)[0]
        return self._for_kernel(rings.state(carried, last * self.layout.unroll))

    def remaining(self, state):
        """The state after the last n_steps mod unroll steps."""
        count = self.n_steps % self.layout.unroll
        if count == 0:
            return state
        rings, first = self._rings(state), np.int32(self.n_steps - count)
        steps = lambda carried: self._unrolled(jnp.int32(first), count, carried, rings)
        # A scan of two iterations, the second of which does nothing: without a loop XLA fuses the steps into the copy
        # of the output and does not vectorise them.
        body = lambda carried, i: (lax.cond(i == 0, steps, lambda carried: carried, carried), None)
        carried = lax.scan(body, rings.packed(self._for_loop(state), first), jnp.arange(2))[0]
        return self._for_kernel(rings.state(carried, np.int32(self.n_steps)))

    def _rings(self, state):
        """Which leaves of the state move on from step to step, where the loop carries them in rings."""
        if not self.layout.stored:
            return no_rings(state)
        shaped = lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype)
        row = jax.tree.map(lambda column: jax.ShapeDtypeStruct(column.shape[1:], column.dtype), self.table)
        noises, n = self.program.noises, len(jax.tree.leaves(state)[0])
        z = None if noises == 0 else jax.ShapeDtypeStruct((noises,) * (noises > 1) + (n, self.dim), self.program.dtype)
        return rings_of(self.program.step, jax.tree.map(shaped, state), row, z)

    def _iteration(self, i, carried, rings):
        """Iteration i: layout.unroll steps."""
        first = i * self.layout.unroll
        if self.layout.fused or self.layout.unroll == 1:
            return self._unrolled(first, self.layout.unroll, carried, rings)
        # Two steps share one pair of increments. XLA on CPU cannot fuse a computation with two outputs; it would run
        # the cipher once for each step. So the pair is stored as one complex array, and an inner loop of two steps
        # takes its real part first and its imaginary part second.
        pair = lax.complex(*self._pair(first.astype(jnp.uint32) >> jnp.uint32(1)))

        def step(carried, of_pair):
            i, phase = of_pair
            return self._step(first + i, [jnp.real(pair * phase)], carried, rings), None

        of_pair = jnp.arange(2, dtype=jnp.int32), jnp.asarray([1, -1j], pair.dtype)
        return lax.scan(step, carried, of_pair)[0]

    def _unrolled(self, first, count, carried, rings):
        """`count` steps, written out one after the other; `first` is traced and a multiple of unroll."""
        for i, draws in enumerate(self._increments(first.astype(jnp.uint32), count)):
            carried = self._step(first + i, draws, carried, rings)
        return carried

    def _step(self, k, draws, carried, rings):
        """Step k with its increments; the particles of all arrays lie along the axis that the layout chose."""
        state, never = self._for_kernel(rings.state(carried, k)), (k < 0).astype(jnp.int32)
        row = jax.tree.map(lambda column: lax.dynamic_index_in_dim(column, k, keepdims=False), self.table)
        draws = [self._for_kernel(draw.astype(self.program.dtype)) for draw in draws]
        z = None if not draws else draws[0] if len(draws) == 1 else jnp.stack(draws)
        score = Partial(evaluate, self.score)
        if self.layout.stored:
            keep = lambda x: self._for_kernel(stored(self._for_loop(x), never))
            score = StoredScore(score, keep, jax.tree.leaves(state), self.program.evals > 1)
        new = rings.new_leaves(self._for_loop(self.program.step(score, state, row, z)))
        if self.layout.stored and rings.tree.num_leaves > 1:
            new = stored(new, never)
        return rings.moved(carried, new, k)

    def _for_loop(self, state):
        """A state of the kernel as the loop carries it: particles on the last axis if the layout says so."""
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), state) if self.layout.particles_last else state

    def _for_kernel(self, state):
        """A state of the loop as kernels expect it: particles in front."""
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), state) if self.layout.particles_last else state

    def _increments(self, first, count):
        """The increments of each of `count` steps, a list of arrays."""
        noises = self.program.noises
        draws = self._draws(first * jnp.uint32(noises), count * noises) if noises else []
        return [draws[i * noises : (i + 1) * noises] for i in range(count)]

    def _draws(self, first, count):
        """`count` consecutive increments, from the traced index `first` on."""
        if self.layout.unroll * self.program.noises % 2 == 0:  # then `first` is even, and pairs are used whole
            block = first >> jnp.uint32(1)
            pairs = [self._pair(block + jnp.uint32(i)) for i in range(-(-count // 2))]
            if self.program.noises > 1:
                never = (first == jnp.uint32(0xFFFFFFFF)).astype(jnp.int32)
                kept = [stored(lax.complex(*pair), never) for pair in pairs]
                pairs = [(jnp.real(pair), jnp.imag(pair)) for pair in kept]
            return [z for pair in pairs for z in pair][:count]
        which = [first + jnp.uint32(m) for m in range(count)]
        pairs = [self._pair(m >> jnp.uint32(1)) for m in which]
        return [jnp.where(m & jnp.uint32(1) == 1, b, a) for m, (a, b) in zip(which, pairs, strict=True)]

    def _pair(self, block):
        """Increments 2 block and 2 block + 1 of every particle, in the layout of the loop."""
        computed = self.program.dtype
        if self.program.source == "jax":
            draw = lambda key, m: jax.random.normal(jax.random.fold_in(key, m), (self.dim,), computed)
            return [self._for_loop(jax.vmap(draw, (0, None))(self.keys, 2 * block + jnp.uint32(i))) for i in range(2)]
        last, coordinate = self.layout.particles_last, lax.iota(jnp.uint32, self.dim)
        keys = tuple(word[None] if last else word[:, None] for word in self.keys)
        return noise.pair(keys, block, coordinate[:, None] if last else coordinate, computed)


def _last_axis_fastest(x):
    """x, stored on a CPU with its last axis contiguous; XLA might otherwise choose the order that suits its reader."""
    constrained = lambda x: with_layout_constraint(x, ArrayLayout(major_to_minor=tuple(range(x.ndim))))
    return lax.platform_dependent(x, cpu=constrained, default=lambda x: x)
