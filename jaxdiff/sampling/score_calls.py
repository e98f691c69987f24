"""How a run calls its score, and the layout that follows from the score."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdiff import noise
from jaxdiff.checks import check_agrees, value_of
from jaxdiff.sampling import compiled, layout, positions

_traces = compiled.Recent(4 * compiled.MOST)  # a score is traced with up to four numbers of particles


def _value(static, arguments, donated):
    return value_of(*arguments)


def called(score, x, t):
    """A score, traced once however often it is called in a program."""
    return _traces(_value, None, (score, x, t))


def _opened(score):
    """The score as a function of its arrays, x and t, made anew so that JAX keeps no trace of it; and the arrays."""
    leaves, tree = jax.tree.flatten(score)
    return lambda leaves, x, t: called(jax.tree.unflatten(tree, leaves), x, t), leaves


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

    mark, chunk = layout.mark_beside(jaxpr.jaxpr), program.chunk
    marked, by_row = _read(traced, mark)
    if marked is None:
        chunk = chunk or n
        # What does not fit may be a table of few rows, cut by NumPy.
        others = layout.small_mark_beside(jaxpr.jaxpr, n), layout.round_mark_beside(jaxpr.jaxpr)
        by_row = _is_cut(program, n) and any(_read(traced, other)[1] for other in others if other is not None)
    elif by_row:
        # lax.map in batches joins their rows to those of a rest, as a score may join two halves of the rows that it
        # treats in two ways. A round number of particles leaves no rest.
        by_row = _read(traced, layout.round_mark_beside(jaxpr.jaxpr))[1] is not False
    if by_row:
        chunk = _all_at_once(program, n)
    jaxpr, n = (jaxpr, n) if marked is None else (marked, mark)
    found = layout.traits(jaxpr.jaxpr, n)
    return layout.choose(found, shape, n_steps, program.noises, chunk=chunk, platform=program.platform)


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
