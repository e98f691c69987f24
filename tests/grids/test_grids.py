"""Grids: their ends, their defining properties, the best one against every subset, and what is refused."""

from itertools import combinations, pairwise

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxdiff import grids, processes
from jaxdiff.grids import polishing, shortest_path

OPTIMAL = lambda horizon, stop, n: grids.optimal(lambda t, s: (t - s) ** 2, horizon, stop, n, n_candidates=60)
FLOW = lambda *request: grids.uniform(*request, process=processes.flow)
ALL = [
    *(grids.uniform, grids.exponential_then_uniform, grids.log_snr, grids.karras, grids.cosine, grids.geometric),
    *(FLOW, OPTIMAL),
]
NAMES = ["uniform", "exponential_then_uniform", "log_snr", "karras", "cosine", "geometric", "flow", "optimal"]
ENDS = [(5.0, 1e-3), (0.9, 1e-8), (3.0, 1.0), (7.0, 2.0), (17.0, 0.3)]


@pytest.mark.parametrize("make", ALL, ids=NAMES)
@pytest.mark.parametrize("n_steps", [1, 2, 7])
@pytest.mark.parametrize(("horizon", "early_stop"), ENDS)
def test_a_grid_decreases_in_n_steps_between_its_exact_ends(make, n_steps, horizon, early_stop):
    grid = make(horizon, early_stop, n_steps)
    assert (grid.dtype, grid.shape) == (np.float64, (n_steps + 1,))
    assert (grid[0], grid[-1]) == (horizon, early_stop)
    assert (np.diff(grid) < 0).all()


def test_uniform_steps_are_equal_and_log_snr_ratios_are_equal():
    np.testing.assert_allclose(-np.diff(grids.uniform(4.0, 0.5, 10)), 0.35, rtol=1e-12)
    growth = np.expm1(2 * grids.log_snr(6.0, 1e-6, 10))  # 1/snr
    np.testing.assert_allclose(growth[:-1] / growth[1:], (np.expm1(12) / np.expm1(2e-6)) ** 0.1, rtol=1e-10)


def test_grids_of_other_clocks_have_equal_steps_there():
    grid = grids.cosine(3.0, 1e-4, 9)  # alpha^2 = cos((t + s)/(1 + s) pi/2)^2/cos(s/(1 + s) pi/2)^2, s = .008
    own = np.arccos(np.exp(-grid) * np.cos(0.008 / 1.008 * np.pi / 2)) * 2 / np.pi * 1.008
    np.testing.assert_allclose(np.diff(own), (own[-1] - own[0]) / 9, rtol=1e-9)
    grid = FLOW(3.0, 0.01, 5)  # alpha/sigma = (1 - t)/t
    own = 1 / (1 + np.exp(-grid) / np.sqrt(1 - np.exp(-2 * grid)))
    np.testing.assert_allclose(np.diff(own), (own[-1] - own[0]) / 5, rtol=1e-11)
    np.testing.assert_allclose(grids.geometric(8.0, 0.5, 4), [8, 4, 2, 1, 0.5], rtol=1e-14)


@pytest.mark.parametrize(
    ("horizon", "n_steps", "n_uniform", "kappa"),
    [
        (5.0, 200, None, 1000 ** (1 / 100) - 1),  # .0715193...: THEORY.md section 9, item 9
        (5.0, 201, None, 1000 ** (1 / 101) - 1),  # the odd step is geometric
        (5.0, 200, 20, 0.2),
        (1.0, 50, None, 1000 ** (1 / 50) - 1),
        (0.5, 50, 10, 500 ** (1 / 50) - 1),
    ],
)
def test_bentons_grid_has_its_kappa(horizon, n_steps, n_uniform, kappa):
    grid = grids.exponential_then_uniform(horizon, 1e-3, n_steps, n_uniform=n_uniform)
    ratio = -np.diff(grid) / np.minimum(1, grid[1:])
    assert ratio.max() == pytest.approx(kappa, rel=1e-10)


