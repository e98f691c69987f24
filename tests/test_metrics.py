"""Distances between samples against shifts known in closed form and an optimal assignment."""

import jax
import numpy as np
import ot
import pytest
from numpy.polynomial.hermite_e import hermegauss
from scipy.optimize import linear_sum_assignment
from scipy.special import erf
from scipy.stats import chi2

from jaxdiff import metrics

RNG = np.random.default_rng(0)


def test_shift_on_the_line_is_its_own_distance(key):
    x = RNG.normal(size=(50, 1))
    distance = metrics.sliced_w2(x, x + 2.5, key)
    assert distance.value == pytest.approx(2.5, rel=1e-12)
    assert distance.standard_error < 1e-12


@pytest.mark.parametrize("d", [2, 5])
def test_shift_has_its_length_over_the_root_of_the_dimension(key, d):
    x, shift = RNG.normal(size=(40, d)), RNG.normal(size=d)
    distance = metrics.sliced_w2(x, x + shift, key, n_projections=4000)
    squared = shift @ shift  # over the sphere, E (u.shift)^2 = |shift|^2/d and E (u.shift)^4 = 3 |shift|^4/(d (d + 2))
    spread = squared * np.sqrt(3 / (d * (d + 2)) - 1 / d**2)
    error = spread / np.sqrt(4000) / (2 * np.sqrt(squared / d))
    assert abs(distance.value - np.sqrt(squared / d)) < 5 * error
    # the error's own error: E (u.e)^2k = (2k - 1)!!/(d (d + 2) ... (d + 2k - 2)) gives the kurtosis of (u.shift)^2
    m1, m2, m3, m4 = np.cumprod([(2 * k - 1) / (d + 2 * k - 2) for k in (1, 2, 3, 4)])
    variance, fourth = m2 - m1**2, m4 - 4 * m3 * m1 + 6 * m2 * m1**2 - 3 * m1**4
    relative = np.sqrt((fourth / variance**2 - 1) / 4000) / 2 + error / np.sqrt(squared / d)
    assert distance.standard_error == pytest.approx(error, rel=5 * relative)


def test_one_sample_in_two_orders_is_at_no_distance(key):
    x = RNG.normal(size=(40, 3))
    assert metrics.sliced_w2(x, x[RNG.permutation(40)], key) == (0.0, 0.0)


@pytest.mark.parametrize(("n", "m"), [(7, 7), (5, 7), (4, 6), (1, 9)])
def test_unequal_sizes_agree_with_an_optimal_assignment(key, n, m):
    x, y = RNG.normal(size=(n, 1)), 2 * RNG.normal(size=(m, 1)) + 1
    cost = (np.repeat(x, m, axis=0) - np.repeat(y, n, axis=0).T) ** 2  # every point split into equal masses
    want = np.sqrt(cost[linear_sum_assignment(cost)].mean())
    assert metrics.sliced_w2(x, y, key).value == pytest.approx(want, rel=1e-10)
    assert metrics.sliced_w2(y, x, key).value == pytest.approx(want, rel=1e-10)


# POT solves the transport problem as a linear program; on the line sorting solves it.
@pytest.mark.parametrize(("n", "m"), [(8, 8), (13, 5), (20, 33)])
def test_a_sliced_distance_is_the_mean_of_exact_ones_by_linear_programs(key, n, m):
    x, y = RNG.normal(size=(n, 3)), RNG.gamma(2, size=(m, 3))
    directions = np.asarray(jax.random.normal(key, (3, 20)), np.float64)
    directions = directions / np.linalg.norm(directions, axis=0)
    squares = [ot.emd2([], [], ot.dist(x @ u[:, None], y @ u[:, None])) for u in directions.T]
    found = metrics.sliced_w2(x, y, key, n_projections=20)
    assert found.value == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-9)
    whole = ot.emd2([], [], ot.dist(x, y))  # no direction is further than the whole: W2(u.x, u.y) <= W2(x, y)
    assert max(squares) <= whole * (1 + 1e-12)


