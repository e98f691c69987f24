"""The sweep over dimensions: N by brute force from closed forms, grids, tables, fits, and verdicts going each way."""

import functools
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from benchmarks import dimension_sweep as sweep
from benchmarks.laws import by_dimension
from benchmarks.oracles import steps_needed
from jaxdiff import grids, information, kernels, targets
from jaxdiff.processes import ou

G = grids.exponential_then_uniform(3, 0.01, 36, n_uniform=12)
COIN = targets.point_masses([[-1.0], [1.0]])


def benton(n, delta):
    """Benton's grid of n steps, written out."""
    n_uniform = n // 2
    if n_uniform == 0:
        return np.geomspace(steps_needed.HORIZON, delta, n + 1)
    upper = np.linspace(steps_needed.HORIZON, 1, n_uniform + 1)
    return np.concatenate([upper, np.geomspace(1, delta, n - n_uniform + 1)[1:]])


def euler_on_normal(d, grid):
    """d 2(g - 1 + e^-g), summed over steps."""
    g = -np.diff(grid)
    return d * np.sum(2 * (g + np.expm1(-g)))


def ancestral_on_normal(d, grid):
    """(d/2) sum of h/(1 + snr) - log((1 + snr')/(1 + snr))."""
    snr = 1 / np.expm1(2 * grid)
    h = np.diff(snr) / (1 + snr[:-1])
    return d / 2 * np.sum(h - np.log1p(h))


def first(kl, target):
    """The first N from 1 on that is enough."""
    n = 1
    while kl(n) > target:
        n += 1
    return n


@pytest.mark.parametrize(("d", "delta", "eps2"), [(1, 1e-2, 1.0), (3, 1e-3, 1.0), (2, 1e-4, 0.3)])
@pytest.mark.parametrize(
    ("name", "closed"), [("exponential Euler", euler_on_normal), ("ancestral", ancestral_on_normal)]
)
def test_n_on_the_standard_normal_is_the_first_that_is_enough_by_the_closed_form(name, closed, d, delta, eps2):
    kl = lambda n: closed(d, benton(n, delta))
    n = first(kl, eps2)
    row = steps_needed.steps_needed(d, by_dimension.NORMAL, f"{name}, Benton", delta, eps2)
    assert row["steps"] == n
    assert n - 1 < row["real"] <= n
    assert row["path_kl"] == pytest.approx(kl(n), rel=1e-5)  # six digits


def test_point_masses_cost_ancestral_nothing_and_two_points_what_their_curve_says():
    assert steps_needed.steps_needed(64, by_dimension.POINT, "ancestral, Benton", 1e-3, 1e-9)["steps"] == 1
    kl = lambda n: information.path_kl("moment_matched", COIN.mmse, benton(n, 1e-2))
    row = steps_needed.steps_needed(1, by_dimension.COINS, "moment matched, Benton", 1e-2, 0.05)
    assert row["steps"] == first(kl, 0.05)


# Continuum and optimum coincide on N(0, 1): nodes geometric in 1 + snr, cost (1/2)[N (rho - 1) - L], L = N log rho.
@pytest.mark.parametrize("n", [1, 7, 60])
def test_the_optimal_grid_of_the_standard_normal_is_geometric_in_one_plus_snr(n):
    length = np.log((1 + ou.snr(1e-3)) / (1 + ou.snr(steps_needed.HORIZON)))
    expected = (n * np.expm1(length / n) - length) / 2
    one = steps_needed.Sampling(by_dimension.law_of(by_dimension.NORMAL, 1), "ancestral, optimal", 1e-3)
    assert one.kl(n) == pytest.approx(expected, rel=1e-6)
    most = 2048
    expected = (most * np.expm1(length / most) - length) / 2
    assert (
        1 <= one.kl(most) / expected < 1 / (1 - steps_needed.SPREAD[1] / most) + 1e-3
    )  # that share of nodes is spread


