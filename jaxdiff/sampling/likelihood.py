"""Log-likelihood of data under a score, by the probability-flow ODE."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from jaxdiff import noise
from jaxdiff.arrays import Whole
from jaxdiff.checks import check_number
from jaxdiff.noise import KeyLike
from jaxdiff.processes import ou
from jaxdiff.processes.default_times import check_ends
from jaxdiff.processes.models import check_times, range_of
from jaxdiff.sampling.arguments import ParticlesLike, Scalar, WholeNumber
from jaxdiff.sampling.compiled import jitted
from jaxdiff.sampling.ode import check_finished, check_tolerances, checked_positions, integrate, velocity, widened
from jaxdiff.types import ScoreFn, as_score

HORIZON = 12.0  # OU time at which the law is taken for N(0, I): data of size r are e^-12 r = 6e-6 r away from it


def log_likelihood(
    score: ScoreFn,
    x: ParticlesLike,
    key: KeyLike = None,
    *,
    early_stop: Scalar,
    horizon: Scalar | None = None,
    probes: WholeNumber | None = None,
    first_particle: WholeNumber = 0,
    rtol: Scalar = 1e-6,
    atol: Scalar = 1e-6,
) -> Float[Array, " n"]:
    """Log-likelihood in nats of points at OU time early_stop, by the probability-flow ODE.

    The ODE maps N(0, I) at the horizon to a law with density q at early_stop; this returns log q(x).

    Args:
      score: s(x, t), differentiable; shapes (..., d), () -> (..., d). It is called with one particle at a time, as x of
        shape (1, d).
      x: (n, d) points at early_stop. Those of 16 bits are computed in float32, as is the result.
      key: a JAX key for the probes.
      early_stop, horizon: OU times; for a model of another process they lie within processes.ou_ends. The default
        horizon is the latest time of the model behind the score (processes.range_of), or 12 without a model. At the
        horizon the law is taken for N(0, I); for data of size r the two are about e^-horizon r apart.
      probes: None computes the exact divergence, with d products with the Jacobian a step. A number uses Hutchinson's
        estimate from so many vectors of random signs for each point, the same along its path. It is unbiased and has a
        standard error.
      first_particle: the index of x[0]; it selects the probes, for data in several calls.
      rtol, atol: relative and absolute error of a step of the ODE.

    Returns:
      (n,) log q(x). For bits per dimension see `bits_per_dim`.

    Raises:
      ValueError: x is not (n, d), early_stop and horizon are not two OU times, the model behind the score does not have
        them, or there are probes without a key.
      RuntimeError: the ODE of a point does not reach the horizon within 10,000 steps, or the score is nan on the way.
        Inside jit nothing can be raised; there the value of such a point is nan.
      ImportError: diffrax is missing; it comes with the extra `ode`.
    Source: Chen et al. 2018, arXiv:1806.07366; Grathwohl et al. 2019, arXiv:1810.01367; Song et al. 2021,
      arXiv:2011.13456.
    """
    score, x = as_score(score), checked_positions(x)
    if horizon is None:
        horizon, _ = range_of(score) or (HORIZON, early_stop)
    check_ends(horizon, early_stop)
    check_times(score, np.array([horizon, early_stop], np.float64))
    check_tolerances(rtol, atol)
    if probes is not None:
        check_number(probes, "probes")
    if probes is not None and (key is None or probes < 1 or probes != int(probes)):
        raise ValueError(f"probes are a whole number, at least 1, and need a key: probes = {probes}.")
    (score, x), (n, d) = widened(score, x), x.shape
    if probes is None or key is None:
        signs = jnp.eye(d, dtype=x.dtype)
    else:
        index, each = first_particle + jnp.arange(n, dtype=jnp.uint32), jnp.arange(int(probes), dtype=jnp.uint32)
        signs = jax.vmap(lambda k: noise.signs(key, index, k, d, x.dtype), out_axes=1)(each)
    ends, tolerances = jnp.asarray([early_stop, horizon], x.dtype), jnp.asarray([rtol, atol], x.dtype)
    found, steps = _integrated(score, x, signs, ends, tolerances)
    check_finished(found, steps)
    return found


# Along a path d log q/du = -div(dx/du), and at the horizon q is N(0, I).
@jitted
def _integrated(score, x, signs, ends, tolerances):
    """The log-likelihoods (n,) and the number of steps of each point (n,).

    signs: (d, d) the identity, for the exact divergence; or (n, probes, d) random signs, whose terms are averaged.
    """
    weight = 1.0 if signs.ndim == 2 else 1.0 / signs.shape[1]

    def one(x, signs):
        def slope(u, state):
            dx, along = jax.linearize(lambda x: velocity(score, x, u), state[0])
            return dx, weight * jnp.sum(signs * jax.vmap(along)(signs))

        (end, divergence), steps = integrate(slope, (x, jnp.zeros((), x.dtype)), ends, tolerances)
        return divergence - jnp.sum(end**2) / 2 - len(x) / 2 * jnp.log(2 * jnp.pi).astype(x.dtype), steps

    return jax.vmap(one, in_axes=(0, None if signs.ndim == 2 else 0))(x, signs)


def bits_per_dim(
    log_likelihood: Real[ArrayLike, "*points"], dim: Whole, *, early_stop: Scalar, bin_width: Scalar = 1.0
) -> Float[np.ndarray | np.number, "*points"]:
    """Upper bound on the bits per dimension that a model needs for data on a lattice, such as pixels.

    Let u be data plus uniform noise as wide as one level of the lattice, and alpha = processes.ou.alpha(early_stop).
    Then alpha^d q(alpha u) is a density of u, and the mean of its negative logarithm is at least the code length of the
    data themselves.

    Args:
      log_likelihood: log q at the points alpha u.
      dim: d.
      early_stop: OU time of the likelihood.
      bin_width: width of a level, in units of u.

    Returns:
      (-log q/d - log alpha - log bin_width)/log 2, the shape of log_likelihood.
    Source: Theis, van den Oord, Bethge, ICLR 2016, arXiv:1511.01844.
    """
    nats = -np.asarray(log_likelihood, np.float64) / dim - np.log(ou.alpha(early_stop)) - np.log(bin_width)
    return nats / np.log(2)
