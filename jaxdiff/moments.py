"""Posterior moments of a Gaussian mixture seen through noise: Cov(X_0 | y) of y = X_0 + Z/sqrt(snr).

y carries the same information as X_t. NumPy float64 throughout; rows of y are observations at one snr.
"""

from typing import NamedTuple

import numpy as np

from jaxdiff.components import Components, blocks, centred, covariances
from jaxdiff.types import Basis

FEW = 64  # coordinates of all components together: below, squares are taken about the posterior mean


# Given y the posterior is a mixture again, of covariances V_k = S_k/(1 + snr S_k):
#   Cov(X_0 | y) = sum_k share_k (V_k + (m_k - m)(m_k - m)^T),   m_k = mean_k + snr V_k (y - mean_k).


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
        of_row = lambda share: share @ squares - np.sum((gain * (share @ self.points)) ** 2, axis=-1)
        return np.sum(self._common(snr) * self.multiplicity) + np.maximum(self._by_rows(of_row, y, snr), 0)

    def expected(self, values, y, snr):
        """E[values[component] | y], (n,), of values (K,)."""
        return self._by_rows(lambda share: share @ values, y, snr)

    def along(self, y, snr):
        """diag(B^T Cov(X_0 | y) B) along the principal axes B, (n, d)."""
        gain, common = self._gain(snr), self._common(snr)
        turned = (lambda points: points * gain) if self.turn is None else lambda points: points * gain @ self.turn

        def spread(share):
            square = self._mean_of(share, lambda points: turned(points) ** 2, len(gain))
            return np.maximum(square - turned(share @ self.points) ** 2, 0)

        own = common[:-1] if self.turn is None else common[:-1] @ self.turn**2
        along = own + self._by_rows(spread, y, snr)
        return np.concatenate([along, np.full((len(y), self.rest), common[-1])], axis=-1)

    def eigenvalues(self, y, snr):
        """Those of Cov(X_0 | y), (n, r + 1), the last one counting `rest` times."""
        gain, common = self._gain(snr), self._common(snr)
        r = len(gain)

        def spectrum(share):
            mean = share @ self.points
            square = self._mean_of(share, lambda p: (p[:, :, None] * p[:, None]).reshape(len(p), -1), r * r)
            spread = square.reshape(-1, r, r) - mean[:, :, None] * mean[:, None]
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

    def _mean_of(self, share, function, width):
        """share @ function(points), (n, width), a few components at a time."""
        mean = np.zeros((len(share), width))
        for some in blocks(len(self.points), width):
            mean += share[:, some] @ function(self.points[some])
        return mean

    def _by_rows(self, function, y, snr, width=1):
        """function(share) for rows of y, a few at a time; share (rows, K) the posterior weights of the components."""
        gain = self._gain(snr)
        constant = self.log_weights - 0.5 * snr * np.einsum("kd,kd,d->k", self.points, self.points, gain)
        parts = []
        for rows in blocks(len(y), max(len(self.points), width)):
            share = (snr * gain * y[rows]) @ self.points.T
            share += constant
            parts.append(function(_softmax(share, axis=-1)))
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
    move = residual * (c.variances / total)[:, None]
    if c.axes is not None:
        move = move @ np.swapaxes(c.axes, -1, -2)
    mean = c.means[:, None] + move
    return share, mean - np.sum(share[..., None] * mean, axis=0)


# Without axes m_k = c_k + u_k y, u = snr V and c = (1 - u) mean: everything is a product with (K, d). The spread of the
# m_k is that of m_k - w y for any w. With w = snr s/(1 + snr s), s the mean variance, u_k - w has a form without
# cancellation, and the squares stay small where snr is large: about w = 0 they lost all digits from snr s = 1e14 on.
def _diagonal_trace(c, y, snr):
    mean, total, v = c.means, c.variances + 1 / snr, _shrunk(c, snr)
    own, common = mean / (1 + snr * c.variances), np.exp(c.log_weights) @ c.variances
    u = snr * (c.variances - common) / ((1 + snr * c.variances) * (1 + snr * common))
    quadratic = y**2 @ (1 / total).T - 2 * y @ (mean / total).T + np.sum(mean**2 / total + np.log(total), axis=-1)
    share = _softmax(c.log_weights - quadratic / 2, axis=-1)
    centre = share @ own + (share @ u) * y
    square = share @ np.sum(own**2, axis=-1) + np.sum(y * (2 * (share @ (own * u)) + (share @ u**2) * y), axis=-1)
    return share @ v.sum(-1) + np.maximum(square - np.sum(centre**2, axis=-1), 0)


def _shrunk(c, snr):
    """Variances of X_0 given y and the component, in its eigenbasis."""
    return c.variances / (1 + snr * c.variances)


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
