"""Grids: float64 NumPy arrays of n_steps + 1 decreasing OU times from the horizon to the early stop.

`optimal` minimises the path KL of kernels that draw noise. Kernels of the ODE do better on `exponential_then_uniform`,
`log_snr` or `karras`, and best on a grid that jaxdiff.fit_grid fits to them.
"""

from jaxdiff.grids.named import (
    check_grid,
    cosine,
    exponential_then_uniform,
    from_process,
    geometric,
    karras,
    log_snr,
    longest_step,
    runs_in_float32,
    uniform,
)
from jaxdiff.grids.shortest_path import fewest, frontier, optimal

__all__ = [
    "check_grid",
    "cosine",
    "exponential_then_uniform",
    "fewest",
    "from_process",
    "frontier",
    "geometric",
    "karras",
    "log_snr",
    "longest_step",
    "optimal",
    "runs_in_float32",
    "uniform",
]
