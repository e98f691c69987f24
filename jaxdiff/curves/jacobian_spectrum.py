"""The path KL of covariance matching with a learned denoiser, from the spectrum of its Jacobian on held-out data.

The kernel's innovation has covariance v0 A, A = I + h S. Here S is the posterior covariance that the denoiser implies,
the symmetric part of (sigma^2/alpha) dD/dx with negative eigenvalues set to 0. With r = X_0 - D a step costs
    (1/2) E[log det A + tr A^-1 - d + h r^T A^-1 r] - (1/2) int L dsnr.
For the exact denoiser the first term is (1/2) E log det A. Traces are estimated by one random probe for each row.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiff import noise
from jaxdiff.convolutions import fast_in_loops
from jaxdiff.curves.log_det import compress
from jaxdiff.lanczos import quadrature, tridiagonal
from jaxdiff.processes import forward, ou
from jaxdiff.progress import bar
from jaxdiff.types import DenoiserFn

# The number of the noise whose signs are the probes. A loss curve numbers its noises from 0, so the two never agree.
PROBE = 1 << 20


def measured(
    denoiser: DenoiserFn,
    data: np.ndarray,
    key: Any,
    times: np.ndarray,
    n_products: Any,
    groups: int,
    *,
    progress: bool = False,
) -> tuple[list[Any], list[Any] | None]:
    """The compressed spectral measures of all levels, from n_products products and from two products fewer.

    The second list is None where n_products is d, because the first is then exact.
    """
    x0, index, levels, coarse = jnp.asarray(data), np.arange(len(data), dtype=np.uint32), [], []
    exact = n_products == x0.shape[1]
    for t in bar(times, "Jacobians", enabled=progress):
        matrices, squares = tridiagonals(denoiser, x0, index, key, jnp.asarray(t, x0.dtype), n_products)
        levels.append(compressed(matrices, squares, n_products, groups))
        if not exact:
            coarse.append(compressed(matrices, squares, max(n_products - 2, 1), groups))
    return levels, None if exact else coarse


# NumPy solves the small eigenvalue problems: several eigenvalue problems of XLA at once were seen to deadlock on a CPU.
@jax.jit(static_argnames="n_products")
def tridiagonals(
    denoiser: DenoiserFn, x0: Any, index: Any, key: Any, t: Any, n_products: Any
) -> tuple[jax.Array, jax.Array]:
    """Lanczos matrices (pair, start, n, m, m) of the rows of x0 at one level, and |start|^2 (pair, start, n).

    The pair is a row's first noise and its negative. The two starts are a random probe and the residual.
    """
    z = noise.normal(key, index, jnp.uint32(0), x0.shape[1], x0.dtype)
    probe = jnp.sign(noise.normal(key, index, jnp.uint32(PROBE), x0.shape[1], x0.dtype))

    def one(z):
        x = forward(x0, t, z)
        m, along = jax.linearize(lambda x: denoiser(x, t), x)
        back = jax.linear_transpose(along, x)
        scale = ou.sigma(t) ** 2 / ou.alpha(t) / 2
        apply = lambda v: scale * (along(v) + back(v)[0])
        starts = jnp.stack([probe, x0 - m])
        return lax.map(lambda b: tridiagonal(apply, b, n_products)[0], starts), jnp.sum(starts**2, -1)

    return lax.map(fast_in_loops(one), jnp.stack([z, -z]))


def compressed(matrices: Any, squares: Any, n_products: Any, groups: int) -> list[tuple[Any, ...]]:
    """A level's spectral measures, one for each start: nodes (J,), weights (J, groups) and mass (groups,).

    They come from the first n_products products, and are means over the pair and over rows g, g + groups, .... Negative
    eigenvalues, which no covariance has, count as 0.
    """
    nodes, weights = quadrature(np.asarray(matrices)[..., :n_products, :n_products], squares)
    n = nodes.shape[2]
    rows = np.full(groups * -(-n // groups), -1)
    rows[:n] = np.arange(n)
    rows = rows.reshape(-1, groups).T
    weight = (rows >= 0) / (rows >= 0).sum(1, keepdims=True) / 2

    def measure(start):
        each = lambda leaf: np.moveaxis(leaf[:, start], 0, 1)[rows]  # (groups, rows, pair, m)
        mass = each(weights) * weight[..., None, None]
        mass = mass.reshape(groups, -1)
        return *compress(np.maximum(each(nodes), 0).reshape(groups, -1), mass), mass.sum(1)

    return [measure(0), measure(1)]


# Compressed measures are exact for functions that vanish at 0. So h/(1 + h theta) is written as h minus
# h (h theta/(1 + h theta)).
def costs(level: list[tuple[Any, ...]], h: np.ndarray) -> np.ndarray:
    """(queries, groups): E[log det A + tr A^-1 - d + h r^T A^-1 r] at one level, from its compressed measures."""
    (nodes, weights, _), (residual_nodes, residual_weights, square) = level
    r, s = h[:, None] * nodes, h[:, None] * residual_nodes
    return (np.log1p(r) - r / (1 + r)) @ weights + h[:, None] * (square - (s / (1 + s)) @ residual_weights)


def interpolated_costs(spline: Any, levels: list[Any], pick: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """A curve's log_det, (snr, h) -> same shape: `costs` of the levels, interpolated in log snr.

    pick: (queries, groups) -> (queries,), the mean over groups or one of them.
    """

    def log_det(snr, h):
        snr, h = np.broadcast_arrays(np.asarray(snr, np.float64), np.asarray(h, np.float64))
        several, place = np.unique(snr.ravel(), return_inverse=True)
        basis, out = spline.basis(np.log(several))[place], np.zeros(snr.size)
        for node in np.flatnonzero(np.any(basis != 0, axis=0)):
            asked = np.flatnonzero(basis[:, node])
            out[asked] += basis[asked, node] * pick(costs(levels[node], h.ravel()[asked]))
        return out.reshape(snr.shape)

    return log_det
