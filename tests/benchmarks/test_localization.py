"""The localisation study: identities against closed forms and brute force, z against hand, verdicts both ways."""

import itertools

import jax
import numpy as np
import pytest

from benchmarks import localization as study
from benchmarks.laws import localization as laws
from benchmarks.oracles import drift_gaps
from jaxdiff import grids, information, targets
from jaxdiff.processes import ou

NORMAL, COIN = targets.gaussian([0.0], [0.25]), targets.point_masses([[-1.0], [1.0]])
PLANE = ([0.6, 0.4], [[1.0, 0.0], [-0.5, 0.75]], [[0.05, 0.02], [0.02, 0.1]])
GRID = grids.exponential_then_uniform(2.0, 0.1, 4)


def near(draws, expected):
    """Within five standard errors."""
    assert abs(np.mean(draws) - expected) < 5 * np.std(draws, ddof=1) / np.sqrt(len(draws))


@pytest.mark.parametrize("t", [0.05, 0.4, 2.0])
def test_the_slope_of_a_normal_law_is_the_derivative_in_ou_time(t):
    lam = 1 / np.expm1(2 * t)  # V = s/(1 + lam s), dlam/dt = -2 lam (1 + lam)
    expected = 2 * lam * (1 + lam) * (0.25 / (1 + 0.25 * lam)) ** 2
    assert drift_gaps.slope_in_time(NORMAL.mmse, t) == pytest.approx(expected, rel=2e-8)  # (2t)^4 h^4/30
    assert drift_gaps.localised(t) * (0.25 / (1 + 0.25 * lam)) ** 2 == pytest.approx(expected, rel=1e-13)
    assert drift_gaps.localised(t) == pytest.approx(
        2 * np.exp(-2 * t) / (1 - np.exp(-2 * t)) ** 2, rel=1e-12
    )  # Lemma 1


def test_the_slope_of_two_points_is_the_one_by_simpson():
    y, lam = np.linspace(-14, 14, 20_001), 0.5
    q = sum(np.exp(-lam * (y - m) ** 2 / 2) for m in (-1, 1)) / 2 * np.sqrt(lam / (2 * np.pi))
    squares = np.sum(q / np.cosh(lam * y) ** 4) * (y[1] - y[0])
    assert squares == pytest.approx(0.5060554520, rel=1e-9)  # -V'(.5)
    t = ou.time(lam)
    assert drift_gaps.slope_in_time(COIN.mmse, t) == pytest.approx(drift_gaps.localised(t) * squares, rel=1e-6)


@pytest.mark.parametrize(("t", "v"), [(0.3, 0.1), (2.0, 0.5), (0.5, 0.499)])
def test_the_drift_gap_of_a_normal_law_is_the_variance_of_a_difference(t, v):
    q_v, q_t = (0.25 * np.exp(-2 * at) + 1 - np.exp(-2 * at) for at in (v, t))
    covariance = np.exp(v - t) * q_v
    expected = 1 / q_v + 1 / q_t - 2 * covariance / (q_v * q_t)
    assert drift_gaps.drift_gap(NORMAL.mmse, t, v) == pytest.approx(expected, rel=1e-10)
    assert drift_gaps.drift_rate(NORMAL.mmse, t) == pytest.approx(2 / q_t**2, rel=1e-6)


@pytest.mark.parametrize("law", [NORMAL, COIN], ids=["normal", "two points"])
def test_the_rate_is_what_the_gap_grows_with(law):
    t, h = 0.4, 1e-4
    slope = (4 * drift_gaps.drift_gap(law.mmse, t, t - h / 2) - drift_gaps.drift_gap(law.mmse, t, t - h)) / h
    assert slope == pytest.approx(drift_gaps.drift_rate(law.mmse, t), rel=1e-5)  # what is left is of order h^2 = 1e-8


def test_posterior_moments_of_two_points_are_powers_of_a_hyperbolic_secant():
    t = 0.5
    traces, squares = drift_gaps.posterior(COIN, t, 0, 20_000)
    np.testing.assert_allclose(squares, traces**2, rtol=1e-12)
    near(traces, COIN.mmse(np.array([ou.snr(t)]))[0])
    near(squares, drift_gaps.slope_in_time(COIN.mmse, t) / drift_gaps.localised(t))


def test_posterior_moments_of_a_mixture_are_those_of_a_sum_over_the_plane():
    t, (weights, means, variances) = 0.3, map(np.asarray, PLANE)
    lam = ou.snr(t)
    side = np.arange(-9, 9, 0.1)  # widths are 0.8 and more: the sum is exact to rounding
    y = np.stack(np.meshgrid(side, side), -1).reshape(-1, 1, 2)
    wide = variances + 1 / lam
    parts = weights * np.prod(np.exp(-((y - means) ** 2) / (2 * wide)) / np.sqrt(2 * np.pi * wide), axis=-1)
    q = parts.sum(1)
    share = parts / q[:, None]
    own = means + variances / wide * (y - means)
    away = own - np.einsum("nk,nkd->nd", share, own)[:, None]
    sigma = np.einsum("nk,nkd,nke->nde", share, away, away) + np.einsum(
        "nk,kd,de->nde", share, variances / (1 + lam * variances), np.eye(2)
    )
    mean = lambda values: 0.01 * np.sum(q * values)
    traces, squares = drift_gaps.posterior(targets.mixture(*PLANE), t, 0, 20_000)
    near(traces, mean(np.einsum("nii->n", sigma)))
    near(squares, mean(np.sum(sigma**2, axis=(1, 2))))


