"""plan: budget and accuracy invert each other, nothing cheaper is found by searching, bad requests are refused."""

import dataclasses
import functools
import json
import re

import jax
import numpy as np
import oracles
import pytest
from scipy import optimize

from jaxdiff import grids, information, kernels, noise, plan, sample, targets
from jaxdiff.certificate import Certificate, Term
from jaxdiff.curves import loss_curve, measured_curve
from jaxdiff.guarantees.bounds import any_grid
from jaxdiff.guarantees.certify import certify
from jaxdiff.guarantees.step_cost import cost_of
from jaxdiff.planning.alternatives import _steps_of_euler
from jaxdiff.planning.best_grid import best
from jaxdiff.planning.directions import _saved_by_directions, doubt_of_directions
from jaxdiff.planning.goal import steps_to_reach
from jaxdiff.processes import denoiser_from_score

COIN = targets.point_masses([[-1.0], [1.0]])
WIDE = targets.gaussian(np.zeros(3), [0.01, 0.3, 2.0])
STANDARD = targets.gaussian([0.0], [1.0])


@pytest.fixture
def no_alternatives(monkeypatch):
    """Plans without the kernels and grids that they are compared with, which take longer than the plan itself."""
    monkeypatch.setattr("jaxdiff.planning.plan.alternatives_to", lambda *_: ())


@pytest.fixture
def few_candidates(monkeypatch):
    """A grid is searched for among 200 times. It is polished, so that more would hardly change it."""
    monkeypatch.setattr("jaxdiff.planning.best_grid.CANDIDATES", 200)


@pytest.mark.usefixtures("no_alternatives", "few_candidates")
@pytest.mark.parametrize(("law", "kernel"), [(COIN, None), (WIDE, "ancestral"), (COIN, "exponential_euler")])
def test_plan_for_an_accuracy_reaches_it_and_one_evaluation_less_does_not(law, kernel):
    made = plan(0.2, 1e-2, target=law, kernel=kernel)
    assert 0.1 < made.predicted_kl <= 0.2
    assert plan(evals=made.evals - 1, early_stop=1e-2, target=law, kernel=kernel).predicted_kl > 0.2
    assert made.grid[0] == made.horizon
    assert made.grid[-1] == 1e-2
    assert len(made.grid) == made.evals + 1


# Ancestral sampling of N(0, v): closed forms of initialisation and discretisation, over every horizon.
@pytest.mark.usefixtures("no_alternatives")
@pytest.mark.parametrize(
    ("variance", "target_kl"), [(0.02, 1.0), (0.02, 0.03), (0.5, 0.05), (0.5, 0.005), (6.0, 1.0), (6.0, 0.03)]
)
def test_the_plan_takes_the_fewest_steps_of_the_closed_form_over_all_horizons(variance, target_kl):
    horizons, n = np.geomspace(1.01e-3, 12, 4000), np.arange(1, 2000)[:, None]
    span = np.log1p(variance / np.expm1(2e-3)) - np.log1p(variance / np.expm1(2 * horizons))
    discretisation = n / 2 * (np.expm1(span / n) - span / n)
    start = oracles.gaussian_kl(0.0, 1 + np.exp(-2 * horizons) * (variance - 1), 0.0, 1.0)
    fewest = int(n[np.argmax((start + discretisation).min(1) <= target_kl), 0])
    law = targets.gaussian([0.0], [variance])
    assert plan(target_kl, 1e-3, target=law, kernel="ancestral").evals == fewest


@pytest.mark.usefixtures("no_alternatives", "few_candidates")
def test_a_search_by_descent_over_horizon_and_nodes_finds_no_cheaper_plan():
    made = plan(0.1, 1e-2, target=COIN)
    n = int(made.evals / 1.1)
    gain = lambda t: information.mutual_information(COIN.mmse, t)

    def total(raw):
        gaps = np.exp(np.clip(raw, -20, 5))
        grid = 1e-2 * np.exp(np.concatenate([np.cumsum(gaps)[::-1], [0.0]]))
        start = information.initial_kl(1.0, 1, grid[0]) - gain(grid[0])
        return start + information.path_kl("moment_matched", COIN.mmse, grid)

    rng = np.random.default_rng(0)
    starts = [np.log(np.full(n, np.log(horizon / 1e-2) / n)) for horizon in (0.3, 1.0, 4.0)]
    starts += [starts[0] + 0.3 * rng.standard_normal(n)]
    assert min(optimize.minimize(total, raw, method="L-BFGS-B").fun for raw in starts) > 0.1


