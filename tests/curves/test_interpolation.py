"""Splines and Legendre panels: exact on polynomials, convergent, consistent with adaptive quadrature."""

import dataclasses

import numpy as np
import pytest
from numpy.polynomial import Polynomial
from scipy.integrate import quad
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

from jaxdiff import targets
from jaxdiff.curves import Curve
from jaxdiff.curves.constraints import constrained, monotone_slopes
from jaxdiff.curves.interpolation import Spline
from jaxdiff.curves.panels import Panels, antiderivative, tabulated


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


@pytest.mark.parametrize("n", [5, 6, 9, 40])
def test_the_estimated_errors_bound_those_of_a_jump_anywhere(n):
    spline, rng = Spline(np.linspace(0, 1, n)), np.random.default_rng(n)
    for place in rng.uniform(0, 1, 60):
        values, u = 1.0 * (spline.u > place), np.sort(rng.uniform(0, 1, 20))
        wrong = np.abs(spline.at(values, u) - (u > place))
        assert (wrong <= spline.error(values[spline.around(u)], u) + 1e-12).all()
        for first, last in ((0.0, 1.0), u[[3, 15]]):
            low, high = spline.integral(values, np.array([first, last]))
            wrong = abs(high - low - (max(last - place, 0) - max(first - place, 0)))
            assert wrong <= spline.integral_error(values, first, last) + 1e-12


# The fourth difference of sin(3 u) about a centre c is (2 sin(3 h / 2))^4 sin(3 c), for nodes at a distance h.
@pytest.mark.parametrize("n", [41, 81])
def test_the_estimated_errors_of_a_sine_are_its_fourth_differences(n):
    spline, u, h = Spline(np.linspace(0, 1, n)), np.linspace(0.1, 0.9, 97) + 1e-4, 1 / (n - 1)
    values, fourth = np.sin(3 * spline.u), (2 * np.sin(1.5 * h)) ** 4 * np.sin(3 * spline.u)
    point, panel = spline.error(values[spline.around(u)], u), (u / h).astype(int)
    assert (np.abs(spline.at(values, u) - np.sin(3 * u)) <= point).all()
    np.testing.assert_allclose(point, np.maximum(fourth[panel], fourth[panel + 1]) / 3, rtol=1e-8)
    first, last = 0.2 + h / 2, 0.8 - h / 2
    inside = (spline.u >= first - 3 * h) & (spline.u <= last + 3 * h)
    np.testing.assert_allclose(spline.integral_error(values, first, last), h * fourth[inside].sum() / 14, rtol=1e-8)


def test_a_spline_passes_through_further_levels_however_close_and_stays_linear():
    extra = np.array([0.31, 0.31 + 1e-7, 0.5 + 1e-8, 0.83])
    spline, rng = Spline(np.linspace(0, 1, 11), extra), np.random.default_rng(0)
    values = rng.standard_normal((15, 2))
    np.testing.assert_allclose(spline.at(values, spline.levels), values, atol=1e-7)
    assert (spline.error(values[spline.around(spline.levels)], spline.levels) == 0).all()
    u = np.union1d(np.linspace(0, 1, 20_001), spline.levels)
    inside = spline.at(values, u)
    assert np.abs(inside).max() < 4 * np.abs(values).max()
    np.testing.assert_allclose(spline.basis(u[::50]) @ values, inside[::50], atol=1e-12)
    np.testing.assert_allclose(spline.integral_basis(u[::50]) @ values, spline.integral(values, u[::50]), atol=1e-12)
    np.testing.assert_allclose(spline.integral(values, u[-1:])[0], np.trapezoid(inside, u, axis=0), atol=1e-6)
    cubic = np.polynomial.Polynomial([0.3, -1.0, 0.5, 0.2])
    np.testing.assert_allclose(spline.at(cubic(spline.levels), u), cubic(u), atol=1e-13)


def hermite(nodes, extra, values):
    """The interpolant that Spline promises, u -> (points, ...), from quartics, SciPy's Hermite spline and np.interp."""
    n, flat = len(nodes), values.reshape(len(values), -1)
    slopes = np.empty((n, flat.shape[1]))
    for i, at in enumerate(nodes):
        five = slice(min(max(i - 2, 0), n - 5), min(max(i - 2, 0), n - 5) + 5)
        for j, column in enumerate(flat.T):
            slopes[i, j] = Polynomial.fit(nodes[five], column[five], 4).deriv()(at)
    smooth = CubicHermiteSpline(nodes, flat[:n], slopes)
    knots = np.concatenate([nodes, extra])
    rest, order = np.concatenate([np.zeros_like(flat[:n]), flat[n:] - smooth(extra)]), np.argsort(knots)
    tents = lambda u: np.stack([np.interp(u, knots[order], column[order]) for column in rest.T], -1)
    return lambda u: (smooth(u) + tents(u)).reshape(len(u), *values.shape[1:])


