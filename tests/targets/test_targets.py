"""Targets against SciPy's densities, autodiff, quadrature, and laws whose error curve factorises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import special, stats
from scipy.integrate import quad

from jaxdiff import targets
from jaxdiff.grids import exponential_then_uniform
from jaxdiff.guarantees.certify import certify
from jaxdiff.guarantees.path_kl import path_kl, path_kl_error

RNG = np.random.default_rng(0)
WEIGHTS = np.array([0.2, 0.5, 0.3])


def _covariances(shape, d):
    root = RNG.normal(size=(*shape, d, d)) / np.sqrt(d)
    return root @ np.swapaxes(root, -1, -2) + 0.05 * np.eye(d)


def _laws():
    """name -> (target, weights, means, full covariances)."""
    for d in (1, 2, 5):
        means, widths, covs = RNG.normal(size=(3, d)), RNG.uniform(0.1, 1, (3, d)), _covariances((3,), d)
        diagonals, zeros = widths[..., None] * np.eye(d), np.zeros((3, d, d))
        one = (np.ones(1), means[:1])
        yield f"gaussian {d}", (targets.gaussian(means[0], widths[0]), *one, diagonals[:1])
        yield f"full gaussian {d}", (targets.gaussian(means[0], covs[0]), *one, covs[:1])
        yield f"mixture {d}", (targets.mixture(WEIGHTS, means, widths), WEIGHTS, means, diagonals)
        yield f"full mixture {d}", (targets.mixture(WEIGHTS, means, covs), WEIGHTS, means, covs)
        yield f"points {d}", (targets.point_masses(means, WEIGHTS), WEIGHTS, means, zeros)
    line = np.array([[1.0, 2.0], [2.0, 4.0]])  # rank one
    yield "line", (targets.gaussian([1.0, 0.0], line), np.ones(1), np.array([[1.0, 0.0]]), line[None])
    yield "equal points", (targets.point_masses(means), np.full(3, 1 / 3), means, zeros)
    for name, k, d in (("blocks", 3, 19), ("wide", 3, 70), ("many", 40, 3)):  # a formulation of the score each
        weights, means, widths = RNG.dirichlet(np.ones(k)), RNG.normal(size=(k, d)), RNG.uniform(0.1, 1, (k, d))
        yield name, (targets.mixture(weights, means, widths), weights, means, widths[..., None] * np.eye(d))
        shared = np.broadcast_to(widths[0], (k, d))
        yield f"{name} shared", (targets.mixture(weights, means, shared), weights, means, shared[..., None] * np.eye(d))


LAWS = dict(_laws())
EVERY_LAW = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


# Called eagerly, every operation of a score or density would be compiled on its own.
compiled = functools.cache(jax.jit)


def positions(target):
    return jnp.asarray(1.5 * np.random.default_rng(1).normal(size=(4, target.dim)))


@EVERY_LAW
def test_log_density_and_score_are_those_of_the_noised_components(law):
    target, weights, means, covs = law
    x = positions(target)
    for t in (0.0, 0.05, 1.0):
        noised = np.exp(-2 * t) * covs - np.expm1(-2 * t) * np.eye(target.dim)
        if np.linalg.eigvalsh(noised).min() < 1e-9:
            continue  # no density at t = 0
        laws = [stats.multivariate_normal(np.exp(-t) * m, c) for m, c in zip(means, noised, strict=True)]
        parts = np.array([np.atleast_1d(one.logpdf(x)) for one in laws])
        want = special.logsumexp(parts, axis=0, b=weights[:, None])
        np.testing.assert_allclose(compiled(target.log_density)(x, t), want, rtol=1e-9)
        pulls = np.array([(one.mean - x) @ np.linalg.inv(c) for one, c in zip(laws, noised, strict=True)])
        want = np.einsum("k,kn,knd->nd", weights, np.exp(parts - want), pulls)
        np.testing.assert_allclose(compiled(target.score)(x, t), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in LAWS if name.endswith("2")] + ["line"])
def test_score_is_the_gradient_of_the_log_density(name):
    target, x = LAWS[name][0], positions(LAWS[name][0])[0]
    gradient = jax.jit(jax.grad(target.log_density))(x, 0.3)
    np.testing.assert_allclose(compiled(target.score)(x, 0.3), gradient, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["mixture 2", "full mixture 2", "points 2"])
def test_float32_particles_keep_their_dtype(name):
    target, x = LAWS[name][0], positions(LAWS[name][0])
    for function in (target.score, target.log_density):
        got = compiled(function)(x.astype(jnp.float32), np.float64(0.3))
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, compiled(function)(x, 0.3), rtol=1e-4, atol=1e-4)


# A law of each formulation. The score of a component is the pull to its mean over the noised covariance.
@pytest.mark.parametrize("name", ["gaussian 5", "full mixture 5", "blocks", "wide", "many shared"])
@pytest.mark.parametrize(("dtype", "time"), [(jnp.bfloat16, jnp.float32), (jnp.float16, jnp.float16)])
def test_scores_of_16_bits_are_computed_in_float32_and_rounded_once(name, dtype, time):
    target, weights, means, covs = LAWS[name]
    x, t = positions(target).astype(dtype), jnp.asarray(0.12345, time)
    wide, at = np.asarray(x, np.float64), float(t)
    noised = np.exp(-2 * at) * covs - np.expm1(-2 * at) * np.eye(target.dim)
    laws = [stats.multivariate_normal(np.exp(-at) * m, c) for m, c in zip(means, noised, strict=True)]
    parts = np.array([one.logpdf(wide) for one in laws])
    density = special.logsumexp(parts, axis=0, b=weights[:, None])
    precisions = [np.linalg.inv(c) for c in noised]
    pulls = np.array([(one.mean - wide) @ p for one, p in zip(laws, precisions, strict=True)])
    posterior = weights[:, None] * np.exp(parts - density)
    score = np.einsum("kn,knd->nd", posterior, pulls)
    # In float32 a pull is a sum of dim products, and a posterior weight is off by the rounding of its exponent.
    terms = np.array([(abs(one.mean) + abs(wide)) @ abs(p) for one, p in zip(laws, precisions, strict=True)])
    rounding = (target.dim + abs(parts))[..., None] * np.finfo(np.float32).eps
    in_float32 = np.einsum("kn,knd->nd", posterior, rounding * terms)
    got, log_density = compiled(target.score)(x, t), compiled(target.log_density)(x, t)
    assert got.dtype == dtype
    half_a_spacing = 0.5 * float(jnp.finfo(dtype).eps) * (abs(score) + in_float32)
    assert np.all(abs(np.asarray(got, np.float64) - score) <= half_a_spacing + in_float32)
    assert log_density.dtype == jnp.float32
    np.testing.assert_allclose(log_density, density, rtol=1e-4)


# Of 2,000 equal components bfloat16 draws far fewer: its logarithms of their weights and Gumbel numbers are alike.
def test_draws_of_16_bits_are_those_of_float32_rounded(key):
    target = targets.point_masses(np.arange(2000.0)[:, None] / 8)
    for dtype in (jnp.bfloat16, jnp.float16):
        got = target.sample(key, 4000, dtype=dtype)
        assert got.dtype == dtype
        counts, _ = np.histogram(got.astype(float), bins=20, range=(0, 250))
        assert np.abs(counts - 200).max() < 5 * np.sqrt(200) + 4  # rounding moves some across an edge


@jax.jit
def lost_in_float32(score, x, t):
    """(n,): by how much the score of a float32 particle is off, and the norm of the score's derivative."""
    rounded = x.astype(jnp.float32)
    off = score(rounded, t).astype(jnp.float64) - score(rounded.astype(jnp.float64), t)
    slope = jax.vmap(lambda one: jnp.linalg.norm(jax.jacfwd(lambda x: score(x, t))(one), ord=2))(x)
    return jnp.linalg.norm(off, axis=-1), slope