def test_bentons_grid_is_uniform_above_one_and_geometric_below():
    grid = grids.exponential_then_uniform(3.0, 0.01, 36, n_uniform=12)
    np.testing.assert_allclose(grid[:13], 3 - np.arange(13) / 6, rtol=1e-14)
    np.testing.assert_allclose(grid[12:], 100.0 ** (-np.arange(25) / 24), rtol=1e-13)
    geometric = grids.exponential_then_uniform(4.0, 0.25, 4, n_uniform=0)
    np.testing.assert_allclose(geometric, [4, 2, 1, 0.5, 0.25], rtol=1e-13)
    above = grids.exponential_then_uniform(3.0, 1.0, 4, n_uniform=1)
    np.testing.assert_allclose(above, [3, 2.5, 2, 1.5, 1], rtol=1e-14)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4])
@pytest.mark.parametrize("least", [0.1, -1.0, -3.0])
def test_the_optimal_grid_costs_least_among_all_subsets(n_steps, least):
    candidates = grids.log_snr(3.0, 0.01, 11)
    table = np.random.default_rng(n_steps).uniform(least, least + 2, (12, 12))
    index = lambda t: np.searchsorted(-candidates, -t)
    cost = lambda path: sum(table[i, j] for i, j in pairwise(path))
    every = [((0, *middle, 11) for middle in combinations(range(1, 11), n - 1)) for n in range(1, n_steps + 1)]
    best = [min(paths, key=cost) for paths in every]
    step_cost = lambda t, s: table[index(t), index(s)]
    options = {"n_candidates": 12, "polish": False}
    grid = grids.optimal(step_cost, 3.0, 0.01, n_steps, **options)
    np.testing.assert_array_equal(grid, candidates[list(best[-1])])
    reached = [cost(path) for path in best]
    np.testing.assert_allclose(grids.frontier(step_cost, 3.0, 0.01, n_steps, n_candidates=12), reached, rtol=1e-12)
    for budget in (*reached, min(reached) - 1e-6):
        enough = [path for path, total in zip(best, reached, strict=True) if total <= budget + 1e-9]
        grid = grids.fewest(step_cost, 3.0, 0.01, budget + 1e-9, most=n_steps, **options)
        assert (grid is None) == (not enough)
        np.testing.assert_array_equal(grid, candidates[list(enough[0])] if enough else None)


# Of steps from u_0 to u_3 in log snr: each costs its squared length, and a node what a wave of it says. There are many
# local minima, and Newton's method takes steps that do not pay.
ENDS_OF_WAVES = np.log(processes.ou.snr(np.array([3.0, 0.01])))
WAVES = lambda u: 3 * np.sin(2.3 * u) + np.cos(5 * u)


