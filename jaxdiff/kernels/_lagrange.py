"""Lagrange polynomials through the nodes that a step uses."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxdiff.arrays import namespace


def lagrange(
    nodes: Float[Any, "steps p"], known: Bool[Any, "steps p"], at: Float[Any, "steps q"]
) -> Float[Any, "steps q p"]:
    """Lagrange polynomials through the known ones of `nodes` (n, p) at `at` (n, q): (n, q, p)."""
    xp, p = namespace(nodes), nodes.shape[1]
    other = known[:, None, :] & known[:, :, None] & ~np.eye(p, dtype=bool)
    gap = nodes[:, :, None] - nodes[:, None, :]
    gap = xp.where(other & (gap != 0), gap, 1)
    away = xp.where(other[:, None], at[:, :, None, None] - nodes[:, None, None, :], gap[:, None])
    return xp.where(known[:, None, :], xp.prod(away / gap[:, None], axis=-1), 0)
