"""predict_correct: laws of whole pipelines, the stages it is made of, what it costs, and what it refuses."""

import inspect
import math
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.stats import chi2

from jaxdiff import grids, kernels, noise, predict_correct, sample, sample_in_turn, scores, targets
from jaxdiff.sampling.prediction_correction import gaussian_start, scheme

HORIZON = 0.6


def alpha_sigma2(t):
    return np.exp(-t), -np.expm1(-2 * t)


def score_line(t, mean, variance):
    """(slope, intercept) of the score -(x - alpha m)/(alpha^2 v + sigma^2) of N(m, v), coordinate by coordinate."""
    alpha, sigma2 = alpha_sigma2(t)
    noised = alpha**2 * variance + sigma2
    return -1 / noised, alpha * mean / noised


# A step x' = a x + b s(x) + c z with s = p x + q takes N(mu, w) to N((a + b p) mu + b q, (a + b p)^2 w + c^2).
def moved(law, line, a, b, c=0.0):
    (mean, variance), (slope, intercept) = law, line
    return (a + b * slope) * mean + b * intercept, (a + b * slope) ** 2 * variance + c**2


def after_langevin(law, data, h, n):
    """n steps x' = x + h s + sqrt(2h) z at the horizon."""
    for _ in range(n):
        law = moved(law, score_line(HORIZON, *data), 1.0, h, np.sqrt(2 * h))
    return law


def after_ddim(law, data, grid):
    """The ODE with its denoiser m frozen: x' = (sigma'/sigma) x + (alpha' - alpha sigma'/sigma) m."""
    for t, t_next in pairwise(grid):
        (alpha, sigma2), (alpha_next, sigma2_next) = alpha_sigma2(t), alpha_sigma2(t_next)
        ratio = np.sqrt(sigma2_next / sigma2)
        weight = alpha_next - alpha * ratio  # of m = (x + sigma^2 s)/alpha
        law = moved(law, score_line(t, *data), ratio + weight / alpha, weight * sigma2 / alpha)
    return law


def after_exponential_euler(law, data, grid):
    """dY = (Y + 2 s) dt + sqrt(2) dB with s frozen: x' = e^g x + 2 (e^g - 1) s + sqrt(e^2g - 1) z."""
    for t, g in zip(grid[:-1], grid[:-1] - grid[1:], strict=True):
        law = moved(law, score_line(t, *data), np.exp(g), 2 * np.expm1(g), np.sqrt(np.expm1(2 * g)))
    return law


# Per coordinate the mean's z is N(0, 1) and the variance's sum of squares chi^2 of n degrees, which is normal here. Of
# d coordinates together: none beyond 5 standard errors (by chance once in 3,000 runs at d = 256); the sum of z^2 is
# chi^2 of d degrees; and the sum of z over sqrt(d) is one more z, which sees what is off in all of them alike.
def assert_law(x, mean, variance):
    n, d = x.shape
    means = (x.mean(axis=0) - mean) / np.sqrt(variance / n)
    spreads = (((x - mean) ** 2).mean(axis=0) - variance) / (variance * np.sqrt(2 / n))
    for z in (means, spreads):
        assert np.abs(z).max() < 5
        assert chi2.sf(np.sum(z**2), d) > 3e-7  # as likely as five standard errors
        assert abs(z.sum()) < 5 * np.sqrt(d)


def data_in(d):
    return np.linspace(-1.0, 2.0, d), np.geomspace(0.05, 3.0, d)[::-1]


REVERSALS = {"ddim": after_ddim, "exponential_euler": after_exponential_euler}


@pytest.mark.parametrize(
    ("name", "d", "n", "moments"),
    [
        ("exponential_euler", 1, 100_000, False),
        ("exponential_euler", 8, 40_000, True),
        ("ddim", 8, 40_000, False),
        ("ddim", 256, 4_000, False),
    ],
)
def test_the_law_of_the_whole_pipeline_on_a_gaussian_is_the_recursion_of_its_formulas(d, n, name, moments, key):
    data, grid = data_in(d), grids.log_snr(HORIZON, 0.05, 5)
    score = targets.gaussian(*data).score
    start, guess = (np.zeros(d), np.ones(d)), (data[0] + 0.3, data[1] * 1.5)  # moments that are not quite the data's
    if moments:
        alpha, sigma2 = alpha_sigma2(HORIZON)
        start = alpha * guess[0], alpha**2 * guess[1] + sigma2
    want = REVERSALS[name](after_langevin(start, data, 0.11, 4), data, grid)
    out = predict_correct(
        score,
        noise.initial(jax.random.fold_in(key, 99), jnp.arange(n), d),
        key,
        horizon=HORIZON,
        langevin_time=0.44,
        step_size=0.11,
        moments=guess if moments else None,
        reversal=getattr(kernels, name)(score),
        grid=grid,
    )
    assert_law(np.asarray(out, np.float64), *want)


