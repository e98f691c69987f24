"""The OU clock against 50-digit arithmetic, and the three views of a score against Bayes' rule."""

from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.tree_util import Partial

from jaxdiff import processes, targets
from jaxdiff.arrays import like
from jaxdiff.processes import ou

LAW = ([0.3, 0.7], [-2.0, 1.0], [0.25, 0.0])
X = np.linspace(-3, 3, 13)[:, None]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def exact(t):
    """alpha, sigma, snr at the very number t, in 50 digits."""
    with localcontext(prec=50):
        growth = (2 * Decimal(float(t))).exp()
        return [float(value) for value in ((1 / growth).sqrt(), (1 - 1 / growth).sqrt(), 1 / (growth - 1))]


@DTYPES
@pytest.mark.parametrize("t", [1e-8, 1e-3, 0.3, 1.0, 5.0])
def test_the_clock_keeps_every_digit_at_small_and_large_times(t, dtype):
    t = dtype(t)
    want = exact(t)
    close = 4 * np.finfo(dtype).eps
    for time in (t, jnp.asarray(t)):
        got = [ou.alpha(time), ou.sigma(time), ou.snr(time)]
        assert all(value.dtype == dtype for value in got)
        np.testing.assert_allclose(got, want, rtol=close)


def test_signal_and_noise_variances_sum_to_one():
    t = np.geomspace(1e-12, 20, 50)
    np.testing.assert_allclose(ou.alpha(t) ** 2 + ou.sigma(t) ** 2, 1, rtol=1e-15)
    np.testing.assert_allclose(ou.alpha(t) ** 2 / ou.sigma(t) ** 2, ou.snr(t), rtol=1e-14)


@DTYPES
def test_time_inverts_the_signal_to_noise_ratio(dtype):
    t = np.geomspace(1e-8, 10, 40, dtype=dtype)
    close = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(ou.time(ou.snr(t)), t, rtol=close)
    np.testing.assert_allclose(ou.time(ou.snr(jnp.asarray(t))), t, rtol=close)


@DTYPES
def test_forward_mixes_signal_and_noise_in_the_dtype_of_the_data(dtype):
    x0, z = jnp.array([[1.0, -2.0]], dtype), jnp.array([[0.5, 3.0]], dtype)
    x = processes.forward(x0, np.float64(-np.log(0.6)), z)  # alpha = 0.6, sigma = 0.8
    assert x.dtype == dtype
    np.testing.assert_allclose(x, [[0.6 + 0.4, -1.2 + 2.4]], rtol=1e-6)


def views(t):
    """score, denoiser and noise of LAW at X as the package gets them: from Bayes' rule, not from each other."""
    score, denoised = oracles.mixture_score(LAW, X, t), oracles.mixture_denoiser(LAW, X, t)
    return score, denoised, (X - np.exp(-t) * denoised) / np.sqrt(-np.expm1(-2 * t))


@pytest.mark.parametrize("t", [0.02, 0.5, 3.0])
def test_views_of_a_mixture_agree_with_bayes_rule(t):
    score, denoised, noise = views(t)
    constant = lambda value: lambda x, t: jnp.asarray(value)
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(processes.score_from_denoiser(constant(denoised))(jnp.asarray(X), t), score, **close)
    np.testing.assert_allclose(processes.denoiser_from_score(constant(score))(jnp.asarray(X), t), denoised, **close)
    np.testing.assert_allclose(processes.score_from_noise(constant(noise))(jnp.asarray(X), t), score, **close)
    np.testing.assert_allclose(processes.noise_from_score(constant(score))(jnp.asarray(X), t), noise, **close)


@DTYPES
@pytest.mark.parametrize("t", [0.02, 0.5, 3.0])
def test_views_round_trip_in_the_dtype_of_x(t, dtype):
    def function(x, t):
        assert x.dtype == t.dtype == dtype
        return jnp.tanh(x) + t

    x, t = jnp.asarray(X, dtype), np.float64(t)
    want = function(x, jnp.asarray(t, dtype))
    for there, back in (
        (processes.score_from_denoiser, processes.denoiser_from_score),
        (processes.denoiser_from_score, processes.score_from_denoiser),
        (processes.score_from_noise, processes.noise_from_score),
        (processes.noise_from_score, processes.score_from_noise),
    ):
        got = back(there(function))(x, t)
        assert got.dtype == dtype
        lost = np.exp(t) / -np.expm1(-2 * t) * np.abs(x).max()  # the larger of |x|/sigma^2 and |x|/alpha
        np.testing.assert_allclose(got, want, rtol=0, atol=8 * lost * np.finfo(dtype).eps)


NARROW = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])


def assert_rounded_once(got, exact, dtype):
    """Positions of 16 bits, as near to exact float64 ones as their dtype allows, but for rounding of float32."""
    assert got.dtype == dtype
    _, exponent = np.frexp(exact)
    spacing = np.ldexp(float(jnp.finfo(dtype).eps), exponent - 1)
    off = np.abs(np.asarray(got, np.float64) - exact)
    float32 = 10 * np.finfo(np.float32).eps  # of terms of size 10 that may cancel
    assert (off < 0.501 * spacing + float32).all(), off / spacing


