"""Exact one-step gains of every kernel, its chain law on Gaussians, its limits and its order of convergence."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxdiff import grids, kernels, targets
from jaxdiff.processes import ou

VARIANCE = 0.3  # of the data that moment matching is told about
STEPS = [(3.0, 1.0), (0.5, 0.1), (0.2, 0.19), (0.011, 0.01), (1e-5, 1e-6)]
G = grids.exponential_then_uniform(3, 0.01, 36, n_uniform=12)


def posterior_variance(variance, t):
    return variance / (1 + variance * ou.snr(t))


def make(name, score, variance=VARIANCE):
    extra = {"moment_matched": (targets.gaussian([0.0], [variance]).mmse,), "langevin": (0.7,)}
    return getattr(kernels, name)(score, *extra.get(name, ()))


def one_step(kernel, t, t_next, x):
    """Mean and standard deviation of a step from x, seen by feeding it z = 0 and z = 1."""
    table = kernel.coefficients(np.array([t, t_next]))
    row = jax.tree.map(lambda column: jnp.asarray(column[0]), table)
    x = jnp.full((1, 1), x)
    mean = kernel.step(kernel.score, x, row, jnp.zeros_like(x))
    return float(mean[0, 0]), float((kernel.step(kernel.score, x, row, jnp.ones_like(x)) - mean)[0, 0])


@pytest.mark.parametrize("name", kernels.__all__)
@pytest.mark.parametrize(("t", "t_next"), STEPS)
def test_one_step_has_the_law_of_the_frozen_equation(name, t, t_next):
    slope, x = -0.2, 0.8
    mean, spread = one_step(make(name, lambda x, t: slope * x * (1 + t)), t, t_next, x)
    time = 0.7 if name == "langevin" else t
    score = slope * x * (1 + time)
    if name == "covariance_matched":  # sigma^2/alpha times the denoiser's slope, by a difference of the denoiser
        denoiser = lambda x: (x + ou.sigma(t) ** 2 * slope * x * (1 + t)) / ou.alpha(t)
        posterior = ou.sigma(t) ** 2 / ou.alpha(t) * (denoiser(2.0) - denoiser(1.0))
    else:
        posterior = posterior_variance(VARIANCE, t)
    oracle = "moment_matched" if name == "covariance_matched" else name
    expected, variance = oracles.one_step(oracle, t, t_next, score, x, variance=posterior)
    assert mean == pytest.approx(expected, rel=1e-9, abs=1e-10)
    assert spread**2 == pytest.approx(variance, rel=1e-9, abs=1e-15)
    assert spread >= 0


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize(("t", "t_next"), STEPS)
def test_ddim_with_eta_refreshes_part_of_the_noise(eta, t, t_next):
    mean, spread = one_step(kernels.ddim(lambda x, t: -1.7 * x, eta), t, t_next, 0.8)
    expected, variance = oracles.one_step("ddim", t, t_next, -1.7 * 0.8, 0.8, eta=eta)
    assert mean == pytest.approx(expected, rel=1e-8)
    assert spread**2 == pytest.approx(variance, rel=1e-9)


def chain(name, variance, start_variance, grid=G):
    """Variance of the output on N(0, variance), by the recursion of the kernel's own table."""
    law = targets.gaussian([0.0], [variance])
    kernel = make(name, law.score, variance)
    for t, t_next in itertools.pairwise(grid):
        gain, spread = one_step(kernel, t, t_next, 1.0)
        start_variance = gain**2 * start_variance + spread**2
    return start_variance


@pytest.mark.parametrize(
    ("name", "variance", "final", "marginal"),
    [
        ("exponential_euler", 0.0, 0.024008397011327, 8.710708852399e-3),
        ("exponential_euler", 0.25, 0.2929503551598138, 2.458634164550e-3),
        ("ancestral", 0.25, 0.240257313333966, 2.453514173463e-3),
        ("moment_matched", 0.25, 0.264851326023637, None),
        ("ddim", 0.25, None, 7.307048829810e-4),
        ("exponential_euler", 1.0, None, 1.776171791009e-3),
        ("ancestral", 1.0, None, 3.719987241284e-3),
    ],
)
def test_chain_law_on_gaussians_is_the_published_one(name, variance, final, marginal):
    got = chain(name, variance, 1.0)
    if final is not None:
        assert got == pytest.approx(final, rel=1e-12)
    if marginal is not None:
        exact = oracles.gaussian_kl(0, np.exp(-0.02) * variance - np.expm1(-0.02), 0, got)
        assert exact == pytest.approx(marginal, rel=1e-10)


