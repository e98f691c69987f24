"""The squared errors of a denoiser on rows at one noise level, computed on the device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import noise
from jaxdiff.checks import value_of
from jaxdiff.convolutions import fast_in_loops
from jaxdiff.curves.directions import in_axes
from jaxdiff.processes import forward
from jaxdiff.types import DenoiserFn

# With so many rows a matrix product on a CPU has nearly full speed. Fewer rows are evaluated with several noises at
# once.
FULL = 256


def pairs_at_once(denoiser: DenoiserFn, rows: np.ndarray, n_noises: Any) -> int:
    """How many pairs of noises are computed at once: enough for FULL rows, 1 where the denoiser cannot be vmapped."""
    together = min(n_noises, max(1, FULL // len(rows)))
    if together > 1:
        some = jax.ShapeDtypeStruct((together, *rows.shape), jnp.asarray(rows[:1]).dtype)
        try:
            jax.eval_shape(jax.vmap(denoiser, (0, None)), some, jax.ShapeDtypeStruct((), some.dtype))
        except (NotImplementedError, TypeError, ValueError):
            # vmap refuses some callbacks to the host. A true error is raised again with one noise at a time.
            return 1
    return together


# K = E<D - beta X_0, Z> for any beta. In the mean over the pair Z, -Z the term with beta cancels.
@jax.jit(static_argnames=("n_noises", "each", "together"))
def errors(
    denoiser: DenoiserFn,
    x0: Any,
    index: Any,
    key: Any,
    t: Any,
    rotation: Any,
    noises: Any,
    n_noises: Any,
    each: bool,
    together: int,
) -> tuple[Any, Any, Any]:
    """Means over a row's pairs of |X_0 - D|^2 (n,), <D, Z> (n,) and, where `each`, <X_0 - D, direction>^2 (n, d).

    Args:
      denoiser: D(x, t).
      x0: (n, d) rows.
      index: (n,) their numbers, by which their noises are drawn.
      key: for the noise.
      t: one OU time.
      rotation: (d, d) from coordinates of x0 to those along the directions; None where they are the same.
      noises: (n_noises, n, d), or None to draw them here.
      n_noises: antithetic pairs of noises for each row.
      each: whether losses along directions are computed.
      together: pairs that are computed at once.
    """

    def pair(repeat):
        z = noise.normal(key, index, repeat, x0.shape[1], x0.dtype) if noises is None else noises[repeat]
        plus, minus = (value_of(denoiser, forward(x0, t, one), t, "denoiser") for one in (z, -z))
        if plus.shape != x0.shape:
            raise ValueError(f"the denoiser returns shape {plus.shape} for x of shape {x0.shape}: they must agree.")
        squares = (in_axes(x0 - plus, rotation) ** 2 + in_axes(x0 - minus, rotation) ** 2) / 2
        loss, cross = jnp.sum(squares, -1), jnp.sum((plus - minus) * z, -1) / 2
        return loss, cross, squares if each else None

    repeats = jnp.arange(n_noises, dtype=jnp.uint32)
    found = jax.lax.map(fast_in_loops(pair), repeats, batch_size=together if together > 1 else None)
    return jax.tree.map(lambda leaf: leaf.mean(0), found)


@jax.jit(static_argnames=("n_noises", "dtype"))
def noises_in_axes(axes: Any, index: Any, key: Any, n_noises: Any, dtype: Any) -> jax.Array:
    """(n_noises, n, d): the noises of the rows `index`, in the coordinates of `axes`."""
    drawn = lambda repeat: in_axes(noise.normal(key, index, repeat, len(axes), dtype), axes)
    return jax.lax.map(drawn, jnp.arange(n_noises, dtype=jnp.uint32))
