"""How well a Gaussian mixture is known from a noised observation: its mmse, the mean variance of its posterior."""

import functools
from typing import NamedTuple

import numpy as np

from jaxdiff.interpolation import antiderivative, tabulated
from jaxdiff.types import Curve

QUADRATURE = np.linspace(-9, 9, 1441)  # trapezoid nodes of a standard normal, spacing 1/80
LEVELS_AT_ONCE = 256  # of a two-component quadrature: 8 MiB an array
MOST_COMPONENTS = 16  # on the line; beyond, quadrature around every component costs more than Monte Carlo
REPLICATES = 16
LEAST_DRAWS, MOST_DRAWS, PAIRS = 2048, 8192, 2**20  # of a Monte Carlo curve, in all; pairs of draw and component
ELEMENTS_AT_ONCE = 2**20


class Components(NamedTuple):
    """A Gaussian mixture in its components' eigenbases; one component is a Gaussian, zero variances are points.

    log_weights (K,), means (K, d), variances (K, d); axes (K, d, d), eigenvectors in columns, or None for the
    coordinate axes.
    """

    log_weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    axes: np.ndarray | None


def mmse_of(components) -> Curve:
    """The mmse: closed form for one component, quadrature for few on the line, else Monte Carlo."""
    k, d = components.means.shape
    if k == 1:
        return _gaussian_mmse(components)
    return _quadrature_mmse(components) if d == 1 and k <= MOST_COMPONENTS else _monte_carlo_mmse(components)


def _gaussian_mmse(components):
    s = components.variances[0]
    value = lambda snr: np.sum(s / (1 + np.asarray(snr, np.float64)[..., None] * s), axis=-1)
    integral = lambda snr: np.sum(np.log1p(np.asarray(snr, np.float64)[..., None] * s), axis=-1)
    return Curve(value, len(s), integral=integral, log_det=lambda snr, h: integral(snr + h) - integral(snr))


