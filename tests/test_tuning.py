"""Fitted grids: better than named ones on starting points they have not seen, and never worse on their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, kernels, sample, targets
from jaxdiff.tuning import fit_grid

ANGLES = np.arange(8) * np.pi / 4
RING = targets.mixture(np.full(8, 1 / 8), 2 * np.c_[np.cos(ANGLES), np.sin(ANGLES)], np.full((8, 2), 0.01))
ENDS = 5.0, 1e-3
NAMED = grids.log_snr, grids.exponential_then_uniform, grids.karras


def miss(kernel, grid, x):
    """Median distance to the end points of the ODE, by a thousand steps of RK4."""
    exact = sample(kernels.rk4(kernel.score), x, grids.log_snr(*ENDS, 1000), jax.random.key(0))
    return float(jnp.median(jnp.linalg.norm(sample(kernel, x, grid, jax.random.key(0)) - exact, axis=-1)))


@pytest.mark.parametrize(("make", "gain"), [(kernels.dpm_solver, 5), (kernels.unipc, 5)])
def test_a_fitted_grid_of_twenty_steps_is_several_times_better_on_points_it_has_not_seen(make, gain):
    kernel = make(RING.score)
    fitted = fit_grid(kernel, jax.random.normal(jax.random.key(1), (64, 2)), 20, *ENDS)
    assert (fitted[0], fitted[-1], len(fitted)) == (*ENDS, 21)
    x = jax.random.normal(jax.random.key(2), (512, 2))
    assert miss(kernel, fitted, x) < min(miss(kernel, grid(*ENDS, 20), x) for grid in NAMED) / gain


def test_what_cannot_be_fitted_is_refused():
    x = jnp.ones((4, 2))
    with pytest.raises(ValueError, match="ancestral draws noise"):
        fit_grid(kernels.ancestral(RING.score), x, 5, *ENDS)
    with pytest.raises(ValueError, match="parameters = 9"):
        fit_grid(kernels.ddim(RING.score), x, 5, *ENDS, parameters=9)
    with pytest.raises(ValueError, match="below the horizon"):
        fit_grid(kernels.ddim(RING.score), x, 5, 0.1, 1.0)
