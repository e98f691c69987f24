"""The study of posterior samples: exact values against second derivations, ranks, and verdicts of both kinds."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks import posterior as study
from benchmarks.laws import inverse_problems as laws
from benchmarks.oracles import calibration, linear_posteriors, normal_mixtures, plane_posteriors
from benchmarks.samplers import inverse_problems as samplers
from jaxdiff import grids, kernels, sample, targets
from jaxdiff.processes import denoiser_from_score

METHODS = tuple(samplers.METHODS)
LINE = linear_posteriors.Problem(np.zeros(1), np.array([[1.7]]), np.ones((1, 1)), 0.8)


def six(noise_std):
    return linear_posteriors.Problem(*laws.six_dimensions(), noise_std)


def test_the_posterior_is_the_conditional_law_of_the_joint_one():
    problem, y = six(0.4), np.array([[0.3, -1.0, 0.2]])
    d, cov = 6, problem.cov
    joint = np.block([[cov, cov @ problem.matrix.T],
                      [problem.matrix @ cov, problem.matrix @ cov @ problem.matrix.T + 0.16 * np.eye(3)]])  # fmt: skip
    inverse = np.linalg.inv(joint)[:d]
    expected = np.linalg.inv(inverse[:, :d])
    mean = problem.mean - expected @ inverse[:, d:] @ (y[0] - problem.matrix @ problem.mean)
    means, found = problem.posterior(y, 0.0)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(means[0], mean, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_scores_of_the_moment_equations_are_those_of_jaxdiff(method):
    problem, t = six(0.3), 0.4
    y, x = problem.observations(), np.random.default_rng(0).normal(size=(4, 6))
    denoiser = denoiser_from_score(targets.gaussian(problem.mean, problem.cov).score)
    found = samplers.score_of(method, denoiser, problem.matrix, y, 0.3)(jnp.asarray(x), t)
    slope, constant = linear_posteriors.affine_score(method, problem, y, t)
    np.testing.assert_allclose(found, x @ slope.T + constant, rtol=1e-6, atol=1e-6)


# On the line with A = 1 the ODE of DPS leaves the variance C exp(-C/v), as its docstring says. MMPS is exact there.
def test_limits_on_the_line_have_their_closed_forms():
    y = LINE.observations()
    _, found = linear_posteriors.limit(samplers.DPS, LINE, y, 9.0, 1e-8, noisy=False)
    assert found[0, 0] == pytest.approx(1.7 * np.exp(-1.7 / 0.64), rel=1e-5)
    for noisy in (False, True):
        means, found = linear_posteriors.limit(samplers.MMPS, LINE, y, 9.0, 1e-8, noisy=noisy)
        assert found[0, 0] == pytest.approx(1.7 / (1 + 1.7 / 0.64), rel=1e-5)
        np.testing.assert_allclose(means, y * 1.7 / (1.7 + 0.64), atol=1e-3)


def test_the_limit_of_the_sde_is_where_many_noisy_steps_lead(key):
    y, n = LINE.observations()[:1] + 0.7, 40_000
    means, variance = linear_posteriors.limit(samplers.DPS, LINE, y, 5.0, 1e-3, noisy=True)
    denoiser = denoiser_from_score(targets.gaussian([0.0], [[1.7]]).score)
    score = samplers.score_of(samplers.DPS, denoiser, LINE.matrix, np.repeat(y, n, axis=0), 0.8)
    x = samplers.draws(score, n, 1, grids.log_snr(5.0, 1e-3, 300), key, kernel=kernels.ancestral)
    assert np.var(x) == pytest.approx(variance[0, 0], rel=5 * np.sqrt(2 / n) + 0.01)
    assert np.mean(x) == pytest.approx(means[0, 0], abs=5 * np.sqrt(variance[0, 0] / n) + 0.01)


def test_biases_are_in_deviations_of_the_worst_direction():
    exact = np.zeros((3, 2)), np.diag([4.0, 0.25])
    assert linear_posteriors.in_deviations(exact, exact) == pytest.approx((0, 1, 1))
    means = np.array([[0.0, 0.5], [0.0, 0.5], [0.0, 0.5]])  # the same for all y: one deviation of the second direction
    found = linear_posteriors.in_deviations((means, np.diag([36.0, 0.0625])), exact)
    assert found == pytest.approx((1, 0.5, 3))


def test_end_points_of_an_affine_run_are_mean_and_root(key):
    problem = six(0.5)
    y = problem.observations()
    denoiser = denoiser_from_score(targets.gaussian(problem.mean, problem.cov).score)
    grid = grids.log_snr(5.0, 1e-2, 12)
    means, cov = study.affine_samples(samplers.PI_GDM, denoiser, problem, y, grid)
    z = np.random.default_rng(1).normal(size=(20_000, 6))
    score = samplers.score_of(samplers.PI_GDM, denoiser, problem.matrix, np.tile(y[1:2], (len(z), 1)), 0.5)
    ends = np.asarray(sample(kernels.unipc(score, 2), jnp.asarray(z), grid, key))
    np.testing.assert_allclose(ends.mean(0), means[1], atol=5 * np.sqrt(np.diag(cov).max() / len(z)))
    np.testing.assert_allclose(np.cov(ends.T), cov, atol=5 * np.diag(cov).max() * np.sqrt(2 / len(z)))


@pytest.mark.parametrize("noise_std", [0.1, 1.0])
def test_quadrature_in_the_plane_has_the_moments_of_the_closed_form(noise_std):
    y = np.array([0.1])
    exact = normal_mixtures.moments(*normal_mixtures.posterior(*laws.PLANE_MIXTURE, laws.ROW, y, noise_std))
    mass = plane_posteriors.density(*laws.PLANE_MIXTURE, laws.ROW, y, noise_std)
    side = (np.arange(len(mass)) + 0.5) / len(mass) * 8 - 4
    z = np.stack(np.meshgrid(side, side, indexing="ij"), -1)
    mean = np.einsum("ij,ijk->k", mass, z)
    np.testing.assert_allclose(mean, exact[0], atol=1e-6)
    np.testing.assert_allclose(np.einsum("ij,ijk,ijl->kl", mass, z - mean, z - mean), exact[1], atol=1e-4)
    x = plane_posteriors.draws(mass, 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(x.mean(0), exact[0], atol=0.05)
    np.testing.assert_allclose(np.cov(x.T), exact[1], atol=0.05)
    cells = plane_posteriors.cell_masses(mass)
    assert plane_posteriors.total_variation(x, cells) < 0.06
    assert plane_posteriors.total_variation(x + 100, cells) == pytest.approx(1)
    assert plane_posteriors.total_variation(-x, cells) > 0.3


def test_ranks_of_exact_draws_are_uniform_and_those_of_dps_are_not():
    subject = calibration.mixture()
    for counts in calibration.counts(subject, calibration.EXACT, 600).values():
        assert counts.sum() == 600
        assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.chisquare(calibration.counts(subject, samplers.DPS, 100)[calibration.BEST]).pvalue < 1e-9


def made(ode, found, w2, chance):
    """Rows of two methods: biases of the limits, sliced W2 of both samplers, chances of ranks."""
    rows, names = [], ("mean", "narrowest", "widest")
    for i, method in enumerate(("one", "other")):
        row = {"part": "limit", "law": study.NORMAL, "method": method, "noise_std": 0.1}
        row |= {f"ode_{name}": value for name, value in zip(names, ode[i], strict=True)}
        row |= {f"sde_{name}": value / 2 for name, value in zip(names, ode[i], strict=True)}
        rows.append(row | dict(zip(names, found[i], strict=True)))
        for sampler, value in zip((study.UNIPC, study.ANCESTRAL), w2[i], strict=True):
            row = {"part": "plane", "law": study.MIXTURE, "method": method, "noise_std": 0.1, "sampler": sampler}
            rows.append(row | {"N": study.PLANE_STEPS[-1], "sliced_w2": value, "sliced_w2_floor": 0.1})
        for direction in (calibration.BEST, calibration.WORST):
            row = {"part": "ranks", "law": study.NORMAL, "method": method, "direction": direction}
            rows.append(row | {"chance": chance[i], "counts": [1] * calibration.BINS})
    return rows


def test_the_verdict_comes_out_both_ways():
    limits = ((0.1, 0.9, 1.2), (2.0, 0.5, 3.0))
    said = study.verdict(made(limits, (limits[0], (None, None, None)), ((0.108, 0.3), (0.4, None)), (0.004, 0.006)))
    assert "one 0.1, 0.9 to 1.2; other 2, 0.5 to 3." in said
    assert "to 0 in 1 of 2 cases and burst in the others. The SDE's mean is less biased in 2 of 2." in said
    assert "1 of 4 runs reach the floor of sliced W2; one (UniPC) is closest, at 1.1 to 1.1 times the floor" in said
    assert "closer than UniPC in 0 of 2 pairs" in said
    assert "rejected one; not rejected other." in said
    other = study.verdict(made(limits, ((0.1, 0.9, 1.3), (1e20, 0, 1)), ((0.2, 0.15), (0.2, 0.1)), (0.5, 0.6)))
    assert "agree with these limits to 0.1 in 1 of 2 cases" in other
    assert "1 of 4 runs reach" in other
    assert "closer than UniPC in 2 of 2 pairs" in other
    assert "rejected none; not rejected one, other." in other