def test_the_law_of_a_turned_gaussian_is_that_of_its_principal_directions(key):
    rng = np.random.default_rng(4)
    mean, values, axes = rng.normal(size=4), np.array([0.01, 0.4, 1.0, 2.5]), np.linalg.qr(rng.normal(size=(4, 4)))[0]
    score, data, grid = targets.gaussian(mean, axes * values @ axes.T).score, (mean @ axes, values), [HORIZON, 0.2, 0.1]
    guess = 0.7 * values + 0.2  # along the same directions
    alpha, sigma2 = alpha_sigma2(HORIZON)
    start = alpha * (data[0] - 0.1), alpha**2 * guess + sigma2
    out = predict_correct(
        score,
        noise.initial(jax.random.fold_in(key, 99), jnp.arange(50_000), 4),
        key,
        horizon=HORIZON,
        langevin_time=0.3,
        step_size=0.15,
        moments=((data[0] - 0.1) @ axes.T, axes * guess @ axes.T),
        reversal=kernels.ddim(score),
        grid=grid,
    )
    want = after_ddim(after_langevin(start, data, 0.15, 2), data, np.array(grid))
    assert_law(np.asarray(out, np.float64) @ axes, *want)


# On data N(m, 1) the law at T_1 is N(m e^-T_1, 1), s = m e^-T_1 - x, and dX = s du + sqrt(2) dB halves nothing but the
# mean's error |m| e^-T_1, by e^-T_2: the whole pipeline starts |m| e^-(T_1 + T_2) away.
MEAN, CORRECTION = -2.0, 0.7


def shifted(x, t):
    """The score of N(MEAN, 1)."""
    return MEAN * jnp.exp(-t) - x


def langevin_stage(n_steps):
    made = scheme(
        shifted, horizon=HORIZON, langevin_time=CORRECTION, step_size=CORRECTION / n_steps, moments=None, lipschitz=1.0
    )
    return made.stages[0]


def mean_after(kernel, grid, x):
    """Where x is brought on average: the step is affine in x and the noise, so the noise can be left out."""
    table = jax.tree.map(jnp.asarray, kernel.coefficients(grid))
    steps = lambda x, row: (kernel.step(kernel.score, x, row, jnp.zeros_like(x)), None)
    return jax.jit(lambda x: jax.lax.scan(steps, x, table)[0])(x)


def mean_error(n_steps):
    """How far the mean is from m e^-T_1, from a start of mean 0."""
    return abs(float(mean_after(*langevin_stage(n_steps), jnp.zeros((1, 1)))[0, 0]) - MEAN * np.exp(-HORIZON))


@pytest.mark.parametrize("n_steps", [1, 2, 7, 100])
def test_langevin_shrinks_the_error_of_the_mean_by_1_minus_h_a_step(n_steps):
    want = abs(MEAN) * np.exp(-HORIZON) * (1 - CORRECTION / n_steps) ** n_steps
    assert mean_error(n_steps) == pytest.approx(want, rel=1e-12)


# (1 - T_2/n)^n = e^-T_2 (1 - T_2^2/(2n) + ...).
def test_with_small_steps_the_error_of_the_mean_is_m_e_to_minus_horizon_and_correction_time():
    limit = abs(MEAN) * np.exp(-HORIZON - CORRECTION)
    for n in (100, 1000, 10_000):
        assert mean_error(n) / limit - 1 == pytest.approx(-(CORRECTION**2) / (2 * n), rel=2 / n)


