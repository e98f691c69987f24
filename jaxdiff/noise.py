"""Counter-based Gaussian noise: z = f(key, particle, step, slot, coordinate) and nothing else.

The same particle sees the same increments in any batch, chunk, order or device. One Threefry-2x32-20 call (Salmon
et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) gives the two words of one Box-Muller pair.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt32

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry2x32(key, counter) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """The 20-round cipher: two key words, two counter words, uint32 arrays that broadcast -> two uint32 arrays.

    Unrolled, so that a compiler vectorises it and fuses it into whatever uses it.
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


def check_key(key):
    """Raise TypeError unless key is one JAX key, new style or old."""
    if not hasattr(key, "dtype") or key.ndim != (0 if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else 1):
        raise TypeError(f"key must be one JAX key, as jax.random.key(0) makes it: it is {key!r}.")


def key_words(key):
    """The two uint32 words of a JAX key, new style or old; a key of another cipher is hashed down to two."""
    check_key(key)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        data = jax.random.key_data(key)
        if data.shape[-1] != 2:
            data = jax.random.bits(key, (2,), jnp.uint32)
    else:
        data = key if key.shape[-1] == 2 else jax.random.bits(key, (2,), jnp.uint32)
    return data[0], data[1]


def particle_keys(key, particle):
    """One cipher key a particle: threefry(key, particle), a bijection of the index, so no two particles share one.

    Behind a barrier: fused with the cipher that uses the keys, jax 0.11 and 0.12 compile for minutes on a CPU (one
    step, one coordinate).
    """
    low = particle.astype(jnp.uint32)
    high = (particle >> 32).astype(jnp.uint32) if particle.dtype.itemsize == 8 else jnp.zeros_like(low)
    return lax.optimization_barrier(threefry2x32(key_words(key), (high, low)))


def box_muller(a, b, dtype):
    """Two uint32 words -> two independent standard normals.

    The radius reads u = (a + 1/2) 2^-32 in (0, 1], finest near 0, and so reaches sqrt(2 log 2^33) = 6.76 in float32
    and float64 alike.
    """
    u = (a.astype(dtype) + 0.5) * 2.0**-32
    radius = jnp.sqrt(-2 * jnp.log(u))
    angle = (2 * jnp.pi * 2.0**-32) * b.astype(dtype)
    return radius * jnp.cos(angle), radius * jnp.sin(angle)


def from_particle_keys(keys, step, dim, dtype=jnp.float32, *, slot=0, slots=1):
    """Increments of particles whose cipher keys are known: shape keys[0].shape + (dim,).

    The counter is (step * slots + slot, pair of coordinates), so no two steps, slots or pairs share a block.
    """
    compute = jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype
    block = jnp.asarray(step).astype(jnp.uint32) * jnp.uint32(slots) + jnp.uint32(slot)
    pair = lax.iota(jnp.uint32, (dim + 1) // 2)
    block, pair = jnp.broadcast_arrays(block, pair)
    words = threefry2x32(tuple(k[..., None] for k in keys), (block, pair))
    z = jnp.stack(box_muller(*words, compute), axis=-1)
    return z.reshape(*z.shape[:-2], 2 * z.shape[-2])[..., :dim].astype(dtype)


def normal(key, particle, step, dim, dtype=jnp.float32, *, slot=0, slots=1) -> Float[Array, "*particles dim"]:
    """Standard normal increments of given particles at a given step.

    Args:
      key: a JAX key, new style or old. Different seeds give different ciphers.
      particle: integer array of any shape, the particles' indices (64-bit where x64 is on).
      step: integer scalar, below 2^32 / slots.
      dim: d, coordinates a particle.
      dtype: float32, float64, or bfloat16 (drawn in float32 and rounded).
      slot: which of the `slots` increments of the step.

    Returns:
      particle.shape + (dim,). Coordinate i does not depend on dim, nor anything on the other particles.

    Range: |z| <= 6.76, the largest radius that 32 random bits give; P(|Z| > 6.76) = 1.4e-11.
    """
    particle = jnp.asarray(particle)
    return from_particle_keys(particle_keys(key, particle), step, dim, dtype, slot=slot, slots=slots)
