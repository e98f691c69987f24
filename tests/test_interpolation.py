"""Splines and Legendre panels: exact on polynomials, convergent, consistent with adaptive quadrature."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.interpolate import CubicHermiteSpline

from jaxdiff import targets
from jaxdiff.interpolation import Panels, Spline, antiderivative
from jaxdiff.types import Curve


def test_spline_reproduces_cubics_and_their_integrals():
    spline = Spline(np.linspace(-2, 3, 9))
    cubic = np.polynomial.Polynomial([0.3, -1.0, 0.5, 0.2])
    u = np.linspace(-2, 3, 41)
    np.testing.assert_allclose(spline.basis(u) @ cubic(spline.u), cubic(u), atol=1e-13)
    primitive = cubic.integ(lbnd=-2)
    np.testing.assert_allclose(spline.integral_basis(u) @ cubic(spline.u), primitive(u), atol=1e-13)


def test_spline_is_the_hermite_spline_of_its_slopes_and_integrates_itself():
    spline, rng = Spline(np.linspace(0, 2, 7)), np.random.default_rng(0)
    values, u = rng.standard_normal(7), np.linspace(0, 2, 33)
    reference = CubicHermiteSpline(spline.u, values, spline.slopes() @ values / spline.width)
    np.testing.assert_allclose(spline.basis(u) @ values, reference(u), atol=1e-13)
    np.testing.assert_allclose(
        spline.integral_basis(u) @ values, [reference.integrate(0, end) for end in u], atol=1e-13
    )


# Hermite's remainder in the middle of a panel of width h is f4/384 h^4 somewhere in it; slopes that are off by about
# h^4 f5/30 at both ends add (h/8) times the difference, h^6 f6/240 (f4 the fourth derivative, and so on).
@pytest.mark.parametrize("n", [33, 65, 129])
def test_spline_error_is_hermites_remainder_of_fourth_order(n):
    s = np.linspace(-1, 1, n)
    h, inner = s[1] - s[0], s[2:-3]  # panels whose slopes are centred
    middle = inner + h / 2
    error = np.exp(2 * middle) - Spline(s).at(np.exp(2 * s), middle)
    low, high = (16 * np.exp(2 * end) * h**4 / 384 for end in (inner, inner + h))
    slopes = 64 * np.exp(2 * (inner + h)) * h**6 / 240
    assert (low - 2 * slopes < error).all()
    assert (error < high + 2 * slopes).all()


def test_spline_error_at_the_ends_is_bounded_by_the_one_sided_slopes():
    s, u = np.linspace(-1, 1, 33), np.linspace(-1, 1, 501)
    h = s[1] - s[0]
    bound = np.exp(2) * (16 * h**4 / 384 + h / 4 * 32 * h**4 / 5)  # slopes off by at most h^4 f5/5
    assert np.abs(Spline(s).at(np.exp(2 * s), u) - np.exp(2 * u)).max() < bound


def test_spline_refuses_to_extrapolate():
    with pytest.raises(ValueError, match=r"asked in \[-2, 0\]"):
        Spline(np.linspace(-1, 1, 9)).basis(np.array([-2.0, 0.0]))


def test_antiderivative_differences_are_integrals_to_rounding():
    value = lambda snr: 1 / (1 + snr) + 3 * 0.01 / (1 + 0.01 * snr)
    snr = np.exp(np.array([-6.0, -5.9, 0.0, 0.3, 2.2, 6.0]))
    got = antiderivative(Curve(value, 4), snr)
    primitive = np.log1p(snr) + 3 * np.log1p(0.01 * snr)
    np.testing.assert_allclose(np.diff(got), np.diff(primitive), rtol=1e-12)
    shuffled = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(antiderivative(Curve(value, 4), snr[shuffled]), got[shuffled], rtol=1e-13)


def test_antiderivative_of_two_points_agrees_with_adaptive_quadrature():
    curve = targets.point_masses([[-1.0], [1.0]]).mmse
    low, high = antiderivative(curve, np.array([0.1, 7.0]))
    assert high - low == pytest.approx(quad(lambda snr: float(curve(snr)), 0.1, 7.0, epsabs=1e-13)[0], abs=1e-11)


def test_panels_reproduce_a_gaussian_curve_and_evaluate_it_only_once():
    calls = []

    def value(snr):
        calls.append(snr.size)
        return 1 / (1 + snr)

    panels, snr = Panels(value), np.exp(np.linspace(-4, 3, 300)).reshape(3, 100)
    np.testing.assert_allclose(panels(snr), 1 / (1 + snr), rtol=1e-13)
    np.testing.assert_allclose(np.diff(panels.integral(snr)), np.diff(np.log1p(snr)), rtol=1e-10)
    panels(snr[1])
    assert sum(calls) <= 12 * 15
