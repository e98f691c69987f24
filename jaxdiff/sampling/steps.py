"""The loop over the steps of a chunk of particles."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout as ArrayLayout
from jax.experimental.layout import with_layout_constraint
from jax.tree_util import Partial

from jaxdiff import noise
from jaxdiff.sampling.layout import Layout
from jaxdiff.sampling.score_calls import evaluate
from jaxdiff.sampling.static import Program


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
        one = jax.checkpoint(lambda i, state: jax.tree.map(_last_axis_fastest, self._iteration(i, state)))
        if span is not None:
            return self._for_kernel(lax.fori_loop(span[0], span[1], one, self._for_loop(state)))
        indices = jnp.arange(self.n_steps // self.layout.unroll, dtype=jnp.int32)
        return self._for_kernel(lax.scan(lambda state, i: (one(i, state), None), self._for_loop(state), indices)[0])

    def remaining(self, state):
        """The state after the last n_steps mod unroll steps."""
        count = self.n_steps % self.layout.unroll
        if count == 0:
            return state
        steps = lambda state: self._unrolled(jnp.int32(self.n_steps - count), count, state)
        # A scan of two iterations, the second of which does nothing: without a loop XLA fuses the steps into the copy
        # of the output and does not vectorise them.
        body = lambda state, i: (lax.cond(i == 0, steps, lambda state: state, state), None)
        return self._for_kernel(lax.scan(body, self._for_loop(state), jnp.arange(2))[0])

    def _iteration(self, i, state):
        """Iteration i: layout.unroll steps."""
        first = i * self.layout.unroll
        if self.layout.fused or self.layout.unroll == 1:
            return self._unrolled(first, self.layout.unroll, state)
        # Two steps share one pair of increments. XLA on CPU cannot fuse a computation with two outputs; it would run
        # the cipher once for each step. So the pair is stored as one complex array, and an inner loop of two steps
        # takes its real part first and its imaginary part second.
        pair = lax.complex(*self._pair(first.astype(jnp.uint32) >> jnp.uint32(1)))

        def step(state, of_pair):
            i, phase = of_pair
            return self._step(first + i, jnp.real(pair * phase), state), None

        of_pair = jnp.arange(2, dtype=jnp.int32), jnp.asarray([1, -1j], pair.dtype)
        return lax.scan(step, state, of_pair)[0]

    def _unrolled(self, first, count, state):
        """`count` steps, written out one after the other; `first` is traced and a multiple of unroll."""
        for i, z in enumerate(self._increments(first.astype(jnp.uint32), count)):
            state = self._step(first + i, z, state)
        return state

    def _step(self, k, z, state):
        """Step k with increments z; the particles of both lie along the axis that the layout chose."""
        row = jax.tree.map(lambda column: lax.dynamic_index_in_dim(column, k, keepdims=False), self.table)
        if z is not None:
            z = self._for_kernel(z.astype(self.program.dtype), axis=z.ndim - 2)
        return self._for_loop(self.program.step(Partial(evaluate, self.score), self._for_kernel(state), row, z))

    def _for_loop(self, state):
        """A state of the kernel as the loop carries it: particles on the last axis if the layout says so."""
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), state) if self.layout.particles_last else state

    def _for_kernel(self, state, axis=0):
        """A state of the loop as kernels expect it: particles in front."""
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, axis), state) if self.layout.particles_last else state

    def _increments(self, first, count):
        """The noise of each of `count` steps: None, one array, or the step's arrays stacked in front."""
        noises = self.program.noises
        if noises == 0:
            return [None] * count
        draws = self._draws(first * jnp.uint32(noises), count * noises)
        return [draws[i] if noises == 1 else jnp.stack(draws[i : i + noises]) for i in range(0, len(draws), noises)]

    def _draws(self, first, count):
        """`count` consecutive increments, from the traced index `first` on."""
        if self.layout.unroll * self.program.noises % 2 == 0:  # then `first` is even, and pairs are used whole
            block = first >> jnp.uint32(1)
            return [z for i in range(-(-count // 2)) for z in self._pair(block + jnp.uint32(i))][:count]
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
