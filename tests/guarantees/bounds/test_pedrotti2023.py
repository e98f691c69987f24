"""Finite-horizon bounds: formulas typed from THEORY 7, scipy, and exact laws of chains and flows they must exceed."""

import json
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gaussian_kl, mixture_density, mixture_posterior_variance, mixture_score
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq

from jaxdiff import Certificate, grids, kernels, noise, predict_correct, targets
from jaxdiff.guarantees.bounds import pedrotti2023
from jaxdiff.guarantees.bounds.pedrotti2023 import langevin, lsi_constant, plan_w2, planner, start_kl, w2, wasserstein

SCHEMES = [(0.7, 0.0), (0.5, 0.4), (1.0, 1.0), (1.5, 2.0), (2.5, 3.0), (4.0, 0.5)]  # (t, R), all with a constant
W2_TERMS = ("early stopping", "Langevin, after the reversal", "score error of the reversal", "discretisation")
ROUNDING = 1e-12


def c_sigma2(t):
    return np.exp(-t), -np.expm1(-2 * t)


def constant(t, radius):
    """THEORY 7 (a)."""
    c, sigma2 = c_sigma2(t)
    return (1 - c**2 * radius**2 / sigma2) / sigma2


def two_points(radius):
    return [0.5, 0.5], [-radius, radius], [0.0, 0.0]


def laws(radius):
    """Laws on the line within a radius: even, uneven, one point, like a Gaussian, at random."""
    rng = np.random.default_rng(int(100 * radius))
    k = np.arange(13)
    bell = np.exp(-((k - 6.0) ** 2) / 6)
    yield two_points(radius)
    yield [0.9, 0.1], [-0.2 * radius, radius], [0.0, 0.0]
    yield [1.0], [-radius], [0.0]
    yield bell / bell.sum(), radius * (k / 6 - 1), np.zeros(13)
    for n in (2, 3, 7):
        yield rng.dirichlet(np.ones(n)), rng.uniform(-radius, radius, n), np.zeros(n)


def moments_of(law):
    weights, points, _ = map(np.asarray, law)
    mean = weights @ points
    return mean, weights @ (points - mean) ** 2


# The constant and the horizon.
@pytest.mark.parametrize(("radius", "t", "want"), [(1, 1, 0.97550), (3, 1.5, 0.55613), (3, 2, 0.84761)])
def test_the_constant_is_the_number_of_theory(radius, t, want):
    assert float(lsi_constant(t, radius)) == pytest.approx(want, abs=5.1e-6)


# The score is odd: s(h)/h = s'(0) + a h^2 + O(h^4), and Richardson removes a.
@pytest.mark.parametrize(("t", "radius"), [*SCHEMES, (0.1, 2.0), (0.5, 5.0)])
def test_the_constant_is_the_curvature_of_two_points_at_0(t, radius):
    slope = lambda h: float(mixture_score(two_points(radius), h, t)) / h
    h = 1e-3 * c_sigma2(t)[1] / (1 + radius)
    assert float(lsi_constant(t, radius)) == pytest.approx(-(4 * slope(h) - slope(2 * h)) / 3, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(("t", "radius"), [*SCHEMES, (0.1, 2.0), (0.5, 5.0)])
def test_no_law_within_the_radius_is_curved_less_anywhere(t, radius):
    (c, sigma2), x = c_sigma2(t), np.linspace(-3 - 2 * radius, 3 + 2 * radius, 2001)
    for law in laws(radius):
        curvature = 1 / sigma2 - c**2 / sigma2**2 * mixture_posterior_variance(law, x, t)
        assert curvature.min() >= float(lsi_constant(t, radius)) - 1e-9 * (1 + radius / sigma2) ** 2


def test_the_constant_of_many_times_is_an_array():
    t = np.array([0.3, 1.0, 5.0])
    np.testing.assert_allclose(lsi_constant(t, 1.5), constant(t, 1.5), rtol=1e-14)


@pytest.mark.parametrize("radius", [1e-3, 0.3, 1.0, 4.0, 300.0])
@pytest.mark.parametrize("delta", [1e-6, 0.01, 0.4, 0.6, 0.999])
def test_the_sufficient_horizon_is_where_a_root_finder_puts_the_constant(delta, radius):
    got = pedrotti2023.sufficient_horizon(delta, radius)
    simple = np.log1p(radius**2 / delta) / 2
    assert pedrotti2023.simple_horizon(delta, radius) == pytest.approx(simple, rel=1e-14)
    assert got <= simple * (1 + ROUNDING)
    root = brentq(lambda t: constant(t, radius) - (1 - delta), 1e-9, simple + 1, xtol=1e-14, rtol=1e-14)
    assert got == pytest.approx(root, rel=1e-11, abs=16 * np.finfo(float).eps)  # t = -log(u)/2, u rounded
    later = got * np.geomspace(1 + 1e-6, 100, 200)
    assert (constant(later[later < 18], radius) >= 1 - delta).all()


@pytest.mark.parametrize("delta", [1e-3, 0.5, 0.9])
def test_a_single_point_needs_no_horizon(delta):
    assert pedrotti2023.sufficient_horizon(delta, 0) == pytest.approx(0, abs=1e-15)
    assert pedrotti2023.simple_horizon(delta, 0) == 0


# KL of the start.
def exact_start_kl(law, t, mean, variance):
    """KL(N(mean, variance) || q_t), a trapezoid rule, which is exact to rounding for what decays like this."""
    x = mean + np.sqrt(variance) * np.linspace(-12, 12, 4001)
    log_start = -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))
    log_q = np.log(np.maximum(mixture_density(law, x, t), 1e-300))
    return np.sum(np.exp(log_start) * (log_start - log_q)) * (x[1] - x[0])


