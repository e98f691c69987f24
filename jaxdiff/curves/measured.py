"""The record of a loss curve measured on data. It keeps every row's loss, so linear statistics have standard errors."""

import dataclasses
import functools
import operator
from typing import Any

import numpy as np
from jaxtyping import Float64

from jaxdiff.curves import jacobian_spectrum
from jaxdiff.curves.curve import Curve
from jaxdiff.curves.interpolation import Spline
from jaxdiff.processes import ou
from jaxdiff.types import Basis

# Losses along directions are kept for so many groups of rows, because those of every row would take d times the memory.
# Standard errors from 32 groups have 31 degrees of freedom.
GROUPS = 32


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredCurve(Curve):
    """A loss curve from data: splines of snr L and sqrt(snr) K in log snr, so that every path KL is linear in them.

    Attributes:
      spline: over log snr of the levels: equidistant nodes, then the nodes of a sampler's grid if one was given.
      rows: (n, 2 levels): snr L, then sqrt(snr) K, of every row of data at the levels.
      by_group: (groups, levels, d): snr L along every direction of the basis, means over rows i, i + groups, ...; or
        None.
      replicates: the curves of the groups.
      coarse: the curve whose log_det comes from two Lanczos products fewer; None where log_det is None or exact.
      own_axes: True where the basis was computed from these very rows. Their loss along it is smaller than that of
        other rows.
      squares: (n,) |X_0|^2 of every row; None where it was not kept.
      row_ids: (n,) whole numbers, equal where rows are equal; None where they were not kept.
    """

    spline: Spline = dataclasses.field(repr=False)
    rows: np.ndarray = dataclasses.field(repr=False)
    by_group: np.ndarray | None = dataclasses.field(default=None, repr=False)
    coarse: Curve | None = dataclasses.field(default=None, repr=False)
    own_axes: bool = dataclasses.field(default=False, repr=False)
    squares: np.ndarray | None = dataclasses.field(default=None, repr=False)
    row_ids: np.ndarray | None = dataclasses.field(default=None, repr=False)

    @property
    def n(self) -> int:
        """Number of rows of data."""
        return len(self.rows)

    @property
    def losses(self) -> Float64[np.ndarray, " levels"]:
        """(levels,) snr L at the levels."""
        return self.rows[:, : len(self.spline.levels)].mean(0)

    @property
    def crosses(self) -> Float64[np.ndarray, " levels"]:
        """(levels,) sqrt(snr) K at the levels."""
        return self.rows[:, len(self.spline.levels) :].mean(0)

    @functools.cached_property
    def halves(self) -> tuple["MeasuredCurve", ...]:
        """The curves of rows 0, 2, ... and of rows 1, 3, ...; without log_det."""
        groups = [None, None] if self.by_group is None else [self.by_group[half::2] for half in range(2)]
        each = [None, None] if self.squares is None else [self.squares[half::2] for half in range(2)]
        ids = [None, None] if self.row_ids is None else [self.row_ids[half::2] for half in range(2)]
        shared = {"extra": self.spline.extra, "basis": self.basis}
        options = [
            {"by_group": groups[half], "squares": each[half], "row_ids": ids[half], **shared} for half in range(2)
        ]
        return tuple(measured_curve(self.spline.u, self.rows[half::2], self.dim, **options[half]) for half in range(2))

    @property
    def ends(self) -> tuple[float, ...]:
        """(horizon, early_stop): the OU times between which the curve is known."""
        return tuple(float(t) for t in ou.time(np.exp(self.spline.u[[0, -1]])))


def measured_curve(
    u: Float64[np.ndarray, " nodes"],
    rows: np.ndarray,
    dim: int,
    *,
    extra: Any = (),
    by_group: np.ndarray | None = None,
    basis: Basis = None,
    own_axes: bool = False,
    squares: np.ndarray | None = None,
    row_ids: np.ndarray | None = None,
    levels: list[Any] | None = None,
    coarse_levels: list[Any] | None = None,
) -> MeasuredCurve:
    """The MeasuredCurve made from the losses of rows at equidistant nodes in log snr.

    Args:
      u: (nodes,) log snr of the nodes, increasing and equidistant, at least five.
      rows: (n, 2 levels) snr L, then sqrt(snr) K, of every row. The columns of the nodes come before those of `extra`.
      dim: d.
      extra: further levels in log snr.
      by_group, basis, own_axes, squares, row_ids: see MeasuredCurve.
      levels, coarse_levels: spectral measures of every level, from `jacobian_spectrum.measured`; or None.
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
    """The Curve through means (2 levels,) at the spline's levels; `directions` and `levels` may be None."""
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
