"""Counting steps to an excess, and what each sampler of the comparison is given."""

import dataclasses
import json
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats

from jaxdiff.app import comparison, comparison_subject, excess
from jaxdiff.certificate import Certificate, Term
from jaxdiff.curves import Curve, measured_curve
from jaxdiff.grids import exponential_then_uniform
from jaxdiff.guarantees.path_kl import path_kl
from jaxdiff.planning.goal import steps_to_reach

STEEP = np.array([4.0, 1.0, 0.01])  # variances of a Gaussian, not isotropic: moment matching is not exact on it


def gaussian_curve(variances):
    """V(snr) = sum v/(1 + v snr)."""
    return Curve(lambda snr: (variances / (1 + variances * np.asarray(snr)[..., None])).sum(-1), len(variances))


@pytest.fixture(scope="module")
def subject():
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    denoiser = lambda x, t: 0 * x
    return comparison_subject.Subject(
        denoiser, gaussian_curve(1.2 * STEEP), gaussian_curve(STEEP), rows, rows[:3], horizon=5.0, early_stop=0.01
    )


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("goal", [2.0, 1.0, 0.5, 0.31, 1 / 7, 0.1])
def test_the_fewest_steps_agree_with_a_linear_search(power, goal):
    cost = lambda n: n**-power
    assert steps_to_reach(goal, cost) == next(n for n in range(1, 1000) if cost(n) <= goal)


@pytest.mark.parametrize("most", [1, 2, 5, 8, 100])
def test_a_goal_beyond_the_most_steps_is_none_and_one_at_the_most_is_found(most):
    cost = lambda n: 1 / n
    assert steps_to_reach(1 / most, cost, most=most) == most
    assert steps_to_reach(1 / (most + 0.5), cost, most=most) is None


def test_the_search_asks_for_few_costs_and_none_beyond_the_most():
    asked = []
    assert steps_to_reach(1e-4, lambda n: asked.append(n) or 1 / n, most=20_000) == 10_000
    assert max(asked) <= 20_000
    assert len(asked) < 40


def test_the_step_ratio_is_that_of_a_linear_search(subject):
    planned = subject.grid("moment_matched", comparison.PLANNED, 3)
    goal = path_kl("moment_matched", subject.test, planned, matched=subject.held_out)
    euler = lambda n: path_kl("exponential_euler", subject.test, exponential_then_uniform(5.0, 0.01, n))
    needed = next(n for n in range(1, 2000) if euler(n) <= goal)
    found = excess.step_ratio(subject, 3)
    assert 3 < needed == found["exponential_euler_steps"]
    assert found["ratio"] == pytest.approx(needed / 3)
    assert found["excess"] == pytest.approx(goal)

    assert found["withheld"] is None
    assert found["ratio_interval"] == [found["ratio"]] * 2
    assert found["excess_interval"] == [found["excess"]] * 2


# Rows in pairs with opposite deviations have no skewness, so that the intervals are Student's.
MIRRORED = np.random.default_rng(3).normal(size=(2, 50))
MIRRORED = np.concatenate([MIRRORED, -MIRRORED], axis=1)


@pytest.fixture(scope="module")
def of_rows(subject):
    """The subject with a test curve of 100 rows and a held-out curve that has a basis."""
    u = np.linspace(*np.log(1 / np.expm1(2 * np.array([5.0, 0.01]))), 41)
    rows = 3 * np.exp(u) / (1 + np.exp(u)) * (1 + 0.1 * MIRRORED[0][:, None])
    curve = measured_curve(u, np.tile(rows, 2), 3)
    return dataclasses.replace(subject, test=curve, held_out=curve)


def excess_of(mean, x, y=0.0, bias=0.0):
    """An excess whose rows deviate by x times one mirrored draw and y times another."""
    return excess._Excess(mean, mean + x * MIRRORED[0] + y * MIRRORED[1], bias, 0.0)


