"""A Gaussian mixture by its components: moments, principal axes, KL to its noised self, and checks of arguments.

All is NumPy float64; many components are handled a few at a time.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from jaxdiff.processes import ou
from jaxdiff.types import Numbers, Whole

EPS = np.finfo(np.float64).eps
ELEMENTS_AT_ONCE = 2**18  # numbers in a block of rows: 2 MiB of float64, which stay in a CPU's cache
LEAST_ROWS = 32  # rows of a block, however wide they are: matrix products of fewer rows are slow
# Relative tolerances in float64: asymmetry of a covariance; negative eigenvalue of a law's covariance; error of the sum
# of weights. `tolerances` scales them for coarser dtypes.
SYMMETRY, DEFINITE, SUM = 1e-8, 1e-12, 1e-9
MOST_OFF = 1e-2  # the largest error of the sum of weights that is accepted, however coarse their dtype is


class Components(NamedTuple):
    """A Gaussian mixture in its components' eigenbases; one component is a Gaussian, zero variances are points.

    log_weights (K,), means (K, d), variances (K, d); axes (K, d, d), eigenvectors in columns, or None for the
    coordinate axes. Variances and axes that all components share have a first axis of 1.
    """

    log_weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    axes: np.ndarray | None


def covariances(
    variances: Float64[np.ndarray, "K d"], axes: Float64[np.ndarray, "#K d d"] | None
) -> Float64[np.ndarray, "K d d"]:
    """Matrices (K, d, d) from variances (K, d) in eigenbases axes (K, d, d), None for the coordinate axes."""
    if axes is None:
        return variances[..., None] * np.eye(variances.shape[-1])
    return (axes * variances[..., None, :]) @ np.swapaxes(axes, -1, -2)


def moments(components: Components) -> tuple[Float64[np.ndarray, " d"], float, float]:
    """(E X_0 (d,), E|X_0 - E X_0|^2, E|X_0|^2); the second has no cancellation where means are far from 0."""
    weights, means = np.exp(components.log_weights), components.means
    mean, own = weights @ means, components.variances.sum(-1)  # (K,), or (1,) where all components share them
    few = blocks(*means.shape)
    square = lambda away: np.einsum("kd,kd->k", away, away)
    about = lambda centre: float(weights @ (np.concatenate([square(means[some] - centre) for some in few]) + own))
    return mean, about(mean), about(0.0)


def axes_of_mixture(components: Components) -> Float64[np.ndarray, "d d"]:
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


# KL is convex in the pair of laws, so the mean over components of the KL to their own noised selves is an upper bound.
# It is exact for one component.
def smoothing_kl(components: Components, t: Any) -> float:
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


def centred(
    components: Components, axes: Float64[np.ndarray, "d r"] | None = None
) -> Float64[np.ndarray, "K coordinates"]:
    """The components' means minus the mixture's, (K, r) in the coordinates of axes (d, r), or (K, d) without axes."""
    means, mean = components.means, np.exp(components.log_weights) @ components.means
    if axes is None:
        return means - mean
    points = np.empty((len(means), axes.shape[1]))
    for rows in blocks(*means.shape):
        points[rows] = (means[rows] - mean) @ axes
    return points


def blocks(n: int, width: int) -> list[Any]:
    """Slices that divide n rows of this width into blocks of about ELEMENTS_AT_ONCE numbers."""
    size = max(LEAST_ROWS, ELEMENTS_AT_ONCE // width)
    return [slice(i, i + size) for i in range(0, n, size)]


def coarseness(value: Numbers) -> float:
    """How much coarser than float64 the dtype of a given array is: the ratio of their epsilons, at least 1.

    Lists of Python floats and whole numbers count as float64; a list of arrays has the dtype that NumPy gives it.
    """
    dtype = np.asarray(value).dtype
    return max(1.0, float(jnp.finfo(dtype).eps) / EPS) if jnp.issubdtype(dtype, jnp.floating) else 1.0


# A computed covariance, the inverse of a matrix of condition 1/sqrt(eps) say, may be symmetric to only half its digits:
# to 1e-8 in float64, 2.3e-4 in float32, 0.06 in bfloat16. An eigenvalue of 0 is rounded to a few eps of the largest.
def tolerances(value: Numbers) -> tuple[float, float, float]:
    """Relative errors that rounding in the dtype of an array may cause: asymmetry, negative eigenvalue, one weight."""
    coarse = coarseness(value)
    symmetry = SYMMETRY * np.sqrt(coarse)
    return symmetry, min(DEFINITE * coarse, symmetry), 8 * EPS * coarse


def checked_weights(weights: Float64[np.ndarray, " K"], given: Numbers) -> Float64[np.ndarray, " K"]:
    """Positive weights (K,) divided by their sum, which must be 1 up to rounding in the dtype of `given`."""
    off = max(SUM, min(tolerances(given)[2] * np.sqrt(len(weights)), MOST_OFF))
    if (weights <= 0).any() or not np.isclose(weights.sum(), 1, rtol=0, atol=off):
        raise ValueError(f"weights must be positive with sum 1: smallest {weights.min():g}, sum {weights.sum():.12g}.")
    return weights / weights.sum()


def eigen(
    covs: Float64[np.ndarray, "..."], symmetry: float, definite: float
) -> tuple[Float64[np.ndarray, "K d"], Float64[np.ndarray, "K d d"] | None]:
    """Variances (K, d), and axes (K, d, d) or None, of checked covariances (K, d, d) or their diagonals (K, d).

    Asymmetries up to `symmetry` times a matrix's largest entry are averaged. Negative variances up to `definite` times
    that entry become 0.
    """
    flat = covs.reshape(len(covs), -1)
    size = np.maximum(flat.max(1, keepdims=True), -flat.min(1, keepdims=True))  # np.abs would copy the data
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


def gaussian_moments(
    mean: Numbers, cov: Numbers, dim: Whole | None = None
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, " d"], Float64[np.ndarray, "d d"] | None]:
    """Mean (d,), and the eigenvalues (d,) and axes (d, d) or None of cov (d, d) or its diagonal (d,), checked."""
    symmetry, _, _ = tolerances(cov)
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if mean.ndim != 1 or mean.size != (dim or mean.size or 1) or cov.shape not in (mean.shape, mean.shape * 2):
        raise ValueError(f"moments must be mean (d,) and cov (d,) or (d, d): they have {mean.shape} and {cov.shape}.")
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise ValueError("moments must be finite: mean or cov holds nan or inf.")
    values, axes = eigen(cov[None], symmetry, symmetry)
    return mean, values[0], None if axes is None else axes[0]
