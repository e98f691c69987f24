"""Distances between samples against shifts known in closed form and an optimal assignment."""

import jax
import numpy as np
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


def test_distance_ignores_a_common_shift_and_follows_the_units(key):
    x, y = RNG.normal(size=(30, 3)), RNG.gamma(2, size=(45, 3))
    distance = metrics.sliced_w2(x, y, key)
    assert distance.standard_error > 0
    np.testing.assert_allclose(metrics.sliced_w2(x + 7, y + 7, key), distance, rtol=1e-9)
    np.testing.assert_allclose(metrics.sliced_w2(3 * x, 3 * y, key), np.multiply(3, distance), rtol=1e-9)
    assert metrics.sliced_w2(x, y, jax.random.key(3)).value != distance.value


@pytest.mark.parametrize(("x", "y"), [((4, 2), (4, 3)), ((4,), (4,)), ((4, 2), (2,))])
def test_samples_of_different_width_are_refused(key, x, y):
    with pytest.raises(ValueError, match=r"of one width .*\(4") as caught:
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


def test_a_classifier_needs_samples_of_equal_size():
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="20 and 30 rows"):
        metrics.classifier_accuracy(np.zeros((20, 2)), np.zeros((30, 2)))


def pooled(folds, x, y, *groups):
    """The classifier's right answers, each row's, by scikit-learn's own cross-validation."""
    svm = pytest.importorskip("sklearn.svm")
    pipeline, selection = (pytest.importorskip(f"sklearn.{name}") for name in ("pipeline", "model_selection"))
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
    rows, labels = np.concatenate([x, y]), np.repeat([0, 1], len(x))
    model = pipeline.make_pipeline(scaler, svm.SVC(C=10.0))
    cv = getattr(selection, folds)(5, shuffle=True, random_state=3)
    told = selection.cross_val_predict(model, rows, labels, cv=cv, groups=groups[0] if groups else None)
    return told == labels, selection.cross_val_score(model, rows, labels, cv=cv, groups=groups[0] if groups else None)


SPIKE = np.concatenate([np.zeros((12, 2)), RNG.normal(size=(88, 2))])
NO_COPIES = {
    "continuous laws": (RNG.normal(size=(101, 2)), RNG.normal(0.5, 1, size=(101, 2))),
    "a Bernoulli law": RNG.integers(0, 2, size=(2, 100, 2)),  # four different rows
    "a spike at zero": (SPIKE, SPIKE[::-1] * (0.5, 2)),
    "a spike on one side": (SPIKE, RNG.normal(size=(100, 2)) * (1, 0) * (np.arange(100) > 0)[:, None]),
}


@pytest.mark.parametrize("case", NO_COPIES)
def test_rows_that_are_no_copies_are_cross_validated_each_for_itself(case):
    x, y = NO_COPIES[case]
    _, scores = pooled("StratifiedKFold", x, y)
    accuracy = metrics.classifier_accuracy(x, y, seed=3)
    assert accuracy.value == scores.mean()  # to the bit
    assert accuracy.standard_error == np.sqrt(scores.mean() * (1 - scores.mean()) / (2 * len(x)))


def test_copies_of_a_row_share_a_fold_whatever_their_number():
    times = np.r_[np.full(10, 4), 1, 1, 1, 2]  # 45 rows; 4 of so few are no atom
    x, y = (np.repeat(part, times, axis=0) for part in RNG.normal([[[0.0]], [[0.5]]], size=(2, 14, 2)))
    y[-1] = x[-1]  # one row of a pair in y is a third copy of a row of x
    groups = np.r_[np.repeat(np.arange(14), times), np.repeat(np.arange(14, 28), times)]
    groups[-1] = 13
    right, scores = pooled("StratifiedGroupKFold", x, y, groups)
    assert right.mean() != scores.mean()  # folds of different sizes
    accuracy = metrics.classifier_accuracy(x, y, seed=3)
    assert accuracy.value == pytest.approx(right.mean(), rel=1e-12)
    effective = 90**2 / np.sum(np.bincount(groups) ** 2)
    assert accuracy.standard_error == pytest.approx(np.sqrt(right.mean() * (1 - right.mean()) / effective), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(10, 1), (40, 3)])
