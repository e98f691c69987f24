"""Legendre series on panels of log snr, for exact curves that are slow to evaluate, and their integrals."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial.legendre import legint, legval

from jaxdiff.curves.curve import Curve
from jaxdiff.legendre import rule, series
from jaxdiff.types import Numbers

# Degree of a series and width of a panel in log snr. They leave a relative error below 1e-13, see `Panels`; a wider
# panel would need a higher degree.
DEGREE, PANEL = 11, 0.5


class Panels:
    """A curve, or an array of curves, as Legendre series of degree 11 on panels that are 0.5 wide in log snr.

    The series are those of snr times the curve, the integrand in log snr. A panel is computed when it is first needed,
    and kept. The relative error is below 1e-13 for a curve that is analytic within 1.5 of the real axis of log snr. A
    Gaussian's mmse is analytic within pi of it.
    """

    def __init__(self, value: Callable[..., Any]) -> None:
        """`value` maps snr (n,) to the curve (n,), or to all curves (n, ...)."""
        self.value, self.series = value, {}

    def __call__(self, snr: Numbers) -> np.ndarray:
        """The curve at an array of snr values, float64; an array of curves adds its axes at the end."""
        snr = np.asarray(snr, np.float64)
        panel, place, series = self._at(np.log(snr.ravel()))
        column = lambda array: array.reshape(len(array), *(1,) * (series.ndim - 2))
        value = legval(column(place), series[:, panel - panel.min()], tensor=False) / column(snr.ravel())
        return value.reshape(snr.shape + series.shape[2:])

    def integral(self, snr: Numbers) -> np.ndarray:
        """An antiderivative over snr, 0 at the panel edge below the least snr of this call."""
        panel, place, series = self._at(np.log(np.ravel(snr)))
        index = panel - panel.min()
        primitive = legint(series, lbnd=-1) * PANEL / 2
        before = np.concatenate([[0.0], np.cumsum(legval(1.0, primitive))])
        return (before[index] + legval(place, primitive[:, index], tensor=False)).reshape(np.shape(snr))

    def error(self, snr: Numbers) -> float:
        """An error bound for integrals between the least and the largest of these snr, from the last coefficients.

        Gauss' rule of 12 nodes is exact to degree 23. Where the coefficients fall with the degree, the error is less
        than the last ones.
        """
        _, _, series = self._at(np.log(np.ravel(snr)))
        return float(PANEL * np.abs(series[-2:]).max(0).sum())

    def _at(self, u):
        """The panel of each u, its position there in [-1, 1], and the series (degree + 1, panels) of the panels."""
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


def tabulated(value: Callable[..., Any], dim: int) -> Curve:
    """A Curve from a slow function of snr, evaluated through Panels."""
    return integrated(Curve(Panels(value), dim))


def integrated(curve: Curve) -> Curve:
    """The curve with an integral and its error bound. Panels compute them where the curve has none of its own."""
    if curve.integral is not None:
        return curve
    panels = curve.value if isinstance(curve.value, Panels) else Panels(curve)
    return dataclasses.replace(curve, integral=panels.integral, integral_error=panels.error)


def antiderivative(curve: Curve, snr: Any) -> np.ndarray:
    """An antiderivative of a curve over snr, at an array of values."""
    integral = integrated(curve).integral
    assert integral is not None
    return integral(snr)
