"""Exact values against closed forms and recursions; a bound on the wrong side is shouted, an empty one is named."""

import json

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.stats import norm

from benchmarks import bound_tightness as tightness
from benchmarks.laws import line
from benchmarks.oracles import bound_cases, finite_horizon
from benchmarks.oracles import exact_values as exactly
from jaxdiff import grids, kernels, targets

pytestmark = pytest.mark.slow

CASES = exactly.cases()
MASS, COIN, BUMPS = (CASES[name] for name in ("point mass", "two points", "two bumps"))


def normal_kl(mean, variance, other_mean, other_variance):
    """KL of two normal laws on the line."""
    ratio = variance / other_variance
    return (ratio - 1 - np.log(ratio) + (mean - other_mean) ** 2 / other_variance) / 2


def noised(mean, variance, t):
    """Mean and variance of a normal law at OU time t."""
    return np.exp(-t) * mean, np.exp(-2 * t) * variance - np.expm1(-2 * t)


@pytest.mark.parametrize("own_clock", [False, True])
def test_the_lattice_has_the_law_of_the_recursion_of_mean_and_variance(own_clock):
    law, t = line.Law([1.0], [0.5], [0.3]), 0.6
    kernel = kernels.langevin(law.score, t) if own_clock else kernels.exponential_euler(law.score)
    grid = np.linspace(0.5, 0, 11) if own_clock else grids.log_snr(2.0, 0.05, 12)
    mean, variance = 0.0, 1.0
    for at, keep, gain, spread in zip(*kernel.coefficients(grid), strict=True):
        own, width = noised(0.5, 0.3, at)
        slope = keep - gain / width
        mean, variance = slope * mean + gain * own / width, slope**2 * variance + spread**2
    end, last = exactly.chain(law, kernel, grid), t if own_clock else grid[-1]
    np.testing.assert_allclose(end.p, norm.pdf(end.y, mean, np.sqrt(variance)), atol=1e-9)
    forward, backward, tv = end.against(law, last)
    own, width = noised(0.5, 0.3, last)
    assert forward == pytest.approx(normal_kl(own, width, mean, variance), abs=1e-10)
    assert backward == pytest.approx(normal_kl(mean, variance, own, width), abs=1e-10)
    apart = lambda x: abs(norm.pdf(x, mean, np.sqrt(variance)) - norm.pdf(x, own, np.sqrt(width))) / 2
    assert tv == pytest.approx(
        quad(apart, -8, 8, limit=400, epsabs=1e-9)[0], abs=1e-6
    )  # a cubic spline between points of a lattice


def test_a_mixture_keeps_its_mass_and_symmetry_on_the_lattice():
    end = exactly.chain(COIN.line, kernels.ancestral(COIN.line.score), grids.log_snr(3.0, 0.05, 10))
    assert np.sum(end.p) * (end.y[1] - end.y[0]) == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(end.p, end.p[::-1], atol=1e-10)


@pytest.mark.parametrize("t", [0.01, 0.3])
def test_stopping_early_on_two_points_costs_the_moments_of_a_folded_normal(t):
    c, sigma = np.exp(-t), np.sqrt(-np.expm1(-2 * t))
    folded = sigma * np.sqrt(2 / np.pi) * np.exp(-((c / sigma) ** 2) / 2) + c * (1 - 2 * norm.cdf(-c / sigma))
    expected = np.sqrt(c**2 + sigma**2 - 2 * folded + 1)  # the nearer point is the best one
    w2, error = exactly.stopping_w2(COIN, t)
    assert w2 == pytest.approx(expected, abs=error)
    assert error < 2e-3 * expected
    assert exactly.stopping_w2(CASES["product of two points, d = 64"], t)[0] == pytest.approx(8 * w2, rel=1e-12)


