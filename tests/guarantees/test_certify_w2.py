"""certify_w2: distances of end points are closed forms on Gaussians, terms add up, unknown terms stay unknown."""

import collections
import dataclasses
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdiff import Certificate, Sampler, certify, certify_w2, grids, kernels, noise, sample, targets
from jaxdiff.certificate import Term
from jaxdiff.guarantees import end_point_distances
from jaxdiff.guarantees.certify_w2 import _warnings, joint_of, measured_term
from jaxdiff.guarantees.end_point_distances import Gaps, Starts, ends_of
from jaxdiff.sampling.coupled import end_points, refined, weights_of

MEAN, VARIANCE = np.array([0.5, -1.0]), np.array([0.3, 2.0])
LAW = targets.gaussian(MEAN, VARIANCE)
GRID = grids.log_snr(3.0, 0.01, 6)
KEY = jax.random.key(3)
NO_ROWS = Starts(None, None, None, None)


def noised(t):
    """alpha and the variances of q_t."""
    return np.exp(-t), np.exp(-2 * t) * VARIANCE - np.expm1(-2 * t)


def ddim_map(grid):
    """Slope and intercept of DDIM down a grid: the noise (x - alpha m)/sigma predicted by the Gaussian's own score."""
    slope, shift = np.ones(2), np.zeros(2)
    for t, t_next in itertools.pairwise(grid):
        (alpha, variance), alpha_next = noised(t), np.exp(-t_next)
        sigma, sigma_next = np.sqrt(-np.expm1(-2 * t)), np.sqrt(-np.expm1(-2 * t_next))
        along = sigma / variance  # the predicted noise is along (x - alpha mean)
        a = alpha_next / alpha * (1 - sigma * along) + sigma_next * along
        b = alpha_next * sigma * along * MEAN - sigma_next * along * alpha * MEAN
        slope, shift = a * slope, a * shift + b
    return slope, shift


def flow_map(grid):
    """Slope and intercept of the probability-flow ODE, which keeps (x - alpha m)/deviation."""
    (alpha, variance), (alpha_end, variance_end) = noised(grid[0]), noised(grid[-1])
    slope = np.sqrt(variance_end / variance)
    return slope, alpha_end * MEAN - slope * alpha * MEAN


def within(term, square, errors=5):
    """Whether the mean square of a term is the right one, within five of its standard errors."""
    return abs(term.value**2 - square) < errors * term.standard_error


# From N(0, I) both maps are linear, so W2 is |difference of deviations, of means|. Monotone maps are coupled optimally.
@pytest.mark.parametrize("scale", [1.0, [2.0, 0.5]])
def test_the_discretisation_of_an_ode_on_a_gaussian_is_its_w2(scale):
    found = certify_w2(Sampler(kernels.ddim(LAW.score), GRID), KEY, dim=2, scale=scale)
    (a, b), (c, d) = ddim_map(GRID), flow_map(GRID)
    exact = np.sum((np.asarray(scale) * (a - c)) ** 2 + (np.asarray(scale) * (b - d)) ** 2)
    assert within(found["discretisation"], exact)
    assert found["discretisation"].standard_error < 0.1 * exact
    steps, size = 6 * 128, np.sqrt(np.sum(np.square(scale) * (VARIANCE + MEAN**2)))
    assert found["reference"].value < steps * np.finfo(np.float32).eps * size  # the rounding errors of its steps add up
    assert found.upper == np.inf
    assert {term.name for term in found.terms if term.status == "unknown"} == {
        "initialisation",
        "score error",
        "early stopping W2",
    }


def ancestral_row(t, t_next):
    """x' = a x + b + c z of ancestral sampling: the bridge from x to the posterior mean of the Gaussian."""
    (alpha, variance), alpha_next, h = noised(t), np.exp(-t_next), t - t_next
    square, square_next, square_h = (-np.expm1(-2 * time) for time in (t, t_next, h))
    gain = alpha * VARIANCE / variance  # of the posterior mean m + gain (x - alpha m)
    pull = alpha_next * square_h / square
    a = np.exp(-h) * square_next / square + pull * gain
    return a, pull * (1 - gain * alpha) * MEAN, np.sqrt(square_next * square_h / square)


