"""Losses of a score: the weighted L2 losses that networks are trained on, and the exponential moment of an error."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.guarantees.exponential_moment import ExponentialMoment, exponential_moment, moment_bound
from jaxdiff.processes import forward, ou
from jaxdiff.processes.ou import check_ends
from jaxdiff.types import DenoiserFn, ScoreFn

__all__ = [
    "WEIGHTS",
    "ExponentialMoment",
    "denoising",
    "exponential_moment",
    "moment_bound",
    "path_kl_weight",
    "score_matching",
    "stratified_times",
]
WEIGHTS = {
    "likelihood": lambda t: 2 * ou.snr(t) / ou.sigma(t) ** 2,  # g^2 = 2 times the error of the score
    "sigma^2": lambda t: ou.snr(t),  # sigma^2 times the error of the score: the error of the noise
    "snr": lambda t: ou.snr(t),  # the same weight, as published for the denoiser
    "min-snr": lambda t: jnp.minimum(ou.snr(t), 5.0),  # 5 as published
    "uniform": jnp.ones_like,
    "EDM": lambda t: ou.snr(t) + 1,  # (s^2 + 1)/s^2 at s = sigma/alpha, for data of variance 1
}
"""Weights of the denoiser's squared error |X_0 - D|^2, with the constants of their sources. The squared error of the
score is alpha^2/sigma^4 times that of the denoiser, the squared error of the noise alpha^2/sigma^2 times.

Sources: likelihood, Song et al. 2021, arXiv:2101.09258; sigma^2, Song, Ermon 2019, arXiv:1907.05600; snr, Salimans, Ho
2022, arXiv:2202.00512; min-snr, Hang et al. 2023, arXiv:2303.09556; EDM, Karras et al. 2022, arXiv:2206.00364.
"""


def path_kl_weight(t):
    """snr + 0.1, for times uniform in log snr: nearly the weight of an error in path KL.

    A loss L of the network costs (1/2) int L dsnr = (1/2) int snr L dlog(snr) of path KL, so the weight of path KL is
    snr. It would leave the network untrained at low snr, where errors cost no path KL. The weight of EDM,
    snr + 1, trains there too; this one has a tenth of its constant.
    """
    return ou.snr(t) + 0.1


def stratified_times(key, n, horizon, early_stop) -> Float[Array, " n"]:
    """(n,) times in random order, one in each of n cells of equal length in log snr, from the horizon to early_stop."""
    key_order, key_jitter = jax.random.split(key)
    low, high = jnp.log(ou.snr(jnp.asarray(horizon))), jnp.log(ou.snr(jnp.asarray(early_stop)))
    jitter = jax.random.uniform(key_jitter, (n,))
    cell = jax.random.permutation(key_order, n)  # otherwise row i of a batch would always get noise level i
    fraction = (cell.astype(jitter.dtype) + jitter) / n
    return ou.time(jnp.exp(low + (high - low) * fraction))


def denoising(
    denoiser: DenoiserFn, x0: Float[Array, "batch d"], key, *, weight=path_kl_weight, horizon=5.0, early_stop=1e-3
) -> Float[Array, ""]:
    """Weighted denoising loss E weight(t) |X_0 - D(X_t, t)|^2, with times stratified uniformly in log snr.

    Args:
      denoiser: D(x, t), here with t of shape (batch,); pass jax.vmap(denoiser) if it only takes a scalar t.
      x0: (batch, d) data.
      key: for the times and the noise.
      weight: t -> weight, or a name of WEIGHTS.
      horizon, early_stop: OU times.

    Raises:
      ValueError: early_stop does not lie below the horizon, or no weight has this name.

    Returns:
      A scalar, summed over coordinates, averaged over the batch. With the weight snr, multiply it by
      (1/2) log(snr_end/snr_start) to get (1/2) int L dsnr: the network's cost in path KL in nats, up to a constant of
      the data.
    Source: Vincent 2011, Neural Computation 23; weights: Song et al. 2021, arXiv:2101.09258, and Karras et al. 2022,
      arXiv:2206.00364, rewritten for the denoiser.
    """
    check_ends(horizon, early_stop)
    key_time, key_noise = jax.random.split(key)
    t = stratified_times(key_time, x0.shape[0], horizon, early_stop).astype(x0.dtype)
    z = jax.random.normal(key_noise, x0.shape, x0.dtype)
    error = x0 - denoiser(forward(x0, t[:, None], z), t)
    return jnp.mean(_weight(weight)(t) * jnp.sum(error**2, axis=-1))


def score_matching(
    score: ScoreFn, x0: Float[Array, "batch d"], key, *, weight="likelihood", horizon=5.0, early_stop=1e-3
) -> Float[Array, ""]:
    """The L2 loss of a score, E lambda(t) |s(X_t, t) - grad log q(X_t | X_0)|^2 over OU times uniform between the ends.

    Args:
      score: s(x, t), shapes (..., d), () -> (..., d).
      x0: (batch, d) data.
      key: for the times and the noise.
      weight: t -> lambda(t), the weight of the score's error; or a name of WEIGHTS, which are weights of the denoiser's
        error and are converted. So "uniform" is not lambda = 1; that is jnp.ones_like.
      horizon, early_stop: OU times.

    Raises:
      ValueError: as for `denoising`.

    Returns:
      A scalar, summed over coordinates, averaged over the batch. It exceeds the loss against the true score
      grad log q(X_t) by the mean of lambda alpha^2/sigma^4 mmse, a constant of the data. Times are drawn stratified in
      log snr, where the loss is spread evenly, and weighted so that the mean is that of uniform times.
    Source: Vincent 2011, Neural Computation 23; Song et al. 2021, arXiv:2101.09258 (drawing the times by importance).
    """
    check_ends(horizon, early_stop)
    key_time, key_noise = jax.random.split(key)
    t = stratified_times(key_time, x0.shape[0], horizon, early_stop).astype(x0.dtype)
    z = jax.random.normal(key_noise, x0.shape, x0.dtype)
    error = jax.vmap(score)(forward(x0, t[:, None], z), t) + z / ou.sigma(t)[:, None]
    of_score = _weight(weight)(t) * (ou.sigma(t) ** 4 / ou.alpha(t) ** 2 if isinstance(weight, str) else 1)
    ends = ou.snr(jnp.asarray([horizon, early_stop], x0.dtype))
    density = jnp.log(ends[1] / ends[0]) / (2 * (horizon - early_stop)) * ou.sigma(t) ** 2  # dt/dlog(snr), normalised
    return jnp.mean(density * of_score * jnp.sum(error**2, axis=-1))


def _weight(weight):
    """The weight as a function of t; it may be given by name."""
    if not isinstance(weight, str):
        return weight
    if weight not in WEIGHTS:
        raise ValueError(f"weight is a function of t or one of {', '.join(WEIGHTS)}: weight = {weight!r}.")
    return WEIGHTS[weight]