def test_stopping_early_on_a_normal_law_is_the_distance_of_means_and_deviations():
    case = CASES["full covariance, d = 16"]._replace(normal=(np.array([3.0, 0.0]), np.array([0.25, 0.0])))
    variances = [noised(0, v, 0.1)[1] for v in (0.25, 0.0)]
    expected = (3 * (1 - np.exp(-0.1))) ** 2 + (np.sqrt(variances[0]) - 0.5) ** 2 + variances[1]
    assert exactly.stopping_w2(case, 0.1)[0] == pytest.approx(np.sqrt(expected), rel=1e-12)


def test_langevin_in_continuous_time_is_the_equation_of_mean_and_variance():
    t, time = 0.4, 0.7
    mean, v = noised(1.0, 0.0, t)
    moments = lambda u, y: [(mean - y[0]) / v, 2 - 2 * y[1] / v]
    m, variance = solve_ivp(moments, (0, time), [0.0, 1.0], rtol=1e-11, atol=1e-12).y[:, -1]
    expected = normal_kl(m, variance, mean, v)
    assert exactly.continuous_kl(MASS.normal, t, time) == pytest.approx(expected, rel=1e-7)


def test_steps_of_langevin_on_a_point_are_the_recursion_in_kl_and_in_w2():
    t, h, n_steps = 0.44, 0.02, 25
    mean, v = noised(1.0, 0.0, t)
    m, variance = 0.0, 1.0
    for _ in range(n_steps):
        m, variance = m + h * (mean - m) / v, (1 - h / v) ** 2 * variance + 2 * h
    kl, away, _ = exactly.after_steps(MASS, t, h * n_steps, h)
    assert kl == pytest.approx(normal_kl(m, variance, mean, v), abs=1e-9)
    assert away == pytest.approx(np.hypot(m - mean, np.sqrt(variance) - np.sqrt(v)), abs=1e-3)  # of 2,001 quantiles


def test_down_the_ode_a_normal_law_stays_at_its_affine_distance_from_a_point():
    grid, m, deviation = grids.log_snr(0.5, 0.01, 4000), 0.3, 0.9
    (mean, v), (end, last) = (noised(1.0, 0.0, t) for t in (grid[0], grid[-1]))
    ratio = np.sqrt(last / v)
    expected = np.hypot(end + ratio * (m - mean) - 1, ratio * deviation)
    for w2 in exactly.down_the_ode(MASS, line.normal(m, deviation), grid):
        assert w2 == pytest.approx(expected, rel=2e-3)  # ddim is exact on a point; quantiles cut the tails


def test_the_ode_stretches_most_between_two_points_by_the_integral_of_its_slope():
    slope = lambda t: 1 + (np.exp(-2 * t) / -np.expm1(-2 * t) - 1) / -np.expm1(-2 * t)  # of the drift x + s at 0
    expected = quad(slope, 0.05, 0.5, epsabs=1e-11)[0]
    assert exactly.log_stretch(COIN.line, 0.5, 0.05) == pytest.approx(expected, abs=1e-7)


def test_the_needed_horizon_is_where_the_gap_crosses_and_none_for_a_point():
    t = exactly.needed_horizon(COIN.line, 0.5)
    assert finite_horizon.gap(COIN.line, t * 0.999) < 0.5 < finite_horizon.gap(COIN.line, t * 1.001)
    assert exactly.needed_horizon(MASS.line, 0.5) == 0


def test_the_kl_of_the_start_is_that_of_normal_laws_on_a_line_and_of_draws():
    t, cloud = 0.5, targets.point_masses([[0.3, -0.4]])
    mean, v = noised(1.0, 0.0, t)
    assert exactly.start_kl(MASS, t, None)[0] == pytest.approx(normal_kl(0, 1, mean, v), abs=1e-10)
    kl, error = exactly.start_kl(exactly.Case(cloud), t, None)
    expected = sum(normal_kl(0, 1, np.exp(-t) * at, v) for at in (0.3, -0.4))
    assert 0 < abs(kl - expected) < error < 0.1
    matched = np.array([0.3, 0.0]), np.diag([0.0, 1.0])
    expected = normal_kl(0, v + np.exp(-2 * t), -0.4 * np.exp(-t), v)
    kl, error = exactly.start_kl(exactly.Case(cloud), t, matched)
    assert 0 < abs(kl - expected) < error < 0.1


