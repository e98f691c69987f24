"""Scores and densities far from a mixture: finite, and those of float64, however XLA rounds the logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxdiff import targets
from jaxdiff.targets.softmax import below_the_largest, log_sum_exp, softmax

RNG = np.random.default_rng(5)
MEANS, VARIANCES, WEIGHTS = RNG.normal(size=(3, 2)), RNG.uniform(0.1, 0.5, (3, 2)), np.array([0.2, 0.5, 0.3])
MANY = RNG.normal(size=(40, 2))
LAWS = {
    "few components": targets.mixture(WEIGHTS, MEANS, VARIANCES),
    "few points": targets.point_masses(MEANS, WEIGHTS),
    "full covariances": targets.mixture(WEIGHTS, MEANS, [[[v, 0.05], [0.05, w]] for v, w in VARIANCES]),
    "many components": targets.mixture(np.full(40, 1 / 40), MANY, RNG.uniform(0.1, 0.5, (40, 2))),
    "many points": targets.point_masses(MANY),
}
T = 1e-3


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_far_scores_and_densities_are_finite_and_those_of_float64(law):
    rng = np.random.default_rng(7)
    x = np.float32(np.repeat([1e2, 1e4, 1e6, 1e8], 250)[:, None] * rng.normal(size=(1000, 2)))
    every = lambda x, t: (law.score(x, t), law.log_density(x, t), jax.grad(law.log_density)(x, t))
    every = jax.jit(jax.vmap(every, (0, None)))
    score, density, slope = map(np.asarray, every(x, np.float32(T)))
    exact, exact_density, _ = map(np.asarray, every(np.float64(x), T))
    assert np.isfinite(score).all()
    np.testing.assert_allclose(density, exact_density, rtol=1e-4)
    # Where two components weigh nearly the same, the rounding of the logits decides between them.
    for one in (score, slope):
        error = np.linalg.norm(one - exact, axis=1) / np.linalg.norm(exact, axis=1)
        assert (np.quantile(error.reshape(4, 250), 0.9, axis=1) < 1e-4).all()


def test_usual_logits_give_the_usual_softmax():
    logit = jnp.asarray(10 * np.random.default_rng(6).normal(size=(50, 4)))  # rounded by eps |logit|, 1e-14 at most
    np.testing.assert_allclose(softmax(logit, -1), special.softmax(logit, axis=-1), rtol=1e-13)
    np.testing.assert_allclose(log_sum_exp(logit, -1), special.logsumexp(logit, axis=-1), rtol=1e-13)
    got = jax.jacobian(softmax)(logit[0], -1)
    weight = special.softmax(logit[0])
    np.testing.assert_allclose(got, np.diag(weight) - np.outer(weight, weight), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(jax.grad(log_sum_exp)(logit[0], -1), weight, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_that_differ_by_rounding_alone_are_the_largest_ones(dtype):
    eps = np.finfo(dtype).eps
    largest = dtype(-1e4 / eps)
    logit = np.array([largest, largest * (1 + 4 * eps), largest * (1 + 4000 * eps)], dtype)
    np.testing.assert_array_equal(below_the_largest(jnp.asarray(logit), 0)[:2], 0)
    np.testing.assert_allclose(softmax(jnp.asarray(logit), 0), [0.5, 0.5, 0], atol=1e-30)


# In float32 the logits of particles at 1e20 overflow. Their logarithm is then -inf, as the logarithm of a density of 0.
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_density_below_every_number_has_the_logarithm_minus_infinity(law):
    assert np.asarray(jax.jit(law.log_density)(np.full((1, 2), 1e20, np.float32), np.float32(T))).item() == -np.inf


def test_logits_of_minus_infinity_sum_to_nothing():
    logit = jnp.array([[-np.inf, -np.inf], [-np.inf, 1.5]])
    np.testing.assert_array_equal(log_sum_exp(logit, -1), [-np.inf, 1.5])