@pytest.mark.parametrize(("name", "n", "most"), [("ancestral", 512, 1.01), ("covariance matched", 128, 1.03)])
def test_the_continuum_is_near_the_optimum_where_it_takes_over(name, n, most):
    one = steps_needed.Sampling(by_dimension.law_of(by_dimension.COINS, 1), f"{name}, optimal", 1e-3)
    assert 1 <= one.total(one.continuum(n)) / one.kl(n) < most


# One step of ratio e^13 over the bend of two points' curve is what panels of 0.5 in log snr resolve worst: 1.4e-11.
def test_log_det_off_the_table_is_that_of_the_law():
    table = by_dimension.read_off_tables(COIN.mmse)
    snr = np.exp(np.linspace(-13, 5, 7))[:, None]
    h = snr * np.exp(np.array([-9.0, -3.3, 0.0, 4.7, 13.0]))
    np.testing.assert_allclose(table.log_det(snr, h), COIN.mmse.log_det(snr, h), rtol=3e-11, atol=1e-13)


def test_points_at_root_d_are_two_points_seen_at_d_times_the_snr():
    d = 256
    bpsk = 0.44959950920669  # 1 - E tanh(1 + Z)
    assert by_dimension.law_of(by_dimension.PAIR, d).mmse(np.array([1 / d]))[0] == pytest.approx(d * bpsk, rel=1e-9)


@pytest.mark.parametrize("d", [1, 5, 20, 4096])
def test_bumps_have_total_variance_d_and_their_mutual_distances(d):
    drawn = np.random.default_rng(0).normal(size=(by_dimension.BUMPS, d))
    drawn -= drawn.mean(0)
    drawn *= np.sqrt(0.75 * d / np.mean(np.sum(drawn**2, 1)))
    means = by_dimension.bump_means(d)
    assert means.shape == (8, min(8, d))
    np.testing.assert_allclose(means @ means.T, drawn @ drawn.T, rtol=1e-9, atol=1e-10 * d)
    assert by_dimension.law_of(by_dimension.MIXTURE, d).second_moment == pytest.approx(d, rel=1e-12)
    assert by_dimension.law_of(by_dimension.FLAT_MIXTURE, d).second_moment == pytest.approx(min(d, 8), rel=1e-12)


def test_bumps_in_their_span_have_the_curve_of_the_mixture_in_all_coordinates():
    d = 24
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(d, 8)))[0]
    whole = targets.mixture(np.full(8, 1 / 8), by_dimension.bump_means(d) @ basis.T, np.full((8, d), 0.25)).mmse
    snr = np.exp(np.array([-2.1]))  # on one panel
    inside = targets.mixture(np.full(8, 1 / 8), by_dimension.bump_means(d), np.full((8, 8), 0.25)).mmse
    error = np.hypot(whole.standard_error(snr), inside.standard_error(snr))
    found = by_dimension.law_of(by_dimension.MIXTURE, d).mmse(snr)
    assert found == pytest.approx(inside(snr) + (d - 8) * 0.25 / (1 + snr * 0.25), rel=1e-12)
    assert abs(found - whole(snr))[0] < 5 * error[0] < 0.05 * d


# THEORY 9.3 to 9.5, on grid G.
@pytest.mark.parametrize(
    ("name", "variance", "expected"),
    [
        ("exponential_euler", 0.0, 8.710708852399e-3),
        ("exponential_euler", 0.25, 2.458634164550e-3),
        ("ancestral", 0.25, 2.453514173463e-3),
        ("exponential_euler", 1.0, 1.776171791009e-3),
        ("ancestral", 1.0, 3.719987241284e-3),
    ],
)
def test_the_marginal_kl_of_a_normal_coordinate_is_the_published_number(name, variance, expected):
    rows = getattr(kernels, name)(targets.gaussian([0.0], [variance]).score).coefficients(G)
    assert steps_needed.gaussian_kl(rows, G, variance) == pytest.approx(expected, rel=1e-10)


