"""Cubic Hermite splines in log snr for measured curves."""

import dataclasses
import functools

import numpy as np

SAME = 1e-9  # of a spline's range: levels closer than this are one, which is rounding of log snr from times


@dataclasses.dataclass(frozen=True, eq=False)
class Spline:
    """Cubic Hermite interpolation in u, linear in the values, with an estimate of the error between the levels.

    The spline runs through the equidistant nodes and takes its slopes from fourth-order differences. At further levels
    it is corrected by the difference that is left there, which falls linearly to 0 at the neighbouring nodes. So two
    levels that lie close together do no harm, even if the values jump between them.

    Attributes:
      u: (nodes,) equidistant, increasing, at least five.
      extra: (further,) levels between the first node and the last, in any order.
    """

    u: np.ndarray
    extra: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    @property
    def width(self):
        """Distance of two nodes."""
        return (self.u[-1] - self.u[0]) / (len(self.u) - 1)

    @property
    def levels(self):
        """(levels,) where values are known: the nodes, then the further levels."""
        return np.concatenate([self.u, self.extra])

    @functools.cached_property
    def _slopes(self):
        n = len(self.u)
        matrix = np.zeros((n, n))
        for i in range(n):
            first = min(max(i - 2, 0), n - 5)
            matrix[i, first : first + 5] = STENCILS[i - first]
        matrix.flags.writeable = False  # it is kept, and `slopes` hands it out
        return matrix

    def slopes(self):
        """(nodes, nodes): values -> width times derivatives at the nodes; exact on quartics."""
        return self._slopes

    def basis(self, u):
        """(points, levels): values -> interpolant at the points u."""
        return self.at(np.eye(len(self.levels)), u)

    def integral_basis(self, u):
        """(points, levels): values -> integral of the interpolant from the first node to the points u."""
        return self.integral(np.eye(len(self.levels)), u)

    def at(self, values, u):
        """The interpolant of values (levels, ...) at the points u: (points, ...)."""
        smooth = self._smooth(values[: len(self.u)], u)
        if not len(self.extra):
            return smooth
        i, x = _place(self.levels[self._order], u, values.ndim)
        return smooth + (1 - x) * self._rest(values, self._order[i]) + x * self._rest(values, self._order[i + 1])

    def integral(self, values, u):
        """The interpolant's integral, of values (levels, ...), from the first node to the points u: (points, ...)."""
        smooth = self._smooth_integral(values[: len(self.u)], u)
        if not len(self.extra):
            return smooth
        knots, rest = self.levels[self._order], self._rest(values, self._order)
        i, x = _place(knots, u, values.ndim)
        width = np.diff(knots).reshape(-1, *(1,) * (values.ndim - 1))
        before = np.concatenate([np.zeros_like(rest[:1]), np.cumsum(width * (rest[:-1] + rest[1:]) / 2, axis=0)])
        return smooth + before[i] + width[i] * ((x - x**2 / 2) * rest[i] + x**2 / 2 * rest[i + 1])

    def around(self, u):
        """(points, 6) the nodes around each of the points u, for `error`; all five where there are five."""
        i, size = self._locate(u, 1)[0], min(6, len(self.u))
        return np.clip(i - 2, 0, len(self.u) - size)[:, None] + np.arange(size)

    def error(self, near, u):
        """How wrong the interpolant may be at the points u, (points, ...), by the values (points, 6, ...) around them.

        The estimate is a third of the larger fourth difference around the point's panel. A jump between the two nodes
        of a panel has a fourth difference of three times its height there, so the estimate is the height. A smooth
        function is known 100 times better than the estimate says, and both fall with the fourth power of the width.
        At the two ends, where only a fourth difference once as high sees the jump, the estimate is the difference
        itself. At a level the error is 0. The estimate cannot see what happens between two levels and leaves no trace
        at them.
        """
        i, last = self._locate(u, 1)[0], len(self.u) - 2
        known = np.abs(np.asarray(u)[:, None] - self.levels).min(1) <= SAME * (self.u[-1] - self.u[0])
        scale = np.where(known, 0.0, np.where((i == 0) | (i == last), 1.0, 1 / 3))
        return scale.reshape(-1, *(1,) * (near.ndim - 2)) * np.abs(np.diff(near, 4, axis=1)).max(1)

    def integral_error(self, values, first, last):
        """How wrong an integral of the interpolant of values (levels,) from `first` to `last` may be.

        The estimate is a fourteenth of the width times the sum of the fourth differences, whose first and last weigh
        eleven times as much. A jump of height 1 between two nodes has fourth differences 1, 3, 3, 1, which make 0.57
        of a width. The interpolant misses half a width of such a jump at most, and 0.54 where the integral ends next
        to the jump. For a smooth function the estimate is about fifty times what the interpolant misses. What the
        nodes' interpolant misses at a further level counts with half a width on top.
        """
        fourth = np.abs(np.diff(values[: len(self.u)], 4))
        weight = np.ones(len(fourth))
        weight[[0, -1]] = 11
        centre, reach = self.u[2:-2], 3 * self.width
        weight *= (centre >= first - reach) & (centre <= last + reach)
        own = np.abs(self._rest(values, self._order)).sum() if len(self.extra) else 0.0
        return self.width * (weight @ fourth / 14 + own / 2)

    @functools.cached_property
    def _order(self):
        """(levels,) where the levels stand that are first, second, ... in log snr."""
        return np.argsort(self.levels, kind="stable")

    def _rest(self, values, which):
        """What the smooth interpolant leaves of the values at some levels, (len(which), ...): 0 at the nodes."""
        further = which >= len(self.u)
        rest = np.zeros((len(which), *values.shape[1:]))
        if further.any():
            at = self.extra[which[further] - len(self.u)]
            rest[further] = values[which[further]] - self._smooth(values[: len(self.u)], at)
        return rest

    # A point sees the two nodes of its panel and, through their slopes, the nodes around them. So the slopes at all
    # nodes, a product of (nodes, nodes) with the values, need not be known.
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
        """Panel of each u, and the place in [0, 1] inside it with `ndim` axes."""
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
    """The interval of increasing knots that holds each u, and the place in [0, 1] inside it with `ndim` axes."""
    i = np.clip(np.searchsorted(knots, u, side="right") - 1, 0, len(knots) - 2)
    x = np.clip((u - knots[i]) / (knots[i + 1] - knots[i]), 0, 1)
    return i, x.reshape(-1, *(1,) * (ndim - 1))


# Rows: derivative at point 0..4 of the quartic through five equidistant points.
STENCILS = (
    np.array(
        [[-25, 48, -36, 16, -3], [-3, -10, 18, -6, 1], [1, -8, 0, 8, -1], [-1, 6, -18, 10, 3], [3, -16, 36, -48, 25]]
    )
    / 12
)
