"""Posterior denoisers against exact posteriors: normal laws in closed form, mixtures by quadrature, each known bias."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import integrate

from jaxdiff import grids, kernels, sample, scores, targets
from jaxdiff.processes import denoiser_from_score, score_from_denoiser

COV = np.array([[1.5, 0.6, 0.2], [0.6, 0.8, -0.3], [0.2, -0.3, 0.5]])
MEAN = np.array([0.3, -0.5, 1.0])
A = np.array([[1.0, 0.5, -0.2], [0.0, 1.0, 2.0]])
METHODS = {
    "dps": scores.reconstruction_guidance,
    "scaled": lambda *given, **more: scores.reconstruction_guidance(*given, scaled=True, **more),
    "pi_gdm": scores.pi_gdm,
    "tmpd": scores.tmpd,
    "mmps": scores.mmps,
}
each_method = pytest.mark.parametrize("name", METHODS)


def normal_posterior(mean, cov, matrix, y, noise_std):
    """Mean and covariance of X_0 ~ N(mean, cov) given y = A X_0 + noise."""
    gain = cov @ matrix.T @ np.linalg.inv(matrix @ cov @ matrix.T + noise_std**2 * np.eye(len(matrix)))
    return mean + gain @ (y - matrix @ mean), cov - gain @ matrix @ cov


def normal_score(mean, cov, x, t):
    """The score of N(mean, cov) noised to t, by NumPy."""
    noised = np.exp(-2 * t) * cov - np.expm1(-2 * t) * np.eye(len(mean))
    return -np.linalg.solve(noised, (np.asarray(x) - np.exp(-t) * mean).T).T


@jax.jit
def evaluated(function, x, t):
    """A denoiser or score under jit, as a pytree: observations, noise and times of one shape share a program."""
    return function(x, t)


def normal_denoiser(mean, cov):
    return denoiser_from_score(targets.gaussian(mean, cov).score)


@pytest.mark.parametrize("t", [1e-4, 0.1, 0.7, 4.0])
@pytest.mark.parametrize("noise_std", [0.0, 0.05, 1.0])
def test_mmps_is_exact_on_a_normal_law(t, noise_std):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=2)
    score = score_from_denoiser(scores.mmps(normal_denoiser(MEAN, COV), A, y, noise_std=noise_std))
    found = evaluated(score, jnp.asarray(x), t)
    mean, cov = normal_posterior(MEAN, COV, A, y, noise_std)
    np.testing.assert_allclose(found, normal_score(mean, cov, x, t), rtol=1e-6, atol=1e-6 / min(t, 1))


def test_samples_with_mmps_have_mean_and_covariance_of_the_posterior(key):
    y, noise_std = np.array([0.4, -1.0]), 0.3
    score = score_from_denoiser(scores.mmps(normal_denoiser(MEAN, COV), A, y, noise_std=noise_std))
    ends = np.asarray(sample(kernels.unipc(score), jnp.concatenate([jnp.zeros((1, 3)), jnp.eye(3)]),
                             grids.log_snr(8.0, 1e-4, 80), key))  # fmt: skip
    slopes = (ends[1:] - ends[0]).T
    mean, cov = normal_posterior(MEAN, COV, A, y, noise_std)
    np.testing.assert_allclose(ends[0], mean, atol=3e-3)
    np.testing.assert_allclose(slopes @ slopes.T, cov, atol=3e-3)


def test_the_other_methods_are_exact_where_their_assumption_holds():
    x, t, y = np.random.default_rng(1).normal(size=(9, 3)), 0.6, np.array([0.4, 9.0, -1.0])
    keep = np.array([True, False, True])
    for cov, method in (
        (0.7 * np.eye(3), {"pi_gdm": {"data_variance": 0.7}}),
        (np.diag([0.2, 1.0, 2.0]), {"tmpd": {}}),
    ):
        mean, posterior = normal_posterior(MEAN, cov, np.eye(3)[keep], y[keep], 0.2)
        for name, more in method.items():
            found = METHODS[name](normal_denoiser(MEAN, cov), keep, y, noise_std=0.2, **more)
            expected = normal_score(mean, posterior, x, t)
            np.testing.assert_allclose(
                evaluated(score_from_denoiser(found), jnp.asarray(x), t), expected, rtol=1e-9, atol=1e-9
            )


# On the line with A = 1 every method has D_y = k x + (sigma^2/alpha) k (y - k x)/v, k = alpha C/S. The reverse ODE then
# multiplies deviations by exp(-int (1/S - 1 + k^2/v) dt), and the integral of 1/S - 1 is log(S)/2 at the ends.
def line_variance(cov, v):
    """Variance of samples at t = 0 from N(0, 1) at infinity, by quadrature in u = alpha^2, dt = -du/(2 u)."""
    rate = lambda u: u * cov**2 / (1 + u * (cov - 1)) ** 2 / v(u) / (2 * u)
    return cov * np.exp(-2 * integrate.quad(rate, 0, 1)[0])


COV_1, STD_1 = 1.7, 0.8
LIKELIHOODS = {
    "dps": lambda u: STD_1**2,
    "scaled": lambda u: STD_1**2 + (1 - u) / u,
    "pi_gdm": lambda u: STD_1**2 + (1 - u),
    "tmpd": lambda u: STD_1**2 + COV_1 * (1 - u) / (1 + u * (COV_1 - 1)),
}
LIKELIHOODS["mmps"] = LIKELIHOODS["tmpd"]


@each_method
def test_samples_on_the_line_have_the_variance_of_the_method(name, key):
    score = score_from_denoiser(METHODS[name](normal_denoiser([0.0], [COV_1]), np.ones((1, 1)), [0.5], noise_std=STD_1))
    ends = np.asarray(sample(kernels.unipc(score), jnp.asarray([[0.0], [1.0]]), grids.log_snr(8.0, 1e-5, 300), key))
    found = float((ends[1, 0] - ends[0, 0]) ** 2)
    assert found == pytest.approx(line_variance(COV_1, LIKELIHOODS[name]), rel=1e-3)
    exact = COV_1 / (1 + COV_1 / STD_1**2)
    ratio = found / exact
    expected = {"dps": ratio < 0.5, "scaled": ratio > 1.1, "pi_gdm": ratio < 0.999}
    assert expected.get(name, ratio == pytest.approx(1, rel=1e-3)), ratio


def test_the_variance_of_dps_has_a_closed_form():
    assert line_variance(COV_1, LIKELIHOODS["dps"]) == pytest.approx(COV_1 * np.exp(-COV_1 / STD_1**2), rel=1e-10)


# Two equal coordinates with correlation rho: the row sum is the variance along (1, 1), and is used along (1, -1) too.
def test_tmpd_uses_the_variance_along_the_sum_for_the_difference(key):
    rho, std = 0.6, 0.5
    denoiser = normal_denoiser([0.0, 0.0], [[1.0, rho], [rho, 1.0]])
    score = score_from_denoiser(scores.tmpd(denoiser, np.eye(2), [0.0, 0.0], noise_std=std))
    starts = jnp.asarray([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2)
    ends = sample(kernels.unipc(score), starts, grids.log_snr(8.0, 1e-5, 300), key)
    row_sum = lambda u: std**2 + (1 + rho) * (1 - u) / (1 + u * rho)
    expected = [line_variance(1 + rho, row_sum), line_variance(1 - rho, row_sum)]
    np.testing.assert_allclose(np.sum(np.asarray(ends) ** 2, axis=1), expected, rtol=2e-3)
    assert expected[1] > 1.05 * (1 - rho) / (1 + (1 - rho) / std**2)


WEIGHTS, MEANS = np.array([0.4, 0.6]), np.array([[-1.0, 0.3], [0.8, -0.4]])
COVS = np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.15, -0.05], [-0.05, 0.4]]])
ROW, SEEN, STD = np.array([[0.8, -0.5]]), 0.4, 0.3


def quadrature_score(x, t, weigh=True):
    """The score of q_t given y at one point x, by the trapezium rule over X_0 in the plane."""
    side = np.linspace(-5, 5, 241)
    z = np.stack(np.meshgrid(side, side, indexing="ij"), -1)
    density = 0.0
    for weight, mean, cov in zip(WEIGHTS, MEANS, COVS, strict=True):
        off = z - mean
        form = np.einsum("...i,ij,...j", off, np.linalg.inv(cov), off)
        density = density + weight * np.exp(-form / 2) / np.sqrt(np.linalg.det(cov))
    if weigh:
        density = density * np.exp(-((z @ ROW[0] - SEEN) ** 2) / (2 * STD**2))
    alpha, variance = np.exp(-t), -np.expm1(-2 * t)
    density = density * np.exp(-np.sum((x - alpha * z) ** 2, -1) / (2 * variance))
    mean = np.einsum("ij,ijk->k", density, z) / density.sum()
    return (alpha * mean - x) / variance


def relative_errors(t):
    """The relative rms error of each method's score at points of q_t given y, against quadrature."""
    law = targets.mixture(WEIGHTS, MEANS, COVS)
    x = np.random.default_rng(3).normal(size=(12, 2)) * [0.7, 0.7]
    exact = np.array([quadrature_score(row, t) for row in x])
    denoiser, errors = denoiser_from_score(law.score), {}
    for name, method in METHODS.items():
        found = evaluated(score_from_denoiser(method(denoiser, ROW, [SEEN], noise_std=STD)), jnp.asarray(x), t)
        errors[name] = float(np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)))
    plain = np.array([quadrature_score(row, t, weigh=False) for row in x])
    np.testing.assert_allclose(law.score(jnp.asarray(x), t), plain, rtol=1e-6, atol=1e-6)  # the quadrature is exact
    return errors


