"""Cubic Hermite splines in log snr for measured curves.

SciPy's CubicHermiteSpline gives the same numbers; the tests compare them. It is not used here, because it takes 0.2 s
to import, integrates many columns three times slower, and needs the slopes at all nodes to be evaluated at a few
points.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

# Levels that differ by less than this fraction of a spline's range are the same level. The rounding errors of log snr
# computed from times are smaller.
SAME = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Spline:
    """Cubic Hermite interpolation in u = log snr, linear in the values, with an estimate of its error.

    The spline runs through values at equidistant nodes, with slopes from fourth-order differences. Where a value is
    also known at a further level, the spline's difference from it is added as a correction that falls linearly to 0 at
    the neighbouring levels. So two levels that lie close together do no harm, even if the values jump between them.

    Attributes:
      u: (nodes,) equidistant, increasing, at least five.
      extra: (further,) levels between the first node and the last, in any order.
    """

    u: np.ndarray
    extra: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    @property
    def width(self) -> Any:
        """The distance of neighbouring nodes."""
        return (self.u[-1] - self.u[0]) / (len(self.u) - 1)

    @property
    def levels(self) -> Float64[np.ndarray, " levels"]:
        """(levels,) u at which values are known: the nodes, then the further levels."""
        return np.concatenate([self.u, self.extra])

    @functools.cached_property
    def _slopes(self):
        n = len(self.u)
        matrix = np.zeros((n, n))
        for i in range(n):
            first = min(max(i - 2, 0), n - 5)
            matrix[i, first : first + 5] = STENCILS[i - first]
        matrix.flags.writeable = False  # `slopes` returns the cached matrix itself
        return matrix

    def slopes(self) -> Float64[np.ndarray, "nodes nodes"]:
        """(nodes, nodes): the matrix from values to width times derivatives at the nodes; exact for quartics."""
        return self._slopes

    def basis(self, u: Float64[np.ndarray, " points"]) -> Float64[np.ndarray, "points levels"]:
        """(points, levels): the matrix from values to the interpolant at the points u."""
        return self.at(np.eye(len(self.levels)), u)

    def integral_basis(self, u: Float64[np.ndarray, " points"]) -> Float64[np.ndarray, "points levels"]:
        """(points, levels): the matrix from values to the integral of the interpolant, from the first node to u."""
        return self.integral(np.eye(len(self.levels)), u)

    def at(
        self, values: Float64[np.ndarray, "levels *more"], u: Float64[np.ndarray, " points"]
    ) -> Float64[np.ndarray, "points *more"]:
        """The interpolant of values (levels, ...) at the points u: (points, ...)."""
        smooth = self._smooth(values[: len(self.u)], u)
        if not len(self.extra):
            return smooth
        i, x = _place(self.levels[self._order], u, values.ndim)
        below, above = (self._correction(values, self._order[k]) for k in (i, i + 1))
        return smooth + (1 - x) * below + x * above

    def integral(
        self, values: Float64[np.ndarray, "levels *more"], u: Float64[np.ndarray, " points"]
    ) -> Float64[np.ndarray, "points *more"]:
        """The interpolant's integral, of values (levels, ...), from the first node to the points u: (points, ...)."""
        smooth = self._smooth_integral(values[: len(self.u)], u)
        if not len(self.extra):
            return smooth
        knots, gap = self.levels[self._order], self._correction(values, self._order)
        i, x = _place(knots, u, values.ndim)
        width = np.diff(knots).reshape(-1, *(1,) * (values.ndim - 1))
        before = np.concatenate([np.zeros_like(gap[:1]), np.cumsum(width * (gap[:-1] + gap[1:]) / 2, axis=0)])
        return smooth + before[i] + width[i] * ((x - x**2 / 2) * gap[i] + x**2 / 2 * gap[i + 1])

    def around(self, u: Float64[np.ndarray, " points"]) -> Int[np.ndarray, "points near"]:
        """(points, 6): indices of the nodes around each of the points u, for `error`; (points, 5) for five nodes."""
        i, size = self._locate(u, 1)[0], min(6, len(self.u))
        return np.clip(i - 2, 0, len(self.u) - size)[:, None] + np.arange(size)

    def error(
        self, near: Float64[np.ndarray, "points near *more"], u: Float64[np.ndarray, " points"]
    ) -> Float64[np.ndarray, "points *more"]:
        """An estimate of the interpolant's error at the points u, from `near`, the values at the nodes `around` them.

        The estimate is a third of the larger fourth difference around the point's panel. A jump between the two nodes
        of the panel has a fourth difference of three times its height, so the estimate is the height. For a smooth
        function the estimate is about 100 times the error, and both fall with the fourth power of the width. In the
        first and the last panel the fourth difference of a jump is only its height, so there the estimate is the
        difference itself. At a level the error is 0. A feature between two levels that changes no value at a level
        cannot be seen.
        """
        i, last = self._locate(u, 1)[0], len(self.u) - 2
        known = np.abs(np.asarray(u)[:, None] - self.levels).min(1) <= SAME * (self.u[-1] - self.u[0])
        scale = np.where(known, 0.0, np.where((i == 0) | (i == last), 1.0, 1 / 3))
        return scale.reshape(-1, *(1,) * (near.ndim - 2)) * np.abs(np.diff(near, 4, axis=1)).max(1)

    def integral_error(self, values: Float64[np.ndarray, " levels"], first: Any, last: Any) -> Any:
        """An estimate of the error of the interpolant's integral, values (levels,), from `first` to `last`.

        The estimate is a fourteenth of the width times the sum of the fourth differences, where the first and the last
        difference count eleven times. A jump of height 1 between two nodes has fourth differences 1, 3, 3, 1, so the
        estimate is 0.57 of a width. The true error is half a width at most, or 0.54 where the integral ends next to
        the jump. For a smooth function the estimate is about fifty times the error. At every further level half a
        width times the correction there is added.
        """
        fourth = np.abs(np.diff(values[: len(self.u)], 4))
        weight = np.ones(len(fourth))
        weight[[0, -1]] = 11
        centre, near = self.u[2:-2], 3 * self.width
        weight *= (centre >= first - near) & (centre <= last + near)
        corrections = np.abs(self._correction(values, self._order)).sum() if len(self.extra) else 0.0
        return self.width * (weight @ fourth / 14 + corrections / 2)

    @functools.cached_property
    def _order(self):
        """(levels,): the positions of the levels in increasing order of log snr."""
        return np.argsort(self.levels, kind="stable")

    def _correction(self, values, which):
        """Values minus the nodes' spline at some levels, (len(which), ...): 0 at the nodes."""
        further = which >= len(self.u)
        gap = np.zeros((len(which), *values.shape[1:]))
        if further.any():
            at = self.extra[which[further] - len(self.u)]
            gap[further] = values[which[further]] - self._smooth(values[: len(self.u)], at)
        return gap

    # A point depends on the two nodes of its panel and, through their slopes, on the nodes around them. So the slopes
    # at all nodes, a product of (nodes, nodes) with the values, are not needed.
    def _smooth(self, values, u):
        from scipy.sparse import csr_array

        i, x = self._locate(u, 1)
        near, own = self.around(u), np.arange(len(u))
        slopes = lambda node: self._slopes[node[:, None], near]
        weight = (x * (1 - x) ** 2)[:, None] * slopes(i) + (x**2 * (x - 1))[:, None] * slopes(i + 1)
        weight[own, i - near[:, 0]] += (1 + 2 * x) * (1 - x) ** 2
        weight[own, i + 1 - near[:, 0]] += x**2 * (3 - 2 * x)
        ends = np.arange(0, near.size + 1, near.shape[1])
        weights = csr_array((weight.ravel(), near.ravel(), ends), shape=(len(u), len(self.u)))
        return (weights @ values.reshape(len(self.u), -1)).reshape(len(u), *values.shape[1:])

    def _smooth_integral(self, values, u):
        i, x = self._locate(u, values.ndim)
        slope = np.tensordot(self._slopes, values, 1)
        panel = (values[:-1] + values[1:]) / 2 + (slope[:-1] - slope[1:]) / 12
        before = np.concatenate([np.zeros_like(values[:1]), np.cumsum(panel, axis=0)])
        part = (x - x**3 + x**4 / 2) * values[i] + (x**3 - x**4 / 2) * values[i + 1]
        part += (x**2 / 2 - 2 * x**3 / 3 + x**4 / 4) * slope[i] + (x**4 / 4 - x**3 / 3) * slope[i + 1]
        return self.width * (before[i] + part)

    def _locate(self, u, ndim):
        """The panel of each u, and its position in the panel in [0, 1], an array of `ndim` axes."""
        slack = SAME * (self.u[-1] - self.u[0])
        if u.min() < self.u[0] - slack or u.max() > self.u[-1] + slack:
            raise ValueError(
                f"the curve was measured for log snr in [{self.u[0]:.4g}, {self.u[-1]:.4g}], asked in "
                f"[{u.min():.4g}, {u.max():.4g}]: measure it with a longer horizon or an earlier early_stop."
            )
        place = np.clip((u - self.u[0]) / self.width, 0, len(self.u) - 1)
        i = np.minimum(place.astype(int), len(self.u) - 2)
        return i, (place - i).reshape(-1, *(1,) * (ndim - 1))


def _place(knots, u, ndim):
    """The interval between increasing knots that holds each u, and its position there in [0, 1], of `ndim` axes."""
    i = np.clip(np.searchsorted(knots, u, side="right") - 1, 0, len(knots) - 2)
    x = np.clip((u - knots[i]) / (knots[i + 1] - knots[i]), 0, 1)
    return i, x.reshape(-1, *(1,) * (ndim - 1))


# Rows: the derivative at point 0, ..., 4 of the quartic through five equidistant points, times their distance.
STENCILS = (
    np.array(
        [[-25, 48, -36, 16, -3], [-3, -10, 18, -6, 1], [1, -8, 0, 8, -1], [-1, 6, -18, 10, 3], [3, -16, 36, -48, 25]]
    )
    / 12
)