def fieller(a, b, t):
    """The roots of (mean(a) - r mean(b))^2 = t^2 var(a - r b)/n."""
    (aa, ab), (_, bb) = np.cov(a, b) / len(a)
    return np.sort(
        np.roots([np.mean(b) ** 2 - t**2 * bb, 2 * (t**2 * ab - np.mean(a) * np.mean(b)), np.mean(a) ** 2 - t**2 * aa])
    )


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_ratio_of_excesses_has_fiellers_interval(of_rows, confidence):
    first, second = excess_of(30.0, 8.0, 5.0), excess_of(2.0, 1.0, -2.0)
    t = stats.t.ppf((1 + confidence) / 2, 99)
    value, low, high = excess._ratio(of_rows, confidence, first, second)
    assert value == pytest.approx(15)
    assert (low, high) == pytest.approx(tuple(fieller(first.samples, second.samples, t)), rel=1e-6)
    assert low < value < high
    wider = excess._ratio(of_rows, confidence, first, second._replace(bias=0.1))
    assert wider[1] < low
    assert wider[2] > high


@pytest.mark.parametrize(
    ("first", "second"), [((0.1, 1.0), (2.0, 1.0)), ((30.0, 1.0), (0.1, 1.0)), ((30.0, 1.0), (-2.0, 1.0))]
)
def test_a_ratio_of_excesses_that_rows_do_not_tell_from_0_is_not_given(of_rows, first, second):
    assert excess._ratio(of_rows, 0.95, excess_of(*first), excess_of(*second)) is None
    few = dataclasses.replace(of_rows, test=few_rows(of_rows.test, 29))
    assert excess._ratio(few, 0.95, excess_of(30.0, 0.0, 0.1), excess_of(2.0, 0.0, 0.1)) is None
    enough = dataclasses.replace(of_rows, test=few_rows(of_rows.test, 30))
    assert excess._ratio(enough, 0.95, excess_of(30.0, 0.0, 0.1), excess_of(2.0, 0.0, 0.1)) is not None


def test_the_sampler_compared_is_the_one_that_was_planned(subject):
    apart = dataclasses.replace(subject, held_out=dataclasses.replace(subject.held_out, basis="coordinates"))
    assert subject.planned == "moment_matched"
    assert apart.planned == "moment_matched_per_direction"
    assert dataclasses.replace(apart, per_direction=False).planned == "moment_matched"


def few_rows(curve, n, ids=None):
    return measured_curve(curve.spline.u, curve.rows[:n], curve.dim, row_ids=ids)


def counted(monkeypatch, of_rows, planned, n_steps=20, slope=0.1):
    """The step ratio where exponential Euler has the excess 1000/n in n steps, give or take a slope."""

    def of_euler(_, name, grid):
        n = len(grid) - 1
        return excess_of(1000 / n, slope * 1000 / n) if name == "exponential_euler" else planned

    monkeypatch.setattr(excess, "_excess", of_euler)
    return excess.step_ratio(of_rows, n_steps)


def by_linear_search(planned, slope):
    """Where the paired interval of 1000/n less the planned excess first begins, is centred and ends below 0."""
    found, t = [], stats.t.ppf(0.975, 99)
    for side in (-1, 0, 1):
        for n in range(1, 20_000):
            gap = 1000 / n * (1 + slope * MIRRORED[0]) - planned.samples
            if gap.mean() + side * t * gap.std(ddof=1) / 10 <= 0:
                found.append(n)
                break
    return found


@pytest.mark.parametrize(("deviation", "slope"), [((0.0, 2.0), 0.0), ((1.0, 1.0), 0.1), ((-1.0, 1.0), 0.1)])
def test_the_interval_of_the_step_ratio_is_what_the_paired_rows_do_not_reject(monkeypatch, of_rows, deviation, slope):
    planned = excess_of(2.001, *deviation)
    found = counted(monkeypatch, of_rows, planned, slope=slope)
    fewest, needed, most = by_linear_search(planned, slope)
    assert found["exponential_euler_steps_interval"] == [fewest, most]
    assert found["exponential_euler_steps"] == needed
    assert (found["ratio"], found["ratio_interval"]) == (needed / 20, [fewest / 20, most / 20])
    reach = stats.t.ppf(0.975, 99) * planned.samples.std(ddof=1) / 10
    assert found["excess_interval"] == pytest.approx([2.001 - reach, 2.001 + reach])
    assert (found["withheld"], found["rows"], found["rows_needed"]) == (None, 100, None)


