"""Scores with an error of a known size."""

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdiff.types import as_score


def _shifted(score, size, after, x, t):
    error = jnp.where(t > after, size, 0.0) / np.sqrt(x.shape[-1])
    return score(x, t) + error.astype(x.dtype)


def shifted(score, size, after=0.0):
    """A score plus a constant vector of L2 norm `size` along (1, ..., 1), at times beyond `after`."""
    return Partial(_shifted, as_score(score), np.float64(size), np.float64(after))
