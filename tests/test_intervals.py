"""Intervals of means: copies, tails, bounded rows; against binomial and cluster sums, closed forms, Pareto's law."""

import numpy as np
import pytest
from scipy import optimize, stats

from jaxdiff.certificate import Term
from jaxdiff.intervals import bounded, copied, copies, doubts, hill_index, independent, row_ids, skewness

LAWS = {
    "normal": (lambda rng, n: rng.standard_normal(n), 1.0),
    "uniform": (lambda rng, n: rng.uniform(-1, 1, n), 1 / 3),
    "spike": (lambda rng, n: np.where(rng.random(n) < 0.02, 5 * rng.standard_normal(n), 0.0), 0.5),
    "student": (lambda rng, n: rng.standard_t(3, n), 3.0),
}


def ancestral_rows(law, n, rng):
    """A row's path KL, quadratic in X_0 for a linear denoiser, up to scale and constant: (rows, their mean)."""
    draw, moment = LAWS[law]
    return draw(rng, n) ** 2 / moment + 0.1 * rng.chisquare(4, n) / 4, 1.1


def interval(samples):
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    term = Term("", samples.mean(), error, "measured", "", degrees=len(samples) - 1, skewness=skewness(samples))
    return term.value - term.half_width_below(0.975), term.value + term.half_width_above(0.975)


def covered(law, n, repetitions, copies_of_each=1):
    rng, hits, student = np.random.default_rng(5), 0, 0
    for _ in range(repetitions):
        samples, mean = ancestral_rows(law, n, rng)
        ids = np.tile(np.arange(n), copies_of_each)
        units = independent(np.tile(samples, copies_of_each), ids)
        low, high = interval(units)
        hits += low <= mean <= high
        reach = stats.t.ppf(0.975, n - 1) * samples.std(ddof=1) / np.sqrt(n)
        student += abs(samples.mean() - mean) <= reach
    return hits / repetitions, student / repetitions


@pytest.mark.parametrize(("law", "least", "most"), [("normal", 0.92, 0.98), ("uniform", 0.92, 0.98)])
@pytest.mark.parametrize("copies_of_each", [1, 2])
def test_the_interval_covers_the_truth_as_often_as_it_says_with_and_without_copies(law, least, most, copies_of_each):
    assert least <= covered(law, 200, 600, copies_of_each)[0] <= most


def test_skewed_rows_are_covered_where_students_interval_is_not():
    found, student = covered("spike", 200, 400)
    assert student < 0.8
    assert found > 0.85


def test_copies_make_the_cluster_robust_standard_error():
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 30, 60)
    samples = rng.standard_normal(30)[ids] + 0.3 * rng.standard_normal(60)
    units = independent(samples, ids)
    groups = np.array([np.sum(samples[ids == one] - samples.mean()) for one in np.unique(ids)])
    count = len(groups)
    want = np.sqrt(count / (count - 1) * np.sum(groups**2)) / 60
    assert len(units) == count
    assert units.mean() == pytest.approx(samples.mean(), rel=1e-12)
    assert units.std(ddof=1) / np.sqrt(count) == pytest.approx(want, rel=1e-12)


def test_atoms_of_a_law_are_no_copies():
    rng = np.random.default_rng(2)
    coin = rng.integers(0, 2, 100)
    assert copies(coin) is None
    sparse = np.where(rng.random(400) < 0.5, 0, np.arange(400))
    assert copies(sparse) is None
    assert copied(coin) == copied(None) == copied(np.arange(9)) == ()
    assert "60 rows 30 are copies" in copied(np.tile(np.arange(30), 2))[0]
    assert copied(np.append(np.arange(999), 0)) == ()  # one in a thousand


def test_equal_rows_share_a_number():
    rows = np.array([[0.0, 1.0], [2.0, 1.0], [-0.0, 1.0], [1.0, 0.0]], np.float32)
    ids = row_ids(rows)
    assert ids[0] == ids[2]
    assert len(set(ids.tolist())) == 3


