"""W2 on the line between the image of N(0, 1) under a map and a law with known quantiles."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtri

CELLS = 2**14  # of equal probability at first
STEEPEST, PARTS, TIMES = 256, 64, 2  # so many cells are divided into so many parts, so often

Map = Callable[[np.ndarray], Any]  # (n,) -> (n,)


# Cells of the unit interval, each with one point at its middle: at a gap between two modes a whole cell goes to one of
# them. So the cells along which the two quantile functions move most are divided. At a gap of length g the square of
# the distance is then right to g^2 CELLS^-1 PARTS^-TIMES = 1.5e-8 g^2.
def map_w2(through: Map, quantiles: Map) -> float:
    """W2 of through(z), z ~ N(0, 1), from the law with these quantiles.

    through: takes points (n,) of the line to points (n,); it need not be monotone.
    quantiles: takes levels (n,) between 0 and 1 to points (n,).
    """
    edges = np.linspace(0, 1, CELLS + 1)
    for _ in range(TIMES):
        levels = _middles(edges)
        steep = _steepest(through(ndtri(levels)), quantiles(levels))
        inside = edges[steep, None] + np.diff(edges)[steep, None] * np.arange(1, PARTS) / PARTS
        edges = np.sort(np.append(edges, inside))
    x, weights = through(ndtri(_middles(edges))), np.diff(edges)
    order = np.argsort(x)
    x, up_to = x[order], np.append(0.0, np.cumsum(weights[order]))
    return math.sqrt(np.sum(weights[order] * (x - quantiles(_middles(up_to))) ** 2))


def _middles(edges):
    return (edges[:-1] + edges[1:]) / 2


def _steepest(x, quantiles):
    """The cells from which one of the two functions moves most to a neighbouring cell."""
    moves = np.maximum(np.abs(np.diff(x)), np.abs(np.diff(quantiles)))
    each = np.maximum(np.append(moves, 0.0), np.append(0.0, moves))
    return np.argsort(each)[-STEEPEST:]