def test_on_a_mixture_mmps_has_the_least_error_against_quadrature_and_every_error_falls_to_zero():
    late, middle, early = (relative_errors(t) for t in (0.02, 0.2, 0.8))
    assert middle["mmps"] < 0.2
    assert all(middle["mmps"] <= middle[name] * 1.001 for name in METHODS)
    assert middle["dps"] > 3 * middle["mmps"]
    assert all(late[name] < middle[name] / 3 for name in METHODS)
    assert early["dps"] > 10 * early["mmps"]


@pytest.mark.parametrize(  # DPS divides by noise_std^2
    ("name", "noise_std"), [(name, std) for name in METHODS for std in (0.0, 1e-6, 0.1) if name != "dps" or std > 1e-3]
)
@pytest.mark.parametrize("t", [1e-8, 1e-4, 1.0, 12.0])
def test_nothing_overflows_in_float32(name, t, noise_std):
    keep = np.array([True, False, True])
    found = METHODS[name](normal_denoiser(MEAN, COV), keep, [0.3, np.nan, -1.0], noise_std=noise_std)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    out = evaluated(found, x, jnp.float32(t))
    assert out.dtype == jnp.float32
    assert bool(jnp.isfinite(out).all())
    if noise_std == 0 and name == "mmps":
        if t < 8:  # later, the Jacobian of this denoiser has no correct digit in float32, and counts as 0
            np.testing.assert_allclose(np.asarray(out)[:, [0, 2]], [[0.3, -1.0]] * 5, atol=2e-3)
        else:
            assert np.abs(out).max() < 3


