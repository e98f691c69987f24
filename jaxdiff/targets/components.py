"""A Gaussian mixture by its components: covariance, principal axes, and what a little noise does to it.

NumPy float64 throughout; many components are gone through a few at a time.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdiff.processes import ou

EPS = np.finfo(np.float64).eps
ELEMENTS_AT_ONCE = 2**18  # of an array: 2 MiB
LEAST_ROWS = 32  # of a matrix product
SYMMETRY = 1e-8  # relative: what rounding of float64 may leave of an asymmetry or of a negative eigenvalue
DEFINITE, SUM = 1e-12, 1e-9  # of a law's own: what float64 may leave of a negative eigenvalue, and of weights' sum
MOST_OFF = 1e-2  # of a sum of weights, however coarse their dtype


class Components(NamedTuple):
    """A Gaussian mixture in its components' eigenbases; one component is a Gaussian, zero variances are points.

    log_weights (K,), means (K, d), variances (K, d); axes (K, d, d), eigenvectors in columns, or None for the
    coordinate axes. Variances and axes that all components share have a first axis of 1.
    """

    log_weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    axes: np.ndarray | None


def covariances(variances, axes):
    """Matrices (K, d, d) from variances (K, d) in eigenbases axes (K, d, d), None for the coordinate axes."""
    if axes is None:
        return variances[..., None] * np.eye(variances.shape[-1])
    return (axes * variances[..., None, :]) @ np.swapaxes(axes, -1, -2)


def moments(components):
    """(E X_0 (d,), E|X_0 - E X_0|^2, E|X_0|^2); the second without the cancellation of far means."""
    weights, means = np.exp(components.log_weights), components.means
    mean, own = weights @ means, components.variances.sum(-1)  # (K,), or (1,) where all components share them
    few = blocks(*means.shape)
    square = lambda away: np.einsum("kd,kd->k", away, away)
    about = lambda centre: float(weights @ (np.concatenate([square(means[some] - centre) for some in few]) + own))
    return mean, about(mean), about(0.0)


def axes_of_mixture(components):
    """(d, d): eigenvectors of the mixture's covariance in columns, that of the largest variance first."""
    c, weights = components, np.exp(components.log_weights)
    of_one = np.ones(1) if len(c.variances) == 1 else weights
    if c.axes is None:
        covariance = np.diag(of_one @ c.variances)
    else:
        covariance = np.tensordot(of_one, covariances(c.variances, c.axes), 1)
    mean = weights @ c.means
    for rows in blocks(*c.means.shape):
        away = c.means[rows] - mean
        covariance += away.T @ (weights[rows, None] * away)
    return np.linalg.eigh(covariance)[1][:, ::-1]


# Component k against its own noised self: KL is convex in both laws, so their mean is a bound; exact for K = 1.
def smoothing_kl(components, t):
    """Upper bound on KL(q_0 || q_t) in nats, inf where a variance is 0."""
    c, s = components, components.variances
    if s.min() == 0:
        return float("inf")
    noise = ou.sigma(t) ** 2
    noised = s + noise * (1 - s)  # alpha^2 s + sigma^2
    mean = c.means if c.axes is None else (c.means[:, None] @ c.axes)[:, 0]
    excess = noise * (s - 1) / noised
    each = np.sum(excess - np.log1p(excess) + (np.expm1(-t) * mean) ** 2 / noised, axis=-1)
    return float(np.exp(c.log_weights) @ each / 2)


def centred(components, axes=None):
    """Means about the mixture's in the coordinates of axes (d, r), or in their own: (K, r)."""
    means, mean = components.means, np.exp(components.log_weights) @ components.means
    if axes is None:
        return means - mean
    points = np.empty((len(means), axes.shape[1]))
    for rows in blocks(*means.shape):
        points[rows] = (means[rows] - mean) @ axes
    return points


def blocks(n, width):
    """Slices of n rows of this width, few of them at a time."""
    size = max(LEAST_ROWS, ELEMENTS_AT_ONCE // width)
    return [slice(i, i + size) for i in range(0, n, size)]


def coarseness(value):
    """The epsilon of the float dtype in which an array came over that of float64, at least 1.

    Lists of Python floats and whole numbers are float64; a list of arrays has the dtype that NumPy gives it.
    """
    dtype = np.asarray(value).dtype
    return max(1.0, float(jnp.finfo(dtype).eps) / EPS) if jnp.issubdtype(dtype, jnp.floating) else 1.0


# Rounding leaves half the digits of an asymmetry, as an inverse of condition 1/sqrt(eps) has it: 1e-8 in float64,
# 2.3e-4 in float32, 0.06 in bfloat16. An eigenvalue of 0 comes out as some eps of the largest; half the digits at most.
def tolerances(value):
    """(asymmetry, negative eigenvalue, sum of one weight), relative: what the dtype of an array may leave of each."""
    coarse = coarseness(value)
    symmetry = SYMMETRY * np.sqrt(coarse)
    return symmetry, min(DEFINITE * coarse, symmetry), 8 * EPS * coarse


def checked_weights(weights, given):
    """Weights (K,) with sum 1, from positive ones whose sum is 1 up to the rounding of `given`, as they came in."""
    off = max(SUM, min(tolerances(given)[2] * np.sqrt(len(weights)), MOST_OFF))
    if (weights <= 0).any() or not np.isclose(weights.sum(), 1, rtol=0, atol=off):
        raise ValueError(f"weights must be positive with sum 1: smallest {weights.min():g}, sum {weights.sum():.12g}.")
    return weights / weights.sum()


def eigen(covs, symmetry, definite):
    """Variances (K, d) and axes (K, d, d) or None of matrices (K, d, d) or of diagonals (K, d), checked.

    Asymmetries up to `symmetry` times a matrix's largest entry are averaged away; negative variances up to `definite`
    times it are 0.
    """
    flat = covs.reshape(len(covs), -1)
    size = np.maximum(flat.max(1, keepdims=True), -flat.min(1, keepdims=True))  # without a copy of the data
    variances, axes = covs, None
    if covs.ndim == 3:
        flipped = np.swapaxes(covs, -1, -2)
        skew = np.abs(covs - flipped)
        if (skew > symmetry * size[..., None]).any():
            raise ValueError(f"cov must be symmetric: it differs from its transpose by {skew.max():.3g}.")
        variances, axes = np.linalg.eigh((covs + flipped) / 2)
    if (variances < -definite * size).any():
        raise ValueError(f"cov must be positive semi-definite: its smallest eigenvalue is {variances.min():.3g}.")
    return variances if variances.min() >= 0 else np.maximum(variances, 0), axes


def gaussian_moments(mean, cov, dim=None):
    """Mean (d,), and the eigenvalues (d,) and axes (d, d) or None of cov (d, d) or its diagonal (d,), checked."""
    symmetry, _, _ = tolerances(cov)
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if mean.ndim != 1 or mean.size != (dim or mean.size or 1) or cov.shape not in (mean.shape, mean.shape * 2):
        raise ValueError(f"moments are mean (d,) and cov (d,) or (d, d): they have {mean.shape} and {cov.shape}.")
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise ValueError("moments must be finite: mean or cov holds nan or inf.")
    values, axes = eigen(cov[None], symmetry, symmetry)
    return mean, values[0], None if axes is None else axes[0]
