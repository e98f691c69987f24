"""The exponential moment: closed forms, tails of a known index, and the bound for truncated scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from oracles import mixture_density, mixture_score

from jaxdiff import losses, scores, targets
from jaxdiff.guarantees.exponential_moment import exponential_moment, moment_bound, of_squares

FEW = settings(max_examples=60, deadline=None, derandomize=True)


def scaled(factor, x, t):
    return factor * x


# E exp(eps^2 |X|^2/alpha) = (1 - 2 eps^2 V/alpha)^(-d/2) on N(0, V I), and Y has a tail of index alpha/(2 eps^2 V).
@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("index", [8.0, 20.0, 300.0])
@pytest.mark.parametrize("variance", [0.3, 4.0])
def test_the_moment_of_a_linear_error_on_a_gaussian_is_its_closed_form(d, index, variance, key):
    alpha, n = 0.7, 40_000
    eps = np.sqrt(alpha / (2 * variance * index))
    x = np.sqrt(variance) * jax.random.normal(key, (n, d))
    found = exponential_moment(Partial(scaled, eps - 2.0), Partial(scaled, -2.0), x, 0.5, alpha=alpha)
    assert abs(found.value + d / 2 * np.log1p(-1 / index)) < 5 * found.standard_error
    assert abs(found.l2 - d * variance * eps**2) < 5 * found.l2_error
    assert found.trusted
    assert found.doubts == ()
    assert np.isnan(found.bound)


def test_the_numbers_are_those_of_plain_sums():
    squares, alpha = np.random.default_rng(0).exponential(size=500), 3.0
    y, n = np.exp(squares / alpha), 500
    found = of_squares(squares, alpha)
    assert found.value == pytest.approx(np.log(np.mean(y)), rel=1e-12)
    assert found.standard_error == pytest.approx(np.std(y, ddof=1) / np.sqrt(n) / np.mean(y), rel=1e-10)
    assert found.l2 == pytest.approx(np.mean(squares), rel=1e-12)
    assert found.l2_error == pytest.approx(np.std(squares, ddof=1) / np.sqrt(n), rel=1e-12)
    assert found.effective_samples == pytest.approx(np.sum(y) ** 2 / np.sum(y**2), rel=1e-10)
    largest = np.sort(y)[::-1]  # Hill: the mean log excess over the (k + 1)-th largest
    hill = 1 / np.mean(np.log(largest[:22] / largest[22]))
    assert found.hill_index == pytest.approx(hill, rel=1e-10)
    assert found.hill_error == pytest.approx(hill / np.sqrt(22), rel=1e-10)
    order = np.random.default_rng(1).permutation(500)
    assert of_squares(squares[order], alpha).value == pytest.approx(found.value, rel=1e-12)


def test_the_error_of_the_value_is_that_seen_among_samples():
    rng, alpha = np.random.default_rng(2), 1.0
    found = [of_squares(rng.exponential(1 / 8, 400), alpha) for _ in range(400)]  # E Y = 8/7, index 8
    values, errors = (np.array([getattr(one, name) for one in found]) for name in ("value", "standard_error"))
    z = (values - np.log(8 / 7)) / np.mean(errors)
    assert abs(np.mean(z)) < 5 / np.sqrt(400) + 0.1  # the log's own bias, half a variance
    assert abs(np.var(z) - 1) < 5 * np.sqrt(np.mean((z - z.mean()) ** 4) - np.var(z) ** 2) / np.sqrt(400)


# exp of an exponential variable of rate a is Pareto of index a, and its log excesses are exponential: exactly so.
@pytest.mark.parametrize("index", [0.5, 1.5, 3.0, 30.0])
@pytest.mark.parametrize("n", [100, 10_000, 250_000])
def test_the_index_of_a_pareto_tail_is_found(index, n):
    alpha, k = 2.5, int(np.sqrt(n))
    found = of_squares(np.random.default_rng(n).exponential(alpha / index, n), alpha)
    # k/index_found is a sum of k exponential variables over the index
    assert abs(index / found.hill_index - 1) < 5 / np.sqrt(k)
    assert found.hill_error == pytest.approx(found.hill_index / np.sqrt(k), rel=1e-12)


def test_a_tail_without_a_mean_or_a_variance_is_doubted():
    rng, n = np.random.default_rng(3), 1_000_000
    for index, words in ((0.4, "no mean"), (1.5, "no variance"), (2.05, "perhaps no variance")):
        found = of_squares(rng.exponential(1 / index, n), 1.0)
        assert not found.trusted
        assert any(f"Hill tail index is {found.hill_index:.3g}" in doubt for doubt in found.doubts)
        assert any(doubt.startswith(f"exp(|e|^2/alpha) has {words}") for doubt in found.doubts)
    assert of_squares(rng.exponential(1 / 10, n), 1.0).doubts == ()


def test_few_effective_samples_are_doubted():
    assert of_squares(np.ones(99), 1.0).doubts == ("the estimate has 99 effective samples, fewer than 100",)
    assert of_squares(np.ones(100), 1.0).doubts == ()
    found = of_squares(np.append(np.zeros(9_900), np.full(99, 50.0)), 1.0)  # all of the mean rests on 99 of 9,999
    assert found.effective_samples == pytest.approx(99, abs=1e-6)
    assert found.doubts[0] == "the estimate has 99 effective samples, fewer than 100"


@pytest.mark.parametrize("n", [200, 1000, 100_000])
def test_small_bounded_errors_are_not_doubted(n):
    found = of_squares(np.random.default_rng(4).uniform(0, 0.01, n), 1.0)
    assert found.trusted
    assert abs(found.value - np.log(np.expm1(0.01) / 0.01)) < 5 * found.standard_error


@pytest.mark.parametrize("w", [0.0, 0.1, 1 / 3, 7.0, 1e6])
def test_equal_errors_are_known_exactly(w):
    found = of_squares(np.full(1000, w), 1.0)
    assert (found.value, found.standard_error, found.effective_samples) == (w, 0.0, 1000.0)
    assert found.trusted
    assert found.hill_index > 1e9  # inf, but for the rounding of a mean


def test_huge_errors_do_not_overflow():
    rng = np.random.default_rng(5)
    squares = 1e6 * rng.uniform(0.5, 1, 1000)
    found = of_squares(squares, 1.0)
    assert np.isfinite([found.value, found.standard_error, found.effective_samples, found.hill_index]).all()
    # log of the mean: the largest term alone, and no more than all as large
    assert squares.max() - np.log(1000) <= found.value <= squares.max()
    assert not found.trusted


# The bound for truncated scores.
def reach_of(t, radius):
    """b = 2 c R/sigma^2."""
    return 2 * np.exp(-t) * radius / -np.expm1(-2 * t)


@pytest.mark.parametrize(
    ("l2", "t", "radius", "alpha"), [(0.1, 1.0, 1.0, 0.97), (2.0, 0.5, 0.3, 1.3), (1e-3, 2.0, 3, 0.8)]
)
def test_the_bound_is_theorys(l2, t, radius, alpha):
    b = reach_of(t, radius)
    want = np.log(1 + l2 * (np.exp(b**2 / alpha) - 1) / b**2)
    assert moment_bound(l2, t, radius, alpha) == pytest.approx(want, rel=1e-12)
    assert losses.moment_bound is moment_bound


# An error that is 0 or b has the moment log(1 - p + p e^(b^2/alpha)) and E|e|^2 = p b^2.
@pytest.mark.parametrize("p", [1e-9, 0.2, 1.0])
def test_the_bound_is_attained_by_errors_that_are_none_or_the_largest(p):
    t, radius, alpha = 0.8, 0.6, 0.9
    b = reach_of(t, radius)
    want = np.log1p(p * np.expm1(b**2 / alpha))
    assert moment_bound(p * b**2, t, radius, alpha) == pytest.approx(want, rel=1e-12)
    if p == 0.2:
        squares = np.append(np.zeros(800), np.full(200, b**2))
        assert of_squares(squares, alpha).value == pytest.approx(want, rel=1e-12)


def test_the_bound_does_not_overflow_and_has_its_limits():
    t, radius, l2 = 0.5, 1.0, 0.3
    b = reach_of(t, radius)
    assert moment_bound(l2, t, radius, b**2 / 1e5) == pytest.approx(1e5 + np.log(l2 / b**2), rel=1e-13)
    for small in (1e-3, 1e-5, 1e-9):  # (e^r - 1)/b^2 = (1 + r/2 + ...)/alpha
        r = reach_of(t, small) ** 2 / 0.9
        assert moment_bound(l2, t, small, 0.9) == pytest.approx(np.log1p(l2 / 0.9 * (1 + r / 2)), rel=1e-13 + r**2)
    for r in (1 - 1e-9, 1 + 1e-9):  # two ways to compute it meet
        want = np.log1p(l2 * (np.e - 1) / b**2)
        assert moment_bound(l2, t, radius, b**2 / r) == pytest.approx(want, rel=1e-8)
    assert moment_bound(0.0, t, radius, 0.9) == 0


def wrong(truth, error, shift, x, t):
    """A score wrong by a linear and a constant part."""
    return truth(x, t) + error * x + shift


# exp lies below its chord between 0 and b^2/alpha, at each draw: so the means do.
@FEW
@given(
    st.integers(0, 2**31), st.sampled_from([1, 3]), st.floats(0.1, 3.0), st.floats(-20, 20), st.floats(-20, 20),
    st.floats(0.01, 10), st.floats(1, 3),
)  # fmt: skip
def test_the_moment_of_a_sample_is_below_the_bound_for_every_truncated_score(seed, d, t, error, shift, alpha, slack):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(5, d))
    truth, radius = targets.point_masses(points).score, slack * float(np.sqrt((points**2).sum(1).max()))
    x = jnp.asarray(
        np.exp(-t) * points[rng.integers(5, size=50)] + np.sqrt(-np.expm1(-2 * t)) * rng.normal(size=(50, d))
    )
    learned = Partial(wrong, truth, error, shift)
    cut = exponential_moment(scores.truncated(learned, radius), truth, x, t, alpha=alpha, radius=radius)
    assert cut.value <= cut.bound * (1 + 1e-9) + 1e-9
    raw = exponential_moment(learned, truth, x, t, alpha=alpha, radius=radius)
    assert raw.bound == pytest.approx(cut.bound, rel=1e-9)  # of the truncated score, whichever is given
    assert cut.l2 <= raw.l2 * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize(("t", "radius"), [(1.0, 1.0), (0.5, 0.4), (1.5, 2.0)])
@pytest.mark.parametrize("error", [0.1, -1.0, 5.0])
def test_the_bound_exceeds_the_moment_that_quadrature_finds(t, radius, error):
    law = [0.5, 0.5], [-radius, radius], [0.0, 0.0]
    x, dx = np.linspace(-15, 15, 20_001, retstep=True)
    q, true = mixture_density(law, x, t) * dx, mixture_score(law, x, t)
    learned = lambda x, t: (error - 1) * x
    e = np.asarray(scores.truncated(learned, radius)(jnp.asarray(x[:, None]), t))[:, 0] - true
    alpha = 0.9
    assert np.abs(e).max() <= reach_of(t, radius) * (1 + 1e-12)
    exact, l2 = np.log(np.sum(q * np.exp(e**2 / alpha))), np.sum(q * e**2)
    assert exact <= moment_bound(l2, t, radius, alpha)
    assert exact >= l2 / alpha - 1e-12  # Jensen


def test_the_errors_are_those_of_the_scores_at_the_time(key):
    x = jax.random.normal(key, (100, 3))
    found = exponential_moment(lambda x, t: x * t, lambda x, t: -x, x, 0.25, alpha=50.0)
    want = of_squares(1.25**2 * np.sum(np.asarray(x) ** 2, axis=1), 50.0)
    np.testing.assert_allclose(found[:7], want[:7], rtol=1e-12)
    single = exponential_moment(lambda x, t: x * t, lambda x, t: -x, x.astype(jnp.float32), 0.25, alpha=50.0)
    assert single.value == pytest.approx(found.value, rel=1e-5)
    assert isinstance(single.value, float)


@pytest.mark.parametrize(
    "squares",
    [
        np.ones(19),
        np.ones((20, 2)),
        np.append(np.ones(20), -1e-9),
        np.append(np.ones(20), np.nan),
        np.append(np.ones(20), np.inf),
    ],
)
def test_squares_that_are_none_are_refused(squares):
    with pytest.raises(
        ValueError, match=r"squares (must be \(n,\) numbers \|e\|\^2, n >= 20|\|e\|\^2 must be finite and not negative)"
    ):
        of_squares(squares, 1.0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.inf, np.nan])
def test_a_constant_that_is_none_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha, the constant of a log-Sobolev inequality, must be positive"):
        of_squares(np.ones(30), alpha)
    with pytest.raises(ValueError, match="alpha, the constant"):
        exponential_moment(lambda x, t: x, lambda x, t: -x, jnp.ones((30, 1)), 1.0, alpha=alpha)


def test_equal_squares_have_no_tail_whatever_their_rounding():
    for value in (0.1, 1 / 3, 7.0):
        found = of_squares(np.full(500, value), 1.0)
        assert found.hill_index == np.inf
        assert found.trusted


def test_a_hundred_equal_samples_are_enough():
    assert of_squares(np.full(100, 0.3), 1.0).doubts == ()


@pytest.mark.parametrize(
    ("l2", "radius", "alpha", "match"),
    [
        (-1.0, 1.0, 1.0, "l2 = -1"),
        (np.nan, 1.0, 1.0, "l2 = nan"),
        (1.0, 0.0, 1.0, "radius = 0"),
        (1.0, 1.0, -1.0, "alpha"),
    ],
)
def test_a_bound_of_nothing_is_refused(l2, radius, alpha, match):
    with pytest.raises(ValueError, match=match):
        moment_bound(l2, 1.0, radius, alpha)
