import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks import simulated_sweep as study
from benchmarks.laws import padded as padded_laws
from benchmarks.oracles import padded_predictions
from benchmarks.samplers import padded_kernels, padded_simulation
from jaxdiff import grids, information, kernels, sweeps, targets
from jaxdiff.targets import mmse as posterior

pytestmark = pytest.mark.slow

GRID = grids.exponential_then_uniform(3.0, 0.01, 36, n_uniform=12)  # of the printed numbers


@pytest.fixture(autouse=True, scope="module")
def _few_draws():
    """Errors of curves and of the chain in the bumps' span are known, and tests add them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posterior, "MOST_DRAWS", posterior.LEAST_DRAWS)
        patch.setattr(padded_predictions, "REFERENCE", 2**12)
        yield


def mask_of(d, width):
    return jnp.arange(width) < d


def padded(name, d, width):
    family, build = (
        (tuple(padded_laws.PRODUCTS), padded_laws.product)
        if name in padded_laws.PRODUCTS
        else (padded_laws.MIXTURES, padded_laws.mixture)
    )
    return build(family.index(name), mask_of(d, width))


def full_target(name, d):
    """The law in all its dimensions at once, without reduction."""
    if name in padded_laws.MIXTURES:
        means = np.stack([np.random.default_rng(k).normal(size=50)[:d] for k in range(8)])
        if name == padded_laws.POINTS:
            return targets.point_masses(np.outer([1.0, -1.0], np.ones(d)))
        return targets.mixture(np.full(8, 1 / 8), means, np.full((8, d), 0.25))
    if name.startswith("±1"):
        return targets.product([targets.point_masses([[-1.0], [1.0]])] * d)
    variance = {"N(0, I)": 1.0, "N(0, I/4)": 0.25, "point mass": 0.0, "8 directions": (np.arange(d) < 8) * 1.0}[name]
    return targets.gaussian(np.zeros(d), np.broadcast_to(variance, d))


score, denoiser = jax.jit(padded_laws.score), jax.jit(padded_laws.denoiser)


@pytest.mark.parametrize("name", padded_laws.LAWS)
@pytest.mark.parametrize("d", [2, 12])
def test_a_padded_score_is_that_of_the_law_whatever_stands_in_the_padding(name, d):
    x = np.random.default_rng(0).normal(size=(5, d)).astype(np.float32)
    garbage = np.concatenate([x, np.full((5, 19 - d), np.nan, np.float32)], 1)
    exact = jax.jit(full_target(name, d).score)
    for t in (0.01, 0.3, 5.0):
        expected = np.asarray(exact(jnp.asarray(x, jnp.float64), t))
        law, times = padded(name, d, 19), jnp.full((5, 1), t, jnp.float32)  # a time for each particle
        found, denoised = (np.asarray(of(law, garbage, times))[:, :d] for of in (score, denoiser))
        rounding = 1e-5 * np.abs(expected).max()  # float32: sigma^2, logits, differences
        np.testing.assert_allclose(found, expected, rtol=0, atol=rounding)
        tweedie = np.exp(t) * (x - np.expm1(-2 * t) * expected)
        np.testing.assert_allclose(denoised, tweedie, rtol=0, atol=1e-5 * (1 + np.abs(tweedie).max()))


@pytest.mark.parametrize("name", padded_laws.LAWS)
def test_the_curve_is_that_of_the_law_in_all_dimensions(name):
    reduced, full = padded_laws.target(name, 12).mmse, full_target(name, 12).mmse
    snr = np.array([1e-3, 0.1, 1.0, 30.0])
    error = 5 * np.hypot(reduced.standard_error(snr), full.standard_error(snr))
    assert (np.abs(reduced(snr) - full(snr)) <= 1e-9 * 12 + error).all()
    assert reduced.dim == 12


draws = jax.jit(padded_laws.draws, static_argnums=(2, 3))


@pytest.mark.parametrize("name", padded_laws.LAWS)
def test_draws_have_the_second_moments_of_the_law_and_do_not_see_the_width(name):
    n, d = 4000, 12
    x, wider = (np.asarray(draws(padded(name, d, width), jax.random.key(3), n, width))[:, :d] for width in (12, 20))
    np.testing.assert_array_equal(x, wider)
    each = np.sum(x**2, 1)
    expected = full_target(name, d).second_moment
    assert abs(each.mean() - expected) <= 5 * each.std() / np.sqrt(n) + 1e-6 * expected
    exact = np.asarray(full_target(name, d).sample(jax.random.key(0), n))
    for of in (lambda x: x[:, 0], lambda x: x[:, 0] * x[:, 1]):
        error = np.hypot(of(x).std(), of(exact).std()) / np.sqrt(n)
        assert abs(of(x).mean() - of(exact).mean()) <= 5 * error + 1e-6


def row_of(name, curve=None):
    kernel = kernels.moment_matched(None, curve) if curve else getattr(kernels, name)(lambda x, t: -x)
    return kernel.coefficients(GRID)


@pytest.mark.parametrize(
    ("name", "variance", "expected"),
    [
        ("exponential_euler", 0.25, 0.2929503551598138),
        ("ancestral", 0.25, 0.240257313333966),
        ("exponential_euler", 0.0, 0.024008397011327),
    ],
)
def test_variances_of_gaussians_are_the_printed_ones_by_recursion_and_on_the_lattice(name, variance, expected):
    found = padded_predictions.gaussian_variance(row_of(name), variance)
    assert found == pytest.approx(expected, rel=1e-11)
    y, p = padded_predictions.line_law(targets.gaussian([0.0], [variance]).score, row_of(name))
    assert p @ y**2 == pytest.approx(expected, rel=1e-6)
    assert p @ y**4 == pytest.approx(3 * expected**2, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"), [("exponential_euler", 9.6474e-3), ("ancestral", 7.9437e-4), ("moment_matched", 5.5605e-4)]
)
def test_the_lattice_gives_the_printed_marginal_kl_on_two_points(name, expected):
    coin = targets.point_masses([[-1.0], [1.0]])
    row = kernels.moment_matched(coin.score, coin.mmse) if name == "moment_matched" else None
    row = row.coefficients(GRID) if row else row_of(name)
    y, p = padded_predictions.line_law(coin.score, row)
    alpha, sigma = np.exp(-GRID[-1]), np.sqrt(-np.expm1(-2 * GRID[-1]))
    q = (stats.norm.pdf(y, alpha, sigma) + stats.norm.pdf(y, -alpha, sigma)) / 2
    spacing = y[1] - y[0] if len(y) < 2 else np.diff(y).min()
    assert np.sum(q * np.log(q * spacing / p)) * spacing == pytest.approx(expected, rel=1e-3)


def test_the_span_of_the_means_is_projected_on_with_and_without_all_eight_directions():
    for name, d in ((padded_laws.BUMPS, 4), (padded_laws.BUMPS, 12), (padded_laws.POINTS, 12)):
        x = np.random.default_rng(1).normal(size=(6, d))
        garbage = np.concatenate([x, np.full((6, 5), np.nan)], 1).astype(np.float32)
        rank = padded_laws.rank_of(name, d)
        here = padded_simulation.Known(None, None, np.int64(rank), padded_laws.inverse_gram(name, d))
        law = padded(name, d, d + 5)
        found = padded_simulation.of_mixtures(law, garbage, mask_of(d, d + 5), here)
        means = np.asarray(law.means, np.float64)[:, :d]
        along = x @ np.linalg.lstsq(means, means, rcond=1e-6)[0]
        np.testing.assert_allclose(found["inside x²"], np.sum(along**2, 1) / rank, rtol=1e-5)
        across = np.sum((x - along) ** 2, 1) / max(d - rank, 1)
        np.testing.assert_allclose(found["outside x²"], across, atol=1e-5)
        some = means if name == padded_laws.BUMPS else means[:2]
        nearest = np.argmin(np.sum((x[:, None] - some) ** 2, -1), 1)
        np.testing.assert_array_equal(found["share"], nearest % 2 == 0)


def test_moments_of_products_leave_out_the_padding():
    x = np.concatenate([np.random.default_rng(1).normal(size=(6, 12)), np.full((6, 5), np.nan)], 1)
    found = padded_simulation.of_products(
        None, jnp.asarray(x), mask_of(12, 17), padded_simulation.Known(None, None, np.int64(8), None)
    )
    np.testing.assert_allclose(found["inside x²"], np.mean(x[:, :8] ** 2, 1), rtol=1e-12)
    np.testing.assert_allclose(found["inside x⁴"], np.mean(x[:, :8] ** 4, 1), rtol=1e-12)
    np.testing.assert_allclose(found["outside x²"], np.mean(x[:, 8:12] ** 2, 1), rtol=1e-12)


@functools.cache
def swept(name, family, *dims):
    """Cells and rows of two seeds of 128 particles, and how often the function was traced."""
    padded_simulation.TRACES.clear()
    laws = padded_simulation.FAMILIES[family]
    function = padded_simulation.simulation(name, family, dims, 128)
    rows = sweeps.run(function, dims=dims, seeds=range(2), law=range(len(laws)))
    return list(study.cells(rows, name, laws, dims, 128)), rows, padded_simulation.TRACES.total()


@pytest.mark.parametrize(("name", "family"), [("exponential_euler", "products"), ("moment_matched", "mixtures")])
def test_simulation_agrees_with_prediction_and_is_traced_once(name, family):
    found, _, traces = swept(name, family, 2, 20)
    assert traces == 1
    assert all(row["z"] is None or abs(row["z"]) < study.LARGEST for row in found)
    assert len({(row["law"], row["d"], row["quantity"]) for row in found}) == len(found) > 12


def test_the_width_of_the_padding_changes_nothing_but_rounding():
    narrow, wide = swept("moment_matched", "mixtures", 2)[1], swept("moment_matched", "mixtures", 2, 20)[1]
    for a, b in zip(narrow, [row for row in wide if row["dim"] == 2], strict=True):
        for column, value in a.items():
            # float32 of other layouts, 1e-7 a step, grown by the chain's sharpest turns (1/sigma = 7)
            assert value == pytest.approx(b[column], rel=1e-4, abs=1e-4), column


def test_a_score_that_is_off_by_one_percent_is_noticed(monkeypatch):
    right = padded_laws.score
    monkeypatch.setattr(padded_laws, "score", lambda law, x, t: jnp.float32(1.01) * right(law, x, t))
    run = {"part": "run", "compilations": 1, "rows": 1, "seconds": 1.0, "devices": 1, "steps_per_second": 1.0}
    assert "do NOT agree" in study.verdict([*swept("exponential_euler", "products", 200)[0], run])


@pytest.mark.parametrize(("name", "law"), [("exponential_euler", "point mass"), ("ancestral", "N(0, I/4)")])
def test_pairs_give_the_path_kl_of_many_coordinates(name, law):
    d, n = 1000, 64
    widened = np.ones(len(padded_kernels.GRID) - 1)
    run = jax.jit(lambda own, key: padded_simulation.path_kl_of_particles(name, own, mask_of(d, d), key, n, widened))
    each = np.asarray(run(padded(law, d, d), jax.random.key(5)))
    expected = information.path_kl(name, padded_kernels.curve(law, d), padded_kernels.GRID)
    assert stats.sem(each) < 5e-3 * expected
    assert abs(each.mean() - expected) < 5 * stats.sem(each)


def test_kernels_and_laws_share_no_keys():
    names = [(name, law) for name in padded_simulation.KERNELS for law in range(len(padded_laws.LAWS))]
    words = [jax.random.key_data(padded_simulation.keys_of(jax.random.key(0), *one)).tolist() for one in names]
    assert len({tuple(key) for pair in words for key in pair}) == 2 * len(names)


def moments_of(x):
    return [{of: float(moment(jnp.asarray(one))) for of, moment in padded_simulation.MOMENTS.items()} for one in x]


def test_seeds_are_pooled_to_the_moments_of_all_particles():
    x = np.random.default_rng(0).exponential(size=(4, 16))
    mean, error, skewness = study.pooled(16, moments_of(x))
    assert mean == pytest.approx(x.mean(), rel=1e-12)
    assert error == pytest.approx(stats.sem(x.ravel()), rel=1e-12)
    assert skewness == pytest.approx(stats.skew(x.ravel()), rel=1e-10)


def test_without_skewness_z_is_as_likely_as_students_t():
    x = np.random.default_rng(0).normal(0.3, 1.0, (4, 16))
    x = np.concatenate([x, 2 * x.mean() - x])  # symmetric
    expected = stats.ttest_1samp(x.ravel(), 0.0)
    found = study.compared(16, moments_of(x), (0.0, 0.0), 2)
    assert 2 * stats.norm.sf(found["z"]) == pytest.approx(expected.pvalue, rel=1e-9)
    wider = study.compared(16, moments_of(x), (0.0, found["error"]), 2)
    assert stats.norm.sf(wider["z"]) == pytest.approx(stats.t.sf(expected.statistic / np.sqrt(2), 127), rel=1e-9)


def test_z_of_skew_draws_are_standard_normal():
    x = np.random.default_rng(0).normal(size=(4000, 128)) ** 4
    t = (x.mean(1) - 3) / stats.sem(x, axis=1)
    z = np.array([study.normal_number(*pair) for pair in zip(t, [128] * 4000, stats.skew(x, axis=1), strict=True)])
    assert np.mean(z**2) < 1.25  # of t itself it is 1.99
    assert np.mean(np.abs(z) > 4) < 2e-3  # of t: 0.02


def test_without_spread_only_equality_agrees():
    own = moments_of(np.zeros((2, 4)))
    assert study.compared(4, own, (-1e-13, 0.0), 2)["z"] is None
    assert abs(study.compared(4, own, (1e-3, 0.0), 2)["z"]) > study.LARGEST


def rows_with(z):
    """Rows of all kernels, with these z in turn."""
    head = {"part": "cell", "simulated": 2.0, "error": 0.1, "predicted": 2.0, "quantity": "path KL"}
    places = [
        (kernel, law, d) for kernel in padded_simulation.KERNELS for law in padded_laws.LAWS for d in (2, 4, 8, 16)
    ]
    cells = [
        head | {"kernel": kernel, "law": law, "d": d, "z": z[i % len(z)]} for i, (kernel, law, d) in enumerate(places)
    ]
    run = {"part": "run", "compilations": 1, "rows": 84, "seconds": 2.0, "devices": 2, "steps_per_second": 1e8}
    return [*cells, run]


def test_the_verdict_can_come_out_either_way():
    ordinary = stats.norm.ppf((np.arange(21) + 0.5) / 21)
    assert "prediction agree: 84 of 84" in study.verdict(rows_with(ordinary))
    one_off = rows_with(ordinary)
    one_off[3]["z"] = -6.0
    assert "do NOT agree: 83 of 84" in study.verdict(one_off)
    assert "z -6 (exponential Euler, N(0, I), d = 16, path KL)" in study.verdict(one_off)
    assert "do NOT agree" in study.verdict(rows_with(1.6 * ordinary))  # none beyond 5, all too large
    assert "do NOT agree" in study.verdict(rows_with(0.5 * ordinary))  # too good: the errors are wrong


def test_the_figure_is_drawn(tmp_path):
    rows = rows_with([0.5, -1.0, None])
    assert study.draw(rows, tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"
