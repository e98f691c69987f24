"""The nodes of a grid in the time of a model's own process, as samplers of other libraries take them."""

from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from jaxdiff.checks import described
from jaxdiff.processes import Process, ddpm, edm, flow, from_ou, to_ou, ve, vp_cosine, vp_linear
from jaxdiff.types import Grid

CLOCKS = {"ddpm": ddpm, "edm": lambda: edm, "flow": lambda: flow, "vp": vp_linear, "vp_cosine": vp_cosine, "ve": ve}
TABLES = ("ddpm",)  # processes whose times are rows of a table


def process_named(clock: Any) -> Process:
    """The process of a name in CLOCKS; a Process as it is. ValueError for other values."""
    if isinstance(clock, Process):
        return clock
    if not isinstance(clock, str) or clock not in CLOCKS:
        raise ValueError(f"clock must be one of {', '.join(CLOCKS)}, or a Process: it is {described(clock)}.")
    return CLOCKS[clock]()


def times_of(grid: Grid, clock: Any) -> np.ndarray:
    """The nodes of a grid in the time of a process: see Plan.times.

    Raises:
      ValueError: there is no such clock, a node lies outside the process's times, or a table has too few rows.
    """
    process = process_named(clock)
    own = np.asarray(from_ou(process, grid), np.float64)
    return _whole(own, process) if process.name in TABLES else own


def grid_of_times(grid: Grid, clock: Any) -> Grid:
    """The OU times of `times_of`: the grid itself, except for a table, where nodes have moved to whole rows."""
    process = process_named(clock)
    return np.asarray(to_ou(process, times_of(grid, clock)), np.float64) if process.name in TABLES else grid


# Rows n_0 > n_1 > ... are strictly decreasing whole numbers where n_k + k does not increase. So the nearest ones in the
# sum of squares are those of an isotonic regression of r_k + k, rounded: rounding keeps the order.
def _whole(rows, process):
    """The nearest strictly decreasing whole rows of a table."""
    place, last = np.arange(len(rows)), int(max(process.ends))
    if len(rows) > last + 1:
        raise ValueError(
            f"the table of {process.name!r} has {last + 1} rows, fewer than the {len(rows)} nodes of the grid: take "
            f"fewer evaluations."
        )
    level = isotonic_regression(rows + place, increasing=False).x
    return np.clip(np.rint(level), place[-1], last).astype(np.int64) - place
