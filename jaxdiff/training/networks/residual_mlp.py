"""A residual MLP denoiser of rows with EDM's preconditioning, for OU times and along the data's principal axes."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxdiff.training.networks.class_embedding import ClassEmbedding
from jaxdiff.training.networks.norms import LayerNorm
from jaxdiff.training.networks.preconditioning import Preconditioned, check_dropout
from jaxdiff.training.networks.time_features import FREQUENCIES, time_features


class ResidualMLP(Preconditioned):
    """A denoiser D(x, t) of rows, which estimates E[X_0 | X_t = x]: the best linear denoiser plus a trained correction.

    Before training the correction is zero, so D is the exact denoiser of N(mean, cov).

    Args:
      dim: d.
      mean: (d,) mean of the data; default 0.
      cov: (d, d) covariance of the data, or (d,) variances of uncorrelated columns; default I.
      width: hidden units.
      depth: residual blocks.
      dropout: rate inside the blocks during training.
      n_classes: the number of classes; None for a network without labels.
      dtype: of the trained part, for example jnp.bfloat16. The parameters and the output of the network stay float32.
      rngs: nnx.Rngs for the initial weights. Without classes the weights do not depend on n_classes.

    Raises:
      ValueError: width, depth, dropout or n_classes is out of range; or x has another number of coordinates than dim.

    Call it as Preconditioned says: x (..., d), an OU time t of shape () or (...), labels, key=.
    """

    title = "residual MLP"

    def __init__(
        self,
        dim: int,
        *,
        mean: Any = None,
        cov: Any = None,
        width: int = 192,
        depth: int = 3,
        dropout: float | int = 0.0,
        n_classes: int | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights and take the principal axes of the data's covariance."""
        if width < 1 or depth < 0:
            raise ValueError(f"width must be at least 1 and depth at least 0: width = {width}, depth = {depth}.")
        check_dropout(dropout)
        super().__init__((int(dim),), mean=mean, cov=cov, n_classes=n_classes)
        self.dim, self.dtype = dim, dtype
        self.enter = nnx.Linear(dim, width, dtype=dtype, rngs=rngs)
        self.clock = nnx.Linear(2 * FREQUENCIES, width, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([Block(width, dropout, dtype, rngs) for _ in range(depth)])
        zeros = nnx.initializers.zeros_init()
        self.leave = nnx.Linear(width, dim, dtype=dtype, kernel_init=zeros, rngs=rngs)
        self.label = None if n_classes is None else ClassEmbedding(n_classes, width, dtype=dtype, rngs=rngs)

    def correction(self, y, t, condition, key):
        """The trained part, at y (..., d). Its input has unit variance, its output is in standard deviations."""
        clock = self.clock(time_features(t).astype(self.dtype))
        clock = nnx.silu(clock if self.label is None else clock + self.label(condition))
        hidden = self.enter(y.astype(self.dtype))
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        for block, block_key in zip(self.blocks, keys, strict=True):
            hidden = block(hidden, clock, block_key)
        return self.leave(nnx.silu(hidden)).astype(y.dtype)


class Block(nnx.Module):
    """Pre-normalised residual block, in which the time features shift and scale the normalised features."""

    def __init__(self, width, dropout, dtype, rngs):
        """Draw the weights. Those of the last map are zero, so that the block starts as the identity."""
        zeros = nnx.initializers.zeros_init()
        self.norm = LayerNorm(width, rngs)
        self.modulate = nnx.Linear(width, 2 * width, dtype=dtype, kernel_init=zeros, rngs=rngs)
        self.up = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(width, width, dtype=dtype, kernel_init=zeros, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, hidden, clock, key):
        """The features hidden (..., width) after the block; clock (..., width) are the time features."""
        shift, scale = jnp.split(self.modulate(clock), 2, axis=-1)
        inner = self.norm(hidden) * (1 + scale) + shift
        return hidden + self.down(self.dropout(nnx.silu(self.up(inner)), deterministic=key is None, rngs=key))