@pytest.mark.usefixtures("no_alternatives", "few_candidates")
def test_plan_for_a_budget_is_no_worse_than_named_grids_at_any_horizon():
    made = plan(evals=12, early_stop=1e-2, target=COIN)
    for horizon in (0.2, 0.5, 1.0, 3.0, 6.0):
        start = information.initial_kl(1.0, 1, horizon) - information.mutual_information(COIN.mmse, horizon)
        for other in (grids.exponential_then_uniform, grids.log_snr, grids.uniform, grids.karras):
            reached = information.path_kl(made.kernel, COIN.mmse, other(horizon, 1e-2, 12))
            assert made.predicted_kl <= start + reached


@pytest.mark.usefixtures("no_alternatives")
def test_a_given_horizon_is_kept():
    made = plan(evals=12, early_stop=1e-2, target=COIN, horizon=3.0)
    assert made.horizon == made.grid[0] == 3.0
    reached = information.path_kl(made.kernel, COIN.mmse, made.grid)
    start = information.initial_kl(1.0, 1, 3.0) - information.mutual_information(COIN.mmse, 3.0)
    assert made.predicted_kl == pytest.approx(start + reached, rel=1e-9)


@pytest.mark.usefixtures("few_candidates")
def test_last_alternative_is_exponential_euler_as_good_as_the_plan_and_one_step_less_is_not():
    made = plan(evals=6, early_stop=1e-2, target=COIN, horizon=3.0)
    last, reached = made.alternatives[-1], made.certificate["discretisation"].value
    assert (last["kernel"], last["grid"]) == ("exponential_euler", "exponential_then_uniform")
    cost = lambda n: information.path_kl("exponential_euler", COIN.mmse, grids.exponential_then_uniform(3.0, 1e-2, n))
    assert last["path_kl"] == cost(last["evals"]) <= reached < cost(last["evals"] - 1)


@pytest.mark.usefixtures("few_candidates")
def test_alternatives_at_equal_evaluations_are_no_better_but_for_covariance_matching():
    made = plan(evals=8, early_stop=1e-2, target=COIN)
    reached = made.certificate["discretisation"].value
    rows = {(row["kernel"], row["grid"]): row for row in made.alternatives if row["evals"] == 8}
    better = rows.pop(("covariance_matched", "optimal"))
    assert better["path_kl"] < reached
    assert len(rows) == 4
    assert all(row["path_kl"] >= reached for row in rows.values())
    other = plan(evals=8, early_stop=1e-2, target=COIN, kernel="covariance_matched")
    assert other.kernel == "covariance_matched"
    assert other.predicted_kl < made.predicted_kl


@pytest.mark.usefixtures("no_alternatives", "few_candidates")
def test_a_gaussian_takes_one_evaluation_in_its_own_basis_and_the_run_has_its_law():
    cov = np.array([[1.0, 0.6], [0.6, 0.5]])
    law = targets.gaussian([1.0, -0.5], cov)
    made = plan(1e-3, 1e-2, target=law)
    assert made.evals == 1
    assert made.predicted_kl <= 1e-3
    kernel = kernels.moment_matched(law.score, law.mmse, basis=made.basis)
    start = jax.random.normal(jax.random.key(0), (200_000, 2))
    x = np.asarray(sample(kernel, start, made.grid, jax.random.key(1)))
    want = np.exp(-2e-2) * cov - np.expm1(-2e-2) * np.eye(2)
    centred = x - x.mean(0)
    products = centred[:, :, None] * centred[:, None]
    assert (np.abs(products.mean(0) - want) < 5 * products.std(0) / np.sqrt(len(x))).all()


@pytest.mark.usefixtures("no_alternatives", "few_candidates")
def test_a_measured_curve_brings_its_own_ends_and_none_may_contradict_them(key):
    law = targets.gaussian([0.0], [0.5])
    ends = {"horizon": 3.0, "early_stop": 0.01}
    curve = loss_curve(denoiser_from_score(law.score), law.sample(key, 200), key, **ends, n_nodes=31)
    made = plan(evals=4, curve=curve, **ends)
    assert (made.horizon, made.grid[-1]) == (pytest.approx(3.0), pytest.approx(0.01))
    with pytest.raises(ValueError, match=r"measured with early_stop = 0\.01, not 0\.001"):
        plan(evals=4, early_stop=1e-3, curve=curve)
    with pytest.raises(ValueError, match="measured with horizon = 3, not 5"):
        plan(evals=4, horizon=5.0, curve=curve)