# alpha m - x nearly cancels, and t lies between two bfloat16 numbers: whatever is rounded on the way is seen.
@NARROW
@pytest.mark.parametrize("narrow_time", [False, True])
@pytest.mark.parametrize("returned", ["float32", "16 bits"])
def test_views_of_16_bits_compute_in_float32_and_round_once(narrow_time, returned, dtype):
    x = jnp.asarray(np.linspace(-3, 3, 200).reshape(100, 2), dtype)
    value = x + jnp.asarray(0.3, dtype)
    t = jnp.asarray(0.137, dtype if narrow_time else jnp.float32)
    seen = []

    def model(x, t):
        seen.append((x.dtype, t.dtype))
        return value if returned == "16 bits" else value.astype(jnp.float32)

    at, wide_x, wide = float(t), np.asarray(x, np.float64), np.asarray(value, np.float64)
    alpha, variance = np.exp(-at), -np.expm1(-2 * at)
    for view, exact in (
        (processes.score_from_denoiser, (alpha * wide - wide_x) / variance),
        (processes.denoiser_from_score, (wide_x + variance * wide) / alpha),
        (processes.score_from_noise, -wide / np.sqrt(variance)),
        (processes.noise_from_score, -np.sqrt(variance) * wide),
    ):
        assert_rounded_once(view(model)(x, t), exact, dtype)
    assert set(seen) == {(jnp.dtype(dtype), jnp.dtype("float32"))}
    assert_rounded_once(processes.forward(x, t, value), alpha * wide_x + np.sqrt(variance) * wide, dtype)


def test_a_clipped_denoiser_does_not_overflow():
    for dtype, size in ((jnp.float16, 400.0), (jnp.bfloat16, 1e30), (np.float32, 1e30), (np.float64, 1e300)):
        m = jnp.asarray(np.array([[1.0, -1.0], [0.7, 0.9], [0.55, -0.1], [3 / size, 4 / size]]) * size, dtype)
        got = processes.clipped(lambda x, t: x, 8.0)(m, 0.3)
        assert got.dtype == dtype
        unit = np.asarray(m, np.float64) / size  # whose squares float64 holds
        exact = np.concatenate([8 * unit[:3] / np.linalg.norm(unit[:3], axis=1)[:, None], size * unit[3:]])
        if jnp.finfo(dtype).bits == 16:
            assert_rounded_once(got, exact, dtype)
        np.testing.assert_allclose(np.asarray(got, np.float64), exact, rtol=4 * float(jnp.finfo(dtype).eps))


def test_whole_numbers_are_refused_where_they_would_round_the_time():
    whole = np.array([[1, 2]])
    with pytest.raises(TypeError, match="x is int64"):
        like(0.5, whole)


def test_gradients_reach_the_parameters_inside_a_view_passed_to_jit():
    linear = lambda a, x, t: a * x
    total = jax.jit(lambda score, x: score(x, 0.5).sum())
    score = processes.score_from_denoiser(Partial(linear, jnp.asarray(2.0)))
    (slope,) = jax.tree.leaves(jax.grad(total)(score, jnp.arange(3.0)))
    np.testing.assert_allclose(slope, 3 * np.exp(-0.5) / (1 - np.exp(-1.0)), rtol=1e-14)


@DTYPES
@pytest.mark.parametrize("dim", [1, 3])
def test_a_clipped_denoiser_is_itself_inside_the_ball_and_nearer_to_every_point_of_it(dim, dtype):
    rng, radius = np.random.default_rng(0), 1.5
    m = rng.standard_normal((400, dim)) * rng.choice([0.1, 1.0, 30.0], (400, 1))
    m[0] = 0
    got = processes.clipped(lambda x, t: x, radius)(jnp.asarray(m, dtype), 0.3)
    assert got.dtype == dtype
    got, close = np.asarray(got, np.float64), 8 * np.finfo(dtype).eps
    inside = np.linalg.norm(m, axis=1) <= radius
    assert 50 < inside.sum() < 350
    np.testing.assert_allclose(got[inside], m[inside], rtol=close)
    norms = np.linalg.norm(got, axis=1)
    np.testing.assert_allclose(norms[~inside], radius, rtol=close)
    along = np.sum(got * m, axis=1)[~inside]
    np.testing.assert_allclose(along, radius * np.linalg.norm(m[~inside], axis=1), rtol=close)  # in its direction
    points = rng.standard_normal((50, dim))
    points *= radius * rng.uniform(0, 1, (50, 1)) / np.linalg.norm(points, axis=1)[:, None]
    distance = lambda at: np.linalg.norm(at[:, None] - points, axis=-1)
    assert (distance(got) <= distance(m) + 30 * close * (1 + np.linalg.norm(m, axis=1)[:, None])).all()


# Of x + sigma^2 s only e^-t is left, so that float32 has no digit of the denoiser at t = 15: by Bayes' rule it is
# m + alpha v (x - alpha m)/(alpha^2 v + sigma^2).
@pytest.mark.parametrize("t", [6.0, 10.0, 13.0, 15.5])
def test_a_denoiser_made_from_a_score_keeps_half_the_digits_at_late_times(t):
    mean, variance = 0.8, 0.5
    model = processes.model_from_score(targets.gaussian([mean], [variance]).score, processes.edm, "denoiser")
    x = np.linspace(-2, 2, 41, dtype=np.float32)[:, None]
    sigma = 1 / np.sqrt(ou_snr(t))
    got = np.asarray(model(jnp.asarray(x * np.sqrt(1 + sigma**2), jnp.float32), jnp.float32(sigma)), np.float64)
    alpha = np.exp(-t)
    want = mean + alpha * variance * (x - alpha * mean) / (alpha**2 * variance - np.expm1(-2 * t))
    assert np.abs(got - want).max() < 4 * np.sqrt(np.finfo(np.float32).eps)


def ou_snr(t):
    return 1 / np.expm1(2 * t)
