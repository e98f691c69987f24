"""The log det of a learned denoiser's covariance matching, against the closed forms of linear denoisers."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import certify, grids, targets
from jaxdiff.curves import jacobian_spectrum as innovations
from jaxdiff.curves import loss_curve
from jaxdiff.guarantees.path_kl import path_kl
from jaxdiff.processes import denoiser_from_score, ou

ENDS = {"horizon": 2.0, "early_stop": 0.1}
VARIANCES = np.array([0.3, 1.0, 2.0])
LEVELS = np.array([0.05, 0.4, 3.0])  # snr
GROWTHS = np.array([0.02, 0.7, 20.0])  # h


def linear(matrix, x, t):
    return jnp.matmul(x, jnp.asarray(matrix, x.dtype).T, precision="highest")


def spread_over_groups(curve, snr, h):
    values = np.array([one.log_det(snr, h) for one in curve.replicates])
    return values.std(0, ddof=1) / np.sqrt(len(values))


def test_the_log_det_of_the_exact_denoiser_of_a_gaussian_is_its_closed_form(key):
    law = targets.gaussian(np.zeros(3), VARIANCES)
    data = law.sample(key, 640)
    curve = loss_curve(denoiser_from_score(law.score), data, jax.random.key(4), **ENDS, products=3, n_nodes=41)
    assert curve.coarse is None
    snr, h = np.meshgrid(LEVELS, GROWTHS)
    want = np.sum(np.log((1 + (snr + h)[..., None] * VARIANCES) / (1 + snr[..., None] * VARIANCES)), -1)
    error = spread_over_groups(curve, snr, h)
    assert (np.abs(curve.log_det(snr, h) - want) < 5 * error + 1e-6 * want).all()
    assert (error < 0.1 * want).all()
    assert (curve.log_det(snr, 0 * h) == 0).all()


# The posterior covariance diag(s/(1 + snr s)) is the same for every x, and probes of signs have its trace exactly.
def test_the_probes_have_the_trace_of_a_diagonal_covariance_without_error(key):
    law, snr = targets.gaussian(np.zeros(3), VARIANCES), 0.7
    (level,), coarse = innovations.measured(
        denoiser_from_score(law.score), np.asarray(law.sample(key, 10)), key, ou.time(np.array([snr])), 3, 4
    )
    assert coarse is None
    posterior = VARIANCES / (1 + snr * VARIANCES)
    for h in GROWTHS:
        nodes, weights, _ = level[0]
        assert weights.shape == (len(nodes), 4)
        np.testing.assert_allclose(np.log1p(h * nodes) @ weights, np.sum(np.log1p(h * posterior)), rtol=1e-8)
        whitened = innovations.costs(level, np.array([h])) - np.sum(
            np.log1p(h * posterior) - h * posterior / (1 + h * posterior)
        )
        nodes, weights, _ = level[1]
        np.testing.assert_allclose(whitened[0], h / (1 + h * nodes) @ weights, rtol=1e-7)


MATRIX = np.array([[0.6, 0.5, -0.1], [-0.2, 0.3, 0.4], [0.3, -0.5, 0.4]])
ROOT = np.array([[1.0, 0.2, 0.0], [0.0, 0.7, 0.3], [0.1, 0.0, 0.4]])


def wrong_cost(snr, h, matrix=MATRIX, cov=ROOT @ ROOT.T):
    """log det A + tr A^-1 (I + h R) - d in closed form, A = I + h S, S the covariance the denoiser claims."""
    d = len(matrix)
    alpha2 = snr / (1 + snr)
    claimed, axes = np.linalg.eigh((matrix + matrix.T) / 2 * (1 - alpha2) / np.sqrt(alpha2))
    a = np.eye(d) + h * (axes * np.maximum(claimed, 0)) @ axes.T
    left = np.eye(d) - np.sqrt(alpha2) * matrix
    residual = left @ cov @ left.T + (1 - alpha2) * matrix @ matrix.T
    return np.linalg.slogdet(a)[1] + np.trace(np.linalg.solve(a, np.eye(d) + h * residual)) - d


# Where the claimed covariance has no variance, or less, log det A gets nothing from it.
def test_negative_eigenvalues_of_the_claimed_covariance_are_cut_off_and_residuals_are_those_of_the_loss(key):
    matrix, t = np.diag([0.6, 0.3, -0.4]), 0.4
    denoiser, data = jax.tree_util.Partial(linear, matrix), np.asarray(jax.random.normal(key, (10, 3), jnp.float64))
    (level,), _ = innovations.measured(denoiser, data, key, np.array([t]), 3, 5)
    claimed = np.array([0.6, 0.3]) * (1 - np.exp(-2 * t)) * np.exp(t)
    nodes, weights, _ = level[0]
    np.testing.assert_allclose(np.log1p(7.0 * nodes) @ weights, np.sum(np.log1p(7.0 * claimed)), rtol=1e-8)
    curve = loss_curve(denoiser, data, key, horizon=1.0, early_stop=t, n_nodes=5, n_noises=1)  # the same noises
    squares = curve.rows[:, 4] * np.expm1(2 * t)
    np.testing.assert_allclose(level[1][2], [squares[g::5].mean() for g in range(5)], rtol=1e-9)


@pytest.fixture(scope="module")
def wrong_curve():
    data = np.asarray(jax.random.normal(jax.random.key(1), (3200, 3), jnp.float64)) @ ROOT.T
    return loss_curve(
        jax.tree_util.Partial(linear, MATRIX), data, jax.random.key(5), **ENDS, products=3, n_nodes=31, n_noises=1
    )


def test_the_log_det_of_a_denoiser_with_a_skew_jacobian_is_what_its_kernel_costs(wrong_curve):
    snr, h = np.meshgrid(LEVELS, GROWTHS)
    want = np.vectorize(wrong_cost)(snr, h)
    error = spread_over_groups(wrong_curve, snr, h)
    assert (np.abs(wrong_curve.log_det(snr, h) - want) < 5 * error + 1e-6 * np.abs(want)).all()
    assert (error < 0.1 * np.abs(want)).all()


def test_the_path_kl_is_the_sum_of_those_costs_less_the_integral_of_the_loss(wrong_curve):
    grid = np.array([1.5, 0.7, 0.3, 0.12])
    snr = 1 / np.expm1(2 * grid)
    halves = [wrong_cost(low, high - low) / 2 for low, high in itertools.pairwise(snr)]
    area = np.trapezoid(wrong_curve(fine := np.geomspace(*snr[[0, -1]], 20_001)), fine) / 2
    want = np.sum(halves) - area
    error = np.sum(spread_over_groups(wrong_curve, snr[:-1], np.diff(snr))) / 2
    assert abs(path_kl("covariance_matched", wrong_curve, grid) - want) < 5 * error
    assert error < 0.2 * abs(want)


def test_the_replicates_average_to_the_whole():
    n = 50  # 32 groups, some of two rows
    data = np.asarray(jax.random.normal(jax.random.key(1), (n, 3), jnp.float64))
    denoiser = jax.tree_util.Partial(linear, MATRIX)
    curve = loss_curve(denoiser, data, jax.random.key(5), **ENDS, products=3, n_nodes=5, n_noises=1)
    sizes = np.bincount(np.arange(n) % 32) / n
    values = np.array([one.log_det(LEVELS, GROWTHS) for one in curve.replicates])
    np.testing.assert_allclose(sizes @ values, curve.log_det(LEVELS, GROWTHS), rtol=1e-10)
    assert (values.std(0) > 1e-3 * curve.log_det(LEVELS, GROWTHS)).all()


@functools.cache
def truncated(products):
    """The same rows, noises and probes with more and more products, d = 8."""
    law = targets.gaussian(np.zeros(8), np.geomspace(0.01, 9, 8))
    data = law.sample(jax.random.key(3), 32)
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    turned = targets.gaussian(np.zeros(8), (axes * np.geomspace(0.01, 9, 8)) @ axes.T)
    return loss_curve(
        denoiser_from_score(turned.score),
        np.asarray(data) @ axes.T,
        jax.random.key(4),
        **ENDS,
        products=products,
        n_nodes=5,
        n_noises=1,
    )


def test_more_products_truncate_less_and_the_coarse_curve_has_two_fewer():
    full = truncated(8).log_det(LEVELS, GROWTHS)
    two, four = (np.abs(truncated(m).log_det(LEVELS, GROWTHS) - full).max() for m in (2, 4))
    assert two > 3 * four > 0
    coarse = truncated(4).coarse
    np.testing.assert_allclose(coarse.log_det(LEVELS, GROWTHS), truncated(2).log_det(LEVELS, GROWTHS), rtol=1e-9)
    np.testing.assert_array_equal(coarse(LEVELS), truncated(4)(LEVELS))
    assert truncated(8).coarse is None


def test_a_certificate_names_the_truncation():
    grid = grids.log_snr(1.9, 0.12, 6)
    source = lambda name, m: certify(name, grid, curve=truncated(m))["discretisation"].source
    left = path_kl("covariance_matched", truncated(4), grid) - path_kl("covariance_matched", truncated(2), grid)
    assert f"Lanczos truncated within {abs(left):.1e}" in source("covariance_matched", 4)
    assert "Lanczos" not in source("covariance_matched", 8)
    assert "Lanczos" not in source("ancestral", 4)


@pytest.mark.parametrize("products", [0, -2])
def test_no_products_are_refused(products, key):
    with pytest.raises(ValueError, match=f"products = {products}"):
        loss_curve(lambda x, t: x, np.ones((5, 2)), key, **ENDS, products=products)


def test_more_products_than_dimensions_are_d():
    data = np.asarray(jax.random.normal(jax.random.key(1), (50, 3), jnp.float64))
    denoiser = jax.tree_util.Partial(linear, MATRIX)
    three, nine = (
        loss_curve(denoiser, data, jax.random.key(5), **ENDS, products=m, n_nodes=5, n_noises=1) for m in (3, 9)
    )
    np.testing.assert_array_equal(three.log_det(LEVELS, GROWTHS), nine.log_det(LEVELS, GROWTHS))
    assert nine.coarse is None


SKEW = np.array([[0.6, 0.5, -0.1], [-0.2, 0.3, 0.4], [0.3, -0.5, -0.4]])  # symmetric part has an eigenvalue below 0


def test_residuals_along_eigenvalues_that_were_cut_off_are_paid_for():
    data = np.asarray(jax.random.normal(jax.random.key(1), (3200, 3), jnp.float64)) @ ROOT.T
    denoiser = jax.tree_util.Partial(linear, SKEW)
    curve = loss_curve(denoiser, data, jax.random.key(5), **ENDS, products=3, n_nodes=31, n_noises=1)
    assert np.linalg.eigvalsh(SKEW + SKEW.T)[0] < -0.1
    snr, h = np.meshgrid(LEVELS, GROWTHS)
    want = np.vectorize(functools.partial(wrong_cost, matrix=SKEW), signature="(),()->()")(snr, h)
    error = spread_over_groups(curve, snr, h)
    assert (np.abs(curve.log_det(snr, h) - want) < 5 * error + 1e-6 * np.abs(want)).all()


def test_covariance_matching_with_a_denoiser_that_claims_no_covariance_is_ancestral_sampling(key):
    data, grid = np.asarray(jax.random.normal(key, (320, 2), jnp.float64)), np.array([1.5, 0.7, 0.3, 0.12])
    for denoiser in (lambda x, t: 0 * x, lambda x, t: -0.5 * x):
        curve = loss_curve(denoiser, data, key, **ENDS, products=2, n_nodes=31, n_noises=1)
        want = path_kl("ancestral", curve, grid)
        assert path_kl("covariance_matched", curve, grid) == pytest.approx(want, abs=1e-3 + 0.05 * abs(want))
