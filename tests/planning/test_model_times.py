"""Times of a planned grid on the clocks of models: formulas of each clock, whole rows of a table, and diffusers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdiff import Certificate, Plan, Sampler, grids, kernels, processes, sample, targets
from jaxdiff.planning.model_times import grid_of_times, times_of

ABAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))  # DDPM's table
GRID = grids.log_snr(3.5, 1e-3, 7)
LAW = targets.mixture([0.3, 0.7], [[-1.0, 0.0], [1.0, 0.5]], [[0.1, 0.1], [0.2, 0.05]])


def made(grid, kernel="unipc", **options):
    """A plan with this grid and kernel."""
    return Plan(float(grid[0]), grid, kernel, len(grid) - 1, Certificate("", (), 0.95), options=options)


# With alpha = e^-t and sigma^2 = 1 - alpha^2, each clock has the time at which sigma/alpha is the same.
@pytest.mark.parametrize(
    ("clock", "ratio"),
    [
        ("edm", lambda t: t),
        ("flow", lambda t: t / (1 - t)),
        ("vp", lambda t: np.sqrt(np.expm1(0.1 * t + 19.9 * t**2 / 2))),
        ("ve", lambda t: 0.01 * 5000.0**t),
    ],
)
def test_at_the_times_of_a_clock_noise_and_signal_are_as_on_the_grid(clock, ratio):
    times = made(GRID).times(clock)
    assert times.dtype == np.float64
    np.testing.assert_allclose(ratio(times), np.sqrt(np.expm1(2 * GRID)), rtol=1e-9)
    np.testing.assert_array_equal(made(GRID).rounded(clock), GRID)


def rows_of(grid):
    """Real rows of the table, by linear interpolation of log snr."""
    level = np.log(ABAR) - np.log1p(-ABAR)
    return np.interp(-np.log(np.expm1(2 * grid)), level[::-1], np.arange(1000.0)[::-1])


def test_rows_of_a_table_are_the_nearest_where_these_are_distinct():
    times = made(GRID).times("ddpm")
    assert times.dtype == np.int64
    np.testing.assert_array_equal(times, np.rint(rows_of(GRID)))
    np.testing.assert_allclose(made(GRID).rounded("ddpm"), -np.log(ABAR[times]) / 2, rtol=1e-9)


# Against a search of all choices of distinct rows.
@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 7), min_size=2, max_size=5, unique=True))
def test_crowded_nodes_get_distinct_rows_as_near_as_possible(rows):
    table = processes.ddpm(np.linspace(0.9, 0.1, 8))
    rows = np.sort(np.array(rows))[::-1]
    if np.min(-np.diff(rows)) < 1e-2:
        return
    grid = np.asarray(processes.to_ou(table, rows), np.float64)
    found = times_of(grid, table)
    assert (np.diff(found) < 0).all()
    least = min(np.sum((np.array(one) - rows) ** 2) for one in itertools.combinations(range(7, -1, -1), len(rows)))
    # Rounding the regression costs at most a quarter for each node.
    assert np.sum((found - rows) ** 2) <= least + len(rows) / 4
    assert found.min() >= 0
    assert found.max() <= 7


def test_equal_rows_are_parted_evenly():
    table = processes.ddpm(np.linspace(0.9, 0.1, 12))
    grid = np.asarray(processes.to_ou(table, np.array([9.0, 5.02, 5.01, 5.0, 1.0])), np.float64)
    np.testing.assert_array_equal(times_of(grid, table), [9, 6, 5, 4, 1])


@pytest.mark.parametrize("order", [1, 2])
def test_the_sampler_of_a_plan_has_the_options_of_its_kernel(order):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)))
    ends = [
        sample(one, x, key=jax.random.key(0))
        for one in (made(GRID, order=order).sampler(LAW.score), Sampler(kernels.unipc(LAW.score, order), GRID))
    ]
    np.testing.assert_array_equal(*ends)
    assert np.abs(ends[0] - sample(kernels.unipc(LAW.score, 3), x, GRID, jax.random.key(0))).max() > 1e-3


def test_bad_clocks_and_times_outside_are_refused():
    with pytest.raises(ValueError, match=r"clock must be one of ddpm, .*: it is 'ddim'"):
        made(GRID).times("ddim")
    with pytest.raises(ValueError, match="OU times from"):
        made(grids.log_snr(9.0, 1e-3, 7)).times("ddpm")
    with pytest.raises(ValueError, match="has 3 rows, fewer than the 4 nodes"):
        times_of(np.array([0.9, 0.8, 0.7, 0.6]), processes.ddpm([0.9, 0.5, 0.1]))
    assert grid_of_times(GRID, processes.edm) is GRID


def predicted(t_ou):
    """The noise that the law's score predicts, as PyTorch wants it."""
    import torch

    sigma = np.sqrt(-np.expm1(-2 * t_ou))
    score = lambda x: np.asarray(jax.jit(LAW.score)(jnp.asarray(x.numpy(), jnp.float64), jnp.float64(t_ou)))
    return lambda x: torch.tensor((-sigma * score(x)).astype(np.float32))


def through(scheduler, x, rows):
    """The end points of a scheduler of diffusers with the law's score, started at OU positions x."""
    import torch

    state = torch.tensor(np.asarray(x))
    for row, entry in zip(rows, scheduler.timesteps, strict=True):
        state = scheduler.step(predicted(-np.log(ABAR[row]) / 2)(state), entry, state, return_dict=False)[0]
    return state.numpy()


# The first library takes the exported rows as they are, and ends at row 0 with final_sigmas_type="sigma_min". UniPC of
# diffusers takes no rows: its table of sigmas is replaced by the exported one, which k-diffusion's samplers take too.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers, with NumPy 2
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("name", ["dpm_solver", "unipc"])
def test_diffusers_on_exported_times_reaches_our_end_points(name, order, lower):
    pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    horizon, early_stop = processes.ou_ends(processes.ddpm())
    plan = made(grids.log_snr(horizon, early_stop, 12), name, order=order, lower_order_final=lower)
    rows = plan.times("ddpm")
    assert rows[-1] == 0
    options = {"solver_order": order, "lower_order_final": lower, "final_sigmas_type": "sigma_min"}
    if name == "dpm_solver":
        scheduler = diffusers.DPMSolverMultistepScheduler(**options, euler_at_final=False)
        scheduler.set_timesteps(timesteps=rows[:-1].tolist())
    else:
        import torch

        scheduler = diffusers.UniPCMultistepScheduler(**options)
        scheduler.set_timesteps(len(rows) - 1)
        scheduler.timesteps = torch.tensor(rows[:-1])
        scheduler.sigmas = torch.tensor(made(plan.rounded("ddpm")).times("edm"), dtype=torch.float32)
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    theirs = through(scheduler, x, rows[:-1])
    ours = sample(Sampler(plan.sampler(LAW.score).kernel, plan.rounded("ddpm")), jnp.asarray(x), key=jax.random.key(0))
    assert np.abs(theirs - ours).max() < 1e-3
    other = sample(Sampler(kernels.ddim(LAW.score), plan.grid), jnp.asarray(x), key=jax.random.key(0))
    assert np.abs(theirs - other).max() > 1e-2
