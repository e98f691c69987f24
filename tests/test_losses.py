"""The denoising loss against its exact expectation on a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import losses, targets
from jaxdiff.processes import denoiser_from_score, ou


def test_loss_of_the_exact_denoiser_is_the_weighted_mmse_integral(key):
    law = targets.gaussian([0.0, 0.0], [0.5, 2.0])
    denoiser = denoiser_from_score(law.score)
    at = jax.jit(
        lambda key, x0: losses.denoising(jax.vmap(denoiser), x0, key, weight=ou.snr, horizon=3.0, early_stop=0.05)
    )
    values = [at(key_loss, law.sample(key_data, 4000)) for key_loss, key_data in jax.random.split(key, (30, 2))]
    low, high = ou.snr(np.array([3.0, 0.05]))
    integral = float(law.mmse.integral(high) - law.mmse.integral(low))  # int V dsnr = int snr V dlog snr
    expected = integral / np.log(high / low)
    assert abs(np.mean(values) - expected) < 5 * np.std(values, ddof=1) / np.sqrt(30)
    assert np.std(values, ddof=1) < 0.03 * expected


def test_default_weight_is_the_likelihoods_plus_a_tenth_of_edms():
    t = jnp.asarray(0.7)
    likelihood, edm = ou.snr(t), 1 / ou.sigma(t) ** 2
    assert float(losses.path_kl_weight(t)) == pytest.approx(float(likelihood + 0.1 * (edm - likelihood)))


def test_times_are_one_to_each_cell_of_log_snr(key):
    t = np.asarray(losses.stratified_times(key, 50, 5.0, 1e-3))
    u, ends = np.log(ou.snr(t)), np.log(ou.snr(np.array([5.0, 1e-3])))
    cell = np.floor((u - ends[0]) / (ends[1] - ends[0]) * 50)
    np.testing.assert_array_equal(np.sort(cell), np.arange(50))
    assert not np.array_equal(cell, np.arange(50))  # a row must not be tied to a level


def test_an_early_stop_above_the_horizon_is_refused(key):
    with pytest.raises(ValueError, match=r"early_stop = 3, horizon = 0\.01"):
        losses.denoising(lambda x, t: x, jnp.ones((4, 2)), key, horizon=0.01, early_stop=3.0)


def test_gradient_of_the_loss_vanishes_at_the_best_linear_slope(key):
    v = 0.5
    best = lambda t: ou.alpha(t) * v / (ou.alpha(t) ** 2 * v + ou.sigma(t) ** 2)

    def at(slope, key):
        key_data, key_loss = jax.random.split(key)
        x0 = np.sqrt(v) * jax.random.normal(key_data, (5000, 1))
        return losses.denoising(lambda x, t: slope * best(t)[:, None] * x, x0, key_loss)

    gradients, curvatures = (
        np.array(jax.lax.map(lambda key, order=order: order(at)(1.0, key), jax.random.split(key, 20)))
        for order in (jax.grad, lambda f: jax.grad(jax.grad(f)))
    )
    error = gradients.std(ddof=1) / np.sqrt(20)
    assert abs(gradients.mean()) < 5 * error
    assert error < 0.01 * curvatures.mean()  # a slope off by a twentieth would show
