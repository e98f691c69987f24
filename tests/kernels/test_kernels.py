"""What single kernels promise beyond the family's contract: published chain laws, matched covariances, refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxdiff import grids, kernels, sample, targets
from jaxdiff.processes import ou

VARIANCE = 0.3  # of the data that moment matching is told about
G = grids.exponential_then_uniform(3, 0.01, 36, n_uniform=12)


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


def test_docstring_numbers_of_ancestral_and_ddim_hold_on_the_standard_normal():
    gain, spread = one_step(kernels.ancestral(lambda x, t: -x), 0.2, 0.1, 1.0)
    assert 1 - gain**2 - spread**2 == pytest.approx(0.0816, abs=5e-5)
    gain, _ = one_step(kernels.ddim(lambda x, t: -x), 0.2, 0.1, 1.0)
    assert gain == pytest.approx(0.9853, abs=5e-5)


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
    score, times = lambda x, t: jnp.sin(x), np.array([0.8, 0.3])
    row = jax.tree.map(lambda column: jnp.asarray(column)[0], kernels.covariance_matched(score).coefficients(times))

    def noise(slopes):
        kernel = kernels.covariance_matched(lambda x, t: x @ slopes.T)
        return np.asarray(kernel.step(kernel.score, jnp.zeros((2, 2)), row, jnp.eye(2)))

    np.testing.assert_allclose(noise(slopes), noise((slopes + slopes.T) / 2), rtol=1e-12)
    assert np.abs(noise(slopes) - noise(slopes * np.eye(2))).max() > 1e-3
    ancestral = jax.tree.map(lambda column: column[0], kernels.ancestral(score).coefficients(times))
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


@pytest.mark.parametrize("products", [1, 2, 3])
def test_lanczos_takes_as_many_products_as_the_covariance_has_different_eigenvalues(products):
    law = targets.gaussian(np.zeros(6), np.repeat([0.3, 2.0, 0.01], [3, 2, 1])[:6] if products > 2 else [0.3, 2.0] * 3)
    law = targets.gaussian(np.zeros(6), np.full(6, 0.3)) if products == 1 else law
    dense, lanczos = kernels.covariance_matched(law.score), kernels.covariance_matched(law.score, products=products)
    row = jax.tree.map(lambda column: jnp.asarray(column[0]), dense.coefficients(np.array([0.9, 0.2])))
    x, z = jax.random.normal(jax.random.key(0), (2, 5, 6))
    want, got = (kernel.step(kernel.score, x, row, z) for kernel in (dense, lanczos))
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


def test_covariance_matching_differentiates_a_network_with_its_parameters():
    network = jax.tree_util.Partial(lambda w, x, t: jnp.tanh(x @ w) - x, jnp.array([[0.3, 0.2], [-0.1, 0.4]]))
    grid, x = grids.log_snr(2.0, 0.1, 3), jnp.ones((4, 2))
    dense, lanczos = kernels.covariance_matched(network), kernels.covariance_matched(network, products=2)
    run = lambda kernel: sample(kernel, x, grid, jax.random.key(0))
    np.testing.assert_allclose(run(lanczos), run(dense), rtol=1e-10)


def test_docstring_numbers_of_eulers_methods_and_the_eta_family():
    for frozen, variance in (("score", 1.0221), ("noise", 0.9703), ("denoiser", 0.9184)):
        gain, spread = one_step(kernels.eta_family(lambda x, t: -x, 1.0, frozen=frozen), 0.2, 0.1, 1.0)
        assert gain**2 + spread**2 == pytest.approx(variance, abs=5e-5)
    gain, _ = one_step(kernels.euler(lambda x, t: -x / ou.sigma(t) ** 2), 2e-6, 1e-6, 1.0)
    assert gain == pytest.approx(3 / 4, rel=1e-5)
    gain, spread = one_step(kernels.euler_maruyama(lambda x, t: -x), 0.5, 0.4, 1.0)
    assert gain**2 + spread**2 == pytest.approx(1 + 0.1**2, rel=1e-13)


def plain(x, t):
    return -x


REFUSED = [
    (lambda: kernels.covariance_matched(plain, products=0), "products = 0"),
    (lambda: kernels.ddim(plain, 1.2), r"eta = 1\.2"),
    (lambda: kernels.deis(plain, 5), "order = 5"),
    (lambda: kernels.dpm_solver(plain, 4), "order = 4"),
    (lambda: kernels.dpm_solver(plain, 3, eta=1.0), "eta = 1"),
    (lambda: kernels.dpm_solver(plain, eta=-1.0), "eta = -1"),
    (lambda: kernels.eta_family(plain, -0.5), r"eta = -0\.5"),
    (lambda: kernels.eta_family(plain, frozen="velocity"), "frozen = 'velocity'"),
    (lambda: kernels.exponential_adams(plain, 0), "order = 0"),
    (lambda: kernels.heun(plain, -1.0), "churn = -1"),
    (lambda: kernels.langevin(plain, 0.0), "time = 0"),
    (lambda: kernels.langevin(plain, 1.0, scheme="hot"), "scheme = 'hot'"),
    (lambda: kernels.langevin(plain, 1.0, variance=0.0), "variance = 0"),
    (lambda: kernels.langevin(plain, 1.0, friction=-1.0), "friction = -1"),
    (lambda: kernels.sa_solver(plain, 4), "order = 4"),
    (lambda: kernels.sa_solver(plain, 3, -1), "order = -1"),
    (lambda: kernels.sa_solver(plain, eta=-1.0), "eta = -1"),
    (lambda: kernels.unipc(plain, 4), "order = 4"),
    (lambda: corrected(kernels.ancestral(plain), kernels.ancestral(plain)), "corrector at one fixed OU time"),
    (
        lambda: corrected(kernels.langevin(plain, 1.0), kernels.langevin(plain, 1.0)),
        "the predictor must run on OU times",
    ),
    (lambda: corrected(kernels.unipc(plain), kernels.langevin(plain, 1.0)), "unipc corrects itself"),
    (lambda: corrected(kernels.ancestral(plain), kernels.langevin(lambda x, t: -x, 1.0)), "same score"),
    (lambda: corrected(kernels.ancestral(plain), kernels.langevin(plain, 1.0), m=0), "m = 0"),
    (lambda: corrected(kernels.ancestral(plain), kernels.langevin(plain, 1.0, scheme="underdamped")), "needs its step"),
    (lambda: kernels.langevin(plain, 50.0), "time = 50"),
    (lambda: kernels.eta_family(plain, np.nan), "eta = nan"),
    (lambda: kernels.heun(plain, np.nan), "churn = nan"),
    (lambda: kernels.heun(plain, 1.0, between=(1.0, 0.5)), "between"),
    (lambda: corrected(kernels.ancestral(plain), kernels.langevin(plain, 1.0), step_size=0.0), r"step_size = 0\.0"),
]


def corrected(predictor, corrector, m=1, **options):
    return kernels.predictor_corrector(predictor, corrector, m, **options)


@pytest.mark.parametrize(("make", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_constructors_refuse_what_they_cannot_run(make, says):
    with pytest.raises(ValueError, match=says):
        make()
