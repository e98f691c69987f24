"""A Gaussian mixture by its components: covariance, principal axes, and what a little noise does to it.

NumPy float64 throughout, whatever dtype came in; many components are gone through a few at a time.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdiff.processes import ou

ELEMENTS_AT_ONCE = 2**18  # of an array: 2 MiB
LEAST_ROWS = 32  # of a matrix product
# Both are relative to the largest entry of a covariance; eps is the rounding of its dtype. A covariance may
# differ from its transpose by ASYMMETRY sqrt(eps): 1e-8 in float64, 2e-4 in float32. An eigenvalue may lie below 0 by
# NEGATIVE d eps, or by ROUNDED_ZERO if that is more.
ASYMMETRY, NEGATIVE, ROUNDED_ZERO = 0.67, 8, 1e-12


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


def principal_axes(components):
    """(d, d): eigenvectors of the mixture's covariance in columns, the widest first."""
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


def gaussian_moments(mean, cov, dim=None):
    """Mean (d,), and the eigenvalues (d,) and axes (d, d) or None of cov (d, d) or its diagonal (d,), checked."""
    rounding = rounding_of(cov)
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if mean.ndim != 1 or mean.size != (dim or mean.size or 1) or cov.shape not in (mean.shape, mean.shape * 2):
        raise ValueError(f"moments are mean (d,) and cov (d,) or (d, d): they have {mean.shape} and {cov.shape}.")
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise ValueError("moments must be finite: mean or cov holds nan or inf.")
    return mean, *spectrum(cov, rounding)


def rounding_of(value):
    """The relative rounding error of the numbers that came in: eps of their float dtype, float64's for other kinds."""
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    return float(jnp.finfo(dtype if jnp.issubdtype(dtype, jnp.floating) else np.float64).eps)


# A float32 inverse or sample covariance differs from its transpose, and is negative, by a few roundings.
def spectrum(cov, rounding):
    """Eigenvalues (..., d) and axes (..., d, d) of covariances, symmetrised and not negative.

    Args:
      cov: (..., d, d), or (d,) a diagonal, float64.
      rounding: of the numbers that `cov` was made from, as rounding_of finds it.

    Returns:
      Eigenvalues and axes; a diagonal is its own eigenvalues, with axes None.

    Raises:
      ValueError: cov differs from its transpose, or an eigenvalue lies below 0, by more than that rounding explains.
    """
    size = np.abs(cov).max()
    if cov.ndim == 1:
        return not_negative(cov, rounding), None
    skew = np.abs(cov - np.swapaxes(cov, -1, -2)).max()
    if skew > ASYMMETRY * math.sqrt(rounding) * size:
        raise ValueError(f"cov must be symmetric: it differs from its transpose by {skew:.3g}. Pass (cov + cov.T)/2.")
    values, axes = np.linalg.eigh((cov + np.swapaxes(cov, -1, -2)) / 2)
    return not_negative(values, rounding), axes


def not_negative(variances, rounding):
    """Variances (..., d) of which those that rounding has put below 0 are 0; ValueError for others below 0."""
    slack = max(ROUNDED_ZERO, NEGATIVE * variances.shape[-1] * rounding) * np.abs(variances).max()
    if variances.min() < -slack:
        raise ValueError(
            f"cov must be positive semi-definite: its smallest eigenvalue is {variances.min():.3g}, where "
            f"rounding explains {-slack:.2g}."
        )
    return np.maximum(variances, 0)
