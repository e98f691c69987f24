"""Exact W2: affine recursions by hand, moments of samples, closed forms of normal laws and of laws on the line."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

from jaxdiff import Sampler, certify_w2, grids, kernels, sample, targets
from jaxdiff.guarantees.exact_w2 import EXACT_W2, Normal, end_law, exact_terms, exact_w2, normal_w2
from jaxdiff.guarantees.line_w2 import map_w2

MEAN, VARIANCE = np.array([0.5, -1.0]), np.array([0.3, 2.0])
LAW = targets.gaussian(MEAN, VARIANCE)
ROTATED = targets.gaussian(MEAN, np.array([[1.0, 0.6], [0.6, 0.5]]))
TWO = targets.mixture([0.3, 0.7], [[-1.0], [1.0]], [[0.05], [0.05]])
GRID = grids.log_snr(3.0, 0.01, 6)
KEY = jax.random.key(3)


def ddim_moments(grid):
    """Means and variances after DDIM with the Gaussian's own score, from N(0, I), coordinate by coordinate."""
    mean, variance = np.zeros(2), np.ones(2)
    for t, t_next in itertools.pairwise(grid):
        alpha, alpha_next = np.exp(-t), np.exp(-t_next)
        sigma, sigma_next = np.sqrt(-np.expm1(-2 * t)), np.sqrt(-np.expm1(-2 * t_next))
        along = sigma / (alpha**2 * VARIANCE + sigma**2)  # the predicted noise is along (x - alpha mean)
        slope = alpha_next / alpha * (1 - sigma * along) + sigma_next * along
        mean = slope * mean + (alpha_next * sigma - sigma_next * alpha) * along * MEAN
        variance = slope**2 * variance
    return mean, variance


def ancestral_moments(grid):
    """The same for ancestral sampling: the law of X_s given X_t and X_0, with X_0 replaced by its prediction."""
    mean, variance = np.zeros(2), np.ones(2)
    for t, t_next in itertools.pairwise(grid):
        alpha, alpha_next, step = np.exp(-t), np.exp(-t_next), np.exp(t_next - t)
        sigma2, sigma2_next, added = -np.expm1(-2 * t), -np.expm1(-2 * t_next), -np.expm1(2 * (t_next - t))
        gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma2)  # E[X_0 | x] = MEAN + gain (x - alpha MEAN)
        of_x, of_data = step * sigma2_next / sigma2, alpha_next * added / sigma2
        slope = of_x + of_data * gain
        mean = slope * mean + of_data * (1 - gain * alpha) * MEAN
        variance = slope**2 * variance + added * sigma2_next / sigma2
    return mean, variance


@pytest.mark.parametrize(("kernel", "moments"), [("ddim", ddim_moments), ("ancestral", ancestral_moments)])
def test_affine_steps_follow_recursions_by_hand(kernel, moments):
    kernel = getattr(kernels, kernel)(LAW.score)
    mean, variance = moments(GRID)
    law = end_law(kernel, GRID, 2)
    np.testing.assert_allclose(law.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(law.cov, np.diag(variance), rtol=1e-10, atol=1e-12)
    distance = np.sqrt(np.sum((mean - MEAN) ** 2 + (np.sqrt(variance) - np.sqrt(VARIANCE)) ** 2))
    assert exact_w2(kernel, GRID, LAW) == pytest.approx(distance, rel=1e-9)


def test_the_distance_from_a_noised_law():
    (mean, variance), t = ddim_moments(GRID), 0.3
    noised = np.exp(-2 * t) * VARIANCE - np.expm1(-2 * t)
    square = np.sum((mean - np.exp(-t) * MEAN) ** 2 + (np.sqrt(variance) - np.sqrt(noised)) ** 2)
    assert exact_w2(kernels.ddim(LAW.score), GRID, LAW, t) == pytest.approx(np.sqrt(square), rel=1e-9)


# Kernels with memory, with several noises and evaluations in a step, and with both.
@pytest.mark.parametrize("name", ["unipc", "sa_solver", "seeds", "heun", "randomized_midpoint"])
def test_the_law_at_the_end_has_the_moments_of_samples(name):
    kernel = getattr(kernels, name)(ROTATED.score)
    law, n = end_law(kernel, GRID, 2), 40_000
    x = np.asarray(sample(Sampler(kernel, GRID), jax.random.normal(jax.random.key(5), (n, 2)), key=KEY))
    error = np.sqrt(np.diag(law.cov) / n)
    assert (abs(x.mean(0) - law.mean) < 5 * error).all()
    spread = np.sqrt((np.outer(np.diag(law.cov), np.diag(law.cov)) + law.cov**2) / n)  # of a normal law's covariance
    assert (abs(np.cov(x.T) - law.cov) < 5 * spread).all()


def test_steps_that_are_not_affine_have_no_law():
    assert end_law(kernels.ddim(TWO.score), GRID, 1) is None


def test_states_that_are_too_large_have_no_law():
    assert end_law(kernels.ddim(lambda x, t: -x), GRID, 513) is None


def test_w2_of_normal_laws_that_do_not_commute():
    one, other = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[1.0, -0.4], [-0.4, 0.3]])
    root = linalg.sqrtm(one)
    square = np.trace(one + other - 2 * np.real(linalg.sqrtm(root @ other @ root))) + 5.0
    found = normal_w2(Normal(np.array([1.0, 2.0]), one), Normal(np.zeros(2), other))
    assert found == pytest.approx(np.sqrt(square), rel=1e-9)