def test_the_mean_of_the_samples_is_off_by_the_limit_and_their_variance_by_nothing_but_the_step(key):
    n_particles, n_steps, early_stop = 100_000, 200, 0.01
    x = noise.initial(jax.random.fold_in(key, 99), jnp.arange(n_particles), 1)
    out = predict_correct(
        shifted,
        x,
        key,
        horizon=HORIZON,
        langevin_time=CORRECTION,
        step_size=CORRECTION / n_steps,
        reversal=kernels.rk4(shifted),
        grid=grids.log_snr(HORIZON, early_stop, 12),  # leaves an error of 1e-5; the standard error is 3e-3
    )
    # The ODE dx/dt = -x - s = -m e^-t moves all particles alike, by m (e^-early_stop - e^-T_1).
    h = CORRECTION / n_steps
    left = MEAN * np.exp(-HORIZON) * (1 - h) ** n_steps
    assert left == pytest.approx(MEAN * np.exp(-HORIZON - CORRECTION), rel=0.0025)
    shrink = (1 - h) ** (2 * n_steps)
    variance = shrink + (1 - shrink) / (1 - h / 2)
    assert_law(np.asarray(out, np.float64), np.array([MEAN * np.exp(-early_stop) - left]), np.array([variance]))


def test_the_start_of_given_moments_is_the_gaussian_of_these_moments_at_the_horizon(key):
    rng = np.random.default_rng(5)
    mean, root = rng.normal(size=3), rng.normal(size=(3, 2))  # a covariance of rank 2
    alpha, sigma2 = alpha_sigma2(HORIZON)
    for cov in (root @ root.T, np.array([0.0, 0.5, 3.0])):
        made = scheme(shifted, horizon=HORIZON, langevin_time=0, moments=(mean, cov))
        kernel, grid = made.stages[0]
        shift, *rows = np.asarray(sample(kernel, jnp.asarray(np.vstack([np.zeros(3), np.eye(3)])), grid, key))
        np.testing.assert_allclose(shift, alpha * mean, rtol=1e-14)
        spread = np.array(rows) - shift  # of N(0, I): x -> shift + x @ spread
        full = np.diag(cov) if cov.ndim == 1 else cov
        np.testing.assert_allclose(spread.T @ spread, alpha**2 * full + sigma2 * np.eye(3), rtol=0, atol=1e-14)
        assert (kernel.evals_per_step, kernel.noises_per_step, len(made.stages)) == (0, 0, 2)


def test_the_start_of_given_moments_is_the_same_from_a_diagonal_and_its_matrix(key):
    x, mean, variances = (
        jnp.asarray(np.random.default_rng(6).normal(size=(5, 3))),
        np.arange(3.0),
        np.array([0.1, 2, 5]),
    )
    made = [scheme(shifted, horizon=0.3, langevin_time=0, moments=(mean, c)) for c in (variances, np.diag(variances))]
    one, other = (sample(kernel, x, grid, key) for (kernel, grid), _ in (scheme.stages for scheme in made))
    np.testing.assert_allclose(one, other, rtol=1e-14, atol=1e-15)