@pytest.mark.parametrize("name", ["blocks", "blocks shared", "wide", "wide shared", "many", "many shared", "points 5"])
@pytest.mark.parametrize("t", [1e-4, 0.1, 3.0])
def test_float32_scores_lose_no_more_than_a_float32_particle_does(name, t):
    """Rounding x to float32 moves a score by its derivative times eps |x|: as much is granted, 30 times over."""
    target, *_ = LAWS[name]
    x = jnp.asarray(target.sample(jax.random.key(0), 50), jnp.float64)
    if t < 0.1 and name == "points 5":
        x = x + 1e-2 * jax.random.normal(jax.random.key(1), x.shape, x.dtype)  # as far as noise takes it
    off, slope = lost_in_float32(target.score, x, t)
    size = np.linalg.norm(x, axis=-1) + np.sqrt(target.second_moment)
    assert float(jnp.max(off / (slope * size))) < 30 * np.finfo(np.float32).eps


def test_leading_axes_of_x_are_particles():
    target, x = LAWS["full mixture 2"][0], positions(LAWS["full mixture 2"][0])
    np.testing.assert_allclose(target.score(x.reshape(2, 2, 2), 0.3)[1, 0], target.score(x, 0.3)[2], rtol=1e-12)
    np.testing.assert_allclose(target.log_density(x.reshape(2, 2, 2))[1, 0], target.log_density(x, 0.0)[2], rtol=1e-12)