@pytest.mark.usefixtures("few_candidates")
def test_a_curve_with_a_basis_is_planned_for_in_that_basis(key):
    law = targets.gaussian(np.zeros(2), [[1.0, 0.9], [0.9, 1.0]])
    rows, denoiser = law.sample(key, 400), denoiser_from_score(law.score)
    options = {"horizon": 3.0, "early_stop": 0.01, "n_nodes": 61}
    apart = plan(evals=6, curve=loss_curve(denoiser, rows, key, basis="pca", **options))
    together = plan(evals=6, curve=loss_curve(denoiser, rows, key, **options))
    assert apart.basis.shape == (2, 2)
    assert together.basis is None
    assert apart.certificate["discretisation"].value < together.certificate["discretisation"].value / 5
    assert json.loads(json.dumps(apart.to_dict()))["per_direction"] is True


def rows_of(variances, n, rng, nodes=21):
    """A curve of n simulated rows of N(0, diag(variances)) and its exact denoiser, each direction apart.

    With D = v alpha x/(alpha^2 v + sigma^2) the error X_0 - D is (sigma^2 X_0 - v alpha sigma Z)/(alpha^2 v + sigma^2).
    """
    u = np.linspace(*np.log(1 / np.expm1(2 * np.array([3.0, 0.01]))), nodes)
    snr, v = np.exp(u)[:, None], np.asarray(variances)
    x0, z = np.sqrt(v) * rng.normal(size=(n, 1, len(v))), rng.normal(size=(n, 1, len(v)))
    squares = snr * ((x0 - v * np.sqrt(snr) * z) / (1 + v * snr)) ** 2
    rows = np.concatenate([squares.sum(-1)] * 2, axis=1)
    groups = min(n, 32)
    by_group = np.stack([squares[g::groups].mean(0) for g in range(groups)])
    return measured_curve(u, rows, len(v), by_group=by_group, basis="coordinates")


def doubted(curve):
    """What is said against a variance for each coordinate, for 5 steps from 3 to 0.01."""
    cost = cost_of("moment_matched", basis="coordinates")
    return doubt_of_directions(cost, curve, grids.log_snr(3.0, 0.01, 5), 0.95)


# Of N(0, I) a variance for each direction never pays. Along variances from 0.01 to 4 it does.
def test_a_variance_for_each_direction_is_planned_only_where_rows_tell_that_it_pays(monkeypatch):
    known = lambda cost, curve, *request: grids.log_snr(*request)  # a search would take minutes
    monkeypatch.setattr("jaxdiff.planning.directions.best", known)
    rng = np.random.default_rng(0)
    chosen = [not doubted(rows_of(np.ones(20), 50, rng)) for _ in range(40)]
    assert np.mean(chosen) <= 0.05
    assert not any(doubted(rows_of(np.geomspace(0.01, 4, 20), 1000, rng)) for _ in range(2))


# The gaps of 32 groups have mean and standard error that NumPy finds from the groups' path KLs, half by half.
def test_what_directions_save_is_a_paired_difference_of_cross_fitted_values(monkeypatch):
    monkeypatch.setattr("jaxdiff.planning.best_grid.CANDIDATES", 40)
    curve = rows_of([0.1, 1.0, 2.0], 96, np.random.default_rng(1))
    value, gaps = 0.0, []
    for own, other in (curve.halves, curve.halves[::-1]):
        each = []
        for basis in (None, "coordinates"):
            grid = best(cost_of("moment_matched", basis=basis), other, 3.0, 0.01, 5)
            cost = functools.partial(information.path_kl, "moment_matched", grid=grid, matched=other, basis=basis)
            each.append((cost(own), np.array([cost(group) for group in own.replicates])))
        value += (each[0][0] - each[1][0]) / 2
        gaps.append(each[0][1] - each[1][1])
    gaps = np.concatenate(gaps)
    term = _saved_by_directions(cost_of("moment_matched", basis="coordinates"), curve, grids.log_snr(3.0, 0.01, 5))
    assert (len(gaps), term.degrees) == (32, 31)
    assert term.value == pytest.approx(value, rel=1e-9)
    assert term.standard_error == pytest.approx(gaps.std(ddof=1) / np.sqrt(32), rel=1e-9)
    assert term.standard_error < 0.7 * np.hypot(*(np.std(group, ddof=1) / np.sqrt(32) for group in each_alone(curve)))


