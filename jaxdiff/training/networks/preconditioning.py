"""EDM's preconditioning for OU times: the best linear denoiser, plus a trained correction in units of its error."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from jaxdiff.arrays import like
from jaxdiff.noise import KeyLike
from jaxdiff.processes import ou
from jaxdiff.training.networks.class_embedding import Condition, check_condition

# Up to so many numbers an event, moments along principal axes are worth their cost: 2 products of 1024 x 1024 numbers
# a call (4 MFLOPs a row, less than the smallest U-Net) and 4 MiB in every checkpoint. 64 x 64 x 3 pixels would need
# 600 MiB. Their covariance could also not be estimated from fewer rows than pixels.
MOST_AXES = 1024


class Statistic(nnx.Variable):
    """A moment of the data. It is saved with the parameters, and not trained."""


class Preconditioned(nnx.Module):
    """A denoiser D(x, t), which estimates E[X_0 | X_t = x]: the best linear denoiser plus a trained correction.

    A network inherits from this class and defines `correction`. Its output must be zero before training. Then D is the
    exact denoiser of N(mean, cov).

    Args:
      shape: the shape of an event: (d,) for rows, (H, W, C) for images.
      mean: the mean of the data, of shape `shape` or (d,); default 0.
      cov: the covariance of the data. (d, d), with d the number of numbers in an event: the moments are taken along the
        principal axes of the flattened event. (C,): each channel (the last axis) has one variance, and all numbers are
        uncorrelated. Default: the unit covariance, along axes up to d = MOST_AXES and by channel beyond it.
      n_classes: the number of classes; None for a network without labels.

    Raises:
      ValueError: mean or cov has another shape, or x has another event shape.

    Attributes:
      mean, axes, variances: Statistics of shape (d,), (d, d) and (d,), or `shape`, None and (C,).

    Call it with x (..., *shape), an OU time t of shape () or (...), and labels `condition` () or (...). It returns
    (..., *shape) in the dtype of x. `key` switches dropout on. The products with the axes are computed in float32 at
    JAX's default precision. On a GPU or TPU set jax_default_matmul_precision to "float32" if more than three digits of
    the path KL matter.
    Source: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    def __init__(self, shape: tuple[int, ...], *, mean: Any, cov: Any, n_classes: int | None) -> None:
        """Take the principal axes of the covariance."""
        self.shape, self.n_classes = shape, n_classes
        d = math.prod(shape)
        mean = np.zeros(d) if mean is None else np.asarray(mean, np.float64)
        if mean.size != d:
            raise ValueError(f"the mean has shape {mean.shape}, an event {shape}: they must agree.")
        variances, axes = _moments(shape, d, cov)
        self.mean = Statistic(jnp.asarray(mean.reshape(shape if axes is None else d), jnp.float32))
        self.axes = None if axes is None else Statistic(jnp.asarray(axes, jnp.float32))
        self.variances = Statistic(jnp.asarray(np.maximum(variances, 0), jnp.float32))

    # Where X_0 has variance s, X_t has variance v = alpha^2 s + sigma^2. The best linear denoiser has slope alpha s / v
    # and error variance s sigma^2 / v. As in EDM, the input of the network is scaled to unit variance, and its output
    # is multiplied by the standard deviation of the error.
    def __call__(
        self,
        x: Float[Array, "..."],
        t: Real[ArrayLike, "..."],
        condition: Condition = None,
        *,
        key: KeyLike = None,
    ) -> Float[Array, "..."]:
        """The denoiser at x (..., *shape), t () or (...) and labels () or (...); with dropout if a key is given."""
        self._check(x)
        check_condition(condition, self.n_classes)
        given, x = x.dtype, x.astype(jnp.float32)
        t, lead = like(t, x), x.shape[: x.ndim - len(self.shape)]
        if self.axes is None:
            y = x - ou.alpha(self._beside(t)) * self.mean[...]
            return (self.mean[...] + self.centred(y, t, condition, key)).astype(given)
        flat = x.reshape(*lead, -1)
        y = (flat - ou.alpha(self._beside(t)) * self.mean[...]) @ self.axes[...]
        flat = self.mean[...] + self.centred(y, t, condition, key) @ self.axes[...].T
        return flat.reshape(x.shape).astype(given)

    def centred(self, y: Any, t: Any, condition: Condition = None, key: KeyLike = None) -> Any:
        """The denoiser of centred data, in the coordinates of the principal axes where the network has them.

        y: (..., d) in the coordinates of the axes; (..., *shape) without axes. t and condition: () or (...).
        """
        t = like(t, y)
        time = self._beside(t)
        alpha, sigma, s = ou.alpha(time), ou.sigma(time), self.variances[...]
        v = alpha**2 * s + sigma**2
        correction = sigma * jnp.sqrt(s / v) * self.correction(y / jnp.sqrt(v), t, condition, key)
        return alpha * s / v * y + correction

    def correction(self, y: Any, t: Any, condition: Condition, key: KeyLike) -> Any:
        """The trained part. Its input has unit variance, its output is in standard deviations of the error."""
        raise NotImplementedError("a preconditioned network defines correction(y, t, condition, key).")

    def _beside(self, t):
        """Times (...) with axes of length 1 behind, so that they broadcast with y."""
        behind = len(self.shape) if self.axes is None else 1
        return t.reshape(*t.shape, *[1] * behind)

    def _check(self, x):
        """Raise ValueError unless the last axes of x are an event."""
        if x.shape[max(x.ndim - len(self.shape), 0) :] == self.shape:
            return
        if len(self.shape) == 1:
            (d,) = self.shape
            raise ValueError(f"x has width {x.shape[-1]}, this network was built for {d}: x must be (..., {d}).")
        raise ValueError(
            f"x has shape {x.shape}, this network was built for events of shape {self.shape}: give it those."
        )


