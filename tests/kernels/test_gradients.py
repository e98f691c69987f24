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
    z = np.random.default_rng(5).standard_normal((len(grid) - 1, noises, *x.shape))

    def step(state, now):
        row, z = now
        return kernel.step(kernel.score, state, row, None if noises == 0 else z[0] if noises == 1 else z), None

    table = jax.tree.map(jnp.asarray, kernel.coefficients(grid))
    return kernel.position(jax.lax.scan(step, kernel.init(x), (table, z))[0])


def functional(x):
    """A smooth one, to which every coordinate of every particle contributes."""
    weights = np.random.default_rng(0).uniform(0.5, 1.5, x.shape)
    return jnp.sum(weights * (jnp.sin(x) + x**2 / 4))


def derivatives(value, count):
    """A program that gives a value, and its derivatives along a direction in each of `count` arguments.

    They are taken in forward and in reverse mode, both from one linearisation of the value.
    """

    @jax.jit(compiler_options=QUICK)
    def program(arguments, directions):
        alone = [jnp.zeros((count, *d.shape)).at[i].set(d) for i, d in enumerate(directions)]
        out, pushed = jax.linearize(value, *arguments)
        gradients = jax.linear_transpose(pushed, *arguments)(jnp.ones_like(out))
        forward = jax.vmap(pushed)(*alone)
        return out, forward, jnp.stack([jnp.sum(g * d) for g, d in zip(gradients, directions, strict=True)])

    return lambda *given: program(*(tuple(map(jnp.asarray, one)) for one in given))


def differences(value, arguments, directions):
    """The derivatives of a value along a direction in each argument, by central differences."""

    def at(i, h):
        pairs = zip(arguments, directions, strict=True)
        return value(*(a + (h * d if i == j else 0) for j, (a, d) in enumerate(pairs)))

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
    grid = family.grid_of(CASES[name](Partial(isotropic_score, 0.5)), 3)
    value = lambda v, x, grid=grid: functional(moved(CASES[name](Partial(isotropic_score, v)), x, grid))
    arguments, directions = [0.5, x, grid], [1.0, along, np.array([0.1, -0.2, 0.3, 1.0]) * grid]
    if name in family.PER_DIRECTION:  # their error curve is a host function
        arguments, directions = arguments[:2], directions[:2]
    program = derivatives(value, len(arguments))
    _, forward, reverse = program(arguments, directions)
    want = differences(lambda *arguments: program(arguments, directions)[0], arguments, directions)
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


def gaussian_score(cov, x, t):
    """The score of N(0, cov)."""
    noised = jnp.exp(-2 * t) * cov - jnp.expm1(-2 * t) * jnp.eye(len(cov))
    return -jnp.linalg.solve(noised, x.T).T


SYMMETRIC = targets.mixture([0.25] * 4, [[1.0, 0.5], [0.5, 1.0], [-1.0, -0.5], [-0.5, -1.0]], np.full((4, 2), 0.2))


def shifted_score(shift, x, t):
    """The score of a mixture symmetric under the exchange of coordinates, but for a shift."""
    return SYMMETRIC.score(x - shift, t)


AXES = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]
LINE = 0.7 * np.outer(AXES[0], AXES[0])
ANY = np.array([[1.0, 0.4, -0.3], [0.4, 0.2, 0.5], [-0.3, 0.5, 0.6]])
LAWS = {  # score, parameter, a direction to move it in, and whether differences are taken on that side alone
    "isotropic": (gaussian_score, 0.5 * np.eye(3), ANY, False),
    "with two variances that coincide": (gaussian_score, 0.5 * np.eye(3) + LINE, ANY, False),
    "a line that turns": (gaussian_score, LINE, np.outer(AXES[0], AXES[1]) + np.outer(AXES[1], AXES[0]), False),
    "a line, from which variances grow from 0": (gaussian_score, LINE, ANY @ ANY, True),
    "a symmetric mixture": (shifted_score, np.zeros(2), np.array([0.3, 0.3]), False),
}


@functools.cache
def covariance_matching(score, products, d):
    """A functional of where covariance matching leads, as a function of the score's parameter and the start."""

    def value(parameter, x):
        kernel = kernels.covariance_matched(Partial(score, parameter), products=products)
        return functional(moved(kernel, x, np.array([2.0, 0.5, 0.1])))

    return derivatives(value, 2)


@pytest.mark.parametrize("law", LAWS)
def test_covariance_matching_is_differentiable_where_variances_coincide(law):
    score, parameter, direction, one_sided = LAWS[law]
    d = len(parameter)
    x, along = started(d)
    x[0] = 0
    x[1] = 1  # on the diagonal
    arguments, directions = [parameter, x], [direction, along]
    in_full = lambda *arguments: covariance_matching(score, None, d)(arguments, directions)[0]
    want = differences(in_full, arguments, directions)
    if one_sided:
        at = lambda h: in_full(parameter + h * direction, x)
        want[0] = (4 * at(H) - at(2 * H) - 3 * at(0)) / (2 * H)
    for products in (None, d):
        value, forward, reverse = covariance_matching(score, products, d)(arguments, directions)
        assert float(value) == pytest.approx(float(in_full(*arguments)), rel=1e-12)
        np.testing.assert_allclose(forward, want, rtol=1e-6)
        np.testing.assert_allclose(reverse, want, rtol=1e-6)
