"""What every kernel owes, whatever it computes; a new kernel gets these tests by being listed."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, kernels, targets
from jaxdiff.sample import sample

LAW = targets.mixture([0.3, 0.7], [[0.0, 1.0], [1.0, -1.0]], [[0.1, 0.2], [0.3, 0.1]])
EXTRA = {"moment_matched": (LAW.mmse,), "langevin": (0.7,)}


def make(name):
    return getattr(kernels, name)(LAW.score, *EXTRA.get(name, ()))


def grid_of(kernel):
    return np.linspace(0.8, 0, 9) if kernel.own_clock else grids.exponential_then_uniform(3, 0.05, 8)


def one(kernel, dtype=np.float64):
    """A row, particles and noise to step with."""
    row = jax.tree.map(lambda column: jnp.asarray(column[2], dtype), kernel.coefficients(grid_of(kernel)))
    x, z = jax.random.normal(jax.random.key(0), (2, 5, 2), dtype)
    return x, row, z if kernel.noises_per_step else None


pytestmark = pytest.mark.parametrize("name", kernels.__all__)


def test_jit_is_eager(name):
    kernel = make(name)
    x, row, z = one(kernel)
    np.testing.assert_allclose(
        jax.jit(kernel.step)(kernel.score, x, row, z), kernel.step(kernel.score, x, row, z), rtol=1e-13
    )


def test_every_leaf_of_a_state_has_the_particles_in_front(name):
    kernel = make(name)
    x, row, z = one(kernel)
    state = kernel.init(x)
    for current in (state, kernel.step(kernel.score, state, row, z)):
        assert all(leaf.shape[0] == len(x) for leaf in jax.tree.leaves(current))
        assert kernel.position(current).shape == x.shape


def test_batch_is_loop_and_permuting_particles_permutes_results(name):
    kernel = make(name)
    x, row, z = one(kernel)
    whole = kernel.step(kernel.score, x, row, z)
    alone = [kernel.step(kernel.score, x[i], row, None if z is None else z[i]) for i in range(5)]
    np.testing.assert_allclose(whole, jnp.stack(alone), rtol=1e-12)
    order = np.array([3, 0, 4, 2, 1])
    moved = kernel.step(kernel.score, x[order], row, None if z is None else z[order])
    np.testing.assert_allclose(moved, whole[order], rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_is_kept_and_float32_agrees_with_float64(name, dtype):
    kernel = make(name)
    x, row, z = one(kernel, dtype)
    out = kernel.step(kernel.score, x, row, z)
    assert out.dtype == dtype
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), (x, row, z))
    np.testing.assert_allclose(out, kernel.step(kernel.score, *wide), atol=2e-6 if dtype == jnp.float32 else 0)


def test_coefficients_are_float64_on_the_host_and_the_same_in_a_trace(name):
    kernel = make(name)
    grid = grid_of(kernel)
    table = kernel.coefficients(grid)
    for column in table:
        assert isinstance(column, np.ndarray)
        assert column.dtype == np.float64
        assert column.shape == (len(grid) - 1,)
    if name != "moment_matched":  # its error curve is a host function
        traced = jax.jit(kernel.coefficients)(grid)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), tuple(traced), tuple(table))


def test_a_row_knows_its_own_step_alone(name):
    kernel = make(name)
    grid = grid_of(kernel)
    alone = [kernel.coefficients(grid[i : i + 2]) for i in range(len(grid) - 1)]
    for column, *cells in zip(kernel.coefficients(grid), *alone, strict=True):
        np.testing.assert_allclose(column, np.concatenate(cells), rtol=1e-14)


def test_a_step_of_length_zero_is_the_identity(name):
    kernel = make(name)
    x, _, z = one(kernel)
    row = jax.tree.map(lambda column: jnp.asarray(column[0]), kernel.coefficients(np.array([0.4, 0.4])))
    np.testing.assert_allclose(kernel.step(kernel.score, x, row, z), x, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("early_stop", [1e-2, 1e-8])
def test_no_grid_that_the_checker_accepts_gives_nan(name, early_stop, dtype):
    kernel = make(name)
    for grid in (
        [5.0, early_stop],
        grids.exponential_then_uniform(5.0, early_stop, 12),
        [2e-8 + early_stop, early_stop],
    ):
        out = sample(kernel, jnp.ones((3, 2), dtype), grid, jax.random.key(0))
        assert bool(jnp.isfinite(out).all())


def test_docstring_says_shapes_times_accuracy_and_source(name):
    text = inspect.getdoc(getattr(kernels, name))
    for part in ("Args:", "Returns:", "(..., d)", "time", "Accuracy:", "Source:", "arXiv:"):
        assert part in text


def test_declared_evaluations_are_the_calls_of_the_score(name):
    calls = []

    def score(x, t):
        calls.append(t)
        return -x

    kernel = getattr(kernels, name)(score, *EXTRA.get(name, ()))
    x, row, z = one(kernel)
    kernel.step(kernel.score, x, row, z)
    assert len(calls) == kernel.evals_per_step