@pytest.mark.parametrize("constant", [0.0, -20.0])
def test_steps_that_do_not_pay_leave_the_optimum_that_brute_force_finds_and_ask_for_no_derivative_twice(
    constant, monkeypatch
):
    asked, tried = [], []

    def step_cost(t, s):
        u, v = (np.log(processes.ou.snr(np.asarray(one))) for one in (t, s))
        return (v - u) ** 2 / 4 + WAVES(v) + constant

    derivatives, total = polishing._derivatives, shortest_path.Problem.total
    keep = lambda problem, u, free, stencil: asked.append((stencil, *u)) or derivatives(problem, u, free, stencil)
    monkeypatch.setattr(polishing, "_derivatives", keep)
    monkeypatch.setattr(shortest_path.Problem, "total", lambda problem, grid: tried.append(0) or total(problem, grid))
    grid = grids.optimal(step_cost, 3.0, 0.01, 3, n_candidates=9)
    assert len(tried) > len(asked) + 8  # a trial for every derivative, a few totals beside, and those that did not pay
    assert len(set(asked)) == len(asked)

    first, last = ENDS_OF_WAVES
    value = lambda a, b: ((a - first) ** 2 + (b - a) ** 2 + (last - b) ** 2) / 4 + WAVES(a) + WAVES(b) + WAVES(last)
    nodes = np.log(processes.ou.snr(grid[1:-1]))
    local = optimize.minimize(lambda x: value(*x), nodes, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    np.testing.assert_allclose(nodes, local.x, atol=1e-4)
    assert step_cost(grid[:-1], grid[1:]).sum() == pytest.approx(local.fun + 3 * constant, abs=1e-8)
    a, b = np.meshgrid(*[np.linspace(first, last, 1500)] * 2, indexing="ij")
    assert value(*nodes) <= np.where(a < b, value(a, b), np.inf).min() + 1e-12


def test_the_optimal_grid_of_a_cost_in_log_snr_has_equal_steps_in_it():
    log_snr = lambda t: -np.log(np.expm1(2 * t))
    for n_candidates in (61, 50):  # the nodes are among the candidates, and not
        grid = grids.optimal(lambda t, s: (log_snr(s) - log_snr(t)) ** 2, 4.0, 0.01, 6, n_candidates=n_candidates)
        np.testing.assert_allclose(grid, grids.log_snr(4.0, 0.01, 6), rtol=1e-6)


# Ancestral sampling of N(0, I) costs (d/2)(r - 1 - log r) a step, r = (1 + snr_next)/(1 + snr), convex in log r: the
# best grid is geometric in 1 + snr.
SPAN = lambda horizon, stop: np.log((1 + 1 / np.expm1(2 * stop)) / (1 + 1 / np.expm1(2 * horizon)))
COST = lambda t, s: np.expm1(SPAN(t, s)) / 2 - SPAN(t, s) / 2
BEST = lambda horizon, stop, n: n / 2 * (np.expm1(SPAN(horizon, stop) / n) - SPAN(horizon, stop) / n)


@pytest.mark.parametrize("n_steps", [2, 7, 50, 256, 257, 1000, 4001])
def test_the_optimal_grid_reaches_the_closed_form_optimum_at_any_number_of_steps(n_steps):
    grid = grids.optimal(COST, 5.0, 1e-3, n_steps)
    assert grid.shape == (n_steps + 1,)
    assert COST(grid[:-1], grid[1:]).sum() == pytest.approx(BEST(5.0, 1e-3, n_steps), rel=1e-6)


def test_more_steps_than_candidates_are_refined_from_fewer():
    grid = grids.optimal(COST, 5.0, 1e-3, 40, n_candidates=24)
    assert COST(grid[:-1], grid[1:]).sum() == pytest.approx(BEST(5.0, 1e-3, 40), rel=1e-6)


@pytest.mark.parametrize("budget", [4.0, 0.5, 0.03, 0.004])
def test_the_fewest_steps_are_those_of_the_closed_form(budget):
    grid = grids.fewest(COST, 5.0, 1e-3, budget)
    n = len(grid) - 1
    assert BEST(5.0, 1e-3, n) <= budget < BEST(5.0, 1e-3, n - 1)
    assert COST(grid[:-1], grid[1:]).sum() <= budget


def test_candidates_around_a_grid_have_its_density_and_find_better_ones():
    coarse = grids.optimal(COST, 4.0, 1e-3, 12, n_candidates=60, polish=False)
    again = grids.optimal(COST, 4.0, 1e-3, 12, n_candidates=121, polish=False, around=coarse)
    best = grids.optimal(COST, 4.0, 1e-3, 12)
    of = lambda grid: np.sum(COST(grid[:-1], grid[1:]))
    assert of(best) <= of(again) < of(coarse)
    assert of(again) - of(best) < 0.3 * (of(coarse) - of(best))
    np.testing.assert_allclose(again[[0, -1]], [4.0, 1e-3], rtol=1e-15)


def test_one_step_is_the_fewest_and_too_few_are_none():
    np.testing.assert_array_equal(grids.fewest(COST, 5.0, 1e-3, 1e9), [5.0, 1e-3])
    n = next(n for n in range(1, 100) if BEST(5.0, 1e-3, n) <= 0.5)
    assert grids.fewest(COST, 5.0, 1e-3, 0.5, most=n - 1) is None
    assert len(grids.fewest(COST, 5.0, 1e-3, 0.5, most=n)) == n + 1
    assert grids.fewest(COST, 5.0, 1e-3, 0.0, most=600) is None


def test_the_frontier_is_that_of_the_closed_form():
    found = grids.frontier(COST, 5.0, 1e-3, 100)
    best = np.array([BEST(5.0, 1e-3, n) for n in range(1, 101)])
    assert (found >= best * (1 - 1e-12)).all()
    np.testing.assert_allclose(found[:30], best[:30], rtol=1e-3)
    np.testing.assert_allclose(found, best, rtol=1e-2)


@pytest.mark.parametrize("weight", [1.0, 30.0, 1000.0])
def test_a_free_start_is_the_best_of_all_horizons(weight):
    start_cost = lambda t: weight * np.exp(-2 * t)
    grid = grids.optimal(COST, 8.0, 1e-2, 6, start_cost=start_cost)
    total = lambda horizon: start_cost(horizon) + BEST(horizon, 1e-2, 6)
    every = np.geomspace(0.0101, 8.0, 20_000)
    best = every[np.argmin([total(horizon) for horizon in every])]
    assert grid[0] == pytest.approx(best, rel=0.01)
    assert start_cost(grid[0]) + COST(grid[:-1], grid[1:]).sum() == pytest.approx(total(best), rel=1e-6)
    found = grids.fewest(COST, 8.0, 1e-2, total(best) * 1.0001, start_cost=start_cost)
    assert len(found) == 7


def test_the_optimal_grid_is_no_worse_than_a_descent_through_the_same_cost_nor_than_named_grids():
    wavy = lambda t: np.log(np.expm1(2 * t)) + 0.9 * np.sin(np.log(np.expm1(2 * t)))  # many local minima
    cost = lambda t, s: np.expm1(wavy(t) - wavy(s)) ** 2 + 1e-3
    for n in (3, 10, 40):
        ours = grids.optimal(cost, 5.0, 1e-3, n)
        total = lambda grid: float(cost(grid[:-1], grid[1:]).sum())
        for make in (grids.exponential_then_uniform, grids.karras, grids.log_snr, grids.uniform):
            assert total(ours) <= total(make(5.0, 1e-3, n))
        assert total(ours) <= _descended(total, grids.log_snr(5.0, 1e-3, n)) * (1 + 1e-7)
        assert total(ours) <= _descended(total, grids.exponential_then_uniform(5.0, 1e-3, n)) * (1 + 1e-7)


def _descended(total, grid):
    """The cost after L-BFGS over the logarithms of the gaps in log snr."""
    u = np.log(1 / np.expm1(2 * grid))

    def place(raw):
        share = np.exp(raw - raw.max())
        inner = u[0] + (u[-1] - u[0]) * np.cumsum(share / share.sum())[:-1]
        return np.concatenate([grid[:1], np.log1p(np.exp(-inner)) / 2, grid[-1:]])

    return optimize.minimize(lambda raw: total(place(raw)), np.log(np.diff(u)), method="L-BFGS-B").fun


def test_a_cost_that_is_nan_off_the_candidates_is_not_followed_there():
    candidates = grids.log_snr(3.0, 0.01, 60)
    near = lambda t: np.abs(t[..., None] - candidates).min(-1) < 1e-12
    cost = lambda t, s: np.where(near(t) & near(s), (t - s) ** 2, np.nan)
    grid = grids.optimal(cost, 3.0, 0.01, 5, n_candidates=61)
    assert near(grid).all()


def test_karras_grid_is_equidistant_in_a_root_of_the_noise_level():
    grid = grids.karras(4.0, 1e-3, 9, rho=5.0)
    root = np.sqrt(np.expm1(2 * grid)) ** (1 / 5)
    np.testing.assert_allclose(np.diff(root), (root[-1] - root[0]) / 9, rtol=1e-11)
    with pytest.raises(ValueError, match="rho = -1"):
        grids.karras(4.0, 1e-3, 9, rho=-1)


def test_the_optimal_grid_refuses_a_cost_that_is_not_a_number():
    with pytest.raises(ValueError, match="nan"):
        grids.optimal(lambda t, s: np.where(t > 1, np.nan, t - s), 2.0, 0.1, 3, n_candidates=8)


def test_the_optimal_grid_refuses_a_cost_that_no_path_can_pay():
    with pytest.raises(ValueError, match="no grid of 3 steps has a finite cost"):
        grids.optimal(lambda t, t_next: np.where(t - t_next > 1, 1.0, np.inf), 3.0, 0.1, 3, n_candidates=50)


def test_the_optimal_grid_needs_more_candidates_than_steps():
    with pytest.raises(ValueError, match=r"12 steps .*n_candidates = 12"):
        grids.optimal(lambda t, s: t - s, 3.0, 0.01, 12, n_candidates=12, polish=False)
    every = grids.optimal(lambda t, s: t - s, 3.0, 0.01, 11, n_candidates=12, polish=False)
    np.testing.assert_array_equal(every, grids.log_snr(3.0, 0.01, 11))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([3, 2, 2.5, 1], r"grid\[1\] = 2 <= grid\[2\] = 2.5"),
        ([3, 2, 2, 1], r"grid\[1\] = 2 <= grid\[2\] = 2\."),
        ([1, 0.5, 0], r"grid\[2\] = 0"),
        ([1, 0.5, -0.25], r"grid\[2\] = -0.25"),
        ([np.inf, 1], r"grid\[0\] = inf"),
        ([3, np.nan, 1], r"grid\[1\] = nan"),
        ([[3, 2], [1, 0.5]], r"shape \(2, 2\)"),
        ([1], r"shape \(1,\)"),
        (1.0, r"shape \(\)"),
    ],
)
def test_what_is_no_grid_is_refused_by_its_entry(grid, message):
    with pytest.raises(ValueError, match=message):
        grids.check_grid(grid)
    if not (np.ndim(grid) == 1 and grid[-1] == 0):
        with pytest.raises(ValueError, match=message):
            grids.check_grid(grid, own_clock=True)


