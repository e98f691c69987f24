"""What every kernel owes, whatever it computes; a new kernel gets these tests by being listed."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family import BY_STEP, CASES, LOOKING_AHEAD, MULTISTEP, PER_DIRECTION, constructor_of, grid_of, make

from jaxdiff import grids, kernels, targets
from jaxdiff.sampling.compiled import recent
from jaxdiff.sampling.sample import sample


def one(kernel, dtype=np.float64):
    """A row, particles and noise to step with."""
    row = jax.tree.map(lambda column: jnp.asarray(column[2], dtype), kernel.coefficients(grid_of(kernel)))
    x = jax.random.normal(jax.random.key(0), (5, 2), dtype)
    return x, row, increments(kernel, x)


def increments(kernel, x):
    """What a step of the kernel is given for noise."""
    noises = kernel.noises_per_step
    z = jax.random.normal(jax.random.key(1), (noises, *x.shape), x.dtype)
    return None if noises == 0 else z[0] if noises == 1 else z


def stepped(kernel, x, row, z):
    """The position after two equal steps, so that what a step leaves in the state is seen too."""
    state = kernel.init(x)
    for _ in range(2):
        state = kernel.step(kernel.score, state, row, z)
    return kernel.position(state)


@functools.cache
def compiled(name):
    """`stepped` of a case as one program, which the tests below share."""
    kernel = make(name)
    return jax.jit(lambda x, row, z: stepped(kernel, x, row, z))


every_kernel = pytest.mark.parametrize("name", CASES)
every_step = pytest.mark.parametrize("name", BY_STEP)
per_direction = pytest.mark.parametrize("name", PER_DIRECTION)


def test_every_constructor_of_the_list_is_tested():
    assert {constructor_of(name) for name in CASES} == set(kernels.__all__)


@every_step
def test_jit_is_eager(name):
    kernel = make(name)
    given = one(kernel)
    np.testing.assert_allclose(compiled(name)(*given), stepped(kernel, *given), rtol=1e-12, atol=1e-14)


@every_kernel
def test_a_rebuilt_kernel_has_the_same_static_part(name):
    first, second = (jax.tree.structure(make(name)) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)


@every_kernel
def test_every_leaf_of_a_state_has_the_particles_in_front(name):
    kernel = make(name)
    x, row, z = one(kernel)
    state = kernel.init(x)
    for current in (state, kernel.step(kernel.score, state, row, z)):
        assert all(leaf.shape[0] == len(x) for leaf in jax.tree.leaves(current))
        assert kernel.position(current).shape == x.shape


@every_step
def test_batch_is_loop_and_permuting_particles_permutes_results(name):
    kernel, run = make(name), compiled(name)
    x, row, z = one(kernel)
    whole, single = run(x, row, z), kernel.noises_per_step < 2
    of = lambda i: None if z is None else z[i] if single else z[:, i]
    alone = [run(x[i], row, of(i)) for i in range(5)]
    np.testing.assert_allclose(whole, jnp.stack(alone), rtol=1e-11, atol=1e-13)
    order = np.array([3, 0, 4, 2, 1])
    np.testing.assert_allclose(run(x[order], row, of(order)), whole[order], rtol=1e-11, atol=1e-13)


@every_step
def test_dtype_is_kept_and_float32_agrees_with_float64(name):
    narrow = one(make(name), np.float32)
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), narrow)
    few, many = compiled(name)(*narrow), compiled(name)(*wide)
    assert (few.dtype, many.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(few, many, atol=2e-5)


@every_kernel
def test_coefficients_are_float64_on_the_host_and_the_same_in_a_trace(name):
    kernel = make(name)
    grid = grid_of(kernel)
    table = kernel.coefficients(grid)
    for column in jax.tree.leaves(table):
        assert isinstance(column, np.ndarray)
        assert column.dtype == np.float64
        assert column.shape[0] == len(grid) - 1
    if name in PER_DIRECTION:
        assert table.spread.shape[1:] == (2,)
    if not name.startswith("moment_matched"):  # its error curve is a host function
        traced = jax.jit(kernel.coefficients)(grid)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13), traced, table)


@every_kernel
def test_a_row_knows_no_more_of_the_grid_than_its_method_does(name):
    kernel = make(name)
    grid = grid_of(kernel)
    back = 4 if name.startswith((*MULTISTEP, "predictor_corrector with momentum")) else 0
    if name in LOOKING_AHEAD:
        return
    whole = jax.tree.leaves(kernel.coefficients(grid))
    for k in range(len(grid) - 1):
        alone = kernel.coefficients(grid[max(k - back, 0) : k + 2])
        for column, cell in zip(whole, jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(column[k], cell[-1], rtol=1e-13, atol=1e-15)


@every_kernel
def test_a_step_of_length_zero_is_the_identity(name):
    kernel = make(name)
    x, _, z = one(kernel)
    row = jax.tree.map(lambda column: jnp.asarray(column[0]), kernel.coefficients(np.array([0.4, 0.4])))
    if name.startswith("predictor_corrector"):  # whose corrector goes on
        still = lambda first: jax.tree.map(
            lambda column: jnp.asarray(column[0]),
            kernel.coefficients.corrector.rows(np.array([0.4]), np.zeros(1), np.array([first])),
        )
        row = row._replace(first=still(True), others=None if row.others is None else still(False))
    if name == "heun with churn":  # which is noise, and the ODE that takes it back
        row = row._replace(spread=0.0, lift=1.0, ode=row.ode._replace(keep=1.0, gain=0.0))
    out = kernel.position(kernel.step(kernel.score, kernel.init(x), row, z))
    np.testing.assert_allclose(out, x, rtol=1e-13, atol=1e-15)


STEEP = (  # long first, long last and tiny steps; a step of 35 makes explicit methods overflow, rightly
    [12.0, 5.0, 1.0, 1e-2, 1e-4, 1e-8],
    [5.0, 4.999, 4.998, 4.997, 4.996, 1e-8],
    [3e-8, 2.8e-8, 2.5e-8, 2e-8, 1.5e-8, 1e-8],
    grids.exponential_then_uniform(5.0, 1e-8, 5),
)


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, np.float32) for name in CASES] + [(name, np.float64) for name in BY_STEP]
)
def test_no_grid_that_the_checker_accepts_gives_nan_and_a_run_is_what_its_key_says(name, dtype):
    x, key = jnp.ones((3, 2), dtype), jax.random.key(0)
    first, *rest = (sample(make(name), x, grid, key) for grid in STEEP)
    assert all(bool(jnp.isfinite(out).all()) for out in (first, *rest))
    compiled = recent.compiled()
    np.testing.assert_array_equal(sample(make(name), x, STEEP[0], key), first)
    other = sample(make(name), x, STEEP[0], jax.random.key(1))
    assert bool((other != first).any()) == (make(name).noises_per_step > 0)
    assert recent.compiled() == compiled


@pytest.mark.parametrize("name", kernels.__all__)
def test_docstring_says_shapes_times_accuracy_and_source(name):
    text = inspect.getdoc(getattr(kernels, name))
    for part in ("Args:", "Returns:", "(..., d)", "time", "Accuracy:", "Source:", "arXiv:"):
        assert part in text


@every_kernel
def test_declared_evaluations_are_the_calls_of_the_score(name):
    calls = []

    def score(x, t):
        calls.append(t)
        return -x

    kernel = make(name, score)
    x, row, z = one(kernel)
    with jax.disable_jit():  # a loop then calls the score in every turn
        kernel.step(kernel.score, kernel.init(x), row, z)
    assert len(calls) == kernel.evals_per_step


MEAN = np.array([0.5, -1.0, 0.2])
COVS = {  # in three dimensions, where eigenvectors in columns differ from those in rows
    "diagonal": np.diag([0.4, 3.0, 0.0]),
    "turned": np.array([[1.0, 0.4, 0.1], [0.4, 0.8, -0.2], [0.1, -0.2, 0.3]]),
}


def noised_covariance(cov, t):
    return np.exp(-2 * t) * cov - np.expm1(-2 * t) * np.eye(3)


# X_{t_next} and X_t of Gaussian data are jointly Gaussian: condition.
@pytest.mark.parametrize("cov", COVS)
@pytest.mark.parametrize(("t", "t_next"), [(3.0, 0.01), (0.5, 0.2)])
def test_a_variance_for_each_direction_is_the_exact_step_on_a_gaussian_in_its_eigenbasis(cov, t, t_next):
    law = targets.gaussian(MEAN, np.diag(COVS[cov]) if cov == "diagonal" else COVS[cov])
    late, early = (noised_covariance(COVS[cov], at) for at in (t, t_next))
    beside = np.exp(t_next - t) * early
    gain = beside @ np.linalg.inv(late)
    kernel = kernels.moment_matched(law.score, law.mmse, basis=law.mmse.basis)
    row = jax.tree.map(lambda column: jnp.asarray(column[0]), kernel.coefficients(np.array([t, t_next])))
    step = lambda x, z: np.asarray(kernel.step(kernel.score, jnp.asarray(x), row, jnp.asarray(z)))
    x = np.array([[0.0, 0.0, 0.0], [1.5, -2.0, 0.3], [0.4, 3.0, -1.0]])
    want = np.exp(-t_next) * MEAN + (x - np.exp(-t) * MEAN) @ gain.T
    np.testing.assert_allclose(step(x, np.zeros((3, 3))), want, rtol=1e-12, atol=1e-12)
    root = step(np.zeros((3, 3)), np.eye(3)) - step(np.zeros((3, 3)), np.zeros((3, 3)))  # row i is e_i's image
    np.testing.assert_allclose(root.T @ root, early - gain @ beside.T, rtol=1e-11, atol=1e-14)


@per_direction
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_run_per_direction_is_its_loop_of_steps_in_any_chunk_and_dtype(name, dtype):
    kernel, key = make(name), jax.random.key(3)
    grid, x = grid_of(kernel), jax.random.normal(jax.random.key(1), (50, 2), dtype)
    whole = sample(kernel, x, grid, key)
    assert whole.dtype == dtype
    np.testing.assert_allclose(
        sample(kernel, x, grid, key, chunk=7), whole, atol=1e-5 if dtype == jnp.float32 else 1e-13
    )
    wide = sample(kernel, x.astype(jnp.float64), grid, key)
    assert np.abs(np.asarray(whole) - np.asarray(wide)).max() < (1e-5 if dtype == jnp.float32 else 1e-15)


def test_a_run_per_direction_on_a_turned_gaussian_has_its_law():
    n, law = 40_000, targets.gaussian(MEAN, COVS["turned"])
    kernel = kernels.moment_matched(law.score, law.mmse, basis=law.mmse.basis)
    start = jax.random.normal(jax.random.key(1), (n, 3))
    grid = grids.exponential_then_uniform(12, 0.05, 6)  # the mean of q_12 is 6e-6 of the data's
    out = np.asarray(sample(kernel, start, grid, jax.random.key(5)))
    cov, away = noised_covariance(COVS["turned"], 0.05), out - np.exp(-0.05) * MEAN
    products = away[:, :, None] * away[:, None]
    assert (np.abs(away.mean(0)) < 5 * np.sqrt(np.diag(cov) / n)).all()
    assert (np.abs(products.mean(0) - cov) < 5 * products.std(0) / np.sqrt(n)).all()


@per_direction
def test_a_kernel_rebuilt_from_the_same_curve_does_not_recompile(name):
    x, grid = jnp.ones((3, 2)), grids.log_snr(2, 0.1, 7)
    sample(make(name), x, grid, jax.random.key(0))
    compiled = recent.compiled()
    sample(make(name), x, grids.log_snr(3, 0.2, 7), jax.random.key(1))
    assert recent.compiled() == compiled