def test_distance_ignores_a_common_shift_and_follows_the_units(key):
    x, y = RNG.normal(size=(30, 3)), RNG.gamma(2, size=(45, 3))
    distance = metrics.sliced_w2(x, y, key)
    assert distance.standard_error > 0
    np.testing.assert_allclose(metrics.sliced_w2(x + 7, y + 7, key), distance, rtol=1e-9)
    np.testing.assert_allclose(metrics.sliced_w2(3 * x, 3 * y, key), np.multiply(3, distance), rtol=1e-9)
    assert metrics.sliced_w2(x, y, jax.random.key(3)).value != distance.value


@pytest.mark.parametrize(("x", "y"), [((4, 2), (4, 3)), ((4,), (4,)), ((4, 2), (2,))])
def test_samples_of_different_width_are_refused(key, x, y):
    with pytest.raises(ValueError, match=r"of one width: .*\(4") as caught:
        metrics.sliced_w2(np.zeros(x), np.zeros(y), key)
    assert str(x) in str(caught.value)
    assert str(y) in str(caught.value)


def test_a_classifier_is_at_chance_on_one_law_and_right_on_two():
    pytest.importorskip("sklearn")
    x, same = RNG.normal(size=(2, 200, 3))
    chance = metrics.classifier_accuracy(x, same)
    assert chance.standard_error == pytest.approx(np.sqrt(chance.value * (1 - chance.value) / 400), rel=1e-12)
    assert abs(chance.value - 0.5) < 5 * chance.standard_error
    assert metrics.classifier_accuracy(x, same + 8) == (1.0, 0.0)
    ring = 6 * same / np.linalg.norm(same, axis=1, keepdims=True)  # one mean for both: no line separates them
    assert metrics.classifier_accuracy(x, ring).value > 0.98
    assert metrics.classifier_accuracy(x, same) == chance


# Without groups a twin tells the classifier the label of the other: its mean was 0.64 here.
def test_a_classifier_is_at_chance_on_one_law_whose_rows_occur_twice():
    pytest.importorskip("sklearn")
    accuracies = []
    for seed in range(20):
        x, y = np.repeat(np.random.default_rng(seed).normal(size=(2, 30, 2)), 2, axis=1)
        accuracies.append(metrics.classifier_accuracy(x, y, seed=seed))
    values = np.array([one.value for one in accuracies])
    assert abs(values.mean() - 0.5) < 4 * values.std(ddof=1) / np.sqrt(20)
    for value, error in accuracies:  # of 60 independent rows, not of 120
        assert error == pytest.approx(np.sqrt(value * (1 - value) / 60), rel=1e-12)


def test_a_classifier_cannot_tell_a_sample_from_itself():
    pytest.importorskip("sklearn")
    x = np.random.default_rng(0).normal(size=(40, 2))
    assert metrics.classifier_accuracy(x, x).value == 0.5
    noise = 1e-3 * np.random.default_rng(1).normal(size=(2, 40, 2))
    ids = np.tile(np.arange(40), 2)
    apart = metrics.classifier_accuracy(x + noise[0], x + noise[1], row_ids=ids)
    assert abs(apart.value - 0.5) < 4 * apart.standard_error
    assert apart.standard_error == pytest.approx(np.sqrt(apart.value * (1 - apart.value) / 40), rel=1e-12)


# Chance is p for two coins of sides p and 1 - p. Their sides are atoms: 60 rows of one side are 60 draws.
def test_a_classifier_sees_coins_and_a_sampler_that_collapsed():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    coins = (rng.uniform(size=(2, 200, 1)) < np.array([0.9, 0.1])[:, None, None]).astype(float)
    found = metrics.classifier_accuracy(*coins)
    assert found.value == pytest.approx((coins[0].mean() + 1 - coins[1].mean()) / 2, abs=1e-12)
    assert found.standard_error == pytest.approx(np.sqrt(found.value * (1 - found.value) / 400), rel=1e-12)
    fresh = rng.normal(size=(100, 3))
    for n_points in (1, 5, 10, 20):
        collapsed = rng.normal(size=(n_points, 3))[rng.integers(0, n_points, 100)]
        assert metrics.classifier_accuracy(collapsed, fresh).value > 0.65


# One of two folds has both rows of y, or of x, and a copy: one sample alone is left to train on, and tells nothing.
def test_a_classifier_of_few_copied_rows_is_a_number():
    pytest.importorskip("sklearn")
    x, y = np.random.default_rng(0).normal(size=(2, 2, 1))
    for seed in range(20):
        assert 0 <= metrics.classifier_accuracy(x, y, seed=seed, row_ids=[0, 1, 0, 2]).value <= 1


