"""Exact covariances of normal laws, and exact quantiles of mixtures on the line."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.special import ndtr

from jaxdiff.processes import ou
from jaxdiff.targets.components import Components, covariances

MOST_ON_A_LINE = 64  # components of a law whose quantiles are known: 32,768 of them take a second
REACH, HALVINGS = 40.0, 60  # of `quantiles`: standard deviations beyond the means, and halvings of that interval


def normal_covariance(components: Components) -> Float64[np.ndarray, "d *rest"] | None:
    """(d,) or (d, d): the covariance of one component; None for several."""
    if len(components.means) > 1:
        return None
    if components.axes is None:
        return components.variances[0]
    return covariances(components.variances, components.axes)[0]


def quantiles_of(components: Components) -> Callable[..., Any] | None:
    """The function `quantiles` of a law of few components on the line; None for others."""
    k, d = components.means.shape
    return functools.partial(quantiles, components) if d == 1 and k <= MOST_ON_A_LINE else None


def quantiles(components: Components, levels: Float64[np.ndarray, " n"], t: Any = 0.0) -> Float64[np.ndarray, " n"]:
    """The quantiles of q_t on the line at levels between 0 and 1, by bisection of its distribution function."""
    c, alpha, noise = components, ou.alpha(t), ou.sigma(t) ** 2
    mean = alpha * c.means[:, 0]
    deviation = np.sqrt(np.broadcast_to(alpha**2 * c.variances[:, 0] + noise, mean.shape))
    weights = np.exp(c.log_weights)
    divided = np.maximum(deviation, np.finfo(np.float64).tiny)  # the distribution function of a point is a step
    reach = REACH * deviation
    low, high = np.full(levels.shape, (mean - reach).min()), np.full(levels.shape, (mean + reach).max())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = sum(w * ndtr((middle - m) / s) for w, m, s in zip(weights, mean, divided, strict=True)) < levels
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
