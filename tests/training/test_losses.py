"""Losses against their exact expectations on a Gaussian, weights against each source's convention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

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


@pytest.mark.parametrize("n", [50, np.int64(50)])
def test_times_are_one_to_each_cell_of_log_snr(key, n):
    t = np.asarray(losses.stratified_times(key, n, 5.0, 1e-3))
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


# Weights of |X_0 - D|^2. The noise's error is c/sigma times it, the score's c/sigma^2.
CONVENTIONS = {
    "likelihood": lambda c, sigma: 2 * (c / sigma**2) ** 2,  # g^2 = 2 of the score's error
    "sigma^2": lambda c, sigma: sigma**2 * (c / sigma**2) ** 2,  # of the score's error
    "snr": lambda c, sigma: (c / sigma) ** 2,  # 1 of the noise's error
    "min-snr": lambda c, sigma: np.minimum((c / sigma) ** 2, 5.0),
    "uniform": lambda c, sigma: np.ones_like(c),
    "EDM": lambda c, sigma: ((sigma / c) ** 2 + 1) / ((sigma / c) * 1) ** 2,  # (s^2 + 1)/(s 1)^2, noise s on data of 1
    "EDM-lognormal": lambda c, sigma: _of_edm(sigma / c / 2),  # noise on data of deviation 1/2
}


def _of_edm(s):
    """EDM's weight (s^2 + d^2)/(s d)^2 at d = 1/2, for errors in units of d, by the density of log s, at most 1."""
    density = stats.norm(-1.2, 1.2).pdf
    return (s**2 + 0.25) / (0.5 * s) ** 2 * 0.25 * density(np.log(s)) / density(-1.2)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_named_weight_is_that_of_its_source(name):
    t = np.array([1e-3, 0.05, 0.091, 0.0912, 0.7, 3.0])  # snr is 5 at log(1.2)/2 = 0.09116
    want = CONVENTIONS[name](np.exp(-t), np.sqrt(-np.expm1(-2 * t)))
    np.testing.assert_allclose(losses.WEIGHTS[name](jnp.asarray(t)), want, rtol=1e-12)
    assert losses.WEIGHTS[name](jnp.float32(0.3)).dtype == jnp.float32


def test_there_are_no_other_names():
    assert set(losses.WEIGHTS) == set(CONVENTIONS)


def test_a_name_is_the_same_as_its_function(key):
    x0 = jax.random.normal(key, (64, 2))
    denoiser = lambda x, t: 0.3 * x
    by_name, by_function = (losses.denoising(denoiser, x0, key, weight=weight) for weight in ("snr", ou.snr))
    assert float(by_name) == float(by_function)


@pytest.mark.parametrize("loss", ["denoising", "score_matching"])
def test_an_unknown_weight_is_refused_with_those_there_are(loss, key):
    with pytest.raises(
        ValueError, match=r"likelihood, sigma\^2, snr, min-snr, uniform, EDM, EDM-lognormal: weight = 'edm'"
    ):
        getattr(losses, loss)(lambda x, t: x, jnp.ones((4, 2)), key, weight="edm")


HORIZON, EARLY_STOP = 3.0, 0.05
SCORE_WEIGHTS = {**{name: name for name in CONVENTIONS}, "a function": lambda t: 1 + t**2}


def score_weight(name, t):
    """lambda(t), of the score's error."""
    if name == "a function":
        return 1 + t**2
    c, sigma = np.exp(-t), np.sqrt(-np.expm1(-2 * t))
    return CONVENTIONS[name](c, sigma) / (c / sigma**2) ** 2


def time_average(function):
    """(1/(T - delta)) int of it over time."""
    value, _ = quad(function, EARLY_STOP, HORIZON, epsabs=0, epsrel=1e-10)
    return value / (HORIZON - EARLY_STOP)


def all_losses(score, x0, key, names=tuple(SCORE_WEIGHTS)):
    """One number a weight, of the same draws."""
    options = {"horizon": HORIZON, "early_stop": EARLY_STOP}
    return jnp.stack([losses.score_matching(score, x0, key, weight=SCORE_WEIGHTS[name], **options) for name in names])


def assert_means(at, expected, share, key):
    """The runs' means, one column a weight, are within five standard errors, and those are a small share of them."""
    values = np.array(jax.lax.map(at, jax.random.split(key, (40, 2))))
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(values.mean(axis=0) - expected) < 5 * error).all()
    assert (error < share * np.array(expected)).all()


# E|s - grad log q(X_t | X_0)|^2 = (c^2/sigma^4) V; a Gaussian of variances v has V = sum v sigma^2/(c^2 v + sigma^2).
def test_score_matching_of_the_exact_score_is_the_integral_of_the_mmse(key):
    variances = np.array([0.5, 2.0])
    law = targets.gaussian([0.3, -0.2], variances)

    def per_weight(t):
        c2, sigma2 = np.exp(-2 * t), -np.expm1(-2 * t)
        return c2 / sigma2**2 * np.sum(variances * sigma2 / (c2 * variances + sigma2))

    expected = [time_average(lambda t, name=name: score_weight(name, t) * per_weight(t)) for name in SCORE_WEIGHTS]
    assert_means(lambda keys: all_losses(law.score, law.sample(keys[1], 2000), keys[0]), expected, 0.01, key)


# Both score the same draws: |s + e - g|^2 - |s - g|^2 = |e|^2 + 2 <e, s - g>, the latter of mean 0.
def test_a_wrong_score_loses_its_weighted_error_more_than_the_exact_one(key):
    shift = jnp.asarray([0.7, -1.5])
    law = targets.gaussian([0.3, -0.2], [0.5, 2.0])
    wrong = lambda x, t: law.score(x, t) + shift * t  # of squared error |shift|^2 t^2 everywhere
    names = "likelihood", "a function"

    def difference(keys):
        x0 = law.sample(keys[1], 2000)
        return all_losses(wrong, x0, keys[0], names) - all_losses(law.score, x0, keys[0], names)

    square = 0.7**2 + 1.5**2
    expected = [time_average(lambda t, name=name: score_weight(name, t) * square * t**2) for name in names]
    assert_means(difference, expected, 0.02, key)


def test_the_gradient_of_score_matching_vanishes_at_the_exact_score(key):
    law = targets.gaussian([0.0], [0.5])

    def at(slope, key):
        key_data, key_loss = jax.random.split(key)
        x0 = law.sample(key_data, 5000)
        return losses.score_matching(lambda x, t: slope * law.score(x, t), x0, key_loss, weight="sigma^2")

    gradients, curvatures = (
        np.array(jax.lax.map(lambda key, order=order: order(at)(1.0, key), jax.random.split(key, 20)))
        for order in (jax.grad, lambda f: jax.grad(jax.grad(f)))
    )
    error = gradients.std(ddof=1) / np.sqrt(20)
    assert abs(gradients.mean()) < 5 * error
    assert error < 0.01 * curvatures.mean()


def test_score_matching_of_float32_data_is_float32_and_its_gradient_finite(key):
    x0 = jax.random.normal(key, (256, 3), jnp.float32)
    at = lambda slope: all_losses(lambda x, t: -slope * x, x0, key)
    values, slopes = jax.jit(lambda slope: (at(slope), jax.jacfwd(at)(slope)))(jnp.float32(0.9))
    assert values.dtype == slopes.dtype == jnp.float32
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()


def test_score_matching_between_ends_the_wrong_way_round_is_refused(key):
    with pytest.raises(ValueError, match="early_stop must lie below the horizon"):
        losses.score_matching(lambda x, t: x, jnp.ones((4, 2)), key, horizon=0.01, early_stop=3.0)