def test_a_turned_flat_law_has_the_posterior_variances_of_its_factors(key):
    law, t = laws.flat(), 0.4
    near(drift_gaps.posterior(law.target, t, 0, 4000)[0], law.curve(np.array([ou.snr(t)]))[0])
    x = np.asarray(law.target.sample(key, 20_000))
    assert np.linalg.matrix_rank(x - x.mean(0), tol=1e-4) == 4  # others: rounding of the covariance, 1e-17
    whole = float(law.curve(np.array([1e-30]))[0])
    assert whole == pytest.approx(4 * (0.3 * 0.7 * 2**2 + 0.05), rel=1e-12)
    near(np.sum((x - x.mean(0)) ** 2, axis=1), whole)


def test_forward_pairs_of_a_normal_law_drift_as_the_formula_says(key):
    draws = drift_gaps.gaps(NORMAL, 0.5, np.full(40_000, 0.2), key)
    near(draws, drift_gaps.drift_gap(NORMAL.mmse, 0.5, 0.2))
    apart = drift_gaps.gaps(NORMAL, 0.5, np.repeat([0.2, 0.45], 20_000), key)  # a time of its own for each
    near(apart[:20_000], drift_gaps.drift_gap(NORMAL.mmse, 0.5, 0.2))
    near(apart[20_000:], drift_gaps.drift_gap(NORMAL.mmse, 0.5, 0.45))


def test_z_counts_the_errors_of_both_sides():
    draws = np.tile([1.0, 3.0], 200)
    found = study.compared("x", draws, 2.5, 0.3)
    own = np.std(draws, ddof=1) / 20
    assert found["x_z"] == pytest.approx(-0.5 / np.hypot(own, 0.3), rel=1e-12)
    assert found["x_off"] == pytest.approx(-0.2, rel=1e-12)
    assert study.compared("x", np.full(400, 2.0), 2.0, 0.0)["x_z"] is None  # rounding is no standard error
    rare = np.eye(1, 10_000)[0]
    assert study.compared("x", rare, 1e-4, 0.0)["x_z"] is None  # one effective draw
    assert study.compared("x", rare, 1e-4, 0.0)["x_off"] is None


@pytest.fixture(scope="module")
def rows():
    law, key = laws.Law(COIN, COIN.mmse), jax.random.key(0)
    own = [
        *study.localisation(laws.COIN, law, 2000, (0,)),
        *study.steps(laws.COIN, law, GRID, 2000, key),
    ]
    return [*own, study.summary(laws.COIN, law, own, GRID)]


def test_a_step_costs_the_integral_of_its_drift_gap(rows):
    steps, gaps = ([row for row in rows if row["part"] == part] for part in ("step", "gap"))
    assert [row["step"] for row in steps] == [0, 1, 2, 3]
    for row in steps:
        assert row["integral"] == pytest.approx(row["cost"], rel=1e-8)
        assert abs(row["cost_z"]) < 5
    whole = information.path_kl("exponential_euler", COIN.mmse, GRID)
    assert sum(row["cost"] for row in steps) == pytest.approx(whole, rel=1e-12)
    assert sum("gap_z" in row for row in gaps) == 8  # middle and end of every step
    assert all(row["t_next"] <= row["v"] < row["t"] for row in gaps)
    assert all(abs(row["gap_z"]) < 5 for row in gaps if "gap_z" in row)


def test_the_summary_says_how_loose_the_bounds_are(rows):
    said, times = rows[-1], [row for row in rows if row["part"] == "localisation"]
    assert said["compared"] == said["within"] == sum(len(study.zs([row])) for row in rows[:-1])
    first = times[0]  # the least time, where points are known best
    assert said["trace_loosest"] == pytest.approx(min(1, 1 / first["snr"]) / first["trace"], rel=1e-12)
    assert said["loosest_t"] == pytest.approx(0.05)
    mesh = np.max([(a - b) / min(1, b) for a, b in itertools.pairwise(GRID)])
    proof = mesh * (0.5 * np.log(1 / 0.1) + 4 - 0.166) + 0.3856 * mesh**2 * 1.9
    assert said["proof"] == pytest.approx(proof, rel=1e-9)
    assert said["proof_factor"] > 1


def test_the_verdict_says_all_or_names_what_differs(rows):
    said = study.verdict(rows)
    n = len(study.zs(rows[:-1]))
    assert f"Of {n} comparisons all agree" in said
    assert "TOO LARGE" not in said
    place = next(i for i, row in enumerate(rows) if row.get("gap_z") is not None)
    broken = [*rows[:place], rows[place] | {"gap_z": -60.0}, *rows[place + 1 :]]
    said = study.verdict(broken)
    assert f"all but 1 (E_{{s,t}} on two points at t = {rows[place]['t']:.2g} (z = -60.0))" in said
    assert "TOO LARGE" in said


def test_the_figure_is_a_png(rows, tmp_path):
    study.draw(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"