def test_twins_of_one_law_are_at_chance_with_and_without_noise(n, d):
    pytest.importorskip("sklearn")
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        twins = np.repeat(rng.normal(size=(2, n, d)), 2, axis=1)
        noisy = twins + 1e-3 * rng.normal(size=twins.shape)
        told = metrics.classifier_accuracy(*twins), metrics.classifier_accuracy(*noisy, originals=twins)
        found.append([*told, metrics.classifier_accuracy(*noisy)])
    values, errors = np.moveaxis(np.array(found), 2, 0)
    off = (values.mean(0) - 0.5) / np.sqrt(np.mean(errors**2, axis=0) / len(values))
    assert (np.abs(off[:2]) < 3).all()
    assert off[2] > 5  # what happens where copies are not known
    np.testing.assert_allclose(errors[:, :2], np.sqrt(values * (1 - values) / (2 * n))[:, :2], rtol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 60])
def test_a_sample_against_itself_is_at_chance_exactly(n):
    pytest.importorskip("sklearn")
    x = RNG.normal(size=(n, 2))  # one of each pair of copies is told right, whatever is told
    assert metrics.classifier_accuracy(x, x[::-1]) == (0.5, pytest.approx(0.5 / np.sqrt(n), rel=1e-12))


def test_discrete_laws_are_told_apart_by_half_of_their_total_variation():
    pytest.importorskip("sklearn")
    rng, n = np.random.default_rng(5), 400
    one, same, other = (rng.binomial(1, p, size=(n, 1)) for p in (0.3, 0.3, 0.7))
    chance, apart = metrics.classifier_accuracy(one, same), metrics.classifier_accuracy(one, other)
    assert abs(chance.value - 0.5) < 4 * chance.standard_error
    assert abs(apart.value - 0.7) < 4 * apart.standard_error  # (1 + |.7 - .3|)/2


@pytest.mark.parametrize(("n", "points", "least"), [(200, 1, 0.97), (200, 10, 0.7), (12, 2, 0.7), (6, 1, 0.75)])
def test_a_collapsed_sampler_is_found_out(n, points, least):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(1)
    x, at = rng.normal(size=(n, 3)), rng.normal(size=(points, 3))
    assert metrics.classifier_accuracy(x, at[np.arange(n) % points]).value > least


def test_few_rows_with_any_copies_have_an_accuracy():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    for _ in range(60):
        n = rng.integers(2, 10)
        x, y = rng.normal(size=(4, 1))[rng.integers(0, 4, size=(2, n))]
        accuracy = metrics.classifier_accuracy(x, y)
        assert 0 <= accuracy.value <= 1
        assert 0 <= accuracy.standard_error <= 0.5


def test_a_classifier_that_has_seen_one_sample_alone_tells_that_one():
    pytest.importorskip("sklearn")
    x, y = np.array([[[3.0], [0.0], [3.0], [0.0]], [[2.0], [0.0], [2.0], [0.0]]])
    # Folds {0, 2} and {3}, or {0, 3} and {2}: of six rows two zeros are told right, and 2 and 3 are mistaken.
    assert metrics.classifier_accuracy(x, y) == (0.25, pytest.approx(np.sqrt(0.25 * 0.75 * (16 + 4 + 4) / 64)))


def test_originals_of_another_number_are_refused():
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match=r"the 8 rows of x and y .* they have 7 rows"):
        metrics.classifier_accuracy(np.eye(4), np.eye(4), originals=(np.eye(4), np.eye(4)[:3]))


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


# E|X - X'| of N(0, I) is sqrt(2) times the mean of a chi variable: 2/sqrt(pi) on the line, sqrt(pi) in the plane.
@pytest.mark.parametrize(("d", "apart"), [(1, 2 / np.sqrt(np.pi)), (2, np.sqrt(np.pi))])
def test_energy_distance_of_twins_is_too_large_by_two_distances_over_the_rows(d, apart):
    n, rng = 20, np.random.default_rng(d)
    twins = np.repeat(rng.normal(size=(4000, 2, n // 2, d)), 2, axis=2)
    values = np.array([metrics.energy_distance(x, y).value for x, y in twins])
    assert abs(values.mean() - 2 * apart / (n - 1)) < 4 * values.std() / np.sqrt(len(values))


def test_energy_distance_of_too_few_rows_is_refused():
    with pytest.raises(ValueError, match="1 and 4"):
        metrics.energy_distance(np.ones((1, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="of one width"):
        metrics.energy_distance(np.ones((5, 2)), np.ones((4, 3)))
