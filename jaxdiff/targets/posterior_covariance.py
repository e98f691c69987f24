"""Posterior moments of a Gaussian mixture seen through noise: Cov(X_0 | y) of y = X_0 + Z/sqrt(snr).

y carries the same information as X_t. NumPy float64 throughout; rows of y are observations at one snr.
"""

from typing import NamedTuple

import numpy as np

from jaxdiff.targets.components import Components, blocks, centred, covariances
from jaxdiff.types import Basis

FEW = 64  # coordinates of all components together: below, squares are taken about the posterior mean


class Shared(NamedTuple):
    """Components of one covariance, diagonal in the coordinates of their centres.

    log_weights (K,), points (K, r), variances (r,). `turn` (r, r) leads from these coordinates to the principal axes,
    None where they are the same; along `rest` further principal axes there is nothing but the variance rest_variance.
    """

    log_weights: np.ndarray
    points: np.ndarray
    variances: np.ndarray
    turn: np.ndarray | None
    rest: int
    rest_variance: float

    @property
    def width(self):
        """Coordinates of an observation, r."""
        return len(self.variances)

    @property
    def multiplicity(self):
        """How often each of `eigenvalues` counts."""
        return np.append(np.ones(self.width), self.rest)

    @property
    def cost(self):
        """Multiplications of one covariance matrix and its eigenvalues."""
        return self.width**2 * (self.width + len(self.points))

    def noised(self, label, z, snr):
        """Observations (n, r) of components `label` (n,), from normal draws z (n, r)."""
        return self.points[label] + np.sqrt(self.variances + 1 / snr) * z

    def trace(self, y, snr):
        """Tr Cov(X_0 | y), (n,): two matrix products."""
        gain = self._gain(snr)
        squares = np.einsum("kd,kd,d->k", self.points, self.points, gain**2)

        def spread(rest, likeliest):
            share, mean, point = rest.sum(-1), gain * (rest @ self.points), gain * self.points[likeliest]
            square = rest @ squares - 2 * np.sum(mean * point, axis=-1) + share * squares[likeliest]
            return np.maximum(square - np.sum((mean - share[:, None] * point) ** 2, axis=-1), 0)

        return np.sum(self._common(snr) * self.multiplicity) + self._by_rows(spread, y, snr)

    def expected(self, values, y, snr):
        """E[values[component] | y], (n,), of values (K,)."""
        mean = lambda rest, likeliest: rest @ values + (1 - rest.sum(-1)) * values[likeliest]
        return self._by_rows(mean, y, snr)

    def along(self, y, snr):
        """diag(B^T Cov(X_0 | y) B) along the principal axes B, (n, d)."""
        gain, common = self._gain(snr), self._common(snr)
        turned = (lambda points: points * gain) if self.turn is None else lambda points: points * gain @ self.turn

        def spread(rest, likeliest):
            share, mean = rest.sum(-1)[:, None], turned(rest @ self.points)
            point = turned(self.points[likeliest])
            square = self._mean_of(rest, lambda points: turned(points) ** 2, len(gain))
            return np.maximum(square - 2 * mean * point + share * point**2 - (mean - share * point) ** 2, 0)

        own = common[:-1] if self.turn is None else common[:-1] @ self.turn**2
        along = own + self._by_rows(spread, y, snr)
        return np.concatenate([along, np.full((len(y), self.rest), common[-1])], axis=-1)

    def eigenvalues(self, y, snr):
        """Those of Cov(X_0 | y), (n, r + 1), the last one counting `rest` times."""
        gain, common = self._gain(snr), self._common(snr)
        r = len(gain)

        def spectrum(rest, likeliest):
            share, mean, point = rest.sum(-1)[:, None], rest @ self.points, self.points[likeliest]
            square = self._mean_of(rest, lambda p: (p[:, :, None] * p[:, None]).reshape(len(p), -1), r * r)
            away, outer = mean - share * point, lambda a, b: a[:, :, None] * b[:, None]
            spread = square.reshape(-1, r, r) - outer(mean, point) - outer(point, away) - outer(away, away)
            return np.linalg.eigvalsh(gain[:, None] * spread * gain + np.diag(common[:-1]))

        own = self._by_rows(spectrum, y, snr, r * r)
        return np.concatenate([np.maximum(own, 0), np.full((len(y), 1), common[-1])], axis=-1)

    def _gain(self, snr):
        """m_k = gain mean_k + a function of y."""
        return 1 / (1 + snr * self.variances)

    def _common(self, snr):
        """V_k, (r + 1,), the last for the rest."""
        s = np.append(self.variances, self.rest_variance)
        return s / (1 + snr * s)

    def _mean_of(self, rest, function, width):
        """rest @ function(points), (n, width), a few components at a time."""
        mean = np.zeros((len(rest), width))
        for some in blocks(len(self.points), width):
            mean += rest[:, some] @ function(self.points[some])
        return mean

    def _by_rows(self, function, y, snr, width=1):
        """function(rest, likeliest) for rows of y, a few at a time; see `_apart`."""
        gain = self._gain(snr)
        constant = self.log_weights - 0.5 * snr * np.einsum("kd,kd,d->k", self.points, self.points, gain)
        parts = []
        for rows in blocks(len(y), max(len(self.points), width)):
            share = (snr * gain * y[rows]) @ self.points.T
            share += constant
            parts.append(function(*_apart(_softmax(share, axis=-1))))
        return np.concatenate(parts)