def mean_square(mean, variance):
    """E|x|^2 of independent coordinates."""
    return np.sum(mean**2 + variance)


def exact_distances(grid):
    """The root mean square distances that a certificate of DDIM measures, from its affine map and that of the ODE."""
    (a, b), (c, d) = ddim_map(grid), flow_map(grid)
    alpha, sigma = np.exp(-grid[0]), np.sqrt(-np.expm1(-2 * grid[0]))
    last, variance_last = np.exp(-grid[-1]), -np.expm1(-2 * grid[-1])
    return {
        "discretisation": mean_square((a - c) * alpha * MEAN + b - d, (a - c) ** 2 * noised(grid[0])[1]),
        "initialisation": mean_square(a * alpha * MEAN, a**2 * (alpha**2 * VARIANCE + (sigma - 1) ** 2)),
        "early stopping W2": mean_square((1 - last) * MEAN, (1 - last) ** 2 * VARIANCE + variance_last),
    }


# In 93 to 99 % of 500 certificates the upper end of a term at 95 % must be above the exact distance, and so must
# `upper` be above the exact sum.
@pytest.mark.slow
def test_upper_limits_cover_exact_distances():
    exact = {name: math.sqrt(square) for name, square in exact_distances(GRID).items()}
    sampler, covered, joint, values = Sampler(kernels.ddim(LAW.score), GRID), collections.Counter(), [], []
    for seed in range(500):
        found = certify_w2(sampler, jax.random.key(seed), target=LAW, particles=200, reference_steps=24)
        joint.append(found.joint)
        values.append([found[name].value for name in (*exact, "reference")])
        covered.update(name for name in exact if found[name].value + found[name].half_width_above(0.95) > exact[name])
        covered["together"] += found.upper > sum(exact.values())
    assert all(465 <= covered[name] <= 495 for name in [*exact, "together"]), covered
    # The terms vary from certificate to certificate, and their sum varies less than the terms together.
    values = np.array(values)
    assert np.mean(joint) == pytest.approx(np.std(values.sum(1)) / np.std(values, axis=0).sum(), rel=0.03)


# Two affine recursions with increments in common, whose second moments follow step by step.
def test_the_discretisation_of_ancestral_sampling_on_a_gaussian_is_that_of_its_recursion():
    parts = 128
    fine, snr = refined(GRID, parts), lambda t: 1 / np.expm1(2 * t)
    mean_x, mean_y, var_x, var_y, both = np.zeros(2), np.zeros(2), np.ones(2), np.ones(2), np.ones(2)
    for k in range(len(GRID) - 1):
        a, b, c = ancestral_row(GRID[k], GRID[k + 1])
        times = fine[k * parts : (k + 1) * parts + 1]
        weights = np.sqrt(np.diff(snr(times)) / (snr(times[-1]) - snr(times[0])))
        common = np.zeros(2)  # the covariance of the increments so far with those of the fine run
        for w, t, t_next in zip(weights, times[:-1], times[1:], strict=True):
            p, q, r = ancestral_row(t, t_next)
            mean_y, var_y, both, common = p * mean_y + q, p**2 * var_y + r**2, p * both, p * common + r * w
        mean_x, var_x, both = a * mean_x + b, a**2 * var_x + c**2, a * both + c * common
    exact = np.sum((mean_x - mean_y) ** 2 + var_x + var_y - 2 * both)
    found = certify_w2(Sampler(kernels.ancestral(LAW.score), GRID), KEY, dim=2, reference_steps=parts * 6)
    assert within(found["discretisation"], exact)
    assert found["discretisation"].standard_error < 0.1 * exact
    assert "128" not in found["discretisation"].source
    assert f"{parts * 6} steps" in found["discretisation"].source


