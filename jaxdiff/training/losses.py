"""Losses of a score: the weighted L2 ones that networks are trained on, and the exponential moment of an error."""

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
EDM_SHARE = 0.1
MIN_SNR = 5.0
WEIGHTS = {
    "likelihood": lambda t: 2 * ou.snr(t) / ou.sigma(t) ** 2,  # g^2 = 2 times the score's error
    "sigma^2": lambda t: ou.snr(t),  # sigma^2 times the score's error, which is the noise's
    "snr": lambda t: ou.snr(t),  # the same, said of the denoiser's
    "min-snr": lambda t: jnp.minimum(ou.snr(t), MIN_SNR),
    "uniform": jnp.ones_like,
    "EDM": lambda t: ou.snr(t) + 1,  # (s^2 + 1)/s^2 at s = sigma/alpha, data of variance 1
}
"""Weights of the denoiser's squared error |X_0 - D|^2, each in its source's convention; alpha^2/sigma^4 of it is the
score's, alpha^2/sigma^2 the noise's.

Sources: likelihood, Song et al. 2021, arXiv:2101.09258; sigma^2, Song, Ermon 2019, arXiv:1907.05600; snr, Salimans, Ho
2022, arXiv:2202.00512; min-snr, Hang et al. 2023, arXiv:2303.09556; EDM, Karras et al. 2022, arXiv:2206.00364.
"""


def path_kl_weight(t):
    """snr + 0.1, for times uniform in log snr: nearly the weight that path KL itself gives an error.

    Path KL loses (1/2) int L dsnr = (1/2) int snr L dlog(snr) to the network, so snr is the likelihood's weight; EDM's
    is 1/sigma^2 = snr + 1. A tenth of the 1 keeps low levels, which cost no path KL, from being left untrained.
    """
    return ou.snr(t) + EDM_SHARE


def stratified_times(key, n, horizon, early_stop) -> Float[Array, " n"]:
    """(n,) times, one in each of n equal cells of log snr between the horizon and the early stop, in random order."""
    key_order, key_jitter = jax.random.split(key)
    low, high = jnp.log(ou.snr(jnp.asarray(horizon))), jnp.log(ou.snr(jnp.asarray(early_stop)))
    jitter = jax.random.uniform(key_jitter, (n,))
    cell = jax.random.permutation(key_order, n)  # else row i of a batch would always be seen at level i
    fraction = (cell.astype(jitter.dtype) + jitter) / n
    return ou.time(jnp.exp(low + (high - low) * fraction))


def denoising(
    denoiser: DenoiserFn, x0: Float[Array, "batch d"], key, *, weight=path_kl_weight, horizon=5.0, early_stop=1e-3
) -> Float[Array, ""]:
    """Weighted denoising loss E weight(t) |X_0 - D(X_t, t)|^2, times uniform in log snr and stratified over the batch.

    Args:
      denoiser: D(x, t), here with t of shape (batch,); pass jax.vmap(denoiser) if it takes one time only.
      x0: (batch, d) data.
      key: for the times and the noise.
      weight: t -> weight, or a name of WEIGHTS.
      horizon, early_stop: OU times.

    Raises:
      ValueError: early_stop does not lie below the horizon, or no weight has this name.

    Returns:
      A scalar, summed over coordinates, averaged over the batch. With the weight snr, (1/2) log(snr_end/snr_start)
      times it is (1/2) int L dsnr: what the network pays in path KL, in nats, up to a constant of the data.
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
      weight: t -> lambda(t), of the score's error; or a name of WEIGHTS, turned into that: "uniform" is of the
        denoiser's error, lambda = 1 is jnp.ones_like.
      horizon, early_stop: OU times.

    Raises:
      ValueError: as for `denoising`.

    Returns:
      A scalar, summed over coordinates, averaged over the batch. It exceeds the loss against the true score
      grad log q(X_t) by the mean of lambda alpha^2/sigma^4 mmse, a constant of the data. Times are drawn uniform in log
      snr, stratified, and weighted, as the loss is spread evenly there and not over times.
    Source: Vincent 2011, Neural Computation 23; Song et al. 2021, arXiv:2101.09258 (drawing the times by importance).
    """
    check_ends(horizon, early_stop)
    key_time, key_noise = jax.random.split(key)
    t = stratified_times(key_time, x0.shape[0], horizon, early_stop).astype(x0.dtype)
    z = jax.random.normal(key_noise, x0.shape, x0.dtype)
    error = jax.vmap(score)(forward(x0, t[:, None], z), t) + z / ou.sigma(t)[:, None]
    of_score = _weight(weight)(t) * (ou.sigma(t) ** 4 / ou.alpha(t) ** 2 if isinstance(weight, str) else 1)
    ends = ou.snr(jnp.asarray([horizon, early_stop], x0.dtype))
    density = jnp.log(ends[1] / ends[0]) / (2 * (horizon - early_stop)) * ou.sigma(t) ** 2  # dt over dlog snr, to 1
    return jnp.mean(density * of_score * jnp.sum(error**2, axis=-1))


def _weight(weight):
    """A function of t, from one or from its name."""
    if not isinstance(weight, str):
        return weight
    if weight not in WEIGHTS:
        raise ValueError(f"weight is a function of t or one of {', '.join(WEIGHTS)}: weight = {weight!r}.")
    return WEIGHTS[weight]
