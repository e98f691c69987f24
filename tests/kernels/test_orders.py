"""Laws of whole chains on Gaussian data: exact by linear response, orders of convergence, stationary laws, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from family import CASES, constructor_of, make
from scipy.linalg import expm, solve_discrete_lyapunov

from jaxdiff import grids, kernels, processes, targets
from jaxdiff.processes import ou

MEANS, VARIANCES = np.array([1.0, -0.5, 0.3, 2.0]), np.array([0.02, 0.2, 0.8, 3.0])
HORIZON, EARLY_STOP = 12.0, 0.1


ORDERS = {  # of the error of the output's mean and variance; UniPC's corrector adds one to its predictor's
    "ancestral": 1,
    "ddim": 1,
    "ddim with noise": 1,
    "deis 1": 1,
    "deis 2": 2,
    "deis 3": 3,
    "deis 4": 4,
    "deis 3 in VP time": 3,
    "dpm_solver 1": 1,
    "dpm_solver 2": 2,
    "dpm_solver 3": 2,
    "dpm_solver 1 with noise": 1,
    "dpm_solver 2 with noise": 2,
    "eta_family, score": 1,
    "eta_family, noise": 1,
    "eta_family, denoiser": 1,
    "eta_family, ODE": 1,
    "euler": 1,
    "euler_maruyama": 1,
    "exponential_adams 1": 1,
    "exponential_adams 2": 2,
    "exponential_adams 3": 3,
    "exponential_adams 4": 4,
    "exponential_euler": 1,
    "heun": 2,
    "ode_then_noise": 1,
    "rk4": 4,
    "sa_solver": 2,
    "sa_solver, ODE": 3,
    "sa_solver 2 without corrector": 2,
    "sa_solver 1 1": 1,
    "seeds": 2,
    "stochastic_runge_kutta": 2,
    "unipc 1": 2,
    "unipc 2": 3,
    "unipc 3": 4,
}

NO_ORDER = {  # constructors or cases, each with the reason
    *(name for name in CASES if name.endswith("ending low")),  # the error is that of the last step
    "moment_matched",  # exact on these laws
    "covariance_matched",  # exact on these laws
    "langevin",  # the error is that of its stationary law
    "predictor_corrector",  # the error is that of the corrector
    "randomized_midpoint",  # the error is random
    "heun with churn",  # the error is that of its noise_scale, 1.02
}


def noised(variance, t):
    """The variance of q_t."""
    return np.exp(-2 * t) * variance - np.expm1(-2 * t)


def law_of(kernel, grid, mean, variance):
    """Mean and variance of the end, from those of the start (coordinates,), where the score is affine."""
    n, m = len(grid) - 1, kernel.noises_per_step
    x = np.tile(mean, (2 + n * m, 1))  # without noise, one further, and every increment alone
    x[1] += 1

    def body(state, step):
        k, row = step
        z = jnp.stack([jnp.zeros_like(x).at[2 + k * m + i].set(1.0) for i in range(m)]) if m else None
        return kernel.step(kernel.score, state, row, z[0] if m == 1 else z), None

    steps = jnp.arange(n), jax.tree.map(jnp.asarray, kernel.coefficients(grid))
    end, _ = jax.jit(lambda state: jax.lax.scan(body, state, steps))(kernel.init(jnp.asarray(x)))
    plain, *others = np.asarray(kernel.position(end))
    answer = np.array(others) - plain
    return plain, answer[0] ** 2 * variance + np.sum(answer[1:] ** 2, axis=0)


def variance_of(kernel, grid, start):
    """The variance of the end, coordinate by coordinate, from that of the start; mean 0."""
    return law_of(kernel, grid, np.zeros(len(start)), start)[1]


def miss(kernel, grid):
    """How wrong mean and variance of the end are, in deviations and in variances, from the exact law at the horizon."""
    start, end = ((np.exp(-t) * MEANS, noised(VARIANCES, t)) for t in (grid[0], grid[-1]))
    mean, variance = law_of(kernel, grid, *start)
    return np.linalg.norm([(mean - end[0]) / np.sqrt(end[1]), variance / end[1] - 1])


def test_every_case_has_an_order_or_a_reason():
    assert ORDERS.keys() | {name for name in CASES if constructor_of(name) in NO_ORDER or name in NO_ORDER} == set(
        CASES
    )


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name):
    kernel = make(name, targets.gaussian(MEANS, VARIANCES).score)
    errors = [miss(kernel, grids.log_snr(HORIZON, EARLY_STOP, n)) for n in (1024, 2048)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[name], abs=0.05)


class Always:
    """A generator whose uniform numbers are all one."""

    def __init__(self, value):
        self.value = value

    def uniform(self, size):
        return np.full(size, self.value)


# Where the score is affine a step is x' = g(u) x + c(u), u uniform: the error's mean and mean square follow by a
# recursion whose means over u are Gauss sums.
def test_randomized_midpoint_is_of_strong_order_three_halves(monkeypatch):
    law = targets.gaussian(MEANS, VARIANCES)
    kernel = kernels.randomized_midpoint(law.score)
    nodes, weights = np.polynomial.legendre.leggauss(12)

    def lines(grid, u):
        monkeypatch.setattr(np.random, "default_rng", lambda seed: Always(u))
        table = jax.tree.map(jnp.asarray, kernel.coefficients(grid))
        rows = jax.vmap(lambda row, x: kernel.step(law.score, x, row, None), in_axes=(0, None))
        shift = np.asarray(rows(table, jnp.zeros(4)))
        return np.asarray(rows(table, jnp.ones(4))) - shift, shift

    def root_mean_square(n):
        grid = np.linspace(2.0, 0.1, n + 1)
        gain, shift = np.swapaxes([lines(grid, u) for u in (nodes + 1) / 2], 0, 1)
        exact = np.exp(-grid[:, None]) * MEANS + np.sqrt(noised(VARIANCES, grid[:, None]))  # one deviation off the mean
        mean, square = np.zeros(4), np.zeros(4)
        for k in range(n):
            g, local = gain[:, k], gain[:, k] * exact[k] + shift[:, k] - exact[k + 1]
            square = weights / 2 @ (g**2 * square + 2 * g * local * mean + local**2)
            mean = weights / 2 @ (g * mean + local)
        return np.sqrt(square.sum())

    assert np.log2(root_mean_square(512) / root_mean_square(1024)) == pytest.approx(1.5, abs=0.01)


def test_heun_with_churn_keeps_its_order():
    law = targets.gaussian(MEANS, VARIANCES)

    errors = [miss(kernels.heun(law.score, churn=20.0), grids.log_snr(HORIZON, EARLY_STOP, n)) for n in (512, 1024)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.05)


V, H = 0.7, 0.2


def stationary(kernel, h=H, n=400):
    """The variance at which a corrector settles, from steps of running time h."""
    return variance_of(kernel, np.arange(n, -1, -1) * h, np.zeros(1))[0]


def drawn(x, t):
    """The score of N(0, V)."""
    return -x / V


def test_plain_langevin_settles_at_its_stationary_variance():
    assert stationary(kernels.langevin(drawn, 0.5)) == pytest.approx(V / (1 - H / (2 * V)), rel=1e-12)


@pytest.mark.parametrize("v", [0.3, 0.7, 1.3])
@pytest.mark.parametrize("h", [0.2, 30.0])
def test_exponential_langevin_settles_at_its_stationary_variance(v, h):
    a = v * (1 - np.exp(-h / v))
    kernel = kernels.langevin(drawn, 0.5, scheme="exponential", variance=v)
    assert stationary(kernel, h) == pytest.approx(V**2 * (2 * v - a) / (v * (2 * V - a)), rel=1e-12)


def test_exponential_langevin_takes_the_noise_for_its_variance():
    given, default = (
        kernels.langevin(drawn, 0.5, scheme="exponential", variance=v) for v in (ou.sigma(0.5) ** 2, None)
    )
    assert stationary(given) == pytest.approx(stationary(default), rel=1e-14)


# One step maps (x, p) linearly, the score being -x/V: X' = A X + noise, and the law solves S = A S A^T + Q.
@pytest.mark.parametrize("friction", [0.5, 2.0, 8.0])
def test_underdamped_langevin_settles_at_its_stationary_variance(friction):
    drift = np.array([[0.0, 1.0, 0.0], [0.0, -friction, 1.0], [0.0, 0.0, 0.0]])  # of x, p and the frozen score
    flow = expm(H * drift)
    step = flow[:2, :2] + np.outer(flow[:2, 2], [-1 / V, 0.0])
    lyapunov = np.block([[-drift[:2, :2], np.diag([0.0, 2 * friction])], [np.zeros((2, 2)), drift[:2, :2].T]])
    blocks = expm(H * lyapunov)  # Van Loan: the covariance of the noise
    noise = blocks[2:, 2:].T @ blocks[:2, 2:]
    want = solve_discrete_lyapunov(step, noise)[0, 0]
    kernel = kernels.langevin(drawn, 0.5, scheme="underdamped", friction=friction)
    assert stationary(kernel, n=1500) == pytest.approx(want, rel=1e-10)


# With the exact score of N(0, V) a corrector that takes small steps leaves the law it finds, with momentum or without.
@pytest.mark.parametrize("scheme", ["plain", "exponential", "underdamped"])
def test_a_corrector_keeps_the_right_law_as_its_steps_shrink(scheme):
    law = targets.gaussian([0.0, 0.0], [0.3, 2.0])

    def wrong(h):
        corrector = kernels.langevin(law.score, 1.0, scheme=scheme)
        kernel = kernels.predictor_corrector(kernels.covariance_matched(law.score), corrector, 20, step_size=h)
        want = noised(np.array([0.3, 2.0]), 0.4)
        start = noised(np.array([0.3, 2.0]), 1.0)
        return np.abs(variance_of(kernel, np.array([1.0, 0.8, 0.6, 0.4]), start) / want - 1).max()

    assert wrong(0.01) < 0.02
    assert wrong(0.001) < wrong(0.01) / 8  # of order h


def test_a_corrector_step_of_the_default_rule_is_wrong_by_its_excess_where_the_data_have_no_variance():
    law = targets.gaussian([0.0, 0.0], [0.0, 1.0])
    kernel = kernels.predictor_corrector(kernels.ddim(law.score), kernels.langevin(law.score, 1.0), 400)
    kernel_law = variance_of(kernel, np.array([1.0, 0.3]), np.ones(2)) / noised(np.array([0.0, 1.0]), 0.3)
    assert kernel_law[0] == pytest.approx(1.05, rel=1e-9)
    assert 1 < kernel_law[1] < 1.05


EXACT_ON_A_POINT = {  # the denoiser is constant, the noise linear in sigma/alpha
    "ancestral", "covariance_matched", "covariance_matched by Lanczos", "ddim", "ddim with noise", "dpm_solver 1",
    "dpm_solver 2", "dpm_solver 3", "dpm_solver 1 with noise", "dpm_solver 2 with noise", "eta_family, denoiser",
    "exponential_adams 1", "exponential_adams 2", "exponential_adams 3", "exponential_adams 4", "heun",
    "ode_then_noise", "rk4", "sa_solver", "sa_solver, ODE", "sa_solver 2 without corrector", "sa_solver 1 1",
    "unipc 1", "unipc 2", "unipc 3", "deis 1",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXACT_ON_A_POINT))
def test_a_point_mass_is_exact_on_any_grid(name):
    kernel = make(name, targets.gaussian([0.0], [0.0]).score)
    grid = np.array([2.0, 0.9, 0.1, 0.07])
    assert variance_of(kernel, grid, noised(0.0, grid[:1]))[0] == pytest.approx(noised(0.0, grid[-1]), rel=1e-12)


def wrong_on_a_standard_normal(name, n):
    """How far from 1 the variance ends; its parts have one sign on a geometric grid, so that none hides another."""
    kernel = make(name, lambda x, t: -x)
    return abs(variance_of(kernel, grids.geometric(HORIZON, EARLY_STOP, n), np.ones(1))[0] - 1)


EXACT_ON_A_STANDARD_NORMAL = {"euler", "eta_family, ODE"}  # its drift is 0, and the score is frozen as it is


@pytest.mark.parametrize("name", sorted(EXACT_ON_A_STANDARD_NORMAL))
def test_a_standard_normal_stays_one(name):
    assert wrong_on_a_standard_normal(name, 64) < 1e-13


@pytest.mark.parametrize("name", sorted(ORDERS.keys() - EXACT_ON_A_STANDARD_NORMAL))
def test_a_standard_normal_stays_one_to_the_order_of_the_method(name):
    errors = [wrong_on_a_standard_normal(name, n) for n in (700, 1400)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[name], abs=0.05)


# The first steps have fewer denoisers: one step of order 1, an error of order 2, but about e^(-2 horizon) of it.
@pytest.mark.parametrize("name", ["exponential_adams 4", "deis 4", "exponential_adams 3"])
def test_a_multistep_method_that_starts_where_the_score_is_curved_is_of_order_two(name):
    kernel = make(name, targets.gaussian(MEANS, VARIANCES).score)
    errors = [miss(kernel, grids.log_snr(0.5, EARLY_STOP, n)) for n in (1024, 2048)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.05)


MIXTURE = np.array([0.3, 0.7]), np.array([-1.0, 0.5]), np.array([0.05, 0.2])


def density_after(kernel, grid, y):
    """The density of the output on points y, from the exact law at grid[0]: step by step, by the trapezoidal rule."""
    table, x, step = kernel.coefficients(grid), jnp.asarray(y)[:, None], jax.jit(kernel.step)
    density = oracles.mixture_density(MIXTURE, y, grid[0])
    for k in range(len(grid) - 1):
        row = jax.tree.map(lambda column, k=k: jnp.asarray(column[k]), table)
        mean = np.asarray(step(kernel.score, x, row, jnp.zeros_like(x)))[:, 0]
        spread = np.asarray(step(kernel.score, x, row, jnp.ones_like(x)))[:, 0] - mean
        away = (y[:, None] - mean) / spread
        density = np.exp(-(away**2) / 2) / (np.sqrt(2 * np.pi) * spread) @ density * (y[1] - y[0])
    return density


# The one kernel of order 2 whose law is not Gaussian in one step only because the data are not.
@pytest.mark.parametrize(("name", "order"), [("covariance_matched", 2), ("ancestral", 1)])
def test_order_of_the_law_on_a_mixture(name, order):
    law = targets.mixture(MIXTURE[0], MIXTURE[1][:, None], MIXTURE[2][:, None])
    kernel, y = make(name, law.score), np.linspace(-6, 6, 801)
    exact = oracles.mixture_density(MIXTURE, y, 0.2)
    errors = [np.abs(density_after(kernel, grids.log_snr(0.5, 0.2, n), y) - exact).sum() for n in (32, 64)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


# Grids that end with a long step, or alternate long and short ones. Without the rule of multistep.bounded the standard
# deviation .5 came out as 5.7 to 16.6, and the relative error of a variance as 15 (eta = 1) and 3e5 (eta = 2).
FLOW_TO_THE_DATA = processes.to_ou(processes.flow, np.linspace(0.999, 0, 11))
TO_THE_DATA = {
    "unipc 3": kernels.unipc,
    "unipc 2": lambda score: kernels.unipc(score, 2),
    "sa_solver": kernels.sa_solver,
    "sa_solver, reverse SDE": lambda score: kernels.sa_solver(score, eta=1.0),
    "exponential_adams 4": lambda score: kernels.exponential_adams(score, 4),
    "dpm_solver 3": lambda score: kernels.dpm_solver(score, 3),
    "dpm_solver 2, reverse SDE": lambda score: kernels.dpm_solver(score, 2, eta=1.0),
    "deis 4": lambda score: kernels.deis(score, 4),
}


@pytest.mark.parametrize("name", TO_THE_DATA)
def test_a_long_last_step_leaves_a_multistep_method_at_worst_as_good_as_its_first_order(name):
    kernel = TO_THE_DATA[name](targets.gaussian([0.0], [0.25]).score)
    first = kernels.dpm_solver(kernel.score, 1, eta=1.0 if name.endswith("SDE") else 0.0)
    deviations = [
        variance_of(one, FLOW_TO_THE_DATA, noised(0.25, FLOW_TO_THE_DATA[:1])) ** 0.5 for one in (kernel, first)
    ]
    assert abs(deviations[0] - 0.5) < 1.05 * abs(deviations[1] - 0.5)


def alternating(ratio, n_steps, horizon=4.0, early_stop=0.02):
    """Steps in log(alpha/sigma) that alternate as 1 : ratio."""
    ends = np.log(ou.snr(np.array([horizon, early_stop])))
    places = np.cumsum(np.append(0, np.where(np.arange(n_steps) % 2, ratio, 1)))
    return np.append(ou.time(np.exp(ends[0] + np.diff(ends) * places / places[-1]))[:-1], early_stop)


@pytest.mark.parametrize(("ratio", "eta"), [(10, 0.0), (10, 0.4), (10, 1.0), (10, 2.0), (6, 1.0), (4, 0.0), (4, 2.0)])
def test_alternating_steps_do_not_make_a_corrected_method_unstable(ratio, eta):
    variances = np.array([0.02, 0.5, 3.0])
    law = targets.gaussian(np.zeros(3), variances)
    errors = []
    for n_steps in (20, 40):
        grid = alternating(ratio, n_steps)
        start, end = noised(variances, grid[0]), noised(variances, grid[-1])
        for kernel in (kernels.sa_solver(law.score, eta=eta), kernels.dpm_solver(law.score, 1, eta=eta)):
            errors.append(np.abs(variance_of(kernel, grid, start) / end - 1).max())
    several, one, several_finer, one_finer = errors
    assert several < one
    assert several_finer < min(one_finer, several)


# A corrector of q nodes leaves an error of order q for q below the predictor's order, whatever the predictor.
@pytest.mark.parametrize(("corrector_order", "order"), [(1, 1), (2, 2)])
def test_a_corrector_of_lower_order_lowers_the_order_of_the_whole(corrector_order, order):
    kernel = kernels.sa_solver(targets.gaussian(MEANS, VARIANCES).score, 3, corrector_order, eta=0.0)
    errors = [miss(kernel, grids.log_snr(HORIZON, EARLY_STOP, n)) for n in (1024, 2048)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)