@pytest.mark.parametrize("name", ["full gaussian 2", "mixture 2", "full mixture 2", "full mixture 5", "points 2"])
def test_samples_have_the_mean_and_covariance_of_the_law(name, key):
    target, weights, means, covs = LAWS[name]
    mean = weights @ means
    cov = np.einsum("k,kde->de", weights, covs + means[:, :, None] * means[:, None]) - np.outer(mean, mean)
    x = np.asarray(target.sample(key, 10_000))
    assert x.shape == (10_000, target.dim)
    centred = x - mean
    products = centred[:, :, None] * centred[:, None]
    for draws, want in ((centred, 0), (products, cov)):
        error = draws.std(0) / np.sqrt(len(x)) + 1e-12
        assert (np.abs(draws.mean(0) - want) < 5 * error).all()
    np.testing.assert_allclose(target.second_moment, np.trace(cov) + mean @ mean, rtol=1e-12)
    np.testing.assert_allclose(target.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(target.total_variance, np.trace(cov), rtol=1e-12)
    point = np.linspace(-3, 2, target.dim)
    assert target.moment_about(point) == pytest.approx(np.trace(cov) + np.sum((mean - point) ** 2), rel=1e-12)
    assert target.dim == len(mean) == target.mmse.dim


@pytest.mark.parametrize("name", ["gaussian 5", "full gaussian 2", "full gaussian 5", "line"])
def test_error_of_a_gaussian_is_the_trace_of_its_posterior_covariance(name):
    target, _, _, (cov,) = LAWS[name]
    snr = np.geomspace(1e-3, 1e4, 9)
    want = [np.trace(np.linalg.solve(np.eye(len(cov)) + s * cov, cov)) for s in snr]
    np.testing.assert_allclose(target.mmse(snr), want, rtol=1e-10)
    area = quad(target.mmse, 0.2, 7, epsabs=0, epsrel=1e-12)[0]
    assert np.diff(target.mmse.integral(np.array([0.2, 7]))) == pytest.approx(area, rel=1e-10)


@pytest.mark.parametrize(
    "law",
    [
        ([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0]),
        ([0.2, 0.5, 0.3], [-2.0, 0.0, 1.5], [0.0, 0.3, 0.01]),
        ([0.02, 0.98], [-1.0, 1.0], [2.25, 0.01]),  # widths 15-fold apart
    ],
)
def test_error_of_a_law_on_the_line_is_the_quadrature_of_its_posterior_variance(law):
    target = targets.mixture(law[0], np.array(law[1])[:, None], np.array(law[2])[:, None])
    snr = np.array([1e-2, 0.3, 1.0, 8.0, 40.0, 300.0])
    want = [oracles.mixture_mmse(law, s) for s in snr]
    np.testing.assert_allclose(target.mmse(snr), want, rtol=1e-12, atol=1e-15)
    assert (target.mmse.standard_error(snr) == 0).all()
    area = quad(lambda s: oracles.mixture_mmse(law, s), 0.5, 7, epsabs=0, epsrel=1e-10)[0]
    assert np.diff(target.mmse.integral(np.array([0.5, 7]))) == pytest.approx(area, rel=1e-10)


def test_error_of_plus_minus_one_has_the_published_value_and_slopes():
    mmse = targets.point_masses([[-1.0], [1.0]]).mmse
    slope = lambda snr, h: (8 * (mmse(snr + h) - mmse(snr - h)) - mmse(snr + 2 * h) + mmse(snr - 2 * h)) / (12 * h)
    assert mmse(1.0) == pytest.approx(0.44959950920669, rel=1e-13)
    assert slope(0.5, 3e-3) == pytest.approx(-0.5060554520, abs=2e-9)
    assert slope(2.0, 3e-3) == pytest.approx(-0.1472429213, abs=2e-9)


@pytest.mark.parametrize("snr", [0.05, 1.0, 6.0])
def test_error_of_a_product_law_is_the_sum_of_its_factors(snr):
    coin, line = ([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0]), ([0.3, 0.7], [-1.5, 1.0], [0.04, 0.3])
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    square = targets.point_masses([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    means, covs = [[m, 0] @ turn.T for m in line[1]], [turn @ np.diag([v, 0.5]) @ turn.T for v in line[2]]
    turned = targets.mixture(line[0], means, covs)
    factors = 2 * oracles.mixture_mmse(coin, snr), oracles.mixture_mmse(line, snr) + 0.5 / (1 + 0.5 * snr)
    for target, want in zip((square, turned), factors, strict=True):
        error = target.mmse.standard_error(snr)
        assert 0 < error < 0.06 * want
        assert abs(target.mmse(snr) - want) < 5 * error


def test_noised_points_have_a_finite_score_however_far_the_particle():
    target, t = targets.point_masses([[-1.0], [1.0]]), 0.05
    x = jnp.array([[-80.0], [60.0]])  # the nearer point alone pulls: exp of the other's share underflows
    want = (np.exp(-t) * np.array([[-1.0], [1.0]]) - x) / -np.expm1(-2 * t)
    np.testing.assert_allclose(target.score(x, t), want, rtol=1e-12)
    still = targets.gaussian([2.0, 3.0], [0.0, 0.0])
    np.testing.assert_allclose(still.score(jnp.array([2.0, 3.0]), 1e-6), [-1.0, -1.5], rtol=2e-6)  # -mean/(1 + alpha)
    assert still.mmse(3.0) == 0


G = targets.gaussian([0.0, 0.0], [1.0, 1.0])
BAD = [
    (lambda: targets.gaussian(0.0, [1.0]), r"mean must have 1 .*shape \(\)"),
    (lambda: targets.gaussian([0.0, 0.0], [1.0]), r"means \(1, 2\), covs \(1, 1\)"),
    (lambda: targets.gaussian([0.0, np.inf], [1.0, 1.0]), "mean must be finite"),
    (lambda: targets.gaussian([0.0], [np.nan]), "cov must be finite"),
    (lambda: targets.gaussian([0.0, 0.0], [1.0, -0.25]), "-0.25"),
    (lambda: targets.gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "eigenvalue is -1"),
    (lambda: targets.gaussian([0.0, 0.0], [[1.0, 0.5], [0.25, 1.0]]), "transpose by 0.25"),
    (lambda: targets.mixture([0.5, 0.4], [[0.0], [1.0]], [[1.0], [1.0]]), "sum 0.9"),
    (lambda: targets.mixture([1.5, -0.5], [[0.0], [1.0]], [[1.0], [1.0]]), "smallest -0.5"),
    (lambda: targets.mixture([0.5, np.nan], [[0.0], [1.0]], [[1.0], [1.0]]), "weights must be finite"),
    (lambda: targets.mixture([1.0], [[0.0], [1.0]], [[1.0], [1.0]]), r"weights \(1,\), means \(2, 1\)"),
    (lambda: targets.point_masses([1.0, 2.0]), r"points must have 2 .*shape \(2,\)"),
    (lambda: targets.point_masses(np.zeros((0, 2))), r"shape \(0, 2\)"),
    (lambda: targets.point_masses([[1.0], [np.nan]]), "points must be finite"),
    (lambda: G.score(jnp.zeros((4, 3)), 0.5), "width 3, this target has dimension 2"),
    (lambda: G.log_density(jnp.zeros((4, 1)), 0.5), "width 1, this target has dimension 2"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_a_bad_argument_is_refused_by_its_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# On a product law the posterior splits: V of a mixture along one axis times a Gaussian along the other is their sum.
@pytest.mark.parametrize("full", [False, True])
def test_a_monte_carlo_curve_is_within_its_error_of_quadrature_and_says_so(full):
    weights, means, variances = np.array([0.3, 0.7]), np.array([-1.0, 0.8]), np.array([0.05, 0.2])
    covs = np.stack([variances, np.full(2, 0.4)], axis=1)
    law = targets.mixture(weights, np.stack([means, np.ones(2)], axis=1), [np.diag(c) for c in covs] if full else covs)
    line, rest = targets.mixture(weights, means[:, None], variances[:, None]), targets.gaussian([1.0], [0.4])
    snr = np.geomspace(0.01, 100, 9)
    error = law.mmse.standard_error(snr)
    assert np.all(np.abs(law.mmse(snr) - line.mmse(snr) - rest.mmse(snr)) < 5 * error + 1e-9)
    assert error.max() < 0.01
    grid = exponential_then_uniform(3.0, 0.01, 20)
    exact = path_kl("ancestral", line.mmse, grid) + path_kl("ancestral", rest.mmse, grid)
    error = path_kl_error("ancestral", law.mmse, grid)
    assert abs(path_kl("ancestral", law.mmse, grid) - exact) < 5 * error
    away = np.array([path_kl("ancestral", replicate, grid) for replicate in law.mmse.replicates]) - exact
    # mean away^2 = (15/16) s^2 + (mean away)^2, the last below 25 s^2/16: so much may s/4 and its oracle differ
    assert 0.63 < error / np.sqrt(np.mean(away**2) / 16) < np.sqrt(16 / 15) + 1e-9
    assert 0 < error < 0.01 * exact
    term = certify("ancestral", grid, target=law)["discretisation"]
    assert (term.status, term.standard_error) == ("measured", error)


def test_many_points_on_the_line_agree_with_a_sum_over_them():
    points = np.linspace(-1, 1, 40)[:, None] ** 3
    curve = targets.point_masses(points).mmse
    z = np.linspace(-9, 9, 2001)
    for snr in (0.5, 20.0):
        y = points + z / np.sqrt(snr)
        share = np.exp(-0.5 * snr * (y[..., None] - points[:, 0]) ** 2)
        share /= share.sum(-1, keepdims=True)
        variance = share @ points[:, 0] ** 2 - (share @ points[:, 0]) ** 2
        exact = np.mean(variance @ np.exp(-(z**2) / 2)) / np.exp(-(z**2) / 2).sum()
        level = np.array([snr])
        assert abs(curve(level)[0] - exact) < 5 * curve.standard_error(level)[0]


def of_cleaned(weights, means, covs, x, t):
    """The score of a mixture with covariances (K, d, d), in NumPy float64."""
    alpha, sigma2 = np.exp(-t), -np.expm1(-2 * t)
    parts, pulls = [], []
    for weight, mean, cov in zip(weights, means, covs, strict=True):
        total = alpha**2 * cov + sigma2 * np.eye(len(mean))
        pull = np.linalg.solve(total, alpha * mean - x)
        parts.append(np.log(weight) - np.linalg.slogdet(total)[1] / 2 - (alpha * mean - x) @ pull / 2)
        pulls.append(pull)
    share = np.exp(np.array(parts) - max(parts))
    return share @ np.array(pulls) / share.sum()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("k", [3, 1000])
def test_weights_of_a_softmax_are_taken_and_normalised(k, dtype):
    weights = jax.nn.softmax(0.3 * jax.random.normal(jax.random.key(1), (k,), dtype))
    law = targets.mixture(weights, np.linspace(-1, 1, k)[:, None], np.full((k, 1), 0.3))
    exact = np.asarray(weights, np.float64) / np.asarray(weights, np.float64).sum()
    assert law.second_moment == pytest.approx(exact @ np.linspace(-1, 1, k) ** 2 + 0.3, rel=1e-12)


def test_a_covariance_of_few_float32_rows_is_taken():
    rows = jax.random.normal(jax.random.key(2), (6, 10), jnp.float32) * 3
    cov = jnp.cov(rows, rowvar=False)
    assert np.linalg.eigvalsh(np.asarray(cov, np.float64)).min() < 0  # by rounding: the rank is 5
    values, axes = np.linalg.eigh(np.asarray((cov + cov.T) / 2, np.float64))
    x = np.linspace(-1, 1, 10)
    want = of_cleaned([1.0], np.zeros((1, 10)), [axes * np.maximum(values, 0) @ axes.T], x, 0.3)
    np.testing.assert_allclose(targets.gaussian(jnp.zeros(10), cov).score(jnp.asarray(x), 0.3), want, rtol=1e-9)


def test_float32_inverses_are_taken_as_covariances_of_a_mixture():
    precision = jnp.asarray([[2.0, 1.0, 0.3], [1.0, 1.5, 0.1], [0.3, 0.1, 0.7]], jnp.float32)
    cov = jnp.linalg.inv(precision)
    covs = jnp.stack([cov.at[0, 1].add(3e-8), cov * 0.5])
    assert not (covs[0] == covs[0].T).all()
    weights, means = jax.nn.softmax(jnp.asarray([0.1, 0.9], jnp.float32)), jnp.asarray([[0.0, 1, 2], [1, -1, 0]])
    law = targets.mixture(weights, means, covs)
    symmetric = (np.asarray(covs, np.float64) + np.swapaxes(np.asarray(covs, np.float64), 1, 2)) / 2
    exact = np.asarray(weights, np.float64) / np.asarray(weights, np.float64).sum()
    x = np.array([0.3, -0.2, 1.0])
    want = of_cleaned(exact, np.asarray(means, np.float64), symmetric, x, 0.3)
    np.testing.assert_allclose(law.score(jnp.asarray(x), 0.3), want, rtol=1e-9)


def test_the_variance_of_a_law_far_away_has_all_its_digits():
    law = targets.mixture([0.25, 0.75], [[1e9 - 3, 1.0], [1e9 + 1, 1.0]], [[1e-4, 1e-4], [4e-4, 1e-4]])
    assert law.total_variance == pytest.approx(3.0 + (0.25 * 1e-4 + 0.75 * 4e-4) + 1e-4, rel=1e-12)
    np.testing.assert_array_equal(law.mean, [1e9, 1.0])
    both = targets.product([law, targets.gaussian([-5.0], [2.0])])
    np.testing.assert_array_equal(both.mean, [1e9, 1.0, -5.0])
    assert both.total_variance == pytest.approx(law.total_variance + 2, rel=1e-12)
    assert both.moment_about([1e9, 0.0, -4.0]) == pytest.approx(law.total_variance + 4, rel=1e-12)
    for wrong in ([1.0], [np.nan, 0.0, 0.0]):
        with pytest.raises(ValueError, match=r"a mean to start from is \(3,\) and finite"):
            both.moment_about(wrong)


# Moments in NumPy float64 of the float32 numbers themselves, and of the float64 law they are the rounding of.
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_moments_of_a_law_computed_in_its_dtype_are_those_of_numpy(dtype):
    rows = RNG.normal(size=(40, 4)) @ RNG.normal(size=(4, 4)) + 3
    logits = RNG.normal(size=5)
    weights, means = np.exp(logits) / np.exp(logits).sum(), RNG.normal(size=(5, 4))
    cov = np.cov(rows, rowvar=False)
    mine = jnp.cov(jnp.asarray(rows, dtype), rowvar=False)
    law = targets.mixture(jax.nn.softmax(jnp.asarray(logits, dtype)), jnp.asarray(means, dtype), jnp.stack([mine] * 5))
    mean, rounding = weights @ means, 64 * float(jnp.finfo(dtype).eps)
    spread = np.trace(cov) + weights @ np.sum((means - mean) ** 2, axis=1)
    np.testing.assert_allclose(law.mean, mean, atol=rounding)
    assert law.total_variance == pytest.approx(spread, rel=rounding)
    assert law.second_moment == pytest.approx(spread + mean @ mean, rel=rounding)
    inverse = targets.gaussian(jnp.zeros(4, dtype), jnp.linalg.inv(mine))
    want = np.linalg.inv(cov)
    assert inverse.total_variance == pytest.approx(np.trace(want), rel=np.linalg.cond(cov) * rounding)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wrong_weights_and_covariances_are_refused_in_any_dtype(dtype):
    array = lambda value: jnp.asarray(value, dtype)
    wrong = [
        (
            lambda: targets.mixture(array([0.5, 0.51]), [[0.0], [1.0]], [[1.0], [1.0]]),
            r"weights must be .* sum 1\.0[01]",
        ),
        (lambda: targets.point_masses([[0.0], [1.0]], array([0.5, 0.4999])), "weights must be"),
        (lambda: targets.gaussian([0.0, 0.0], array([[1.0, 0.0], [0.0, -1e-3]])), "eigenvalue is -0.001"),
        (lambda: targets.gaussian([0.0, 0.0], array([1.0, -1e-3])), "eigenvalue is -0.001"),
        (lambda: targets.gaussian([0.0, 0.0], array([[1.0, 0.5], [0.501, 1.0]])), "cov must be symmetric"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message):
            call()


def test_float64_laws_are_held_to_float64():
    with pytest.raises(ValueError, match="weights must be positive with sum 1"):
        targets.mixture([0.5, 0.50000003], [[0.0], [1.0]], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="cov must be symmetric"):
        targets.gaussian([0.0, 0.0], [[1.0, 0.5], [0.5 + 1e-6, 1.0]])
    with pytest.raises(ValueError, match="cov must be positive semi-definite"):
        targets.gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, -1e-9]])
    with pytest.raises(ValueError, match="cov must be positive semi-definite"):
        targets.gaussian([0.0, 0.0], jnp.asarray([[1.0, 0.0], [0.0, -1e-3]], jnp.float32))
