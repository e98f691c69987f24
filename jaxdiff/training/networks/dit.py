"""A diffusion transformer (DiT) denoiser of images with EDM's preconditioning, for OU times."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float32

from jaxdiff.training.networks.attention import SelfAttention
from jaxdiff.training.networks.class_embedding import Conditioning
from jaxdiff.training.networks.norms import LayerNorm
from jaxdiff.training.networks.preconditioning import PreconditionedImages, check_dropout, image_shape


class DiT(PreconditionedImages):
    """A denoiser of images: patches are the tokens of a transformer, whose blocks time and label modulate.

    Before training the correction is zero, so the network is the exact denoiser of N(mean, cov).

    Args:
      shape: (H, W, C) of an image.
      mean, cov, n_classes: as for Preconditioned.
      patch: the height and the width of a patch in pixels.
      width: numbers in a token, a multiple of 4 and of heads.
      depth: blocks.
      heads: heads of the attention.
      dropout: rate in the blocks during training.
      dtype: of the trained part, for example jnp.bfloat16. The parameters and the output of the network stay float32.
      rngs: nnx.Rngs for the initial weights.

    Raises:
      ValueError: patch does not divide the height and the width; or another argument is out of range.

    Call it as Preconditioned says: x (..., H, W, C), an OU time t of shape () or (...), labels, key=.
    Source: Peebles, Xie 2023, arXiv:2212.09748 (adaLN-zero).
    """

    title = "DiT"

    def __init__(
        self,
        shape: Any,
        *,
        mean: Any = None,
        cov: Any = None,
        patch: int = 2,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float | int = 0.0,
        n_classes: int | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights and take the principal axes of the data's covariance."""
        shape = image_shape(shape)
        _check(shape, patch, width, depth)
        check_dropout(dropout)
        super().__init__(shape, mean=mean, cov=cov, n_classes=n_classes)
        self.patch, self.width, self.dtype = patch, width, dtype
        numbers, zeros = patch * patch * shape[2], nnx.initializers.zeros_init()
        self.enter = nnx.Linear(numbers, width, dtype=dtype, rngs=rngs)
        self.conditioning = Conditioning(width, n_classes, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([DiTBlock(width, heads, dropout, dtype, rngs) for _ in range(depth)])
        self.norm = LayerNorm(width, rngs)
        self.modulate = nnx.Linear(width, 2 * width, dtype=dtype, kernel_init=zeros, rngs=rngs)
        self.leave = nnx.Linear(width, numbers, dtype=dtype, kernel_init=zeros, rngs=rngs)

    def pixels(self, y, t, condition, key):
        """The trained part at y (batch, H, W, C), t (batch,) and labels (batch,) or None."""
        height, width, channels = self.shape
        p, batch = self.patch, len(y)
        rows, columns = height // p, width // p
        patches = y.reshape(batch, rows, p, columns, p, channels).transpose(0, 1, 3, 2, 4, 5)
        hidden = self.enter(patches.reshape(batch, rows * columns, -1).astype(self.dtype))
        hidden = hidden + jnp.asarray(positions(rows, columns, self.width), self.dtype)
        vector = self.conditioning(t, condition)[:, None]
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        for block, block_key in zip(self.blocks, keys, strict=True):
            hidden = block(hidden, vector, block_key)
        shift, scale = jnp.split(self.modulate(vector), 2, axis=-1)
        out = self.leave(self.norm(hidden) * (1 + scale) + shift)
        return out.reshape(batch, rows, columns, p, p, channels).transpose(0, 1, 3, 2, 4, 5).reshape(y.shape)


class DiTBlock(nnx.Module):
    """Attention and a two-layer perceptron, each shifted, scaled and gated by time and label (adaLN-zero)."""

    def __init__(self, width, heads, dropout, dtype, rngs):
        """Draw the weights. The gates start at zero, so that the block starts as the identity."""
        zeros = nnx.initializers.zeros_init()
        self.modulate = nnx.Linear(width, 6 * width, dtype=dtype, kernel_init=zeros, rngs=rngs)
        self.first = LayerNorm(width, rngs)
        self.attention = SelfAttention(width, heads, dtype=dtype, rngs=rngs)
        self.second = LayerNorm(width, rngs)
        self.up = nnx.Linear(width, 4 * width, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, hidden, vector, key):
        """The tokens hidden (batch, n, width) after the block; vector (batch, 1, width) of time and label."""
        shift, scale, gate, shift_2, scale_2, gate_2 = jnp.split(self.modulate(vector), 6, axis=-1)
        key_1, key_2 = (None, None) if key is None else jax.random.split(key)
        drop = lambda features, key: self.dropout(features, deterministic=key is None, rngs=key)
        hidden = hidden + gate * drop(self.attention(self.first(hidden) * (1 + scale) + shift), key_1)
        inner = self.second(hidden) * (1 + scale_2) + shift_2
        return hidden + gate_2 * self.down(drop(nnx.gelu(self.up(inner)), key_2))


def positions(rows: int, columns: int, width: int) -> Float32[np.ndarray, "tokens width"]:
    """Sines and cosines of the row and the column of each token, (rows columns, width), row by row.

    Half of the numbers are for the row and half for the column. Their periods run from 2 pi to 20,000 pi.
    Source: Vaswani et al. 2017, arXiv:1706.03762, in two dimensions.
    """
    frequencies = 1e4 ** -(np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [place[:, None] * frequencies for place in (row, column)]
    return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


def _check(shape, patch, width, depth):
    """Raise ValueError for a patch that does not divide the image, or a size out of range."""
    height, across, _ = shape
    if patch < 1 or height % patch or across % patch:
        raise ValueError(
            f"patches of {patch} x {patch} pixels do not divide images of {height} x {across}: choose another patch, "
            f"or pad the images."
        )
    if width < 4 or width % 4 or depth < 0:
        raise ValueError(
            f"width must be a positive multiple of 4, for the sines and cosines of two positions, and depth at least "
            f"0: width = {width}, depth = {depth}."
        )
