"""A U-Net denoiser of images with EDM's preconditioning, for OU times."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxdiff.training.networks.attention import SelfAttention
from jaxdiff.training.networks.class_embedding import Conditioning
from jaxdiff.training.networks.norms import GroupNorm
from jaxdiff.training.networks.preconditioning import PreconditionedImages, check_dropout, image_shape
from jaxdiff.training.networks.unet_blocks import Block, DownSample, UpSample

LARGEST_ATTENTION = 8  # by default, levels of at most so many pixels in height have attention


class UNet(PreconditionedImages):
    """A denoiser of images by residual blocks of convolutions at several resolutions, each half of the one before.

    Before training the correction is zero, so the network is the exact denoiser of N(mean, cov).

    Args:
      shape: (H, W, C) of an image. H and W must be divisible by 2^(levels - 1).
      mean, cov, n_classes: as for Preconditioned.
      width: channels at full resolution.
      multipliers: the channels of each level, in units of width; as many levels as numbers.
      blocks: residual blocks of a level on the way down; one more on the way up.
      attention: heights in pixels of the levels that have self-attention; default: those of at most 8 pixels.
      dropout: rate in the blocks during training.
      dtype: of the trained part, for example jnp.bfloat16. The parameters and the output of the network stay float32.
      rngs: nnx.Rngs for the initial weights.

    Raises:
      ValueError: the size is not divisible, no level has a height in `attention`, or a number is out of range.

    Call it as Preconditioned says: x (..., H, W, C), an OU time t of shape () or (...), labels, key=.
    Source: Dhariwal, Nichol 2021, arXiv:2105.05233.
    """

    title = "U-Net"

    def __init__(
        self,
        shape: Any,
        *,
        mean: Any = None,
        cov: Any = None,
        width: int = 32,
        multipliers: Any = (1, 2),
        blocks: int = 1,
        attention: Any = None,
        dropout: float | int = 0.0,
        n_classes: int | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights and take the principal axes of the data's covariance."""
        shape, multipliers = image_shape(shape), tuple(multipliers)
        heights = _heights(shape, width, multipliers, blocks)
        wanted = [height for height in heights if height <= LARGEST_ATTENTION] if attention is None else attention
        if missing := sorted(set(wanted) - set(heights)):
            raise ValueError(f"no level is {missing[0]} pixels high: attention must name some of {heights}.")
        check_dropout(dropout)
        super().__init__(shape, mean=mean, cov=cov, n_classes=n_classes)
        self.dtype, channels = dtype, [width * int(m) for m in multipliers]
        zeros, last = nnx.initializers.zeros_init(), channels[-1]
        self.conditioning = Conditioning(4 * width, n_classes, dtype=dtype, rngs=rngs)
        self.enter = nnx.Conv(shape[2], width, (3, 3), dtype=dtype, rngs=rngs)
        attends = [height in wanted for height in heights]
        stage = lambda enter, level: _Stage(enter, channels[level], 4 * width, dropout, attends[level], dtype, rngs)
        down, skips = _down(stage, channels, width, blocks, dtype, rngs)
        self.down = nnx.List(down)
        self.middle = nnx.List([stage(last, len(channels) - 1) for _ in range(2)])
        self.up = nnx.List(_up(stage, channels, skips, blocks, dtype, rngs))
        self.norm = GroupNorm(channels[0], rngs)
        self.leave = nnx.Conv(channels[0], shape[2], (3, 3), dtype=dtype, kernel_init=zeros, rngs=rngs)

    def pixels(self, y, t, condition, key):
        """The trained part at y (batch, H, W, C), t (batch,) and labels (batch,) or None."""
        vector = self.conditioning(t, condition)
        parts = len(self.down) + len(self.middle) + len(self.up)
        keys = iter([None] * parts if key is None else jax.random.split(key, parts))
        hidden = self.enter(y.astype(self.dtype))
        skips = [hidden]
        for part in self.down:
            hidden = part(hidden, vector, next(keys))
            skips.append(hidden)
        for part in self.middle:
            hidden = part(hidden, vector, next(keys))
        for part in self.up:
            if isinstance(part, _Stage):
                hidden = jnp.concatenate([hidden, skips.pop()], axis=-1)
            hidden = part(hidden, vector, next(keys))
        return self.leave(nnx.silu(self.norm(hidden)))


class _Stage(nnx.Module):
    """A residual block, followed by self-attention between the pixels where it is asked for."""

    def __init__(self, enter, leave, features, dropout, attends, dtype, rngs):
        """Draw the weights."""
        self.block = Block(enter, leave, features, dropout, dtype, rngs)
        self.norm = GroupNorm(leave, rngs) if attends else None
        heads = max(h for h in range(1, leave + 1) if leave % h == 0 and (h == 1 or leave // h >= 32))
        self.attention = SelfAttention(leave, heads, zero=True, dtype=dtype, rngs=rngs) if attends else None

    def __call__(self, hidden, vector, key):
        """The features (batch, h, w, enter) after the stage, (batch, h, w, leave)."""
        hidden = self.block(hidden, vector, key)
        if self.attention is None or self.norm is None:
            return hidden
        batch, height, width, channels = hidden.shape
        tokens = self.norm(hidden).reshape(batch, height * width, channels)
        return hidden + self.attention(tokens).reshape(hidden.shape)


def _down(stage, channels, width, blocks, dtype, rngs):
    """The parts on the way down, and the channels of all features that the way up takes again."""
    parts, skips = [], [width]
    for level, leave in enumerate(channels):
        for _ in range(blocks):
            parts.append(stage(skips[-1], level))
            skips.append(leave)
        if level < len(channels) - 1:
            parts.append(DownSample(leave, dtype, rngs))
            skips.append(leave)
    return parts, skips


def _up(stage, channels, skips, blocks, dtype, rngs):
    """The parts on the way up; every stage takes the features of the part above and one of `skips`, last first."""
    parts, skips, now = [], list(skips), channels[-1]
    for level in reversed(range(len(channels))):
        for _ in range(blocks + 1):
            parts.append(stage(now + skips.pop(), level))
            now = channels[level]
        if level:
            parts.append(UpSample(now, dtype, rngs))
    return parts


def _heights(shape, width, multipliers, blocks):
    """The height of each level; ValueError where the size is not divisible or a number is out of range."""
    if width < 1 or blocks < 1 or not multipliers or min(multipliers) < 1:
        raise ValueError(
            f"width, blocks and every multiplier must be at least 1: width = {width}, blocks = {blocks}, "
            f"multipliers = {multipliers}."
        )
    factor = 2 ** (len(multipliers) - 1)
    if shape[0] % factor or shape[1] % factor:
        raise ValueError(
            f"a U-Net of {len(multipliers)} levels needs a height and a width divisible by {factor}: images are "
            f"{shape[0]} x {shape[1]}. Give fewer multipliers, or pad the images."
        )
    return [shape[0] // 2**level for level in range(len(multipliers))]
