"""Derivatives of the particles that a sampler draws: forward and reverse mode, against differences and a closed form.

A functional of the final particles is differentiated along one direction in each of its arguments: a parameter of the
law, where the particles start, and the times of the grid.
"""

import functools

import family
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxdiff import grids, kernels, noise, sample, targets

N, H = 8, 1e-5
KEY = jax.random.key(3)
QUICK = {"xla_backend_optimization_level": 0}  # to compile


def started(d, n=N):
    """Where particles start, and a direction to move them in."""
    rng = np.random.default_rng(5)
    return rng.standard_normal((n, d)), rng.uniform(0.5, 1.5, (n, d))


def moved(kernel, x, grid):
    """The particles after all steps, with the same noise in every call."""
    noises = kernel.noises_per_step
    z = jax.random.normal(KEY, (len(grid) - 1, noises, *x.shape), x.dtype)

    def step(state, now):
        row, z = now
        return kernel.step(kernel.score, state, row, None if noises == 0 else z[0] if noises == 1 else z), None

    table = jax.tree.map(jnp.asarray, kernel.coefficients(grid))
    return kernel.position(jax.lax.scan(step, kernel.init(x), (table, z))[0])


def functional(x):
    """A smooth one, to which every coordinate of every particle contributes."""
    weights = np.random.default_rng(0).uniform(0.5, 1.5, x.shape)
    return jnp.sum(weights * (jnp.sin(x) + x**2 / 4))


def derivatives(value, arguments, directions):
    """A compiled value, and its derivatives along a direction in each argument, in forward and in reverse mode."""
    count = len(arguments)

    @jax.jit(compiler_options=QUICK)
    def program(*arguments):
        alone = [jnp.zeros((count, *d.shape)).at[i].set(d) for i, d in enumerate(directions)]
        forward = jax.vmap(lambda *tangents: jax.jvp(value, arguments, tangents)[1])(*alone)
        out, gradients = jax.value_and_grad(value, argnums=tuple(range(count)))(*arguments)
        return out, forward, jnp.stack([jnp.sum(g * d) for g, d in zip(gradients, directions, strict=True)])

    arguments, directions = ([jnp.asarray(one) for one in given] for given in (arguments, directions))
    _, forward, reverse = program(*arguments)
    return lambda *arguments: program(*arguments)[0], forward, reverse


def differences(value, arguments, directions):
    """The derivatives of a value along a direction in each argument, by central differences."""

    def at(i, h):
        pairs = zip(arguments, directions, strict=True)
        return value(*(jnp.asarray(a + (h * d if i == j else 0)) for j, (a, d) in enumerate(pairs)))

    found = np.array([(at(i, H) - at(i, -H)) / (2 * H) for i in range(len(arguments))])
    assert np.abs(found).min() > 1e-2  # so that a relative error says something
    return found


def isotropic_score(v, x, t):
    """The score of N(0, v I)."""
    return -x / (v * jnp.exp(-2 * t) - jnp.expm1(-2 * t))


# One case of every constructor, and more where a root of 0 is taken, or the step is another.
CASES = {name: family.CASES[name] for name in family.ONE_EACH}
CASES |= {
    name: family.CASES[name]
    for name in (
        "covariance_matched by Lanczos",
        "ddim with noise",
        "dpm_solver 2 with noise",
        "eta_family, denoiser",
        "heun with churn",
        "langevin, exponential",
        "langevin, underdamped",
        "moment_matched in a rotation",
    )
}
CASES["eta_family, denoiser, ODE"] = lambda score: kernels.eta_family(score, 0.0)


@pytest.mark.parametrize("name", CASES)
def test_every_kernel_is_differentiable_in_the_law_the_start_and_the_grid(name):
    x, along = started(2)
    grid = family.grid_of(CASES[name](isotropic_score), 3)
    value = lambda v, x, grid=grid: functional(moved(CASES[name](Partial(isotropic_score, v)), x, grid))
    arguments, directions = [0.5, x, grid], [1.0, along, np.array([0.1, -0.2, 0.3, 1.0]) * grid]
    if name in family.PER_DIRECTION:  # their error curve is a host function
        arguments, directions = arguments[:2], directions[:2]
    compiled, forward, reverse = derivatives(value, arguments, directions)
    want = differences(compiled, arguments, directions)
    np.testing.assert_allclose(forward, want, rtol=1e-6)
    np.testing.assert_allclose(reverse, want, rtol=1e-6)