@pytest.mark.parametrize("name", ["exponential_euler", "ancestral", "moment_matched", "ddim"])
def test_chain_law_follows_the_independent_recursion(name):
    grid = np.array([2.0, 1.1, 0.4, 0.15])
    _, expected = oracles.chain_law(name, grid, 0.0, 0.6, 0.0, 1.3)
    assert chain(name, 0.6, 1.3, grid) == pytest.approx(expected, rel=1e-9)


def test_one_exponential_euler_step_widens_the_standard_normal():
    for h, variance in ((0.1, 1.0221218440177493), (1.0, 6.90498488402512)):
        gain, spread = one_step(kernels.exponential_euler(lambda x, t: -x), 2.0, 2.0 - h, 1.0)
        assert gain**2 + spread**2 == pytest.approx(variance, rel=1e-14)


def test_repeated_exponential_euler_steps_settle_at_the_stationary_variance():
    kernel, h, variance = kernels.exponential_euler(lambda x, t: -x), 0.1, 1.0
    gain, spread = one_step(kernel, 1.0, 1.0 - h, 1.0)
    for _ in range(400):
        variance = gain**2 * variance + spread**2
    assert variance == pytest.approx(1.1110083427354172, rel=1e-13)


def test_repeated_langevin_steps_settle_at_the_stationary_variance():
    h, v = 0.2, 0.9
    kernel = kernels.langevin(lambda x, t: -x / v, 0.5)
    gain, spread = one_step(kernel, h, 0.0, 1.0)
    assert spread**2 / (1 - gain**2) == pytest.approx(v / (1 - h / (2 * v)), rel=1e-13)


def test_docstring_numbers_of_ancestral_and_ddim_hold_on_the_standard_normal():
    gain, spread = one_step(kernels.ancestral(lambda x, t: -x), 0.2, 0.1, 1.0)
    assert 1 - gain**2 - spread**2 == pytest.approx(0.0816, abs=5e-5)
    gain, _ = one_step(kernels.ddim(lambda x, t: -x), 0.2, 0.1, 1.0)
    assert gain == pytest.approx(0.9853, abs=5e-5)


@pytest.mark.parametrize("name", ["ancestral", "moment_matched", "ddim"])
def test_point_mass_is_exact_in_one_step(name):
    kernel = make(name, lambda x, t: -x / ou.sigma(t) ** 2, 0.0)
    gain, spread = one_step(kernel, 2.0, 0.3, 1.0)
    assert gain**2 * ou.sigma(2.0) ** 2 + spread**2 == pytest.approx(ou.sigma(0.3) ** 2, rel=1e-12)


@pytest.mark.parametrize("name", ["moment_matched", "covariance_matched"])
def test_matched_kernels_are_exact_in_one_step_on_a_gaussian(name):
    v = 0.37
    kernel = make(name, targets.gaussian([0.0], [v]).score, v)
    gain, spread = one_step(kernel, 2.5, 0.05, 1.0)
    before, after = (np.exp(-2 * t) * v + ou.sigma(t) ** 2 for t in (2.5, 0.05))
    assert gain**2 * before + spread**2 == pytest.approx(after, rel=1e-12)


@pytest.mark.parametrize("name", ["exponential_euler", "ancestral", "ddim"])
def test_order_of_convergence_is_one(name):
    v = 0.4
    exact = np.exp(-0.2) * v - np.expm1(-0.2)
    errors = [abs(chain(name, v, np.exp(-4) * v - np.expm1(-4), grids.log_snr(2, 0.1, n)) - exact) for n in (512, 1024)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.05)


