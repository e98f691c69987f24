"""scores.guided against closed forms of normal laws: the field, reverse ODE and SDE, the certificate in W2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import integrate

import jaxdiff
from jaxdiff import grids, kernels, noise, sample, scores, targets
from jaxdiff.processes import denoiser_from_score, score_from_denoiser

NARROW, WIDE = 0.3, 1.8  # variances of the conditional and the unconditional law
HORIZON, EARLY_STOP = 6.0, 1e-3


def normal_score(variance, x, t):
    return -x / (1 + (variance - 1) * jnp.exp(jnp.asarray(-2 * t, x.dtype)))


def of_rows(score):
    """The score with a time for each row."""
    return Partial(lambda x, t: jax.vmap(score)(x, t))


conditional, unconditional = Partial(normal_score, NARROW), Partial(normal_score, WIDE)


def variance_at(variance, t):
    return 1 + (variance - 1) * np.exp(-2 * t)


def slope_of(kernel, grid, key):
    """The factor of a linear ODE kernel from the start to the end of a grid."""
    return float(sample(kernel, jnp.ones((1, 1)), grid, key)[0, 0])


def exact_slope(weight, start, end):
    """dx/dt = (P - 1) x with P = w/S_c + (1 - w)/S_u, (1/S - 1) dt = d log S/2: x^2 grows like S_c^w S_u^(1-w)."""
    ratio = lambda variance: variance_at(variance, end) / variance_at(variance, start)
    return ratio(NARROW) ** (weight / 2) * ratio(WIDE) ** ((1 - weight) / 2)


@pytest.mark.parametrize("weight", [0, 0.5, 1, 1.0, 2.5, -1])
def test_the_guided_score_of_normal_laws_has_the_weighted_precision(weight):
    x, t = jnp.asarray([[0.7], [-1.3]]), 0.4
    precision = weight / variance_at(NARROW, t) + (1 - weight) / variance_at(WIDE, t)
    np.testing.assert_allclose(scores.guided(conditional, unconditional, weight)(x, t), -precision * x, rtol=1e-12)


def test_guided_denoisers_are_the_denoisers_of_guided_scores():
    x, t = jnp.asarray([[0.7], [-1.3]]), 0.4
    denoiser = scores.guided(denoiser_from_score(conditional), denoiser_from_score(unconditional), 2.5)
    expected = scores.guided(conditional, unconditional, 2.5)(x, t)
    np.testing.assert_allclose(score_from_denoiser(denoiser)(x, t), expected, rtol=1e-12)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_the_reverse_ode_gives_the_geometric_mean_of_variances_and_not_the_tilted_law(weight, key):
    grid = grids.log_snr(HORIZON, EARLY_STOP, 200)
    slope = slope_of(kernels.unipc(scores.guided(conditional, unconditional, weight)), grid, key)
    assert slope == pytest.approx(exact_slope(weight, HORIZON, EARLY_STOP), rel=1e-5)
    assert slope**2 == pytest.approx(NARROW**weight * WIDE ** (1 - weight), rel=0.02)
    assert abs(slope**2 * (weight / NARROW + (1 - weight) / WIDE) - 1) > 0.15


# Reverse SDE: dV/dtau = 2 (1 - 2 P) V + 2; its factor from t' to t is e^(t - t') G(t)/G(t'), G = S_c^w S_u^(1-w).
def test_ancestral_samples_have_the_variance_of_the_reverse_sde(key):
    weight, n = 2.0, 50_000  # the weak error of 700 steps is about 1.6 %
    growth = lambda t: variance_at(NARROW, t) ** weight * variance_at(WIDE, t) ** (1 - weight)
    factor = lambda s: np.exp(EARLY_STOP - s) * growth(EARLY_STOP) / growth(s)
    expected = factor(HORIZON) ** 2 + 2 * integrate.quad(lambda s: factor(s) ** 2, EARLY_STOP, HORIZON)[0]
    kernel = kernels.ancestral(scores.guided(conditional, unconditional, weight))
    start = noise.initial(key, jnp.arange(n), 1)
    found = float(jnp.var(sample(kernel, start, grids.log_snr(HORIZON, EARLY_STOP, 700), key)))
    assert found == pytest.approx(expected, rel=5 * np.sqrt(2 / n) + 0.01)
    ode, tilted = exact_slope(weight, HORIZON, EARLY_STOP) ** 2, 1 / (weight / NARROW + (1 - weight) / WIDE)
    assert min(abs(found / ode - 1), abs(found / tilted - 1)) > 0.05


def test_outside_the_interval_the_weight_is_one(key):
    low, high, weight = 0.2, 1.1, 3.0
    guided = scores.guided(conditional, unconditional, weight, interval=(low, high))
    grid = np.concatenate([np.linspace(a, b, 150)[:-1] for a, b in ((3, high), (high, low), (low, 0.01))] + [[0.01]])
    expected = exact_slope(1, 3, high) * exact_slope(weight, high, low) * exact_slope(1, low, 0.01)
    assert slope_of(kernels.heun(guided), grid, key) == pytest.approx(
        expected, rel=6e-3
    )  # a step across an end has either weight
    assert abs(exact_slope(weight, 3, 0.01) / expected - 1) > 0.1
    x, times = jnp.ones((3, 1)), jnp.asarray([0.1, 0.5, 2.0])
    each = [float(guided(x[:1], t)[0, 0]) for t in times]
    rows = scores.guided(of_rows(conditional), of_rows(unconditional), weight, interval=(low, high))
    np.testing.assert_allclose(rows(x, times)[:, 0], each, rtol=1e-12)


@pytest.mark.parametrize(
    ("weight", "interval", "t", "expected"),
    [
        (1, None, 0.5, 0),
        (1.0, None, 0.5, 0),
        (2.0, None, 0.5, 1),
        (np.float64(1), None, 0.5, 1),
        (2.0, (0.2, 1.0), 0.5, 1),
        (2.0, (0.2, 1.0), 1.5, 0),
    ],
)
def test_the_unconditional_score_is_evaluated_only_where_it_counts(weight, interval, t, expected):
    calls = []

    def counted(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return unconditional(x, t)

    guided = scores.guided(conditional, counted, weight, interval=interval)
    jax.block_until_ready(jax.jit(guided)(jnp.ones((2, 1)), t))
    jax.effects_barrier()
    assert len(calls) == expected


def test_another_weight_or_interval_recompiles_nothing():
    traces = []

    def traced(x, t):
        traces.append(1)
        return -x

    guided = lambda weight, ends: scores.guided(conditional, traced, weight, interval=ends)
    run = jax.jit(lambda score: score(jnp.ones((2, 1)), 0.5))
    first, second = run(guided(1.5, (0.1, 1.0))), run(guided(3.0, (0.2, np.inf)))
    assert len(traces) == 1
    assert not np.allclose(first, second)


def test_a_traced_weight_and_its_gradient():
    at = lambda weight: scores.guided(conditional, unconditional, weight)(jnp.ones((1, 1)), 0.5).sum()
    difference = conditional(jnp.ones((1, 1)), 0.5) - unconditional(jnp.ones((1, 1)), 0.5)
    assert float(jax.grad(at)(jnp.asarray(1.7))) == pytest.approx(float(difference[0, 0]), rel=1e-12)


# DDIM is linear here: the distance of coupled particles from N(0, 1) is the difference of two factors.
def test_the_certificate_in_w2_covers_the_known_coupling_error(key):
    grid, weight = grids.log_snr(HORIZON, EARLY_STOP, 12), 2.0
    kernel = kernels.ddim(scores.guided(conditional, unconditional, weight))
    exact = abs(slope_of(kernel, grid, key) - exact_slope(weight, HORIZON, EARLY_STOP))
    certificate = jaxdiff.certify_w2(jaxdiff.Sampler(kernel, grid), key, dim=1, particles=4096)
    term = next(term for term in certificate.terms if term.name == "discretisation")
    assert term.value == pytest.approx(exact, rel=0.06)
    assert term.value - 2 * term.half_width_below(0.95) <= exact <= term.value + 2 * term.half_width_above(0.95)


@pytest.mark.slow
def test_a_plan_in_w2_takes_a_guided_score(key):
    rows = np.asarray(targets.gaussian([0.0], [NARROW]).sample(key, 64))
    guided = scores.guided(conditional, unconditional, 2.0, interval=(0.05, 2.0))
    plan = jaxdiff.plan(evals=6, metric="w2", score=guided, rows=rows, early_stop=0.01)
    found = sample(plan.sampler(guided), noise.initial(key, jnp.arange(50), 1), key=key)
    assert plan.evals <= 6
    assert bool(jnp.isfinite(found).all())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_dtype_stays(dtype):
    x = jnp.ones((3, 1), dtype)
    cast = Partial(lambda x, t: (-x).astype(x.dtype))
    for interval in (None, (0.1, 1.0)):
        assert scores.guided(cast, cast, 2.0, interval=interval)(x, 0.5).dtype == dtype


@pytest.mark.parametrize("weight", [np.inf, np.nan])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match="weight must be one finite number"):
        scores.guided(conditional, unconditional, weight)


@pytest.mark.parametrize("interval", [(1.0, 0.5), (-0.1, 1.0), (0.5,), (0.1, np.nan)])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ValueError, match=r"interval must be two OU times \(t_low, t_high\)"):
        scores.guided(conditional, unconditional, 2.0, interval=interval)


def test_guidance_without_an_unconditional_score_is_refused():
    with pytest.raises(TypeError):
        scores.guided(conditional, None, 2.0)