# The exact distance of one, two, four, ... times the steps falls to the limit that `reference` bounds.
def test_the_reference_bounds_what_more_steps_would_change():
    found = certify_w2(Sampler(kernels.ancestral(LAW.score), GRID), KEY, dim=2, reference_steps=48)
    x = noise.initial(KEY, jnp.arange(2048), 2)
    kernel = kernels.ancestral(LAW.score)
    reference, limit = (end_points(kernel, refined(GRID, m), x, KEY, parts=512 // m).x for m in (8, 512))
    away = np.sqrt(np.mean(np.sum((np.asarray(reference) - np.asarray(limit)) ** 2, 1)))
    assert 0.5 * away < found["reference"].value
    assert away < found["reference"].value + found["reference"].half_width_above(0.95)


# On a point mass the denoiser is constant, and one ancestral step is any number of shorter ones.
@pytest.mark.parametrize("make", [kernels.ancestral, lambda score: kernels.dpm_solver(score, 1, eta=1.0)])
def test_runs_down_a_grid_and_its_refinement_follow_one_brownian_path(make):
    kernel = make(targets.gaussian([0.7], [0.0]).score)
    x = noise.initial(KEY, jnp.arange(40), 1, jnp.float64)
    coarse = end_points(kernel, GRID, x, KEY, parts=8).x
    np.testing.assert_allclose(coarse, end_points(kernel, refined(GRID, 8), x, KEY).x, rtol=1e-9)
    assert np.std(coarse) > 0.05  # there is noise in the last step


@pytest.mark.parametrize("kernel", [kernels.sa_solver(LAW.score), kernels.seeds(LAW.score), kernels.unipc(LAW.score)])
def test_undivided_increments_are_those_of_sample(kernel):
    x = noise.initial(KEY, jnp.arange(30), 2, jnp.float64)
    np.testing.assert_allclose(end_points(kernel, GRID, x, KEY).x, sample(kernel, x, GRID, KEY), rtol=1e-11, atol=1e-12)


# A kernel that adds up its increments: six steps of two increments, each of four parts, which are draws 0, 1, ..., 47.
def test_increments_are_sums_over_parts_that_no_other_increment_has():
    adds = lambda score, x, row, z: x + z[0] + 10 * z[1]
    kernel = dataclasses.replace(kernels.seeds(LAW.score), step=adds)
    draws = np.array([noise.normal(KEY, np.arange(5), m, 2, jnp.float64) for m in range(48)])
    snr = 1 / np.expm1(2 * refined(GRID, 8))
    growth = np.diff(snr).reshape(12, 4)
    z = np.einsum("kj,kjnd->knd", np.sqrt(growth / growth.sum(1, keepdims=True)), draws.reshape(12, 4, 5, 2))
    got = end_points(kernel, GRID, jnp.zeros((5, 2)), KEY, parts=4).x
    np.testing.assert_allclose(got, z[::2].sum(0) + 10 * z[1::2].sum(0), rtol=1e-11)


def test_increments_keep_variance_one_and_refined_grids_their_nodes():
    np.testing.assert_allclose(np.sum(weights_of(GRID, 2, 8) ** 2, -1), np.ones((6, 2)), rtol=1e-14)
    np.testing.assert_array_equal(refined(GRID, 8)[::8], GRID)
    level = -np.log(np.expm1(2 * refined(GRID, 4)))
    np.testing.assert_allclose(np.diff(level).reshape(6, 4), np.repeat(np.diff(level[::4]) / 4, 4).reshape(6, 4), 1e-9)


# From rows: x = alpha x0 + sigma z against z. The sampler is linear, so the difference of the ends is its slope times
# alpha x0 + (sigma - 1) z, whose mean square over z is known for these very rows.
def test_initialisation_and_early_stopping_of_rows_are_closed_forms():
    rows = np.asarray(LAW.sample(jax.random.key(8), 200))
    found = certify_w2(Sampler(kernels.ddim(LAW.score), GRID), KEY, rows=rows, particles=2000)
    slope, alpha, sigma = ddim_map(GRID)[0], np.exp(-GRID[0]), np.sqrt(-np.expm1(-2 * GRID[0]))
    exact = np.sum(slope**2 * (alpha**2 * np.mean(rows**2, 0) + (sigma - 1) ** 2))
    assert within(found["initialisation"], exact)
    assert found["initialisation"].degrees == 199
    alpha, square = np.exp(-0.01), -np.expm1(-0.02)
    exact = (1 - alpha) ** 2 * np.mean(np.sum(rows**2, 1)) + 2 * square
    assert found["early stopping W2"].value == pytest.approx(np.sqrt(exact), rel=1e-6)
    assert found.known == pytest.approx(sum(found[name].value for name in ("discretisation", "reference"))
                                        + found["initialisation"].value + found["early stopping W2"].value)  # fmt: skip
    assert found["score error"].status == "unknown"


def test_a_certificate_of_a_known_law_bounds_its_w2_and_survives_json():
    found = certify_w2(Sampler(kernels.ddim(LAW.score), GRID), KEY, target=LAW)
    slope, shift = ddim_map(GRID)
    exact = np.sqrt(np.sum((slope - np.sqrt(VARIANCE)) ** 2 + (shift - MEAN) ** 2))  # the samples against the data
    assert exact < found.upper < 4 * exact
    again = Certificate.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert (again, again.upper) == (found, found.upper)
    assert str(found).startswith("W2(data, ddim in 6 steps), W2\n")
    with pytest.raises(ValueError, match=r"needs a bound in nats, .* this one is in W2"):
        _ = found.total_variation


# The square of the upper end is Student's upper end of the mean square.
def test_the_interval_of_a_root_has_the_roots_of_the_ends():
    term = Term("a", 2.0, 0.5, "measured", "", degrees=20, root=True)
    for p in (0.9, 0.975):
        half = stats.t.ppf(p, 20) * 0.5
        assert term.value + term.half_width_above(p) == pytest.approx(np.sqrt(4 + half))
        assert term.value - term.half_width_below(p) == pytest.approx(np.sqrt(4 - half))
    assert Term("a", 0.1, 0.5, "measured", "", degrees=20, root=True).half_width_below(0.95) == 0.1  # ends at 0


def test_particles_that_start_from_one_row_count_as_one():
    of_rows = np.array([1.0, 4.0, 9.0, 2.0, 7.0, 3.0, 8.0, 5.0])
    term = measured_term("a", np.tile(of_rows, 3), 8, "")  # rows are repeated as a whole
    assert (term.value, term.degrees) == (pytest.approx(np.sqrt(of_rows.mean())), 7)
    assert term.standard_error == pytest.approx(of_rows.std(ddof=1) / np.sqrt(8))


# Differences N(0, 1) in d directions have mean square d. 500 repetitions: the binomial error of 95 % is 1 %.
@pytest.mark.parametrize("dim", [1, 16])
def test_the_upper_end_covers_the_true_distance_as_often_as_it_says(dim):
    rng, above = np.random.default_rng(4), []
    for _ in range(500):
        term = measured_term("a", np.sum(rng.normal(size=(200, dim)) ** 2, 1), None, "")
        above.append(term.value + term.half_width_above(0.95) >= np.sqrt(dim))
    assert 0.93 <= np.mean(above) <= 0.99


# Squares of correlated normal variables: 20,000 repetitions say how much the sum of two root mean squares varies.
@pytest.mark.parametrize("shared", [0.0, 0.7, 1.0])
def test_the_interval_of_a_sum_is_as_wide_as_the_sum_varies(shared):
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 20_000, 100))
    squares = np.stack([one**2, 9 * (shared * one + math.sqrt(1 - shared**2) * other) ** 2])
    roots = np.sqrt(squares.mean(-1))
    exact = np.std(roots.sum(0)) / np.std(roots, axis=1).sum()
    got = np.mean([joint_of(list(squares[:, i]), None) for i in range(200)])
    assert got == pytest.approx(exact, abs=0.02)
    assert joint_of([squares[0, 0], np.zeros(100)], None) == pytest.approx(1.0)
    assert joint_of([np.ones(100)], None) == 1.0


