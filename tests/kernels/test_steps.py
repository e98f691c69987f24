"""Every kernel against an independent hand: each step integrates its frozen equation numerically (methods.py)."""

import jax
import jax.numpy as jnp
import methods
import numpy as np
import pytest
from family import CASES, MULTISTEP, PER_DIRECTION, constructor_of, make

GRID = np.array([2.1, 1.3, 0.9, 0.35, 0.2, 0.08])  # no step is more than twice as long as one before it
NEAR_DATA = np.array([2e-3, 6e-4, 1e-4, 3e-5, 4e-6, 1e-6])
LONG_STEPS = np.array([2.1, 1.3, 0.9, 0.35, 0.3, 0.04])  # multistep methods use fewer nodes here
LONG_STEPS_NEAR_DATA = np.array([0.011, 0.01, 1e-3, 9e-6, 2e-6, 1e-6])
UNEVEN_BUT_SHORT = np.log1p(np.exp(-2 * np.array([0.0, 0.01, 0.05, 0.06, 0.1, 0.11]))) / 2  # 1 : 4 in log(alpha/sigma)
RUNNING = np.array([0.9, 0.6, 0.5, 0.2, 0.0])
START = np.array([0.7, -1.4, 0.1])


def score(x, t, sin=np.sin):
    """Smooth, nonlinear, the score of nothing."""
    return -0.7 * x * (1 + 0.3 * t) + 0.4 * sin(x + 2 * t)


def traced(x, t):
    """The same for JAX."""
    return score(x, t, jnp.sin)


def posterior_variance(t, x):
    """sigma^2/alpha times the slope of the denoiser, by a complex step; not negative."""
    slope = (methods.seen_by(score, x + 1e-30j, t, "denoiser") / 1e-30).imag
    return np.maximum(methods.noise_variance(t) * np.exp(t) * slope, 0)


def sigma2(t):
    """The variance that exponential Langevin takes of itself."""
    return methods.noise_variance(t)


def excess(t):
    """The default step of a corrector: 5 % of variance too much where the data have none."""
    return 2 * sigma2(t) * 0.05 / 1.05


ORACLES = {
    "ancestral": methods.of_one_step("ancestral"),
    "covariance_matched": methods.of_one_step("moment_matched", variance=posterior_variance),
    "covariance_matched by Lanczos": methods.of_one_step("moment_matched", variance=posterior_variance),
    "ddim": methods.frozen("denoiser", 0.0),
    "ddim with noise": methods.of_one_step("ddim", eta=0.6),
    **{f"deis {p}": methods.multistep(p, what="noise") for p in (1, 2, 3, 4)},
    "deis 3 in VP time": methods.multistep(3, what="noise", time=methods.vp_time),
    "deis 3, ending low": methods.multistep(3, what="noise", lower_final=True),
    **{f"dpm_solver {p}": methods.multistep(p, form="published") for p in (1, 2, 3)},
    "dpm_solver 3, ending low": methods.multistep(3, form="published", lower_final=True),
    **{f"dpm_solver {p} with noise": methods.multistep(p, form="published", eta=1.0) for p in (1, 2)},
    "eta_family, score": methods.frozen("score", 0.7),
    "eta_family, noise": methods.frozen("noise", 1.0),
    "eta_family, denoiser": methods.frozen("denoiser", 1.5),
    "eta_family, ODE": methods.frozen("score", 0.0),
    "euler": methods.explicit_euler(1.0, 0.0),
    "euler_maruyama": methods.explicit_euler(2.0, 2.0),
    **{f"exponential_adams {p}": methods.multistep(p) for p in (1, 2, 3, 4)},
    "exponential_adams 4, ending low": methods.multistep(4, lower_final=True),
    "exponential_euler": methods.frozen("score", 1.0),
    "heun": methods.runge_kutta("heun"),
    "heun with churn": methods.runge_kutta("heun", 4.0, 1.02, (0.1, 10.0)),
    "langevin": methods.at_one_time("plain", 0.7),
    "langevin, exponential": methods.at_one_time("exponential", 0.7, variance=0.9),
    "langevin, underdamped": methods.at_one_time("underdamped", 0.7, friction=1.5),
    "moment_matched": methods.of_one_step(
        "moment_matched", variance=lambda t, x: 0.3 / (1 + 0.3 * np.exp(2 * methods.level(t)))
    ),
    "ode_then_noise": methods.ode_then_noise,
    "predictor_corrector": methods.predictor_corrector(
        lambda: methods.alone(methods.of_one_step("ancestral")), "plain", 2, excess
    ),
    "predictor_corrector of an ODE": methods.predictor_corrector(
        lambda: methods.alone(methods.frozen("denoiser", 0.0)), "exponential", 1, lambda t: 0.02, variance=sigma2
    ),
    "predictor_corrector with momentum": methods.predictor_corrector(
        lambda: methods.remembering(2), "underdamped", 3, lambda t: 0.1 * t, friction=lambda t: 2.0
    ),
    "randomized_midpoint": methods.randomized_midpoint(3),
    "rk4": methods.runge_kutta("rk4"),
    "sa_solver": methods.multistep(3, eta=0.4, corrector=3),
    "sa_solver, ODE": methods.multistep(3, corrector=3),
    "sa_solver, ending low": methods.multistep(3, eta=0.4, corrector=3, lower_final=True),
    "sa_solver 2 without corrector": methods.multistep(2, eta=1.0),
    "sa_solver 1 1": methods.multistep(1, corrector=1),
    "seeds": methods.seeds,
    "stochastic_runge_kutta": methods.stochastic_runge_kutta,
    "unipc 3, ending low": methods.multistep(3, form="unipc", corrector=4, lower_final=True),
    **{f"unipc {p}": methods.multistep(p, form="unipc", corrector=p + 1) for p in (1, 2, 3)},
}


