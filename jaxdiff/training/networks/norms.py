"""Normalisation of features: computed in float32, returned in the dtype of the features."""

import jax.numpy as jnp
from flax import nnx


# Flax promotes bfloat16 features to float32 for the moments, which strict dtype promotion refuses.
class LayerNorm(nnx.LayerNorm):
    """Layer normalisation without a trained shift and scale, which the modulation by time and label supplies."""

    def __init__(self, features, rngs):
        """Normalise the last axis, of this length."""
        super().__init__(features, use_bias=False, use_scale=False, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x, **options):
        """The normalised features, in the dtype of x."""
        return super().__call__(x.astype(jnp.float32), **options).astype(x.dtype)


class GroupNorm(nnx.GroupNorm):
    """Group normalisation in at most 32 groups, each of at least 4 channels where there are so many.

    affine: whether a shift and a scale of each channel are trained.
    """

    def __init__(self, channels, rngs, *, affine=True):
        """Choose the number of groups."""
        groups = max(g for g in range(1, 33) if channels % g == 0 and (g == 1 or channels // g >= 4))
        super().__init__(channels, groups, use_bias=affine, use_scale=affine, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x, **options):
        """The normalised features, in the dtype of x."""
        return super().__call__(x.astype(jnp.float32), **options).astype(x.dtype)