def test_a_checked_grid_is_float64_and_may_end_at_zero_on_its_own_clock():
    grid = grids.check_grid([2, 1, 0], own_clock=True)
    assert grid.dtype == np.float64
    np.testing.assert_array_equal(grid, [2, 1, 0])


@pytest.mark.parametrize("make", ALL, ids=NAMES)
@pytest.mark.parametrize(
    ("horizon", "early_stop", "n_steps", "message"),
    [
        (3.0, 0.1, 0, "n_steps = 0"),
        (3.0, 0.1, 1.5, "n_steps = 1.5"),
        (3.0, 0.0, 4, "early_stop = 0"),
        (3.0, -0.1, 4, "early_stop = -0.1"),
        (3.0, np.nan, 4, "early_stop = nan"),
        (3.0, np.inf, 4, "early_stop = inf"),
        (1.0, 1.0, 4, "early_stop = 1, horizon = 1"),
        (0.5, 1.0, 4, "early_stop = 1, horizon = 0.5"),
        (np.inf, 1.0, 4, "horizon = inf"),
        (np.nan, 1.0, 4, "horizon = nan"),
        (400.0, 1.0, 4, "horizon = 400"),
        (3.0, 1e-30, 4, "early_stop = 1e-30"),
        (3.0, 0.1, 10.0, "n_steps = 10.0"),
        (3.0, 0.1, np.nan, "n_steps = nan"),
        (3.0, 0.1, True, "n_steps = True"),
    ],
)
def test_impossible_ends_are_refused_by_value(make, horizon, early_stop, n_steps, message):
    with pytest.raises(ValueError, match=message):
        make(horizon, early_stop, n_steps)