# With V_t the variance of N(0, v) noised to t, and h = t - t_next: X_{t_next} given X_t = x is normal with mean
# e^-h (V_{t_next}/V_t) x and variance (1 - e^-2h) V_{t_next}/V_t. Its derivatives are taken by a complex difference.
@pytest.mark.parametrize("products", [None, 2])
def test_a_gradient_of_covariance_matching_on_an_isotropic_law_is_the_closed_form(products):
    n, d, grid = 50, 2, grids.exponential_then_uniform(3, 0.05, 8)
    x, along = started(d, n)
    particles = np.arange(n, dtype=np.uint32)
    increments = [np.asarray(noise.normal(KEY, particles, k, d, jnp.float64)) for k in range(len(grid) - 1)]

    def exact(v, x):
        variance = v * np.exp(-2 * grid) - np.expm1(-2 * grid)
        ratios = variance[1:] / variance[:-1]
        for h, ratio, z in zip(-np.diff(grid), ratios, increments, strict=True):
            x = np.exp(-h) * ratio * x + np.sqrt(-np.expm1(-2 * h) * ratio) * z
        return np.mean(x**2)

    @jax.jit(compiler_options=QUICK)
    @jax.value_and_grad
    def mean_square(arguments):
        v, x = arguments
        kernel = kernels.covariance_matched(Partial(isotropic_score, v), products=products)
        return jnp.mean(sample(kernel, x, grid, KEY) ** 2)

    value, (by_v, by_x) = mean_square((jnp.asarray(0.5), jnp.asarray(x)))
    assert float(value) == pytest.approx(exact(0.5, x), rel=1e-12)
    assert float(by_v) == pytest.approx(exact(0.5 + 1e-30j, x).imag / 1e-30, rel=1e-10)
    assert float(jnp.sum(by_x * along)) == pytest.approx(exact(0.5, x + 1e-30j * along).imag / 1e-30, rel=1e-10)


def gaussian_score(cov, along, theta, x, t):
    """The score of N(0, cov + theta along)."""
    noised = jnp.exp(-2 * t) * (cov + theta * along) - jnp.expm1(-2 * t) * jnp.eye(len(cov))
    return -jnp.linalg.solve(noised, x.T).T


def low_rank_score(first, second, theta, x, t):
    """The score of the Gaussian with variance 0.7 along cos(theta) first + sin(theta) second alone, orthonormal."""
    axis = jnp.cos(theta) * first + jnp.sin(theta) * second
    noise = -jnp.expm1(-2 * t)
    return -(x - (0.7 * jnp.exp(-2 * t) / (0.7 * jnp.exp(-2 * t) + noise)) * (x @ axis)[:, None] * axis) / noise


SYMMETRIC = targets.mixture([0.25] * 4, [[1.0, 0.5], [0.5, 1.0], [-1.0, -0.5], [-0.5, -1.0]], np.full((4, 2), 0.2))


def shifted_score(along, theta, x, t):
    """The score of a mixture symmetric under the exchange of coordinates, shifted by theta along."""
    return SYMMETRIC.score(x - theta * along, t)


ALONG = np.array([[1.0, 0.4, -0.3], [0.4, 0.2, 0.5], [-0.3, 0.5, 0.6]])
PAIR = np.linalg.qr(np.random.default_rng(2).standard_normal((5, 2)))[0].T
LAWS = {  # dimension, score, and products of Lanczos' method that are enough
    "isotropic in two dimensions": (2, Partial(gaussian_score, 0.5 * np.eye(2), ALONG[:2, :2]), (2,)),
    "isotropic in three dimensions": (3, Partial(gaussian_score, 0.5 * np.eye(3), ALONG), (2, 3)),
    "a symmetric mixture": (2, Partial(shifted_score, np.array([0.3, 0.3])), (2,)),
    "of low rank": (5, Partial(low_rank_score, *PAIR), (2, 3, 5)),
}


@pytest.mark.parametrize("law", LAWS)
def test_covariance_matching_is_differentiable_where_variances_coincide(law):
    d, score, enough = LAWS[law]
    x, along = started(d)
    x[0] = 0
    x[1] = 1  # on the diagonal
    arguments, directions, grid = [0.0, x], [1.0, along], np.array([2.0, 0.5, 0.1])

    def value(products, theta, x):
        kernel = kernels.covariance_matched(Partial(score.func, *score.args, theta), products=products)
        return functional(moved(kernel, x, grid))

    in_full = jax.jit(functools.partial(value, None), compiler_options=QUICK)
    want = differences(in_full, arguments, directions)
    for products in (None, *enough):
        given = functools.partial(value, products)
        compiled, forward, reverse = derivatives(given, arguments, directions)
        assert float(compiled(*map(jnp.asarray, arguments))) == pytest.approx(float(in_full(*arguments)), rel=1e-12)
        np.testing.assert_allclose(forward, want, rtol=1e-6)
        np.testing.assert_allclose(reverse, want, rtol=1e-6)


# Variances of 0 can only grow, and a difference is taken on that side alone.
def test_covariance_matching_is_differentiable_where_variances_grow_from_0():
    d, factor = 5, np.random.default_rng(4).standard_normal((5, 5)) / 2
    x, _ = started(d)
    score, grid = (
        Partial(gaussian_score, 0.7 * np.outer(PAIR[0], PAIR[0]), factor @ factor.T),
        np.array([2.0, 0.5, 0.1]),
    )

    def value(products, theta):
        kernel = kernels.covariance_matched(Partial(score.func, *score.args, theta), products=products)
        return functional(moved(kernel, x, grid))

    in_full = jax.jit(functools.partial(value, None), compiler_options=QUICK)
    want = float(-3 * in_full(0.0) + 4 * in_full(H) - in_full(2 * H)) / (2 * H)
    for products in (None, 3, 5):
        _, forward, reverse = derivatives(functools.partial(value, products), [0.0], [1.0])
        np.testing.assert_allclose(forward, want, rtol=1e-7)
        np.testing.assert_allclose(reverse, want, rtol=1e-7)
