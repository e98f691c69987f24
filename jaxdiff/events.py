"""Particles of any shape (particles, *event). Runs and measurements see each as a row of its coordinates, (d,)."""

import dataclasses
import math
from typing import Any

import jax
from jax.tree_util import Partial

from jaxdiff.checks import value_of


@dataclasses.dataclass(frozen=True)
class OnEvents:
    """Evaluates a score, or a denoiser, of events at rows: x (..., d) -> (..., d), where d is the size of an event.

    Attributes:
      event: the shape of an event, for example (8, 8, 1) of a grey image.
      name: what messages call the function.
    """

    event: tuple[int, ...]
    name: str = "score"

    def __call__(self, function: Any, x: Any, t: Any) -> Any:
        """The function at rows x; ValueError where it returns another shape than that of its events."""
        shape = (*x.shape[:-1], *self.event)
        out = value_of(function, x.reshape(shape), t, self.name)
        if out.shape != shape:
            raise ValueError(f"the {self.name} returns shape {out.shape} for x of shape {shape}: they must agree.")
        return out.reshape(x.shape)


def on_rows(function: Any, event: tuple[int, ...] | None, name: str = "score") -> Any:
    """A score or denoiser of events as one of rows (..., d); unchanged where an event is a row already.

    function: a pytree callable f(x, t) with x (..., *event). event: the shape of an event; None for a row.
    """
    return function if event is None or len(event) == 1 else Partial(OnEvents(event, name), function)


def event_of(rows: Any) -> tuple[int, ...] | None:
    """The shape of an event of an array of rows (n, *event); None where an event is a row, or rows is no array."""
    shape = getattr(rows, "shape", ())[1:]
    return shape if len(shape) > 1 else None


def rows_of(x: Any) -> Any:
    """Particles (n, *event) as rows (n, d); arrays of NumPy and JAX. Anything else is returned unchanged."""
    event = event_of(x)
    return x if event is None else x.reshape(len(x), math.prod(event))


def by_rows(score: Any, rows: Any, dim: Any) -> tuple[Any, Any, Any]:
    """A score, rows and dim of events as those of rows (n, d). `dim` may be the shape of an event."""
    event = tuple(dim) if isinstance(dim, tuple | list) else event_of(rows)
    return on_rows(score, event), rows_of(rows), dim if event is None else math.prod(event) if dim is not None else None


def reshaped(x: jax.Array, shape: tuple[int, ...], *, donate: bool = False) -> jax.Array:
    """x in another shape; with donate in the same memory, and x is deleted. No effect on an x of this shape."""
    if x.shape == shape:
        return x
    return (_in_place if donate else _reshape)(x, shape)


_reshape = jax.jit(lambda x, shape: x.reshape(shape), static_argnums=1)
_in_place = jax.jit(lambda x, shape: x.reshape(shape), static_argnums=1, donate_argnums=0)