def each_alone(curve):
    """The groups' path KLs with one variance and with one for each direction, in sample."""
    grid = grids.log_snr(3.0, 0.01, 5)
    return [
        information.path_kl_samples("moment_matched", curve, grid, basis=basis)[:32] for basis in (None, "coordinates")
    ]


@pytest.mark.usefixtures("few_candidates")
@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (3.0, 1.0, ""),
        (
            0.5,
            1.0,
            "costs 0.5 nats less than one for all directions, with an error of 1.7 .* 580 rows would show it$",
        ),
        (
            -0.5,
            1.0,
            "costs 0.5 nats more than one for all directions, with an error of 1.7 .* is planned, .* less$",
        ),
        (-3.0, 1.0, "by these 50 rows .* costs 3 nats more than one for all directions, which is planned$"),
    ],
)
def test_the_plan_says_why_one_variance_is_planned_for_all_directions(monkeypatch, value, error, said):
    # 1.6956 standard errors are 95 % of Student's law with 31 degrees: (1.6956/0.5)^2 50 = 575
    term = Term("saved by directions", value, error, "measured", "", degrees=31)
    monkeypatch.setattr("jaxdiff.planning.directions._saved_by_directions", lambda *_: term)
    curve = rows_of(np.ones(2), 50, np.random.default_rng(2))
    text = doubted(curve)
    assert re.search(said, text) if said else text == ""
    made = plan(evals=3, curve=curve)
    assert (made.basis is None) == bool(said)
    assert (text in made.certificate.warnings) == bool(said)
    (other,) = (row for row in made.alternatives if (row["kernel"], row["grid"]) == ("moment_matched", "optimal"))
    assert other["per_direction"] == bool(said)


@pytest.mark.usefixtures("few_candidates")
def test_alternatives_of_a_plan_from_rows_are_measured_as_the_plan_is(key):
    law = targets.gaussian(np.zeros(8), np.linspace(0.2, 2.0, 8))
    options = {"horizon": 3.0, "early_stop": 0.01, "n_nodes": 41, "n_noises": 4}
    curve = loss_curve(denoiser_from_score(law.score), law.sample(key, 800), key, **options)
    made = plan(evals=4, curve=curve)
    reached = made.certificate["discretisation"].value
    assert reached > information.path_kl("moment_matched", curve, made.grid)  # the same rows, in sample
    last, benton = made.alternatives[-1], functools.partial(grids.exponential_then_uniform, 3.0, 0.01)
    cost = lambda n: information.path_kl("exponential_euler", curve, benton(n))
    assert last["path_kl"] == cost(last["evals"]) <= reached < cost(last["evals"] - 1)
    low, high = made.certificate.interval("discretisation")
    fewest, most = last["evals_interval"]
    assert cost(fewest) <= high < cost(fewest - 1)
    assert cost(most) <= low < cost(most - 1)
    rows = {(row["kernel"], row["grid"]): row["path_kl"] for row in made.alternatives if row["evals"] == 4}
    halves, grid = curve.halves, benton(4)
    each = [information.path_kl("moment_matched", one, grid, matched=other) for one, other in (halves, halves[::-1])]
    assert rows["moment_matched", "exponential_then_uniform"] == pytest.approx(np.mean(each), rel=1e-12)
    assert rows["ancestral", "exponential_then_uniform"] == information.path_kl("ancestral", curve, grid)
    errors = {(row["kernel"], row["grid"]): row["standard_error"] for row in made.alternatives}
    each = [information.path_kl_samples("ancestral", curve, grid)]
    each += [
        information.path_kl_samples("moment_matched", one, grid, matched=other) for one, other in (halves, halves[::-1])
    ]
    for name, samples in (("ancestral", each[0]), ("moment_matched", np.concatenate(each[1:]))):
        expected = samples.std(ddof=1) / np.sqrt(800)
        assert errors[name, "exponential_then_uniform"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (0.0, (20, 20, 20)),
        (0.05, (20, 17, 25)),  # Of N(0.5, 0.05^2) the ends are 0.402 and 0.598: 10/0.598 = 16.7 and 10/0.402 = 24.9
        (0.12, (20, 14, 38)),
        (0.14, None),  # 13 and 45: further apart than a factor of 3
        (0.3, None),  # cannot be told from 0
    ],
)
def test_the_steps_of_exponential_euler_are_given_where_the_rows_carry_them(error, expected):
    terms = (Term("discretisation", 0.5, error, "measured", ""),)
    assert _steps_of_euler(lambda n: 10 / n, Certificate("a run", terms, 0.95)) == expected


