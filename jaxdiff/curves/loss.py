"""Measures the loss curve of a denoiser on held-out data."""

import collections
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdiff import events, noise
from jaxdiff.arrays import Scalar
from jaxdiff.checks import as_host, check_whole
from jaxdiff.conditions import check_conditions, of_particles
from jaxdiff.curves import jacobian_spectrum
from jaxdiff.curves.antithetic_errors import errors, noises_in_axes, pairs_at_once
from jaxdiff.curves.directions import change_of_basis, checked_basis, in_axes
from jaxdiff.curves.interpolation import SAME
from jaxdiff.curves.measured import GROUPS, MeasuredCurve, measured_curve
from jaxdiff.grids import check_grid
from jaxdiff.intervals import row_ids
from jaxdiff.processes import ou
from jaxdiff.processes.default_times import check_ends
from jaxdiff.progress import bar
from jaxdiff.types import Basis, DenoiserFn, Key, Rows, Times, Whole, as_score

ROWS_AT_ONCE = 4096  # rows in a call of the denoiser: they keep a device busy, and wide rows still fit into memory
# With `axes` the noises of these rows are computed in the coordinates of the axes once, and kept for all levels. They
# have at most so many numbers, 128 MiB in float32. Where rows are wide, fewer rows are taken at once.
ELEMENTS_AT_ONCE = 2**25
AHEAD = 2  # levels that the device computes while the host adds up earlier ones


def loss_curve(
    denoiser: DenoiserFn,
    data: Rows,
    key: Key,
    *,
    horizon: Scalar,
    early_stop: Scalar,
    basis: Basis = None,
    products: Whole | None = None,
    grid: Times | None = None,
    n_nodes: Whole = 201,
    n_noises: Whole = 4,
    axes: Any = None,
    progress: bool = False,
) -> MeasuredCurve:
    """Measures the loss of a denoiser on data, L(snr) = E|X_0 - D(X_t, t)|^2, row by row.

    Args:
      denoiser: D(x, t), shapes (..., d), () -> (..., d); or (..., *event) for data of that shape. One with labels is
        scores.conditioned(D, labels), with a label for each row.
      data: (n, d) or (n, *event) held-out rows, on which the denoiser was not trained; whole numbers are converted to
        float32. All d coordinates of an event count, in row-major order.
      key: for the noise. A row has the same noises, and their negatives, at every level. So differences between
        levels, of which the path KL is a sum, have far smaller standard errors than the losses at the levels.
      horizon, early_stop: OU times, the first and last one; the curve is known for snr between theirs.
      basis: directions along which the loss is measured too, for moment matching with `basis=`. An array (d, d) with
        orthonormal columns, best the principal_axes of training rows; or "coordinates"; or "pca", the principal axes
        of the rows measured here. Their loss along axes of their own is smaller than that of other rows would be, so
        certificates then carry a warning.
      products: number of Lanczos products with the denoiser's Jacobian for each start, for the path KL of covariance
        matching; d products are exact. They are computed for the first 4,096 rows. A product costs as much as eight
        evaluations.
      grid: OU times of a sampler's grid, at which the loss is measured too. The path KL of this grid then needs
        interpolation for an integral only, not for the losses at the grid's nodes. Give the grid where it is known,
        above all if the denoiser is not continuous in time.
      n_nodes: number of levels, uniform in log snr. Between levels the curve is cubic, so for a smooth denoiser the
        interpolation error falls with the fourth power of the distance. Certificates contain an estimate of it.
      n_noises: number of antithetic pairs of noises for each row.
      axes: (d, d) with orthonormal columns. The denoiser then takes and returns rows in the coordinates x @ axes; the
        curve is the same. This saves the matrix products of a denoiser that works in such coordinates anyway, and those
        of the loss along directions where `basis` is the same array.
      progress: whether to show a bar.

    Returns:
      A MeasuredCurve. Standard errors are over rows, which are assumed to be independent.

    Raises:
      ValueError: fewer than two rows or five nodes, data that are not finite, early_stop not below the horizon, a grid
        that does not decrease or that leaves the interval between them, a basis or axes that are not valid, products
        with axes, or the denoiser's output is not finite or not of the shape of its input.
      TypeError: denoiser is not a function of x and t, data is not an array, or key is not a JAX key.
    """
    check_ends(horizon, early_stop)
    noise.check_key(key)
    event = events.event_of(data) if axes is None else None
    denoiser, data = as_score(denoiser, "denoiser"), _checked(data)
    denoiser = events.on_rows(denoiser, event, "denoiser")
    check_conditions(denoiser, len(data))
    _check_numbers(n_nodes, n_noises, products, axes)
    same = basis is axes is not None
    own_axes, basis = isinstance(basis, str) and basis == "pca", checked_basis(basis, data)
    axes = basis if same else checked_basis(axes, data, "axes")
    u = np.linspace(np.log(ou.snr(float(horizon))), np.log(ou.snr(float(early_stop))), n_nodes)
    extra = _further(u, grid)
    asked = _Asked(denoiser, data, key, np.concatenate([u, extra]), basis, axes, n_noises)
    rows, by_group = _collected(asked, progress)
    levels = coarse = None
    if products is not None:
        times, first, n_products = ou.time(np.exp(asked.u)), data[:ROWS_AT_ONCE], min(products, data.shape[1])
        levels, coarse = jacobian_spectrum.measured(
            of_particles(denoiser, np.arange(len(first))),
            first,
            key,
            times,
            n_products,
            asked.groups,
            progress=progress,
        )
    return measured_curve(
        u,
        rows.reshape(len(data), -1),
        data.shape[1],
        extra=extra,
        by_group=by_group,
        basis=basis,
        own_axes=own_axes,
        squares=np.sum(np.asarray(data, np.float64) ** 2, axis=1),
        row_ids=row_ids(data),
        levels=levels,
        coarse_levels=coarse,
    )


