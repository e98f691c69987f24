"""Makes XLA on a CPU write arrays to memory that it would otherwise compute again for every reader."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from jaxdiff.sampling.score_calls import evaluate


# XLA on a CPU fuses a computation into each of its readers. An optimization barrier does not prevent this, because it
# is removed before fusion. A loop is never fused. The loop below makes no iteration, which XLA cannot know, and it
# changes its arrays in place, so that it costs no copy.
@jax.custom_jvp
def _in_a_loop(x, never):
    return lax.fori_loop(jnp.int32(0), never, lambda _, x: jax.tree.map(jnp.zeros_like, x), x)


@_in_a_loop.defjvp
def _jvp(primals, tangents):
    return _in_a_loop(*primals), tangents[0]


def stored(x: Any, never: Any) -> Any:
    """The arrays x, which a CPU computes once, however many readers they have.

    never: a traced int32 that is 0. XLA must not know that.
    """
    return lax.platform_dependent(x, never, cpu=_in_a_loop, default=lambda x, never: x)


def score_of_step(score: Callable[..., Any], state: Any, evals: int, k: Any) -> "StoredScore":
    """The score for step k of a kernel with `evals` evaluations a step, in a loop that carries particles in front."""
    never = (k < 0).astype(jnp.int32)
    return StoredScore(Partial(evaluate, score), lambda x: stored(x, never), jax.tree.leaves(state), evals > 1)


class StoredScore(NamedTuple):
    """A score for the steps of a kernel that read some arrays several times.

    Attributes:
      score: s(x, t).
      keep: writes an array to memory. Kernels call it through `arrays.read_often`.
      known: the arrays of the state, which are in memory.
      stages: True where a step has several evaluations. Their values are then kept, and their arguments too.
    """

    score: Callable[..., Any]
    keep: Callable[[Any], Any]
    known: list[Any]
    stages: bool

    def __call__(self, x, t):
        """The score at x."""
        if not self.stages:
            return self.score(x, t)
        x = x if any(x is one for one in self.known) else self.keep(x)
        return self.keep(self.score(x, t))
