"""Losses: the weighted L2 losses that networks are trained on, and the exponential moment of a score error."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.arrays import wide
from jaxdiff.guarantees.exponential_moment import ExponentialMoment, exponential_moment, moment_bound
from jaxdiff.noise import KeyLike
from jaxdiff.processes import forward, ou
from jaxdiff.processes.default_times import check_ends
from jaxdiff.sampling.arguments import Scalar
from jaxdiff.training.times import stratified_times
from jaxdiff.types import DenoiserFn, ScoreFn

__all__ = [
    "WEIGHTS",
    "ExponentialMoment",
    "denoising",
    "exponential_moment",
    "moment_bound",
    "path_kl_weight",
    "row_losses",
    "score_matching",
    "stratified_times",
    "weight_of",
]
# EDM draws log s from N(-1.2, 1.2^2), s = sigma/alpha, for data of deviation 0.5. In units of that deviation the mean
# is -1.2 - log 0.5, and log snr = -2 log s has twice the deviation. The weight EDM-lognormal has this density, up to a
# factor, in place of times that are drawn so.
EDM_CENTRE = -2 * (-1.2 - math.log(0.5))
WEIGHTS = {
    "likelihood": lambda t: 2 * ou.snr(t) / ou.sigma(t) ** 2,  # g^2 = 2 times the squared error of the score
    "sigma^2": lambda t: ou.snr(t),  # sigma^2 times the squared error of the score: the squared error of the noise
    "snr": lambda t: ou.snr(t),  # equal to sigma^2; its source states it for the denoiser
    "min-snr": lambda t: jnp.minimum(ou.snr(t), 5.0),  # 5 as in the source
    "uniform": jnp.ones_like,
    "EDM": lambda t: ou.snr(t) + 1,  # (s^2 + 1)/s^2 at s = sigma/alpha, for data of variance 1
    "EDM-lognormal": lambda t: (ou.snr(t) + 1) * jnp.exp(-((jnp.log(ou.snr(t)) - EDM_CENTRE) ** 2) / (2 * 2.4**2)),
}
"""Weights of the denoiser's squared error |X_0 - D|^2, with the constants of their sources. The squared error of the
score is alpha^2/sigma^4 times that of the denoiser, the squared error of the noise alpha^2/sigma^2 times.

