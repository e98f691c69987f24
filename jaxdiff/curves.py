"""Loss curves measured from held-out data, row by row, so that whatever is linear in them has a standard error."""

import collections
import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import innovations, noise
from jaxdiff.grids import check_grid
from jaxdiff.interpolation import SAME, Spline
from jaxdiff.intervals import row_ids
from jaxdiff.processes import check_ends, forward, ou
from jaxdiff.progress import bar
from jaxdiff.types import Basis, Curve, DenoiserFn, as_host, as_score, check_whole, value_of

ROWS_AT_ONCE = 4096
ELEMENTS_AT_ONCE = 2**25  # of the noises of those rows, where they are turned once for all levels
FULL = 256  # rows of a matrix product at nearly full speed on a CPU: few rows are seen with several noises at once
AHEAD = 2  # levels that the device works on while the host adds up the one before
GROUPS = 32  # of rows: losses in every direction are kept for groups, not for rows


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredCurve(Curve):
    """A loss curve from data: splines in log snr of snr L and sqrt(snr) K, so that every path KL is linear in them.

    Attributes:
      spline: over the levels' log snr: equidistant nodes, then the nodes of a sampler's grid if it was given.
      rows: (n, 2 levels) snr L and sqrt(snr) K of every data point at the levels.
      by_group: (groups, levels, d) snr L in every direction of the basis, means over rows i, i + groups, ...; or None.
      replicates: the curves of the groups alone.
      coarse: the curve with log_det from two Lanczos products fewer; None where log_det is None or exact.
      own_axes: the basis is made from these very rows, which look better in it than others will.
      squares: (n,) |X_0|^2 of every data point; None where it was not kept.
      row_ids: (n,) whole numbers, equal where data points are equal; None where they were not kept.
    """

    spline: Spline = dataclasses.field(repr=False)
    rows: np.ndarray = dataclasses.field(repr=False)
    by_group: np.ndarray | None = dataclasses.field(default=None, repr=False)
    coarse: Curve | None = dataclasses.field(default=None, repr=False)
    own_axes: bool = dataclasses.field(default=False, repr=False)
    squares: np.ndarray | None = dataclasses.field(default=None, repr=False)
    row_ids: np.ndarray | None = dataclasses.field(default=None, repr=False)

    @property
    def n(self):
        """Data points."""
        return len(self.rows)

    @property
    def losses(self):
        """(levels,) snr L at the levels."""
        return self.rows[:, : len(self.spline.levels)].mean(0)

    @property
    def crosses(self):
        """(levels,) sqrt(snr) K at the levels."""
        return self.rows[:, len(self.spline.levels) :].mean(0)

    @functools.cached_property
    def halves(self):
        """The curves of every second row, and of the others; without log_det."""
        groups = [None, None] if self.by_group is None else [self.by_group[half::2] for half in range(2)]
        each = [None, None] if self.squares is None else [self.squares[half::2] for half in range(2)]
        ids = [None, None] if self.row_ids is None else [self.row_ids[half::2] for half in range(2)]
        shared = {"extra": self.spline.extra, "basis": self.basis}
        options = [
            {"by_group": groups[half], "squares": each[half], "row_ids": ids[half], **shared} for half in range(2)
        ]
        return tuple(measured_curve(self.spline.u, self.rows[half::2], self.dim, **options[half]) for half in range(2))

    @property
    def ends(self):
        """The OU times between which the curve is known: horizon and early stop."""
        return tuple(float(t) for t in ou.time(np.exp(self.spline.u[[0, -1]])))


def measured_curve(
    u,
    rows,
    dim,
    *,
    extra=(),
    by_group=None,
    basis: Basis = None,
    own_axes=False,
    squares=None,
    row_ids=None,
    levels=None,
    coarse_levels=None,
):
    """The MeasuredCurve of the losses of rows at equidistant nodes u in log snr (see its attributes).

    extra: further levels in log snr, whose columns come after those of the nodes.
    levels, coarse_levels: of every level, as `innovations.compressed` makes them, or None.
    """
    spline = Spline(u, np.asarray(extra, np.float64))
    groups = min(len(rows), GROUPS) if by_group is None else len(by_group)
    group_means = np.stack([rows[g::groups].mean(0) for g in range(groups)])
    each = [None] * groups if by_group is None else by_group
    size = np.array([len(rows[g::groups]) for g in range(groups)]) / len(rows)
    whole = None if by_group is None else np.tensordot(size, by_group, 1)

    def error(snr):
        at_snr = rows[:, : len(spline.levels)] @ spline.basis(np.log(np.ravel(snr))).T
        return np.std(at_snr, axis=0, ddof=1).reshape(np.shape(snr)) / np.sqrt(len(rows)) / snr

    def curve(means, directions, levels, pick):
        return _interpolated(spline, dim, means, directions, basis, levels, pick)

    mean = lambda costs: costs @ size
    known = curve(rows.mean(0), whole, levels, mean)
    return MeasuredCurve(
        known.value,
        dim,
        standard_error=error,
        cross=known.cross,
        integral=known.integral,
        log_det=known.log_det,
        directions=known.directions,
        basis=basis,
        replicates=tuple(curve(group_means[g], each[g], levels, operator.itemgetter((..., g))) for g in range(groups)),
        spline=spline,
        rows=rows,
        by_group=by_group,
        own_axes=own_axes,
        squares=squares,
        row_ids=row_ids,
        coarse=None if coarse_levels is None else curve(rows.mean(0), whole, coarse_levels, mean),
    )


