"""Loss curves measured on data, kept row by row so that every statistic linear in them has a standard error."""

import dataclasses
import functools
import operator

import numpy as np

from jaxdiff.curves import jacobian_spectrum
from jaxdiff.curves.curve import Curve
from jaxdiff.curves.interpolation import Spline
from jaxdiff.processes import ou
from jaxdiff.types import Basis

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
    levels, coarse_levels: of every level, as `jacobian_spectrum.compressed` makes them, or None.
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
        return _curve_through(spline, dim, means, directions, basis, levels, pick)

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


def _curve_through(spline, dim, means, directions, basis, levels, pick):
    """The Curve of values at the spline's levels; levels and directions may be None."""
    losses, crosses = np.split(means, 2)
    at = lambda values, snr: spline.at(values, np.log(np.ravel(snr))).reshape(np.shape(snr) + values.shape[1:])
    return Curve(
        lambda snr: at(losses, snr) / snr,
        dim,
        cross=lambda snr: at(crosses, snr) / np.sqrt(snr),
        integral=lambda snr: spline.integral(losses, np.log(np.ravel(snr))).reshape(np.shape(snr)),
        log_det=None if levels is None else jacobian_spectrum.interpolated_costs(spline, levels, pick),
        directions=None if directions is None else lambda snr: at(directions, snr) / np.asarray(snr)[..., None],
        basis=basis,
    )