def evaluations(run):
    """How often a run calls its score, counted as it executes."""
    calls = []

    def counted(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return -x

    jax.block_until_ready(run(counted))
    jax.effects_barrier()
    return len(calls)


@pytest.mark.parametrize(
    ("correction", "step_size", "n_steps", "langevin", "reversal", "per_step"),
    [
        (0.4, 0.1, 4, "plain", "heun", 2),
        (0.4, 0.15, 3, "underdamped", "rk4", 4),
        (0.4, 1.5, 1, "exponential", "ancestral", 1),
        (0, 0.1, 0, "plain", "heun", 2),
    ],
)
def test_the_evaluations_of_both_parts_are_the_calls_of_the_score(
    correction, step_size, n_steps, langevin, reversal, per_step, key
):
    if correction:
        assert n_steps == math.ceil(correction / step_size - 1e-9)
    options: dict[str, Any] = {
        "horizon": 1.0,
        "langevin_time": correction,
        "step_size": step_size,
        "langevin": langevin,
        "lipschitz": 1.0,
        "moments": ([0.0], [1.0]),  # costs nothing
        "grid": grids.log_snr(1.0, 0.1, 5),
    }
    made = scheme(lambda x, t: -x, reversal=getattr(kernels, reversal)(lambda x, t: -x), **options)
    assert made.evals == (n_steps, 5 * per_step)
    assert made.evals.total == n_steps + 5 * per_step
    assert [kernel.name for kernel, _ in made.stages] == ["gaussian_start", *["langevin"] * (n_steps > 0), reversal]
    assert made.step_size == pytest.approx(correction / n_steps if n_steps else 0, rel=1e-14)

    def run(score):
        method = getattr(kernels, reversal)(score)
        return predict_correct(score, jnp.ones((3, 1)), key, reversal=method, **options)

    assert evaluations(run) == made.evals.total


def test_by_default_the_reversal_is_twenty_steps_of_unipc_down_to_a_thousandth():
    made = scheme(shifted, horizon=2.0, langevin_time=0)
    (kernel, grid), *others = made.stages
    assert (kernel.name, kernel.noises_per_step, others) == ("unipc", 0, [])
    np.testing.assert_array_equal(grid, grids.log_snr(2.0, 1e-3, 20))
    assert (made.step_size, made.evals.langevin, made.evals.reversal) == (0, 0, 20)


# The plain step settles at V/(1 - h/(2V)): 5 % too much at h = 2V (1 - 1/1.05), V = sigma^2 by default.
@pytest.mark.parametrize(("lipschitz", "variance"), [(None, -np.expm1(-1.0)), (4.0, 0.25)])
def test_steps_of_the_default_length_are_equal_and_no_longer_than_allowed(lipschitz, variance):
    made = scheme(shifted, horizon=0.5, langevin_time=1.0, lipschitz=lipschitz)
    longest = 2 * variance * (1 - 1 / 1.05)
    n_steps = math.ceil(1.0 / longest)
    grid = made.stages[0].grid
    np.testing.assert_allclose(grid, np.arange(n_steps, -1, -1) / n_steps, rtol=0, atol=1e-15)
    assert made.evals.langevin == n_steps
    assert made.longest_step == pytest.approx(2 * variance, rel=1e-14)


# 2.1/0.3 is 7.000000000000001, 2.7/0.3 a little above 9; 0.3/0.1 is a little below 3.
@pytest.mark.parametrize(("correction", "step_size", "n_steps"), [(2.1, 0.3, 7), (2.7, 0.3, 9), (0.3, 0.1, 3)])
def test_rounding_adds_no_step(correction, step_size, n_steps):
    made = scheme(shifted, horizon=1.0, langevin_time=correction, step_size=step_size)
    assert made.evals.langevin == n_steps


def test_a_scheme_prints_its_stages_and_costs():
    made = scheme(shifted, horizon=1.0, langevin_time=0.3, step_size=0.1, reversal=kernels.heun(shifted), grid=[1, 0.1])
    assert str(made).splitlines() == [
        "langevin: 3 steps, running time 0.3 to 0",
        "heun: 1 steps, t 1 to 0.1",
        f"Langevin step 0.1 (diverges from {2 * -np.expm1(-2.0):.4g})",
        "3 evaluations at the horizon, 2 in the reversal",
    ]


ELEMENTWISE = targets.gaussian([0.3, -1.0, 2.0], [0.2, 1.0, 0.6]).score
OPTIONS: dict[str, Any] = {
    "horizon": 0.8,
    "langevin_time": 0.35,
    "step_size": 0.1,
    "moments": ([0.1, 0.0, 1.0], [0.5, 0.5, 1.0]),
    "reversal": kernels.exponential_euler(ELEMENTWISE),
    "grid": grids.log_snr(0.8, 0.02, 3),
}


def starting(n):
    return noise.initial(jax.random.key(7), jnp.arange(n), 3)


@pytest.mark.bits
@pytest.mark.parametrize("langevin", ["plain", "underdamped"])
def test_it_is_its_stages_one_after_the_other_each_with_its_own_key(langevin, key):
    x = want = starting(1000)
    assert x.dtype == np.float32
    corrector = kernels.langevin(ELEMENTWISE, 0.8, scheme=langevin)
    stages = [
        (gaussian_start(ELEMENTWISE, 0.8, *OPTIONS["moments"]), np.array([1.0, 0.0])),
        (corrector, np.linspace(0.35, 0, 5)),
        (OPTIONS["reversal"], OPTIONS["grid"]),
    ]
    for i, (kernel, grid) in enumerate(stages):
        want = sample(kernel, want, grid, jax.random.fold_in(key, i))
    got = predict_correct(ELEMENTWISE, x, key, langevin=langevin, **OPTIONS)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)
    if langevin != "plain":
        return
    # From a start that nobody has moved the first key is Langevin's.
    want = sample(corrector, x, np.linspace(0.35, 0, 5), jax.random.fold_in(key, 0))
    want = sample(OPTIONS["reversal"], want, OPTIONS["grid"], jax.random.fold_in(key, 1))
    got = predict_correct(ELEMENTWISE, x, key, langevin=langevin, **{**OPTIONS, "moments": None})
    np.testing.assert_array_equal(got, want)