@pytest.mark.parametrize(("t", "radius"), SCHEMES)
def test_the_start_is_no_further_than_said(t, radius):
    c, sigma2 = c_sigma2(t)
    for law in laws(radius):
        assert exact_start_kl(law, t, 0.0, 1.0) <= start_kl(t, 1, radius) + ROUNDING
        mean, v = moments_of(law)
        exact = exact_start_kl(law, t, c * mean, c**2 * v + sigma2)
        assert exact <= start_kl(t, 1, radius, moments=([mean], [v])) + ROUNDING


@pytest.mark.parametrize("d", [2, 9, 100])
@pytest.mark.parametrize(("t", "side"), [(0.6, 0.1), (1.0, 0.3), (2.0, 0.5)])
def test_in_d_dimensions_the_start_is_no_further_than_said_from_the_corners_of_a_cube(t, side, d):
    radius = side * np.sqrt(d)
    exact = d * exact_start_kl(two_points(side), t, 0.0, 1.0)
    assert exact <= start_kl(t, d, radius)  # inf where there is no constant
    (c, sigma2), v = c_sigma2(t), side**2
    with_moments = d * exact_start_kl(two_points(side), t, 0.0, c**2 * v + sigma2)
    assert with_moments <= start_kl(t, d, radius, moments=(np.zeros(d), np.full(d, v)))


@pytest.mark.parametrize(("t", "radius"), SCHEMES)
@pytest.mark.parametrize("d", [1, 3])
def test_the_bound_of_the_start_is_theorys(t, radius, d):
    c, sigma2 = c_sigma2(t)
    factor = c**2 / (2 * constant(t, radius) * sigma2**2)  # half of THEORY 7 (c): the cross term has the right sign
    assert start_kl(t, d, radius) == pytest.approx(factor * (radius**2 + c**2 * d), rel=1e-12)
    mean, v = np.linspace(0.1, 0.2, d) * radius, np.linspace(0.3, 0.4, d) * radius**2
    width = sum(c**2 * u**2 / (c**2 * u + sigma2) for u in v)
    want = factor * ((radius + np.sqrt(np.sum(mean**2))) ** 2 + width)
    assert start_kl(t, d, radius, moments=(mean, v)) == pytest.approx(want, rel=1e-12)


def test_without_a_constant_the_start_can_be_anywhere():
    assert start_kl(0.3, 1, 1.0) == np.inf


# Langevin. At T_1 a point m is N(c m, sigma^2), and with an error e of the score, the same everywhere, the chain
# x' = x + h (e - (x - c m)/sigma^2) + sqrt(2h) z has a Gaussian law that settles around c m + sigma^2 e.
def chain(t, m, h, n, error=0.0):
    """Mean and variance of a coordinate after n steps from N(0, 1)."""
    c, v = c_sigma2(t)
    keep, end = 1 - h / v, c * m + v * error
    return end - keep**n * end, keep ** (2 * n) + 2 * h * (1 - keep ** (2 * n)) / (1 - keep**2)


def diffusion(t, m, time, error=0.0):
    """The same in continuous time."""
    c, v = c_sigma2(t)
    end = c * m + v * error
    return end * -np.expm1(-time / v), v + np.exp(-2 * time / v) * (1 - v)


def longest(t, lipschitz=0.0):
    """THEORY 7 (g)."""
    return 1 / (9 * max(1 / c_sigma2(t)[1], lipschitz))


def gaussian_w2(mean_p, var_p, mean_q, var_q):
    return np.hypot(mean_p - mean_q, np.sqrt(var_p) - np.sqrt(var_q))


def assert_dominates(certificate, law, t, m, d):
    c, v = c_sigma2(t)
    assert d * gaussian_kl(*law, c * m, v) <= certificate.known + ROUNDING
    assert np.sqrt(d) * gaussian_w2(*law, c * m, v) <= certificate["W2 at T1"].value + ROUNDING


@pytest.mark.parametrize(("t", "radius"), SCHEMES)
@pytest.mark.parametrize("d", [1, 4])
@pytest.mark.parametrize("error", [0.0, 0.05, 1.0])
def test_a_chain_at_a_point_is_no_further_than_said(t, radius, d, error):
    alpha = constant(t, radius)
    for share in (0.0, 0.5, 1.0):
        m = share * radius / np.sqrt(d)
        for part in (1.0, 0.3, 0.01):
            h = part * longest(t)
            for n in (1, 2, 10, 100, 3000):
                given = {"step_size": h, "moment": 4.5 * d * error**2 / alpha}
                assert_dominates(langevin(t, n * h, d, radius, **given), chain(t, m, h, n, error), t, m, d)
        for time in (0.0, 0.1, 1.0, 5.0):
            found = langevin(t, time, d, radius, moment=d * error**2 / alpha)
            assert_dominates(found, diffusion(t, m, time, error), t, m, d)


def test_the_law_of_the_chain_is_its_recursion():
    t, m, h, error, mean, variance = 0.8, 0.4, 0.05, 0.3, 0.0, 1.0
    c, v = c_sigma2(t)
    for _ in range(7):
        mean, variance = mean + h * (error - (mean - c * m) / v), (1 - h / v) ** 2 * variance + 2 * h
    assert chain(t, m, h, 7, error) == pytest.approx((mean, variance), rel=1e-13)


