"""The adaptive ODE and the likelihood against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import targets
from jaxdiff.likelihood import bits_per_dim, log_likelihood
from jaxdiff.ode import STAGES, solve
from jaxdiff.processes import forward

GAUSSIAN = targets.gaussian([0.5, -1.0, 0.2], [[1.0, 0.4, 0.1], [0.4, 0.8, -0.2], [0.1, -0.2, 0.3]])
MIXTURE = targets.mixture([0.3, 0.7], [[0.0, 1.0], [1.0, -1.0]], [[0.1, 0.2], [0.3, 0.1]])
LAWS = pytest.mark.parametrize("law", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])


def points(law, early_stop, n=12):
    data = law.sample(jax.random.key(0), n)
    return forward(data, early_stop, jax.random.normal(jax.random.key(1), data.shape))


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


@LAWS
@pytest.mark.parametrize("early_stop", [0.3, 1e-3])
def test_exact_divergence_gives_the_closed_form(law, early_stop):
    x = points(law, early_stop)
    got = log_likelihood(law.score, x, early_stop=early_stop, horizon=17.0, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got, law.log_density(x, early_stop), atol=1e-6)


@LAWS
def test_hutchinson_is_unbiased(law):
    x = jnp.repeat(points(law, 0.05, 1), 256, axis=0)
    got = np.asarray(log_likelihood(law.score, x, jax.random.key(2), early_stop=0.05, probes=4))
    want = law.log_density(x, 0.05)[0]
    assert abs(got.mean() - want) < 5 * got.std(ddof=1) / np.sqrt(len(got)) + 1e-4
    assert got.std() > 0


def test_bits_per_dimension_of_a_uniform_law_on_256_levels_are_eight():
    density = np.full(3, -64 * np.log(2.0))  # uniform over [-1, 1]^64, levels 2/256 apart
    np.testing.assert_allclose(bits_per_dim(density, 64, bin_width=2 / 256), 8)


def test_probes_need_a_key():
    with pytest.raises(ValueError, match="need a key"):
        log_likelihood(GAUSSIAN.score, jnp.ones((2, 3)), early_stop=0.1, probes=2)
