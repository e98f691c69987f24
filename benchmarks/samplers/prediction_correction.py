"""The wall time of `predict_correct`."""

import jax
import jax.numpy as jnp

from benchmarks.harness.timing import interleaved
from jaxdiff import noise, predict_correct

PARTICLES = 2**16  # of a run whose wall time is measured


def seconds(score, dim, repeats, *, particles=PARTICLES, **options):
    """Median wall time of predict_correct for a number of particles, float32, compiled."""
    key = jax.random.key(0)
    x = noise.initial(key, jnp.arange(particles, dtype=jnp.uint32), dim).astype(jnp.float32)
    return interleaved({"run": lambda: predict_correct(score, x, key, **options)}, repeats)["run"].median
