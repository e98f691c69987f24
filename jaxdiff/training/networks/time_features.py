"""Features of the OU time, from which the layers of a network get the noise level."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.processes import ou

FREQUENCIES = 16  # frequencies of the time features; their periods in log snr, whose range is 20, run from 4 to 64


def time_features(t: Float[Array, "*rows"]) -> Float[Array, "*rows features"]:
    """Cosines and sines of log snr, whose range is about +-10: OU times (...) -> (..., 2 FREQUENCIES)."""
    angle = jnp.log(ou.snr(t[..., None])) * jnp.geomspace(math.pi / 32, math.pi / 2, FREQUENCIES, dtype=t.dtype)
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
