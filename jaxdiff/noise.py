"""Counter-based Gaussian noise: each increment is a function of key, particle, step, slot and coordinate alone.

A particle therefore gets the same increments in any batch, chunk, order and on any device. One call of the cipher
Threefry-2x32-20 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) gives two words, from which
Box-Muller makes two consecutive increments of one coordinate.

    particle key   k_i = threefry(key, 64-bit index i)                  a bijection: all particles have different keys
    counter        (m div 2, domain 2^29 + coordinate)                  m = step slots + slot
    increment      the first or second normal of the pair               by m mod 2

The domain separates uses of a key: 1 is for increments of steps, 2 for starting positions (`initial`), 6 for random
signs (`signs`); 4 and 5 are for the second pair of words that float64 needs in domains 1 and 2. Domain 0 is unused
because `jax.random` counts there. The keys of `jax.random.split(key)` are particle keys of the same key, and draw other
words for this reason. Two seeds are two ciphers of the particle index. With n particles each, they have a particle key
in common with probability n^2/2^64.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Integer, UInt32

from jaxdiff.arrays import Whole, aligned
from jaxdiff.box_muller import box_muller
from jaxdiff.checks import described

KeyLike = Any  # one JAX key, of jax.random.key or of jax.random.PRNGKey; `check_key` raises for anything else

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))  # the rotations of Threefry-2x32, as published
PARITY = 0x1BD11BDA  # the constant of its key schedule, as published
STEPS, INITIAL, PROBES = 1, 2, 6  # domains; `signs` are drawn in float32, so PROBES needs no second domain
BEYOND = 3  # added to a domain, it gives the domain of the second pair of words that float64 needs
MOST_COORDINATES = 2**29  # the counter's second word of 32 bits holds the domain in 3 bits, the coordinate in 29


def threefry2x32(key: Sequence[Any], counter: Sequence[Any]) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """The 20-round cipher: two key words and two counter words, uint32 arrays that broadcast -> two uint32 arrays.

    Its rounds are written out, so that a compiler vectorises them and fuses them with the code that uses the words.
    """
    (k0, k1), (a, b) = key, counter
    schedule = (k0, k1, k0 ^ k1 ^ jnp.uint32(PARITY))
    a, b = a + k0, b + k1
    for i in range(5):
        for r in ROTATIONS[i % 2]:
            a = a + b
            b = ((b << jnp.uint32(r)) | (b >> jnp.uint32(32 - r))) ^ a
        a, b = a + schedule[(i + 1) % 3], b + (schedule[(i + 2) % 3] + jnp.uint32(i + 1))
    return a, b


def check_key(key: KeyLike) -> None:
    """Raise TypeError unless key is one JAX key, new style or old."""
    new = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not hasattr(key, "dtype") or key.ndim != (0 if new else 1) or not (new or key.dtype == jnp.uint32):
        raise TypeError(f"key must be one JAX key, as jax.random.key(0) makes it: it is {described(key)}.")


def key_words(key: KeyLike) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    """The two uint32 words of a JAX key, new style or old; a longer key of another cipher is hashed to two words."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        data = jax.random.key_data(key)
        if data.shape[-1] != 2:
            data = jax.random.bits(key, (2,), jnp.uint32)
    else:
        data = key if key.shape[-1] == 2 else jax.random.bits(key, (2,), jnp.uint32)
    return data[0], data[1]


def particle_keys(key: KeyLike, particle: Any) -> Sequence[UInt32[Array, "..."]]:
    """One cipher key for each particle: threefry(key, particle), for integers or two uint32 arrays (high, low).

    The result is behind an optimization barrier: jax 0.11 and 0.12 compile for minutes on a CPU if they fuse this with
    the cipher that uses the keys (seen with one step and one coordinate).
    """
    return lax.optimization_barrier(threefry2x32(key_words(key), particle_words(particle)))


def particle_words(particle: Any) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """The high and low uint32 words of particles' indices; a pair of words is returned as it is."""
    if isinstance(particle, tuple):
        return particle
    low = particle.astype(jnp.uint32)
    return (particle >> 32).astype(jnp.uint32) if particle.dtype.itemsize == 8 else jnp.zeros_like(low), low


