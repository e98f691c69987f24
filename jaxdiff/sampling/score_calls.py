"""How a run evaluates its score, and the layout that follows from the score."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdiff import noise
from jaxdiff.checks import check_agrees, value_of
from jaxdiff.conditions import by_particle
from jaxdiff.convolutions import fast_in_loops
from jaxdiff.sampling import compiled, layout, positions

_traces = compiled.Recent(4 * compiled.MOST)  # `layout_of` traces a score with up to four numbers of particles


def _value(static, arguments, donated):
    return fast_in_loops(value_of)(*arguments)


def evaluate(score, x, t):
    """score(x, t). The score is traced once, however often a program evaluates it."""
    return _traces(_value, None, (score, x, t))


def _with_arrays(score):
    """A new function (arrays, x, t) -> score(x, t), and the arrays. JAX keeps a function's trace as long as itself."""
    leaves, tree = jax.tree.flatten(score)
    return lambda leaves, x, t: evaluate(jax.tree.unflatten(tree, leaves), x, t), leaves


def _shape(score, x, t):
    """Shape and dtype of the score at such x and t."""
    function, arrays = _with_arrays(score)
    return jax.eval_shape(function, arrays, x, t)


@dataclasses.dataclass(frozen=True)
class Cast:
    """Evaluates the score of particles stored in 16 bits, in a run that computes in float32.

    seen: dtype in which the score gets x. stored: a dtype that the score may return besides that of the run.
    """

    seen: jnp.dtype
    stored: jnp.dtype

    def __call__(self, score, x, t):
        """The score at x, in the dtype of the run."""
        out = score(x.astype(self.seen), t)
        return out.astype(x.dtype) if out.dtype == self.stored else out


def with_casts(score, shape, stored):
    """The score that a run evaluates: unchanged, or inside `Cast` if particles of shape (n, d) are stored in 16 bits.

    It gets float32 x and t. A model that raises TypeError at a float32 x (its convolutions hold bfloat16 weights, for
    example) gets x in the dtype of storage.
    """
    computed = noise.computed_in(stored)
    if stored == computed:
        return score
    at = jax.ShapeDtypeStruct(shape, computed), jax.ShapeDtypeStruct((), computed)
    wide, narrow = (Partial(Cast(seen, stored), score) for seen in (computed, stored))
    try:
        _shape(wide, *at)
    except TypeError as refused:
        try:
            _shape(narrow, *at)
        except TypeError:
            raise refused from None
        return narrow
    return wide


def layout_of(program, score, n_steps, shape):
    """The layout of a run of (n, d) particles on one device, for a score as `with_casts` returns it.

    This runs while tracing, once a compilation. It chooses a chunk only if the score accepts that many particles and
    does not depend on their rows in x. A score that holds an array with a row for each particle gets all particles.

    Raises:
      ValueError: the score does not keep x's shape and dtype, or depends on the rows of the particles while these are
        cut into chunks or distributed over devices.
    """
    n = shape[0]
    function, arrays = _with_arrays(score)
    own = by_particle(score)
    rows = lambda leaf, n: jax.ShapeDtypeStruct((n, *leaf.shape[1:]), leaf.dtype)
    traced = lambda n: jax.make_jaxpr(function, return_shape=True)(
        [rows(leaf, n) if by_row else leaf for leaf, by_row in zip(arrays, own, strict=True)],
        jax.ShapeDtypeStruct((n, *shape[1:]), program.dtype),
        jax.ShapeDtypeStruct((), program.dtype),
    )
    jaxpr, given = traced(n)
    check_agrees(given, shape, program.dtype)

    mark, chunk = layout.mark_for(jaxpr.jaxpr), program.chunk
    marked, by_row = _traced_with(traced, mark)
    if marked is None:
        chunk = chunk or n
        # The score may refuse the mark because NumPy cuts a table of fewer rows. Smaller and rounder numbers of
        # particles show whether it depends on rows.
        others = layout.small_mark_for(jaxpr.jaxpr, n), layout.round_mark_for(jaxpr.jaxpr)
        by_row = _is_cut(program, n) and any(_traced_with(traced, other)[1] for other in others if other is not None)
    elif by_row:
        # lax.map with batch_size concatenates the full batches and the remaining rows. In a jaxpr that looks like a
        # score that treats two parts of the rows differently. A round number of particles has no remaining rows.
        by_row = _traced_with(traced, layout.round_mark_for(jaxpr.jaxpr))[1] is not False
    if by_row:
        chunk = _all_at_once(program, n)
    jaxpr, n = (jaxpr, n) if marked is None else (marked, mark)
    found = layout.traits(jaxpr.jaxpr, n)
    state = jax.eval_shape(program.init, jax.ShapeDtypeStruct((n, *shape[1:]), program.dtype))
    of_step = layout.StepTraits(program.noises, program.evals, len(jax.tree.leaves(state)))
    return layout.choose(found, of_step, shape, n_steps, chunk=chunk, platform=program.platform)


def _traced_with(traced, mark):
    """The score's jaxpr for `mark` particles, and whether rows matter in it; (None, None) if it refuses so many."""
    try:
        jaxpr, given = traced(mark)
    except Exception:  # shapes do not fit; any other error was raised with the run's own number of particles
        return None, None
    return (jaxpr, positions.matter(jaxpr, mark)) if given.shape[:1] == (mark,) else (None, None)


def _is_cut(program, n):
    """Are the particles distributed over devices, or these n cut into chunks?"""
    return program.n_devices > 1 or (program.chunk or n) < n


def _all_at_once(program, n):
    """n, the chunk of a score that depends on the rows of the particles; ValueError if the particles are cut up."""
    if _is_cut(program, n):
        cut = f"across {program.n_devices} devices" if program.n_devices > 1 else f"into chunks of {program.chunk}"
        raise ValueError(
            f"the score of a particle depends on its row in x (through jnp.arange(len(x)), a slice up to len(x) or "
            f"random numbers of x.shape), but the particles are cut {cut}, in which they have other rows. Run all of "
            f"them at once on one device, with chunk=None. Give a condition for each particle to "
            f"scores.conditioned(score, conditions)."
        )
    return n
