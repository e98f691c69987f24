"""Posterior covariances of a mixture whose components all have one covariance, as points do: by matrix products."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Integer

from jaxdiff.targets.components import Components, blocks, centred
from jaxdiff.targets.posterior_weights import softmax, split_likeliest


class Shared(NamedTuple):
    """A mixture about its mean whose components have one covariance, diagonal in the coordinates used here.

    Attributes:
      log_weights: (K,).
      points: (K, r) the components' means.
      variances: (r,).
      to_axes: (r, r) from these coordinates to the principal axes; None where they are the same.
      n_further, further_variance: the number of further principal axes, along which all components have one mean and
        this variance.
    """

    log_weights: np.ndarray
    points: np.ndarray
    variances: np.ndarray
    to_axes: np.ndarray | None
    n_further: int
    further_variance: float

    @property
    def width(self) -> int:
        """Coordinates of an observation, r."""
        return len(self.variances)

    @property
    def multiplicity(self) -> Float64[np.ndarray, " r"]:
        """How often each of `eigenvalues` counts."""
        return np.append(np.ones(self.width), self.n_further)

    @property
    def cost(self) -> int:
        """Multiplications of one covariance matrix and its eigenvalues."""
        return self.width**2 * (self.width + len(self.points))

    def noised(
        self, label: Integer[np.ndarray, " n"], z: Float64[np.ndarray, "n r"], snr: Any
    ) -> Float64[np.ndarray, "n r"]:
        """Observations y (n, r) of draws from components `label` (n,), made from normal draws z (n, r)."""
        return self.points[label] + np.sqrt(self.variances + 1 / snr) * z

    def trace(self, y: Float64[np.ndarray, "n r"], snr: Any) -> Float64[np.ndarray, " n"]:
        """Tr Cov(X_0 | y), (n,): two matrix products."""
        gain = self._gain(snr)
        squares = np.einsum("kd,kd,d->k", self.points, self.points, gain**2)

        def spread(others, likeliest):
            weight, mean, point = others.sum(-1), gain * (others @ self.points), gain * self.points[likeliest]
            square = others @ squares - 2 * np.sum(mean * point, axis=-1) + weight * squares[likeliest]
            return np.maximum(square - np.sum((mean - weight[:, None] * point) ** 2, axis=-1), 0)

        return np.sum(self._common(snr) * self.multiplicity) + self._by_rows(spread, y, snr)

    def expected(
        self, values: Float64[np.ndarray, " K"], y: Float64[np.ndarray, "n r"], snr: Any
    ) -> Float64[np.ndarray, " n"]:
        """E[values[component] | y], (n,), of values (K,)."""
        mean = lambda others, likeliest: others @ values + (1 - others.sum(-1)) * values[likeliest]
        return self._by_rows(mean, y, snr)

    def along(self, y: Float64[np.ndarray, "n r"], snr: Any) -> Float64[np.ndarray, "n d"]:
        """Variances of X_0 given y along the principal axes B, diag(B^T Cov(X_0 | y) B): (n, d)."""
        gain, common = self._gain(snr), self._common(snr)
        scaled = (lambda points: points * gain) if self.to_axes is None else lambda points: points * gain @ self.to_axes

        def spread(others, likeliest):
            weight, mean = others.sum(-1)[:, None], scaled(others @ self.points)
            point = scaled(self.points[likeliest])
            square = self._mean_of(others, lambda points: scaled(points) ** 2, len(gain))
            return np.maximum(square - 2 * mean * point + weight * point**2 - (mean - weight * point) ** 2, 0)

        own = common[:-1] if self.to_axes is None else common[:-1] @ self.to_axes**2
        along = own + self._by_rows(spread, y, snr)
        return np.concatenate([along, np.full((len(y), self.n_further), common[-1])], axis=-1)

    def eigenvalues(self, y: Float64[np.ndarray, "n r"], snr: Any) -> Float64[np.ndarray, "n values"]:
        """Eigenvalues of Cov(X_0 | y), (n, r + 1); the last one counts n_further times."""
        gain, common = self._gain(snr), self._common(snr)
        r = len(gain)

        def spectrum(others, likeliest):
            weight, mean, point = others.sum(-1)[:, None], others @ self.points, self.points[likeliest]
            square = self._mean_of(others, lambda p: (p[:, :, None] * p[:, None]).reshape(len(p), -1), r * r)
            away, outer = mean - weight * point, lambda a, b: a[:, :, None] * b[:, None]
            spread = square.reshape(-1, r, r) - outer(mean, point) - outer(point, away) - outer(away, away)
            return np.linalg.eigvalsh(gain[:, None] * spread * gain + np.diag(common[:-1]))

        own = self._by_rows(spectrum, y, snr, r * r)
        return np.concatenate([np.maximum(own, 0), np.full((len(y), 1), common[-1])], axis=-1)

    def _gain(self, snr):
        """The factor (r,) of a component's mean in its posterior mean: m_k = gain mean_k + (a function of y)."""
        return 1 / (1 + snr * self.variances)

    def _common(self, snr):
        """Variances of X_0 given y and the component, (r + 1,); the last is that along the further axes."""
        s = np.append(self.variances, self.further_variance)
        return s / (1 + snr * s)

    def _mean_of(self, others, function, width):
        """others @ function(points), (n, width), computed for a few components at a time."""
        mean = np.zeros((len(others), width))
        for some in blocks(len(self.points), width):
            mean += others[:, some] @ function(self.points[some])
        return mean

    def _by_rows(self, function, y, snr, width=1):
        """function(others, likeliest) of rows of y, a few at a time; the arguments are those of `split_likeliest`."""
        gain = self._gain(snr)
        constant = self.log_weights - 0.5 * snr * np.einsum("kd,kd,d->k", self.points, self.points, gain)
        parts = []
        for rows in blocks(len(y), max(len(self.points), width)):
            weight = (snr * gain * y[rows]) @ self.points.T
            weight += constant
            parts.append(function(*split_likeliest(softmax(weight, axis=-1))))
        return np.concatenate(parts)


def shared_form(c: Components, basis: np.ndarray | None) -> Shared:
    """The Shared form of Components that all have one covariance; basis (d, d) the principal axes, or None."""
    (k, d), s, axes = c.means.shape, c.variances[0], None if c.axes is None else c.axes[0]
    if (s != s[0]).any():
        to_axes = basis if axes is None or basis is None else axes.T @ basis
        return Shared(c.log_weights, centred(c, axes), s, to_axes, 0, 0.0)
    if basis is None and k <= d:  # the means of K components lie in K - 1 dimensions
        basis = np.linalg.qr(centred(c).T)[0]
    r = d if basis is None else min(k - 1, d)
    points = centred(c, basis if basis is None else basis[:, :r])
    return Shared(c.log_weights, points, s[:r], None, d - r, float(s[0]))