def _interpolated(spline, dim, means, directions, basis, levels, pick):
    """The Curve of values at the spline's levels; levels and directions may be None."""
    losses, crosses = np.split(means, 2)
    at = lambda values, snr: spline.at(values, np.log(np.ravel(snr))).reshape(np.shape(snr) + values.shape[1:])
    return Curve(
        lambda snr: at(losses, snr) / snr,
        dim,
        cross=lambda snr: at(crosses, snr) / np.sqrt(snr),
        integral=lambda snr: spline.integral(losses, np.log(np.ravel(snr))).reshape(np.shape(snr)),
        log_det=None if levels is None else innovations.log_det_of(spline, levels, pick),
        directions=None if directions is None else lambda snr: at(directions, snr) / np.asarray(snr)[..., None],
        basis=basis,
    )


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
    own, turn = (None if one is None else jnp.asarray(one, dtype) for one in (axes, _turn(axes, basis)))

    def measured():
        """Rows, level and losses, a few levels behind what the device has been asked for."""
        asked = collections.deque()
        for first in range(0, n, rows_at_once):
            index = np.arange(n, dtype=np.uint32)[first : first + rows_at_once]
            x0, together = _turned(jnp.asarray(data[index]), own), _together(denoiser, data[index], n_noises)
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
        levels, coarse = innovations.measured(denoiser, few, key, times, min(products, dim), groups, progress=progress)
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


def principal_axes(rows):
    """(d, d) the eigenvectors of the covariance of rows (n, d), in columns: a basis for `loss_curve` on other rows."""
    return np.linalg.eigh(np.atleast_2d(np.cov(np.asarray(rows, np.float64), rowvar=False)))[1]


def checked_basis(basis: Basis, data, name="basis") -> Basis:
    """The basis asked for: None and "coordinates" as they are, "pca" and arrays as orthonormal columns, float64."""
    if basis is None or (isinstance(basis, str) and basis == "coordinates"):
        return basis
    dim = data.shape[1]
    if isinstance(basis, str):
        if basis != "pca":
            raise ValueError(f"basis is 'pca', 'coordinates' or an array (d, d): basis = {basis!r}.")
        return principal_axes(data)
    basis = np.asarray(basis, np.float64)
    if basis.shape != (dim, dim) or not np.abs(basis.T @ basis - np.eye(dim)).max() <= 1e-6:
        raise ValueError(f"{name} must have orthonormal columns, shape ({dim}, {dim}): it has shape {basis.shape}.")
    return basis


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
        squares = (_turned(x0 - plus, turn) ** 2 + _turned(x0 - minus, turn) ** 2) / 2
        loss, cross = jnp.sum(squares, -1), jnp.sum((plus - minus) * z, -1) / 2
        return loss, cross, squares if each else None

    repeats = jnp.arange(n_noises, dtype=jnp.uint32)
    found = jax.lax.map(pair, repeats, batch_size=together if together > 1 else None)
    return jax.tree.map(lambda leaf: leaf.mean(0), found)


@jax.jit(static_argnames=("n_noises", "dtype"))
def _noises(axes, index, key, n_noises, dtype):
    """(n_noises, n, d) the noises of rows in the coordinates of axes."""
    drawn = lambda repeat: _turned(noise.normal(key, index, repeat, len(axes), dtype), axes)
    return jax.lax.map(drawn, jnp.arange(n_noises, dtype=jnp.uint32))


def _turn(axes, basis):
    """(d, d) from coordinates of axes to those of the basis, or None where nothing is left to turn."""
    if basis is None or basis is axes:
        return None
    if isinstance(basis, str):
        return None if axes is None else axes.T
    return basis if axes is None else axes.T @ basis


def _turned(x, axes):
    return x if axes is None else jnp.matmul(x, axes, precision="highest")