def test_exponential_euler_is_not_as_good_as_an_excess_of_nothing_in_any_number_of_steps():
    for value in (0.0, -0.2):
        terms = (Term("discretisation", value, 0.0, "exact", ""),)
        assert _steps_of_euler(lambda n: 10 / n - 1, Certificate("a run", terms, 0.95)) is None


# Few rows look better in sample than they do to each other, so that the first number of steps is too small.
@pytest.mark.usefixtures("no_alternatives", "few_candidates")
def test_a_plan_from_rows_reaches_its_target_cross_fitted_and_with_confidence_at_its_upper_end(key):
    law = targets.gaussian(np.zeros(8), np.linspace(0.2, 2.0, 8))
    options = {"horizon": 3.0, "early_stop": 0.01, "n_nodes": 41, "n_noises": 1}
    curve = loss_curve(denoiser_from_score(law.score), law.sample(key, 400), key, **options)
    made, sure = plan(0.8, curve=curve), plan(0.8, curve=curve, confidence=0.9)
    assert made.certificate.known <= 0.8
    assert sure.certificate.known_upper <= 0.8
    assert sure.certificate.confidence == 0.9
    assert sure.evals >= made.evals
    ancestral = plan(1.0, curve=curve, kernel="ancestral", confidence=0.9).certificate
    assert ancestral.known_upper <= 1.0
    with pytest.raises(ValueError, match="how surely target_kl= is reached"):
        plan(evals=5, curve=curve, confidence=0.9)
    with pytest.raises(ValueError, match="how surely target_kl= is reached"):
        plan(0.5, dim=2, confidence=0.9)
    with pytest.raises(ValueError, match="confidence = 2"):
        plan(0.5, curve=curve, confidence=2.0)
    few = loss_curve(denoiser_from_score(law.score), law.sample(key, 6), key, **options)
    with pytest.raises(ValueError, match=r"not reached with these rows: .* at the upper end of the 0.9 interval"):
        plan(0.1, curve=few, confidence=0.9)


# Free nodes, by descent from the plan's own: what the candidates leave.
@pytest.mark.usefixtures("no_alternatives")
@pytest.mark.parametrize(("n", "early_stop"), [(20, 1e-2), (60, 1e-4)])
def test_plans_with_covariance_matching_are_within_three_percent_of_free_nodes(n, early_stop):
    made = plan(evals=n, early_stop=early_stop, target=COIN, kernel="covariance_matched", horizon=4.0)
    cost = information.step_cost("covariance_matched", COIN.mmse)
    nodes = np.log(made.grid)
    for reach in (0.3, 0.1, 0.03):  # of the gap to a neighbour: node by node, as far as it pays
        for _ in range(3):
            for k in range(1, n):
                before, here, after = nodes[k - 1 : k + 2]
                moves = np.array([here, here + reach * (before - here), here + reach * (after - here)])
                starts, ends = np.stack([np.full(3, before), moves]), np.stack([moves, np.full(3, after)])
                nodes[k] = moves[np.argmin(cost(np.exp(starts), np.exp(ends)).sum(0))]
    free = np.sum(cost(np.exp(nodes[:-1]), np.exp(nodes[1:])))
    assert made.certificate["discretisation"].value <= 1.03 * free


@pytest.mark.usefixtures("no_alternatives")
@pytest.mark.parametrize("n", [30, 60])
def test_a_plan_for_what_a_budget_reaches_with_covariance_matching_takes_no_more_than_the_budget(n):
    options = {"early_stop": 1e-4, "target": COIN, "kernel": "covariance_matched"}
    reached = plan(evals=n, **options).predicted_kl
    assert plan(target_kl=reached * (1 + 1e-3), **options).evals in (n - 1, n)


@pytest.mark.usefixtures("no_alternatives", "few_candidates")
def test_records_print_in_a_line():
    made = plan(evals=3, target=COIN, horizon=5.0)
    assert repr(made) == f"Plan(horizon=5.0, kernel={made.kernel!r}, evals=3)"
    assert repr(COIN.mmse) == "Curve(dim=1)"
    assert len(repr(COIN)) < 100
    assert "together" in str(made.certificate)


