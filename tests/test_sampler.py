"""Sampler: a kernel and its grid, as `sample`, `certify` and `Plan.sampler` know it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff
from jaxdiff import Sampler, grids, kernels, noise, targets

LAW = targets.gaussian([0.5, -1.0], [0.4, 2.0])
GRID = grids.log_snr(4.0, 0.05, 7)
MATCHED = Sampler(kernels.moment_matched(LAW.score, LAW.mmse, basis=LAW.mmse.basis), GRID)


@pytest.fixture(scope="module")
def x():
    return noise.initial(jax.random.key(0), jnp.arange(50), 2)


def test_a_sampler_runs_as_its_kernel_down_its_grid(x, key):
    for kernel in (kernels.ancestral(LAW.score), kernels.heun(LAW.score)):
        sampler = Sampler(kernel, GRID)
        np.testing.assert_array_equal(jaxdiff.sample(sampler, x, key=key), jaxdiff.sample(kernel, x, GRID, key))
        path = jaxdiff.trajectory(sampler, x, key=key, save_at=GRID[[3, -1]])
        np.testing.assert_array_equal(path, jaxdiff.trajectory(kernel, x, GRID, key, GRID[[3, -1]]))
        stages = [Sampler(kernel, GRID[:4]), Sampler(kernel, GRID[3:])]
        pairs = [(kernel, GRID[:4]), (kernel, GRID[3:])]
        together, apart = jaxdiff.sample_in_turn(stages, x, key), jaxdiff.sample_in_turn(pairs, x, key)
        np.testing.assert_array_equal(together, apart)


def test_steps_and_evaluations_are_counted():
    heun = kernels.heun(LAW.score)
    assert (Sampler(heun, GRID).n_steps, Sampler(heun, GRID).evals) == (7, 14)
    kernel, grid = MATCHED
    assert kernel is MATCHED.kernel
    assert grid is GRID


def test_a_sampler_goes_through_jit_with_its_score_traced_and_its_grid_static(x, key):
    compiled = jax.jit(lambda sampler, x: jaxdiff.sample(sampler, x, key=key))
    score = jax.tree_util.Partial(lambda rate, x, t: -rate * x, jnp.float32(1.0))
    for rate in (1.0, 0.5):
        score = jax.tree_util.Partial(score.func, jnp.float32(rate))
        kernel = kernels.exponential_euler(score)
        got = compiled(Sampler(kernel, GRID), x)
        np.testing.assert_allclose(got, jaxdiff.sample(kernel, x, GRID, key), rtol=1e-6, atol=1e-6)
    assert compiled._cache_size() == 1  # another rate is another argument, not another program
    compiled(Sampler(kernel, GRID[:-1]), x)
    assert compiled._cache_size() == 2


def test_a_sampler_with_a_grid_beside_it_and_a_kernel_without_one_are_refused(x, key):
    with pytest.raises(TypeError, match="a Sampler has its own grid"):
        jaxdiff.sample(MATCHED, x, GRID, key)
    with pytest.raises(TypeError, match="moment_matched needs a grid"):
        jaxdiff.sample(MATCHED.kernel, x, key=key)
    with pytest.raises(ValueError, match="brings its own grid, curve and basis"):
        jaxdiff.certify(MATCHED, GRID, target=LAW)
    with pytest.raises(ValueError, match="path KL is not defined for 'heun'"):
        jaxdiff.certify(Sampler(kernels.heun(LAW.score), GRID), target=LAW)


# Along its principal axes moment matching is exact on a Gaussian, so its path KL is 0. Ancestral sampling
# costs (r - 1 - log r)/2 for each step and variance v, r = (1 + v snr_next)/(1 + v snr).
def test_the_certificate_of_a_sampler_is_that_of_its_kernel():
    value = lambda sampler: jaxdiff.certify(sampler, target=LAW)["discretisation"].value
    assert value(MATCHED) == pytest.approx(0, abs=1e-12)
    r = [np.diff(np.log1p(v / np.expm1(2 * GRID))) for v in (0.4, 2.0)]
    want = sum(np.sum(np.expm1(one) - one) / 2 for one in r)
    assert value(Sampler(kernels.ancestral(LAW.score), GRID)) == pytest.approx(want, rel=1e-9)
    other = kernels.moment_matched(LAW.score, targets.gaussian([0.0, 0.0], [0.1, 0.1]).mmse)
    assert value(Sampler(other, GRID)) > 0.1  # a variance that was set from another law's curve


def test_a_plan_makes_its_sampler():
    made = jaxdiff.plan(evals=9, target=LAW)
    sampler = made.sampler(LAW.score)
    assert (sampler.kernel.name, sampler.evals, sampler.grid is made.grid) == ("moment_matched", 9, True)
    planned = made.certificate["discretisation"].value
    assert jaxdiff.certify(sampler, target=LAW)["discretisation"].value == pytest.approx(planned, abs=1e-12)
    free = jaxdiff.plan(evals=9, dim=2, second_moment=4.0).sampler(LAW.score)
    assert (free.kernel.name, free.evals) == ("ancestral", 9)