class OnALattice:
    """Laws on the line at T_1 = t by their values on equidistant nodes, for data at +-radius, from N(0, 1)."""

    def __init__(self, t, radius, h):
        law = two_points(radius)
        self.x, self.dx = np.linspace(-9, 9, 1201, retstep=True)
        self.q = mixture_density(law, self.x, t)
        to = self.x + h * mixture_score(law, self.x, t)
        self.step = np.exp(-((self.x[:, None] - to) ** 2) / (4 * h)) / np.sqrt(4 * np.pi * h) * self.dx
        self.law = np.exp(-(self.x**2) / 2) / np.sqrt(2 * np.pi)

    def kl(self):
        ratio = np.log(np.maximum(self.law, 1e-300) / np.maximum(self.q, 1e-300))
        return np.sum(self.law * ratio) * self.dx

    def w2(self):
        """Of the quantile functions, each by linear interpolation of its distribution function."""
        levels = (np.arange(20_000) + 0.5) / 20_000
        quantiles = [np.interp(levels, np.cumsum(p) * self.dx, self.x + self.dx / 2) for p in (self.law, self.q)]
        return np.sqrt(np.mean((quantiles[0] - quantiles[1]) ** 2))


@pytest.mark.parametrize(("t", "radius"), [(0.5, 0.4), (1.0, 1.0), (1.5, 2.0)])
@pytest.mark.parametrize("part", [1.0, 0.3])
def test_a_chain_at_two_points_is_no_further_than_said(t, radius, part):
    h = part * longest(t)
    exact = OnALattice(t, radius, h)
    for n in range(1, 61):
        exact.law = exact.step @ exact.law
        found = langevin(t, n * h, 1, radius, step_size=h)
        assert exact.kl() <= found.known
        assert exact.w2() <= found["W2 at T1"].value
    assert np.sum(exact.law) * exact.dx == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(("t", "radius"), SCHEMES)
@pytest.mark.parametrize("lipschitz", [None, 3.0, 0.2])
@pytest.mark.parametrize("moments", [None, ([0.1, 0.0, -0.1], [0.01, 0.02, 0.005])])
def test_the_terms_of_langevin_are_theorys(t, radius, lipschitz, moments):
    alpha, d, time, moment = constant(t, radius), 3, 0.9, 0.07
    smooth = 1 / c_sigma2(t)[1] if lipschitz is None else lipschitz
    kl, h = start_kl(t, d, radius, moments=moments), 0.7 * longest(t, smooth)
    given = {"moment": moment, "lipschitz": lipschitz, "moments": moments}
    found = langevin(t, time, d, radius, step_size=h, **given)
    want = {
        "mixing": np.exp(-0.83 * alpha * time) * kl,
        "step bias": 3.8 * smooth**2 * d * h / alpha,
        "score error at T1": 0.6 * moment,
    }
    together = sum(want.values())
    assert found.known == pytest.approx(together, rel=1e-12)
    want["W2 at T1"] = np.sqrt(2 * together / alpha)
    assert {term.name: term.value for term in found.terms} == pytest.approx(want, rel=1e-12)

    found = langevin(t, time, d, radius, **given)
    want = {"mixing": np.exp(-alpha * time / 2) * kl, "score error at T1": moment}
    want["W2 at T1"] = np.sqrt(2 * sum(want.values()) / alpha)
    assert {term.name: term.value for term in found.terms} == pytest.approx(want, rel=1e-12)


def test_langevin_says_what_it_assumed_and_that_its_kl_is_the_other_way_round():
    found = langevin(1.0, 2.0, 2, 1.0, step_size=0.01, lipschitz=4.0, moment=0.3)
    text = str(found)
    for part in ("0.9755", "|X_0| <= 1", "Lipschitz constant 4", "plain steps of 0.01", "N(0, I)", "moment is 0.3"):
        assert part in text
    assert "not to be added to a path KL" in text
    assert "replacement of Theorems 4.1 and 4.2" in text
    assert {term.name: term.unit for term in found.terms}["W2 at T1"] == "W2"
    started = langevin(1.0, 2.0, 1, 1.0, moments=([0.0], [1.0]))
    assert any("the Gaussian of the data's moments" in line for line in started.assumptions)
    assert any("continuous time" in line for line in started.assumptions)


# How much the reversal stretches.
def one_sided(t, radius):
    """THEORY: grad^2 log q_t = -I/sigma^2 + (c^2/sigma^4) Cov(X_0 | X_t), Cov at most R^2."""
    c, sigma2 = c_sigma2(t)
    return -1 / sigma2 + c**2 * radius**2 / sigma2**2


def test_the_stretch_of_two_points_is_the_number_of_theory():
    assert pedrotti2023.log_growth(1.0, 0.01, 1.0) == pytest.approx(22.78, abs=0.0051)


