"""A residual MLP denoiser with EDM's preconditioning, for OU times and along the data's principal axes."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Real

from jaxdiff.arrays import like
from jaxdiff.noise import KeyLike
from jaxdiff.processes import ou
from jaxdiff.types import Particles

FREQUENCIES = 16  # frequencies of the time features; their periods in log snr, whose range is 20, run from 4 to 64


class Statistic(nnx.Variable):
    """A moment of the data. It is saved with the parameters, and not trained."""


class ResidualMLP(nnx.Module):
    """A denoiser D(x, t), which estimates E[X_0 | X_t = x]: the best linear denoiser plus a trained correction.

    Before training the correction is zero, so D is the exact denoiser of N(mean, cov).

    Args:
      dim: d.
      mean: (d,) mean of the data; default 0.
      cov: (d, d) covariance of the data; default I.
      width: hidden units.
      depth: residual blocks.
      dropout: rate inside the blocks during training.
      rngs: nnx.Rngs for the initial weights.

    Raises:
      ValueError: width, depth or dropout is out of range; or x has another number of coordinates than dim.

    Call it with x (..., d) and an OU time t of shape () or (...). It returns (..., d) in the dtype of x. A key as third
    argument switches dropout on. The matrix products are computed in float32 at JAX's default precision. On a GPU or
    TPU set jax_default_matmul_precision to "float32" if more than three digits of the path KL matter.
    Source of the preconditioning: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    def __init__(
        self,
        dim: int,
        *,
        mean: Any = None,
        cov: Any = None,
        width: int = 192,
        depth: int = 3,
        dropout: float | int = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights and take the principal axes of the data's covariance."""
        if width < 1 or depth < 0:
            raise ValueError(f"width must be at least 1 and depth at least 0: width = {width}, depth = {depth}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be a rate in [0, 1): dropout = {dropout:g}.")
        mean = np.zeros(dim) if mean is None else np.asarray(mean, np.float64)
        unit = np.ones(dim), np.eye(dim)
        variances, axes = unit if cov is None else np.linalg.eigh(np.asarray(cov, np.float64))
        self.dim = dim
        self.mean = Statistic(jnp.asarray(mean, jnp.float32))
        self.axes = Statistic(jnp.asarray(axes, jnp.float32))
        self.variances = Statistic(jnp.asarray(np.maximum(variances, 0), jnp.float32))
        self.enter = nnx.Linear(dim, width, rngs=rngs)
        self.clock = nnx.Linear(2 * FREQUENCIES, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, dropout, rngs) for _ in range(depth)])
        self.leave = nnx.Linear(width, dim, kernel_init=nnx.initializers.zeros_init(), rngs=rngs)

    # Along a principal axis of variance s, X_t has variance v = alpha^2 s + sigma^2. The best linear denoiser has slope
    # alpha s / v and error variance s sigma^2 / v. As in EDM, the input of the network is scaled to unit variance, and
    # its output is multiplied by the standard deviation of the error.
    def __call__(self, x: Particles, t: Real[ArrayLike, "..."], key: KeyLike = None) -> Particles:
        """The denoiser at x (..., d) and t () or (...); with dropout if a key is given."""
        if x.shape[-1] != self.dim:
            raise ValueError(
                f"x has width {x.shape[-1]}, this network was built for {self.dim}: x must be (..., {self.dim})."
            )
        given, x = x.dtype, x.astype(jnp.float32)
        alpha = ou.alpha(like(t, x)[..., None])
        y = (x - alpha * self.mean[...]) @ self.axes[...]
        return (self.mean[...] + self.centred(y, t, key) @ self.axes[...].T).astype(given)

    def centred(self, y, t, key=None):
        """The denoiser of centred data in the coordinates of the principal axes: y (..., d), t () or (...)."""
        t = like(t, y)[..., None]
        alpha, sigma, s = ou.alpha(t), ou.sigma(t), self.variances[...]
        v = alpha**2 * s + sigma**2
        correction = sigma * jnp.sqrt(s / v) * self.correction(y / jnp.sqrt(v), t, key)
        return alpha * s / v * y + correction

    def correction(self, y, t, key):
        """The trained part. Its input has unit variance, its output is in standard deviations of the error."""
        clock = nnx.silu(self.clock(time_features(t)))
        hidden = self.enter(y)
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        for block, block_key in zip(self.blocks, keys, strict=True):
            hidden = block(hidden, clock, block_key)
        return self.leave(nnx.silu(hidden))


class Block(nnx.Module):
    """Pre-normalised residual block, in which the time features shift and scale the normalised features."""

    def __init__(self, width, dropout, rngs):
        """Draw the weights. Those of the last map are zero, so that the block starts as the identity."""
        self.norm = nnx.LayerNorm(width, use_bias=False, use_scale=False, rngs=rngs)
        self.modulate = nnx.Linear(width, 2 * width, kernel_init=nnx.initializers.zeros_init(), rngs=rngs)
        self.up = nnx.Linear(width, width, rngs=rngs)
        self.down = nnx.Linear(width, width, kernel_init=nnx.initializers.zeros_init(), rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, hidden, clock, key):
        """The features hidden (..., width) after the block; clock (..., width) are the time features."""
        shift, scale = jnp.split(self.modulate(clock), 2, axis=-1)
        inner = self.norm(hidden) * (1 + scale) + shift
        return hidden + self.down(self.dropout(nnx.silu(self.up(inner)), deterministic=key is None, rngs=key))


def time_features(t):
    """Cosines and sines of log snr, whose range is about +-10; (..., 1) -> (..., 2 FREQUENCIES)."""
    angle = jnp.log(ou.snr(t)) * jnp.geomspace(math.pi / 32, math.pi / 2, FREQUENCIES, dtype=t.dtype)
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
