"""Scores with a condition for each particle: a label, or an observation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdiff.checks import described


def conditioned(score: Any, condition: Any) -> Partial:
    """The score x, t -> score(x, t, condition), in which each particle has a condition of its own.

    `sample`, `loss_curve`, `certify_w2` and `plan` cut conditions and particles into the same chunks, and spread them
    over the same devices. A denoiser is conditioned in the same way.

    Args:
      score: s(x, t, condition), with x (particles, *event) and t () -> (particles, *event); a function or a callable
        pytree, as a network is.
      condition: an array, or a pytree of arrays, with a row for each particle: (particles, ...). A number, of shape (),
        is the same for all particles. A new condition of the same shape recompiles nothing.

    Returns:
      A pytree s(x, t). It goes where a score goes: into kernels, `guided`, `score_from_denoiser` and others.

    Raises:
      TypeError: the score cannot be called, or the condition has no arrays.
    """
    if not callable(score):
        raise TypeError(f"score must be a function of x, t and a condition: it is {described(score)}.")
    leaves, tree = jax.tree.flatten(condition)
    if not leaves or not all(isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int) for leaf in leaves):
        raise TypeError(
            f"condition must be an array with a row for each particle, or a number: it is {described(condition)}."
        )
    score = Partial(score) if jax.tree_util.all_leaves([score]) else score
    return Partial(_conditional, score, jax.tree.unflatten(tree, list(map(jnp.asarray, leaves))))


def _conditional(score, condition, x, t):
    rows = next((len(leaf) for leaf in jax.tree.leaves(condition) if jnp.ndim(leaf) > 0), None)
    if rows is not None and x.shape[:1] != (rows,):
        raise ValueError(
            f"the score has {rows} conditions, and is called with x of shape {x.shape}: give one for each row of x."
        )
    return score(x, t, condition)


def by_particle(score: Any) -> list[bool]:
    """For each leaf of a score, in the order of jax.tree.leaves, whether it has a row for each particle."""
    found = []
    for node in jax.tree.leaves(score, is_leaf=_is_conditional):
        if _is_conditional(node):
            inner, condition = node.args
            found += by_particle(inner) + [jnp.ndim(leaf) > 0 for leaf in jax.tree.leaves(condition)]
        else:
            found.append(False)
    return found


def _is_conditional(node):
    return isinstance(node, Partial) and node.func is _conditional


def conditions_of(score: Any) -> int | None:
    """How many conditions a score has; None where it has none.

    Raises:
      ValueError: conditions inside it have different numbers of rows.
    """
    sizes = {len(leaf) for leaf, own in zip(jax.tree.leaves(score), by_particle(score), strict=True) if own}
    if len(sizes) > 1:
        raise ValueError(f"all conditions of a score must have the same number of rows: they have {sorted(sizes)}.")
    return next(iter(sizes), None)


def with_conditions(score: Any, change: Any) -> Any:
    """The score with `change` applied to each array that has a row for each particle."""
    leaves, tree = jax.tree.flatten(score)
    changed = [change(leaf) if own else leaf for leaf, own in zip(leaves, by_particle(score), strict=True)]
    return jax.tree.unflatten(tree, changed)


def of_particles(score: Any, index: Any) -> Any:
    """The score with the conditions of the particles `index` (m,); particles beyond the last one start again at 0."""
    count = conditions_of(score)
    return score if count is None else with_conditions(score, lambda leaf: leaf[np.asarray(index) % count])


def check_conditions(score: Any, n: int) -> None:
    """Raise ValueError where a score has conditions, and not one for each of n particles."""
    count = conditions_of(score)
    if count not in (None, n):
        raise ValueError(
            f"the score has {count} conditions for {n} particles: give one for each particle, or one number for all."
        )
