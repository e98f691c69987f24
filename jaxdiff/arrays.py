"""Array helpers: NumPy or JAX depending on the argument, dtypes, broadcasting, rounding."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

Scalar = float | int | np.floating | np.integer | Num[Array | np.ndarray, ""]  # one number
if TYPE_CHECKING:
    Whole = int | np.integer
else:  # functions check whole numbers themselves, and their messages state the value that was given
    Whole = Any


def namespace(value: Any) -> Any:
    """numpy for host values, jax.numpy for JAX arrays and tracers."""
    return jnp if isinstance(value, jax.Array) else np


def root(value: Any) -> Any:
    """The square root of value >= 0, with derivative 0 at 0, for values that stay 0 when the grid changes a little."""
    xp, zero = namespace(value), value == 0
    return xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, value)))


def like(t: Any, x: Any) -> jax.Array:
    """The time t, or another number, in the float dtype of x, or in float32 where x has 16 bits.

    Then a float64 scalar does not promote float32 particles, and a time is not rounded to 16 bits.

    Raises:
      TypeError: x is not of a float dtype.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"positions must be of a float dtype: x is {x.dtype}. Use x.astype(jnp.float32).")
    return jnp.asarray(t, np.promote_types(x.dtype, np.float32))


def wide(values: Any) -> jax.Array:
    """Positions or a model's output, converted to float32 where the dtype has 16 bits."""
    values = jnp.asarray(values)
    return values.astype(np.float32) if values.dtype.itemsize < 4 else values


def float_time(t: Any) -> Any:
    """A time, an snr or an array of them as floats of at least 32 bits, so that a process's functions lose no digits.

    Integers of JAX become JAX's default float. Integers of NumPy and Python become float64. Floats of 16 bits become
    float32.
    """
    if not isinstance(t, jax.Array):
        t = np.asarray(t)
    if not jnp.issubdtype(t.dtype, jnp.floating):
        return t.astype(float) if isinstance(t, jax.Array) else t.astype(np.float64)[()]
    t = t if t.dtype.itemsize >= 4 else t.astype(np.float32)
    return t if isinstance(t, jax.Array) else t[()]


def aligned(value: Any, x: Any) -> Any:
    """value with axes of length 1 in front, so that it has as many axes as x and the two broadcast.

    JAX does this by itself unless a user forbids it by jax_numpy_rank_promotion="raise". A scalar is not changed.
    """
    missing = x.ndim - jnp.ndim(value)
    return jnp.expand_dims(value, tuple(range(missing))) if missing > 0 and jnp.ndim(value) > 0 else value


# Equal draws for every batch size need equal rounding. XLA computes a b + c d with one fused multiply-add, and either
# product can be the one that is fused and so stays unrounded: on a CPU the choice differs between array shapes. Adding
# a zero that the compiler cannot fold, 0 times a traced number, makes the first product a sum of its own, which is
# rounded. Only the second product can then be fused with the addition that follows. This costs no measurable time.
def read_often(score: Any, x: Any) -> Any:
    """x, which a step reads more than once. The loop over steps may pass a score that writes it to memory."""
    keep = getattr(score, "keep", None)
    return x if keep is None else keep(x)


def rounded_product(factor: Any, x: Any, traced: Any) -> Any:
    """factor times x, rounded before anything is added to it; `traced` is any finite number that is not a constant."""
    return factor * x + 0 * traced