# Mixtures observe y = X_0 + Z/sqrt(snr), the same information as X_t. Given y the posterior is a mixture again:
#   Tr Cov = sum_k share_k (Tr v_k + |m_k - m|^2),   v_k = s_k/(1 + snr s_k), m_k = mean_k + v_k snr (y - mean_k),
# and V is its average over y.
def _quadrature_mmse(components):
    weights = np.exp(components.log_weights)
    density = np.exp(-(QUADRATURE**2) / 2)
    density /= density.sum()

    def at(snr):  # (levels,); y is (levels, K, nodes, 1)
        snr = snr[:, None, None]
        y = components.means + np.sqrt(components.variances + 1 / snr) * QUADRATURE
        return _posterior_variance(components, y[..., None], snr) @ density @ weights

    def log_det(snr, h):  # the posterior variances of a level serve all its h
        snr, h = np.broadcast_arrays(snr, h)
        levels, place = np.unique(snr, return_inverse=True)
        place, out = place.reshape(snr.shape), np.empty(snr.shape)
        for i, level in enumerate(levels):
            y = components.means + np.sqrt(components.variances + 1 / level) * QUADRATURE
            spread = _posterior_variance(components, y[..., None], level)
            out[place == i] = [weights @ (np.log1p(one * spread) @ density) for one in h[place == i]]
        return out

    return tabulated(_in_blocks(at, LEVELS_AT_ONCE // len(weights) ** 2), 1, log_det=log_det)


# Labels are drawn by systematic sampling and the noise in antithetic pairs, the same at every level, so that a
# replicate is a smooth curve; replicates are independent, which is where standard errors come from.
def _monte_carlo_mmse(components):
    components = components._replace(means=components.means - np.exp(components.log_weights) @ components.means)
    d = components.means.shape[1]

    @functools.cache
    def drawn():
        n, rng = _draws(len(components.means)), np.random.default_rng(0)
        place = (np.arange(n) + rng.uniform(size=(REPLICATES, 1))) / n
        label = np.searchsorted(np.cumsum(np.exp(components.log_weights))[:-1], place).ravel()
        spread = np.sqrt(components.variances[label]) * rng.standard_normal((len(label), d))
        if components.axes is not None:
            for k, axes in enumerate(components.axes):
                spread[label == k] = spread[label == k] @ axes.T
        return components.means[label], spread, rng.standard_normal((len(label), d))

    @functools.cache
    def at(snr):
        centre, spread, noise = drawn()
        offset = spread + noise / np.sqrt(snr)
        plus, minus = (_in_rows(components, centre + sign * offset, snr) for sign in (1, -1))
        return (plus + minus).reshape(REPLICATES, -1).mean(1) / 2

    def replicate(r):
        return tabulated(lambda snr: np.array([at(float(level))[r] for level in snr]), d)

    replicates = tuple(replicate(r) for r in range(REPLICATES))
    each = lambda snr: np.array([curve(snr) for curve in replicates])
    return Curve(
        lambda snr: each(snr).mean(0),
        d,
        standard_error=lambda snr: each(snr).std(0, ddof=1) / np.sqrt(REPLICATES),
        integral=lambda snr: np.mean([antiderivative(curve, snr) for curve in replicates], axis=0),
        replicates=replicates,
    )


def _draws(n_components):
    """Draws a replicate: fewer for many components, each draw being compared with all."""
    return int(np.clip(PAIRS // n_components, LEAST_DRAWS, MOST_DRAWS)) // REPLICATES


def _in_rows(components, y, snr):
    """_posterior_variance of rows y (n, d) at one snr, a few at a time; without axes as matrix products."""
    k, d = components.means.shape
    variance = _diagonal_posterior_variance if components.axes is None else _posterior_variance
    size = max(1, ELEMENTS_AT_ONCE // (k if components.axes is None else k * d))
    return np.concatenate([variance(components, y[i : i + size], snr) for i in range(0, len(y), size)])


# Component k's posterior mean is c_k + u_k y, u = snr v and c = (1 - u) mean: everything is a product with (K, d).
def _diagonal_posterior_variance(components, y, snr):
    s, mean = components.variances, components.means
    v, total = s / (1 + snr * s), s + 1 / snr
    u, c = snr * v, mean / (1 + snr * s)
    quadratic = y**2 @ (1 / total).T - 2 * y @ (mean / total).T + np.sum(mean**2 / total + np.log(total), axis=-1)
    share = _softmax(components.log_weights - quadratic / 2)
    centre = share @ c + (share @ u) * y
    square = share @ np.sum(c**2, axis=-1) + np.sum(y * (2 * (share @ (c * u)) + (share @ u**2) * y), axis=-1)
    return share @ v.sum(-1) + np.maximum(square - np.sum(centre**2, axis=-1), 0)


def _softmax(log_share):
    share = np.exp(log_share - log_share.max(-1, keepdims=True))
    return share / share.sum(-1, keepdims=True)


def _posterior_variance(components, y, snr):
    """Tr Cov(X_0 | y) for y (..., d) = X_0 + Z/sqrt(snr), snr broadcasting over y's leading axes; NumPy float64."""
    snr = np.asarray(snr)[..., None, None]
    shrink = components.variances / (1 + snr * components.variances)
    residual = y[..., None, :] - components.means
    if components.axes is not None:
        residual = np.einsum("...kd,kde->...ke", residual, components.axes)
    total = components.variances + 1 / snr
    log_share = components.log_weights - 0.5 * np.sum(residual**2 / total + np.log(total), axis=-1)
    share = _softmax(log_share)
    move = snr * shrink * residual
    if components.axes is not None:
        move = np.einsum("...ke,kde->...kd", move, components.axes)
    posterior_mean = components.means + move
    centre = np.sum(share[..., None] * posterior_mean, axis=-2, keepdims=True)
    return np.sum(share * (shrink.sum(-1) + np.sum((posterior_mean - centre) ** 2, axis=-1)), axis=-1)


def _in_blocks(at, size):
    """A function of (levels,) applied to an array of any shape, at most `size` levels at once."""

    def value(snr):
        snr = np.asarray(snr, np.float64)
        blocks = np.array_split(snr.ravel(), -(-snr.size // max(size, 1)))
        return np.concatenate([np.atleast_1d(at(block)) for block in blocks]).reshape(snr.shape)

    return value