def test_w2_from_a_point_mass_is_a_second_moment():
    cov = np.array([[2.0, 0.9], [0.9, 1.0]])
    found = normal_w2(Normal(np.array([3.0, 0.0]), cov), Normal(np.zeros(2), np.zeros((2, 2))))
    assert found == pytest.approx(np.sqrt(9 + 3), rel=1e-9)


def test_quantiles_of_laws_on_the_line():
    levels = np.linspace(0.01, 0.99, 99)
    normal = targets.gaussian([0.5], [4.0])
    np.testing.assert_allclose(normal.quantiles(levels), stats.norm(0.5, 2).ppf(levels), rtol=1e-9, atol=1e-12)
    points = targets.point_masses(np.array([[-1.0], [2.0]]), np.array([0.3, 0.7]))
    np.testing.assert_allclose(points.quantiles(np.array([0.1, 0.29, 0.31, 0.9])), [-1, -1, 2, 2], atol=1e-9)
    t = 0.4
    law = [stats.norm(np.exp(-t) * m, np.sqrt(np.exp(-2 * t) * 0.05 - np.expm1(-2 * t))) for m in (-1, 1)]
    x = TWO.quantiles(levels, t)
    np.testing.assert_allclose(0.3 * law[0].cdf(x) + 0.7 * law[1].cdf(x), levels, rtol=1e-9)
    assert ROTATED.quantiles is None


# Mass moved from -1 to 1 costs 4 for each unit. A cell of equal probability is 6e-5 wide.
@pytest.mark.parametrize("moved", [1e-6, 1e-4, 0.1])
def test_little_mass_that_goes_to_another_mode_is_seen(moved):
    split = stats.norm.ppf(0.3 + moved)
    found = map_w2(lambda z: np.where(z < split, -1.0, 1.0), lambda levels: np.where(levels < 0.3, -1.0, 1.0))
    assert found == pytest.approx(2 * np.sqrt(moved), rel=0.02)


# z -> |z| is not monotone: the quantiles of |z| are those of z at (1 + level)/2.
@pytest.mark.parametrize(("through", "quantiles"), [
    (lambda z: 0.5 + 2 * z, lambda levels: stats.norm(0.5, 2).ppf(levels)),
    (np.abs, lambda levels: stats.norm.ppf((1 + levels) / 2)),
])  # fmt: skip
def test_the_distance_of_a_law_from_itself_is_zero(through, quantiles):
    assert map_w2(through, quantiles) < 1e-3
    assert map_w2(through, lambda levels: quantiles(levels) + 0.01) == pytest.approx(0.01, rel=1e-3)


def test_w2_on_the_line_has_the_closed_form_of_a_normal_law():
    law = targets.gaussian([0.5], [4.0])
    as_line = targets.Target(**{**vars(law), "cov": None})
    kernel = kernels.ddim(law.score)
    assert exact_w2(kernel, GRID, as_line) == pytest.approx(exact_w2(kernel, GRID, law), rel=1e-6)


# With more steps the end points approach those of the exact ODE. The start keeps a small distance: the particles start
# from N(0, 1), and q_T is another law.
def test_w2_on_the_line_shrinks_with_the_steps():
    few, many = (exact_w2(kernels.unipc(TWO.score), grids.log_snr(5.0, 0.01, n), TWO, t=0.01) for n in (6, 100))
    assert many < 0.02 < few


# A score that is off by a small sine moves the end points little, but its steps are not affine.
def test_a_normal_law_on_the_line_is_compared_by_quantiles_where_steps_are_not_affine():
    law = targets.gaussian([0.5], [4.0])
    bent = kernels.ddim(lambda x, t: law.score(x, t) + 1e-6 * jnp.sin(x))
    assert end_law(bent, GRID, 1) is None
    assert exact_w2(bent, GRID, law) == pytest.approx(exact_w2(kernels.ddim(law.score), GRID, law), rel=1e-3)


def test_noise_on_a_mixture_has_no_exact_distance():
    assert exact_w2(kernels.ancestral(TWO.score), GRID, TWO) is None


def test_a_product_of_normal_laws_has_the_covariance_of_its_blocks():
    np.testing.assert_allclose(targets.product([LAW, LAW]).cov, np.tile(VARIANCE, 2))
    cov = targets.product([LAW, ROTATED]).cov
    np.testing.assert_allclose(cov[:2, :2], np.diag(VARIANCE))
    np.testing.assert_allclose(cov[2:, 2:], [[1.0, 0.6], [0.6, 0.5]], rtol=1e-9)
    assert not cov[:2, 2:].any()
    assert targets.product([TWO, TWO]).cov is None


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_certificate_has_the_exact_distance_below_its_upper_limit(scale):
    found = certify_w2(Sampler(kernels.ddim(LAW.score), GRID), KEY, target=LAW, scale=scale)
    (term,) = [term for term in found.terms if term.name == EXACT_W2]
    mean, variance = ddim_moments(GRID)
    distance = np.sqrt(np.sum((mean - MEAN) ** 2 + (np.sqrt(variance) - np.sqrt(VARIANCE)) ** 2))
    assert term.value == pytest.approx(scale * distance, rel=1e-9)
    assert term.value < found.upper


def test_a_scale_for_each_coordinate_has_no_exact_distance():
    assert exact_terms(kernels.ddim(LAW.score), GRID, LAW, jnp.array([1.0, 2.0])) == []