@pytest.mark.parametrize(
    ("planned", "withheld", "told"),
    [
        (excess_of(2.0, 0.0, 12.0), "zero", True),
        (excess_of(-0.5, 0.0, 12.0), "zero", False),
        (excess_of(2.0, 0.0, 7.0), "wide", True),
        (excess_of(60.0, 0.0, 30.0), "no fewer", False),
        (excess_of(1e-4, 0.0, 1e-6), "none", False),
    ],
)
def test_a_step_ratio_is_withheld_where_the_rows_do_not_carry_it(monkeypatch, of_rows, planned, withheld, told):
    found = counted(monkeypatch, of_rows, planned, slope=0.0)
    assert found["withheld"] == withheld
    assert found["ratio"] is found["exponential_euler_steps"] is None
    reach = stats.t.ppf(0.975, 99) * planned.samples.std(ddof=1) / 10
    low, high = planned.value - reach, planned.value + reach
    times = {"zero": reach / planned.value, "wide": np.log(high / low) / np.log(3) if low > 0 else None}.get(withheld)
    assert (found["rows_needed"] is None) == (not told)
    if told:  # to two digits, rounded up; the ends are whole numbers of steps
        assert 0.99 * 100 * times**2 <= found["rows_needed"] <= 1.11 * 100 * times**2
    json.dumps(found, allow_nan=False)


def test_few_rows_carry_no_step_ratio_and_copies_do_not_count(monkeypatch, of_rows):
    for n, ids, withheld in ((29, None, "few"), (30, None, None), (32, [0, 0, 0, *range(29)], "few")):
        fewer = dataclasses.replace(of_rows, test=few_rows(of_rows.test, n, None if ids is None else np.array(ids)))
        found = counted(monkeypatch, fewer, excess_of(2.0, 0.0, 0.1))
        assert found["withheld"] == withheld
        assert found["rows_needed"] == (30 if withheld else None)


def test_an_ode_has_no_excess_and_runs_on_the_grid_of_moment_matching(subject):
    grid = subject.grid("ddim", comparison.PLANNED, 4)
    assert subject.excess("ddim", grid) is None
    assert np.array_equal(grid, subject.grid("moment_matched", comparison.PLANNED, 4))
    assert not np.array_equal(grid, subject.grid("ancestral", comparison.PLANNED, 4))


def test_the_planned_grid_beats_bentons_by_its_own_curve(subject):
    for name in ("ancestral", "moment_matched"):
        planned, benton = (subject.grid(name, grid, 6) for grid in (comparison.PLANNED, comparison_subject.BENTON))
        assert path_kl(name, subject.held_out, planned) < path_kl(name, subject.held_out, benton)
        assert (len(planned), planned[0], planned[-1]) == (7, 5.0, pytest.approx(0.01))


def test_moment_matching_takes_its_variance_from_the_held_out_curve_never_from_the_test_rows(subject):
    grid = np.array([2.0, 0.7, 0.2])
    spread = subject.kernel("moment_matched").coefficients(grid).spread
    for (t, t_next), given in zip(pairwise(grid), spread, strict=True):
        snr = 1 / np.expm1(2 * t)
        tau = np.sum(1.2 * STEEP / (1 + 1.2 * STEEP * snr)) / 3
        variance = oracles.one_step("moment_matched", t, t_next, 0.0, 0.0, variance=tau)[1]
        assert given**2 == pytest.approx(variance, rel=1e-12)


# A Gaussian has int V dsnr = sum log(1 + v snr). Ancestral steps cost h V/2 each, widened ones (w = 1 + h tau/d)
# (d/2)(log w + 1/w - 1) + h V/(2w), both less half the integral.
@pytest.mark.parametrize("name", ["ancestral", "moment_matched"])
def test_the_excess_is_measured_on_the_test_curve_with_the_variance_of_the_held_out_one(subject, name):
    grid = np.array([3.0, 1.0, 0.3, 0.1, 0.02])
    snr = 1 / np.expm1(2 * grid)
    h, integral = np.diff(snr), np.sum(np.log((1 + STEEP * snr[-1]) / (1 + STEEP * snr[0])))
    mmse = lambda variances: (variances / (1 + variances * snr[:-1, None])).sum(-1)
    w = 1 + h * mmse(1.2 * STEEP) / 3 if name == "moment_matched" else np.ones(4)
    expected = np.sum(1.5 * (np.log(w) + 1 / w - 1) + h * mmse(STEEP) / (2 * w)) - integral / 2
    excess = subject.excess(name, grid)
    assert excess.value == pytest.approx(expected, rel=1e-9)
    assert excess.standard_error == 0.0