@pytest.mark.parametrize("name", ["two bumps", "64 points, d = 16", "8 components, d = 16", "ring of 8, d = 2"])
def test_total_variance_is_the_second_moment_about_the_mean(name):
    components = CASES[name].law.score.args[0]
    mean = np.exp(components.log_weights) @ components.means
    assert CASES[name].total_variance == pytest.approx(CASES[name].law.second_moment - mean @ mean, rel=1e-9)


def test_the_initial_kl_of_a_normal_law_is_its_closed_form():
    law = targets.gaussian([0.5], [0.3])
    expected = normal_kl(*noised(0.5, 0.3, 0.8), 0, 1)
    assert exactly.initial_kl(law, law.mmse, 0.8) == pytest.approx(expected, abs=1e-12)


def test_moments_are_those_of_the_data():
    mean, cov = exactly.moments_of(CASES["64 points, d = 16"])
    points = CASES["64 points, d = 16"].law.score.args[0].means
    np.testing.assert_allclose(cov, np.mean([np.outer(p - mean, p - mean) for p in points], 0), rtol=1e-10, atol=1e-14)
    mean, variances = exactly.moments_of(CASES["product of two points, d = 64"])
    assert (mean.shape, variances.tolist()) == ((64,), [1.0] * 64)


def row(side, value, exact, error=0.0, **about):
    """A row of a law."""
    return {"law": "a"} | bound_cases.compared("of.something", side, value, exact, error, **about)


def test_a_bound_is_violated_on_its_own_side_beyond_the_error_alone():
    assert tightness.violated(row("at most", 0.9, 1.0))
    assert not tightness.violated(row("at most", 0.9, 1.0, 0.11))
    assert not tightness.violated(row("at most", 1.1, 1.0))
    assert tightness.violated(row("at least", 1.1, 1.0))
    assert not tightness.violated(row("at least", 0.9, 1.0))
    assert not tightness.violated(row("no bound", 0.5, 1.0))
    assert not tightness.violated(row("at most", np.inf, 1.0))
    assert not tightness.violated(bound_cases.left_out("of.something", "at most", "why"))


def test_vacuous_is_what_says_nothing_where_the_exact_value_does():
    assert row("at most", 4.0, 1.0)["vacuous"]  # of 4 nats TV may be 0.99
    assert not row("at most", 3.9, 1.0)["vacuous"]
    assert not row("at most", 5.0, 4.0)["vacuous"]
    assert row("at most", 0.995, 0.1, unit="TV")["vacuous"]
    assert row("at most", 2.0, 0.1, unit="W2", trivial=1.5)["vacuous"]
    assert row("at least", 0.0, 0.1)["vacuous"]
    assert not row("at least", 0.0, 0.0)["vacuous"]
    assert not row("at least", 0.01, 0.1)["vacuous"]


def test_factors_are_at_least_one_infinite_or_none():
    assert tightness.factor(row("at most", 3.0, 2.0)) == 1.5
    assert tightness.factor(row("at least", 2.0, 3.0)) == 1.5
    assert tightness.factor(row("at least", 0.0, 3.0)) == np.inf
    assert tightness.factor(row("at most", np.inf, 3.0)) == np.inf
    assert tightness.factor(row("at most", 3.0, 0.0)) is None