@each_method
def test_masks_matrices_functions_and_pairs_agree(name):
    keep = np.array([[True, False], [True, True]])
    matrix = np.eye(4)[keep.ravel()]
    y = np.random.default_rng(2).normal(size=(5, 2, 2))
    x = jnp.asarray(np.random.default_rng(3).normal(size=(5, 2, 2)))
    observe = lambda x: x.reshape(-1)[np.flatnonzero(keep)]
    spread = lambda y: jnp.zeros(4, y.dtype).at[np.flatnonzero(keep)].set(y).reshape(2, 2)
    denoiser = Partial(lambda x, t: jnp.tanh(x + x[..., ::-1, :] / 2) / 2)
    operators = [scores.linear_map(matrix, event=(2, 2)), scores.linear_map(observe, event=(2, 2)),
                 scores.linear_map((observe, spread), event=(2, 2))]  # fmt: skip
    expected = evaluated(METHODS[name](denoiser, keep, y, noise_std=0.4), x, 0.5)
    rows = y.reshape(5, 4)[:, keep.ravel()]
    for operator in operators:
        np.testing.assert_allclose(
            evaluated(METHODS[name](denoiser, operator, rows, noise_std=0.4), x, 0.5), expected, rtol=1e-9
        )
    one = METHODS[name](denoiser, keep, y[3], noise_std=0.4)(x[3:4], 0.5)
    np.testing.assert_allclose(one, expected[3:4], rtol=1e-9)
    third = METHODS[name](denoiser, keep, None, noise_std=0.4)(x, 0.5, jnp.asarray(y))
    np.testing.assert_allclose(third, expected, rtol=1e-12)


@each_method
def test_another_observation_recompiles_nothing(name):
    traces = []

    def traced(x, t):
        traces.append(1)
        return 0.5 * x

    run = jax.jit(lambda denoiser: denoiser(jnp.ones((4, 3)), 0.3))
    values = [run(METHODS[name](traced, A, y, noise_std=std)) for y, std in (([1.0, 2.0], 0.3), ([0.0, 5.0], 0.4))]
    once = len(traces)
    run(METHODS[name](traced, A, [3.0, 3.0], noise_std=0.7))
    assert len(traces) == once
    assert not np.allclose(*values)