@pytest.mark.parametrize(("n_uniform", "message"), [(-1, "n_uniform = -1"), (5, "n_uniform = 5"), (4, "no step for")])
def test_impossible_splits_of_bentons_grid_are_refused(n_uniform, message):
    with pytest.raises(ValueError, match=message):
        grids.exponential_then_uniform(3.0, 0.1, 4, n_uniform=n_uniform)


@pytest.mark.parametrize("n_steps", [2, 3, 4])
@pytest.mark.parametrize("longest", [1.5, 1.7])
def test_the_optimal_grid_of_short_steps_costs_least_among_all_subsets_that_have_them(n_steps, longest):
    ladder = np.linspace(3.0, 0.01, 3)[1:-1]  # two steps of 1.495 are the fewest
    candidates = np.sort(np.concatenate([grids.log_snr(3.0, 0.01, 11), ladder]))[::-1]
    table = np.random.default_rng(n_steps).uniform(0.1, 1, (13, 13))
    index = lambda t: np.searchsorted(-candidates, -t)
    paths = ((0, *middle, 12) for middle in combinations(range(1, 12), n_steps - 1))
    allowed = [path for path in paths if -np.diff(candidates[list(path)]).min() <= longest]
    best = min(allowed, key=lambda path: sum(table[i, j] for i, j in pairwise(path)))
    step_cost = lambda t, s: table[index(t), index(s)]
    options = {"n_candidates": 12, "polish": False, "longest": longest}
    np.testing.assert_array_equal(grids.optimal(step_cost, 3.0, 0.01, n_steps, **options), candidates[list(best)])


