"""The adaptive ODE and the likelihood against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jaxdiff import targets
from jaxdiff.likelihood import bits_per_dim, log_likelihood
from jaxdiff.ode import STAGES, solve
from jaxdiff.processes import forward, ou

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


# Data on a lattice of width 1/2, a centre drawn with the Gaussian's mass of its cell: their entropy is what an exact
# model needs; a density of the data with uniform noise needs that or more, and little more where it is smooth.
def test_bits_per_dimension_of_gaussian_data_on_a_lattice_are_their_entropy_or_little_more():
    width, variance, early_stop, n = 0.5, 2.0, 0.05, 4000
    centres = width * np.arange(-40, 41)
    edges = np.append(centres - width / 2, centres[-1] + width / 2)
    mass = np.diff(norm.cdf(edges, scale=np.sqrt(variance)))
    entropy = -np.sum(mass[mass > 0] * np.log2(mass[mass > 0]))
    rng, law = np.random.default_rng(0), targets.gaussian([0.0, 0.0], [variance, variance])
    u = rng.choice(centres, p=mass / mass.sum(), size=(n, 2)) + width * (rng.uniform(size=(n, 2)) - 0.5)
    points = float(ou.alpha(early_stop)) * jnp.asarray(u)
    exact = bits_per_dim(law.log_density(points, early_stop), 2, early_stop=early_stop, bin_width=width)
    error = exact.std() / np.sqrt(n)
    assert entropy - 5 * error < exact.mean() < entropy + 0.02 + 5 * error
    found = log_likelihood(law.score, points[:50], early_stop=early_stop, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(bits_per_dim(found, 2, early_stop=early_stop, bin_width=width), exact[:50], atol=1e-5)


# +-1 with uniform noise of width 2 is all but flat: the spikes of the law at early_stop must not count as its density.
def test_a_law_of_two_points_needs_a_bit_or_more():
    law, rng = targets.point_masses([[-1.0], [1.0]]), np.random.default_rng(0)
    u = rng.choice([-1.0, 1.0], size=(500, 1)) + rng.uniform(-1, 1, size=(500, 1))
    for early_stop in (0.3, 1e-2):
        log_density = law.log_density(float(ou.alpha(early_stop)) * jnp.asarray(u), early_stop)
        assert bits_per_dim(log_density, 1, early_stop=early_stop, bin_width=2.0).mean() > 1


def test_probes_of_two_calls_are_those_of_one():
    x, key = points(MIXTURE, 0.05, 6), jax.random.key(2)
    run = lambda x, first: log_likelihood(MIXTURE.score, x, key, early_stop=0.05, probes=1, first_particle=first)
    whole = run(x, 0)
    np.testing.assert_allclose(jnp.concatenate([run(x[:3], 0), run(x[3:], 3)]), whole, rtol=1e-8)
    assert np.abs(np.asarray(run(x, 6) - whole)).max() > 1e-3


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


def test_probes_need_a_key():
    with pytest.raises(ValueError, match="need a key"):
        log_likelihood(GAUSSIAN.score, jnp.ones((2, 3)), early_stop=0.1, probes=2)