# What is worst for all data of a dimension and second moment, tried: the plan may take twice what the worst of these
# takes down the plan's own kind of grid, and must be enough for each.
def worst_laws(dim):
    eye = np.ones(dim)
    yield targets.gaussian(eye, 0 * eye)
    yield targets.gaussian(0 * eye, eye)
    low = (np.arange(dim) < max(1, dim // 8)).astype(float)
    yield targets.gaussian(0 * eye, low * dim / low.sum())
    yield targets.product([COIN] * dim)


@pytest.mark.parametrize("dim", [1, 8, 64])
@pytest.mark.parametrize("target_kl", [0.05, 1.0])
def test_a_data_free_plan_is_enough_for_the_worst_laws_and_at_most_twice_what_they_take(dim, target_kl):
    made = plan(target_kl, 1e-2, dim=dim)
    assert made.kernel == "ancestral"
    assert made.predicted_kl <= target_kl
    total = lambda law, grid: (
        information.initial_kl(law.second_moment, dim, grid[0])
        - information.mutual_information(law.mmse, grid[0])
        + information.path_kl("ancestral", law.mmse, grid)
    )
    down = lambda n: any_grid.geometric_grid(made.horizon, 1e-2, n, 1.0)
    needed = []
    for law in worst_laws(dim):
        assert total(law, made.grid) <= target_kl
        needed.append(steps_to_reach(target_kl, lambda n, law=law: total(law, down(n))))
    assert made.evals <= 2 * max(needed)


def test_a_data_free_plan_for_a_budget_inverts_the_one_for_an_accuracy():
    made = plan(0.3, 1e-2, dim=8, second_moment=2.0)
    again = plan(evals=made.evals, early_stop=1e-2, dim=8, second_moment=2.0)
    assert again.predicted_kl <= 0.3 * 1.01
    assert plan(evals=made.evals - 1, early_stop=1e-2, dim=8, second_moment=2.0).predicted_kl > 0.3 * 0.99
    assert plan(0.3, 1e-2, dim=8, second_moment=8.0).evals > made.evals
    assert plan(0.3, 1e-2, dim=8, second_moment=2.0, horizon=6.0).horizon == 6.0
    euler = [row for row in made.alternatives if row["kernel"] == "exponential_euler"]
    assert euler[0]["path_kl"] > made.certificate["discretisation"].value
    assert euler[1]["evals"] > 2 * made.evals


@pytest.mark.usefixtures("no_alternatives")
@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"target_kl": 0.1}, "give what is known of the data"),
        ({"target_kl": 0.1, "target": COIN, "curve": COIN.mmse}, "at most one of target= "),
        ({"target": COIN}, "exactly one of target_kl"),
        ({"target": COIN, "target_kl": 0.1, "evals": 3}, "exactly one of target_kl"),
        ({"target": COIN, "evals": 0}, "evals = 0"),
        ({"target": COIN, "evals": 2.5}, "evals = 2.5"),
        ({"target": COIN, "evals": 50000}, "evals = 50000"),
        ({"target": COIN, "target_kl": -1.0}, "target_kl = -1"),
        ({"target": COIN, "target_kl": 1e-9, "horizon": 2.0}, "longer horizon"),
        ({"target": COIN, "target_kl": 0.1, "early_stop": 3.0, "horizon": 2.0}, "early_stop must lie below"),
        ({"target": COIN, "target_kl": 0.1, "early_stop": 3.0}, "nothing to sample. Take an early_stop below 0.14"),
        ({"target": STANDARD, "target_kl": 0.1}, "nothing to sample. Take fewer nats"),
        ({"dim": 4, "target_kl": 0.1, "early_stop": 5.0}, "nothing to sample. Take an early_stop below"),
        ({"dim": 4, "target_kl": 1e-5, "horizon": 2.0}, "longer horizon"),
        ({"dim": 4, "target_kl": 0.1, "second_moment": -1.0}, "second_moment = -1"),
        ({"dim": 0, "target_kl": 0.1}, "dim = 0"),
        ({"dim": 4, "target_kl": 0.1, "kernel": "moment_matched"}, "moment_matched needs target= or curve="),
        ({"dim": 10**6, "target_kl": 1e-3}, "takes more than 1000000 steps, whose bound is 12"),
        ({"target": COIN, "evals": 5, "kernel": "ddim"}, "an ODE has none"),
    ],
)
def test_bad_requests_say_what_would_do(request_, message):
    with pytest.raises(ValueError, match=message):
        plan(**request_)


@pytest.mark.usefixtures("no_alternatives")
def test_more_steps_of_covariance_matching_than_are_searched_for_are_refused(monkeypatch):
    monkeypatch.setattr("jaxdiff.planning.best_grid.MOST_CANDIDATES", 400)
    with pytest.raises(ValueError, match="more than 100 steps of covariance_matched, which cost about"):
        plan(1e-6, target=COIN, kernel="covariance_matched")


