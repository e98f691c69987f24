"""Grids: float64 NumPy arrays of n_steps + 1 decreasing OU times from the horizon to the early stop."""

from jaxdiff.grids.named import check_grid, exponential_then_uniform, karras, log_snr, uniform
from jaxdiff.grids.shortest_path import fewest, frontier, optimal

__all__ = ["check_grid", "exponential_then_uniform", "fewest", "frontier", "karras", "log_snr", "optimal", "uniform"]
