"""Products of laws against the same law written as one, and against sums over its factors."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff
from jaxdiff import kernels, targets
from jaxdiff.curves import Curve
from jaxdiff.curves.panels import antiderivative
from jaxdiff.grids import exponential_then_uniform
from jaxdiff.guarantees.path_kl import path_kl, path_kl_error
from jaxdiff.targets.product import MOST_COORDINATES

RNG = np.random.default_rng(0)
COIN = targets.point_masses([[-1.0], [1.0]])
LINE = targets.mixture([0.3, 0.7], [[-1.5], [1.0]], [[0.04], [0.3]])
COV = np.array([[1.0, 0.3], [0.3, 0.5]])
PLANE = targets.gaussian([1.0, -2.0], COV)
CLOUD = targets.mixture([0.3, 0.7], [[-1.5, 0.0], [1.0, 1.0]], [[0.04, 0.2], [0.3, 0.1]])
GRID = exponential_then_uniform(3.0, 0.01, 12)
SNR = np.array([0.05, 1.0, 6.0])


def _as_one():
    """LINE, LINE, PLANE, LINE as one mixture of 2^3 components in d = 5."""
    weights, means, covs = [], [], []
    for i in range(2):
        for j in range(2):
            for k in range(2):
                w, m, v = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.04, 0.3])
                cov = np.zeros((5, 5))
                cov[0, 0], cov[1, 1], cov[2:4, 2:4], cov[4, 4] = v[i], v[j], COV, v[k]
                weights.append(w[i] * w[j] * w[k])
                means.append([m[i], m[j], 1.0, -2.0, m[k]])
                covs.append(cov)
    return targets.mixture(weights, means, covs)


compiled = functools.cache(jax.jit)
FACTORS, ONE = [LINE, LINE, PLANE, LINE], _as_one()
PRODUCT = targets.product(FACTORS)


@pytest.mark.parametrize("t", [0.0, 0.05, 1.0])
def test_a_product_of_mixtures_is_the_mixture_of_all_their_pairs(t):
    x = jnp.asarray(1.5 * RNG.normal(size=(3, 4, 5)))
    both = lambda of: [compiled(getattr(law, of))(x, t) for law in (PRODUCT, ONE)]
    np.testing.assert_allclose(*both("score"), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(*both("log_density"), rtol=1e-10)
    assert (PRODUCT.dim, PRODUCT.name) == (5, "product")
    assert PRODUCT.second_moment == pytest.approx(ONE.second_moment, rel=1e-13)
    assert PRODUCT.smoothing_kl(0.1) == pytest.approx(3 * LINE.smoothing_kl(0.1) + PLANE.smoothing_kl(0.1), rel=1e-13)
    assert targets.product([LINE, COIN]).smoothing_kl(0.1) == np.inf


def test_float32_goes_in_and_out_under_jit_and_one_program_serves_all_parameters():
    x, t = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32), np.float64(0.3)
    found, traced = [], []

    @jax.jit
    def apply(score, x):
        traced.append(1)
        return score(x, t)

    wide = jax.jit(lambda score, x: score(x, t))
    for width in (0.5, 0.7):
        law = targets.product([LINE, LINE, targets.gaussian([1.0, -2.0], COV * width), LINE])
        found.append(apply(law.score, x))
        assert found[-1].dtype == jax.eval_shape(law.log_density, x, t).dtype == jnp.float32
        np.testing.assert_allclose(found[-1], wide(law.score, x.astype(jnp.float64)), rtol=2e-5, atol=2e-5)
    assert len(traced) == 1
    assert jnp.abs(found[0] - found[1]).max() > 1e-3


def test_equal_factors_in_a_row_are_one_call():
    calls = []

    def counting(x, t):
        calls.append(x.shape)
        return COIN.score(x, t)

    coin = dataclasses.replace(COIN, score=jax.tree_util.Partial(counting))
    law = targets.product([coin] * 64)
    x = jnp.asarray(RNG.normal(size=(7, 64)))
    got = law.score(x, 0.3)
    assert calls == [(7, 64, 1)]
    np.testing.assert_allclose(got, COIN.score(x[..., None], 0.3)[..., 0], rtol=1e-12)


def test_samples_are_independent_blocks(key):
    draw = jax.jit(targets.product([COIN, COIN, PLANE, COIN]).sample, static_argnums=1)
    x = np.asarray(draw(key, 20_000))
    assert x.shape == (20_000, 5)
    assert (np.abs(x[:, [0, 1, 4]]) == 1).all()
    cov = np.zeros((5, 5))
    cov[[0, 1, 4], [0, 1, 4]], cov[2:4, 2:4] = 1, COV
    away = x - [0, 0, 1, -2, 0]
    products = away[:, :, None] * away[:, None]
    assert (np.abs(away.mean(0)) < 5 * away.std(0) / np.sqrt(len(x))).all()
    assert (np.abs(products.mean(0) - cov) < 5 * products.std(0) / np.sqrt(len(x)) + 1e-12).all()
    draw = lambda key: targets.product([COIN, PLANE]).sample(key, 3, jnp.float32)
    assert jax.eval_shape(draw, key).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_run_with_the_score_of_a_product_is_the_run_of_the_law_as_one(key, dtype):
    ball, cov = targets.gaussian([0.5], [0.3]), np.diag([0.3, 0.3, 0.0, 0.0, 0.3])
    cov[2:4, 2:4] = COV
    one, blocks = targets.gaussian([0.5, 0.5, 1, -2, 0.5], cov), targets.product([ball, ball, PLANE, ball])
    x = jax.random.normal(jax.random.key(0), (200, 5), dtype)
    want, got = (jaxdiff.sample(kernels.ancestral(law.score), x, GRID, key) for law in (one, blocks))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, atol=200 * jnp.finfo(dtype).eps)


def test_the_curve_is_the_sum_of_the_factors_each_evaluated_once():
    np.testing.assert_allclose(PRODUCT.mmse(SNR), 3 * LINE.mmse(SNR) + PLANE.mmse(SNR), rtol=1e-13)
    assert (PRODUCT.mmse.standard_error(SNR) == 0).all()
    area = np.diff(antiderivative(PRODUCT.mmse, SNR))
    gain = np.linalg.slogdet(np.eye(2) + SNR[:, None, None] * COV)[1]
    want = 3 * np.diff(antiderivative(LINE.mmse, SNR)) + np.diff(gain)
    np.testing.assert_allclose(area, want, rtol=1e-12)
    h = np.array([[0.1], [30.0]])
    want = 3 * LINE.mmse.log_det(SNR, h) + PLANE.mmse.log_det(SNR, h)
    np.testing.assert_allclose(PRODUCT.mmse.log_det(SNR, h), want, rtol=1e-13)
    asked = []

    def value(snr):
        asked.append(1)
        return 1 / (1 + snr)

    plain = dataclasses.replace(COIN, mmse=Curve(value, 1))
    law = targets.product([plain, PLANE, plain, plain])
    np.testing.assert_allclose(law.mmse(SNR), 3 / (1 + SNR) + PLANE.mmse(SNR), rtol=1e-13)
    assert len(asked) == 1
    assert law.mmse.log_det is None
    assert law.mmse.directions is None
    np.testing.assert_allclose(
        np.diff(law.mmse.integral(SNR)), np.diff(3 * np.log1p(SNR) + PLANE.mmse.integral(SNR)), rtol=1e-12
    )


def test_path_kl_of_a_product_is_that_of_its_factors():
    for name in ("ancestral", "exponential_euler", "covariance_matched"):
        want = 2 * path_kl(name, COIN.mmse, GRID) + path_kl(name, PLANE.mmse, GRID)
        got = path_kl(name, targets.product([COIN, PLANE, COIN]).mmse, GRID)
        assert got == pytest.approx(want, rel=1e-11, abs=1e-12)


def test_directions_follow_the_factors_and_their_basis_is_block_diagonal():
    got = PRODUCT.mmse.directions(SNR)
    line, plane = LINE.mmse(SNR)[:, None], PLANE.mmse.directions(SNR)
    np.testing.assert_allclose(got, np.concatenate([line, line, plane, line], axis=1), rtol=1e-13)
    basis = np.eye(5)
    basis[2:4, 2:4] = PLANE.mmse.basis
    np.testing.assert_array_equal(PRODUCT.mmse.basis, basis)
    assert targets.product([COIN] * 3).mmse.basis == "coordinates"
    assert targets.product([COIN] * (MOST_COORDINATES + 1)).mmse.basis == "coordinates"
    wide = targets.product([PLANE] * (MOST_COORDINATES // 2 + 1)).mmse
    assert wide.basis is None
    assert wide.directions is None


def test_replicates_of_monte_carlo_factors_are_added_one_by_one():
    other = targets.mixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 1.0]], [[0.04, 0.2], [0.3, 0.1]])
    law = targets.product([CLOUD, LINE, other, CLOUD])
    pairs = zip(CLOUD.mmse.replicates, other.mmse.replicates, strict=True)
    values = [2 * a(SNR) + LINE.mmse(SNR) + b(SNR) for a, b in pairs]
    np.testing.assert_allclose([one(SNR) for one in law.mmse.replicates], values, rtol=1e-13)
    np.testing.assert_allclose(law.mmse(SNR), np.mean(values, axis=0), rtol=1e-12)
    np.testing.assert_allclose(law.mmse.standard_error(SNR), np.std(values, axis=0, ddof=1) / 4, rtol=1e-9)
    twice = targets.product([CLOUD, CLOUD]).mmse
    assert path_kl_error("ancestral", twice, GRID) == pytest.approx(2 * path_kl_error("ancestral", CLOUD.mmse, GRID))
    noisy = dataclasses.replace(COIN, mmse=Curve(COIN.mmse, 1, standard_error=lambda snr: 0.3 + 0 * snr))
    both = targets.product([noisy, CLOUD, noisy]).mmse.standard_error(SNR)
    np.testing.assert_allclose(both, np.hypot(0.6, CLOUD.mmse.standard_error(SNR)), rtol=1e-9)


def test_what_is_no_product_is_refused():
    with pytest.raises(ValueError, match="at least one Target"):
        targets.product([])
    with pytest.raises(TypeError, match=r"factors of a product must be Targets.*not 3"):
        targets.product([COIN, 3])
    with pytest.raises(ValueError, match="width 4, this target has dimension 5"):
        PRODUCT.score(jnp.zeros((2, 4)), 0.1)
    with pytest.raises(ValueError, match="width 6, this target has dimension 5"):
        PRODUCT.log_density(jnp.zeros((2, 6)), 0.1)