def test_few_evals_of_dim_alone_say_that_nothing_is_sampled():
    assert any("stay close to N(0, I)" in text for text in plan(evals=2, dim=8).certificate.warnings)
    assert not plan(evals=50, dim=8).certificate.warnings


def test_steps_to_reach_finds_the_first_number_that_is_enough():
    cost = lambda n: 10 / n
    for goal in (0.3, 1.0, 2.5, 10.0, 11.0):
        assert steps_to_reach(goal, cost) == next(n for n in range(1, 100) if cost(n) <= goal)
    assert steps_to_reach(1e-3, cost, most=500) is None


def two(mean, unit=1.0):
    """Two bumps on the line about a mean."""
    return targets.mixture([0.5, 0.5], [[mean - unit], [mean + unit]], [[0.25 * unit**2]] * 2)


FAR = [
    ({"target": two(30.0)}, {"evals": 20, "early_stop": 1e-3}),
    ({"target": two(500.0)}, {"evals": 3}),
    ({"target": targets.gaussian([0.0], [1e10])}, {"target_kl": 0.05}),
    ({"target": targets.gaussian([0.0], [1e10])}, {"evals": 1}),
    ({"target": targets.gaussian([1e10, 0.0], [1e20, 1e-12])}, {"target_kl": 0.05}),
    ({"target": targets.gaussian([3.0], [1e-12])}, {"target_kl": 0.05}),
    ({"target": targets.gaussian([0.0] * 3, [1e8] * 3)}, {"evals": 4, "kernel": "covariance_matched"}),
    ({"target": targets.gaussian([1e4, 0.0], [1e8, 1.0])}, {"evals": 12, "kernel": "ancestral"}),
    ({"target": targets.point_masses([[-1e5], [1e5]])}, {"evals": 6}),
    ({"dim": 4, "second_moment": 1e12}, {"evals": 3}),
    ({"dim": 4, "second_moment": 1e12}, {"target_kl": 0.1}),
]


@pytest.mark.usefixtures("few_candidates")
@pytest.mark.parametrize(("law", "goal"), FAR)
def test_a_plan_for_any_units_takes_no_step_that_float32_does_not_allow(law, goal):
    made = plan(**law, **goal)
    eps = 2.0**-23
    assert np.exp(-np.diff(made.grid)).max() * eps <= 1e-3
    assert grids.runs_in_float32(made.grid)
    assert made.grid[0] < 40
    assert made.predicted_kl <= goal.get("target_kl", np.inf)


@pytest.mark.usefixtures("no_alternatives", "few_candidates")
@pytest.mark.parametrize(
    ("law", "goal"),
    [
        (two(30.0), {"evals": 20, "early_stop": 1e-3}),
        (targets.gaussian([0.0], [1e10]), {"target_kl": 0.05}),
        (targets.gaussian([-300.0], [1e-2]), {"target_kl": 0.01}),
    ],
)
def test_a_plan_for_any_units_is_run_in_float32_to_the_law(law, goal):
    made = plan(target=law, **goal)
    kernel, n = kernels.moment_matched(law.score, law.mmse, basis=made.basis), 2000
    start = noise.initial(jax.random.key(0), np.arange(n), 1, dtype=np.float32)
    x = np.asarray(sample(kernel, start, made.grid, jax.random.key(1)), np.float64)
    alpha, noised = np.exp(-made.grid[-1]), -np.expm1(-2 * made.grid[-1])
    variance = alpha**2 * law.total_variance + noised
    assert abs(x.mean() - alpha * law.mean[0]) < 5 * np.sqrt(variance / n)
    assert x.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / n))


COV = np.array([[0.5, 0.2, 0.0], [0.2, 0.4, 0.1], [0.0, 0.1, 0.05]])


