"""Log-likelihood of data under a score, by the probability-flow ODE."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import noise
from jaxdiff.ode import integrate, velocity
from jaxdiff.processes import check_ends
from jaxdiff.types import ScoreFn, as_score


def log_likelihood(score: ScoreFn, x, key=None, *, early_stop, horizon=12.0, probes=None, rtol=1e-6, atol=1e-6):
    """log q(x) of the law that the probability-flow ODE makes of N(0, I) at the horizon, at OU time early_stop; nats.

    Args:
      score: s(x, t), differentiable; shapes (..., d), () -> (..., d).
      x: (n, d) points at early_stop: data noised to it, processes.forward(x0, early_stop, z).
      key: a JAX key for the probes.
      early_stop, horizon: OU times. At the horizon the law is taken for N(0, I), which an exact score misses by about
        e^-horizon |x|.
      probes: None takes the exact divergence, d products with the Jacobian a step; a number Hutchinson's estimate from
        so many random signs a particle, kept along its path: unbiased, with a standard error of its own.
      rtol, atol: of the ODE's steps.

    Returns:
      (n,) log q(x). For bits per dimension see `bits_per_dim`.
    Source: Chen et al. 2018, arXiv:1806.07366; Grathwohl et al. 2019, arXiv:1810.01367; Song et al. 2021,
      arXiv:2011.13456.
    """
    check_ends(horizon, early_stop)
    if probes is not None and (key is None or probes < 1):
        raise ValueError(f"probes are at least 1, and need a key: probes = {probes}.")
    n, d = x.shape
    if probes is None:
        signs = jnp.broadcast_to(jnp.eye(d, dtype=x.dtype), (n, d, d))
    else:
        index, each = jnp.arange(n, dtype=jnp.uint32), jnp.arange(probes, dtype=jnp.uint32)
        signs = jax.vmap(lambda k: jnp.sign(noise.normal(key, index, k, d, x.dtype)), out_axes=1)(each)
    ends, tolerances = jnp.asarray([early_stop, horizon], x.dtype), jnp.asarray([rtol, atol], x.dtype)
    return _along(as_score(score), x, signs, ends, tolerances, 1.0 if probes is None else 1.0 / probes)


# d log q/du = -div(dx/du) along a path; at the horizon q is N(0, I).
@jax.jit
def _along(score, x, signs, ends, tolerances, share):
    def one(x, signs):
        def slope(u, state):
            dx, along = jax.linearize(lambda x: velocity(score, x, u), state[0])
            return dx, share * jnp.sum(signs * jax.vmap(along)(signs))

        (end, divergence), _ = integrate(slope, (x, jnp.zeros((), x.dtype)), ends, tolerances)
        return divergence - jnp.sum(end**2) / 2 - len(x) / 2 * jnp.log(2 * jnp.pi).astype(x.dtype)

    return jax.vmap(one)(x, signs)


def bits_per_dim(log_likelihood, dim, *, bin_width=1.0):
    """Bits a dimension of data on a lattice: (-log q/d - log bin_width)/log 2, the width of a level in units of x."""
    return (-np.asarray(log_likelihood, np.float64) / dim - np.log(bin_width)) / np.log(2)