# Every block of particles must take noise of its own: the end points are those of one run of all particles.
def test_particles_in_blocks_end_where_they_end_together(monkeypatch):
    kernel = kernels.ancestral(LAW.score)
    z = noise.initial(KEY, jnp.arange(50), 2)
    starts = Starts(z, z, None, None)
    whole = ends_of(kernel, GRID, starts, KEY, 4)
    monkeypatch.setattr(end_point_distances, "BLOCK", 16)
    parts = ends_of(kernel, GRID, starts, KEY, 4)
    np.testing.assert_allclose(parts.coarse, whole.coarse, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts.coarse, end_points(kernel, GRID, z, KEY, parts=4).x, rtol=1e-5, atol=1e-6)


def test_rows_and_not_particles_make_the_interval_of_a_sum():
    rng = np.random.default_rng(2)
    first, second = rng.chisquare(2, size=(2, 40))
    repeated = [np.tile(first, 5), np.tile(second, 5)]
    assert joint_of(repeated, 40) == pytest.approx(joint_of([first, second], None))


def test_a_reference_that_does_not_converge_is_unknown_and_said():
    jumps = lambda x, t: LAW.score(x, t) + 3 * jnp.sign(jnp.sin(1e5 * (x[..., :1] + t)))  # as good as noise
    found = certify_w2(Sampler(kernels.ddim(jumps), GRID), KEY, dim=2, particles=200)
    assert found["reference"].status == "unknown"
    assert any("has not converged" in text and "reference_steps=" in text for text in found.warnings)


