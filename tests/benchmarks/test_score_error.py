"""The study of score errors: path KLs against Gaussian integrals, overlaps against quadrature, end points, verdicts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from benchmarks import score_error as study
from benchmarks.laws import score_errors
from benchmarks.oracles import score_error_costs as costs
from jaxdiff import grids, targets
from jaxdiff.processes import ou

pytestmark = pytest.mark.slow

GRID = grids.exponential_then_uniform(2.0, 0.1, 6)
EVERY = np.ones(6, bool)
LAWS = score_errors.laws()
NORMAL, COIN, BUMPS = (LAWS[name] for name in (score_errors.NORMAL, score_errors.COIN, score_errors.BUMPS))
variance = lambda t: 0.25 * np.exp(-2 * t) + 1 - np.exp(-2 * t)
QUADRATURE = np.linspace(-12, 12, 4001)


def put_in(name, size=0.3, target=NORMAL, among=EVERY):
    return score_errors.injected(target, score_errors.SHAPES[name], GRID, size, among)


# s_theta = -x/q_t + slope x + push: E|s_v - s_theta|^2 of the jointly normal X_v, X_t, integrated over each step.
def girsanov(slope, push):
    total = 0.0
    for k, (t, t_next) in enumerate(itertools.pairwise(GRID)):
        b = slope[k] - 1 / variance(t)

        def gap(v, b=b, t=t, k=k):
            together = np.exp(v - t) * variance(v)
            return 1 / variance(v) + b**2 * variance(t) + 2 * b * together / variance(v) + push[k] ** 2

        total += quad(gap, t_next, t, epsabs=1e-13, epsrel=1e-13)[0]
    return total


@pytest.mark.parametrize("name", ["constant", "along the score", "against the score", "along x"])
def test_the_path_kl_that_is_added_is_girsanovs_integral(name):
    error, nothing = put_in(name), np.zeros(6)
    slope = {"along the score": -1 / variance(GRID[:-1]), "against the score": 1 / variance(GRID[:-1]), "along x": 1.0}
    slope = error.amplitude * slope.get(name, 0.0)
    push = error.amplitude if name == "constant" else nothing
    expected = girsanov(slope, push) - girsanov(nothing, nothing)
    assert costs.added(costs.EULER, GRID, NORMAL.mmse, error) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["cos 4x", "along the score", "along x"])
@pytest.mark.parametrize("target", [NORMAL, COIN], ids=["normal", "two points"])
def test_added_is_eps_squared_and_the_overlap_with_the_score_on_any_law(name, target):
    error, g = put_in(name, 0.02, target), -np.diff(GRID)
    y = QUADRATURE[:, None]
    overlap = []
    for t, amplitude in zip(error.nodes, error.amplitude, strict=True):
        q = np.exp(np.asarray(target.log_density(jnp.asarray(y), t)))
        score = np.asarray(target.score(jnp.asarray(y), t))[:, 0]
        e = amplitude * {"cos 4x": np.cos(4 * y[:, 0]), "along the score": score, "along x": y[:, 0]}[name]
        overlap.append(np.sum(q * score * e) * (y[1, 0] - y[0, 0]))
    expected = 0.02 + 2 * np.sum((g - 1 + np.exp(-g)) * overlap)
    assert costs.added(costs.EULER, GRID, target.mmse, error) == pytest.approx(expected, rel=1e-8)


def test_ancestral_adds_half_the_snr_weighted_error_of_the_denoiser():
    x, w = np.polynomial.hermite_e.hermegauss(20)
    error, expected, matched = put_in("along x"), 0.0, 0.0
    for k, (t, t_next) in enumerate(itertools.pairwise(GRID)):
        at = jnp.asarray(np.sqrt(variance(t)) * x)[:, None]
        denoised = lambda score, at=at, t=t: (
            (np.asarray(at) + (1 - np.exp(-2 * t)) * np.asarray(score(at, t))) / np.exp(-t)
        )
        apart = w @ (denoised(score_errors.wrong(NORMAL, error)) - denoised(NORMAL.score))[:, 0] ** 2 / w.sum()
        h, snr = 1 / np.expm1(2 * t_next) - 1 / np.expm1(2 * t), 1 / np.expm1(2 * t)
        expected += h * apart / 2
        matched += h * apart / 2 / (1 + h * 0.25 / (1 + 0.25 * snr))
        assert k == error.at(t)
    assert costs.added("ancestral", GRID, NORMAL.mmse, error) == pytest.approx(expected, rel=1e-9)
    assert costs.added("moment_matched", GRID, NORMAL.mmse, error) == pytest.approx(matched, rel=1e-9)


@pytest.mark.parametrize("name", ["constant", "cos 4x", "along the score", "along x"])
@pytest.mark.parametrize("target", [NORMAL, COIN], ids=["normal", "two points"])
def test_squares_and_overlaps_are_those_by_quadrature_on_the_line(name, target):
    shape, t, y = score_errors.SHAPES[name], 0.3, jnp.asarray(QUADRATURE)[:, None]
    q = np.exp(np.asarray(target.log_density(y, t))) * (QUADRATURE[1] - QUADRATURE[0])
    f, score = (np.asarray(one)[:, 0] for one in (shape.field(target.score, y, t), target.score(y, t)))
    assert shape.square(target, t) == pytest.approx(q @ f**2, rel=1e-9)
    assert shape.overlap(target, t) == pytest.approx(q @ (f * score), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["constant", "x turned", "along the score", "against the score", "along x"])
def test_squares_and_overlaps_in_the_plane_are_means_of_draws(name, key):
    shape, t, n = score_errors.SHAPES[name], 0.4, 40_000
    x = ou.alpha(t) * BUMPS.sample(key, n) + ou.sigma(t) * jax.random.normal(jax.random.key(9), (n, 2))
    f, score = (np.asarray(one) for one in (shape.field(BUMPS.score, x, t), BUMPS.score(x, t)))
    for draws, expected in ((np.sum(f**2, 1), shape.square), (np.sum(f * score, 1), shape.overlap)):
        spread = np.std(draws, ddof=1) / np.sqrt(n)
        slack = 5 * np.hypot(spread, 2e-3 * abs(expected(BUMPS, t)))  # the curve's own error, a part in a thousand
        assert abs(draws.mean() - expected(BUMPS, t)) < max(slack, 1e-12)


def test_an_error_has_its_size_and_its_window():
    grid = score_errors.benton(score_errors.N_STEPS)
    for window, steps in {"early": 17, "late": 9, "one step": 1, "everywhere": 40}.items():
        among = score_errors.within(grid, window)
        error = score_errors.injected(COIN, score_errors.SHAPES["along x"], grid, 0.7, among)
        assert np.sum(among) == steps
        assert np.sum(-np.diff(grid) * error.square) == pytest.approx(0.7, rel=1e-12)
        assert (error.square[among] > 0).all()
        assert (error.amplitude[~among] == 0).all()
        np.testing.assert_allclose(error.square[among], error.square[among][0], rtol=1e-12)


def test_the_wrong_score_of_shifted_data_is_the_score_of_shifted_data():
    error = put_in("shifted data", 0.2)
    x, mu = jnp.asarray([[-1.0], [0.3], [2.0]]), error.amplitude[0] * variance(GRID[0]) / np.exp(-GRID[0])
    shifted = targets.gaussian([mu], [0.25])
    for t in GRID[:-1]:
        np.testing.assert_allclose(score_errors.wrong(NORMAL, error)(x, t), shifted.score(x, t), rtol=1e-12)


def test_end_points_of_a_normal_law_are_a_recursion_of_mean_and_variance():
    law = score_errors.LINES[score_errors.NORMAL]
    grid = score_errors.benton(score_errors.N_STEPS)
    error = score_errors.injected(NORMAL, score_errors.SHAPES["constant"], grid, 0.2, score_errors.within(grid, "late"))
    mean, v = 0.0, 1.0
    for t, t_next, push in zip(grid[:-1], grid[1:], error.amplitude, strict=True):
        g = t - t_next
        keep = np.exp(g) - 2 * np.expm1(g) / variance(t)
        mean, v = keep * mean + 2 * np.expm1(g) * push, keep**2 * v + np.expm1(2 * g)
    q = variance(grid[-1])
    expected = 0.5 * (q / v - 1 - np.log(q / v) + mean**2 / v)
    assert costs.kl(law, costs.end(law, error, grid)) == pytest.approx(expected, rel=1e-8)  # of a lattice


def test_what_the_end_keeps_of_a_constant_error_has_a_closed_form():
    root = np.sqrt(0.75)  # int e^-t/(1 - .75 e^-2t) dt by u = e^-t
    for t, t_next in ((4.0, 3.4), (0.3, 0.1)):
        moved = np.diff(np.arctanh(root * np.exp([-t, -t_next])))[0] / root
        q = variance(score_errors.EARLY_STOP)
        expected = (2 * np.exp(score_errors.EARLY_STOP) * q * moved) ** 2 / (2 * q) / (t - t_next)
        assert costs.kept(t, t_next) == pytest.approx(expected, rel=1e-9)


def test_forward_pairs_and_samples_agree_with_what_is_exact(key, monkeypatch):
    every = [*score_errors.cases()]
    assert len(every) == 16
    some = [case for case in every if (case[0], case[2]) == (score_errors.COIN, "along the score")]
    monkeypatch.setattr(costs, "cases", lambda: some)
    monkeypatch.setattr(costs, "LINES", {score_errors.COIN: score_errors.LINES[score_errors.COIN]})
    pairs, samples = list(costs.by_pairs(512, key)), list(costs.sampled(2**13, key))
    assert len(pairs) == 1
    assert max(abs(row["z"]) for row in [*pairs, *samples]) < 5
    assert all(row["mc_error"] < 0.1 * costs.SEEN for row in pairs)  # sharp enough for the cross term, .8 of it
    assert max(abs(row["expected"]) for row in samples if row["moment"] == "mean") > 0.1  # the push is seen


def synthetic(bend=0.0, ends=0.5, z=1.0, bound=10.0):
    found, path = [], {"law": score_errors.NORMAL, "window": "late"}
    for shape, cross in (("constant", bend), ("along x", -1e-3)):
        for sampler, size in ((sampler, size) for sampler in costs.SAMPLERS for size in costs.SIZES.tolist()):
            added = size + (cross * np.sqrt(size) if sampler == costs.EULER else 0.1 * size)
            row = {"part": "path", **path, "shape": shape, "sampler": sampler, "size": size, "bound": bound}
            found.append(row | {"added": added, "ratio": added / size})
        for sampler, n in ((sampler, n) for sampler in costs.SAMPLERS for n in costs.REFINED):
            row = {"part": "refined", "law": score_errors.NORMAL, "shape": shape, "sampler": sampler, "n_steps": n}
            found.append(row | {"ratio": 1 + 3 / n})
        row = {"part": "end points", **path, "shape": shape, "size": 0.1}
        found += [row | {"ratio": ends}, row | {"ratio": 0.25}]
    found.append({"part": "pairs", "law": score_errors.NORMAL, "shape": "constant", "z": z})
    for law in score_errors.LINES:
        row = {"part": "forgotten", "law": law, "ratio": 0.1, "path_ratio": 1.0, "theory": 0.1}
        found += [row | {"t": t, "t_next": t / 2} for t in (2.0, 1.0)]
    return found + study.summaries(found)


def test_the_verdict_names_the_shapes_that_add_eps_squared_and_those_that_do_not():
    said = study.verdict(synthetic())
    assert "from 1e-06 to 10 nats, for constant; not for along x 0 to 1 times" in said
    assert "falls as N^-1.00" in said
    assert "Ancestral, any shape: 1.1 to 1.1 times at N = 40, 1.01 at most at 320" in said
    assert "1 of 1 within" in said
    said = study.verdict(synthetic(bend=1e-5, z=9.0, bound=1e-4))
    assert "NO SHAPE; not for constant 1 to 1.01 times, along x 0 to 1 times" in said
    assert "EXCEEDED" in said
    assert "0 of 1 within" in said


def test_the_verdict_says_what_is_saved_and_what_end_points_keep():
    rows = [row | ({"added": -0.5, "ratio": -5.0} if row.get("size") == 0.1 and row["part"] == "path" else {})
            for row in synthetic(ends=0.75) if row["part"] != "shape"]  # fmt: skip
    said = study.verdict(rows + study.summaries(rows))
    assert "up to 0.5 nats less than without error" in said
    assert "nats less" not in study.verdict(synthetic())
    assert f"0.25 (constant, late, {score_errors.NORMAL}, eps^2 = 0.1) to 0.75 (constant" in study.verdict(
        synthetic(ends=0.75)
    )


def test_exponents_are_slopes_of_logarithms():
    rows = [{"size": x, "added": 3 * x**0.5} for x in (1e-6, 1e-5, 1e-4)]
    assert study.exponent(rows) == pytest.approx(0.5, rel=1e-12)
    assert study.exponent([*rows, {"size": 1.0, "added": -1.0}]) is None


def test_the_figure_is_a_png(tmp_path):
    rows = synthetic()
    rows += [row | {"window": "everywhere"} for row in rows if row["part"] == "path"]
    study.draw(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"