class PreconditionedImages(Preconditioned):
    """A preconditioned denoiser of images, whose trained part `pixels` works on (batch, H, W, C).

    With principal axes, the trained part sees the image of unit covariance that is nearest to the scaled noised image:
    it is scaled along the axes, and turned back to pixels. Its output is turned to the axes and scaled there.
    """

    def correction(self, y: Any, t: Any, condition: Condition, key: KeyLike) -> Any:
        """The trained part, in the coordinates of y: those of the axes where the network has them."""
        lead = y.shape[:-1] if self.axes is not None else y.shape[: y.ndim - len(self.shape)]
        pixels = y if self.axes is None else y @ self.axes[...].T
        labels = None if condition is None else jnp.broadcast_to(jnp.asarray(condition), lead).reshape(-1)
        out = self.pixels(pixels.reshape(-1, *self.shape), jnp.broadcast_to(t, lead).reshape(-1), labels, key)
        out = out.astype(y.dtype)
        return out.reshape(y.shape) if self.axes is None else out.reshape(y.shape) @ self.axes[...]

    def pixels(self, y: Any, t: Any, condition: Condition, key: KeyLike) -> Any:
        """The trained part on y (batch, H, W, C), t (batch,) and labels (batch,) or None -> (batch, H, W, C)."""
        raise NotImplementedError("a network of images defines pixels(y, t, condition, key).")


def check_dropout(dropout: float | int) -> None:
    """Raise ValueError unless the dropout rate lies in [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a rate in [0, 1): dropout = {dropout:g}.")


def image_shape(shape: Any) -> tuple[int, int, int]:
    """The shape (H, W, C) of an image as whole numbers; ValueError for other shapes."""
    found = tuple(int(size) for size in shape)
    if len(found) != 3 or min(found) < 1:
        raise ValueError(f"the shape of an image must be (height, width, channels): it is {found}.")
    return found


def _moments(shape, d, cov):
    """The variances and principal axes of a covariance; the axes are None where each channel has a variance."""
    if cov is None:
        return (np.ones(d), np.eye(d)) if len(shape) == 1 or d <= MOST_AXES else (np.ones(shape[-1]), None)
    cov = np.asarray(cov, np.float64)
    if cov.shape == (d, d):
        return np.linalg.eigh(cov)
    if cov.shape == shape[-1:]:
        return cov, None
    raise ValueError(
        f"cov has shape {cov.shape}: for events of shape {shape} it must be {(d, d)}, the covariance of the flattened "
        f"event, or {shape[-1:]}, a variance for each channel."
    )
