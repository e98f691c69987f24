"""The parts of a U-Net: the residual block of convolutions, down- and upsampling."""

import jax.numpy as jnp
from flax import nnx

from jaxdiff.training.networks.norms import GroupNorm


class Block(nnx.Module):
    """A residual block of two convolutions, in which time and label shift and scale the normalised features.

    Source: Dhariwal, Nichol 2021, arXiv:2105.05233 (adaptive group normalisation).
    """

    def __init__(self, enter, leave, features, dropout, dtype, rngs):
        """Draw the weights. Those of the last convolution are zero, so that the block starts as its skip."""
        zeros = nnx.initializers.zeros_init()
        self.first = GroupNorm(enter, rngs)
        self.up = nnx.Conv(enter, leave, (3, 3), dtype=dtype, rngs=rngs)
        self.modulate = nnx.Linear(features, 2 * leave, dtype=dtype, kernel_init=zeros, rngs=rngs)
        self.second = GroupNorm(leave, rngs, affine=False)  # the modulation shifts and scales
        self.down = nnx.Conv(leave, leave, (3, 3), dtype=dtype, kernel_init=zeros, rngs=rngs)
        self.skip = None if enter == leave else nnx.Conv(enter, leave, (1, 1), dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, hidden, vector, key):
        """The features (batch, h, w, enter) after the block; vector (batch, features) of time and label."""
        shift, scale = jnp.split(self.modulate(vector)[:, None, None], 2, axis=-1)
        inner = self.second(self.up(nnx.silu(self.first(hidden)))) * (1 + scale) + shift
        inner = self.dropout(nnx.silu(inner), deterministic=key is None, rngs=key)
        return (hidden if self.skip is None else self.skip(hidden)) + self.down(inner)


class DownSample(nnx.Module):
    """Half the resolution: a convolution with stride 2."""

    def __init__(self, channels, dtype, rngs):
        """Draw the weights."""
        self.conv = nnx.Conv(channels, channels, (3, 3), strides=2, dtype=dtype, rngs=rngs)

    def __call__(self, hidden, vector, key):
        """The features (batch, h, w, c) at half the resolution. A vector and a key are taken as by a block."""
        return self.conv(hidden)


class UpSample(nnx.Module):
    """Twice the resolution: every pixel is repeated, and a convolution follows."""

    def __init__(self, channels, dtype, rngs):
        """Draw the weights."""
        self.conv = nnx.Conv(channels, channels, (3, 3), dtype=dtype, rngs=rngs)

    def __call__(self, hidden, vector, key):
        """The features (batch, h, w, c) at twice the resolution. A vector and a key are taken as by a block."""
        return self.conv(jnp.repeat(jnp.repeat(hidden, 2, axis=1), 2, axis=2))