@pytest.mark.parametrize("radius", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(("horizon", "early_stop"), [(1.0, 0.01), (3.0, 0.5), (0.2, 0.1999), (12.0, 1.0)])
def test_the_stretch_is_the_integral_that_scipy_finds(horizon, early_stop, radius):
    want, error = quad(lambda t: 1 + one_sided(t, radius), early_stop, horizon, epsabs=0, epsrel=1e-12, limit=200)
    got = pedrotti2023.log_growth(horizon, early_stop, radius)
    assert got == pytest.approx(want, abs=error + 1e-12 * (1 + abs(want) + horizon))
    t = np.array([early_stop, horizon])
    np.testing.assert_allclose(pedrotti2023.one_sided_lipschitz(t, radius), one_sided(t, radius), rtol=1e-12)


# W2 in all. DDIM keeps the denoiser m: x' = (sigma'/sigma) x + (c' - (sigma'/sigma) c) m.
def ddim(x, grid, denoiser):
    for t, t_next in pairwise(grid):
        (c, sigma2), (c_next, sigma2_next) = c_sigma2(t), c_sigma2(t_next)
        ratio = np.sqrt(sigma2_next / sigma2)
        x = ratio * x + (c_next - ratio * c) * denoiser(x, t)
    return x


CASES = [(0.7, 0.3, 0.0), (0.5, 0.4, 0.4), (1.0, 0.5, 1.0), (1.5, 1.0, 2.0), (2.5, 0.3, 1.0)]  # (T_1, stop, R)


@pytest.mark.parametrize(("horizon", "early_stop", "radius"), CASES)
@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("steps", [None, 1, 4, 30])
def test_samples_of_a_point_are_no_further_than_said(horizon, early_stop, radius, d, steps):
    grid = None if steps is None else grids.log_snr(horizon, early_stop, steps)
    (c, v), (c_end, v_end) = c_sigma2(horizon), c_sigma2(early_stop)
    ends = {"early_stop": early_stop} if grid is None else {"grid": grid}
    for n, h in ((0, None), (5, longest(horizon)), (400, 0.1 * longest(horizon))):
        bound = w2(horizon, n * h if n else 0.0, d, radius, step_size=h, **ends)["W2 in all"].value
        for m in (0.0, 0.5 * radius / np.sqrt(d), radius / np.sqrt(d)):
            mean, variance = chain(horizon, m, h, n) if n else (0.0, 1.0)
            if grid is None:  # the flow keeps (x - c m)/sigma
                slope = np.sqrt(v_end / v)
                mean = c_end * m + slope * (mean - c * m)
            else:
                slope, mean = ddim(1.0, grid, lambda x, t: 0.0), ddim(mean, grid, lambda x, t, m=m: m)
            exact = np.sqrt(d * ((mean - m) ** 2 + slope**2 * variance))
            assert exact <= bound * (1 + ROUNDING)


# Positive positions of a symmetric law at T_1, weights of an integral over it; where the flow and the grid take them.
def half_line():
    nodes, weights = np.polynomial.legendre.leggauss(300)
    return 5 * (nodes + 1), 5 * weights  # up to 10


def flow(x, horizon, early_stop, law):
    """dx/dt = -x - s, run down."""
    slope = lambda u, y: y + mixture_score(law, y, horizon - u)
    span = (0.0, horizon - early_stop)
    return solve_ivp(slope, span, x, method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]


@pytest.mark.parametrize(("horizon", "early_stop", "radius"), [case for case in CASES if case[2] > 0])
def test_samples_of_two_points_are_no_further_than_said_and_neither_is_the_grid_from_the_flow(
    horizon, early_stop, radius
):
    (x, weights), law = half_line(), two_points(radius)
    normal, q = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), mixture_density(law, x, horizon)
    down = flow(x, horizon, early_stop, law)
    root_mean = lambda density, values: np.sqrt(2 * np.sum(weights * density * values))

    found = w2(horizon, 0.0, 1, radius, early_stop=early_stop)
    assert root_mean(normal, (down - radius) ** 2) <= found["W2 in all"].value
    assert root_mean(q, (down - radius) ** 2) <= found["early stopping"].value
    for steps in (1, 2, 8, 64):
        grid = grids.log_snr(horizon, early_stop, steps)
        stepped = ddim(x, grid, lambda x, t: radius * np.tanh(radius * np.exp(-t) * x / c_sigma2(t)[1]))
        found = w2(horizon, 0.0, 1, radius, grid=grid)
        assert root_mean(normal, (stepped - radius) ** 2) <= found["W2 in all"].value  # monotone maps, in order
        assert root_mean(q, (stepped - down) ** 2) <= found["discretisation"].value
        stretched = np.log(np.diff(stepped) / np.diff(x)).max()
        assert stretched <= found["log G"].value + ROUNDING


@pytest.mark.parametrize(("horizon", "early_stop", "radius"), CASES)
@pytest.mark.parametrize("ends", ["early_stop", "grid"])
def test_w2_in_all_is_the_sum_of_its_four_terms_and_each_is_theorys(horizon, early_stop, radius, ends):
    grid = grids.log_snr(horizon, early_stop, 9)
    given = {"step_size": 0.5 * longest(horizon, 2.0), "moment": 0.01, "lipschitz": 2.0}
    options = {"early_stop": early_stop} if ends == "early_stop" else {"grid": grid}
    found = w2(horizon, 1.5, 3, radius, **given, **options, score_error=0.2, second_moment=0.7)
    assert found["W2 in all"].value == pytest.approx(sum(found[name].value for name in W2_TERMS), rel=1e-12)
    at_horizon = langevin(horizon, 1.5, 3, radius, **given)
    assert found.terms[: len(at_horizon.terms)] == at_horizon.terms
    assert found.known == at_horizon.known  # only Langevin's are in nats
    stretched = np.exp(found["log G"].value) * at_horizon["W2 at T1"].value
    assert found["Langevin, after the reversal"].value == pytest.approx(stretched, rel=1e-12)
    c, sigma2 = c_sigma2(early_stop)
    assert found["early stopping"].value == pytest.approx(np.sqrt((1 - c) ** 2 * 0.7 + 3 * sigma2), rel=1e-12)
    if ends == "early_stop":
        growth = pedrotti2023.log_growth(horizon, early_stop, radius)
        assert found["log G"].value == pytest.approx(growth, rel=1e-12)
        assert found["discretisation"].value == 0
    assert set(found.assumptions) > set(at_horizon.assumptions)


