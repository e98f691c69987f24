"""The adaptive ODE against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import targets
from jaxdiff.sampling.likelihood import log_likelihood
from jaxdiff.sampling.ode import STAGES, solve

GAUSSIAN = targets.gaussian([0.5, -1.0, 0.2], [[1.0, 0.4, 0.1], [0.4, 0.8, -0.2], [0.1, -0.2, 0.3]])


# The flow of a diagonal Gaussian moves every coordinate to the same quantile.
@pytest.mark.parametrize(("start", "end"), [(5.0, 0.01), (0.01, 5.0), (2.0, 1e-6)])
def test_the_flow_of_a_gaussian_keeps_quantiles_both_ways(start, end):
    mean, variance = np.array([0.5, -1.0]), np.array([0.3, 4.0])
    deviation = lambda t: np.sqrt(np.exp(-2 * t) * variance - np.expm1(-2 * t))
    law, x = targets.gaussian(mean, variance), np.random.default_rng(0).normal(size=(6, 2))
    found = solve(
        law.score, jnp.asarray(np.exp(-start) * mean + deviation(start) * x), start, end, rtol=1e-9, atol=1e-10
    )
    np.testing.assert_allclose(found.x, np.exp(-end) * mean + deviation(end) * x, atol=1e-7)


# The ODE of N(0, v) multiplies by the ratio of the deviations. The score sees float32, and may return 16 bits.
@pytest.mark.parametrize(("dtype", "returned"), [(jnp.bfloat16, jnp.float32), (jnp.float16, jnp.float16)])
def test_16_bits_are_followed_in_float32_and_rounded_once(dtype, returned):
    v, start, end = 0.3, 2.0, 0.05
    total = lambda t: np.exp(-2 * t) * v - np.expm1(-2 * t)
    seen = []

    def score(x, t):
        seen.append((x.dtype, t.dtype))
        return (-x / (jnp.exp(-2 * t) * v - jnp.expm1(-2 * t))).astype(returned)

    x, close = jnp.asarray([[0.3, -1.2], [2.0, 0.7]], dtype), 1e-6 if returned == jnp.float32 else 1e-3
    found = solve(score, x, start, end, rtol=close, atol=close).x
    assert found.dtype == dtype
    assert set(seen) == {(jnp.dtype("float32"), jnp.dtype("float32"))}
    exact = np.asarray(x, np.float64) * np.sqrt(total(end) / total(start))
    rounding = 0.51 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(found.astype(float), exact, rtol=rounding if returned == jnp.float32 else 4 * close)


def test_evaluations_are_counted_as_they_are_made():
    calls = []

    def score(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return -x * (1 + t)

    found = solve(score, jnp.ones((1, 2)), 3.0, 0.1)
    jax.effects_barrier()
    assert found.evals[0] % STAGES == 1
    assert len(calls) in (int(found.evals[0]), int(found.evals[0]) + 1)  # one for the first step's length
    assert solve(score, jnp.ones((1, 2)), 3.0, 0.1, rtol=1e-9, atol=1e-9).evals[0] > found.evals[0]


@pytest.mark.parametrize(
    "run", [lambda x: solve(GAUSSIAN.score, x, 2.0, 0.1), lambda x: log_likelihood(GAUSSIAN.score, x, early_stop=0.1)]
)
def test_positions_are_rows_of_floats(run):
    with pytest.raises(ValueError, match="must be \\(n, d\\)"):
        run(jnp.ones(3))
    with pytest.raises(TypeError, match="float dtype"):
        run(jnp.ones((2, 3), jnp.int32))
    with pytest.raises(ValueError, match="start = 1, end = 1"):
        solve(GAUSSIAN.score, jnp.ones((2, 3)), 1.0, 1.0)
