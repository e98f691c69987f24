"""Kernels broken on purpose: a column of the table wrong by a few percent or at a wrong time, histories mixed up."""

import dataclasses

import jax
import jax.numpy as jnp

TIMES = ("t", "t_next", "t_half", "t_inside")
FACTOR = 1.02


def mutants(kernel, grid):
    """(name, broken kernel) of every way there is to break this one; all keep shapes, and are finite."""
    table = kernel.coefficients(grid)
    paths, _ = zip(*jax.tree_util.tree_flatten_with_path(table)[0], strict=True)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    for place, name in enumerate(names):
        column = jax.tree.leaves(table)[place]
        if not (column != 0).any():
            continue  # noise of an ODE
        if name == "first.keep" and "first.pull" in names:
            continue  # there is no momentum yet to keep
        if name.split(".")[-1] in TIMES:
            yield f"{name} a tenth later", _with_column(kernel, place, lambda column: column * 0.9)
        else:
            yield f"{name} times {FACTOR}", _with_column(kernel, place, lambda column: column * FACTOR)
        if column.ndim == 2 and (column != column[:, ::-1]).any():
            yield f"{name} of the wrong nodes", _with_column(kernel, place, lambda column: column[:, ::-1])
    if kernel.noises_per_step > 0:
        yield (
            "noise of the other sign",
            _with_step(kernel, lambda step, score, state, row, z: step(score, state, row, -z)),
        )
    if kernel.noises_per_step == 2:
        yield (
            "increments exchanged",
            _with_step(kernel, lambda step, score, state, row, z: step(score, state, row, z[::-1])),
        )
    if getattr(kernel.init(jnp.zeros((1, 1))), "past", ()):
        yield "a stale history", _with_step(kernel, _stale)
    yield (
        "half of the score",
        dataclasses.replace(kernel, step=lambda score, *rest: kernel.step(lambda x, t: 0.5 * score(x, t), *rest)),
    )
    yield (
        "the score of the other side",
        dataclasses.replace(kernel, step=lambda score, *rest: kernel.step(lambda x, t: score(-x, t), *rest)),
    )


def _with_column(kernel, place, change):
    def coefficients(grid):
        leaves, tree = jax.tree.flatten(kernel.coefficients(grid))
        leaves[place] = change(leaves[place])
        return jax.tree.unflatten(tree, leaves)

    return dataclasses.replace(kernel, coefficients=coefficients)


def _with_step(kernel, change):
    return dataclasses.replace(kernel, step=lambda *given: change(kernel.step, *given))


def _stale(step, score, state, row, z):
    """What was seen first stays."""
    out = step(score, state, row, z)
    kept = tuple(jnp.where(jnp.any(old != 0), old, new) for old, new in zip(state.past, out.past, strict=True))
    return out._replace(past=kept)