def test_a_jacobian_without_curvature_gives_finite_values():
    denoiser = Partial(lambda x, t: -x * jnp.asarray([1.0, 0.0, 2.0], x.dtype))
    for name in ("mmps", "tmpd"):
        out = METHODS[name](denoiser, np.eye(3), [1.0, 2.0, 3.0], noise_std=0.0)(jnp.ones((2, 3)), 0.5)
        assert bool(jnp.isfinite(out).all())


# D = x (0.9, -nu) with nu such that the second direction's covariance cancels the noise but for a millionth: a step
# along it would have a length of a million. The first direction alone has the closed form of the line.
def test_a_negative_covariance_does_not_cancel_the_noise():
    t, std = 0.5, 0.4
    factor = -np.expm1(-2 * t) / np.exp(-t)
    nu = std**2 / factor * (1 - 1e-6)
    denoiser = Partial(lambda x, t: x * jnp.asarray([0.9, -nu], x.dtype))
    x = jnp.asarray([[0.3, -0.2]])
    plain = np.asarray(denoiser(x, t))
    out = scores.mmps(denoiser, np.eye(2), plain + np.array([[0.0, 0.7]]), noise_std=std)(x, t)
    np.testing.assert_allclose(out, plain, atol=1e-12)
    out = scores.mmps(denoiser, np.eye(2), plain + np.array([[0.7, 0.0]]), noise_std=std)(x, t)
    gain = factor * 0.9 / (std**2 + factor * 0.9)
    np.testing.assert_allclose(out, plain + np.array([[gain * 0.7, 0.0]]), atol=1e-12)
    out = scores.mmps(denoiser, np.eye(2), plain + np.array([[0.7, 0.7]]), noise_std=std)(x, t)
    assert np.abs(out - plain).max() < 2


@pytest.mark.parametrize(
    ("operator", "y", "more", "message"),
    [
        (A, [1.0], {}, "y must end with the observation's axes"),
        (A, [1.0, 2.0], {"noise_std": -1.0}, "noise_std must be one number"),
        (np.ones(3), [1.0], {}, r"a matrix must be \(m, d\)"),
        (lambda x: x, [1.0], {}, "needs the shape of its events"),
        (A, [1.0, 2.0], {"iterations": 0}, "iterations must be a whole number"),
    ],
)
def test_what_does_not_fit_is_refused(operator, y, more, message):
    with pytest.raises(ValueError, match=message):
        scores.mmps(Partial(lambda x, t: x), operator, y, **({"noise_std": 0.1} | more))


def test_a_function_that_is_not_linear_is_refused():
    with pytest.raises(TypeError, match="operator must be linear in its event"):
        scores.linear_map(lambda x: x**2, event=(3,))


def test_dps_without_noise_is_refused():
    with pytest.raises(ValueError, match=r"DPS divides by noise_std\^2"):
        scores.reconstruction_guidance(Partial(lambda x, t: x), A, [1.0, 2.0], noise_std=0.0)


MATRIX = jnp.asarray(np.random.default_rng(5).normal(size=(3, 4)), jnp.float32)
WRONG = {
    "scaled": lambda y: 1.02 * (y @ MATRIX),
    "another": lambda y: y @ MATRIX[::-1],
    "with a constant": lambda y: y @ MATRIX + 0.3,
    "too little": lambda y: (y @ MATRIX).at[0].set(0),
    "not finite": lambda y: y @ MATRIX * jnp.nan,
    "of another shape": lambda y: (y @ MATRIX)[:2],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_function_that_is_not_the_transpose_is_refused(name):
    scores.linear_map((lambda x: MATRIX @ x, lambda y: y @ MATRIX), event=(4,))
    with pytest.raises(ValueError, match="must be the transpose of the first"):
        scores.linear_map((lambda x: MATRIX @ x, WRONG[name]), event=(4,))


def test_a_rotation_is_not_its_own_transpose_and_traced_pairs_are_not_checked():
    turn = lambda x: jnp.stack([-x[1], x[0]])
    back = lambda y: jnp.stack([y[1], -y[0]])
    scores.linear_map((turn, back), event=(2,))
    with pytest.raises(ValueError, match="must be the transpose of the first"):
        scores.linear_map((turn, turn), event=(2,))
    made = lambda size: scores.linear_map((lambda x: size * x, lambda y: size * y), event=(2,)).forward(jnp.ones(2))
    np.testing.assert_array_equal(jax.jit(made)(3.0), [3.0, 3.0])
