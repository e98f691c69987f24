"""Log-likelihoods: against densities in closed form, within a model's times, and with probes of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import likelihood, noise, ode, processes, targets

KEY = jax.random.key(5)
LAW = targets.gaussian([0.5, -1.0], [[1.0, 0.4], [0.4, 0.6]])
X = jnp.asarray([[0.3, -0.2], [1.1, 0.4], [-0.7, -2.0], [0.0, 0.1], [2.0, -1.0]])


def curved(x, t):
    """A score whose Jacobian is not diagonal, so that every probe gives another value."""
    return -x + 0.3 * jnp.sin(x[..., ::-1])


def test_probes_belong_to_particles_and_not_to_places():
    options = {"early_stop": 0.1, "horizon": 2.0, "probes": 2}
    whole = likelihood.log_likelihood(curved, X, KEY, **options)
    rest = likelihood.log_likelihood(curved, X[3:], KEY, first_particle=3, **options)
    np.testing.assert_allclose(rest, whole[3:], rtol=1e-9)
    assert np.abs(likelihood.log_likelihood(curved, X[3:], KEY, **options) - whole[3:]).min() > 1e-6


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
    got = likelihood.log_likelihood(made, X, early_stop=max(early_stop, 1e-3))
    due = likelihood.log_likelihood(LAW.score, X, early_stop=max(early_stop, 1e-3), horizon=horizon)
    np.testing.assert_allclose(got, due, atol=2e-4)
    np.testing.assert_allclose(got, LAW.log_density(X, max(early_stop, 1e-3)), atol=20 * np.exp(-horizon))
    with pytest.raises(ValueError, match=r"OU time 12.*ou_ends"):
        likelihood.log_likelihood(made, X, early_stop=max(early_stop, 1e-3), horizon=12.0)
    with pytest.raises(ValueError, match=r"OU time 12.*ou_ends"):
        ode.solve(made, X, 12.0, 1.0)


def test_a_score_that_is_nan_on_the_way_ends_in_words():
    broken = lambda x, t: jnp.where(t > 0.5, jnp.nan, -x)
    with pytest.raises(RuntimeError, match="5 of 5 particles do not come to the end, the first at index 0"):
        likelihood.log_likelihood(broken, X, early_stop=0.1, horizon=2.0)
    with pytest.raises(RuntimeError, match="5 of 5 particles"):
        ode.solve(broken, X, 2.0, 0.1)


def test_points_of_16_bits_have_a_likelihood_in_float32():
    x, law = X[:2].astype(jnp.bfloat16), targets.gaussian([0.5, -1.0], [0.3, 0.6])
    got = likelihood.log_likelihood(law.score, x, early_stop=0.1, horizon=9.0)
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
    np.testing.assert_allclose(likelihood.log_likelihood(batches_only, X, early_stop=0.1, horizon=2.0), due, rtol=1e-6)
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
    np.testing.assert_allclose(jax.export.deserialize(exported.serialize()).call(X), slope * X, rtol=1e-5)
