"""Orders of the ODE's schemes: flows against SciPy's integration, slopes of known errors, particles that stray."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import norm
from test_orders import ORDERS

from benchmarks import reverse_ode_schemes as study
from benchmarks.oracles import reverse_ode_problems as problems
from benchmarks.samplers import methods, padded_tables
from benchmarks.samplers import reverse_ode as runs
from jaxdiff import grids, kernels, targets

pytestmark = pytest.mark.slow

MEANS, VARIANCES = np.array([1.0, -0.5, 0.3, 0.0]), np.array([0.1, 0.25, 0.5, 2.0])


def noised(variance, t):
    """The variance of q_t."""
    return np.exp(-2 * t) * variance - np.expm1(-2 * t)


def integrated(score, x, delta):
    """The reverse ODE dX/dt = -X - s from time 5, by SciPy."""
    found = solve_ivp(lambda t, x: -x - score(x, t), (5.0, delta), x, method="DOP853", rtol=1e-12, atol=1e-13)
    return found.y[:, -1]


def bumps_score(x, t, variance):
    """The score of 0.3 N(-1, v) + 0.7 N(1, v) at time t, written out."""
    v, m = noised(variance, t), np.exp(-t)
    left, right = 0.3 * norm.pdf(x, -m, np.sqrt(v)), 0.7 * norm.pdf(x, m, np.sqrt(v))
    return (left * (-m - x) + right * (m - x)) / (left + right) / v


def test_the_flow_of_a_gaussian_is_the_integrated_ode():
    problem = problems.problem_of(problems.GAUSSIAN, 0.01, 8)
    score = lambda x, t: (np.exp(-t) * MEANS - x) / noised(VARIANCES, t)
    np.testing.assert_allclose(problem.end[3], integrated(score, problem.x[3], 0.01), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("law", [problems.BROAD, problems.NARROW])
def test_the_flow_on_the_line_is_the_integrated_ode(law):
    problem = problems.problem_of(law, 0.05, 8)
    some = np.array([300, 480, 600, 900, 980])  # from 1e-5 to 1 off the divide
    score = lambda x, t: bumps_score(x, t, problems.DEVIATIONS[law] ** 2)
    want = integrated(score, problem.x[some, 0], 0.05)
    np.testing.assert_allclose(problem.end[some, 0], want, rtol=1e-8, atol=1e-8)


def test_the_reference_of_a_flow_without_closed_form_states_its_error():
    law, x = targets.gaussian(MEANS, VARIANCES), problems.draws(4, problems.STARTS)
    found = problems.by_fine_steps(law, problems.STARTS, 0.01, 128)
    want = problems.gaussian_flow(MEANS, VARIANCES, x, 0.01)
    coarse, error = (
        problems.rms(found, end, want) for end in (problems.fine_end(law.score, found.x, 0.01, 64), found.end)
    )
    rounding = 1e-6 * coarse
    assert coarse - error - rounding <= found.uncertainty <= coarse + error  # the triangle inequality
    assert error < coarse / 10  # of order 4


def test_starts_on_the_line_average_as_a_standard_normal_does():
    x, weights = problems.starts_on_line(-0.4)
    x = x[:, 0]
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    assert weights @ x == pytest.approx(0, abs=1e-6)
    assert weights @ x**4 == pytest.approx(3, rel=1e-6)
    spacing = np.log(8 / 1e-13) / 511  # relative distance of two starts: a share is seen to half of it
    share = weights[(x > -0.4) & (x < -0.4 + 1e-9)].sum()
    assert share == pytest.approx(1e-9 * norm.pdf(-0.4), rel=spacing)


def test_distances_are_weighted_and_relative():
    problem = problems.Problem(None, None, np.array([0.5, 0.25, 0.25]), None)
    end = np.array([[3.0, 4.0], [0.0, 5.0], [5.0, 0.0]])  # mean square 25
    x = end + np.array([[0.0, 1.0], [2.0, 0.0], [3.0, 0.0]])
    assert problems.rms(problem, x, end) == pytest.approx(np.sqrt((0.5 + 1 + 2.25) / 25), rel=1e-14)
    far, median, strayed = problems.together(problem, [x, x], end)
    assert (far, median, strayed) == pytest.approx((np.sqrt(3.75) / 5, 0.2, 0.25), rel=1e-14)
    assert problems.rms(problem, x + np.nan, end) is None
    assert problems.together(problem, [x, x + np.nan], end) == (None, None, None)


def test_several_runs_count_by_their_mean_square():
    problem = problems.Problem(None, None, np.array([1.0]), None)
    far, median, strayed = problems.together(problem, [np.array([[1.0]]), np.array([[3.0]])], np.array([[1.0]]))
    assert (far, median, strayed) == pytest.approx((np.sqrt(2), np.sqrt(2), 0.5), rel=1e-14)


def test_a_slope_is_the_power_of_errors_that_are_one():
    n = np.array([64, 128, 256, 512])
    order, half = study.slope(n, 7.0 * n**-2.5)
    assert order == pytest.approx(2.5, rel=1e-12)
    assert half < 1e-6


def test_an_interval_of_a_slope_is_students():
    n, noise = np.array([32, 64, 128, 256, 512]), np.array([0.1, -0.2, 0.05, 0.15, -0.1])
    order, half = study.slope(n, n**-2.0 * np.exp(noise))
    fit, covariance = np.polyfit(np.log(n), 2 * np.log(n) - noise, 1, cov=True)
    assert order == pytest.approx(fit[0], rel=1e-10)
    assert half == pytest.approx(3.182446305284263 * np.sqrt(covariance[0, 0]), rel=1e-9)  # t table, 3 degrees, 97.5 %


def test_no_slope_of_one_error_and_no_interval_of_two():
    assert study.slope([8], [0.1]) == (None, None)
    assert study.slope([8, 16], [0.4, 0.1])[1] is None


def test_the_window_leaves_out_large_errors_and_those_near_the_floor():
    evals = [8, 16, 32, 64, 128, 256, 512]
    errors = [None, 0.8, 0.4 / 8, 0.4 / 64, 0.4 / 512, 0.4 / 4096, 5e-5]
    found = study.orders(evals, errors, 8e-6)  # the last error is below ten times that
    assert (found["first"], found["last"]) == (32, 256)
    assert found["order"] == pytest.approx(3, rel=1e-12)
    assert found["early"] == pytest.approx(np.log2(0.8 / (0.4 / 64)) / 2, rel=1e-12)  # of three, the ends decide
    assert found["late"] == pytest.approx(3, rel=1e-12)


def test_the_window_is_the_last_four():
    evals = [8, 16, 32, 64, 128, 256]
    errors = [0.09, 0.08, 0.02, 0.005, 0.00125, 0.0003125]
    found = study.orders(evals, errors, 1e-12)
    assert (found["first"], found["last"], found["order"]) == (32, 256, pytest.approx(2, rel=1e-12))
    assert study.orders(evals[:2], errors[:2], 1e-12)["order"] is None


def test_an_error_beyond_a_tenth_is_in_no_window():
    found = study.orders([64, 128, 256, 512], [0.5, 0.04, 0.01, 0.0025], 1e-12)
    assert (found["first"], found["order"]) == (128, pytest.approx(2, rel=1e-12))


def test_ddim_on_a_gaussian_is_its_recursion():
    problem = problems.problem_of(problems.GAUSSIAN, 1e-3, 8)
    u = np.linspace(*(np.log(np.exp(-2 * t) / -np.expm1(-2 * t)) for t in (5.0, 1e-3)), 17)
    t = np.log1p(np.exp(-u)) / 2  # snr = 1/(e^(2 t) - 1)
    x = problem.x
    for now, then in itertools.pairwise(t):
        denoised = MEANS + np.exp(-now) * VARIANCES / noised(VARIANCES, now) * (x - np.exp(-now) * MEANS)
        sigma = np.sqrt(noised(0.0, np.array([now, then])))
        x = np.exp(-then) * denoised + sigma[1] / sigma[0] * (x - np.exp(-now) * denoised)
    (found,) = runs.outputs(problem, "ddim", "log_snr")[16]
    np.testing.assert_allclose(found, x, rtol=1e-10, atol=1e-11)


def test_a_method_of_four_evaluations_takes_a_quarter_of_the_steps_and_is_of_order_four():
    problem = problems.problem_of(problems.GAUSSIAN, 1e-3, 8)
    row = study.exact_row(problem, "rk4", "log_snr")
    assert row["order"] == pytest.approx(4, abs=0.05)
    (coarse,) = runs.outputs(problem, "rk4", "log_snr")[512]
    np.testing.assert_array_equal(coarse, problems.fine_end(problem.score, problem.x, 1e-3, 128))


def test_the_share_that_strays_is_the_mass_between_the_divides():
    problem = problems.problem_of(problems.PAIR, 1e-3, 8)
    (end,) = runs.outputs(problem, "ddim", "log_snr")[32]
    low, high = -3.0, 3.0
    for _ in range(5):  # the start that ddim takes between the points
        x = np.linspace(low, high, len(problem.x))
        at = np.searchsorted(runs.outputs(problem._replace(x=x[:, None]), "ddim", "log_snr")[32][0][:, 0], 0.0)
        low, high = x[at - 1], x[at]
    divide = (problem.x[511, 0] + problem.x[512, 0]) / 2
    mass = abs(norm.cdf(low) - norm.cdf(divide))
    _, _, strayed = problems.together(problem, [end], problem.end)
    assert strayed == pytest.approx(mass, rel=np.log(8 / 1e-13) / 511)


@pytest.mark.parametrize("name", [name for name in study.DECLARED if name in ORDERS])
def test_declared_orders_are_those_the_library_is_tested_for(name):
    assert study.DECLARED[name] == ORDERS[name]


def test_every_kernel_has_a_declared_order():
    assert study.DECLARED.keys() == methods.ODE.keys()
    assert study.DECLARED.keys() - ORDERS.keys() == {"randomized_midpoint"}
    assert study.DECLARED["randomized_midpoint"] == 1.5  # strong, as its own test has it


def test_the_randomised_midpoint_runs_at_different_times():
    problem = problems.problem_of(problems.GAUSSIAN, 1e-3, 8)
    ends = runs.outputs(problem, "randomized_midpoint", "log_snr")[64]
    assert len(ends) == runs.SEEDS == len({float(end[0, 0]) for end in ends})
    kernel = kernels.randomized_midpoint(problem.score, 5)
    grid = grids.log_snr(5.0, 1e-3, 32)
    alone = padded_tables.run(kernel, grid, jnp.asarray(problem.x), draw=padded_tables.silence, most=40)
    np.testing.assert_allclose(ends[5], alone, rtol=1e-12, atol=1e-12)


def test_the_adaptive_method_pays_more_for_less_error():
    problem = problems.problem_of(problems.GAUSSIAN, 1e-3, 8)
    row = study.exact_row(problem._replace(x=problem.x[:16], end=problem.end[:16], weights=np.full(16, 1 / 16)),
                          "adaptive", "its own")  # fmt: skip
    assert row["evals"] == sorted(row["evals"])
    assert row["error"] == sorted(row["error"], reverse=True)
    assert row["error"][-1] < 1e-7
    assert row["declared"] is None


@pytest.mark.parametrize("field", problems.FIELDS)
@pytest.mark.parametrize("dim", [2, 6])
def test_a_perturbed_score_predicts_a_noise_off_by_eps_everywhere(field, dim):
    exact = lambda x, t: -x
    wrong, x = problems.perturbed(exact, dim, 0.03, field), problems.draws(dim, 50)
    for t in (4.0, 0.3, 1e-3):
        sigma = np.sqrt(noised(0.0, t))
        noise = -sigma * (wrong(jnp.asarray(x), jnp.asarray(t)) - exact(x, t))
        np.testing.assert_allclose(np.linalg.norm(noise, axis=1), 0.03, rtol=1e-11)


# A wave exp(i theta) turned by a small step moves by the step times d theta: the fields' wave numbers.
@pytest.mark.parametrize(("field", "space", "time"), [("smooth", 1, 0.5), ("rough in time", 1, 40),
                                                      ("rough in space", 30, 0.5)])  # fmt: skip
def test_fields_turn_as_fast_as_they_say(field, space, time):
    score = problems.perturbed(lambda x, t: 0 * x, 2, 1.0, field)
    wave = lambda x, u: np.asarray(-np.sqrt(1 / (1 + np.exp(u))) * score(x, jnp.asarray(np.log1p(np.exp(-u)) / 2)))
    x, h = problems.draws(2, 4), 1e-5
    by_x = np.stack([(wave(x + h * unit, 0.7) - wave(x - h * unit, 0.7)) / (2 * h) for unit in np.eye(2)])
    np.testing.assert_allclose(np.linalg.norm(by_x, axis=(0, 2)), space, rtol=1e-6)  # gradient of the phase
    by_u = np.linalg.norm(wave(x, 0.7 + h) - wave(x, 0.7 - h), axis=1) / (2 * h)
    assert (by_u >= time / 2 * (1 - 1e-6)).all()
    assert (by_u <= time).all()


def test_the_floor_is_reached_from_where_errors_stay_within_a_tenth():
    assert study.reached([8, 16, 32, 64], [0.105, 0.5, 0.109, 0.1], 0.1) == 32
    assert study.reached([8, 16], [0.1, 0.112], 0.1) is None
    assert study.reached([8, 16], [None, 0.05], 0.1) == 16


def test_a_perturbed_row_tells_the_two_flows_apart():
    problem = problems.problem_of(problems.GAUSSIAN, 1e-3, 8)
    (row,) = study.perturbed_rows(problem, 0.1, "smooth", "quick", ["dpm_solver 2"])
    assert row["order"] == pytest.approx(2, abs=0.05)  # towards its own flow
    assert row["error"][-1] == pytest.approx(row["floor"], rel=1e-3)
    rows = (study.perturbed_rows(problem, eps, "smooth", "quick", ["dpm_solver 2"]) for eps in (1e-3, 1e-5))
    floors = [row["floor"] for (row,) in rows]
    assert floors[0] / floors[1] == pytest.approx(100, rel=2e-3)  # of first order in eps


def exact(kernel, law, kind, order, error, **more):
    row = {"part": "exact", "law": law, "kind": kind, "early_stop": 1e-3, "grid": "log_snr", "kernel": kernel}
    row |= {"declared": study.DECLARED[kernel], "order": order, "evals": [8, 32, 512], "error": [1.0, error, error / 9]}
    return row | {"early": 1.0, "late": 1.5, "median_order": order, "strayed_order": order} | more


def shaken(kernel, field, reached):
    row = {"part": "perturbed", "law": "gaussian", "eps": 1e-2, "field": field, "kernel": kernel, "floor": 0.02}
    return row | {"reached": reached, "evals": [8, 32, 512], "error": [1.0, 0.1, 0.02]}


def some_rows(order, points, reached):
    rows = [exact("ddim", "2 broad bumps", "smooth", 1.0, 0.1), exact("heun", "2 broad bumps", "smooth", order, 0.2)]
    rows += [exact("ddim", "2 points", "rough", points, 0.3), exact("heun", "2 points", "rough", 2 * points, 0.1)]
    fields = problems.FIELDS
    return rows + [shaken(name, field, reached) for name in ("ddim", "heun") for field in fields]


def test_the_verdict_counts_orders_reached():
    assert "2 of 2 orders are within 0.2 of the declared, 2 of 2 kernels" in study.verdict(some_rows(1.85, 0.5, 32))
    missed = study.verdict(some_rows(1.7, 0.5, 32))
    assert "1 of 2 orders" in missed
    assert "heun 1.70 for 2 on 2 broad bumps" in missed


def test_the_verdict_says_what_rough_laws_do():
    assert "the rms has 0.50 times the declared order" in study.verdict(some_rows(2.0, 0.5, 32))
    later = exact("heun", "2 points", "rough", 1.9, 0.1, early_stop=0.05)
    assert "stopped at 0.05 0.95 times" in study.verdict([*some_rows(2.0, 0.5, 32), later])
    kept = study.verdict(some_rows(2.0, 1.0, 32))
    assert "the rms has 1.00 times" in kept
    assert "1.00 up to 64 evaluations and 1.50 from 128" in kept
    nothing = study.verdict([row | {"order": None} if row["part"] == "exact" else row for row in some_rows(2, 1, 8)])
    assert "0 of 0" in nothing
    assert "no fitted order" in nothing


def test_the_verdict_names_the_best_kernels():
    assert "smooth ddim at 0.1, rough heun at 0.1" in study.verdict(some_rows(2.0, 0.5, 32))
    worse = [row | {"error": [1.0, None, None]} if row["kernel"] == "heun" else row for row in some_rows(2, 1, 32)]
    assert "rough ddim at 0.3" in study.verdict(worse)


def test_the_verdict_says_whether_the_floor_is_met():
    assert "smooth (floor 0.02): from 32 ddim and heun, ddim from 32, 2 of 2" in study.verdict(some_rows(2.0, 0.5, 32))
    later = [row | {"reached": 512} if row["kernel"] == "ddim" else row for row in some_rows(2.0, 0.5, 32)]
    assert "smooth (floor 0.02): from 32 heun, ddim from 512, 2 of 2" in study.verdict(later)
    assert "smooth (floor 0.02): no kernel, ddim not by the last, 0 of 2" in study.verdict(some_rows(2.0, 0.5, None))


def test_the_figure_is_drawn(tmp_path):
    rows = some_rows(2.0, 0.5, 32) + [exact("rk4", law, "rough", 2.0, 0.1) for law in ("2 points", "2 broad bumps")]
    path = study.draw(rows, tmp_path / "figure.png")
    assert path.read_bytes().startswith(b"\x89PNG")
