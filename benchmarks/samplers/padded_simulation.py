"""Samplers run on padded laws: moments of their output, and path KLs from forward pairs by Girsanov's theorem."""

import collections
import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from benchmarks.laws import padded as padded_laws
from benchmarks.samplers.padded_kernels import GRID, kernel_of, table
from jaxdiff import noise, sample
from jaxdiff.processes import forward, ou

KERNELS = ("exponential_euler", "ancestral", "moment_matched")
FAMILIES = {"products": tuple(padded_laws.PRODUCTS), "mixtures": padded_laws.MIXTURES}
MOMENTS = {
    "mean": jnp.mean,
    "variance": lambda values: jnp.var(values, ddof=1),
    "third": lambda values: jnp.mean((values - jnp.mean(values)) ** 3),
}
TRACES = collections.Counter()


class Known(NamedTuple):
    """Arrays that a traced simulation indexes by law and dimension, their first two axes."""

    table: NamedTuple
    widened: np.ndarray  # the variance of each step, over that of ancestral
    rank: np.ndarray
    inverse_gram: np.ndarray


def known(name, family, dims):
    """The arrays of every law and dimension, computed on the host."""
    own, shape = [], (len(FAMILIES[family]), len(dims))
    for law, d in itertools.product(FAMILIES[family], map(int, dims)):
        widened = (table(name, law, d).spread / table("ancestral", law, d).spread) ** 2
        gram = padded_laws.inverse_gram(law, d) if family == "mixtures" else np.zeros(0)
        own.append(Known(table(name, law, d), widened, np.int64(padded_laws.rank_of(law, d)), gram))
    return jax.tree.map(lambda *parts: np.stack(parts).reshape(*shape, *parts[0].shape), *own)


def simulation(name, family, dims, particles):
    """The function of mask, key and law (an index into the family) that sweeps.run traces: moments over particles."""
    laws, tables = FAMILIES[family], known(name, family, dims)
    build, measured = {
        "products": (padded_laws.product, of_products),
        "mixtures": (padded_laws.mixture, of_mixtures),
    }[family]

    def simulated(mask, key, law):
        TRACES[name, family] += 1
        place = law, jnp.argmax(jnp.asarray(dims) == jnp.sum(mask))
        here = jax.tree.map(lambda values: jnp.asarray(values)[place], tables)
        key, key_pairs = keys_of(key, name, law + padded_laws.LAWS.index(laws[0]))
        padded = build(law, mask)
        kernel = kernel_of(name, Partial(padded_laws.score, padded), laws[0], 2)
        kernel = dataclasses.replace(kernel, coefficients=lambda grid: here.table)
        x = sample(kernel, noise.initial(key, jnp.arange(particles), mask.size), GRID, key)
        each = measured(padded, x, mask, here)
        each["path KL"] = path_kl_of_particles(name, padded, mask, key_pairs, particles, here.widened)
        return {f"{what} {of}": moment(v) for what, v in each.items() for of, moment in MOMENTS.items()}

    return simulated


def keys_of(key, name, law):
    """Keys for the chain and the pairs, different for each law and kernel, whose z are pooled as independent."""
    return jax.random.split(jax.random.fold_in(jax.random.fold_in(key, law), KERNELS.index(name)))


def _count(mask):
    return jnp.sum(mask, dtype=jnp.float64)


def _summed(values, mask):
    """The sum over the coordinates that exist, in float64."""
    return jnp.sum(jnp.where(mask, values, 0), -1, dtype=jnp.float64)


def of_products(law, x, mask, here):
    """Means over coordinates inside and outside of the first `rank`, for every particle."""
    inside = jnp.arange(mask.size) < here.rank
    mean = lambda values, where: _summed(values, where) / jnp.maximum(_count(where), 1)
    return {
        "inside x²": mean(x**2, mask & inside),
        "inside x⁴": mean(x**4, mask & inside),
        "outside x²": mean(x**2, mask & ~inside),
    }


def of_mixtures(law, x, mask, here):
    """Squares along the span of the means and across it, and whether the nearest mean has an even number."""
    x, means = (values.astype(jnp.float64) for values in (jnp.where(mask, x, 0), law.means))
    y, rank = jnp.matmul(x, means.T), here.rank.astype(jnp.float64)
    along = jnp.einsum("nk,kl,nl->n", y, here.inverse_gram, y)
    nearest = jnp.argmax(jnp.where(law.log_weights > -np.inf, y - jnp.sum(means**2, -1) / 2, -np.inf), -1)
    return {
        "inside x²": along / rank,
        "share": (nearest % 2 == 0).astype(jnp.float64),
        "outside x²": (_summed(x**2, mask) - along) / jnp.maximum(_count(mask) - rank, 1),
    }


# Girsanov: with the score frozen a step costs int E|s_v(X_v) - s(X_t, t)|^2 dv, with the denoiser frozen
# (1/2) int E|m_v(X_v) - m(X_t, t)|^2 dsnr. With w times the variance of ancestral, two Gaussians of the same means,
# (d/2)(log w + 1/w - 1) - (h/2)(1 - 1/w) E|X_0 - m(X_t, t)|^2 more, h = snr_next - snr.
# The squares grow about linearly over a step: v has a linear density, and the weights are its inverse, so that the
# weighted squares are about equal.
def path_kl_of_particles(name, law, mask, key, n, widened):
    """(n,) unbiased estimates of the path KL from forward pairs: X_v, v random in a step, and X_t from it."""
    x0 = padded_laws.draws(law, key, n, mask.size)
    keys = tuple(word[:, None] for word in noise.particle_keys(key, jnp.arange(n)))
    coordinate = jnp.arange(mask.size, dtype=jnp.uint32)
    of_score, snr = name == "exponential_euler", ou.snr(GRID)
    frozen = padded_laws.score if of_score else padded_laws.denoiser

    def step(total, at):
        k, t, t_next, snr, snr_next, w = at
        z, z_on = noise.pair(keys, k, coordinate, jnp.float32)
        share = jnp.sqrt(jax.random.uniform(jax.random.fold_in(key, k), (n, 1), jnp.float64))
        v = t + share * (t_next - t) if of_score else ou.time(snr + share * (snr_next - snr))
        xv = forward(x0, v, z)
        xt = forward(xv, t - v, z_on)
        then = frozen(law, xt, t.astype(jnp.float32))
        weight = t - t_next if of_score else (snr_next - snr) / 2
        cost = weight / (2 * share[:, 0]) * _summed((frozen(law, xv, v.astype(jnp.float32)) - then) ** 2, mask)
        if name == "moment_matched":
            left = _summed((x0 - then) ** 2, mask)
            cost += _count(mask) / 2 * (jnp.log(w) + 1 / w - 1) - (snr_next - snr) / 2 * (1 - 1 / w) * left
        return total + cost, None

    along = np.arange(len(snr) - 1, dtype=np.uint32), GRID[:-1], GRID[1:], snr[:-1], snr[1:], widened
    return jax.lax.scan(step, jnp.zeros(n, jnp.float64), jax.tree.map(jnp.asarray, along))[0]