def pair(
    keys: Sequence[Any], block: Any, coordinate: UInt32[Array, "..."], dtype: DTypeLike, *, domain: int = STEPS
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Increments 2 block and 2 block + 1 of every coordinate: two arrays of the shape of keys and coordinate broadcast.

    Args:
      keys: two uint32 arrays from particle_keys, shaped to broadcast with `coordinate`.
      block: uint32 scalar below 2^31.
      coordinate: uint32 array of indices below 2^29.
      dtype: float32 or float64.
    """
    # block >> 31 is 0, but the compiler does not know that. Without it the compiler would move a part of the cipher out
    # of the scan over blocks and store the result for all particles and coordinates.
    zero = block >> jnp.uint32(31)
    index = aligned(coordinate + zero, keys[0])
    words = [
        threefry2x32(keys, jnp.broadcast_arrays(block, index + jnp.uint32(space * MOST_COORDINATES)))
        for space in ((domain,) if dtype == jnp.float32 else (domain, domain + BEYOND))
    ]
    return box_muller(*words, dtype=dtype, zero=zero.astype(dtype))


def computed_in(dtype: DTypeLike) -> jnp.dtype:
    """The dtype that draws or particles of a given dtype are computed in: float64 for float64, else float32."""
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize <= 4 else jnp.dtype(dtype)


def normal(
    key: KeyLike,
    particle: Integer[ArrayLike, "*particles"],
    step: Integer[ArrayLike, ""],
    dim: Whole | Sequence[Whole],
    dtype: DTypeLike = jnp.float32,
    *,
    slot: Integer[ArrayLike, ""] = 0,
    slots: Whole = 1,
) -> Float[Array, "*particles_event"]:
    """Standard normal increments of given particles at a given step.

    Args:
      key: a JAX key, new style or old. Different seeds give different ciphers.
      particle: integer array of any shape, the particles' indices (64-bit if x64 is enabled).
      step: integer scalar, below 2^32 / slots.
      dim: d, coordinates of a particle, at most 2^29; or the shape of an event, as (8, 8, 1), with d coordinates.
      dtype: float32, float64, or one of 16 bits (drawn in float32 and rounded). A float64 draw is the float32 draw
        with more bits.
      slot: which of the `slots` increments of the step.

    Returns:
      particle.shape + (dim,), or particle.shape + dim for the shape of an event, in which the same d draws lie in row-
      major order. Coordinate i does not depend on dim. The draws of a particle do not depend on the other particles.

    Range: |z| <= 6.66 in float32, 9.42 in float64; see box_muller.
    """
    which = jnp.asarray(step).astype(jnp.uint32) * jnp.uint32(slots) + jnp.asarray(slot).astype(jnp.uint32)
    check_key(key)
    return _shaped(key, particle, which, dim, dtype, STEPS)


def initial(
    key: KeyLike,
    particle: Integer[ArrayLike, "*particles"],
    dim: Whole | Sequence[Whole],
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "*particles_event"]:
    """Starting positions of particles, draws of N(0, I); arguments as for `normal`.

    They are independent of the increments of the same key, because the counters differ: one key is enough for
    `sample(kernel, initial(key, jnp.arange(n), d), grid, key)`.
    """
    check_key(key)
    return _shaped(key, particle, jnp.uint32(0), dim, dtype, INITIAL)


def signs(
    key: KeyLike,
    particle: Integer[ArrayLike, "*particles"],
    index: Integer[ArrayLike, ""],
    dim: Whole,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "*particles {dim}"]:
    """Random signs, -1 or 1 with equal probability, as probes of Hutchinson's estimate; arguments as for `normal`.

    index: integer scalar, below 2^32: which of a particle's probes. Signs are independent of the increments and
      starting positions of the same key, because the counters differ.
    """
    check_key(key)
    which = jnp.asarray(index).astype(jnp.uint32)
    draws = _draws(key, jnp.asarray(particle), which, dim, jnp.dtype(jnp.float32), PROBES)
    return jnp.where(draws < 0, -1, 1).astype(dtype)


def _shaped(key, particle, which, dim, dtype, domain):
    """The draws with the coordinates of a particle in a row, or in the shape of an event."""
    event = tuple(dim) if isinstance(dim, Sequence) else (dim,)
    draws = _draws(key, jnp.asarray(particle), which, math.prod(event), jnp.dtype(dtype), domain)
    return draws if len(event) == 1 else draws.reshape(*draws.shape[:-1], *event)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _draws(key, particle, which, dim, dtype, domain):
    coordinate = lax.iota(jnp.uint32, dim)
    keys = tuple(word[..., None] for word in particle_keys(key, particle))
    first, second = pair(keys, which >> jnp.uint32(1), coordinate, computed_in(dtype), domain=domain)
    return jnp.where(which & jnp.uint32(1) == 1, second, first).astype(dtype)