def test_covariance_matching_is_exact_in_one_step_on_a_gaussian_off_the_axes():
    cov = np.array([[1.0, 0.6, 0.1], [0.6, 0.5, 0.0], [0.1, 0.0, 0.2]])
    kernel = kernels.covariance_matched(targets.gaussian(np.zeros(3), cov).score)
    t, t_next = 2.0, 0.1
    row = jax.tree.map(lambda column: jnp.asarray(column[0]), kernel.coefficients(np.array([t, t_next])))
    law = lambda t: np.exp(-2 * t) * cov - np.expm1(-2 * t) * np.eye(3)
    x, zero = jnp.eye(3), jnp.zeros((3, 3))
    gain = np.asarray(kernel.step(kernel.score, x, row, zero)).T
    root = np.asarray(kernel.step(kernel.score, zero, row, jnp.eye(3))).T
    np.testing.assert_allclose(gain @ law(t) @ gain.T + root @ root.T, law(t_next), atol=1e-12)


def test_covariance_matching_takes_the_symmetric_part_of_a_learned_jacobian_and_no_negative_variance():
    slopes = np.array([[-0.5, 0.4], [0.1, -0.3]])
    row = jax.tree.map(jnp.asarray, kernels.covariance_matched(jnp.sin).coefficients(np.array([0.8, 0.3])))
    row = jax.tree.map(lambda column: column[0], row)

    def noise(slopes):
        kernel = kernels.covariance_matched(lambda x, t: x @ slopes.T)
        return np.asarray(kernel.step(kernel.score, jnp.zeros((2, 2)), row, jnp.eye(2)))

    np.testing.assert_allclose(noise(slopes), noise((slopes + slopes.T) / 2), rtol=1e-12)
    assert np.abs(noise(slopes) - noise(slopes * np.eye(2))).max() > 1e-3
    ancestral = jax.tree.map(lambda column: column[0], kernels.ancestral(jnp.sin).coefficients(np.array([0.8, 0.3])))
    np.testing.assert_allclose(noise(-1e3 * np.eye(2)), ancestral.spread * np.eye(2), rtol=1e-12)


def test_covariance_matching_reads_the_posterior_variance_off_a_mixture():
    law = (np.array([0.3, 0.7]), np.array([-1.0, 0.5]), np.array([0.05, 0.2]))
    kernel = kernels.covariance_matched(targets.mixture(law[0], law[1][:, None], law[2][:, None]).score)
    for x in (-1.3, 0.0, 0.7):
        mean, spread = one_step(kernel, 0.6, 0.2, x)
        score = float(oracles.mixture_score(law, x, 0.6))
        inside = float(oracles.mixture_posterior_variance(law, x, 0.6))
        expected, variance = oracles.one_step("moment_matched", 0.6, 0.2, score, x, variance=inside)
        assert mean == pytest.approx(expected, rel=1e-9)
        assert spread**2 == pytest.approx(variance, rel=1e-8)


def test_moment_matching_takes_a_plain_callable_with_its_dimension():
    table = kernels.moment_matched(lambda x, t: -x, lambda snr: 3 / (1 + snr), dim=3).coefficients(G)
    np.testing.assert_allclose(table.spread, make("moment_matched", lambda x, t: -x, 1.0).coefficients(G).spread)
    with pytest.raises(TypeError, match="dim=d"):
        kernels.moment_matched(lambda x, t: -x, lambda snr: 3 / (1 + snr))


def test_constructors_refuse_what_they_cannot_run():
    with pytest.raises(ValueError, match=r"eta = 1\.2"):
        kernels.ddim(lambda x, t: -x, 1.2)
    with pytest.raises(ValueError, match="time = 0"):
        kernels.langevin(lambda x, t: -x, 0.0)


@pytest.mark.parametrize("name", kernels.__all__)
def test_rebuilt_kernel_has_the_same_static_part(name):
    law = targets.mixture([0.5, 0.5], [[-1.0], [1.0]], [[0.1], [0.2]])
    extra = {"moment_matched": (law.mmse,), "langevin": (0.7,)}.get(name, ())
    first, second = (jax.tree.structure(getattr(kernels, name)(law.score, *extra)) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