class _Asked(NamedTuple):
    """What is measured: a denoiser on data (n, d) at levels u in log snr, with checked basis and axes."""

    denoiser: DenoiserFn
    data: np.ndarray
    key: Any
    u: np.ndarray
    basis: Basis
    axes: Any
    n_noises: Whole

    @property
    def groups(self):
        """Groups of rows, for each of which the loss along directions is kept."""
        return min(len(self.data), GROUPS)

    @property
    def rows_at_once(self):
        """Rows that are on the device together."""
        numbers = self.data.shape[1] * self.n_noises
        return ROWS_AT_ONCE if self.axes is None else max(1, min(ROWS_AT_ONCE, ELEMENTS_AT_ONCE // numbers))


def _collected(asked, progress):
    """snr L and sqrt(snr) K of rows, (n, 2, levels), and snr L along directions of groups, (groups, levels, d) or None.

    ValueError where the denoiser's output is not finite.
    """
    n, n_levels, groups = len(asked.data), len(asked.u), asked.groups
    rows = np.empty((n, 2, n_levels))
    by_group = None if asked.basis is None else np.zeros((groups, n_levels, asked.data.shape[1]))
    total = -(-n // asked.rows_at_once) * n_levels
    measured = bar(_measured(asked), "loss curve", enabled=progress, total=total)
    for index, level, (loss, cross, squares) in measured:
        snr = np.exp(asked.u[level])
        rows[index, 0, level] = snr * np.asarray(loss, np.float64)
        rows[index, 1, level] = np.sqrt(snr) * np.asarray(cross, np.float64)
        if by_group is not None:
            squares = snr * np.asarray(squares, np.float64)
            for first in range(0, len(index), groups):  # no group occurs twice among `groups` consecutive rows
                here = slice(first, first + groups)
                by_group[index[here] % groups, level] += squares[here]
    if not np.isfinite(rows).all():
        worst = float(ou.time(np.exp(asked.u[int(np.argmin(np.isfinite(rows).all((0, 1))))])))
        raise ValueError(
            f"the denoiser's output is not finite, first at t = {worst:.4g}: check it on the held-out rows."
        )
    if by_group is not None:
        by_group /= np.bincount(np.arange(n) % groups)[:, None, None]
    return rows, by_group


def _measured(asked):
    """Yields rows, level and losses. The device computes AHEAD levels while the host uses the one that is yielded."""
    denoiser, data, key, u, basis, axes, n_noises = asked
    dtype = jnp.asarray(data[:1]).dtype
    own, rotation = (None if one is None else jnp.asarray(one, dtype) for one in (axes, change_of_basis(axes, basis)))
    waiting = collections.deque()
    for first in range(0, len(data), asked.rows_at_once):
        index = np.arange(len(data), dtype=np.uint32)[first : first + asked.rows_at_once]
        of_rows = of_particles(denoiser, index)
        x0, together = in_axes(jnp.asarray(data[index]), own), pairs_at_once(of_rows, data[index], n_noises)
        noises = None if own is None else noises_in_axes(own, index, key, n_noises, dtype)
        for level, u_here in enumerate(u):
            t = jnp.asarray(ou.time(np.exp(u_here)), dtype)
            found = errors(of_rows, x0, index, key, t, rotation, noises, n_noises, basis is not None, together)
            waiting.append((index, level, found))
            if len(waiting) > AHEAD:
                yield waiting.popleft()
    yield from waiting


def _check_numbers(n_nodes, n_noises, products, axes):
    """Raise where the numbers asked for are too small or not whole, or products are asked for with axes."""
    for name, value in (("n_nodes", n_nodes), ("n_noises", n_noises), ("products", products or 1)):
        check_whole(value, name)
    if n_nodes < 5 or n_noises < 1 or (products is not None and products < 1):
        raise ValueError(
            f"a loss curve needs n_nodes >= 5, n_noises >= 1 and products >= 1 or None: n_nodes = {n_nodes}, "
            f"n_noises = {n_noises}, products = {products}."
        )
    if isinstance(axes, str):
        raise ValueError(f"axes must be an array (d, d) or None: axes = {axes!r}.")
    if axes is not None and products is not None:
        raise ValueError("products= needs a denoiser in the coordinates of the data: leave axes= out, or products=.")


def _further(u, grid):
    """The log snr of those of a grid's nodes that are not among the levels u, increasing."""
    if grid is None:
        return np.zeros(0)
    wanted, slack = np.log(ou.snr(check_grid(grid))), SAME * (u[-1] - u[0])
    if wanted[0] < u[0] - slack or wanted[-1] > u[-1] + slack:
        ends, own = ou.time(np.exp(wanted[[0, -1]])), ou.time(np.exp(u[[0, -1]]))
        raise ValueError(
            f"the grid runs from {ends[0]:.6g} to {ends[1]:.6g}, the curve from {own[0]:.6g} to {own[1]:.6g}: measure "
            f"it with a longer horizon or an earlier early_stop."
        )
    return wanted[np.abs(wanted[:, None] - u).min(1) > slack]


def _checked(given: Any) -> np.ndarray:
    """The data as a float array of rows (n, d) on the host, two finite rows or more."""
    data: np.ndarray = events.rows_of(as_host(given, "data", "an array of rows (n, d)"))
    if data.ndim != 2 or len(data) < 2:
        raise ValueError(f"a loss curve needs rows of data, (n, d) with n >= 2: data has shape {data.shape}.")
    data = data if data.dtype.kind == "f" else data.astype(np.float32)
    if not np.isfinite(data).all():
        row = int(np.argmin(np.isfinite(data).all(1)))
        raise ValueError(f"the data are not finite, first in row {row}: drop such rows.")
    return data
