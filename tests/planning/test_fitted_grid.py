"""Fitted grids: better than named ones on starting points they have not seen, and never worse on their own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import fit_grid, grids, kernels, sample, targets
from jaxdiff.planning.grid_shapes import NAMED

ANGLES = np.arange(8) * np.pi / 4
RING = targets.mixture(np.full(8, 1 / 8), 2 * np.c_[np.cos(ANGLES), np.sin(ANGLES)], np.full((8, 2), 0.01))
ENDS = 5.0, 1e-3


def end_points(score, x):
    """The end points of the ODE, by a thousand steps of RK4."""
    return sample(kernels.rk4(score), x, grids.log_snr(*ENDS, 1000), jax.random.key(0))


def misses(kernel, grid, x, exact):
    """Relative distances to the end points of the ODE."""
    away = jnp.linalg.norm(sample(kernel, x, grid, jax.random.key(0)) - exact, axis=-1)
    return np.asarray(away / jnp.linalg.norm(exact, axis=-1), np.float64)


@functools.cache
def unseen():
    """Starting points that no grid was fitted to, and the ring's end points of them."""
    x = jax.random.normal(jax.random.key(2), (512, 2))
    return x, end_points(RING.score, x)


@pytest.mark.parametrize(
    ("make", "n_steps", "gain"),
    [
        pytest.param(kernels.dpm_solver, 5, 3, marks=pytest.mark.slow),
        (kernels.unipc, 10, 5),
        pytest.param(kernels.dpm_solver, 20, 5, marks=pytest.mark.slow),
    ],
)
def test_a_fitted_grid_is_several_times_better_on_points_it_has_not_seen(make, n_steps, gain):
    kernel = make(RING.score, 2)
    fitted = fit_grid(kernel, jax.random.normal(jax.random.key(1), (64, 2)), *ENDS, n_steps)
    assert (fitted[0], fitted[-1], len(fitted)) == (*ENDS, n_steps + 1)
    median = lambda grid: np.median(misses(kernel, grid, *unseen()))
    assert median(fitted) < min(median(named(*ENDS, n_steps)) for named in NAMED) / gain


@pytest.mark.parametrize(
    ("law", "dtype"),
    [(RING, np.float64), (targets.gaussian(np.zeros(2), [1.0, 0.0]), np.float32)],
    ids=["ring", "flat"],
)
def test_on_its_own_points_it_is_no_worse_than_any_named_grid(law, dtype):
    kernel, x = kernels.exponential_adams(law.score, 2), jax.random.normal(jax.random.key(3), (40, 2), dtype)
    exact = end_points(law.score, x)
    mean = lambda grid: np.mean(np.log(misses(kernel, grid, x, exact) + np.finfo(dtype).eps))
    fitted = fit_grid(kernel, x, *ENDS, 6, parameters=3)
    assert mean(fitted) < min(mean(make(*ENDS, 6)) for make in NAMED) + 0.01
    if dtype is np.float32:
        np.testing.assert_array_equal(fitted, fit_grid(kernel, x, *ENDS, 6, parameters=3))


def test_a_single_step_has_one_grid():
    x = jax.random.normal(jax.random.key(3), (4, 2))
    np.testing.assert_array_equal(fit_grid(kernels.ddim(RING.score), x, *ENDS, 1), ENDS)


def test_a_particle_whose_end_is_the_origin_spoils_nothing():
    kernel = kernels.dpm_solver(targets.gaussian(np.zeros(2), [0.5, 0.2]).score)
    x = jax.random.normal(jax.random.key(3), (20, 2)).at[0].set(0.0)
    fitted = fit_grid(kernel, x, *ENDS, 5)
    exact = end_points(kernel.score, x[1:])
    median = lambda grid: np.median(misses(kernel, grid, x[1:], exact))
    assert all(median(fitted) < median(make(*ENDS, 5)) for make in NAMED)


def test_what_cannot_be_fitted_is_refused():
    x = jnp.ones((4, 2))
    with pytest.raises(ValueError, match=r"no grid of .* steps gives finite"):
        fit_grid(kernels.ddim(lambda x, t: jnp.nan * x), x, *ENDS, 5)
    with pytest.raises(ValueError, match="ancestral draws noise"):
        fit_grid(kernels.ancestral(RING.score), x, *ENDS, 5)
    with pytest.raises(ValueError, match="parameters = 9"):
        fit_grid(kernels.ddim(RING.score), x, *ENDS, 5, parameters=9)
    with pytest.raises(ValueError, match="below the horizon"):
        fit_grid(kernels.ddim(RING.score), x, 0.1, 1.0, 5)
    with pytest.raises(ValueError, match="n_steps = 0"):
        fit_grid(kernels.ddim(RING.score), x, *ENDS, 0)
