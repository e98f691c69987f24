"""Linear maps of one event, with transpose, that act on many particles at once."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Num

from jaxdiff.arrays import aligned, like
from jaxdiff.checks import as_array, described

SAME = 1e-3  # of |A x| |y|: a larger difference of <A x, y> and <x, A^T y> is no rounding error in float32


@dataclasses.dataclass(frozen=True)
class LinearMap:
    """A linear map A of events, made by `linear_map`; a pytree in which the map's arrays are traced.

    Attributes:
      forward: (..., *event) -> (..., *observed), x -> A x.
      transposed: (..., *observed) -> (..., *event), y -> A^T y.
      event: the shape of one event.
      observed: the shape of one observation.
    """

    forward: Callable[..., Any]
    transposed: Callable[..., Any]
    event: tuple[int, ...]
    observed: tuple[int, ...]


jax.tree_util.register_dataclass(LinearMap, ["forward", "transposed"], ["event", "observed"])


def linear_map(operator: Any, *, event: Sequence[int] | None = None) -> LinearMap:
    """A linear map of one event: a mask, a matrix, a function, or a pair of functions.

    Args:
      operator: one of these. An array of booleans in the shape of an event, True where a value is observed: the
        observations then have the event's shape, and their values where the mask is False are ignored. Another array
        (m, d): the matrix acts on the flattened event. A linear function of one event, or a pair of a function and its
        transpose, which is checked with random events where their values are concrete. A LinearMap, which is returned.
      event: the shape of one event. A function needs it; a matrix acts on (d,) by default.

    Raises:
      ValueError: the event's shape is missing, or does not fit the matrix or the mask; or the second function of a
        pair is not the transpose of the first.
      TypeError: the operator is none of these, or a function without a transpose is not linear.
    """
    if isinstance(operator, LinearMap):
        return operator
    if callable(operator) or (isinstance(operator, tuple) and all(callable(one) for one in operator)):
        return _of_functions(operator, event)
    array = as_array(operator, "operator", "of booleans in the event's shape, or (m, d), or a linear function")
    if array.dtype == bool:
        if event is not None and tuple(event) != array.shape:
            raise ValueError(f"a mask must have the event's shape {tuple(event)}: operator has shape {array.shape}.")
        return LinearMap(Partial(_masked, array), Partial(_masked, array), array.shape, array.shape)
    shape = array.shape[1:] if event is None else tuple(event)
    if array.ndim != 2 or math.prod(shape) != array.shape[1]:
        raise ValueError(
            f"a matrix must be (m, d), for events of d numbers: operator has shape {array.shape}, the event {shape}."
        )
    return LinearMap(Partial(_Flat(shape), array), Partial(_Unflat(shape), array), shape, array.shape[:1])


@dataclasses.dataclass(frozen=True)
class _Flat:
    """x -> A x for a matrix on flattened events."""

    event: tuple[int, ...]

    def __call__(self, matrix, x):
        rows = x.reshape(*x.shape[: x.ndim - len(self.event)], -1)
        return rows @ matrix.astype(x.dtype).T


@dataclasses.dataclass(frozen=True)
class _Unflat:
    """y -> A^T y for a matrix on flattened events."""

    event: tuple[int, ...]

    def __call__(self, matrix, y):
        return (y @ matrix.astype(y.dtype)).reshape(*y.shape[:-1], *self.event)


def _masked(mask, x):
    return x * aligned(mask, x).astype(x.dtype)


def _of_functions(operator, event):
    if event is None:
        raise ValueError("a linear function needs the shape of its events: linear_map(function, event=(8, 8, 1)).")
    event = tuple(event)
    forward, *others = operator if isinstance(operator, tuple) else (operator,)
    observed = jax.eval_shape(forward, jax.ShapeDtypeStruct(event, np.float32)).shape
    if others:
        _check_transpose(forward, others[0], event, observed)
        return LinearMap(
            Partial(_Each(len(event)), _partial(forward)),
            Partial(_Each(len(observed)), _partial(others[0])),
            event,
            observed,
        )
    try:
        jax.eval_shape(_Back(event), _partial(forward), jax.ShapeDtypeStruct((1, *observed), np.float32))
    except Exception as error:  # JAX raises several kinds; the function itself has been called above
        raise TypeError(
            f"operator must be linear in its event, without a constant: JAX cannot transpose {described(forward)}. "
            f"Subtract a constant from y instead, or give a pair (function, transpose)."
        ) from error
    return LinearMap(
        Partial(_Each(len(event)), _partial(forward)), Partial(_Back(event), _partial(forward)), event, observed
    )


# <A x, A z> = <x, A^T A z> and <A x, w> = <x, A^T w> for random x, z and w. The first has no rounding error to speak of
# where A loses most of its input, the second tests what no A z reaches.
def _check_transpose(forward, back, event, observed):
    """Raise ValueError unless <A x, y> = <x, A^T y> for random x and y, up to rounding; not where they are traced."""
    rng = np.random.default_rng(0)
    x, z = (jnp.asarray(rng.normal(size=event), jnp.float32) for _ in range(2))
    shape = jax.eval_shape(back, jax.ShapeDtypeStruct(observed, np.float32)).shape
    if shape != event:
        raise ValueError(
            f"the second function of a pair must be the transpose of the first: it maps an observation of shape "
            f"{observed} to {shape}, and an event has shape {event}."
        )
    image = forward(x)
    for y in (image, forward(z), jnp.asarray(rng.normal(size=observed), jnp.float32)):
        given = back(y)
        if isinstance(image, Tracer) or isinstance(y, Tracer) or isinstance(given, Tracer):
            return
        size = np.linalg.norm(image) * np.linalg.norm(y)
        one, other = (np.vdot(*map(np.float64, pair)) for pair in ((image, y), (x, given)))
        if not abs(one - other) <= SAME * size:
            raise ValueError(
                f"the second function of a pair must be the transpose of the first, <A x, y> = <x, A^T y>: for random "
                f"x and y these are {one:.6g} and {other:.6g}. Leave the second function out, and JAX transposes the "
                f"first."
            )


def _partial(function):
    """A plain function as a pytree; a callable pytree unchanged."""
    return Partial(function) if jax.tree_util.all_leaves([function]) else function


@dataclasses.dataclass(frozen=True)
class _Each:
    """Applies a function of one event, which has `axes` axes, to all particles."""

    axes: int

    def __call__(self, function, x):
        lead, event = x.shape[: x.ndim - self.axes], x.shape[x.ndim - self.axes :]
        out = jax.vmap(function)(x.reshape(-1, *event))
        return out.reshape(*lead, *out.shape[1:])


@dataclasses.dataclass(frozen=True)
class _Back:
    """Applies the transpose of a function of events of this shape to all particles."""

    event: tuple[int, ...]

    def __call__(self, function, y):
        one = jax.ShapeDtypeStruct(self.event, y.dtype)
        back = jax.linear_transpose(function, one)
        axes = len(jax.eval_shape(function, one).shape)
        lead, observed = y.shape[: y.ndim - axes], y.shape[y.ndim - axes :]
        out = jax.vmap(lambda row: back(row)[0])(y.reshape(-1, *observed))
        return out.reshape(*lead, *self.event)


def residual(operator: LinearMap, y: Any, denoised: Num[Array, "*x"]) -> Num[Array, "*y"]:
    """y - A D for every particle; 0 where a mask observes nothing. y is one observation, or one for each particle."""
    seen = operator.forward(denoised)
    difference = aligned(like(y, denoised), seen) - seen
    mask = operator.forward.args[0] if operator.forward.func is _masked else None
    return difference if mask is None else jnp.where(aligned(mask, difference), difference, 0)
