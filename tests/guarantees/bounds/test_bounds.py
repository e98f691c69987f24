"""Bounds: published numbers, second derivations by scan and scipy, lower <= exact path KL <= upper on random laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from jaxdiff import grids, targets
from jaxdiff.curves import Curve
from jaxdiff.guarantees.bounds import any_grid, benton2024, from_nodes
from jaxdiff.guarantees.information import initial_kl
from jaxdiff.guarantees.path_kl import path_kl

NAMES = ["exponential_euler", "ancestral", "moment_matched"]
GAUSSIAN, POINT, COIN = (
    law.mmse
    for law in (targets.gaussian([0.0], [1.0]), targets.point_masses([[0.0]]), targets.point_masses([[-1.0], [1.0]]))
)
CHAIN = grids.exponential_then_uniform(3, 1e-3, 600, n_uniform=200)
ROUNDING = 1e-10  # of a path KL, d log(snr ratio) times 1e-11 at worst here


def value(certificate):
    (term,) = certificate.terms
    assert term.name == "discretisation"
    assert term.source
    return term.value


def random_grid(draw):
    """From 1 to 12 steps, ragged or smooth, within [0.01, 8]."""
    early_stop = draw(st.floats(0.01, 0.5))
    gaps = draw(st.lists(st.floats(0.003, 0.6), min_size=1, max_size=12))
    return early_stop + np.cumsum([0.0, *gaps])[::-1]


@st.composite
def gaussian_cases(draw):
    variances = draw(st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 9.0)), min_size=1, max_size=6))
    return random_grid(draw), targets.gaussian(np.zeros(len(variances)), variances).mmse, float(np.sum(variances))


@st.composite
def mixture_cases(draw):
    """A mixture on the line of up to four components, atoms or clouds, with its variance."""
    number = st.integers(1, 4)
    k = draw(number)
    weights = np.array(draw(st.lists(st.floats(0.1, 1), min_size=k, max_size=k)))
    means = np.array(draw(st.lists(st.floats(-2, 2), min_size=k, max_size=k)))
    variances = np.array(draw(st.lists(st.sampled_from([0.0, 0.05, 0.3, 1.0]), min_size=k, max_size=k)))
    weights /= weights.sum()
    spread = weights @ (means**2 + variances) - (weights @ means) ** 2
    return random_grid(draw), targets.mixture(weights, means[:, None], variances[:, None]).mmse, max(spread, 0.0)


def check_order(grid, curve, variance):
    for name in NAMES:
        exact = path_kl(name, curve, grid)
        best = value(any_grid.lower(name, grid, curve.dim, variance))
        lower, upper = (value(side(name, curve, grid)) for side in (from_nodes.lower, from_nodes.upper))
        worst = value(any_grid.upper(name, grid, curve.dim, variance, cells=60))
        loose = value(any_grid.upper(name, grid, curve.dim, variance, cells=1))
        wider = value(any_grid.upper(name, grid, curve.dim, 1.5 * variance, cells=1))
        chain = np.array([best, lower, exact, upper, worst, loose, wider])
        assert (np.diff(chain) >= -ROUNDING).all(), (name, chain)
        assert value(any_grid.lower(name, grid, curve.dim, 1.5 * variance)) <= best + ROUNDING


@settings(max_examples=100, deadline=None)
@given(gaussian_cases())
def test_bounds_enclose_the_exact_path_kl_of_random_gaussians(case):
    check_order(*case)


@settings(max_examples=100, deadline=None)
@given(mixture_cases())
def test_bounds_enclose_the_exact_path_kl_of_random_mixtures(case):
    check_order(*case)


def test_chain_of_published_numbers():
    assert value(any_grid.upper("exponential_euler", CHAIN, 1, 1.0)) == pytest.approx(0.0653207, abs=1e-7)
    for curve, expected in ((POINT, 0.0641584), (COIN, 0.0548887), (GAUSSIAN, 0.0285349)):
        exact = path_kl("exponential_euler", curve, CHAIN)
        assert exact == pytest.approx(expected, abs=5.1e-8)
        assert value(from_nodes.lower("exponential_euler", curve, CHAIN)) <= exact + 1e-13
        assert exact - 1e-13 <= value(from_nodes.upper("exponential_euler", curve, CHAIN)) <= 0.0653207
    assert value(any_grid.lower("exponential_euler", CHAIN, 1, 1.0)) == pytest.approx(0.0285349, abs=5.1e-8)
    theorem, mesh = benton2024.theorem1(CHAIN, 1), benton2024.kappa(CHAIN)
    total = theorem["discretisation"].value + theorem["second order"].value
    assert total > 0.0653207
    assert total + mesh * (1.909 + 0.166) == pytest.approx(0.198285, abs=5.1e-7)  # printed with 1.909 for our -0.166


def test_kappa_of_bentons_grid_is_the_published_one():
    grid = grids.exponential_then_uniform(5, 1e-3, 200)
    assert benton2024.kappa(grid) == pytest.approx(0.0715193052, abs=5.1e-11)
    assert benton2024.kappa(grid) == pytest.approx(1000 ** (1 / 100) - 1, rel=1e-12)
    assert benton2024.kappa([3.0, 1.5, 0.5]) == pytest.approx(2.0)  # 1 <= kappa 0.5, and 1.5 <= kappa 1


# THEORY 4 term by term, in its own variables: s = d/I - y for exponential Euler, V for the other two.
def node_functions(name, grid):
    """One function a node and its argument's largest value as a function of Mbar, by THEORY's printed sums."""
    y = np.expm1(2 * grid)
    g, h, n = -np.diff(grid), np.diff(1 / y), len(grid) - 1
    b = 2 * (1 - np.exp(-g)) - g
    for j in range(n + 1):
        if name == "exponential_euler":

            def share(s, j=j):
                above = 0.5 * np.log((s + y[j - 1]) / (s + y[j])) if j > 0 else 0.0
                return above - (b[j] * (1 + y[j]) / (s + y[j]) if j < n else 0.0)

            yield share, lambda variance: variance
            continue

        def share(v, j=j):
            rise = 0.0 if j == n else h[j] * v if name == "ancestral" else np.log(1 + h[j] * v)
            return 0.5 * (rise + (np.log(1 - h[j - 1] * v) if j > 0 else 0.0))

        yield share, lambda variance, j=j: 1 / (1 / y[j] + 1 / variance)


GRIDS = {
    "benton": grids.exponential_then_uniform(3, 0.01, 24),
    "log_snr": grids.log_snr(2, 0.02, 10),
    "uniform": grids.uniform(4, 0.1, 9),
    "ragged": np.array([4.0, 2.3, 2.1, 0.8, 0.75, 0.3, 0.05, 0.045]),
    "one step": np.array([0.7, 0.1]),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("variance", [0.3, 1.0, 25.0])
def test_one_cell_is_the_sum_of_maxima_that_scipy_finds(name, grid, variance):
    times, expected = GRIDS[grid], 0.0
    for share, largest in node_functions(name, times):
        top = largest(variance)
        inside = minimize_scalar(lambda s, share=share: -share(s), bounds=(0, top), method="bounded")
        expected += max(share(0.0), share(top), -inside.fun)
    assert value(any_grid.upper(name, times, 3, 3 * variance, cells=1)) == pytest.approx(3 * expected, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", ["benton", "ragged", "uniform"])
def test_many_cells_approach_the_ordered_maximum_from_above(name, grid):
    times, variance = GRIDS[grid], 2.0
    s = np.append(0.0, np.geomspace(1e-5, variance, 4000))  # sampled values: a programme over them stays below
    best = np.zeros(len(s))
    for (share, _), y in zip(node_functions(name, times), np.expm1(2 * times), strict=True):
        argument = s if name == "exponential_euler" else s / (1 + s / y)
        best = share(argument) + np.maximum.accumulate(best[::-1])[::-1]
    sampled, bounds = np.max(best), [value(any_grid.upper(name, times, 1, variance, cells=n)) for n in (1, 50, 4000)]
    assert sampled - 1e-12 <= bounds[2] <= 1.003 * sampled
    assert bounds[2] <= bounds[1] <= bounds[0] + 1e-13
    if grid == "ragged":
        assert bounds[2] < 0.98 * bounds[0]  # the order matters here


@pytest.mark.parametrize("grid", GRIDS)
def test_least_cost_of_exponential_euler_is_that_of_the_isotropic_gaussian(grid):
    times, y = GRIDS[grid], np.expm1(2 * GRIDS[grid])
    g = -np.diff(times)
    frozen = (2 * (1 - np.exp(-g)) - g) * (1 + y[:-1])
    s = np.linspace(0, 1.7, 2001)[:, None]
    scanned = 0.5 * np.log((s + y[:-1]) / (s + y[1:])) - frozen / (s + y[:-1])
    bound = value(any_grid.lower("exponential_euler", times, 4, 4 * 1.7))
    assert bound == pytest.approx(4 * scanned.min(axis=0).sum(), rel=1e-11)
    isotropic = targets.gaussian(np.zeros(4), np.full(4, 1.7))
    assert bound == pytest.approx(path_kl("exponential_euler", isotropic.mmse, times), rel=1e-11)
    assert (
        value(any_grid.lower("ancestral", times, 4, 6.8)) == 0 == value(any_grid.lower("moment_matched", times, 4, 6))
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variance", [0.0, 0.2, 30.0])
def test_bounds_from_nodes_meet_on_isotropic_gaussians(name, variance):
    curve = targets.gaussian(np.zeros(3), np.full(3, variance)).mmse
    for grid in (GRIDS["ragged"], [6.0, 1e-3]):  # the second with a ratio of snr of 8e7
        exact = path_kl(name, curve, grid)
        for bound in (from_nodes.lower, from_nodes.upper):
            assert value(bound(name, curve, grid)) == pytest.approx(exact, rel=1e-11, abs=1e-11)


def test_bounds_from_nodes_are_the_printed_sums():
    grid, dim = np.array([1.4, 0.9, 0.35, 0.1]), 3
    snr = 1 / np.expm1(2 * grid)
    v = np.array([0.9, 0.6, 0.5, 0.2])
    curve = lambda at: np.interp(at, snr, v)
    h, earlier, later = np.diff(snr), v[:-1], v[1:]
    left = np.sum(np.log(1 - h * later / dim)) * dim
    ancestral = 0.5 * (np.sum(h * earlier) + left)
    matched = 0.5 * (dim * np.sum(np.log(1 + h * earlier / dim)) + left)
    below = 0.5 * np.sum(h * earlier - dim * np.log(1 + h * earlier / dim))
    assert value(from_nodes.upper("ancestral", curve, grid, dim=dim)) == pytest.approx(ancestral, rel=1e-12)
    assert value(from_nodes.upper("moment_matched", curve, grid, dim=dim)) == pytest.approx(matched, rel=1e-12)
    assert value(from_nodes.lower("ancestral", curve, grid, dim=dim)) == pytest.approx(below, rel=1e-12)
    assert value(from_nodes.lower("moment_matched", curve, grid, dim=dim)) == pytest.approx(0, abs=1e-14)
    y, g, s = 1 / snr, -np.diff(grid), 1 / (dim / v - snr)
    frozen = np.sum((2 * (1 - np.exp(-g)) - g) * (1 + y[:-1]) / (s + y)[:-1])
    for bound, held in ((from_nodes.upper, s[1:]), (from_nodes.lower, s[:-1])):
        euler = dim * (0.5 * np.sum(np.log((held + y[:-1]) / (held + y[1:]))) - frozen)
        assert value(bound("exponential_euler", curve, grid, dim=dim)) == pytest.approx(euler, rel=1e-12)


def test_estimates_above_what_is_possible_are_lowered_to_it():
    grid = np.array([20.0, 0.5, 1e-3])  # 1 - h V/d would round to 0
    most = Curve(lambda snr: 2 / snr, 2)
    for name in NAMES:
        for bound in (from_nodes.lower, from_nodes.upper):
            assert value(bound(name, Curve(lambda snr: 5 / snr, 2), grid)) == value(bound(name, most, grid))
    ratio = np.log(np.expm1(40.0) / np.expm1(2e-3))
    heads = np.sum(np.diff(1 / np.expm1(2 * grid)) * np.expm1(2 * grid[:-1]))
    assert value(from_nodes.upper("ancestral", most, grid)) == pytest.approx(heads - ratio, rel=1e-12)


def test_replicates_give_a_standard_error_and_learned_losses_are_refused():
    scales = np.array([0.9, 0.95, 1.0, 1.05, 1.1])
    parts = tuple(Curve(lambda snr, c=c: c * COIN(snr), 1) for c in scales)
    measured = Curve(COIN, 1, replicates=parts)
    (term,) = from_nodes.upper("ancestral", measured, GRIDS["benton"]).terms
    values = [value(from_nodes.upper("ancestral", part, GRIDS["benton"])) for part in parts]
    assert term.status == "measured"
    assert term.standard_error == pytest.approx(np.std(values, ddof=1) / np.sqrt(5))
    assert value(from_nodes.upper("ancestral", COIN, GRIDS["benton"])) == term.value
    assert from_nodes.upper("ancestral", COIN, GRIDS["benton"])["discretisation"].status == "bound"
    learned = Curve(COIN, 1, cross=lambda snr: np.sqrt(snr) * COIN(snr))
    with pytest.raises(ValueError, match="learned denoiser"):
        from_nodes.upper("ancestral", learned, GRIDS["benton"])
    with pytest.raises(ValueError, match="at least 0: at snr"):
        from_nodes.lower("ancestral", lambda snr: -1 / (1 + snr), GRIDS["benton"], dim=1)
    for number in (np.nan, np.inf):
        with pytest.raises(ValueError, match=f"is {number}"):
            from_nodes.lower("ancestral", lambda snr, number=number: number * snr, GRIDS["benton"], dim=1)


GEOMETRIC = ["ancestral", "moment_matched"]
ENDS = [(3.0, 0.01, 40, 1.0), (5.0, 1e-3, 7, 0.02), (0.9, 0.1, 1, 4.0), (20.0, 1e-6, 300, 1e3), (40.0, 0.1, 50, 1.0)]


@pytest.mark.parametrize(("horizon", "early_stop", "n_steps", "variance"), ENDS)
def test_geometric_grid_is_geometric_and_its_closed_form_is_the_bound_on_any_grid(
    horizon, early_stop, n_steps, variance
):
    grid = any_grid.geometric_grid(horizon, early_stop, n_steps, variance)
    assert (len(grid), grid[0], grid[-1]) == (n_steps + 1, horizon, early_stop)
    shifted = 1 / np.expm1(2 * grid) + 1 / variance
    np.testing.assert_allclose(shifted[1:] / shifted[:-1], (shifted[-1] / shifted[0]) ** (1 / n_steps), rtol=1e-9)
    for name in GEOMETRIC:
        closed = value(any_grid.geometric(name, horizon, early_stop, n_steps, 3, 3 * variance))
        for cells in (1, 200):
            summed = value(any_grid.upper(name, grid, 3, 3 * variance, cells=cells))
            assert closed == pytest.approx(summed, rel=1e-9)


@pytest.mark.parametrize(("horizon", "early_stop", "n_steps", "variance"), ENDS)
def test_geometric_bounds_are_theorys_and_the_simplified_ones_lie_above(horizon, early_stop, n_steps, variance):
    log_ratio = np.log((1 / np.expm1(2 * early_stop) + 1 / variance) / (1 / np.expm1(2 * horizon) + 1 / variance))
    rho = np.exp(log_ratio / n_steps)
    printed = {
        "ancestral": n_steps * (rho - 1 - np.log(rho)) + log_ratio / n_steps,
        "moment_matched": (n_steps - 1) * np.log(1 + (rho + 1 / rho - 2) / 4) + log_ratio / n_steps,
    }
    simplified = {"ancestral": 0.7183 * log_ratio**2 + log_ratio, "moment_matched": log_ratio**2 / 4 + log_ratio}
    for name in GEOMETRIC:
        bound = lambda name=name, **form: value(
            any_grid.geometric(name, horizon, early_stop, n_steps, 5, 5 * variance, **form)
        )
        assert bound() == pytest.approx(2.5 * printed[name], rel=1e-9)
        if name == "ancestral" and n_steps < log_ratio:
            with pytest.raises(ValueError, match="Take more steps"):
                bound(simplified=True)
            continue
        assert bound(simplified=True) == pytest.approx(2.5 / n_steps * simplified[name], rel=1e-12)
        assert bound() <= bound(simplified=True)


def test_geometric_grid_holds_for_laws_of_this_variance():
    grid = any_grid.geometric_grid(3, 0.01, 30, 1.0)
    for curve in (GAUSSIAN, COIN, POINT):
        for name in GEOMETRIC:
            assert path_kl(name, curve, grid) <= value(any_grid.geometric(name, 3, 0.01, 30, 1, 1.0)) + ROUNDING


SKEWED = targets.point_masses([[-0.5], [2.0]], [0.8, 0.2]).mmse  # mean 0, variance 0.2 + 0.8 = 1
NARROW = targets.mixture([0.5, 0.5], [[-0.8], [0.8]], [[0.36], [0.36]]).mmse  # 0.64 + 0.36


@pytest.mark.parametrize("horizon", [1.0, 2.0, 6.0])
@pytest.mark.parametrize("early_stop", [1.0, 0.3, 1e-3, 1e-6])
@pytest.mark.parametrize("n_steps", [2, 9, 60])
@pytest.mark.parametrize("dim", [1, 16])
def test_theorem_with_constants_bounds_normalised_laws(horizon, early_stop, n_steps, dim):
    if horizon <= early_stop:
        return
    grid = grids.exponential_then_uniform(horizon, early_stop, n_steps)
    certificate = benton2024.theorem1(grid, dim)
    for curve in (GAUSSIAN, COIN, SKEWED, NARROW):  # independent coordinates: d times one's
        assert dim * path_kl("exponential_euler", curve, grid) + initial_kl(dim, dim, horizon) <= certificate.known
    worst = value(any_grid.upper("exponential_euler", grid, dim, dim))
    assert worst <= certificate["discretisation"].value + certificate["second order"].value
    low_rank = targets.gaussian(np.zeros(dim), np.eye(dim)[0] * dim).mmse  # total variance d in one direction
    assert path_kl("exponential_euler", low_rank, grid) <= worst + ROUNDING


def test_first_constant_is_the_supremum_of_the_proofs_integral():
    fisher = lambda u: 1 / -np.expm1(-2 * u)  # the most J can be; d = 1

    def left_over(horizon, early_stop):
        below = quad(lambda u: (2 * u + 1) * fisher(u), early_stop, 1, limit=200)[0]
        above = quad(lambda u: 2 * fisher(u), 1, horizon)[0]
        return early_stop * fisher(early_stop) - 1 + below + above + 0.5 * np.log(early_stop) - 2 * horizon

    found = [left_over(*ends) for ends in itertools.product((1, 1.5, 3, 10), (1, 0.5, 0.1, 1e-2, 1e-4))]
    assert -0.1675 < max(found) <= benton2024.FIRST
    times = np.linspace(1e-3, 30, 100_000)
    assert np.max(np.minimum(1, times) ** 2 * fisher(times)) / 3 <= benton2024.SECOND


# A score off by a factor on N(0, 1): s_theta = -(1 + a) x. With corr(X_v, X_t) = e^-(t - v), int E|s_v - s_theta|^2 dv
# over a step is g (1 + (1 + a)^2) - 2 (1 + a)(1 - e^-g), and eps^2 = a^2 sum g.
@pytest.mark.parametrize("a", [-0.5, -0.01, 0.01, 0.4, 3.0])
@pytest.mark.parametrize("dim", [1, 7])
def test_theorem_holds_for_a_wrong_score_and_its_cross_term_is_needed(a, dim):
    grid = grids.uniform(8, 1, 70)
    g = -np.diff(grid)
    total = dim * np.sum(g * (1 + (1 + a) ** 2) + 2 * (1 + a) * np.expm1(-g))
    eps2 = dim * a**2 * np.sum(g)
    certificate = benton2024.theorem1(grid, dim, score_error=eps2)
    assert total + initial_kl(dim, dim, 8) <= certificate.known
    assert certificate["score error"].value == eps2
    cross = abs(total - eps2 - dim * path_kl("exponential_euler", GAUSSIAN, grid))
    assert cross <= certificate["score x step"].value <= 1.3 * cross


def test_theorems_terms_add_up_and_say_what_they_are():
    grid = grids.exponential_then_uniform(4, 1e-2, 100)
    certificate = benton2024.theorem1(grid, 3, second_moment=5.0, score_error=0.25)
    mesh = max(3 / 50, 1e-2 ** (-1 / 50) - 1)
    expected = {
        "initialisation": 0.5 * (np.exp(-8) * (5 - 3) - 3 * np.log(1 - np.exp(-8))),
        "score error": 0.25,
        "score x step": 1.08 * mesh * 0.5 * np.sqrt(12),
        "discretisation": mesh * 3 * (0.5 * np.log(100) + 8 - 0.166),
        "second order": 0.3856 * mesh**2 * 3 * 3.99,
    }
    assert [term.name for term in certificate.terms] == list(expected)
    for name, number in expected.items():
        assert certificate[name].value == pytest.approx(number, rel=1e-10)
    assert certificate.known == pytest.approx(sum(expected.values()))
    assert {term.status for term in certificate.terms} == {"bound", "assumed"}
    assert "Cov = I" in str(certificate)
    assert "constants ours" in str(certificate)
    assert benton2024.theorem1(grid, 3)["initialisation"].value == pytest.approx(initial_kl(3, 3, 4.0))


def test_theorem_as_printed_is_never_called_a_bound():
    grid = grids.exponential_then_uniform(4, 1e-2, 100)
    certificate = benton2024.theorem1_as_printed(grid, 3, score_error=0.25)
    mesh = max(3 / 50, 1e-2 ** (-1 / 50) - 1)
    assert certificate.known == pytest.approx(0.25 + mesh**2 * 300 + mesh * 12 + 3 * np.exp(-8))
    assert {term.status for term in certificate.terms} == {"assumed"}
    assert "not a bound" in certificate.subject
    assert any("does not state" in text for text in certificate.assumptions)


def test_corollary_is_the_printed_order():
    order = benton2024.corollary(0.1, 20, 1e-3)
    horizon = 0.5 * np.log(200)
    assert order == pytest.approx((horizon, 200 * (horizon + np.log(1000)) ** 2))
    assert "not a bound" in benton2024.corollary.__doc__


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: any_grid.upper("ddim", [1.0, 0.5], 1, 1.0), "'ddim': it is for exponential_euler, anc"),
        (lambda: any_grid.lower("heun", [1.0, 0.5], 1, 1.0), "'heun'"),
        (lambda: from_nodes.upper("covariance_matched", COIN, [1.0, 0.5]), "'covariance_matched'"),
        (lambda: any_grid.geometric("exponential_euler", 1, 0.5, 3, 1, 1.0), "is for ancestral, moment_matched"),
        (lambda: any_grid.upper("ancestral", [0.5, 1.0], 1, 1.0), "grid must decrease"),
        (lambda: any_grid.upper("ancestral", [1.0, 0.5], 0, 1.0), "dim = 0"),
        (lambda: any_grid.upper("ancestral", [1.0, 0.5], 1.5, 1.0), "dim = 1.5"),
        (lambda: any_grid.upper("ancestral", [1.0, 0.5], 1, -1.0), "total_variance = -1"),
        (lambda: any_grid.lower("ancestral", [1.0, 0.5], 1, np.nan), "total_variance = nan"),
        (lambda: any_grid.upper("ancestral", [1.0, 0.5], 1, 1.0, cells=0), "cells = 0"),
        (lambda: any_grid.geometric("ancestral", 1, 0.5, 3, 1, 0.0), "positive variance a coordinate, not 0"),
        (lambda: any_grid.geometric_grid(1, 2, 3, 1.0), "below the horizon"),
        (lambda: any_grid.geometric_grid(1, 0.5, 0, 1.0), "n_steps = 0"),
        (lambda: benton2024.theorem1([0.9, 0.5], 1), "horizon of 1 or more .* from 0.9 to 0.5"),
        (lambda: benton2024.theorem1_as_printed([3.0, 1.2], 1), "early stop of 1 or less"),
        (lambda: benton2024.theorem1([2.0, 0.5], 1, score_error=-0.1), "score_error = -0.1"),
        (lambda: benton2024.theorem1([2.0, 0.5], 1, second_moment=-1), "second_moment = -1"),
        (lambda: benton2024.theorem1([2.0, 0.5], True), "dim = True"),
        (lambda: benton2024.kappa([1.0, 1.0]), "grid must decrease"),
        (lambda: benton2024.corollary(2.0, 1, 0.1), "between 0 and dim = 1"),
        (lambda: benton2024.corollary(0.1, 1, 0.0), "early_stop = 0"),
    ],
)
def test_bad_requests_are_refused_by_name(call, match):
    with pytest.raises(ValueError, match=match):
        call()