# A cost that is least for one long step and many short ones: polishing would go beyond the limit.
@pytest.mark.parametrize("n_steps", [5, 9, 40])
def test_polished_grids_and_the_fewest_steps_keep_to_the_longest(n_steps):
    cost = lambda t, s: np.sqrt(t - s)
    free = lambda t: 1e-3 * np.exp(-t)
    for start_cost in (None, free):
        grid = grids.optimal(cost, 9.0, 0.01, n_steps, n_candidates=100, start_cost=start_cost, longest=2.0)
        assert len(grid) == n_steps + 1
        assert -np.diff(grid).min() <= 2.0
    grid = grids.fewest(cost, 9.0, 0.01, 1e9, n_candidates=100, longest=2.0)
    assert len(grid) == 6
    assert -np.diff(grid).min() <= 2.0
    for make in (
        grids.optimal,
        lambda cost, *ends_and_n, **more: grids.fewest(cost, *ends_and_n[:2], 1e9, most=ends_and_n[2], **more),
    ):
        with pytest.raises(ValueError, match=r"4 steps from horizon 9 to 0\.01 are too few.* Take 5 steps or more"):
            make(cost, 9.0, 0.01, 4, n_candidates=100, longest=2.0)


def test_the_longest_step_leaves_a_thousandth_of_rounding():
    for dtype, eps in ((np.float32, 2.0**-23), (np.float64, 2.0**-52)):
        assert np.exp(grids.longest_step(dtype)) * eps == pytest.approx(1e-3, rel=1e-12)
    assert grids.longest_step(jnp.bfloat16) == grids.longest_step(np.float16) == np.inf
    assert grids.runs_in_float32([9.1, 0.1])
    assert not grids.runs_in_float32(np.array([9.2, 0.1, 0.01]))
    assert not grids.runs_in_float32([20.0, 19.0, 0.1])
