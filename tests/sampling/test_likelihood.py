"""Log-likelihoods: against densities in closed form, within a model's times, and with probes of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jaxdiff import noise, ode, processes, targets
from jaxdiff.processes import forward, ou
from jaxdiff.sampling.likelihood import bits_per_dim, log_likelihood

KEY = jax.random.key(5)
GAUSSIAN = targets.gaussian([0.5, -1.0, 0.2], [[1.0, 0.4, 0.1], [0.4, 0.8, -0.2], [0.1, -0.2, 0.3]])
MIXTURE = targets.mixture([0.3, 0.7], [[0.0, 1.0], [1.0, -1.0]], [[0.1, 0.2], [0.3, 0.1]])
LAW = targets.gaussian([0.5, -1.0], [[1.0, 0.4], [0.4, 0.6]])
X = jnp.asarray([[0.3, -0.2], [1.1, 0.4], [-0.7, -2.0], [0.0, 0.1], [2.0, -1.0]])


def points(law, early_stop, n=12):
    data = law.sample(jax.random.key(0), n)
    return forward(data, early_stop, jax.random.normal(jax.random.key(1), data.shape))


@pytest.mark.parametrize(("law", "early_stop"), [(GAUSSIAN, 1e-3), (MIXTURE, 0.3), (MIXTURE, 1e-3)])
def test_exact_divergence_gives_the_closed_form(law, early_stop):
    x = points(law, early_stop)
    got = log_likelihood(law.score, x, early_stop=early_stop, horizon=17.0, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got, law.log_density(x, early_stop), atol=1e-6)


def test_hutchinson_is_unbiased():
    law = MIXTURE
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
    run = lambda x, first: log_likelihood(MIXTURE.score, x, key, early_stop=0.05, probes=2, first_particle=first)
    whole = run(x, 0)
    np.testing.assert_allclose(jnp.concatenate([run(x[:3], 0), run(x[3:], 3)]), whole, rtol=1e-8)
    assert np.abs(np.asarray(run(x, 6) - whole)).max() > 1e-3


def test_signs_share_nothing_with_increments_and_starts_of_their_key():
    particle, probes = jnp.arange(500), [noise.signs(KEY, jnp.arange(500), k, 4) for k in range(2)]
    keys = [KEY, *(jax.random.fold_in(KEY, stage) for stage in range(3))]
    drawn = [noise.initial(key, particle, 4) for key in keys]
    drawn += [noise.normal(key, particle, step, 4) for key in keys for step in range(4)]
    for one in probes:
        assert set(np.unique(one)) == {-1.0, 1.0}
        agreeing = [np.mean(np.sign(other) == one) for other in drawn]
        assert np.abs(np.array(agreeing) - 0.5).max() < 5 * 0.5 / np.sqrt(one.size)
    np.testing.assert_array_equal(noise.signs(KEY, particle, 1, 4, jnp.float64), probes[1])


# q_T is taken for N(0, I) at the model's own horizon: the exact law's log q of the flow that starts there.
@pytest.mark.parametrize("process", [processes.vp_linear(), processes.ddpm(), processes.ve()], ids=lambda p: p.name)
def test_the_default_horizon_is_the_models_own(process):
    made = processes.score_from_model(processes.model_from_score(LAW.score, process, "noise"), process, "noise")
    horizon, early_stop = processes.ou_ends(process)
    got = log_likelihood(made, X, early_stop=max(early_stop, 1e-3))
    due = log_likelihood(LAW.score, X, early_stop=max(early_stop, 1e-3), horizon=horizon)
    np.testing.assert_allclose(got, due, atol=2e-4)
    np.testing.assert_allclose(got, LAW.log_density(X, max(early_stop, 1e-3)), atol=20 * np.exp(-horizon))
    with pytest.raises(ValueError, match=r"OU time 12.*ou_ends"):
        log_likelihood(made, X, early_stop=max(early_stop, 1e-3), horizon=12.0)
    with pytest.raises(ValueError, match=r"OU time 12.*ou_ends"):
        ode.solve(made, X, 12.0, 1.0)


def test_a_score_that_is_nan_on_the_way_ends_in_words():
    broken = lambda x, t: jnp.where(t > 0.5, jnp.nan, -x)
    with pytest.raises(RuntimeError, match="5 of 5 particles do not come to the end, the first at index 0"):
        log_likelihood(broken, X, early_stop=0.1, horizon=2.0)
    with pytest.raises(RuntimeError, match="5 of 5 particles"):
        ode.solve(broken, X, 2.0, 0.1)


def test_points_of_16_bits_have_a_likelihood_in_float32():
    x, law = X[:2].astype(jnp.bfloat16), targets.gaussian([0.5, -1.0], [0.3, 0.6])
    got = log_likelihood(law.score, x, early_stop=0.1, horizon=9.0)
    assert got.dtype == jnp.float32
    variance = np.exp(-0.2) * np.array([0.3, 0.6]) - np.expm1(-0.2)
    off = np.asarray(x, np.float64) - np.exp(-0.1) * np.array([0.5, -1.0])
    exact = -np.sum(off**2 / variance + np.log(2 * np.pi * variance), axis=1) / 2
    np.testing.assert_allclose(got, exact, atol=1e-3)


def batches_only(x, t):
    """A network as most are: it wants (n, d)."""
    assert x.ndim == 2
    return -x


def test_networks_that_want_batches_are_given_batches():
    due = -np.sum(X**2, axis=1) / 2 - np.log(2 * np.pi)
    np.testing.assert_allclose(log_likelihood(batches_only, X, early_stop=0.1, horizon=2.0), due, rtol=1e-6)
    np.testing.assert_allclose(ode.solve(batches_only, X, 2.0, 0.1).x, X, rtol=1e-6)


# Under the score of N(0, 1) nothing moves, so that dx(end)/dx(start) = 1; under that of N(0, v), sqrt(q_end/q_start).
def test_the_ode_has_derivatives_in_both_modes_and_is_exported():
    law = targets.gaussian([0.0, 0.0], [0.3, 0.3])
    slope = np.sqrt((0.3 * np.exp(-0.2) - np.expm1(-0.2)) / (0.3 * np.exp(-4.0) - np.expm1(-4.0)))
    end = lambda x, **options: ode.solve(law.score, x, 2.0, 0.1, rtol=1e-8, atol=1e-8, **options).x
    ones = jnp.ones_like(X)
    np.testing.assert_allclose(jax.jvp(lambda x: end(x, forward_mode=True), (X,), (ones,))[1], slope, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda x: end(x).sum())(X), slope, rtol=1e-5)
    exported = jax.export.export(jax.jit(end))(X)
    np.testing.assert_allclose(exported.call(X), slope * X, rtol=1e-5)


def test_probes_need_a_key():
    with pytest.raises(ValueError, match="need a key"):
        log_likelihood(GAUSSIAN.score, jnp.ones((2, 3)), early_stop=0.1, probes=2)
