"""certify: terms add up for known laws, unknowns stay unknown for learned ones, records print and serialise."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats
from scipy.integrate import quad

import jaxdiff
from jaxdiff import Sampler, certify, certify_difference, grids, kernels, processes, targets
from jaxdiff.curves import Curve, loss_curve, measured_curve
from jaxdiff.guarantees.path_kl import level_samples, path_kl, path_kl_samples, range_of_rows, standard_error
from jaxdiff.guarantees.step_cost import cost_of
from jaxdiff.processes import denoiser_from_score

GRID = grids.exponential_then_uniform(1.5, 0.05, 10)
ZERO = lambda x, t: 0 * x  # a placeholder: path KLs depend on the curve, not on the score
ANCESTRAL = Sampler(kernels.ancestral(ZERO), GRID)
EULER = Sampler(kernels.exponential_euler(ZERO), GRID)


@pytest.mark.parametrize("name", ["exponential_euler", "ancestral", "moment_matched", "covariance_matched"])
@pytest.mark.parametrize("variance", [0.0, 0.3, 2.0])
def test_certificate_bounds_the_exact_kl_on_gaussians(name, variance):
    law = targets.gaussian([0.8], [variance])
    certificate = certify(name, GRID, target=law)
    oracle = "moment_matched" if name == "covariance_matched" else name  # in one dimension the same on a Gaussian
    mean, var = oracles.chain_law(oracle, GRID, 0.8, variance, 0.0, 1.0)
    exact = oracles.gaussian_kl(np.exp(-0.05) * 0.8, np.exp(-0.1) * variance - np.expm1(-0.1), mean, var)
    assert exact <= certificate.known == certificate.upper
    assert {term.status for term in certificate.terms} <= {"exact", "bound", "assumed"}
    assert {term.standard_error for term in certificate.terms} == {0.0}


def test_learned_certificate_says_what_is_unknown(key):
    law = targets.gaussian([0.0], [0.5])
    curve = loss_curve(
        denoiser_from_score(law.score), law.sample(key, 300), key, horizon=1.5, early_stop=0.05, n_nodes=31
    )
    certificate = certify("ancestral", GRID, curve=curve)
    assert certificate["score error"].status == "unknown"
    assert certificate["initialisation"].status == "assumed"
    assert certificate.assumptions[-1] == f"the data have E|X_0|^2 = {np.mean(curve.squares):.6g}"
    assert certificate["discretisation"].status == "measured"
    low, high = certificate.interval("discretisation")
    term, q = certificate["discretisation"], stats.t.ppf(0.975, 299)
    w = term.skewness / np.sqrt(300)
    hall = [3 * (np.cbrt(1 + w * (x - w / 6)) - 1) / w for x in (q, -q)]
    assert low == pytest.approx(term.value - max(q, hall[0]) * term.standard_error - term.bias, rel=1e-6)
    assert high == pytest.approx(term.value + max(q, -hall[1]) * term.standard_error + term.bias, rel=1e-6)
    assert {certificate[name].standard_error for name in ("score error", "initialisation")} == {0.0}
    assert certificate.upper == np.inf
    assert (
        "C = (1/2) int mmse dsnr depends on the data's law alone, and is unknown" in certificate["score error"].source
    )
    record = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
    assert record["terms"][2]["value"] is None
    assert "unknown" in str(certificate)
    assert "95%" in str(certificate)
    unknown = certify("ancestral", GRID, curve=dataclasses.replace(curve, squares=None))["initialisation"]
    assert unknown.status == "unknown"


def value_of(certificate):
    return certificate["discretisation"].value


# The exact KL to N(0, I) at the horizon, and what early stopping costs, on N(m, v): closed forms.
@pytest.mark.parametrize("variance", [0.3, 2.0])
def test_initialisation_and_early_stopping_of_a_gaussian_are_the_closed_forms(variance):
    certificate = certify("ancestral", GRID, target=targets.gaussian([0.8], [variance]))
    at = lambda t: (np.exp(-t) * 0.8, np.exp(-2 * t) * variance - np.expm1(-2 * t))
    assert certificate["initialisation"].value == pytest.approx(oracles.gaussian_kl(*at(1.5), 0.0, 1.0), rel=1e-9)
    assert certificate["initialisation"].status == "exact"
    (mean, var), (mean_0, var_0) = at(0.05), at(0.0)
    w2 = np.hypot(mean - mean_0, np.sqrt(var) - np.sqrt(var_0))
    assert w2 <= certificate["early stopping W2"].value < 2 * np.sqrt(0.05 * 2)
    lattice = np.linspace(-12, 12, 100_001)
    normal = lambda mean, var: stats.norm.pdf(lattice, mean, np.sqrt(var))
    tv = 0.5 * np.trapezoid(np.abs(normal(mean, var) - normal(mean_0, var_0)), lattice)
    assert tv <= certificate["early stopping TV"].value < 0.2
    discrete = certify("ancestral", GRID, target=targets.point_masses([[-1.0], [1.0]]))
    assert discrete["early stopping TV"].value == 1


COIN = targets.point_masses([[-1.0], [1.0]])
ENDS = {"horizon": 1.5, "early_stop": 0.05}


@functools.cache
def many_rows(law, n, denoiser=None, clip=None, seed=0):
    """The loss curve of a denoiser on n rows of a law, its own by default; one pair of noises a row."""
    denoiser = denoiser_from_score(law.score) if denoiser is None else denoiser
    denoiser = denoiser if clip is None else processes.clipped(denoiser, clip)
    data = law.sample(jax.random.key(seed), n)
    return loss_curve(denoiser, data, jax.random.key(seed + 1), **ENDS, n_nodes=41, n_noises=1)


def blocks(curve, size):
    """The curves of disjoint blocks of rows."""
    for first in range(0, curve.n, size):
        yield measured_curve(curve.spline.u, curve.rows[first : first + size], curve.dim)


def times_covered(name, repetitions):
    """How many 95 % intervals of 200 rows each contain the path KL."""
    law = targets.gaussian([0.0], [0.8])
    exact, covered = value_of(certify(name, GRID, target=law)), 0
    for curve in blocks(many_rows(law, 200 * repetitions), 200):
        low, high = certify(name, GRID, curve=curve, matched=law.mmse).interval("discretisation")
        covered += low <= exact <= high
    return covered


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exponential_euler", "ancestral", "moment_matched"])
def test_a_95_percent_interval_covers_the_truth_in_92_to_98_percent_of_1000_repetitions(name):
    assert 920 <= times_covered(name, 1000) <= 980


# Of 100 intervals that each contain the truth with probability 0.95, fewer than 86 do with probability 1.4e-4.
@pytest.mark.parametrize("name", ["exponential_euler", "ancestral", "moment_matched"])
def test_a_95_percent_interval_covers_the_truth_in_most_of_100_repetitions(name):
    assert times_covered(name, 100) >= 86


@pytest.mark.parametrize("repetitions", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_a_betting_interval_covers_the_truth_at_any_size(repetitions):
    exact = value_of(certify("moment_matched", GRID, target=COIN))
    options = {"matched": COIN.mmse, "radius": 1.0}
    for size in (5, 40):
        covered = 0
        for curve in blocks(many_rows(COIN, repetitions * size, clip=1.0), size):
            certificate = certify("moment_matched", GRID, curve=curve, **options)
            low, high = certificate.interval("discretisation")
            covered += low <= exact <= high
            wider = certify("moment_matched", GRID, curve=curve, matched=COIN.mmse).interval("discretisation")
            assert high - low > wider[1] - wider[0]
        assert covered >= 0.95 * repetitions
    assert "betting" in certificate["discretisation"].source
    assert not any("asymptotic" in text for text in certificate.assumptions)


# The path KL is linear in the losses at the nodes, so that its extremes over the cube [0, 4 R^2 snr] are at corners.
def test_the_range_of_a_row_is_reached_where_its_loss_is_all_or_nothing():
    curve = many_rows(COIN, 100, clip=1.0)
    low, high = range_of_rows(cost_of("ancestral"), curve, GRID, 1.0)
    weights = [path_kl("ancestral", node, GRID) for node in at_single_nodes(curve)]
    most = 4 * np.exp(curve.spline.u)
    assert low == pytest.approx(np.sum(np.minimum(weights, 0) * most), rel=1e-9)
    assert high == pytest.approx(np.sum(np.maximum(weights, 0) * most), rel=1e-9)
    assert (
        low < path_kl_samples("ancestral", curve, GRID).min() < path_kl_samples("ancestral", curve, GRID).max() < high
    )


def at_single_nodes(curve):
    """Curves of two equal rows that are 1 at one node and 0 at the others."""
    for node in range(len(curve.spline.u)):
        row = np.zeros((2, 2 * len(curve.spline.u)))
        row[:, node] = 1.0
        yield measured_curve(curve.spline.u, row, curve.dim)


# Every row twice: the interval is that of the distinct rows, and the certificate says so.
def test_copies_of_rows_count_once(key):
    law = targets.gaussian([0.0], [0.8])
    rows = np.asarray(law.sample(key, 300))
    curve = loss_curve(denoiser_from_score(law.score), np.tile(rows, (2, 1)), key, **ENDS, n_nodes=41, n_noises=1)
    found = certify("ancestral", GRID, curve=curve)
    pairs = path_kl_samples("ancestral", curve, GRID).reshape(2, 300).mean(0)
    assert found["discretisation"].standard_error == pytest.approx(standard_error(pairs), rel=1e-9)
    assert found["discretisation"].degrees == 299
    assert any("600 rows 300 are copies of others" in text for text in found.warnings)
    crossed = certify("moment_matched", GRID, curve=curve)["discretisation"]
    assert crossed.degrees == 299
    euler = certify_difference(EULER, ANCESTRAL, curve)
    assert euler["difference"].degrees == 299
    assert any("copies" in text for text in euler.warnings)
    assert not certify("ancestral", GRID, curve=many_rows(law, 300)).warnings


def test_heavy_tails_are_warned_of():
    law = targets.gaussian([0.0], [0.8])
    curve = many_rows(law, 300)
    rows = curve.rows * np.random.default_rng(0).pareto(1.0, 300)[:, None]
    heavy = measured_curve(curve.spline.u, rows, 1)
    for found in (
        certify("ancestral", GRID, curve=heavy),
        certify_difference(ANCESTRAL, Sampler(kernels.ancestral(ZERO), GRID[[0, 5, 10]]), heavy),
    ):
        assert any("skewness is" in text for text in found.warnings)


# Each half's rows are weighted by how many they are: the value is the mean over all rows, of an odd number too.
def test_the_halves_of_an_odd_number_of_rows_weigh_as_much_as_their_rows():
    curve = next(blocks(many_rows(targets.gaussian([0.0], [0.8]), 4000), 9))
    halves = curve.halves
    options = zip(halves, halves[::-1], strict=True)
    each = [path_kl_samples("moment_matched", own, GRID, matched=other) for own, other in options]
    assert [len(one) for one in each] == [5, 4]
    term = certify("moment_matched", GRID, curve=curve)["discretisation"]
    assert term.value == pytest.approx(np.mean(np.concatenate(each)), rel=1e-9)
    in_sample = np.average([path_kl("moment_matched", half, GRID) for half in halves], weights=[5, 4])
    assert term.allowance == pytest.approx(abs(term.value - in_sample), rel=1e-9)
    assert term.allowance > 0


def test_what_a_bounded_interval_cannot_be_used_for_is_refused():
    curve = many_rows(COIN, 100, clip=1.0)
    with pytest.raises(ValueError, match="on other rows"):
        certify("moment_matched", GRID, curve=curve, radius=1.0)
    with pytest.raises(ValueError, match="not bounded"):
        certify("exponential_euler", GRID, curve=curve, radius=1.0)
    with pytest.raises(ValueError, match=r"more than 2 radius = 0\.2"):
        certify("ancestral", GRID, curve=curve, radius=0.1)


# Two samplers of one model, and two models, on the same rows: the truth is a difference of closed forms.
def test_a_paired_difference_of_samplers_is_the_exact_one():
    law = targets.gaussian([0.0], [0.8])
    curve, euler_grid = many_rows(law, 4000), grids.log_snr(1.5, 0.05, 10)
    exact = value_of(certify("moment_matched", GRID, target=law))
    exact -= value_of(certify("exponential_euler", euler_grid, target=law))
    first = Sampler(kernels.moment_matched(ZERO, law.mmse), GRID)
    second = Sampler(kernels.exponential_euler(ZERO), euler_grid)
    term = certify_difference(first, second, curve)["difference"]
    assert abs(term.value - exact) < 5 * term.standard_error


def shrunken(x, t):
    return 0.7 * processes.ou.alpha(t) * x


def test_a_paired_difference_of_models_is_the_exact_one_and_better_known_than_of_other_rows():
    law = targets.gaussian([0.0], [0.8])
    exact_model, wrong_model = many_rows(law, 4000), many_rows(law, 4000, denoiser=shrunken)
    term = certify_difference(ANCESTRAL, ANCESTRAL, wrong_model, exact_model)
    alpha2 = np.exp(-2 * GRID[:-1])
    loss = (1 - 0.7 * alpha2) ** 2 * 0.8 + 0.49 * alpha2 * (1 - alpha2)  # E|X_0 - 0.7 alpha X_t|^2
    snr = 1 / np.expm1(2 * GRID)
    want = 0.5 * np.sum(np.diff(snr) * (loss - law.mmse(snr[:-1])))
    assert abs(term["difference"].value - want) < 5 * term["difference"].standard_error
    level = lambda curve: standard_error(path_kl_samples("ancestral", curve, GRID) + level_samples(curve, GRID))
    assert term["difference"].standard_error < 0.5 * np.hypot(
        level(wrong_model), level(exact_model)
    )  # of unpaired rows
    apart = many_rows(law, 2000)
    with pytest.raises(ValueError, match=r"on the same rows: their \(n, d\) are \(4000, 1\) and \(2000, 1\)"):
        certify_difference(ANCESTRAL, ANCESTRAL, wrong_model, apart)
    with pytest.raises(ValueError, match="must have the same ends"):
        certify_difference(ANCESTRAL, Sampler(kernels.ancestral(ZERO), GRID[1:]), apart)
    with pytest.raises(ValueError, match="two measured curves"):
        certify_difference(ANCESTRAL, ANCESTRAL, law.mmse, apart)


# A plan from few rows against the closed form: the law is N(0, I), for which the run's own kernel has a known path KL.
@pytest.mark.parametrize("plans", [5, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("apart", [False, True])
def test_the_interval_of_a_plan_covers_what_the_planned_run_costs(apart, plans, monkeypatch):
    monkeypatch.setattr("jaxdiff.planning.plan.alternatives_to", lambda *_: ())  # they take longer than the plan
    monkeypatch.setattr("jaxdiff.planning.best_grid.CANDIDATES", 200)
    law = targets.gaussian(np.zeros(8), np.ones(8))
    denoiser = denoiser_from_score(law.score)
    axes = np.linalg.qr(np.random.default_rng(3).standard_normal((8, 8)))[0] if apart else None
    options = {"horizon": 3.0, "early_stop": 0.05, "n_nodes": 41, "n_noises": 1, "basis": axes}
    known, covered = dataclasses.replace(law.mmse, basis=axes), 0
    for seed in range(plans):
        curve = loss_curve(denoiser, law.sample(jax.random.key(seed), 100), jax.random.key(1000 + seed), **options)
        made = jaxdiff.plan(evals=8, curve=curve)
        truth = path_kl("moment_matched", known, made.grid, matched=curve, basis=made.basis)
        low, high = made.certificate.interval("discretisation")
        covered += low <= truth <= high
    assert covered >= 0.8 * plans  # in sample a few of them are


def test_axes_of_the_same_rows_are_warned_of(key):
    law = targets.gaussian(np.zeros(3), np.ones(3))
    curve = loss_curve(denoiser_from_score(law.score), law.sample(key, 400), key, **ENDS, n_nodes=21, basis="pca")
    says = lambda certificate: any("these very rows" in text for text in certificate.warnings)
    assert says(certify("moment_matched", GRID, curve=curve, basis=curve.basis))
    assert not certify("moment_matched", GRID, curve=curve).warnings
    other = loss_curve(denoiser_from_score(law.score), law.sample(key, 300), key, **ENDS, n_nodes=21, basis=curve.basis)
    apart = Sampler(kernels.moment_matched(ZERO, other, basis=other.basis), GRID)
    assert says(certify_difference(apart, ANCESTRAL, curve))
    assert not says(certify_difference(ANCESTRAL, ANCESTRAL, curve))


# The denoiser x -> c x of N(0, 1) has E|X_0 - c X_t|^2 = (1 - c alpha)^2 + c^2 sigma^2; here c is 0 until t = 0.5.
def jumping(x, t):
    return jnp.where(t > 0.5, 0.0, jnp.exp(-t)) * x


def excess_of_jumping(grid):
    c = lambda t: 0.0 if t > 0.5 else np.exp(-t)
    loss = lambda t: (1 - c(t) * np.exp(-t)) ** 2 - c(t) ** 2 * np.expm1(-2 * t)
    rate = lambda t: loss(t) * 2 * np.exp(2 * t) / np.expm1(2 * t) ** 2
    level = quad(rate, 0.5, grid[0])[0] + quad(rate, grid[-1], 0.5)[0]
    heads = sum(h * loss(t) for h, t in zip(np.diff(1 / np.expm1(2 * grid)), grid, strict=False))
    return (heads - level) / 2


@pytest.mark.parametrize("own_nodes", [False, True])
def test_the_interval_of_a_denoiser_that_jumps_covers_the_closed_form(own_nodes):
    grid, covered = np.array([3.0, 1.5, 0.52, 0.499, 0.2, 0.05, 0.01]), 0
    truth = excess_of_jumping(grid)
    assert truth == pytest.approx(1.862, abs=1e-3)
    options = {"horizon": 3.0, "early_stop": 0.01, "n_noises": 1, "grid": grid if own_nodes else None}
    for seed in range(10):
        rows = jax.random.normal(jax.random.key(seed), (2000, 1))
        certificate = certify("ancestral", grid, curve=loss_curve(jumping, rows, jax.random.key(99 + seed), **options))
        low, high = certificate.interval("discretisation")
        covered += low <= truth <= high
    assert covered >= 8
    assert (high - low < 0.2) == own_nodes
    assert any("loss_curve(..., grid=grid)" in text for text in certificate.warnings) != own_nodes


@pytest.mark.parametrize("name", ["exponential_euler", "ancestral", "moment_matched", "covariance_matched"])
def test_a_smooth_denoisers_interval_is_hardly_wider_for_interpolation(name, key):
    law = targets.gaussian([0.0, 0.0], [0.8, 0.2])
    options = ENDS | {"n_nodes": 101, "n_noises": 1, "basis": "coordinates"}
    products = 1 if name == "covariance_matched" else None
    curve = loss_curve(denoiser_from_score(law.score), law.sample(key, 400), key, products=products, **options)
    term = certify(name, GRID, curve=curve)["discretisation"]
    assert 0 < term.bias < 0.02 * term.standard_error
    if name == "moment_matched":
        apart = certify(name, GRID, curve=curve, basis="coordinates")["discretisation"]
        assert 0 < apart.bias < 0.02 * apart.standard_error


@pytest.mark.parametrize("option", [{"radius": 1.0}, {"second_moment": 1.0}, {"matched": COIN.mmse}])
def test_what_a_target_brings_itself_is_not_asked_for(option):
    with pytest.raises(ValueError, match="leave second_moment=, radius= and matched= out"):
        certify("moment_matched", GRID, target=COIN, **option)


def test_too_few_rows_and_losses_worse_than_noise_are_warned_of(key):
    law = targets.gaussian([0.0], [0.5])
    few = certify("ancestral", GRID, curve=many_rows(law, 60))
    assert any("60 rows are few" in text for text in few.warnings)
    assert not certify("ancestral", GRID, curve=many_rows(law, 400)).warnings
    assert any(
        "400 rows are few" in text
        for text in certify("ancestral", GRID, curve=many_rows(law, 400), confidence=0.999).warnings
    )
    stuck = loss_curve(lambda x, t: 0 * x, law.sample(key, 400), key, **ENDS, n_nodes=21)
    (text,) = certify("ancestral", GRID, curve=stuck).warnings
    assert "above d/snr" in text


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        (lambda snr: 0.01 * (1 + 0.5 * snr / (1 + snr)) / (1 + 0.02 * snr), "more than the"),
        (lambda snr: np.minimum(2.0 / snr, 1.0), "above d/snr"),
        (lambda snr: np.minimum(0.3, 0.9 / snr), "value before allows"),
        (lambda snr: np.where(snr > 1, np.nan, 0.5), "it is nan"),
        (lambda snr: 0.2 - 0.1 * snr, "negative"),
    ],
)
def test_a_curve_that_is_no_mmse_is_refused(curve, message):
    with pytest.raises(ValueError, match=message):
        certify("ancestral", GRID, curve=curve, dim=1, second_moment=1.0)


def test_a_plain_callable_is_taken_at_its_word_and_says_so():
    certificate = certify("ancestral", GRID, curve=lambda snr: 1 / (1 + snr), dim=1, second_moment=1.0)
    assert certificate["discretisation"].status == "assumed"
    assert certificate.assumptions == ("the data have E|X_0|^2 = 1",)


def test_a_second_moment_that_the_curve_disproves_is_refused():
    far = targets.point_masses([[-10.0], [10.0]])
    for curve in (far.mmse, lambda snr: 100 / (1 + 100 * snr)):
        with pytest.raises(ValueError, match=r"second_moment = 1 is too small: .* at least (99\.99|100)"):
            certify("ancestral", GRID, curve=curve, dim=1, second_moment=1.0)
        with pytest.raises(ValueError, match="second_moment = 1 is too small"):
            jaxdiff.plan(target_kl=0.05, curve=curve, dim=1)
    assert certify("ancestral", GRID, curve=far.mmse, second_moment=100.0)["initialisation"].status == "assumed"
    several = targets.mixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [[0.1, 0.1], [0.2, 0.1]])  # a Monte Carlo mmse
    assert certify("ancestral", GRID, curve=several.mmse, second_moment=several.second_moment).terms


def test_rows_bring_their_second_moment_and_contradict_another(key):
    curve = many_rows(targets.gaussian([3.0], [0.5]), 400)
    moment = float(np.mean(curve.squares))
    assert moment == pytest.approx(9.5, abs=5 * np.sqrt(2 * 0.5**2 + 4 * 9 * 0.5) / 20)
    own, given = (certify("ancestral", GRID, curve=curve, second_moment=m) for m in (None, moment))
    assert own["initialisation"] == given["initialisation"]
    assert not own.warnings
    wrong = certify("ancestral", GRID, curve=curve, second_moment=1.0)
    assert any("not 1: the initialisation may cost more" in text for text in wrong.warnings)


def test_a_curve_that_cannot_have_set_a_variance_is_refused():
    law = targets.gaussian([0.0], [0.5])
    curve = many_rows(law, 100)
    bad = {
        "other rows": curve,
        "dimension 7, the curve 1": Curve(law.mmse.value, 7),
        "not finite": lambda snr: np.nan * snr,
    }
    for message, matched in bad.items():
        with pytest.raises(ValueError, match=message):
            certify("moment_matched", GRID, curve=curve, matched=matched)
        kernel = kernels.moment_matched(ZERO, matched, dim=None if isinstance(matched, Curve) else 1)
        with pytest.raises(ValueError, match=message):
            certify_difference(Sampler(kernel, GRID), ANCESTRAL, curve)


def test_a_difference_of_other_rows_is_refused():
    law = targets.gaussian([0.0], [0.5])
    first, second = many_rows(law, 100), many_rows(law, 100, seed=1)
    with pytest.raises(ValueError, match="same rows in the same order"):
        certify_difference(ANCESTRAL, ANCESTRAL, first, second)


def test_an_mmse_in_float32_is_taken():
    curve = lambda snr: np.float32(0.25) / (1 + np.float32(0.25) * np.asarray(snr, np.float32))
    certificate = certify("ancestral", GRID, curve=curve, dim=1, second_moment=0.25)
    exact = certify("ancestral", GRID, target=targets.gaussian([0.0], [0.25]))
    assert value_of(certificate) == pytest.approx(value_of(exact), rel=1e-4)


def test_missing_terms_are_named():
    certificate = certify("ancestral", GRID, target=targets.gaussian([0.0], [0.5]))
    with pytest.raises(KeyError, match="initialisation"):
        certificate["prior"]


def test_bad_requests_are_refused():
    law = targets.gaussian([0.0], [0.5])
    with pytest.raises(ValueError, match="exactly one"):
        certify("ancestral", GRID)
    with pytest.raises(ValueError, match="exactly one"):
        certify("ancestral", GRID, target=law, curve=law.mmse)
    with pytest.raises(ValueError, match="confidence = 95"):
        certify("ancestral", GRID, target=law, confidence=95)
    with pytest.raises(ValueError, match="dimension 1, but dim = 3"):
        certify("ancestral", GRID, curve=law.mmse, dim=3)
    with pytest.raises(ValueError, match="ODE has none"):
        certify("ddim", GRID, target=law)
    with pytest.raises(ValueError, match="grid must decrease"):
        certify("ancestral", GRID[::-1], target=law)


def test_every_certified_name_is_a_kernel_constructor():
    for name in ("exponential_euler", "ancestral", "moment_matched"):
        assert name in kernels.__all__
        assert certify(name, GRID, target=targets.gaussian([0.0], [0.5]))["discretisation"].value >= -1e-14