def test_the_marginal_n_is_the_first_that_is_enough_by_a_loop_over_steps():
    d, delta, eps2 = 12, 1e-2, 0.3

    def kl(n):
        total, grid = 0.0, benton(n, delta)
        for variance, copies in ((1.0, 8), (0.0, d - 8)):
            v = 1.0
            for t, end in itertools.pairwise(grid):
                g, w = t - end, np.exp(-2 * t) * variance - np.expm1(-2 * t)
                v = (np.exp(g) - 2 * np.expm1(g) / w) ** 2 * v + np.expm1(2 * g)
            ratio = (np.exp(-2 * delta) * variance - np.expm1(-2 * delta)) / v
            total += copies * (ratio - 1 - np.log(ratio)) / 2
        return total

    row = steps_needed.steps_needed(d, by_dimension.FLAT, steps_needed.WORST, delta, eps2)
    assert row["marginal"] == first(kl, eps2)


def test_theorem_1_is_the_formula_over_the_exact_kl():
    d, delta, n = 3, 1e-3, 200
    one = steps_needed.Sampling(by_dimension.law_of(by_dimension.NORMAL, d), steps_needed.WORST, delta)
    kappa = max(6 / 100, delta ** (-1 / 100) - 1)
    bound = kappa * d * (np.log(1 / delta) / 2 + 14 - 0.166) + 0.3856 * kappa**2 * d * (7 - delta)
    initial = -d / 2 * np.log1p(-np.exp(-14))  # of E|X_0|^2 = d; the exact one is 0
    found = steps_needed.bound(one, n, one.kl(n))
    assert found["bound"] == pytest.approx(bound + initial, rel=1e-9)
    assert found["ratio"] == pytest.approx((bound + initial) / euler_on_normal(d, benton(n, delta)), rel=1e-8)


@pytest.mark.parametrize("target", [40.0, 1.0, 0.1234, 0.01, 50 / 3000, 0.016])
@pytest.mark.parametrize("kl", [lambda n: 50 / n, lambda n: 50 / n + 300 / n**2, lambda n: 160 / (n * (n + 3))])
def test_the_search_finds_the_first_n_in_few_evaluations(kl, target):
    seen = functools.cache(kl)
    assert steps_needed.least_steps(seen, target, 10**5) == first(kl, target)
    assert seen.cache_info().misses <= 20


def test_a_dip_among_the_first_n_is_found_and_what_is_out_of_reach_is_not():
    bumpy = lambda n: 0.5 if n in (5, 6) else 10 / n
    assert steps_needed.least_steps(bumpy, 0.5, 100, in_turn=16) == 5
    assert steps_needed.least_steps(lambda n: 0.1 if n == 1 else 10 / n, 0.5, 100, in_turn=16) == 1
    assert steps_needed.least_steps(lambda n: 10 / n, 0.1, 100) == 100
    assert steps_needed.least_steps(lambda n: 10 / n, 0.099, 100) is None


@pytest.mark.parametrize("order", [1, 2])
def test_a_power_law_is_interpolated_and_extrapolated_exactly(order):
    kl = lambda n: 7.3 / n**order
    row = steps_needed.needed(kl, 0.01, 10**4, order)
    assert row["real"] == pytest.approx((7.3 / 0.01) ** (1 / order), rel=1e-12)
    assert row["steps"] == math.ceil(row["real"])
    assert "extrapolated" not in row
    beyond = steps_needed.needed(kl, 0.01, 20, order)
    assert beyond["extrapolated"] is True
    assert beyond["real"] == pytest.approx(row["real"], rel=1e-12)
    assert beyond["path_kl"] == kl(20)


