"""Curves of mixtures along directions and through log det, against product laws, Gaussians and quadrature; memory."""

import tracemalloc

import numpy as np
import oracles
import pytest

from jaxdiff import grids, targets
from jaxdiff.grids import exponential_then_uniform
from jaxdiff.guarantees.path_kl import path_kl, path_kl_error, path_kl_samples
from jaxdiff.targets import components
from jaxdiff.targets import mmse as posterior

RNG = np.random.default_rng(0)
COIN = targets.point_masses([[-1.0], [1.0]])
CORNERS = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]
SQUARE = targets.point_masses(CORNERS)
WEIGHTS, CENTRES, WIDTHS, REST = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.04, 0.3]), (0.5, 0.1)
LINE = targets.mixture(WEIGHTS, CENTRES[:, None], WIDTHS[:, None])
TURN = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
TURNED_COVARIANCES = [TURN @ np.diag([v, *REST]) @ TURN.T for v in WIDTHS]
TURNED = targets.mixture(WEIGHTS, [m * TURN[:, 0] for m in CENTRES], TURNED_COVARIANCES)
GRID = exponential_then_uniform(3.0, 0.01, 12, n_uniform=4)
SNR = np.array([0.05, 1.0, 6.0])


@pytest.fixture
def few_draws(monkeypatch):
    """Monte Carlo curves that are made in the test have 1,024 pairs of draws."""
    monkeypatch.setattr(posterior, "_draws", lambda k, d: 1024 // posterior.REPLICATES)


def _of_replicates(curve, name, *at):
    """The replicates' values (R, ...) of a curve's field, and the standard error of their mean."""
    values = np.array([getattr(one, name)(*at) for one in curve.replicates])
    return values, values.std(0, ddof=1) / np.sqrt(len(values))


def _log_det_on_the_line(law, snr, h):
    """E log(1 + h Var(X_0 | X_t)), by the oracle's quadrature."""
    t = 0.5 * np.log1p(1 / snr)
    return oracles._expectation(law, t, lambda x: np.log1p(h * oracles.mixture_posterior_variance(law, x, t)))


@pytest.mark.parametrize("law", [([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0]), (WEIGHTS, CENTRES, WIDTHS)])
def test_on_the_line_log_det_is_quadrature_and_the_only_direction_all_there_is(law):
    target = targets.mixture(law[0], np.array(law[1])[:, None], np.array(law[2])[:, None])
    h = np.array([[0.01], [1.0], [300.0]])
    want = [[_log_det_on_the_line(law, s, one) for s in SNR] for one in h[:, 0]]
    np.testing.assert_allclose(target.mmse.log_det(SNR, h), want, rtol=1e-11)
    np.testing.assert_array_equal(target.mmse.directions(SNR)[..., 0], target.mmse(SNR))
    assert target.mmse.basis == "coordinates"


def test_directions_of_a_gaussian_are_those_of_its_axes():
    cov = TURN @ np.diag([2.0, 0.3, 0.01]) @ TURN.T
    full, diagonal = targets.gaussian(np.ones(3), cov).mmse, targets.gaussian(np.ones(3), [2.0, 0.3, 0.01]).mmse
    assert diagonal.basis == "coordinates"
    for snr in (0.1, 30.0):
        posterior_cov = np.linalg.inv(np.linalg.inv(cov) + snr * np.eye(3))
        along = np.diag(full.basis.T @ posterior_cov @ full.basis)
        np.testing.assert_allclose(full.directions(snr), along, rtol=1e-9)
        np.testing.assert_allclose(diagonal.directions(snr), 1 / (1 / np.array([2.0, 0.3, 0.01]) + snr), rtol=1e-12)
        np.testing.assert_allclose(full.basis @ np.diag(along) @ full.basis.T, posterior_cov, rtol=1e-9, atol=1e-12)
    assert full.directions(np.ones((4, 2))).shape == (4, 2, 3)


def test_directions_of_a_product_law_are_its_factors():
    curve, want = TURNED.mmse, np.array([[oracles.mixture_mmse((WEIGHTS, CENTRES, WIDTHS), s)] for s in SNR])
    want = np.concatenate([want, [[s / (1 + snr * s) for s in REST] for snr in SNR]], axis=1)
    got, (_, error) = curve.directions(SNR), _of_replicates(curve, "directions", SNR)
    np.testing.assert_allclose(np.abs(curve.basis.T @ TURN), np.eye(3), atol=1e-12)  # 1.53, 0.5, 0.1: widest first
    assert (np.abs(got - want) < 5 * error + 1e-12).all()
    assert error[:, 0].max() < 0.02


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(
    ("make", "given"),
    [
        (targets.point_masses, (CORNERS,)),
        (targets.mixture, (WEIGHTS, [m * TURN[:, 0] for m in CENTRES], TURNED_COVARIANCES)),
        (targets.point_masses, (RNG.normal(size=(20, 1)),)),
    ],
    ids=["one covariance", "two covariances", "on the line"],
)
def test_directions_add_up_and_replicates_average_to_the_curve(make, given):
    target = make(*given)
    curve, snr = target.mmse, np.array([[0.05, 1.0], [6.0, 10.0]])
    directions = curve.directions(snr)
    assert directions.shape == (2, 2, target.dim)
    np.testing.assert_allclose(directions.sum(-1), curve(snr), rtol=1e-9)
    values, _ = _of_replicates(curve, "directions", snr)
    np.testing.assert_allclose(values.mean(0), directions, rtol=1e-12)
    np.testing.assert_allclose(values.sum(-1), [one(snr) for one in curve.replicates], rtol=1e-9)
    levels = [one.value.value(snr.ravel()).reshape(snr.shape) for one in curve.replicates]  # without panels
    np.testing.assert_allclose(values.sum(-1), levels, rtol=1e-4)
    assert (values.std(0) > 0).any()
    dets, _ = _of_replicates(curve, "log_det", snr, 0.3)
    np.testing.assert_allclose(dets.mean(0), curve.log_det(snr, 0.3), rtol=1e-12)
    dets, _ = _of_replicates(curve, "log_det", snr, 1e-9)  # the same draws: to first order the trace itself
    np.testing.assert_allclose(dets, 1e-9 * np.array(levels), rtol=1e-7)


# A coordinate that is N(0, 1) for all components adds nothing to what quadrature on the line knows.
@pytest.mark.parametrize(
    ("rare", "away", "width"),  # of one covariance, and of two
    [(1e-2, 3.0, 1.0), (1e-4, 3.0, 1.0), (3e-6, 8.0, 1.0), (1e-4, 8.0, 0.4), (3e-6, 8.0, 0.4)],
)
def test_a_rare_component_is_drawn_often_enough(rare, away, width, monkeypatch):
    monkeypatch.setattr(posterior, "MOST_DRAWS", posterior.LEAST_DRAWS)  # as of many components
    law = np.array([1 - rare, rare]), np.array([0.0, away]), np.array([1.0, width])
    curve = targets.mixture(law[0], [[0.0, 0.0], [away, 0.0]], [[1.0, 1.0], [width, 1.0]]).mmse
    for snr in (0.1, 1.0, 3.0):
        between = oracles.mixture_mmse(law, snr) - 1 / (1 + snr)  # what the rare component adds
        got, error = curve(np.array([snr]))[0] - 2 / (1 + snr), curve.standard_error(np.array([snr]))[0]
        assert abs(got - between) < 5 * error + 1e-12
    grid = grids.log_snr(5.0, 0.05, 10)
    line = targets.mixture(law[0], law[1][:, None], law[2][:, None])
    exact = targets.product([line, targets.gaussian([0.0], [1.0])]).mmse
    for kernel in ("moment_matched", "covariance_matched"):
        samples = path_kl_samples(kernel, curve, grid)
        assert abs(samples.mean() - path_kl(kernel, exact, grid)) < 5 * samples.std(ddof=1) / 4 + 1e-12
    apart = np.array([path_kl("moment_matched", one, grid, basis=curve.basis) for one in curve.replicates])
    want = path_kl("moment_matched", exact, grid, basis=exact.basis)
    assert abs(apart.mean() - want) < 5 * apart.std(ddof=1) / 4 + 1e-12


@pytest.mark.parametrize("narrow", [1e-4, 1e-8])
def test_components_of_very_different_widths_lose_no_digits(narrow):
    law = np.array([0.5, 0.5]), np.array([0.0, 0.3]), np.array([1.0, narrow])
    mmse = targets.mixture(law[0], law[1][:, None], law[2][:, None]).mmse
    snr = np.array([1.0, 1e4, 1e6])
    np.testing.assert_allclose(mmse(snr), [oracles.mixture_mmse(law, level) for level in snr], rtol=1e-9)


@pytest.mark.parametrize("h", [0.01, 1.0, 300.0])
def test_log_det_of_a_product_law_is_the_sum_of_its_factors(h):
    coin = np.array([_log_det_on_the_line(([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0]), s, h) for s in SNR])
    line = np.array([_log_det_on_the_line((WEIGHTS, CENTRES, WIDTHS), s, h) for s in SNR])
    rest = sum(np.log1p(h * s / (1 + SNR * s)) for s in REST)
    for target, want in ((SQUARE, 2 * coin), (TURNED, line + rest)):
        _, error = _of_replicates(target.mmse, "log_det", SNR, h)
        assert (np.abs(target.mmse.log_det(SNR, h) - want) < 5 * error).all()
        assert (error < 0.03 * want).all()


def test_path_kl_of_covariance_matching_adds_up_over_factors_within_its_error():
    for target, factors in ((SQUARE, (COIN, COIN)), (TURNED, (LINE,))):  # a Gaussian factor costs nothing
        want = sum(path_kl("covariance_matched", one.mmse, GRID) for one in factors)
        got, error = (f("covariance_matched", target.mmse, GRID) for f in (path_kl, path_kl_error))
        assert abs(got - want) < 5 * error
        assert 0 < error < 0.15 * want
        for one in target.mmse.replicates:  # Jensen, of the same draws
            matched = path_kl("moment_matched", one, GRID)
            assert path_kl("covariance_matched", one, GRID) < matched


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("d", [2, 16])
@pytest.mark.parametrize("nearly", [0.0, 1e-13])  # one covariance, or two that are told apart
def test_equal_components_are_the_gaussian_they_make(d, nearly):
    root = np.random.default_rng(d).normal(size=(d, d)) / np.sqrt(d)
    mean, cov = np.ones(d), root @ root.T + 0.05 * np.eye(d)
    law, gaussian = targets.mixture(WEIGHTS, [mean, mean], [cov, cov * (1 + nearly)]), targets.gaussian(mean, cov)
    h = np.array([[0.1], [20.0]])
    np.testing.assert_allclose(law.mmse.log_det(SNR, h), gaussian.mmse.log_det(SNR, h), rtol=1e-10)
    np.testing.assert_allclose(law.mmse.directions(SNR).sum(-1), gaussian.mmse(SNR), rtol=1e-10)


def test_covariance_matching_of_a_mixture_costs_nothing_where_it_is_a_gaussian(monkeypatch):
    monkeypatch.setattr(posterior, "MOST_DRAWS", posterior.LEAST_DRAWS)
    near = targets.mixture(WEIGHTS, [[-1e-3, 0.0], [1e-3, 0.0]], [[0.5, 0.1], [0.4, 0.1]])
    grid = exponential_then_uniform(3.0, 0.01, 10)
    assert path_kl("ancestral", near.mmse, grid) > 0.1
    far = targets.mixture(WEIGHTS, [[-1.5, 0.0], [1.0, 0.0]], [[0.5, 0.1], [0.4, 0.1]])
    assert abs(path_kl("covariance_matched", near.mmse, grid)) < 0.02 * path_kl("covariance_matched", far.mmse, grid)


def test_a_log_det_that_would_take_too_long_is_refused_when_asked_for():
    law = targets.point_masses(RNG.normal(size=(600, 400)))
    assert law.mmse.replicates[0].value.value(np.array([1.0])) > 0  # one level, not a panel of twelve
    with pytest.raises(ValueError, match=r"600 components in 400 dimensions.*use moment_matched"):
        law.mmse.log_det(1.0, 0.1)
    few = targets.point_masses(RNG.normal(size=(5, 400)))  # in four dimensions
    assert few.mmse.log_det(0.01, 0.1) > 0


def test_more_coordinates_than_an_eigenvalue_problem_takes_have_no_directions(monkeypatch):
    points = RNG.normal(size=(4, 6))
    want = targets.point_masses(points).mmse
    monkeypatch.setattr(posterior, "MOST_COORDINATES", 5)
    curve = targets.point_masses(points).mmse
    assert curve.directions is None
    assert curve.basis is None
    assert all(one.directions is None for one in curve.replicates)
    _, error = _of_replicates(want, "log_det", 1.0, 2.0)
    assert abs(curve.log_det(1.0, 2.0) - want.log_det(1.0, 2.0)) < 8 * error


def test_blocks_do_not_change_a_monte_carlo_curve(monkeypatch):
    points = np.random.default_rng(3).normal(size=(30, 2))
    monkeypatch.setattr(posterior, "_draws", lambda k, d: 16)
    curve = lambda: targets.point_masses(points).mmse
    whole = curve()(SNR), curve().log_det(SNR, 0.3)
    monkeypatch.setattr(components, "ELEMENTS_AT_ONCE", 1000)
    np.testing.assert_allclose(curve()(SNR), whole[0], rtol=1e-12)
    np.testing.assert_allclose(curve().log_det(SNR, 0.3), whole[1], rtol=1e-11)


def test_there_are_fewer_draws_the_more_each_of_them_takes():
    assert posterior._draws(2, 3) * posterior.REPLICATES == posterior.MOST_DRAWS
    assert posterior._draws(1797, 64) * posterior.REPLICATES == posterior.LEAST_DRAWS
    pairs = posterior._draws(60_000, 784) * posterior.REPLICATES
    assert 128 <= pairs < 200
    assert posterior._draws(10**6, 3072) * posterior.REPLICATES == posterior.FEWEST_DRAWS


def _peak(function):
    """Bytes that NumPy held at most while it ran, beyond those held before."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = function()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak, kept


def test_a_data_set_takes_a_few_times_its_own_memory(monkeypatch):
    monkeypatch.setattr(posterior, "LEAST_DRAWS", 1024)  # whose distances from the points take 10 times the memory
    points = RNG.normal(size=(4000, 100))
    peak, law = _peak(lambda: targets.point_masses(points))
    assert peak < 2 * points.nbytes
    level = lambda curve: curve.value.value(np.array([0.05]))  # one level, not a panel of twelve
    peak, value = _peak(lambda: level(law.mmse.replicates[0]))
    assert value > 0
    assert peak < 6 * points.nbytes
    peak, _ = _peak(lambda: law.mmse.directions(np.array([0.05])))
    assert peak < 6 * points.nbytes


def test_a_level_of_many_points_agrees_with_a_sum_over_them():
    """Posterior variances at the curve's own kind of observation, the squared distances written out."""
    points = RNG.normal(size=(300, 4)) @ np.diag([2.0, 1.0, 0.5, 0.1])
    curve, snr = targets.point_masses(points).mmse, 1.5
    y = np.repeat(points, 40, axis=0) + RNG.normal(size=(12_000, 4)) / np.sqrt(snr)
    share = np.exp(-0.5 * snr * np.sum((y[:, None] - points) ** 2, axis=-1))
    share /= share.sum(-1, keepdims=True)
    mean = share @ points
    variance = share @ np.sum(points**2, axis=-1) - np.sum(mean**2, axis=-1)
    error = np.hypot(variance.reshape(300, 40).std(1).mean() / np.sqrt(12_000), curve.standard_error(snr))
    assert abs(curve(snr) - variance.mean()) < 5 * error