# In y = x/c and s = sigma/c a step is y' = r y + (1 - r) m, r = s'/s: an error of m counts (1 - r), m's own drift along
# the flow local, and what came before is stretched by r + (1 - r) M, the denoiser's slope being M at most.
def by_recursion(grid, dim, radius, lipschitz, errors):
    """log of the stretch, the score's share and the discretisation's, step after step."""
    stretch, of_score, of_grid = 0.0, 0.0, 0.0
    for (t, t_next), error in zip(pairwise(grid), errors, strict=True):
        (c, v), (c_next, v_next) = c_sigma2(t), c_sigma2(t_next)
        s, s_next = np.sqrt(v) / c, np.sqrt(v_next) / c_next
        drift, _ = quad(  # of m from s to u; |dm/ds| is at most R^2 sqrt(d)/s^2 + 2 R^3/s^3, all drift 2 R
            lambda p, s=s: radius**2 * np.sqrt(dim) * (p - 1 / s) + radius**3 * (p**2 - 1 / s**2), 1 / s, 1 / s_next
        )
        local = s_next * min(drift, 2 * radius * (1 / s_next - 1 / s))
        r = s_next / s
        grow = r + (1 - r) * max(1 + v * lipschitz(t), 0)
        stretch += np.log(grow)
        of_score, of_grid = grow * of_score + (1 - r) * v / c * error, grow * of_grid + local
    return stretch + np.log(c_next / c_sigma2(grid[0])[0]), c_next * of_score, c_next * of_grid