def test_the_slope_is_that_of_scipy_and_its_interval_covers_as_often_as_it_says():
    rng, dims, repeats = np.random.default_rng(0), 2.0 ** np.arange(4, 15), 2000
    covered = 0
    for _ in range(repeats):
        y = 0.7 * np.log(dims) + 0.1 * rng.normal(size=len(dims))
        slope, low, high = sweep.power([{"dim": d, "real": np.exp(value)} for d, value in zip(dims, y, strict=True)])
        covered += low <= 0.7 <= high
    assert abs(covered / repeats - 0.95) < 5 * np.sqrt(0.95 * 0.05 / repeats)
    assert slope == pytest.approx(stats.linregress(np.log(dims), y).slope, abs=1e-5)
    assert sweep.power([{"dim": d, "real": 1.0} for d in dims]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("of", "order"),
    [
        (lambda x: 30 + 5 * x, 1),
        (lambda x: (30 + 5 * x) ** 2, 2),
        (lambda x: 40 - 20 * np.exp(-x), 0),
        (lambda x: 100 + 10 * (x > 15), None),
        (lambda x: 100 + 20 * (x > 3) + 10 * (x > 15), None),
    ],
)
def test_growth_is_told_by_the_residuals(of, order):
    rows = [{"delta": delta, "real": of(np.log(1 / delta))} for delta in sweep.MANY_DELTAS]
    assert sweep.growth(rows)["order"] == order


def made(euler=1.0, flat=0.0, ratio=2.5):
    """Rows over d and over early stops that obey powers of d and of log(1/delta)."""
    rows = []
    for law, name in (
        (by_dimension.COINS, steps_needed.WORST),
        *((by_dimension.FLAT_MIXTURE, name) for name in sweep.ALL),
    ):
        exponent = euler if name == steps_needed.WORST else flat
        base = {"law": law, "sampler": name}
        extra = {"ratio": ratio} if name == steps_needed.WORST else {}
        for d in sweep.DIMS:
            row = {
                "part": "d",
                "dim": int(d),
                **base,
                **sweep.DRAWN,
                "real": 50.0 * float(d) ** exponent,
                "steps": 50,
                **extra,
            }
            rows.append(row | ({"extrapolated": True} if d > 4096 and exponent else {}))
        for delta in sweep.MANY_DELTAS:
            growing = (3 + np.log(1 / delta)) ** 2 if law == by_dimension.COINS else 3 + np.log(1 / delta)
            rows.append({"part": "early stop", "dim": 64, **base, "delta": delta, "eps2": 0.1, "real": growing})
    return rows + sweep.fits(rows)


def test_the_verdict_says_what_is_met_and_what_is_not():
    said = sweep.verdict(made())
    assert "MISSED" not in said
    assert "it takes 8.19e+05 steps and ancestral, Benton 50." in said
    assert "never below it" in said
    assert f"log(1/delta) on {by_dimension.FLAT_MIXTURE}" in said
    assert f"log^2(1/delta) on {by_dimension.COINS}" in said
    assert sweep.verdict(made(euler=1.021)).count("MISSED") == 2
    assert sweep.verdict(made(flat=-0.06)).count("MISSED") == 6
    assert "MISSED" not in sweep.verdict(made(euler=1.019, flat=0.049))
    assert "BELOW IT IN 30 ROWS" in sweep.verdict(made(ratio=0.99))


def test_one_end_of_an_interval_outside_is_a_miss():
    row = {"part": "exponent", "exponent_low": 0.99, "exponent_high": 1.03, "late_low": 0.97, "late_high": 1.01}
    assert sweep.judged([row], 1, 0.02, lambda row: True).count("MISSED") == 2
    row |= {"exponent_high": 1.02, "late_low": 0.98}
    assert sweep.judged([row], 1, 0.021, lambda row: True).count("met") == 2


def test_fits_begin_at_16_and_at_128_and_leave_out_what_is_extrapolated():
    rng = np.random.default_rng(0)
    rows = [{"dim": int(d), "real": float(d * rng.uniform(1, 2))} for d in sweep.DIMS]
    for row in rows[-3:]:
        row["extrapolated"] = True
    slope = lambda own: np.polyfit(np.log(sweep.DIMS[own]), np.log([row["real"] for row in rows[own]]), 1)[0]
    found = sweep.exponents(rows)
    assert found["exponent"] == pytest.approx(slope(slice(4, None)), abs=1e-5)
    assert found["late"] == pytest.approx(slope(slice(7, None)), abs=1e-5)
    assert found["computed"] == pytest.approx(slope(slice(4, 12)), abs=1e-5)
    assert found["extrapolated"] == 3


def test_the_figure_is_drawn(tmp_path):
    sweep.draw(made(), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"
