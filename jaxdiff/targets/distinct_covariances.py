"""Posterior covariances of a mixture whose components have covariances of their own."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Integer

from jaxdiff.targets.components import Components, blocks, covariances
from jaxdiff.targets.posterior_weights import softmax, split_likeliest
from jaxdiff.types import Basis

# Where covariances are diagonal: the largest K d, components times coordinates, at which traces are summed from squares
# about the posterior mean, which is simple. Above, the matrix products of `_diagonal_trace` are faster.
FEW = 64


class Distinct(NamedTuple):
    """A mixture about its mean whose components have covariances of their own.

    `basis` (d, d) holds the principal axes in columns; None where variances along them are not asked for.
    """

    components: Components
    basis: Basis

    @property
    def width(self) -> int:
        """Coordinates of an observation, d."""
        return self.components.means.shape[1]

    @property
    def multiplicity(self) -> Float64[np.ndarray, " r"]:
        """How often each of `eigenvalues` counts."""
        return np.ones(self.width)

    @property
    def cost(self) -> int:
        """Multiplications of one covariance matrix and its eigenvalues."""
        k, d = self.components.means.shape
        return d**2 * (d + k)

    def noised(
        self, label: Integer[np.ndarray, " n"], z: Float64[np.ndarray, "n r"], snr: Any
    ) -> Float64[np.ndarray, "n r"]:
        """Observations y (n, d) of draws from components `label` (n,), made from normal draws z (n, d)."""
        c = self.components
        offset = np.sqrt(c.variances[label] + 1 / snr) * z
        if c.axes is not None:
            for k, axes in enumerate(c.axes):
                offset[label == k] = offset[label == k] @ axes.T
        return c.means[label] + offset

    def trace(self, y: Float64[np.ndarray, "n r"], snr: Any) -> Float64[np.ndarray, " n"]:
        """Tr Cov(X_0 | y), (n,)."""
        c = self.components
        if c.axes is None and c.means.size > FEW:
            return np.concatenate([_diagonal_trace(c, y[rows], snr) for rows in blocks(len(y), len(c.means))])
        own = np.sum(_shrunk(c, snr), axis=-1)
        of_parts = lambda weight, away: own @ weight + np.sum(weight[..., None] * away**2, axis=(0, 2))
        return self._by_rows(of_parts, y, snr)

    def expected(
        self, values: Float64[np.ndarray, " K"], y: Float64[np.ndarray, "n r"], snr: Any
    ) -> Float64[np.ndarray, " n"]:
        """E[values[component] | y], (n,), of values (K,)."""
        return self._by_rows(lambda weight, away: values @ weight, y, snr)

    def along(self, y: Float64[np.ndarray, "n r"], snr: Any) -> Float64[np.ndarray, "n d"]:
        """Variances of X_0 given y along the principal axes B, diag(B^T Cov(X_0 | y) B): (n, d)."""
        c = self.components
        rotated = self.basis if c.axes is None else np.swapaxes(c.axes, -1, -2) @ self.basis
        own = (_shrunk(c, snr)[:, None] @ rotated**2)[:, 0]
        of_parts = lambda weight, away: weight.T @ own + np.sum(weight[..., None] * (away @ self.basis) ** 2, axis=0)
        return self._by_rows(of_parts, y, snr)

    def eigenvalues(self, y: Float64[np.ndarray, "n r"], snr: Any) -> Float64[np.ndarray, "n values"]:
        """Eigenvalues of Cov(X_0 | y), (n, d)."""
        k, d = self.components.means.shape
        own = covariances(_shrunk(self.components, snr), self.components.axes).reshape(k, d * d)

        def spectrum(weight, away):
            root = np.moveaxis(np.sqrt(weight)[..., None] * away, 0, 1)
            return np.linalg.eigvalsh((weight.T @ own).reshape(-1, d, d) + np.swapaxes(root, -1, -2) @ root)

        return np.maximum(self._by_rows(spectrum, y, snr, d * d), 0)

    def _by_rows(self, function, y, snr, width=1):
        """function(weight, m_k - m) of rows of y, a few at a time.

        weight (K, rows) are the components' posterior weights, m_k - m (K, rows, d) their posterior means about the
        common one.
        """
        few = blocks(len(y), max(self.components.means.size, width))
        return np.concatenate([function(*_posterior(self.components, y[rows], snr)) for rows in few])


def _posterior(c, y, snr):
    """Posterior weights (K, n) of the components and their posterior means about the common one, (K, n, d)."""
    residual, total = y - c.means[:, None], c.variances + 1 / snr
    if c.axes is not None:
        residual = residual @ c.axes
    quadratic = (residual**2 @ (1 / total)[..., None])[..., 0]
    weight = softmax((c.log_weights - 0.5 * np.sum(np.log(total), axis=-1))[:, None] - 0.5 * quadratic, axis=0)
    common = np.exp(c.log_weights) @ c.variances
    common = common if c.axes is None else common.mean()
    move = residual * _gain_beyond(c, snr, common)[:, None]
    if c.axes is not None:
        move = move @ np.swapaxes(c.axes, -1, -2)
    mean = (c.means / (1 + snr * common))[:, None] + move  # m_k - w y, see `_gain_beyond`
    return weight, mean - np.sum(weight[..., None] * mean, axis=0)


# The spread of the m_k is also the spread of m_k - w y, for any w. Here w = snr s/(1 + snr s), s a mean variance. Where
# snr s is large every m_k is near y, so m_k - w y is small. The m_k themselves are of the size of y: from snr s = 1e16
# on the square of their rounding exceeds V, and the mean of their squares loses all digits.
def _gain_beyond(c, snr, common):
    """snr V_k - w in the components' eigenbases, (K, d), for w of the variance `common`."""
    return snr * (c.variances - common) / ((1 + snr * c.variances) * (1 + snr * common))


# Without axes m_k = c_k + u_k y, u = snr V and c = (1 - u) mean, so everything is a matrix product with (K, d).
def _diagonal_trace(c, y, snr):
    mean, total, v = c.means, c.variances + 1 / snr, _shrunk(c, snr)
    own, u = mean / (1 + snr * c.variances), _gain_beyond(c, snr, np.exp(c.log_weights) @ c.variances)
    quadratic = y**2 @ (1 / total).T - 2 * y @ (mean / total).T + np.sum(mean**2 / total + np.log(total), axis=-1)
    others, likeliest = split_likeliest(softmax(c.log_weights - quadratic / 2, axis=-1))
    weight, mean, point = others.sum(-1), others @ own + (others @ u) * y, own[likeliest] + u[likeliest] * y
    square = others @ np.sum(own**2, axis=-1) + np.sum(y * (2 * (others @ (own * u)) + (others @ u**2) * y), axis=-1)
    square += np.sum((weight[:, None] * point - 2 * mean) * point, axis=-1)
    spread = np.maximum(square - np.sum((mean - weight[:, None] * point) ** 2, axis=-1), 0)
    return others @ v.sum(-1) + (1 - weight) * v.sum(-1)[likeliest] + spread


def _shrunk(c, snr):
    """Variances of X_0 given y and the component, in its eigenbasis."""
    return c.variances / (1 + snr * c.variances)