@pytest.mark.parametrize(("horizon", "early_stop", "radius"), CASES)
@pytest.mark.parametrize("steps", [1, 2, 13, 200])
@pytest.mark.parametrize("lipschitz", [None, lambda t: 0.5 / t - 1, lambda t: -100.0])
def test_on_a_grid_stretch_score_error_and_discretisation_follow_their_recursion(
    horizon, early_stop, radius, steps, lipschitz
):
    grid, error = grids.log_snr(horizon, early_stop, steps), lambda t: 0.1 + 0.2 / t
    found = w2(horizon, 0.3, 4, radius, grid=grid, one_sided=lipschitz, score_error=error)
    lipschitz = (lambda t: one_sided(t, radius)) if lipschitz is None else lipschitz
    want = by_recursion(grid, 4, radius, lipschitz, [error(t) for t in grid[:-1]])
    names = ("log G", "score error of the reversal", "discretisation")
    assert [found[name].value for name in names] == pytest.approx(want, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize(("horizon", "early_stop", "radius"), CASES)
@pytest.mark.parametrize("ends", ["early_stop", "grid"])
def test_a_function_given_that_is_the_default_gives_the_default(horizon, early_stop, radius, ends):
    grid = grids.log_snr(horizon, early_stop, 9)
    options = {"early_stop": early_stop} if ends == "early_stop" else {"grid": grid}
    given = {"score_error": lambda t: t, **options}
    default = w2(horizon, 1.0, 2, radius, **given)
    found = w2(horizon, 1.0, 2, radius, one_sided=lambda t: one_sided(t, radius), **given)
    values = [[term.value for term in certificate.terms] for certificate in (default, found)]
    tolerance = 1e-12 if ends == "grid" else 1e-9  # Simpson's rule leaves (du)^4/180 of the fourth derivative
    np.testing.assert_allclose(values[1], values[0], rtol=tolerance, atol=1e-13)
    assert found["log G"].status == "assumed"
    assert default["log G"].status == "bound"


# For a point L = -1/sigma^2 exactly, log G = int (1 - 1/sigma^2) = log(sigma_stop/sigma_T1), and an error e of the
# score, the same everywhere, moves all samples by int G e dt: the bound is attained.
@pytest.mark.parametrize(("horizon", "early_stop", "radius"), CASES)
def test_a_constant_error_of_the_score_of_a_point_attains_its_term(horizon, early_stop, radius):
    error, sharp = 0.3, lambda t: -1 / c_sigma2(t)[1]
    v, v_end = c_sigma2(horizon)[1], c_sigma2(early_stop)[1]
    found = w2(horizon, 1.0, 1, radius, early_stop=early_stop, one_sided=sharp, score_error=error)
    assert found["log G"].value == pytest.approx(np.log(v_end / v) / 2, rel=1e-9)
    velocity = lambda u, y: y - y / c_sigma2(horizon - u)[1] + error  # of what lies between, from 0
    moved = solve_ivp(velocity, (0, horizon - early_stop), [0.0], method="DOP853", rtol=1e-12, atol=1e-14).y[0, -1]
    assert found["score error of the reversal"].value == pytest.approx(moved, rel=1e-6)  # a trapezoid rule

    grid = grids.log_snr(horizon, early_stop, 7)
    found = w2(horizon, 1.0, 1, radius, grid=grid, one_sided=sharp, score_error=error)
    wrong = lambda x, t: (
        (c_sigma2(t)[1] / c_sigma2(t)[0]) * error
    )  # the denoiser's error is sigma^2/c times the score's
    assert found["log G"].value == pytest.approx(np.log(v_end / v) / 2, rel=1e-12)
    assert found["score error of the reversal"].value == pytest.approx(ddim(0.0, grid, wrong), rel=1e-12)


@pytest.mark.parametrize(("horizon", "early_stop", "radius"), [*CASES, (1.0, 0.01, 1.0)])
@pytest.mark.parametrize("error", [0.1, lambda t: np.exp(-t)])
def test_the_score_error_of_the_flow_is_the_integral_that_scipy_finds(horizon, early_stop, radius, error):
    at = error if callable(error) else lambda t: error
    log_g = lambda t: (
        t - early_stop + np.log(np.expm1(2 * early_stop) / np.expm1(2 * t)) / 2
        + radius**2 / 2 * (1 / np.expm1(2 * early_stop) - 1 / np.expm1(2 * t))
    )  # fmt: skip
    want, _ = quad(lambda t: np.exp(log_g(t)) * at(t), early_stop, horizon, epsabs=0, epsrel=1e-10, limit=200)
    found = w2(horizon, 1.0, 1, radius, early_stop=early_stop, score_error=error)["score error of the reversal"]
    # Of the integrand f(u) a trapezoid rule leaves (du)^2/12 (f'(end) - f'(start)), and f' is some R^2 snr f at most.
    u, snr = np.log(np.expm1(2 * horizon) / np.expm1(2 * early_stop)), 1 / np.expm1(2 * early_stop)
    assert found.value == pytest.approx(want, rel=(u / wasserstein.CELLS) ** 2 * (3 + radius**2 * snr) ** 2)
    assert found.status == "assumed"


# Words.
def test_a_bound_that_says_nothing_says_so_with_the_stretch():
    for ends in ({"early_stop": 0.01}, {"grid": grids.log_snr(1.0, 0.01, 100)}):
        found = w2(1.0, 5.0, 1, 1.0, **ends)
        (warning,) = found.warnings
        assert "vacuous" in warning
        assert f"log G = {found['log G'].value:.4g}" in warning
        assert "within W2 1;" in warning  # the radius, as E|X_0|^2 at most
        assert found["W2 in all"].value > 1
    assert pedrotti2023.log_growth(1.0, 0.01, 1.0) == pytest.approx(
        w2(1.0, 5.0, 1, 1.0, early_stop=0.01)["log G"].value
    )


def test_a_bound_that_says_something_does_not_warn():
    for ends in ({"early_stop": 0.05}, {"grid": grids.log_snr(2.0, 0.05, 4000)}):
        found = w2(2.0, 60.0, 1, 1.0, one_sided=lambda t: one_sided(t, 0.5), **ends)
        assert found["W2 in all"].value < 1
        assert found.warnings == ()
        narrow = w2(2.0, 60.0, 1, 1.0, one_sided=lambda t: one_sided(t, 0.5), second_moment=1e-3, **ends)
        assert narrow.warnings  # samples all at 0 are closer


def test_a_certificate_survives_json():
    for found in (
        langevin(1.0, 2.0, 3, 1.0, step_size=0.01),
        w2(1.0, 5.0, 1, 1.0, early_stop=0.01),
        w2(1.0, 5.0, 1, 1.0, grid=[1.0, 0.5, 0.1], score_error=0.1, one_sided=lambda t: 0.0),
        plan_w2(1.0, 1, 0.5).certificate,
    ):
        assert Certificate.from_dict(json.loads(json.dumps(found.to_dict()))) == found


# Plans.
PLANS = [(0.5, 1, 0.2), (1.0, 1, 0.5), (1.5, 1, 1.0), (1.0, 4, 0.3), (0.05, 1, 0.0), (1.0, 2, 0.0), (2.0, 8, 0.5)]


@pytest.mark.parametrize(("target", "dim", "radius"), PLANS)
def test_a_plan_is_certified_to_reach_its_target_by_thirds(target, dim, radius):
    plan = plan_w2(target, dim, radius)
    found = plan.certificate
    assert found["W2 in all"].value <= target * (1 + 1e-9)
    assert all(found[name].value <= target / 3 * (1 + 1e-9) for name in W2_TERMS)
    assert found["score error of the reversal"].value == 0
    count, steps = plan.evals
    assert len(plan.grid) - 1 == steps
    assert plan.grid[0] == pytest.approx(plan.horizon, rel=1e-12)
    assert plan.langevin_time == pytest.approx(count * plan.step_size, rel=1e-12)
    step = {"step_size": plan.step_size} if count else {}
    again = w2(plan.horizon, plan.langevin_time, dim, radius, grid=plan.grid, **step)
    assert again == found
    if steps > 1:  # half as many would not do
        coarse = w2(plan.horizon, 0.0, dim, radius, grid=grids.log_snr(plan.horizon, plan.grid[-1], steps // 2))
        assert coarse["discretisation"].value > target / 3


def evals_at(horizon, early_stop, share, dim, radius):
    """What the three thirds cost at a horizon: the least power of 2 of steps, Langevin steps by THEORY 7 (g)."""
    steps, found = 1, None
    while found is None or found["discretisation"].value > share:
        found = w2(horizon, 0.0, dim, radius, grid=grids.log_snr(horizon, early_stop, steps))
        steps *= 2
    alpha, smooth, kl = constant(horizon, radius), 1 / c_sigma2(horizon)[1], start_kl(horizon, dim, radius)
    most = alpha / 2 * (share * np.exp(-found["log G"].value)) ** 2  # of KL at T_1
    h = min(longest(horizon), most / 2 * alpha / (3.8 * smooth**2 * dim))
    return steps // 2 + (0 if kl <= most else int(np.ceil(np.log(2 * kl / most) / (0.83 * alpha * h))))


@pytest.mark.parametrize(("target", "dim", "radius"), PLANS)
def test_the_evaluations_of_a_plan_are_what_its_thirds_cost(target, dim, radius):
    plan = plan_w2(target, dim, radius)
    assert sum(plan.evals) == evals_at(plan.horizon, plan.grid[-1], target / 3, dim, radius)


# Horizons between those looked at can be a little better.
@pytest.mark.parametrize(("target", "dim", "radius"), PLANS)
def test_no_other_horizon_takes_fewer_evaluations(target, dim, radius):
    plan = plan_w2(target, dim, radius)
    for horizon in np.array([0.5, 0.7, 0.9, 1.1, 1.3, 1.8, 3, 6, 12]) * plan.horizon:
        if 2 * plan.grid[-1] < horizon < 8 and constant(horizon, radius) > 0.01:
            assert sum(plan.evals) <= 1.1 * evals_at(horizon, plan.grid[-1], target / 3, dim, radius)


@pytest.mark.parametrize(("target", "radius"), [(1.0, 0.5), (1.5, 1.0), (0.5, 0.2)])
def test_samples_of_a_plan_are_within_its_target(target, radius, key):
    plan, n = plan_w2(target, 1, radius), 20_000
    score = targets.point_masses([[-radius], [radius]]).score
    out = predict_correct(
        score,
        noise.initial(jax.random.fold_in(key, 99), jnp.arange(n), 1),
        key,
        horizon=plan.horizon,
        langevin_time=plan.langevin_time,
        step_size=plan.step_size,
        reversal=kernels.ddim(score),
        grid=plan.grid,
    )
    # In order, half of the samples go to each point: W2 to the two points of equal weight.
    ordered = np.sort(np.asarray(out)[:, 0])
    squares = (ordered - np.where(np.arange(n) < n // 2, -radius, radius)) ** 2
    assert squares.mean() + 5 * squares.std() / np.sqrt(n) <= target**2


def test_a_plan_with_more_knowledge_takes_fewer_evaluations():
    default = plan_w2(1.0, 1, 0.6)
    sharp = plan_w2(1.0, 1, 0.6, one_sided=lambda t: one_sided(t, 0.3), second_moment=0.09)
    assert sum(sharp.evals) < sum(default.evals)
    assert sharp.certificate["W2 in all"].value <= 1.0
    assert sum(plan_w2(1.4, 1, 0.6).evals) <= sum(default.evals)


def test_a_plan_stops_where_it_is_told():
    plan = plan_w2(1.0, 1, 0.4, early_stop=0.03)
    assert plan.grid[-1] == pytest.approx(0.03, rel=1e-12)
    assert plan.certificate["W2 in all"].value <= 1.0
    c, sigma2 = c_sigma2(plan_w2(1.0, 1, 0.4).grid[-1])  # else as late as a third of the target allows
    assert np.sqrt((1 - c) ** 2 * 0.16 + sigma2) == pytest.approx(1 / 3, rel=1e-9)


# Refusals.
def test_a_plan_out_of_reach_is_refused_with_the_stretch(monkeypatch):
    monkeypatch.setattr(planner, "HORIZONS", 5)  # 80 take seconds
    with pytest.raises(
        ValueError, match=r"no grid of 32768 steps reaches W2 0\.1: .* by e\^\d.* radius 1 .*one_sided="
    ):
        plan_w2(0.1, 1, 1.0)


@pytest.mark.parametrize("target", [0.0, -1.0, np.inf, np.nan])
def test_a_target_that_is_none_is_refused(target):
    with pytest.raises(ValueError, match="target_w2 is a distance, positive"):
        plan_w2(target, 1, 1.0)


def test_a_stop_that_costs_more_than_its_share_is_refused_with_one_that_does_not():
    with pytest.raises(ValueError, match=r"stopping at 0\.3 alone can cost W2 0\.6\d+, .* 0\.3333: stop at 0\.0\d+"):
        plan_w2(1.0, 1, 0.4, early_stop=0.3)
    with pytest.raises(ValueError, match="take a larger target"):
        plan_w2(1e-6, 1, 1.0)


def test_a_horizon_without_a_constant_is_refused_with_one_that_has_it():
    with pytest.raises(ValueError, match=r"T_1 = 0\.5 for radius 2.* Take a horizon above") as caught:
        langevin(0.5, 1.0, 1, 2.0)
    least = float(str(caught.value).rstrip(".").split()[-1])
    assert constant(least * (1 + 1e-3), 2.0) > 0 > constant(least * (1 - 1e-3), 2.0)
    with pytest.raises(ValueError, match="Take a horizon above"):
        w2(0.5, 1.0, 1, 2.0, early_stop=0.1)


@pytest.mark.parametrize(("lipschitz", "limit"), [(None, longest(1.0)), (0.1, longest(1.0)), (7.0, 1 / 63)])
def test_a_step_too_long_is_refused_with_the_limit(lipschitz, limit):
    langevin(1.0, 1.0, 1, 1.0, step_size=limit, lipschitz=lipschitz)
    for step in (limit * 1.001, 0.0, -0.1, np.nan):
        with pytest.raises(ValueError, match=f"at most {limit:.6g} for the bound: step_size = "):
            langevin(1.0, 1.0, 1, 1.0, step_size=step, lipschitz=lipschitz)


@pytest.mark.parametrize("name", ["moment", "langevin_time"])
@pytest.mark.parametrize("value", [-0.1, np.inf, np.nan])
def test_a_moment_or_a_time_that_is_none_is_refused(name, value):
    given = {"horizon": 1.0, "langevin_time": 1.0, "dim": 1, "radius": 1.0} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be finite, 0 or more"):
        langevin(**given)


def test_either_the_flow_or_a_grid_is_asked_for():
    for ends in ({}, {"early_stop": 0.1, "grid": [1.0, 0.1]}):
        with pytest.raises(ValueError, match="give early_stop, for the exact ODE, or the grid"):
            w2(1.0, 1.0, 1, 1.0, **ends)
    with pytest.raises(ValueError, match=r"the grid must start at the horizon: grid\[0\] = 0\.9, horizon = 1"):
        w2(1.0, 1.0, 1, 1.0, grid=[0.9, 0.1])
    with pytest.raises(ValueError, match="early_stop must lie below the horizon"):
        w2(1.0, 1.0, 1, 1.0, early_stop=1.5)


@pytest.mark.parametrize("ends", [{"early_stop": 0.1}, {"grid": [1.0, 0.5, 0.1]}])
@pytest.mark.parametrize("error", [-0.1, np.nan, lambda t: np.inf])
def test_an_error_of_the_score_that_is_none_is_refused(ends, error):
    with pytest.raises(ValueError, match="score_error must be finite, and an error not negative"):
        w2(1.0, 1.0, 1, 1.0, score_error=error, **ends)


@pytest.mark.parametrize("radius", [-1.0, np.inf, np.nan])
def test_a_radius_that_bounds_nothing_is_refused(radius):
    for call in (
        lambda: lsi_constant(1.0, radius),
        lambda: pedrotti2023.sufficient_horizon(0.1, radius),
        lambda: pedrotti2023.simple_horizon(0.1, radius),
        lambda: pedrotti2023.one_sided_lipschitz(1.0, radius),
        lambda: pedrotti2023.log_growth(1.0, 0.1, radius),
    ):
        with pytest.raises(ValueError, match="radius bounds the norm of the data"):
            call()


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, np.nan])
def test_a_delta_outside_0_to_1_is_refused(delta):
    for horizon in (pedrotti2023.sufficient_horizon, pedrotti2023.simple_horizon):
        with pytest.raises(ValueError, match="delta, how far the constant may fall below 1"):
            horizon(delta, 1.0)


def test_a_dimension_that_is_none_is_refused():
    for dim in (0, -1):
        with pytest.raises(ValueError, match="dim"):
            start_kl(1.0, dim, 1.0)


@pytest.mark.parametrize("horizon", [0.0, -1.0, 41.0, np.nan])
def test_a_horizon_that_is_no_time_is_refused(horizon):
    with pytest.raises(ValueError, match="the horizon must be an OU time"):
        langevin(horizon, 1.0, 1, 0.1)


@pytest.mark.parametrize(
    "moments",
    [([0.0], [1.0]), (np.zeros(3), -np.ones(3)), (np.zeros(3), np.full(3, np.nan)), (np.zeros(3), np.ones((3, 2)))],
)
def test_moments_of_another_kind_are_refused(moments):
    with pytest.raises(ValueError, match=r"moments|semi-definite"):
        start_kl(1.0, 3, 1.0, moments=moments)


def test_a_full_covariance_counts_by_its_eigenvalues():
    root = np.random.default_rng(0).normal(size=(3, 3)) / 5
    mean, values = np.full(3, 0.1), np.linalg.svd(root)[1] ** 2
    full = start_kl(1.0, 3, 1.0, moments=(mean, root @ root.T))
    assert full == pytest.approx(start_kl(1.0, 3, 1.0, moments=(mean, values)), rel=1e-12)


@pytest.mark.parametrize("lipschitz", [0.0, -1.0, np.nan, np.inf])
def test_a_lipschitz_constant_that_is_none_is_refused(lipschitz):
    with pytest.raises(ValueError, match="lipschitz is the constant of the score"):
        langevin(1.0, 1.0, 1, 0.5, step_size=0.01, lipschitz=lipschitz)


@pytest.mark.parametrize("ends", [{"early_stop": 0.1}, {"grid": grids.log_snr(1.0, 0.1, 4)}])
def test_a_stretch_or_a_second_moment_that_is_none_is_refused(ends):
    with pytest.raises(ValueError, match="one_sided must be finite"):
        w2(1.0, 1.0, 1, 0.5, one_sided=lambda t: np.nan, **ends)
    with pytest.raises(ValueError, match="second_moment is a mean of squares"):
        w2(1.0, 1.0, 1, 0.5, second_moment=-1.0, **ends)


def test_an_infinite_bound_survives_json_and_is_called_vacuous():
    found = w2(3.0, 1.0, 1, 10.0, early_stop=1e-3)
    assert found["W2 in all"].value == np.inf
    assert "vacuous" in found.warnings[0]
    assert Certificate.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("target", [4.3, 100.0])
def test_a_generous_target_is_met(target):
    assert plan_w2(target, 1, 1.0).certificate["W2 in all"].value <= target


def test_what_rests_on_something_given_is_called_assumed():
    status = lambda **given: {t.name: t.status for t in w2(1.0, 1.0, 1, 0.5, **given).terms}
    grid = {"grid": grids.log_snr(1.0, 0.1, 4)}
    plain, measured = status(**grid), status(**grid, one_sided=lambda t: 1.0)
    assert plain["W2 in all"] == plain["discretisation"] == plain["log G"] == "bound"
    assert measured["W2 in all"] == measured["discretisation"] == measured["log G"] == "assumed"
    wrong, off = status(**grid, moment=0.1), status(**grid, score_error=0.1)
    assert wrong["W2 at T1"] == wrong["Langevin, after the reversal"] == wrong["W2 in all"] == "assumed"
    assert off["W2 at T1"] == "bound"
    assert off["W2 in all"] == "assumed"


def test_a_plan_asks_a_given_stretch_a_thousand_times_and_a_little():
    asked = []
    plan_w2(1.0, 1, 0.5, one_sided=lambda t: asked.append(t) or one_sided(t, 0.5))
    assert len(asked) < 1000 + 2 * 40  # its certificate asks at the nodes of one grid
