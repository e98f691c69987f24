"""Both sides of the identities in Benton's proof: functions of the mmse curve, and averages over forward pairs."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.samplers.devices import spread
from jaxdiff import information
from jaxdiff.guarantees.path_kl import standard_error
from jaxdiff.processes import forward, ou
from jaxdiff.targets.posterior_covariance import form_of

WIDTH = 0.005  # of differences in log t


def of_curve(function, curve):
    """A function of the curve, and the standard error that it has from the curve's replicates."""
    return float(function(curve)), standard_error([float(function(one)) for one in curve.replicates])


def slope_in_time(curve, t):
    """dV/dt by fourth-order differences in log t; relative error below 1e-7."""
    at = lambda shift: curve(ou.snr(np.asarray(t) * np.exp(shift * WIDTH)))
    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * WIDTH * t)


def localised(t):
    """2 e^-2t/sigma^4, the factor of E|Sigma_t|_F^2 in dV/dt."""
    snr = ou.snr(t)
    return 2 * snr * (1 + snr)


# e^-t s_t(X_t) is a martingale as t falls; with I = e^-2t J the increments of its mean square are those of I.
def drift_gap(curve, t, v):
    """E_{v,t} = E|s_v(X_v) - s_t(X_t)|^2, v < t, from Fisher informations."""
    fisher = lambda t: np.exp(-2 * t) * information.fisher_information(curve, t)
    return np.exp(2 * v) * (fisher(v) - fisher(t)) + (np.exp(t) - np.exp(v)) ** 2 * fisher(t)


def drift_rate(curve, t):
    """2 E|Hess log q_t|_F^2, the slope of E_{v,t} in t - v at 0; Hess = -1/sigma^2 + (alpha^2/sigma^4) Sigma."""
    snr = ou.snr(t)
    squares = slope_in_time(curve, t) / localised(t)
    return 2 * (1 + snr) ** 2 * (curve.dim - 2 * snr * curve(snr) + snr**2 * squares)


def posterior(target, t, seed, n):
    """Tr Sigma_t and |Sigma_t|_F^2 at n draws of X_t."""
    components, rng = target.score.args[0], np.random.default_rng(seed)
    form, snr = form_of(components, None), ou.snr(t)
    label = rng.choice(len(components.means), size=n, p=np.exp(components.log_weights))
    values = form.eigenvalues(form.noised(label, rng.standard_normal((n, form.width)), snr), snr)
    return values @ form.multiplicity, values**2 @ form.multiplicity


def _one_gap(score, frozen, x0, z, w, t, v):
    x = forward(x0, v, z)
    return jnp.sum((score(x, v) - frozen(forward(x, t - v, w), t)) ** 2)


_gaps = jax.jit(jax.vmap(_one_gap, in_axes=(None, None, 0, 0, 0, 0, 0)))


def gaps(target, t, v, key, frozen=None):
    """|s_v(X_v) - s_t(X_t)|^2 of forward pairs at times (n,); frozen: another score at t. One key, the same pairs."""
    key_data, key_noise = jax.random.split(key)
    t, v = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(v, np.float64))
    x0, noise = target.sample(key_data, len(v)), jax.random.normal(key_noise, (2, len(v), target.dim))
    return np.asarray(_gaps(target.score, frozen or target.score, *map(spread, (x0, *noise, t, v))))
