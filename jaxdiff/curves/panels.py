"""Legendre panels in log snr for exact curves that are slow to evaluate, and their integrals."""

import dataclasses

import numpy as np
from numpy.polynomial.legendre import legint, legval

from jaxdiff.curves.curve import Curve
from jaxdiff.legendre import rule, series

DEGREE = 11
PANEL = 0.5  # in log snr


class Panels:
    """A curve, or an array of them, that is slow to evaluate: Legendre series of degree 11 on panels of 0.5 in log snr.

    snr times the curve is fitted, which is what gets integrated; panels are computed when first asked for and kept.
    Relative error below 1e-13 of snr V for a curve analytic within 1.5 of the real log-snr axis (a Gaussian's mmse is,
    within pi).
    """

    def __init__(self, value):
        """`value` maps snr (n,) to the curve (n,), or to all curves (n, ...)."""
        self.value, self.series = value, {}

    def __call__(self, snr):
        """The curve at an array of snr values, float64; an array of curves adds its axes at the end."""
        snr = np.asarray(snr, np.float64)
        panel, place, series = self._at(np.log(snr.ravel()))
        column = lambda array: array.reshape(len(array), *(1,) * (series.ndim - 2))
        value = legval(column(place), series[:, panel - panel.min()], tensor=False) / column(snr.ravel())
        return value.reshape(snr.shape + series.shape[2:])

    def integral(self, snr):
        """An antiderivative over snr, zero at an edge below the values of this call."""
        panel, place, series = self._at(np.log(np.ravel(snr)))
        index = panel - panel.min()
        primitive = legint(series, lbnd=-1) * PANEL / 2
        before = np.concatenate([[0.0], np.cumsum(legval(1.0, primitive))])
        return (before[index] + legval(place, primitive[:, index], tensor=False)).reshape(np.shape(snr))

    def error(self, snr):
        """How wrong an integral between the least and the largest of these snr can be; from the last coefficients.

        Gauss' rule of 12 nodes is exact to degree 23, and what is left of a series that falls is less than its tail.
        """
        _, _, series = self._at(np.log(np.ravel(snr)))
        return float(PANEL * np.abs(series[-2:]).max(0).sum())

    def _at(self, u):
        """Panel and place in [-1, 1] of each u; the series (degree + 1, panels) from the first panel to the last."""
        panel = np.floor(u / PANEL).astype(int)
        wanted = range(panel.min(), panel.max() + 1)
        missing = [p for p in wanted if p not in self.series]
        if missing:
            nodes, _ = rule(DEGREE + 1)
            snr = np.exp(PANEL * (np.array(missing)[:, None] + (nodes + 1) / 2))
            values = np.asarray(self.value(snr.ravel()))
            values = snr.reshape(*snr.shape, *(1,) * (values.ndim - 1)) * values.reshape(snr.shape + values.shape[1:])
            coefficients = np.einsum("pn...,nk->pk...", values, series(DEGREE + 1))
            self.series.update(zip(missing, coefficients, strict=True))
        return panel, 2 * (u / PANEL - panel) - 1, np.stack([self.series[p] for p in wanted], axis=1)


def tabulated(value, dim):
    """A Curve from a slow function of snr, evaluated through Panels."""
    return integrated(Curve(Panels(value), dim))


def integrated(curve):
    """The curve with its integral and how wrong that can be, by Panels where it has none of its own."""
    if curve.integral is not None:
        return curve
    panels = curve.value if isinstance(curve.value, Panels) else Panels(curve)
    return dataclasses.replace(curve, integral=panels.integral, integral_error=panels.error)


def antiderivative(curve, snr):
    """An antiderivative of a curve over snr, at an array of values."""
    return integrated(curve).integral(snr)
