"""The study of schedules: what descent minimises against closed forms and differences; its grids, ranks, verdicts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import schedules
from benchmarks.oracles import planned_cases
from benchmarks.samplers import grid_descent as descent
from jaxdiff import grids, information, targets
from jaxdiff.processes import ou

pytestmark = pytest.mark.slow

G = grids.exponential_then_uniform(3.0, 0.01, 36, n_uniform=12)
SIGNS = targets.point_masses(np.array([[-1.0], [1.0]]))
NORMAL = targets.gaussian(np.zeros(1), np.ones(1))
C_OF_SIGNS = 0.691906265876  # I(X_0; X_.01) - I(X_0; X_3) of equally likely signs, THEORY.md 9.6


@functools.partial(jax.jit, static_argnums=0)
def total(kernel, logits, table):
    """What descends, and its gradient."""
    return jax.value_and_grad(lambda at: descent.cost(kernel, descent.nodes(at, table.ends), table))(logits)


def path_kl(kernel, curve, grid, constant):
    """By what descends."""
    value, _ = total(kernel, descent.logits_of(grid), descent.table_of(curve, grid[0], grid[-1]))
    return float(value) - constant


def gained(variance, horizon, early_stop):
    """(1/2) int V dsnr of N(0, variance), V = 1/(1/variance + snr)."""
    low, high = 1 / np.expm1(2 * np.array([horizon, early_stop]))
    return 0.5 * np.log((1 + variance * high) / (1 + variance * low))


# Numbers of THEORY.md 9.5, 9.6 and 9.11, from programs that share nothing with this; half a unit of their last digit.
@pytest.mark.parametrize(
    ("kernel", "expected"), [("exponential_euler", 0.5764563), ("ancestral", 0.0884753), ("moment_matched", 0.0529774)]
)
def test_what_descends_is_the_path_kl_of_signs(kernel, expected):
    assert path_kl(kernel, SIGNS.mmse, G, C_OF_SIGNS) == pytest.approx(expected, abs=5e-8)


@pytest.mark.parametrize(
    ("kernel", "expected"), [("exponential_euler", 1.688), ("ancestral", 0.491), ("moment_matched", 0.257)]
)
def test_what_descends_is_the_path_kl_of_signs_on_ten_log_snr_steps(kernel, expected):
    grid = schedules.NAMED["log-snr"](3.0, 0.01, 10)
    assert path_kl(kernel, SIGNS.mmse, grid, C_OF_SIGNS) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    ("kernel", "expected"), [("exponential_euler", 0.4072862032454), ("ancestral", 0.1665760199465)]
)
def test_what_descends_is_the_path_kl_of_a_normal_law(kernel, expected):
    assert path_kl(kernel, NORMAL.mmse, G, gained(1, 3, 0.01)) == pytest.approx(expected, abs=1e-11)


# The interpolation between 2,001 levels of a curve of 41 nodes: (16/2000)^4 of its derivatives, and the kinks of the
# nodes' own cubics, which lie on levels.
@pytest.mark.parametrize("kernel", schedules.SAMPLERS)
def test_what_descends_is_the_excess_of_a_learned_denoiser(kernel):
    data = np.random.default_rng(0).normal(size=(50, 3))
    denoiser = lambda x, t: 0.6 * jnp.tanh(x) * jnp.exp(-t)
    curve = information.loss_curve(denoiser, data, jax.random.key(0), horizon=5.0, early_stop=2e-3, n_nodes=41)
    grid = grids.karras(5.0, 2e-3, 7)
    constant = information.information_gain(curve, 5.0, 2e-3)
    expected = information.path_kl(kernel, curve, grid)
    assert path_kl(kernel, curve, grid, constant) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("kernel", schedules.SAMPLERS)
def test_gradients_are_those_of_differences_of_the_librarys_path_kl(kernel):
    start = grids.cosine(5.0, 1e-3, 6)
    table = descent.table_of(SIGNS.mmse, 5.0, 1e-3)
    logits, size = descent.logits_of(start), 1e-4
    _, found = total(kernel, logits, table)
    differences = []
    for step in size * np.eye(6):
        shares = [np.exp(logits + sign * step) for sign in (1, -1)]
        ways = [np.concatenate([[0], np.cumsum(share / share.sum())]) for share in shares]
        ends = [ou.time(np.exp(table.ends[0] + (table.ends[1] - table.ends[0]) * way)) for way in ways]
        up, down = (information.path_kl(kernel, SIGNS.mmse, grid) for grid in ends)
        differences.append((up - down) / (2 * size))
    scale = np.abs(differences).max()
    np.testing.assert_allclose(found, differences, rtol=0, atol=1e-6 * scale)  # size^2 times the third derivative


@pytest.mark.parametrize("method", descent.STEPS)
@pytest.mark.parametrize(("variance", "expected"), [(1.0, 0.2014254), (0.01, 0.0162303)])
def test_descent_finds_the_optimal_grid_of_a_normal_law(method, variance, expected):
    curve = targets.gaussian(np.zeros(1), np.full(1, variance)).mmse
    starts = [make(5.0, 1e-3, 50) for make in schedules.NAMED.values()]
    table = descent.table_of(curve, 5.0, 1e-3)
    ends, seconds, _ = descent.descended("ancestral", method, starts, table, gained(variance, 5, 1e-3))
    reached = [information.path_kl("ancestral", curve, grid) for grid in ends]
    assert min(reached) == pytest.approx(expected, abs=5e-8)
    assert max(reached) == pytest.approx(expected, rel=1e-3)  # one minimum, so that every start leads there
    assert seconds > 0
    assert all(grid[0] == 5.0 and grid[-1] == 1e-3 for grid in ends)


def test_descent_of_one_inner_node_ends_where_a_scan_is_least():
    inner = ou.time(np.exp(np.linspace(*np.log(ou.snr(np.array([3.0, 0.01]))), 20_001)[1:-1]))
    cost = information.step_cost("moment_matched", SIGNS.mmse)
    least = np.min(cost(np.full_like(inner, 3.0), inner) + cost(inner, np.full_like(inner, 0.01)))
    table = descent.table_of(SIGNS.mmse, 3.0, 0.01)
    starts = [make(3.0, 0.01, 2) for make in schedules.NAMED.values()]
    ends, _, _ = descent.descended("moment_matched", "adam", starts, table, C_OF_SIGNS)
    reached = min(information.path_kl("moment_matched", SIGNS.mmse, grid) for grid in ends)
    assert reached == pytest.approx(least, abs=1e-7)  # (gap of the scan)^2 times half the second derivative


# With a linear score a coordinate of variance s is multiplied and gets noise: THEORY.md 2, ancestral.
def test_the_flat_laws_end_point_is_the_recursion_of_variances():
    case, grid = planned_cases.flat("quick"), grids.cosine(5.0, 1e-3, 5)
    found, kl = case.measured("ancestral", grid)["marginal_kl"], 0.0
    for s, count in ((1.0, 8), (0.0, 248)):
        v = 1.0
        for t, t_next in itertools.pairwise(grid):
            g, (c, c_next) = t - t_next, np.exp([-t, -t_next])
            noise, noise_next, noise_step = -np.expm1(-2 * np.array([t, t_next, g]))
            gain = np.exp(-g) * noise_next / noise + c_next * noise_step / noise * c * s / (c**2 * s + noise)
            v = gain**2 * v + noise_next * noise_step / noise
        ratio = (np.exp(-2 * grid[-1]) * s - np.expm1(-2 * grid[-1])) / v
        kl += count * (ratio - 1 - np.log(ratio)) / 2
    assert found == pytest.approx(kl, rel=1e-10)
    initial = information.initial_kl(8.0, 256, 5.0)
    assert found < information.path_kl("ancestral", case.judged, grid) + initial


# Coordinates of the ring have variance 2.01: the distance of a sample from the law along a direction is about that of
# their deviation from 0 in the mean, 1.42/sqrt(n).
def test_samples_of_many_steps_are_within_twice_the_floor_and_of_five_equal_ones_are_not(monkeypatch):
    monkeypatch.setattr(planned_cases, "PARTICLES", 1000)
    monkeypatch.setattr(planned_cases, "SAMPLED", {"quick": (5, 200)})
    case = planned_cases.mixture("ring of 8", "quick")
    good = case.measured("ancestral", grids.geometric(5.0, 1e-3, 200))
    bad = case.measured("ancestral", grids.uniform(5.0, 1e-3, 5))
    assert 0 < good["sliced_w2"] < 2 * good["floor"]
    assert bad["sliced_w2"] > 2 * bad["floor"]
    assert 1.42 / np.sqrt(1000) < good["floor"] < 5 * 1.42 / np.sqrt(1000)
    assert case.measured("ancestral", grids.uniform(5.0, 1e-3, 6)) == {}


# Descent that ends where it started, but for the last start, which reaches the optimum.
def test_rows_compare_with_the_best_named_grid_and_with_the_optimal_one(monkeypatch):
    best = grids.optimal(information.step_cost("ancestral", NORMAL.mmse), 5.0, 1e-3, 5)
    descended = lambda kernel, method, starts, table, constant: ([*starts[:-1], best], 2.0, 3.0)
    monkeypatch.setattr(descent, "descended", descended)
    case = planned_cases.Case("a", NORMAL.mmse, NORMAL.mmse, lambda sampler, grid: {"marginal_kl": float(len(grid))})
    found = {row["grid"]: row for row in schedules._of_grids(case, "ancestral", 5, ("adam",))}
    of = lambda grid: information.path_kl("ancestral", NORMAL.mmse, grid)
    exact, least = {name: of(make(5.0, 1e-3, 5)) for name, make in schedules.NAMED.items()}, of(best)
    for name, value in exact.items():
        assert found[name]["path_kl"] == pytest.approx(value, rel=1e-6)  # seven digits
        assert found[name]["times_named"] == pytest.approx(value / min(exact.values()), rel=1e-6)
        assert found[name]["of_optimal"] == pytest.approx(value / least, rel=1e-6)
    assert found["optimal"]["times_named"] == pytest.approx(least / min(exact.values()), rel=1e-6)
    assert found["adam"]["of_optimal"] == pytest.approx(1, abs=1e-11)
    assert found["adam"]["worst_of_optimal"] == pytest.approx(max(list(exact.values())[:-1]) / least, rel=1e-10)
    assert [found["adam"][name] for name in ("starts", "stuck", "seconds", "compile_seconds")] == [6, 5, 2.0, 3.0]
    assert found["optimal"]["marginal_kl"] == 6
    assert "marginal_kl" not in found["adam"]


def made(ends, law="ring of 8", n=20, descended=1.0, measure="sliced_w2", floor=0.0, sampler="ancestral"):
    """Rows of one group: path KLs 2, 3, ... on the named grids and 1 on the optimal one; ends: the measure in turn."""
    names = (schedules.OPTIMAL, *schedules.NAMED)
    base = {"part": "20 steps", "law": law, "sampler": sampler, "N": n, "standard_error": 0.0, "seconds": 1.0}
    rows = [
        base
        | {"grid": name, "path_kl": (k + 1) / n, "times_named": (k + 1) / 2, "of_optimal": k + 1.0, measure: end}
        | ({"floor": floor} if measure == "sliced_w2" else {})
        | {"seconds": 1 - k / 10}
        for k, (name, end) in enumerate(zip(names, ends, strict=True))
    ]
    adam = base | {"grid": "adam", "path_kl": descended / n, "times_named": descended / 2, "of_optimal": descended}
    adam |= {"starts": 6, "stuck": 4 if descended > 1 else 0, "worst_of_optimal": descended, "seconds": 0.25}
    return [*rows, adam]


def test_ranks_of_end_points_agree_or_are_reversed_or_tie_at_the_floor():
    rank = lambda ends, floor=0.0: schedules.rankings(made(ends, floor=floor), "sliced_w2")
    key = ("ring of 8", "ancestral", 20)
    assert rank([1, 2, 3, 4, 5, 6, 7]) == {key: (pytest.approx(1.0), True)}
    assert rank([7, 6, 5, 4, 3, 2, 1]) == {key: (pytest.approx(-1.0), False)}
    # ranks 1..7 against 3.5 six times and 7: sum of products of deviations 3 * 3, over sqrt(28 * (6 * .25 + 9))
    assert rank([3, 2, 1, 1, 1, 1, 9], floor=4)[key] == (pytest.approx(10.5 / np.sqrt(28 * 10.5)), True)
    assert rank([3, 2, 1, 1, 1, 1, 2], floor=4) == {}
    assert schedules.rankings(made(range(7)), "marginal_kl") == {}


def test_verdicts_say_what_rows_say_either_way():
    good = schedules.verdict([*made(range(1, 8)), *made(range(1, 8), law="flat", measure="marginal_kl")])
    assert "(Benton in 2 of 2 cases): ancestral 0.500 to 0.500." in good
    assert "adam, best of 6 starts, is more than 0.1% above the optimal grid in 0 of 2 cases (+0.0e+00 to" in good
    assert "single starts in 0 of 12 (worst 1 times), and takes 0.25 times as long" in good
    assert "KL of the end points 1.00 in the median (1.00 to 1.00), the grid of least path KL has the least " in good
    assert good.count("of it in 1 of 1 cases") == 2
    bad = schedules.verdict(made(range(8, 1, -1), descended=1.5))
    assert "in 1 of 1 cases (+5.0e-01 to +5.0e-01), single starts in 4 of 6 (worst 1.5 times)" in bad
    assert (
        "sliced W2 -1.00 in the median (-1.00 to -1.00), the grid of least path KL has the least of it in 0 of 1" in bad
    )
    assert "l-bfgs" not in bad
    assert "KL of the end points" not in bad


def test_a_figure_is_drawn(tmp_path):
    rows = [row for n in (5, 20) for law in ("ring of 8", "digits") for row in made(range(1, 8), law=law, n=n)]
    rows += made(range(1, 8), sampler=schedules.COVARIANCE) + made(range(1, 8), law="flat", measure="marginal_kl")
    path = schedules.draw(rows, tmp_path / "schedules.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