# Gauss' rule of four nodes is exact on the pieces between knots and points, which are cubic.
def primitive(value, cuts):
    """The integral of a function (points, ...) from the first of the increasing cuts to each of them."""
    nodes, weights = np.polynomial.legendre.leggauss(4)
    half = np.diff(cuts)[:, None] / 2
    inside = value((cuts[:-1, None] + half * (1 + nodes)).ravel())
    pieces = np.einsum("pg,pg...->p...", half * weights, inside.reshape(*half.shape[:1], 4, *inside.shape[1:]))
    return np.concatenate([np.zeros_like(pieces[:1]), np.cumsum(pieces, axis=0)])


@pytest.mark.parametrize("n", [5, 6, 7, 12])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 1)])
@pytest.mark.parametrize("further", [0, 1, 9])
def test_a_spline_is_that_of_quartics_slopes_and_of_what_is_left_at_further_levels(n, shape, further):
    rng = np.random.default_rng([n, len(shape), further])
    nodes, extra = np.linspace(-1.5, 2.0, n), rng.uniform(-1.5, 2.0, further)
    values, spline = rng.standard_normal((n + further, *shape)), Spline(nodes, extra)
    want = hermite(nodes, extra, values)
    u = rng.permutation(np.concatenate([rng.uniform(-1.5, 2.0, 60), nodes, extra]))
    np.testing.assert_allclose(spline.at(values, u), want(u), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(np.tensordot(spline.basis(u), values, 1), want(u), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(spline.at(values, u[:1]), want(u[:1]), rtol=1e-11, atol=1e-11)
    cuts = np.unique(np.concatenate([nodes, u]))
    np.testing.assert_allclose(spline.integral(values, cuts), primitive(want, cuts), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(spline.slopes() @ nodes**4, 3.5 / (n - 1) * 4 * nodes**3, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("extra", [[], [0.05, 1.97]])
def test_a_spline_keeps_its_end_values_where_rounding_leads_beyond_the_ends(extra):
    nodes, rng = np.linspace(0.0, 2.0, 8), np.random.default_rng(0)
    spline, values = Spline(nodes, np.array(extra)), rng.standard_normal((8 + len(extra), 2))
    beyond = np.array([-1e-9, 2.0 + 1e-9, -1e-12, 2.0 + 1e-12])
    np.testing.assert_array_equal(spline.at(values, beyond), values[[0, 7, 0, 7]])
    whole = primitive(hermite(nodes, np.array(extra), values), np.sort([*nodes, *extra]))[-1]
    found = spline.integral(values, beyond)
    np.testing.assert_allclose(found, [0 * whole, whole, 0 * whole, whole], atol=1e-13)
    for outside in (-3e-9, 2.0 + 3e-9):
        with pytest.raises(ValueError, match="measured for log snr in"):
            spline.at(values, np.array([1.0, outside]))


def test_a_spline_sees_nothing_but_the_six_nodes_around_a_point():
    spline, u = Spline(np.linspace(0, 1, 15)), np.random.default_rng(0).uniform(0, 1, 50)
    for point, near in zip(u, spline.around(u), strict=True):
        values = np.full(15, np.nan)
        values[near] = spline.u[near] ** 3
        assert len(near) == 6
        assert spline.at(values, np.array([point]))[0] == pytest.approx(point**3, abs=1e-14)


def test_a_changed_copy_of_a_spline_that_was_used_is_a_new_spline():
    rng, u = np.random.default_rng(0), np.linspace(0.1, 0.9, 17)
    used = Spline(np.linspace(0, 1, 9), np.array([0.9, 0.2]))
    used.at(rng.standard_normal(11), u)
    for changes in ({"u": np.linspace(0, 1, 6)}, {"extra": np.array([0.33, 0.31, 0.77])}):
        spline = dataclasses.replace(used, **changes)
        values = rng.standard_normal(len(spline.levels))
        np.testing.assert_allclose(spline.at(values, u), hermite(spline.u, spline.extra, values)(u), atol=1e-11)


def test_the_slopes_that_a_spline_keeps_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        Spline(np.linspace(0, 1, 9)).slopes()[0, 0] = 1.0


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


def test_panels_of_several_curves_are_those_of_each():
    rates = np.array([0.5, 1.0, 4.0])
    panels = Panels(lambda snr: 1 / (1 + snr[:, None] * rates))
    snr = np.geomspace(0.02, 30, 40).reshape(4, 10)
    np.testing.assert_allclose(panels(snr), 1 / (1 + snr[..., None] * rates), rtol=1e-12)


# snr times the curve is 1/(1 + (u/w)^2), u = log snr, whose poles are w from the axis: the primitive is w atan(u/w).
@pytest.mark.parametrize("w", [2.0, 1.0, 0.5, 0.25])
def test_the_error_of_panels_bounds_that_of_an_integral_with_poles_near_the_axis(w):
    nearest = complex(-1, 4 * w)  # pole, seen from the panel [0, 1/2] as [-1, 1]
    rho = abs(nearest - np.sqrt(nearest**2 - 1))
    rho = max(rho, 1 / rho)  # the series falls like rho^-k
    panels = Panels(lambda snr: 1 / (1 + (np.log(snr) / w) ** 2) / snr)
    for ends in ([-3.0, 4.0], [-0.2, 0.3], [0.1, 2.2]):
        low, high = panels.integral(np.exp(ends))
        exact = w * (np.arctan(ends[1] / w) - np.arctan(ends[0] / w))
        told = panels.error(np.exp(ends))
        assert abs(high - low - exact) <= told + 1e-14
        assert told < 100 * rho**-10 + 1e-12  # and is not idle


def test_tabulated_is_the_curve_its_integral_and_how_wrong_that_is():
    calls = []

    def value(snr):
        calls.append(len(snr))
        return 2 / (1 + snr)

    curve = tabulated(value, 2)
    snr = np.geomspace(0.1, 9, 20)
    np.testing.assert_allclose(curve(snr), 2 / (1 + snr), rtol=1e-13)
    asked = sum(calls)
    np.testing.assert_allclose(np.diff(curve.integral(snr)), 2 * np.diff(np.log1p(snr)), rtol=1e-11)
    assert sum(calls) == asked
    assert curve.dim == 2
    assert 0 < curve.integral_error(snr) < 1e-11


def test_monotone_slopes_inside_are_those_of_pchip_and_flat_at_the_ends():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = np.cumsum(rng.uniform(0.1, 2, 9))
        y = np.cumsum(rng.choice([-1.0, 0.0, -0.01, 0.5], 9))
        slopes = monotone_slopes(x, y)
        np.testing.assert_allclose(slopes[1:-1], PchipInterpolator(x, y).derivative()(x)[1:-1], rtol=1e-12, atol=1e-13)
        assert slopes[0] == slopes[-1] == 0


def test_a_constrained_curve_is_the_hermite_cubic_of_the_isotropic_variance():
    snr, e, dim = np.array([0.1, 0.4, 1.5, 9.0]), np.array([0.8, 0.7, 0.3, 0.25]), 3
    curve = constrained(snr, dim * e / (1 + snr * e), dim)
    cubic = CubicHermiteSpline(np.log(snr), e, monotone_slopes(np.log(snr), e))
    fine = np.geomspace(0.1, 9, 50)
    want = dim * cubic(np.log(fine)) / (1 + fine * cubic(np.log(fine)))
    np.testing.assert_allclose(curve(fine), want, rtol=1e-11)
    np.testing.assert_allclose(curve(np.array([0.01, 100.0])), [3 * 0.8 / 1.008, 3 * 0.25 / 26], rtol=1e-12)


def test_the_integral_of_a_constrained_curve_is_that_of_adaptive_quadrature_within_and_beyond_the_nodes():
    snr, e, dim = np.array([0.1, 0.4, 1.5, 9.0]), np.array([0.8, 0.7, 0.3, 0.25]), 3
    curve = constrained(snr, dim * e / (1 + snr * e), dim)
    ends = np.array([[0.03, 0.05], [0.2, 0.3], [0.7, 6.0], [20.0, 50.0]])
    primitive = curve.integral(ends)
    assert primitive.shape == ends.shape
    points = [0.1, 0.4, 1.5, 9.0]
    for low, high in [(0, 1), (0, 3), (2, 5), (1, 7), (6, 7)]:
        a, b = ends.ravel()[[low, high]]
        inside = [p for p in points if a < p < b] or None
        want = quad(lambda at: float(curve(np.array(at))), a, b, points=inside, epsabs=1e-13, epsrel=1e-13)[0]
        assert primitive.ravel()[high] - primitive.ravel()[low] == pytest.approx(want, rel=1e-10)