@pytest.mark.bits
def test_chunks_change_no_bit(key):
    whole = predict_correct(ELEMENTWISE, starting(300), key, **OPTIONS)
    np.testing.assert_array_equal(predict_correct(ELEMENTWISE, starting(300), key, chunk=130, **OPTIONS), whole)


def test_particles_can_come_in_several_calls(key):
    whole = predict_correct(ELEMENTWISE, starting(300), key, **OPTIONS)
    rest = predict_correct(ELEMENTWISE, starting(300)[120:], key, first_particle=120, **OPTIONS)
    np.testing.assert_array_equal(rest, whole[120:])


def test_other_noise_can_be_chosen_and_the_memory_of_the_start_given_up(key):
    x, options = starting(50), {**OPTIONS, "moments": None, "reversal": kernels.ddim(ELEMENTWISE)}
    whole = predict_correct(ELEMENTWISE, x, key, **options)
    assert not np.array_equal(predict_correct(ELEMENTWISE, x, key, noise="jax", **options), whole)
    np.testing.assert_array_equal(predict_correct(ELEMENTWISE, x, key, donate=True, **options), whole)
    assert x.is_deleted()


def test_it_works_inside_jit_vmap_and_grad(key):
    x = jnp.asarray(starting(20), jnp.float64)
    options = {**OPTIONS, "reversal": kernels.ddim(ELEMENTWISE)}
    run = lambda x, key: predict_correct(ELEMENTWISE, x, key, **options)
    plain = run(x, key)
    np.testing.assert_allclose(jax.jit(run)(x, key), plain, rtol=1e-12)
    keys = jax.random.split(key, 3)
    many = jax.vmap(run, in_axes=(None, 0))(x, keys)
    for one, alone in zip(keys, many, strict=True):
        np.testing.assert_allclose(alone, run(x, one), rtol=1e-12)
    # On Gaussian data particles move affinely: the derivative is what a unit further at the start does.
    gradient = jax.grad(lambda x: run(x, key).sum())(x)
    np.testing.assert_allclose(gradient, run(x + 1, key) - plain, rtol=1e-10)


def test_another_horizon_time_step_or_moments_of_the_same_counts_compile_nothing(key):
    traces = []

    def counted(factor, x, t):
        traces.append(t)
        return -factor * x

    def run(horizon, correction, step_size, factor, mean):
        score = Partial(counted, factor)
        return predict_correct(
            score,
            jnp.ones((4, 2)),
            key,
            horizon=horizon,
            langevin_time=correction,
            step_size=step_size,
            moments=(mean, [1.0, 1.0]),
            reversal=kernels.exponential_euler(score),
            grid=grids.log_snr(horizon, 0.01, 6),
        )

    first = run(1.0, 0.4, 0.1, 1.0, [0.0, 0.0])
    once = len(traces)
    second = run(1.2, 0.5, 0.13, 0.9, [0.0, 2.0])
    run(0.7, 0.1, 0.03, 1.1, [1.0, 0.0])
    assert len(traces) == once
    assert not np.array_equal(first, second)


def test_langevin_can_follow_another_score_than_the_reversal():
    limited = scores.truncated(ELEMENTWISE, 0.4)
    made = scheme(ELEMENTWISE, **{**OPTIONS, "moments": None, "langevin": kernels.langevin(limited, 0.8)})
    assert [kernel.score for kernel, _ in made.stages] == [limited, ELEMENTWISE]


def refused(match, **options):
    asked: dict[str, Any] = {"horizon": 1.0, "langevin_time": 0.5} | options
    with pytest.raises(ValueError, match=match) as caught:
        predict_correct(shifted, jnp.ones((2, 1)), jax.random.key(0), **asked)
    assert "\n" not in str(caught.value)