class Distinct(NamedTuple):
    """Components each with its own covariance; `basis` (d, d) the principal axes, None where they are not asked for."""

    components: Components
    basis: Basis

    @property
    def width(self):
        """Coordinates of an observation, d."""
        return self.components.means.shape[1]

    @property
    def multiplicity(self):
        """How often each of `eigenvalues` counts."""
        return np.ones(self.width)

    @property
    def cost(self):
        """Multiplications of one covariance matrix and its eigenvalues."""
        k, d = self.components.means.shape
        return d**2 * (d + k)

    def noised(self, label, z, snr):
        """Observations (n, d) of components `label` (n,), from normal draws z (n, d)."""
        c = self.components
        offset = np.sqrt(c.variances[label] + 1 / snr) * z
        if c.axes is not None:
            for k, axes in enumerate(c.axes):
                offset[label == k] = offset[label == k] @ axes.T
        return c.means[label] + offset

    def trace(self, y, snr):
        """Tr Cov(X_0 | y), (n,)."""
        c = self.components
        if c.axes is None and c.means.size > FEW:
            return np.concatenate([_diagonal_trace(c, y[rows], snr) for rows in blocks(len(y), len(c.means))])
        own = np.sum(_shrunk(c, snr), axis=-1)
        of_parts = lambda share, away: own @ share + np.sum(share[..., None] * away**2, axis=(0, 2))
        return self._by_rows(of_parts, y, snr)

    def expected(self, values, y, snr):
        """E[values[component] | y], (n,), of values (K,)."""
        return self._by_rows(lambda share, away: values @ share, y, snr)

    def along(self, y, snr):
        """diag(B^T Cov(X_0 | y) B) along the principal axes B, (n, d)."""
        c = self.components
        turned = self.basis if c.axes is None else np.swapaxes(c.axes, -1, -2) @ self.basis
        own = (_shrunk(c, snr)[:, None] @ turned**2)[:, 0]
        of_parts = lambda share, away: share.T @ own + np.sum(share[..., None] * (away @ self.basis) ** 2, axis=0)
        return self._by_rows(of_parts, y, snr)

    def eigenvalues(self, y, snr):
        """Those of Cov(X_0 | y), (n, d)."""
        k, d = self.components.means.shape
        own = covariances(_shrunk(self.components, snr), self.components.axes).reshape(k, d * d)

        def spectrum(share, away):
            root = np.moveaxis(np.sqrt(share)[..., None] * away, 0, 1)
            return np.linalg.eigvalsh((share.T @ own).reshape(-1, d, d) + np.swapaxes(root, -1, -2) @ root)

        return np.maximum(self._by_rows(spectrum, y, snr, d * d), 0)

    def _by_rows(self, function, y, snr, width=1):
        """function(share, m_k - m) for rows of y, a few at a time; share (K, rows), m_k - m (K, rows, d)."""
        few = blocks(len(y), max(self.components.means.size, width))
        return np.concatenate([function(*_posterior(self.components, y[rows], snr)) for rows in few])


