"""Denoising losses: what a score network is trained on, in units that path KL is made of."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.processes import check_ends, forward, ou
from jaxdiff.types import DenoiserFn

EDM_SHARE = 0.1


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
      weight: t -> weight.
      horizon, early_stop: OU times.

    Raises:
      ValueError: early_stop does not lie below the horizon.

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
    return jnp.mean(weight(t) * jnp.sum(error**2, axis=-1))
