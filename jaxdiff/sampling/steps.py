"""The loop over the steps of a chunk of particles."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.tree_util import Partial

from jaxdiff import noise
from jaxdiff.sampling import layout
from jaxdiff.sampling.score_calls import called
from jaxdiff.sampling.static import Program


class Descent(NamedTuple):
    """The steps of a chunk of particles: bodies of plan.unroll steps, and a rest shorter than one."""

    program: Program
    plan: layout.Schedule
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
        return self._turn(self.program.step(Partial(called, self.score), self._back(state), row, z))

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