def test_the_verdict_shouts_a_violated_bound_and_says_when_there_is_none():
    good = [
        row("at most", 1.5, 1.0),
        row("at most", 2.5, 1.0, kernel="ancestral"),
        row("no bound", 0.5, 1.0) | {"bound": "o"},
    ]
    said = tightness.verdict(good + tightness.summaries(good))
    assert "2 comparisons of 2 bounds on 1 laws, none violated" in said
    assert "tightest: of.something 1.5" in said
    assert "no bound: 0.5 to 0.5 times" in said
    assert "Vacuous in most cases: none" in said
    bad = [*good, row("at most", 0.5, 1.0, kernel="ancestral"), row("at most", 9.0, 1.0) | {"bound": "empty"}]
    said = tightness.verdict(bad + tightness.summaries(bad))
    assert "VIOLATED in 1: of.something (ancestral) on a" in said
    assert "Vacuous in most cases: empty." in said


def test_rows_of_a_normal_law_are_attained_by_the_bounds_from_nodes():
    grid = grids.exponential_then_uniform(3.0, 0.05, 10)
    rows = [{"law": "a"} | one for one in bound_cases.on_grid(CASES["N(0, I), d = 64"], "Benton", grid)]
    assert len(rows) == 3 * 4 + 2 + 2
    assert not any(map(tightness.violated, rows))
    attained = [one["ratio"] for one in rows if one["bound"].startswith(("from_nodes", "information"))]
    np.testing.assert_allclose([ratio for ratio in attained if ratio], 1, rtol=1e-10)
    assert attained.count(None) == 2  # moment matching is exact, and both bounds are 0
    assert all(one["ratio"] > 1 for one in rows if one["bound"].startswith("benton"))


def test_no_bound_is_violated_on_two_points_and_those_of_information_are_strict():
    rows = list(bound_cases.on_grid(COIN, "Benton", grids.exponential_then_uniform(3.0, 0.05, 10)))
    assert not any(map(tightness.violated, rows))
    low, high = (one["ratio"] for one in rows if one["bound"].startswith("information"))
    assert low < 0.99 < 1.01 < high


def test_what_does_not_apply_says_why():
    wide, grid = exactly.Case(targets.gaussian([0.0], [1.5])), grids.exponential_then_uniform(3.0, 0.05, 5)
    reasons = {one["bound"]: one["reason"] for one in bound_cases.on_grid(wide, "g", grid) if not one["applies"]}
    assert set(reasons) == {"benton2024.theorem1", "benton2024.theorem1_as_printed"}
    assert [one["applies"] for one in bound_cases.on_geometric(MASS, 5)] == [False] * 4
    assert next(bound_cases.in_a_ball(wide))["reason"] == "the data are not in a ball"
    assert [one["applies"] for one in bound_cases.at_the_ends(CASES["ring of 8, d = 2"])][-1] is False


def test_what_a_horizon_needs_on_two_points_is_bounded_and_its_stretch_attained():
    rows = {one["bound"]: one for one in bound_cases.constants(COIN, 0.44)}
    assert not any(map(tightness.violated, rows.values()))
    assert rows["pedrotti2023.log_growth"]["ratio"] == pytest.approx(1, abs=1e-6)
    assert rows["pedrotti2023.one_sided_lipschitz"]["ratio"] == pytest.approx(1, abs=1e-9)


def test_path_kl_bounds_the_kl_of_the_ends_that_the_lattice_knows():
    grid = grids.exponential_then_uniform(2.0, 0.1, 6)
    rows = list(bound_cases.on_the_line(BUMPS, "Benton", grid))
    assert [one["unit"] for one in rows] == ["nats", "TV"] * 3
    assert all(one["ratio"] > 1 for one in rows)


def test_the_figure_is_drawn_and_rows_pass_through_json(tmp_path):
    own = [row("at most", value, 1.0, kernel=kernel) for value in (1.5, np.inf) for kernel in (None, "ancestral")]
    own += [row("at least", 0.0, 1.0), bound_cases.left_out("other", "at most", "why") | {"law": "b"}]
    rows = json.loads(json.dumps(own + tightness.summaries(own), allow_nan=False))
    tightness.draw(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"
