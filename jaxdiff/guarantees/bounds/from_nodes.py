"""Bounds on the path KL from the mmse at the nodes alone, without the curve between them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.certificate import Certificate
from jaxdiff.curves.curve import as_curve
from jaxdiff.grids import check_grid
from jaxdiff.guarantees.bounds.brackets import OURS, certificate, check_kernel, lower_by_step, upper_by_node
from jaxdiff.guarantees.path_kl import standard_error
from jaxdiff.processes import ou
from jaxdiff.types import Numbers, Whole


def upper(kernel_name: str, curve: Callable[..., Any], grid: Numbers, *, dim: Whole | None = None) -> Certificate:
    """Upper bound on a run's path KL in nats, for the exact score, from V at the nodes; isotropic Gaussians attain it.

    ancestral: (1/2) sum [h V_k + d log(1 - h V_{k+1}/d)]; moment_matched: (d/2) sum [log(1 + h V_k/d)
    + log(1 - h V_{k+1}/d)]; exponential_euler: d sum [(1/2) log((s + y_k)/(s + y_{k+1})) - b_k (1 + y_k)/(s_k + y_k)]
    with s = s_{k+1}, y = 1/snr, 1/s = d/V - snr.

    Args:
      kernel_name: "exponential_euler", "ancestral" or "moment_matched".
      grid: (n_steps + 1,) OU times.
      curve: the mmse V: a Curve, or a callable snr -> total squared error with dim= beside it. No mmse exceeds d/snr;
        where an estimate does, it is lowered to d/snr.
      dim: d, where curve is a plain callable.

    Raises:
      ValueError: another kernel, a grid that is not valid, a negative or nan V, or the loss curve of a learned
        denoiser.
    Source: `brackets`; constants ours. Rounding errors are about 1e-13 relative to d log(snr_N/snr_0), and
    1e-15 d max snr_{k+1}/snr_k, because s loses digits in float64 where V is close to d/snr.
    """
    return _certify("at most", upper_by_node, kernel_name, grid, as_curve(curve, dim))


def lower(kernel_name: str, curve: Callable[..., Any], grid: Numbers, *, dim: Whole | None = None) -> Certificate:
    """Lower bound on a run's path KL in nats, for the exact score, from V at the nodes; arguments as for `upper`.

    ancestral: (1/2) sum [h V_k - d log(1 + h V_k/d)]; moment_matched: 0; exponential_euler: as in `upper`, s = s_k.
    Every step's cost is that of N(0, s_k I).
    """
    return _certify("at least", lower_by_step, kernel_name, grid, as_curve(curve, dim))


def _certify(side, terms, kernel_name, grid, curve):
    """The Certificate of d sum terms(V/d at the nodes), with a standard error from the curve's replicates."""
    check_kernel(kernel_name)
    grid = check_grid(grid)
    if curve.cross is not None:
        raise ValueError(
            "the bounds from nodes hold for the exact score's mmse, not for the losses of a learned denoiser: "
            "use certify(kernel_name, grid, curve=curve)."
        )
    bound = lambda one: curve.dim * np.sum(terms(kernel_name, grid, _at_nodes(one, grid)))
    values = [bound(replicate) for replicate in curve.replicates]
    return certificate(
        f"path KL of {kernel_name}, {side}",
        bound(curve),
        f"from the mmse at {len(grid)} nodes, {OURS}" + (", Monte Carlo mmse" if values else ""),
        standard_error=standard_error(values),
        status="measured" if values else "bound",
        assumptions=("the curve is the data's mmse",),
    )


def _at_nodes(curve, grid):
    """V/d at the nodes, clamped to [0, 1/snr]."""
    snr = ou.snr(grid)
    v = np.asarray(curve(snr), np.float64) / curve.dim
    bad = ~((v * snr > -1e-9) & np.isfinite(v))  # the rounding of a quadrature may leave a value a little below 0
    if bad.any():
        k = int(np.argmax(bad))
        raise ValueError(
            f"an mmse is finite and at least 0: at snr = {snr[k]:.6g} the curve is {v[k] * curve.dim:.6g}."
        )
    return np.clip(v, 0, 1 / snr)