def still(early_stop, horizon, test_rows, train_rows):
    """A subject whose law is N(0, I) in one dimension; between near times its samplers hardly move anything."""
    curve = gaussian_curve(np.array([1.0]))
    return comparison_subject.Subject(
        lambda x, t: jnp.exp(-t) * x, curve, curve, train_rows, test_rows, horizon=horizon, early_stop=early_stop
    )


def simulated(variance, test, early_stop, batches=comparison.BATCHES):
    """Mean and deviation of a table entry, by NumPy alone: W2 of draws of N(0, variance) and noised test rows."""
    rng, n = np.random.default_rng(1), len(test)
    noised = np.exp(-early_stop) * test[:, 0] + np.sqrt(-np.expm1(-2 * early_stop)) * rng.normal(size=(500, 1, n))
    drawn = np.sqrt(variance) * rng.normal(size=(500, batches, n))
    distances = np.sqrt(np.mean((np.sort(drawn) - np.sort(noised)) ** 2, axis=-1)).mean(1)
    return distances.mean(), distances.std()


@pytest.mark.parametrize(("horizon", "early_stop", "spread"), [(0.02, 0.01, 1.0), (5.0, 3.0, 0.0)])
def test_samples_start_from_the_normal_law_and_are_compared_with_noised_test_rows(horizon, early_stop, spread, key):
    test = spread * np.random.default_rng(0).normal(size=(300, 1)).astype(np.float32)
    rows = comparison.compare(still(early_stop, horizon, test, test), key, n_steps=(1,))
    assert len(rows) == 5
    for row in rows:
        _, variance = oracles.chain_law(row["kernel"], [horizon, early_stop], 0.0, 1.0, 0.0, 1.0)
        mean, deviation = simulated(variance, test, early_stop)
        assert abs(row["sliced_w2"]["value"] - mean) < 5 * deviation
        assert row["sliced_w2"]["standard_error"] > 0  # every batch is another
        assert row["accuracy"]["standard_error"] > 0


def test_the_noise_floor_is_that_of_train_rows_against_test_rows(key):
    zeros, early_stop = np.zeros((40, 1), np.float32), 1e-10
    floor = comparison.noise_floor(still(early_stop, 1.0, zeros, zeros + 5), key)
    assert floor["sliced_w2"]["value"] == pytest.approx(5, abs=5 * np.sqrt(2 * 2 * early_stop / 40))
    assert floor["accuracy"]["value"] == 1.0


def test_both_sides_of_the_noise_floor_are_noised(key):
    zeros = np.zeros((300, 1), np.float32)
    floor = comparison.noise_floor(still(3.0, 5.0, zeros, zeros), key)
    mean, deviation = simulated(-np.expm1(-6), zeros, 3.0, batches=1)
    assert abs(floor["sliced_w2"]["value"] - mean) < 5 * deviation


# A train row tells the label of the test row that it is a copy of, unless both are in one fold.
def test_the_noise_floor_of_rows_that_train_and_test_share_is_chance(key):
    rows = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    accuracy = comparison.noise_floor(still(1e-6, 1.0, rows, rows), key)["accuracy"]["value"]
    assert abs(accuracy - 0.5) < 4 * 0.5 / np.sqrt(60)


def test_an_excess_that_is_not_positive_has_no_step_ratio(subject):
    outweighed = Curve(lambda snr: np.zeros_like(snr), 3, integral=lambda snr: snr)
    ratio = excess.step_ratio(dataclasses.replace(subject, test=outweighed), 5)
    assert ratio["excess"] < 0
    assert ratio["withheld"] == "zero"
    assert ratio["exponential_euler_steps"] is ratio["ratio"] is None


@pytest.mark.parametrize(("target", "verdict"), [(0.05, "missed"), (0.2, "not shown to be met"), (0.4, "met")])
def test_the_verdict_compares_the_interval_with_what_was_asked(target, verdict):
    terms = (Term("initialisation", 0.01, 0.0, "bound", ""), Term("discretisation", 0.2, 0.04, "measured", ""))
    (line,) = comparison._verdict({"target_kl": target}, Certificate("a run", terms, 0.95))
    assert line == f"Target: {target} nats; the test rows give 0.21, 95% [0.1316, 0.2884]: {verdict}."
    assert comparison._verdict({"target_kl": None}, Certificate("a run", terms, 0.95)) == []