Sources: likelihood, Song et al. 2021, arXiv:2101.09258; sigma^2, Song, Ermon 2019, arXiv:1907.05600; snr, Salimans, Ho
2022, arXiv:2202.00512; min-snr, Hang et al. 2023, arXiv:2303.09556; EDM, Karras et al. 2022, arXiv:2206.00364,
whose log-normal law of the noise levels EDM-lognormal has as a factor.
"""


def path_kl_weight(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """The weight snr + 0.1, which is nearly that of path KL when times are uniform in log snr.

    A loss L of the network contributes (1/2) int L dsnr = (1/2) int snr L dlog(snr) to the path KL, so the weight of
    path KL is snr. That weight would leave the network untrained at low snr, where errors hardly change the path KL.
    The weight snr + 1 of EDM trains the network there too. 0.1 keeps this, and is closer to the weight of path KL.
    """
    return ou.snr(t) + 0.1


def denoising(
    denoiser: DenoiserFn,
    x0: Float[Array, "batch *event"],
    key: KeyLike,
    *,
    weight: str | Callable[..., Any] = path_kl_weight,
    horizon: Scalar = 5.0,
    early_stop: Scalar = 1e-3,
) -> Float[Array, ""]:
    """Weighted denoising loss E weight(t) |X_0 - D(X_t, t)|^2, with times stratified uniformly in log snr.

    Unlike everywhere else in jaxdiff, the denoiser is called with one time for each row: x (batch, d) and t (batch,).
    A batch at a single time would be a noisier loss. Calling the denoiser row by row with scalar times, under
    jax.vmap, would give every row the same dropout mask.

    Args:
      denoiser: D(x, t), x (batch, d), t (batch,) -> (batch, d), as networks take them. If yours takes a scalar t, pass
        jax.vmap(denoiser).
      x0: (batch, *event) data: rows (batch, d), images (batch, H, W, C).
      key: a JAX key for the times and the noise.
      weight: a function of t, or a name in WEIGHTS.
      horizon, early_stop: OU times.

    Raises:
      ValueError: early_stop does not lie below the horizon, or no weight has this name.

    Returns:
      A scalar: the error is summed over the event and averaged over the batch. With the weight snr, the loss times
      (1/2) log(snr_end/snr_start) is (1/2) int L dsnr: the network's part of the path KL in nats, plus a constant that
      depends on the data alone.
    Source: Vincent 2011, Neural Computation 23; weights: Song et al. 2021, arXiv:2101.09258, and Karras et al. 2022,
      arXiv:2206.00364, rewritten for the denoiser.
    """
    check_ends(horizon, early_stop)
    key_time, key_noise = jax.random.split(key)
    x0 = wide(x0)
    t = stratified_times(key_time, x0.shape[0], horizon, early_stop).astype(x0.dtype)
    z = jax.random.normal(key_noise, x0.shape, x0.dtype)
    return jnp.mean(row_losses(denoiser, x0, t, z, weight))


def row_losses(
    denoiser: DenoiserFn,
    x0: Float[Array, "batch *event"],
    t: Float[Array, " batch"],
    z: Float[Array, "batch *event"],
    weight: str | Callable[..., Any],
) -> Float[Array, " batch"]:
    """weight(t) |X_0 - D(X_t, t)|^2 of every row, at given times and noises. The error is summed over the event."""
    error = x0 - wide(denoiser(forward(x0, _over_events(t, x0), z), t)).astype(x0.dtype)
    return weight_of(weight)(t) * jnp.sum(error**2, axis=tuple(range(1, x0.ndim)))


def score_matching(
    score: ScoreFn,
    x0: Float[Array, "batch *event"],
    key: KeyLike,
    *,
    weight: str | Callable[..., Any] = "likelihood",
    horizon: Scalar = 5.0,
    early_stop: Scalar = 1e-3,
) -> Float[Array, ""]:
    """The L2 loss of a score, E lambda(t) |s(X_t, t) - grad log q(X_t | X_0)|^2, t uniform on [early_stop, horizon].

    The times are drawn stratified in log snr and weighted, because the loss varies less there.

    Args:
      score: s(x, t), shapes (..., d), () -> (..., d). It is called with one row and its time, under jax.vmap.
      x0: (batch, *event) data: rows (batch, d), images (batch, H, W, C).
      key: a JAX key for the times and the noise.
      weight: a function lambda(t), the weight of the squared error of the score; or a name in WEIGHTS. Those are
        weights of the denoiser's squared error and are converted: "uniform" is not lambda = 1, which is jnp.ones_like.
      horizon, early_stop: OU times.

    Raises:
      ValueError: as for `denoising`.

    Returns:
      A scalar: the error is summed over the event and averaged over the batch. It exceeds the loss against the true
      score grad log q(X_t) by the mean of lambda alpha^2/sigma^4 mmse, which depends on the data alone.
    Source: Vincent 2011, Neural Computation 23; Song et al. 2021, arXiv:2101.09258 (importance sampling of the times).
    """
    check_ends(horizon, early_stop)
    key_time, key_noise = jax.random.split(key)
    x0 = wide(x0)
    t = stratified_times(key_time, x0.shape[0], horizon, early_stop).astype(x0.dtype)
    z = jax.random.normal(key_noise, x0.shape, x0.dtype)
    found = wide(jax.vmap(score)(forward(x0, _over_events(t, x0), z), t)).astype(x0.dtype)
    error = found + z / _over_events(ou.sigma(t), x0)
    of_score = weight_of(weight)(t) * (ou.sigma(t) ** 4 / ou.alpha(t) ** 2 if isinstance(weight, str) else 1)
    ends = ou.snr(jnp.asarray([horizon, early_stop], x0.dtype))
    density = jnp.log(ends[1] / ends[0]) / (2 * (horizon - early_stop)) * ou.sigma(t) ** 2  # dt/dlog(snr), normalised
    return jnp.mean(density * of_score * jnp.sum(error**2, axis=tuple(range(1, x0.ndim))))


def _over_events(values, x):
    """values (batch,) with an axis of length 1 for every axis of the event of x (batch, *event)."""
    return values.reshape(values.shape + (1,) * (x.ndim - 1))


def weight_of(weight: str | Callable[..., Any]) -> Callable[..., Any]:
    """The weight as a function of t; names are looked up in WEIGHTS.

    Raises:
      ValueError: no weight has this name.
    """
    if not isinstance(weight, str):
        return weight
    if weight not in WEIGHTS:
        raise ValueError(f"weight must be a function of t or one of {', '.join(WEIGHTS)}: weight = {weight!r}.")
    return WEIGHTS[weight]
