"""The state of a kernel as the loop over steps carries it: leaves that only move on lie in rings.

A multistep kernel returns its last outputs one place further along. As leaves of a loop they would be copied in every
step. In a ring only the newest is written, over the oldest.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Rings(NamedTuple):
    """Which leaves of a state lie in rings.

    Attributes:
      tree: the structure of the state.
      chains: for each ring the numbers of its leaves, newest first: a step returns leaf chain[j] as leaf chain[j + 1].
      others: the numbers of all other leaves.
    """

    tree: Any
    chains: tuple[tuple[int, ...], ...]
    others: tuple[int, ...]

    def packed(self, state, k):
        """The carried arrays of a state before step k: (rings, other leaves)."""
        leaves = jax.tree.leaves(state)
        rings = tuple(jnp.stack([leaves[i] for i in chain]) for chain in self.chains)
        turned = tuple(jnp.roll(ring[::-1], k, axis=0) for ring in rings)
        return turned, tuple(leaves[i] for i in self.others)

    def state(self, carried, k):
        """The state before step k."""
        rings, others = carried
        leaves = dict(zip(self.others, others, strict=True))
        for chain, ring in zip(self.chains, rings, strict=True):
            for back, i in enumerate(chain):
                at = lax.rem(k + jnp.int32(2 * len(chain) - 1 - back), jnp.int32(len(chain)))
                leaves[i] = lax.dynamic_index_in_dim(ring, at, keepdims=False)
        return jax.tree.unflatten(self.tree, [leaves[i] for i in range(len(leaves))])

    def new_leaves(self, state):
        """The leaves of the state after a step that the step has computed."""
        leaves = jax.tree.leaves(state)
        return tuple(leaves[chain[0]] for chain in self.chains), tuple(leaves[i] for i in self.others)

    def moved(self, carried, new, k):
        """The carried arrays after step k, which has computed these leaves."""
        rings, _ = carried
        newest, others = new
        put = lambda ring, leaf: lax.dynamic_update_index_in_dim(ring, leaf, lax.rem(k, jnp.int32(len(ring))), 0)
        return tuple(map(put, rings, newest)), others


def rings_of(step, state, row, z):
    """The Rings of a kernel's step; all arguments as ShapeDtypeStructs.

    The step is traced with x in place of the score, as no score changes which leaves it returns unchanged.
    """
    tree = jax.tree.structure(state)

    def leaves_after(leaves, row, z):
        return jax.tree.leaves(step(lambda x, t: x, jax.tree.unflatten(tree, leaves), row, z))

    jaxpr = jax.make_jaxpr(leaves_after)(jax.tree.leaves(state), row, z).jaxpr
    number = {id(leaf): i for i, leaf in enumerate(jaxpr.invars[: tree.num_leaves])}
    came_from = {i: number[id(out)] for i, out in enumerate(jaxpr.outvars) if number.get(id(out), i) != i}
    followed = {i: j for j, i in came_from.items()}
    chains = []
    for first in followed:
        if first not in came_from:
            chain = [first]
            while chain[-1] in followed:
                chain.append(followed[chain[-1]])
            chains.append(tuple(chain))
    ringed = {i for chain in chains for i in chain}
    return Rings(tree, tuple(chains), tuple(i for i in range(tree.num_leaves) if i not in ringed))


def no_rings(state):
    """The Rings of a state whose leaves are all carried as they are."""
    leaves, tree = jax.tree.flatten(state)
    return Rings(tree, (), tuple(range(len(leaves))))
