"""Laws of total variance at most d for every dimension d, with curves that are fast to evaluate.

Some are no products: eight bumps, eight bumps in eight directions and nothing across them, points at -sqrt(d) u and
sqrt(d) u, and the digits. The means of the eight bumps span at most eight directions, and across them each law is
N(0, 1/4), or 0; the exact change of coordinates leaves a block of at most eight dimensions.
"""

import dataclasses
import functools

import numpy as np
from numpy.polynomial import legendre

from jaxdiff import targets
from jaxdiff.curves.panels import Panels, tabulated

LOG_RATIO, WIDTH, NODES = -10.0, 2.0, 16  # of a table of log det: least log(h/snr), width of a panel of it, nodes
RATIO_PANELS = 23  # up to e^36: one step from the horizon to an early stop of 1e-8
RANK, BUMPS, BUMP_VARIANCE = 8, 8, 0.25
NORMAL, POINT, COINS, MIXTURE = "N(0, I)", "point mass", "product of ±1", "8 bumps"
FLAT, FLAT_MIXTURE, PAIR, DIGITS = "normal of rank 8", "8 bumps of rank 8", "points ±√d u", "digits"
GAUSSIAN = (NORMAL, POINT, FLAT)
FIXED_RANK = (FLAT, FLAT_MIXTURE)


def bump_means(d):
    """Eight centred directions drawn in R^d, scaled to variance (1 - 1/4) d, in coordinates of their span."""
    means = np.random.default_rng(0).normal(size=(BUMPS, d))
    means -= means.mean(0)
    means *= np.sqrt((1 - BUMP_VARIANCE) * d * BUMPS) / np.linalg.norm(means)
    return means if d <= BUMPS else np.linalg.qr(means.T, "r").T


def bumps(d):
    """Eight normal laws in the span of their means."""
    means = bump_means(d)
    return targets.mixture(np.full(BUMPS, 1 / BUMPS), means, np.full(means.shape, BUMP_VARIANCE))


def digits(stride=1):
    """Every stride-th digit as a point in 64 coordinates of mean variance 1."""
    from sklearn.datasets import load_digits

    rows = load_digits().data[::stride]
    rows = rows - rows.mean(0)
    return targets.point_masses(rows * np.sqrt(rows.shape[1] / np.sum(rows.var(0))))


@functools.cache
def block(name, d):
    """The block of a law that is not normal, with a tabulated curve."""
    make = {
        COINS: lambda: targets.point_masses([[-1.0], [1.0]]),
        PAIR: lambda: targets.point_masses([[-np.sqrt(d)], [np.sqrt(d)]]),
        MIXTURE: lambda: bumps(d),
        DIGITS: lambda: digits(d),
    }
    law = make[name]()
    return dataclasses.replace(law, mmse=read_off_tables(law.mmse))


@functools.lru_cache(maxsize=8)
def law_of(name, d, stride=1):
    """The law in d dimensions as a Target; of the digits every stride-th."""
    normal = functools.cache(lambda variance: targets.gaussian([0.0], [variance]))
    if name in GAUSSIAN:
        rank = {NORMAL: d, POINT: 0, FLAT: min(RANK, d)}[name]
        return targets.gaussian(np.zeros(d), np.where(np.arange(d) < rank, 1.0, 0.0))
    if name == DIGITS:
        return block(DIGITS, stride)
    if name == COINS:
        return targets.product([block(COINS, 1)] * d)
    one = block(MIXTURE, min(RANK, d)) if name == FLAT_MIXTURE else block(name, d)
    return targets.product([one] + [normal(BUMP_VARIANCE if name == MIXTURE else 0.0)] * (d - one.dim))


def read_off_tables(curve):
    """A curve without replicates whose value, integral and E log det are interpolated, fast for a million levels."""
    table = Panels(functools.partial(_log_det_series, curve))

    def log_det(snr, h):
        snr, h = np.broadcast_arrays(np.asarray(snr, np.float64), np.asarray(h, np.float64))
        levels, place = np.unique(snr.ravel(), return_inverse=True)
        at = (np.log(h.ravel() / snr.ravel()) - LOG_RATIO) / WIDTH
        panel = np.clip(at.astype(int), 0, RATIO_PANELS - 1)
        series = table(levels).reshape(len(levels), RATIO_PANELS, NODES)[place, panel]
        return legendre.legval(2 * (at - panel) - 1, series.T, tensor=False).reshape(snr.shape)

    return dataclasses.replace(tabulated(curve, curve.dim), log_det=log_det)


def _log_det_series(curve, snr):
    """(levels, panels x nodes): Legendre series of E log det(I + h Cov) in log(h/snr), analytic within pi of it."""
    nodes, weights = legendre.leggauss(NODES)
    ratio = np.exp(LOG_RATIO + WIDTH * (np.arange(RATIO_PANELS)[:, None] + (1 + nodes) / 2)).ravel()
    values = curve.log_det(snr[:, None], snr[:, None] * ratio).reshape(len(snr), RATIO_PANELS, NODES)
    fit = weights[:, None] * legendre.legvander(nodes, NODES - 1) * (np.arange(NODES) + 0.5)
    return (values @ fit).reshape(len(snr), -1)