# 300 squared distances of which three are large: 3 (100) of 297 (1) + 300 are 50 %.
def test_a_few_distances_that_make_up_the_mean_are_said():
    warned = lambda squares: _warnings(Gaps(squares, np.ones(9), 4 * np.ones(9), squares, "", 0.0), NO_ROWS)
    (text,) = warned(np.append(np.ones(297), [100.0, 100.0, 100.0]))
    assert "the largest 1 % of the squared distances make up 50% of their sum; take more particles" in text
    assert warned(np.random.default_rng(0).chisquare(5, size=300)) == ()


def test_certify_measures_the_same_with_the_metric_w2():
    sampler, rows = Sampler(kernels.ddim(LAW.score), GRID), np.asarray(LAW.sample(KEY, 50), np.float32)
    for known in ({"target": LAW}, {"rows": rows}, {"dim": 2}):
        expected = certify_w2(sampler, KEY, confidence=0.9, **known)
        assert str(certify(sampler, metric="w2", key=KEY, confidence=0.9, **known)) == str(expected)
        assert str(certify(sampler.kernel, GRID, metric="w2", key=KEY, confidence=0.9, **known)) == str(expected)
    with pytest.raises(ValueError, match=r"metric='w2' runs particles and needs key="):
        certify(sampler, metric="w2", target=LAW)
    with pytest.raises(ValueError, match=r"curve= is for a certificate in path KL: leave curve= out"):
        certify(sampler, metric="w2", key=KEY, rows=rows, curve=LAW.mmse)
    with pytest.raises(ValueError, match=r"key= and rows= are for a certificate in W2: pass metric='w2' too"):
        certify(sampler, target=LAW, key=KEY)
    with pytest.raises(ValueError, match=r"metric must be 'kl' \(path KL\) or 'w2' .* metric = 'tv'"):
        certify(sampler, target=LAW, metric="tv")


def test_what_cannot_be_certified_is_refused_in_words():
    ode = Sampler(kernels.ddim(LAW.score), GRID)
    lost = lambda x, t: jnp.where((t < 0.5) & (x[..., :1] > 0), jnp.nan, 1.0) * LAW.score(x, t)
    with pytest.raises(ValueError, match=r"\d+% of the particles are not finite .* t = 0\.\d+ to 0\.\d+\. Check the"):
        certify_w2(Sampler(kernels.ddim(lost), GRID), KEY, dim=2)
    with pytest.raises(TypeError, match="sampler must be a Sampler"):
        certify_w2(ode.kernel, KEY, dim=2)
    for given in ({}, {"dim": 2, "target": LAW}, {"rows": np.zeros((9, 2)), "dim": 2}):
        with pytest.raises(ValueError, match="exactly one of target="):
            certify_w2(ode, KEY, **given)
    with pytest.raises(ValueError, match=r"at least 8 rows: they are an array of shape \(7, 2\)"):
        certify_w2(ode, KEY, rows=np.zeros((7, 2)))
    with pytest.raises(ValueError, match="particles must be a whole number, at least 8: particles = 3"):
        certify_w2(ode, KEY, dim=2, particles=3)
    with pytest.raises(ValueError, match="that of langevin is its own running time"):
        certify_w2(Sampler(kernels.langevin(LAW.score, 1.0), [1.0, 0.5, 0.0]), KEY, dim=2)