@pytest.mark.usefixtures("no_alternatives", "few_candidates")
@pytest.mark.parametrize(
    ("law", "centred", "goal"),
    [
        (
            targets.gaussian([1e3, -40.0, 0.0], COV),
            targets.gaussian(np.zeros(3), COV),
            {"evals": 9, "kernel": "exponential_euler"},
        ),
        (targets.gaussian([-300.0], [0.5]), targets.gaussian([0.0], [0.5]), {"evals": 6, "kernel": "ancestral"}),
        (
            targets.product([two(1e3), targets.gaussian([-7.0], [3.0])]),
            targets.product([two(0.0), targets.gaussian([0.0], [3.0])]),
            {"evals": 8},
        ),
    ],
)
def test_a_centred_plan_costs_what_the_centred_law_costs(law, centred, goal):
    made, want = plan(target=law, center=True, **goal), plan(target=centred, **goal)
    assert (made.kernel, made.evals) == (want.kernel, want.evals)
    np.testing.assert_allclose(made.grid, want.grid, rtol=1e-6)
    assert made.predicted_kl == pytest.approx(want.predicted_kl, rel=1e-9)
    np.testing.assert_allclose(made.start_mean, np.exp(-made.horizon) * law.mean, rtol=1e-12)
    for name in ("initialisation", "discretisation"):
        mine = certify(
            made.kernel, want.grid, target=law, basis=made.basis, start_mean=np.exp(-want.horizon) * law.mean
        )
        due = certify(made.kernel, want.grid, target=centred, basis=want.basis)[name]
        assert (mine[name].value, mine[name].status) == (pytest.approx(due.value, rel=1e-9, abs=1e-13), due.status)
        assert "N(start_mean, I)" in str(mine)
    assert json.loads(json.dumps(made.to_dict()))["start_mean"] == list(made.start_mean)
    assert want.to_dict()["start_mean"] is None


@pytest.mark.usefixtures("no_alternatives", "few_candidates")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_run_of_a_centred_plan_has_the_law_about_its_mean(dtype):
    mean = np.array([1e3, -40.0, 0.0])
    law = targets.gaussian(mean, COV)
    made = plan(1e-4, 1e-2, target=law, center=True)
    assert made.horizon < 6
    kernel = kernels.moment_matched(law.score, law.mmse, basis=made.basis)
    draws = noise.initial(jax.random.key(0), np.arange(20_000), 3, dtype=dtype)
    start = made.start(draws)
    assert start.dtype == dtype
    x = np.asarray(sample(kernel, start, made.grid, jax.random.key(1)), np.float64)
    centred = x - np.exp(-1e-2) * mean
    want = np.exp(-2e-2) * COV - np.expm1(-2e-2) * np.eye(3)
    products = centred[:, :, None] * centred[:, None]
    assert (np.abs(centred.mean(0)) < 5 * np.sqrt(np.diag(want) / len(x))).all()
    assert (np.abs(products.mean(0) - want) < 5 * products.std(0) / np.sqrt(len(x))).all()
    assert plan(1e-4, 1e-2, target=law).start(draws) is draws
    with pytest.raises(ValueError, match=r"x must be \(particles, 3\) for this plan: its shape is \(5, 2\)"):
        made.start(draws[:5, :2])


@pytest.mark.usefixtures("no_alternatives", "few_candidates")
def test_a_mean_far_from_0_brings_the_advice_to_center(monkeypatch):
    advice = lambda made: [text for text in made.certificate.warnings if "center=True" in text]
    (text,) = advice(plan(evals=3, target=targets.gaussian([-30.0], [0.25])))
    assert "the mean is 30 from 0 and the standard deviation 0.5," in text
    assert not advice(plan(evals=3, target=targets.gaussian([-30.0], [0.25]), center=True))
    assert not advice(plan(evals=3, target=targets.gaussian([1.0], [0.25])))
    assert not advice(plan(evals=3, target=targets.gaussian([30.0], [400.0])))
    monkeypatch.setattr("jaxdiff.planning.best_grid.MOST_EVALS", 20)
    with pytest.raises(ValueError, match=r"more than 20 steps of ancestral.* plan with center=True"):
        plan(1e-3, target=targets.gaussian([-30.0], [0.25]), kernel="ancestral")


@pytest.mark.usefixtures("no_alternatives")
def test_what_cannot_be_centred_is_refused():
    law = targets.gaussian([3.0], [1.0])
    for known in ({"dim": 1}, {"curve": law.mmse}):
        with pytest.raises(ValueError, match=r"center=True needs target=.* Without one centre the data"):
            plan(evals=3, center=True, **known)
    with pytest.raises(ValueError, match="does not know its mean"):
        plan(evals=3, center=True, target=dataclasses.replace(law, mean=None))
    with pytest.raises(
        ValueError, match=r"3 steps from horizon 39 to 0\.001 are too few.* Take 5 steps or more.*center"
    ):
        plan(evals=3, target=law, horizon=39.0)
    assert plan(evals=5, target=law, horizon=39.0).horizon == 39.0
    with pytest.raises(ValueError, match=r"begin with a step of OU time 20, but float32 allows 9\.03 at most"):
        plan(evals=1, dim=4, horizon=20.0)