PUBLISHED = {  # a second oracle where the coefficients themselves are the method
    **{f"dpm_solver {p}": methods.dpm_solver_as_published(p) for p in (1, 2, 3)},
    **{f"unipc {p}": methods.unipc_as_published(p) for p in (1, 2, 3)},
}


def follows_its_equation(name, kernel, grid=GRID, oracles=ORACLES):
    """Raise AssertionError unless the kernel's positions, all finite, are those of the method it is named after."""
    grid = RUNNING if kernel.own_clock else grid
    noises = max(kernel.noises_per_step, 0)
    z = np.random.default_rng(0).normal(size=(len(grid) - 1, noises, len(START)))
    state, table = kernel.init(jnp.asarray(START)[:, None]), kernel.coefficients(grid)
    for k, want in enumerate(oracles[name](score, grid, START, z)):
        row = jax.tree.map(lambda column, k=k: jnp.asarray(column[k]), table)
        increments = None if noises == 0 else jnp.asarray(z[k])[..., None]
        state = kernel.step(kernel.score, state, row, increments[0] if noises == 1 else increments)
        got = np.asarray(kernel.position(state))[:, 0]
        assert np.isfinite(got).all(), "not finite"
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10, err_msg=f"step {k} of {name}")


def test_every_case_has_an_oracle():
    assert ORACLES.keys() == CASES.keys() - set(PER_DIRECTION)  # those are compared with exact steps in test_contract


@pytest.mark.parametrize("grid", [GRID, NEAR_DATA], ids=["", "near the data"])
@pytest.mark.parametrize("name", ORACLES)
def test_every_step_is_that_of_the_frozen_equation(name, grid):
    follows_its_equation(name, make(name, traced), grid)


@pytest.mark.parametrize("grid", [LONG_STEPS, LONG_STEPS_NEAR_DATA, UNEVEN_BUT_SHORT], ids=["", "near data", "short"])
@pytest.mark.parametrize("name", [name for name in ORACLES if constructor_of(name) in MULTISTEP])
def test_a_long_step_uses_as_many_nodes_as_the_rule_allows(name, grid):
    follows_its_equation(name, make(name, traced), grid)


@pytest.mark.parametrize(
    ("name", "order"),
    [("exponential_adams 4", 4), ("deis 4", 4), ("sa_solver", 3), ("dpm_solver 3", 3), ("unipc 3", 3)],
)
def test_only_a_long_step_uses_fewer_nodes(name, order):
    used = lambda grid: np.count_nonzero(make(name, traced).coefficients(grid).weights, axis=1).tolist()
    assert used(GRID) == used(NEAR_DATA) == used(UNEVEN_BUT_SHORT) == [min(order, k + 1) for k in range(5)]
    assert used(LONG_STEPS) == [*used(GRID)[:4], 1]  # eleven times as long as the step before it


@pytest.mark.parametrize("grid", [GRID, NEAR_DATA], ids=["", "near the data"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_step_is_that_of_the_authors_code(name, grid):
    follows_its_equation(name, make(name, traced), grid, PUBLISHED)
