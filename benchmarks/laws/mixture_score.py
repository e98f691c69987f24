"""The score of a normal mixture as one formula for arrays of NumPy, JAX or PyTorch."""

from typing import Any, NamedTuple


class Mixture(NamedTuple):
    """Logarithms of weights (K,), means and variances (K, d) of normal laws: arrays of any package."""

    log_weights: Any
    means: Any
    variances: Any


def score_of(mixture, x, alpha, noise, log, softmax):
    """The noised score at x (..., d): alpha and the noise's variance are numbers, softmax is over the last axis."""
    variances = alpha**2 * mixture.variances + noise
    residual = alpha * mixture.means - x[..., None, :]
    logits = mixture.log_weights - (residual**2 / variances + log(variances)).sum(-1) / 2
    return (softmax(logits)[..., None] * residual / variances).sum(-2)
