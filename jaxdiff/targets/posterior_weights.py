"""Posterior weights of a mixture's components, and the likeliest component separated from the others."""

import numpy as np
from jaxtyping import Float64, Integer


# The spread of the posterior means m_k is computed about m_j, that of the likeliest component. With the other
# components' weights q_k and s = sum q_k it is
#   sum_k q_k |m_k|^2 - 2 m_j sum_k q_k m_k + s |m_j|^2 - |sum_k q_k m_k - s m_j|^2.
# Every term is of the size of s, so no digits are lost where s is small. The mean square minus the square of the mean
# would have a rounding error of eps |m_j|^2 however small s is.
def split_likeliest(
    weight: Float64[np.ndarray, "rows K"],
) -> tuple[Float64[np.ndarray, "rows K"], Integer[np.ndarray, " rows"]]:
    """The weights of all other components (rows, K), with 0 at the likeliest one, and its index (rows,).

    `weight`, the posterior weights (rows, K), is overwritten.
    """
    likeliest = weight.argmax(-1)
    weight[np.arange(len(weight)), likeliest] = 0
    return weight, likeliest


def softmax(logit: Float64[np.ndarray, "*axes"], axis: int) -> Float64[np.ndarray, "*axes"]:
    """Softmax along an axis; overwrites logit. No weight is below 1e-261: arithmetic on subnormal numbers is slow."""
    logit -= logit.max(axis, keepdims=True)
    np.exp(np.maximum(logit, -600, out=logit), out=logit)
    logit /= logit.sum(axis, keepdims=True)
    return logit
