"""Measures the loss curve of a denoiser on held-out data."""

import collections

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import noise
from jaxdiff.checks import as_host, check_whole, value_of
from jaxdiff.curves import jacobian_spectrum
from jaxdiff.curves.directions import checked_basis, turn_between, turned_by
from jaxdiff.curves.interpolation import SAME
from jaxdiff.curves.measured import GROUPS, MeasuredCurve, measured_curve
from jaxdiff.grids import check_grid
from jaxdiff.intervals import row_ids
from jaxdiff.processes import forward, ou
from jaxdiff.processes.ou import check_ends
from jaxdiff.progress import bar
from jaxdiff.types import Basis, DenoiserFn, as_score

ROWS_AT_ONCE = 4096
ELEMENTS_AT_ONCE = 2**25  # of the noises of those rows, where they are turned once for all levels
FULL = 256  # rows of a matrix product at nearly full speed on a CPU: few rows are seen with several noises at once
AHEAD = 2  # levels that the device works on while the host adds up the one before


def loss_curve(
    denoiser: DenoiserFn,
    data,
    key,
    *,
    horizon,
    early_stop,
    basis: Basis = None,
    products=None,
    grid=None,
    n_nodes=201,
    n_noises=4,
    axes=None,
    progress=False,
) -> MeasuredCurve:
    """The loss of a denoiser on data, L(snr) = E|X_0 - D(X_t, t)|^2, row by row.

    Args:
      denoiser: D(x, t), shapes (..., d), () -> (..., d).
      data: (n, d), rows the denoiser was not trained on; whole numbers are taken as float32.
      key: for the noise. A row sees the same noises, and their negatives, at every level: differences between levels,
        which path KL is made of, are then far better known than the levels.
      horizon, early_stop: OU times; the curve is known for snr between theirs.
      basis: directions to tell the loss apart in, for moment matching with `basis=`: (d, d) with orthonormal columns,
        best the principal_axes of training rows; "coordinates"; or "pca", the principal axes of these very rows, in
        which they look better than others will: certificates then carry a warning.
      products: Lanczos products with the denoiser's Jacobian a start, for the path KL of covariance matching, which
        costs eight times as many evaluations as there are products; d of them are exact. Of the first 4,096 rows.
      grid: OU times of a sampler's grid, at which the loss is measured too. The path KL down that grid then needs
        interpolation for an integral alone, not for the losses at the grid's nodes. Give the grid where it is known,
        above all if the denoiser jumps in time.
      n_nodes: levels uniform in log snr. Between levels the curve is cubic, so for a smooth denoiser the interpolation
        error falls with the fourth power of the distance. Certificates contain an estimate of that error.
      n_noises: antithetic pairs a row.
      axes: (d, d) with orthonormal columns; the denoiser then takes rows in their coordinates, x @ axes, and returns
        such rows. The curve is the same. A denoiser that works in such coordinates is spared the products with them,
        as is the loss along directions where `basis` is the same array.
      progress: show a bar.

    Returns:
      A MeasuredCurve. Standard errors are over rows, which are assumed independent.

    Raises:
      ValueError: fewer than two rows or five nodes, data that are not finite, early_stop not below the horizon, a grid
        that does not decrease or that leaves the interval between them, a basis or axes that are none, products with
        axes, or the denoiser's output is not finite or not of the shape of its input.
    """
    check_ends(horizon, early_stop)
    noise.check_key(key)
    denoiser, data = as_score(denoiser, "denoiser"), _checked(data)
    for name, value in (("n_nodes", n_nodes), ("n_noises", n_noises), ("products", products or 1)):
        check_whole(value, name)
    if n_nodes < 5 or n_noises < 1 or (products is not None and products < 1):
        raise ValueError(
            f"a loss curve needs n_nodes >= 5, n_noises >= 1 and products >= 1 or None: n_nodes = {n_nodes}, "
            f"n_noises = {n_noises}, products = {products}."
        )
    if isinstance(axes, str):
        raise ValueError(f"axes is an array (d, d) or None: axes = {axes!r}.")
    if axes is not None and products is not None:
        raise ValueError("products= needs a denoiser of the rows as they are: leave axes= out.")
    same = basis is axes is not None
    own_axes, basis = isinstance(basis, str) and basis == "pca", checked_basis(basis, data)
    axes = basis if same else checked_basis(axes, data, "axes")
    n, dim = data.shape
    u = np.linspace(np.log(ou.snr(float(horizon))), np.log(ou.snr(float(early_stop))), n_nodes)
    extra = _further(u, grid)
    measured_at = np.concatenate([u, extra])
    n_levels, groups = len(measured_at), min(n, GROUPS)
    rows_at_once = ROWS_AT_ONCE if axes is None else max(1, min(ROWS_AT_ONCE, ELEMENTS_AT_ONCE // (dim * n_noises)))
    rows = np.empty((n, 2, n_levels))
    by_group = None if basis is None else np.zeros((groups, n_levels, dim))
    dtype = jnp.asarray(data[:1]).dtype
    own, turn = (None if one is None else jnp.asarray(one, dtype) for one in (axes, turn_between(axes, basis)))

    def measured():
        """Rows, level and losses, a few levels behind what the device has been asked for."""
        asked = collections.deque()
        for first in range(0, n, rows_at_once):
            index = np.arange(n, dtype=np.uint32)[first : first + rows_at_once]
            x0, together = turned_by(jnp.asarray(data[index]), own), _together(denoiser, data[index], n_noises)
            turned = None if own is None else _noises(own, index, key, n_noises, dtype)
            for level, u_here in enumerate(measured_at):
                t = jnp.asarray(ou.time(np.exp(u_here)), dtype)
                found = _errors(denoiser, x0, index, key, t, turn, turned, n_noises, basis is not None, together)
                asked.append((index, level, found))
                if len(asked) > AHEAD:
                    yield asked.popleft()
        yield from asked

    total = -(-n // rows_at_once) * n_levels
    for index, level, (loss, cross, squares) in bar(measured(), "loss curve", enabled=progress, total=total):
        snr = np.exp(measured_at[level])
        rows[index, 0, level] = snr * np.asarray(loss, np.float64)
        rows[index, 1, level] = np.sqrt(snr) * np.asarray(cross, np.float64)
        if by_group is not None:
            squares = snr * np.asarray(squares, np.float64)
            for first in range(0, len(index), groups):  # no group occurs twice among so many rows
                here = slice(first, first + groups)
                by_group[index[here] % groups, level] += squares[here]
    if not np.isfinite(rows).all():
        worst = float(ou.time(np.exp(measured_at[int(np.argmin(np.isfinite(rows).all((0, 1))))])))
        raise ValueError(
            f"the denoiser's output is not finite, first at t = {worst:.4g}: check it on the held-out rows."
        )
    if by_group is not None:
        by_group /= np.bincount(np.arange(n) % groups)[:, None, None]
    levels = coarse = None
    if products is not None:
        times, few = ou.time(np.exp(measured_at)), data[:ROWS_AT_ONCE]
        levels, coarse = jacobian_spectrum.measured(
            denoiser, few, key, times, min(products, dim), groups, progress=progress
        )
    rows = rows.reshape(n, -1)
    squares = np.sum(np.asarray(data, np.float64) ** 2, axis=1)
    options = {"extra": extra, "by_group": by_group, "basis": basis, "own_axes": own_axes, "squares": squares}
    options["row_ids"] = row_ids(data)
    return measured_curve(u, rows, dim, levels=levels, coarse_levels=coarse, **options)


def _further(u, grid):
    """The log snr of a grid's nodes that are none of the levels u, increasing."""
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


def _checked(data):
    data = as_host(data, "data", "an array of rows (n, d)")
    if data.ndim != 2 or len(data) < 2:
        raise ValueError(f"a loss curve needs rows of data, (n, d) with n >= 2: data has shape {data.shape}.")
    data = data if data.dtype.kind == "f" else data.astype(np.float32)
    if not np.isfinite(data).all():
        row = int(np.argmin(np.isfinite(data).all(1)))
        raise ValueError(f"the data are not finite, first in row {row}: drop such rows.")
    return data


def _together(denoiser, rows, n_noises):
    """How many pairs a row is seen with at once: as many as fill a matrix product, if the denoiser can be mapped."""
    together = min(n_noises, max(1, FULL // len(rows)))
    if together > 1:
        some = jax.ShapeDtypeStruct((together, *rows.shape), jnp.asarray(rows[:1]).dtype)
        try:
            jax.eval_shape(jax.vmap(denoiser, (0, None)), some, jax.ShapeDtypeStruct((), some.dtype))
        except (NotImplementedError, TypeError, ValueError):
            # vmap refuses some callbacks to the host. What is truly wrong raises again with one noise at a time.
            return 1
    return together


# The pair Z, -Z: K = E<D - beta X_0, Z> for any beta, and over the pair beta drops out.
@jax.jit(static_argnames=("n_noises", "each", "together"))
def _errors(denoiser, x0, index, key, t, turn, noises, n_noises, each, together):
    """Each row's |X_0 - D|^2 (n,), <D, Z> (n,) and, if asked for, <X_0 - D, axis>^2 (n, d): means over its pairs.

    turn: (d, d), what leads to the axes; None where they are the coordinates. noises: (n_noises, n, d), or None: drawn.
    """

    def pair(repeat):
        z = noise.normal(key, index, repeat, x0.shape[1], x0.dtype) if noises is None else noises[repeat]
        plus, minus = (value_of(denoiser, forward(x0, t, one), t, "denoiser") for one in (z, -z))
        if plus.shape != x0.shape:
            raise ValueError(f"the denoiser returns shape {plus.shape} for x of shape {x0.shape}: they must agree.")
        squares = (turned_by(x0 - plus, turn) ** 2 + turned_by(x0 - minus, turn) ** 2) / 2
        loss, cross = jnp.sum(squares, -1), jnp.sum((plus - minus) * z, -1) / 2
        return loss, cross, squares if each else None

    repeats = jnp.arange(n_noises, dtype=jnp.uint32)
    found = jax.lax.map(pair, repeats, batch_size=together if together > 1 else None)
    return jax.tree.map(lambda leaf: leaf.mean(0), found)


@jax.jit(static_argnames=("n_noises", "dtype"))
def _noises(axes, index, key, n_noises, dtype):
    """(n_noises, n, d) the noises of rows in the coordinates of axes."""
    drawn = lambda repeat: turned_by(noise.normal(key, index, repeat, len(axes), dtype), axes)
    return jax.lax.map(drawn, jnp.arange(n_noises, dtype=jnp.uint32))