def test_rows_that_differ_fall_into_folds_of_equal_shares():
    pytest.importorskip("sklearn")
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    x, y = np.random.default_rng(2).normal(size=(2, 50, 2))
    folds = StratifiedKFold(5, shuffle=True, random_state=7)
    model = make_pipeline(StandardScaler(), SVC(C=10.0))
    want = cross_val_score(model, np.concatenate([x, y]), np.repeat([0, 1], 50), cv=folds).mean()
    assert metrics.classifier_accuracy(x, y, seed=7).value == want


def test_a_classifier_needs_two_independent_rows_a_sample():
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="one has 1"):
        metrics.classifier_accuracy(np.zeros((2, 1)), np.arange(2.0)[:, None], row_ids=[0, 0, 1, 2])
    with pytest.raises(ValueError, match="one has 1"):
        metrics.classifier_accuracy(np.zeros((1, 1)), np.ones((1, 1)))


# The pairs of twins are at distance 0, a share 1/(n - 1) of those inside a sample; E|X - X'| = sqrt(pi) in the plane.
def test_energy_distance_of_twins_is_too_large_by_the_share_of_their_pairs():
    rng, n = np.random.default_rng(3), 40
    twins = lambda: np.repeat(rng.normal(size=(n // 2, 2)), 2, axis=0)
    values = np.array([metrics.energy_distance(twins(), twins()).value for _ in range(300)])
    assert abs(values.mean() - 2 * np.sqrt(np.pi) / (n - 1)) < 4 * values.std() / np.sqrt(300)
    assert values.mean() > 10 * values.std() / np.sqrt(300)


def test_a_classifier_needs_samples_of_equal_size():
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="20 and 30 rows"):
        metrics.classifier_accuracy(np.zeros((20, 2)), np.zeros((30, 2)))


def test_energy_distance_of_two_normals_has_its_closed_form_and_its_error():
    n, m, shift, width, repetitions = 400, 1200, 0.3, 2.5, 50
    folded = lambda mean, s: (
        s * np.sqrt(2 / np.pi) * np.exp(-(mean**2) / (2 * s**2)) + mean * erf(mean / s / np.sqrt(2))
    )
    want = 2 * folded(shift, np.hypot(1, width)) - folded(0, np.sqrt(2)) - folded(0, width * np.sqrt(2))
    found = [
        metrics.energy_distance(RNG.normal(size=(n, 1)), RNG.normal(shift, width, size=(m, 1)))
        for _ in range(repetitions)
    ]
    values, squares = np.array(found).T ** [[1], [2]]
    assert abs(values.mean() - want) < 5 * values.std() / np.sqrt(repetitions)  # unbiased
    # The leading variance: of 2 E|x - Y| - 2 E|x - X'| over x, of 2 E|X - y| - 2 E|y - Y'| over y, by quadrature.
    nodes, weights = hermegauss(80)
    from_x = lambda x: 2 * folded(x - shift, width) - 2 * folded(x, 1)
    from_y = lambda y: 2 * folded(y, 1) - 2 * folded(y - shift, width)
    spread = lambda values: np.cov(values, aweights=weights, ddof=0)
    leading = spread(from_x(nodes)) / n + spread(from_y(shift + width * nodes)) / m
    assert abs(squares.mean() - leading) < 5 * squares.std() / np.sqrt(repetitions)
    low, high = chi2.interval(1 - 1e-6, repetitions - 1)  # of the spread they show
    assert low < (repetitions - 1) * values.var(ddof=1) / leading < high


def test_energy_distance_counts_pairs_of_different_rows():
    x, y = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3))
    far = lambda a, b: np.linalg.norm(a - b)
    between = np.mean([far(a, b) for a in x for b in y])
    inside = [np.mean([far(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    assert metrics.energy_distance(x, y).value == pytest.approx(2 * between - sum(inside), rel=1e-12)


def test_energy_distance_of_too_few_rows_is_refused():
    with pytest.raises(ValueError, match="1 and 4"):
        metrics.energy_distance(np.ones((1, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="of one width"):
        metrics.energy_distance(np.ones((5, 2)), np.ones((4, 3)))