def test_a_step_that_diverges_is_refused_with_the_limit():
    limit = 2 * -np.expm1(-2.0)
    refused(f"diverge: they must be shorter than {limit:.6g}", langevin_time=4.0, step_size=2.0)
    refused("diverge: they must be shorter than 0.5", step_size=0.5, lipschitz=4.0)
    refused(
        "diverge: they must be shorter than", step_size=3.0, langevin_time=9.0, langevin="underdamped", lipschitz=9.0
    )
    corrector = kernels.langevin(shifted, 1.0, scheme="exponential", variance=2.0)
    refused(
        f"diverge: they must be shorter than {-2 * np.log(1 - 2 / 4):.6g}",
        step_size=1.5,
        langevin_time=3.0,
        langevin=corrector,
        lipschitz=2.0,
    )


@pytest.mark.parametrize(
    ("match", "options"),
    [
        (r"both be at the horizon 1: grid\[0\] is 0.9", {"grid": [0.9, 0.1]}),
        (r"both be at the horizon 1: grid\[0\] is 1.1", {"grid": [1.1, 0.1]}),
        ("both be at the horizon 1: the time of langevin is 0.7", {"langevin": kernels.langevin(shifted, 0.7)}),
        (
            "a kernel in OU time, .* the grid of langevin is its own",
            {"reversal": kernels.langevin(shifted, 1.0)},
        ),
        ("langevin_time = -0.1", {"langevin_time": -0.1}),
        ("langevin_time = inf", {"langevin_time": np.inf}),
        ("langevin_time = nan", {"langevin_time": np.nan}),
        ("step_size = 0", {"step_size": 0.0}),
        ("step_size = -0.1", {"step_size": -0.1}),
        ("step_size = nan", {"step_size": np.nan}),
        ("horizon = 50", {"horizon": 50.0}),
        ("horizon = -1", {"horizon": -1.0}),
        ("horizon = 0.0005", {"horizon": 0.0005}),
        ("horizon = nan", {"horizon": np.nan}),
        ("grid must decrease", {"grid": [1.0, 0.5, 0.7]}),
        ("end at a positive time", {"grid": [1.0, 0.5, 0.0]}),
        ("scheme is one of", {"langevin": "other"}),
        ("the kernel is ddim", {"langevin": kernels.ddim(shifted)}),
        ("lipschitz = -2", {"lipschitz": -2.0}),
        (r"they have \(2,\) and \(3,\)", {"moments": (np.zeros(2), np.ones(3))}),
        (r"they have \(2,\) and \(2, 3\)", {"moments": (np.zeros(2), np.ones((2, 3)))}),
        (r"they have \(\) and \(1,\)", {"moments": (0.0, np.ones(1))}),
        (r"they have \(1, 1\) and \(1,\)", {"moments": (np.zeros((1, 1)), np.ones(1))}),
        ("semi-definite: its smallest eigenvalue is -0.1", {"moments": (np.zeros(1), np.array([-0.1]))}),
        ("smallest eigenvalue is -1", {"moments": (np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]))}),
        ("moments must be finite", {"moments": (np.zeros(1), np.array([np.nan]))}),
        ("moments must be finite", {"moments": (np.array([np.inf]), np.ones(1))}),
        ("must be symmetric", {"moments": (np.zeros(2), np.array([[1.0, 0.9], [0.0, 1.0]]))}),
        ("diverge", {"langevin_time": 5.0, "step_size": np.inf}),
        ("x has width 1, the moments have 2: they must agree", {"moments": (np.zeros(2), np.ones(2))}),
        ("x has width 1, the moments have 2: they must agree", {"moments": (np.zeros(2), np.eye(2))}),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_sentence(match, options):
    refused(match, **options)


def test_what_is_no_kernel_is_refused_with_one_that_is():
    with pytest.raises(TypeError, match=r"must come from jaxdiff\.kernels, as kernels\.ddim\(score\) does"):
        inspect.unwrap(scheme)(  # without jaxtyping's own check
            lambda x, t: -x, horizon=1.0, langevin_time=1.0, reversal="ddim"
        )


def test_no_stages_are_refused(key):
    with pytest.raises(ValueError, match=r"one pair \(kernel, grid\) at least: it is empty"):
        sample_in_turn([], jnp.ones((2, 1)), key)


def test_a_scheme_is_said_in_the_clocks_of_its_stages():
    made = scheme(lambda x, t: -x, horizon=1.0, langevin_time=1.0, moments=([0.0], [1.0]))
    first, second, third, *_ = str(made).splitlines()
    assert first == "gaussian_start"
    assert "running time 1 to 0" in second
    assert "t 1 to 0.001" in third