def test_skewness_is_scipys_and_none_of_equal_samples():
    samples = np.random.default_rng(3).exponential(size=50)
    assert skewness(samples) == pytest.approx(stats.skew(samples), rel=1e-12)
    assert skewness(-1e-200 * samples) == pytest.approx(-stats.skew(samples), rel=1e-9)
    assert skewness(np.full(9, 0.1)) == skewness(np.array([0.0, 1.0])) == 0.0


@pytest.mark.parametrize("index", [1.0, 3.0])
def test_hills_index_of_paretos_law_is_its_own(index):
    logs = np.sort(np.random.default_rng(4).exponential(size=100_000) / index)[::-1]
    found, k = hill_index(logs)
    assert k == 316
    assert found == pytest.approx(index, rel=4 / np.sqrt(k))
    assert hill_index(np.ones(20))[0] == np.inf


@pytest.mark.parametrize("n", [200, 1000])
def test_heavy_tails_are_doubted_and_ordinary_rows_are_not(n):
    rng = np.random.default_rng(6)
    share = {law: np.mean([bool(doubts(ancestral_rows(law, n, rng)[0])) for _ in range(200)]) for law in LAWS}
    assert max(share["normal"], share["uniform"]) <= 0.06
    assert share["spike"] > 0.85
    assert share["student"] > 0.5
    assert doubts(np.ones(50)) == ()


def test_a_doubt_says_what_and_what_to_do():
    heavy = np.random.default_rng(7).pareto(1.0, 1000)
    skewed, tail = doubts(heavy)
    assert "skewness is" in skewed
    assert "of 1000 rows makes up" in skewed
    assert "Hill's tail index" in tail
    assert skewed.endswith("radius= (with a clipped denoiser)")


# Of a coin's mean every number of heads has a known probability: coverage is a sum, not a simulation.
@pytest.mark.parametrize("n", [5, 40])
def test_a_bounded_interval_covers_every_coin_at_any_size(n):
    ends = []
    for heads in range(n + 1):
        below, above = bounded(3 * (np.arange(n) < heads) - 1.0, -1.0, 2.0, 0.95)
        ends.append((heads / n - below / 3 - 1e-12, heads / n + above / 3 + 1e-12))
    low, high = np.array(ends).T
    for p in np.linspace(0, 1, 101):
        assert stats.binom.pmf(np.arange(n + 1), n, p)[(low <= p) & (p <= high)].sum() >= 0.95 - 1e-12
    assert ((low > -0.01) & (high < 1.01)).all()


# Empirical Bernstein's half width, of Maurer and Pontil's Theorem 4 (arXiv:0907.3740).
@pytest.mark.parametrize(("n", "width", "least"), [(40, 1.0, 1.2), (2000, 100.0, 2.5), (10_000, 1.0, 0.85)])
def test_it_is_much_narrower_than_bernsteins_where_the_range_is_wide(n, width, least):
    samples = np.random.default_rng(8).uniform(0.4, 0.6, n)
    log_term = np.log(4 / 0.05)
    half = np.sqrt(2 * samples.var(ddof=1) * log_term / n) + 7 * width * log_term / (3 * (n - 1))
    below, above = bounded(samples, 0.5 - width / 2, 0.5 + width / 2, 0.95)
    assert least < 2 * half / (below + above)
    again = bounded(samples[::-1], 0.5 - width / 2, 0.5 + width / 2, 0.95)
    assert again == pytest.approx((below, above), rel=1e-9)


# Of equal rows x the wealth at m is the mean over j of (1 + 2^-j (x - m)/m)^n; at the end it is 2/(1 - confidence).
@pytest.mark.parametrize(("n", "stakes"), [(1, [1.0]), (4, [1.0, 0.5]), (16, [1.0, 0.5, 0.25])])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_a_betting_interval_of_equal_rows_ends_where_the_wealth_is_enough(n, stakes, confidence):
    def least(x):
        wealth = lambda m: np.mean([(1 + stake * (x - m) / m) ** n for stake in stakes])
        return optimize.brentq(lambda m: wealth(m) - 2 / (1 - confidence), 1e-6, x)

    below, above = bounded(np.full(n, 2 + 5 * 0.3), 2.0, 7.0, confidence)
    assert below == pytest.approx(5 * (0.3 - least(0.3)), rel=1e-8)
    assert above == pytest.approx(5 * (0.7 - least(0.7)), rel=1e-8)
