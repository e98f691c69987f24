"""Batches of rows as a pure function of (seed, step), so that a resumed training needs no state of an iterator."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

ROUNDS = 6  # of the Feistel network; four make a pseudorandom permutation if the round functions are random
MOST_ROWS = 2**30  # so that the numbers below this power of two fit into int32


def batch_indices(seed: Any, step: Any, batch_size: int, n: int) -> Int[jax.Array, " batch"]:
    """Indices of the rows of one batch: every epoch is a new random order of the n rows, without repetition.

    An epoch has n // batch_size batches; the few rows that are left over are others in each epoch. If the batch is
    larger than n, its indices are drawn with repetition. The index is computed for each place of the batch alone, by a
    keyed permutation of 0..n-1 (a Feistel network on the next power of four, repeated until the value is below n), so
    neither memory nor time grows with n. The function can be compiled; batch_size and n are static.

    Args:
      seed: a JAX key, or a whole number.
      step: number of the batch, from 0; it may be traced.
      batch_size: number of indices.
      n: number of rows.

    Raises:
      ValueError: batch_size or n is not positive, or n exceeds 2^30.

    Source: Black, Rogaway 2002, Ciphers with arbitrary finite domains, CT-RSA (cycle walking, Feistel networks).
    """
    if not 1 <= n <= MOST_ROWS:
        raise ValueError(f"n must lie between 1 and 2^30: n = {n}. Train on parts of a larger data set.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1: batch_size = {batch_size}.")
    key = jax.random.key(seed) if isinstance(seed, (int, np.integer)) else seed
    number = jnp.asarray(step, jnp.uint32)
    if batch_size > n:
        return jax.random.randint(jax.random.fold_in(key, number), (batch_size,), 0, n)
    epoch, place = jnp.divmod(number, jnp.uint32(n // batch_size))
    places = place * jnp.uint32(batch_size) + jnp.arange(batch_size, dtype=jnp.uint32)
    return permuted(jax.random.fold_in(key, epoch), places, n)


@functools.partial(jax.jit, static_argnames="n")
def permuted(key: Any, places: jax.Array, n: int) -> Int[jax.Array, " places"]:
    """The values at some places (below n) of a pseudorandom permutation of 0..n-1 that belongs to the key."""
    half = jnp.uint32(max(1, ((n - 1).bit_length() + 1) // 2))  # bits of each half of a number
    secrets = jax.random.bits(key, (ROUNDS,), jnp.uint32)

    def encrypted(values):
        left, right = values >> half, values & ((jnp.uint32(1) << half) - 1)
        for secret in secrets:
            left, right = right, left ^ (_mixed(right ^ secret) >> (jnp.uint32(32) - half))
        return (left << half) | right

    def walk(values):
        return jnp.where(values < n, values, encrypted(values))

    inside = jax.lax.while_loop(lambda values: (values >= n).any(), walk, encrypted(places.astype(jnp.uint32)))
    return inside.astype(jnp.int32)


def _mixed(bits):
    """A bijection of 32 bits whose every output bit depends on every input bit (the finaliser of MurmurHash3)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