def _posterior(c, y, snr):
    """Posterior weights (K, n) of the components and their posterior means about the common one, (K, n, d)."""
    residual, total = y - c.means[:, None], c.variances + 1 / snr
    if c.axes is not None:
        residual = residual @ c.axes
    quadratic = (residual**2 @ (1 / total)[..., None])[..., 0]
    share = _softmax((c.log_weights - 0.5 * np.sum(np.log(total), axis=-1))[:, None] - 0.5 * quadratic, axis=0)
    common = np.exp(c.log_weights) @ c.variances
    common = common if c.axes is None else common.mean()
    move = residual * _gain_beyond(c, snr, common)[:, None]
    if c.axes is not None:
        move = move @ np.swapaxes(c.axes, -1, -2)
    mean = (c.means / (1 + snr * common))[:, None] + move  # less w y
    return share, mean - np.sum(share[..., None] * mean, axis=0)


# The spread of the m_k is that of m_k - w y, for any w. Here w = snr s/(1 + snr s), s a mean variance. What remains is
# small where snr s is large, for every m_k is near y. The m_k themselves are of the size of y: the square of their
# rounding is more than V from snr s = 1e16 on, and the mean of their squares loses all digits there.
def _gain_beyond(c, snr, common):
    """snr V_k - w in the components' eigenbases, (K, d), for w of the variance `common`."""
    return snr * (c.variances - common) / ((1 + snr * c.variances) * (1 + snr * common))


# Without axes m_k = c_k + u_k y, u = snr V and c = (1 - u) mean: everything is a product with (K, d).
def _diagonal_trace(c, y, snr):
    mean, total, v = c.means, c.variances + 1 / snr, _shrunk(c, snr)
    own, u = mean / (1 + snr * c.variances), _gain_beyond(c, snr, np.exp(c.log_weights) @ c.variances)
    quadratic = y**2 @ (1 / total).T - 2 * y @ (mean / total).T + np.sum(mean**2 / total + np.log(total), axis=-1)
    rest, likeliest = _apart(_softmax(c.log_weights - quadratic / 2, axis=-1))
    share, mean, point = rest.sum(-1), rest @ own + (rest @ u) * y, own[likeliest] + u[likeliest] * y
    square = rest @ np.sum(own**2, axis=-1) + np.sum(y * (2 * (rest @ (own * u)) + (rest @ u**2) * y), axis=-1)
    square += np.sum((share[:, None] * point - 2 * mean) * point, axis=-1)
    spread = np.maximum(square - np.sum((mean - share[:, None] * point) ** 2, axis=-1), 0)
    return rest @ v.sum(-1) + (1 - share) * v.sum(-1)[likeliest] + spread


def _shrunk(c, snr):
    """Variances of X_0 given y and the component, in its eigenbasis."""
    return c.variances / (1 + snr * c.variances)


# The spread of the m_k is taken about m_j, that of the likeliest component. With the others' weights q_k, s = sum q_k,
#   sum_k q_k |m_k|^2 - 2 m_j sum_k q_k m_k + s |m_j|^2 - |sum_k q_k m_k - s m_j|^2.
# Every term is of the size of s, so that no digits are lost where s is small. The mean square less the square of the
# mean would leave eps |m_j|^2 however small s is.
def _apart(share):
    """Posterior weights (rows, K), overwritten: the likeliest component's becomes 0. Also its index (rows,)."""
    likeliest = share.argmax(-1)
    share[np.arange(len(share)), likeliest] = 0
    return share, likeliest


def _softmax(logit, axis):
    """Overwrites logit; nothing is smaller than 1e-261, as subnormal numbers are slow."""
    logit -= logit.max(axis, keepdims=True)
    np.exp(np.maximum(logit, -600, out=logit), out=logit)
    logit /= logit.sum(axis, keepdims=True)
    return logit


def form_of(components, basis) -> Shared | Distinct:
    """A mixture about its mean, as its posterior is computed; basis (d, d) its principal axes, or None."""
    c = components
    if len(c.variances) < len(c.means):
        return _shared(c, basis)
    return Distinct(c._replace(means=centred(c)), basis)


def _shared(c, basis):
    (k, d), s, axes = c.means.shape, c.variances[0], None if c.axes is None else c.axes[0]
    if (s != s[0]).any():
        turn = basis if axes is None or basis is None else axes.T @ basis
        return Shared(c.log_weights, centred(c, axes), s, turn, 0, 0.0)
    if basis is None and k <= d:  # K points lie in K - 1 dimensions
        basis = np.linalg.qr(centred(c).T)[0]
    r = d if basis is None else min(k - 1, d)
    points = centred(c, basis if basis is None else basis[:, :r])
    return Shared(c.log_weights, points, s[:r], None, d - r, float(s[0]))
