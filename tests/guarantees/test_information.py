"""Path KL from one curve: the published numbers, direct quadrature, measured excess, bounds between the kernels."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from jaxdiff import grids, information, kernels, targets
from jaxdiff.curves import Curve, loss_curve
from jaxdiff.guarantees.bounds import from_nodes
from jaxdiff.guarantees.path_kl import level_samples, path_kl, path_kl_error, path_kl_samples, standard_error
from jaxdiff.guarantees.step_cost import step_cost
from jaxdiff.processes import denoiser_from_score, ou

G = grids.exponential_then_uniform(3, 0.01, 36, n_uniform=12)
COIN = targets.point_masses([[-1.0], [1.0]]).mmse
NAMES = ["exponential_euler", "ancestral", "moment_matched"]


@pytest.mark.parametrize(("g", "expected"), [(0.1, 0.00967483607191899), (1.0, 0.7357588823428847)])
def test_one_exponential_euler_step_costs_the_closed_form_on_the_standard_normal(g, expected):
    assert path_kl("exponential_euler", targets.gaussian([0.0], [1.0]).mmse, [2.0, 2.0 - g]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("variance", "name", "expected"),
    [
        (0.0, "exponential_euler", 0.677362248468),
        (0.0, "ancestral", 0.0),
        (0.0, "moment_matched", 0.0),
        (0.25, "exponential_euler", 0.4980308667979),
        (0.25, "ancestral", 0.08895955067503),
        (0.25, "moment_matched", 0.0),
        (1.0, "exponential_euler", 0.4072862032454),
        (1.0, "ancestral", 0.1665760199465),
    ],
)
def test_path_kl_on_gaussians_is_the_published_number(variance, name, expected):
    got = path_kl(name, targets.gaussian([0.0], [variance]).mmse, G)
    assert got == pytest.approx(expected, rel=2e-12, abs=1e-13)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exponential_euler", 0.5764563),
        ("ancestral", 0.0884753),
        ("moment_matched", 0.0529774),
        ("covariance_matched", 0.0102870),
    ],
)
def test_path_kl_on_two_points_is_the_published_number(name, expected):
    assert path_kl(name, COIN, G) == pytest.approx(expected, abs=5e-8)


@pytest.mark.parametrize(("n_steps", "expected"), [(12, 0.0596963), (36, 0.0102870), (72, 0.0030725)])
def test_path_kl_of_covariance_matching_falls_as_published(n_steps, expected):
    grid = grids.exponential_then_uniform(3, 0.01, n_steps, n_uniform=n_steps // 3)
    assert path_kl("covariance_matched", COIN, grid) == pytest.approx(expected, abs=5.1e-8)


def test_information_of_two_points_is_the_published_number_and_below_log_two():
    got = information.information_gain(COIN, 3, 0.01)
    assert got == pytest.approx(0.691906265876, abs=1e-12)
    assert got < np.log(2)


@pytest.mark.parametrize(("t", "expected"), [(0.05, 10.193794435), (0.3, 1.17320711481), (1.0, 1.00024364663)])
def test_fisher_information_of_two_points_is_the_published_number(t, expected):
    assert information.fisher_information(COIN, t) == pytest.approx(expected, abs=5e-10)


def test_initial_kl_less_the_information_is_the_published_exact_value():
    for variance, expected in ((0.0, 1.538596146585e-6), (0.25, 8.651022154569e-7)):
        law = targets.gaussian([0.0], [variance])
        told = 0.5 * np.log1p(ou.snr(3.0) * variance)  # I(X_0; X_3) of a Gaussian
        assert information.initial_kl(law.second_moment, 1, 3.0) - told == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("name", "n_steps", "expected"),
    [
        *(("ancestral", n, kl) for n, kl in ((5, 0.4909), (10, 0.1938), (20, 0.0862), (36, 0.0457))),
        *(("moment_matched", n, kl) for n, kl in ((5, 0.1820), (10, 0.0850), (20, 0.0409), (36, 0.0228))),
        *(("covariance_matched", n, kl) for n, kl in ((5, 0.0809), (10, 0.0256))),
    ],
)
def test_optimal_grids_reach_the_published_path_kl(name, n_steps, expected):
    cost = step_cost(name, COIN)
    grid = grids.optimal(cost, 3, 0.01, n_steps, n_candidates=241, polish=False)
    assert path_kl(name, COIN, grid) == pytest.approx(expected, abs=5.1e-5)
    polished = grids.optimal(cost, 3, 0.01, n_steps, n_candidates=241)
    assert 0.95 * expected < path_kl(name, COIN, polished) <= path_kl(name, COIN, grid)


def test_frontier_of_covariance_matching_is_the_published_one():
    reached = grids.frontier(step_cost("covariance_matched", COIN), 3, 0.01, 80, n_candidates=241)
    np.testing.assert_allclose(reached[[19, 39, 79]], [0.00786, 0.00234, 0.00066], atol=5.1e-6)


def test_covariance_matching_costs_nothing_on_a_gaussian_and_refuses_curves_without_its_term():
    law = targets.gaussian([0.0, 0.0], [[1.0, 0.6], [0.6, 0.5]])
    assert path_kl("covariance_matched", law.mmse, G) == pytest.approx(0, abs=1e-13)
    with pytest.raises(ValueError, match="log_det"):
        path_kl("covariance_matched", lambda snr: 1 / (1 + snr), G, dim=1)


@pytest.mark.parametrize(
    ("name", "expected"), [("exponential_euler", 1.688), ("ancestral", 0.491), ("moment_matched", 0.257)]
)
def test_log_snr_grids_reach_the_published_path_kl(name, expected):
    assert path_kl(name, COIN, grids.log_snr(3, 0.01, 10)) == pytest.approx(expected, abs=5.1e-4)


LAWS = {
    "gaussian": ([1.0], [0.3], [0.25]),
    "two points": ([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0]),
    "unequal points": ([0.2, 0.8], [-1.0, 0.5], [0.0, 0.0]),
    "two modes": ([0.4, 0.6], [-1.0, 1.2], [0.2, 0.05]),
    "wide and narrow": ([0.5, 0.5], [0.0, 0.0], [1.5, 0.2]),
    "atom in a cloud": ([0.3, 0.7], [1.0, 0.0], [0.0, 0.6]),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("law", LAWS)
def test_path_kl_equals_direct_two_time_quadrature(law, name):
    weights, means, variances = (np.array(part) for part in LAWS[law])
    curve = targets.mixture(weights, means[:, None], variances[:, None]).mmse
    grid = np.array([1.6, 0.7, 0.25, 0.12])
    assert path_kl(name, curve, grid) == pytest.approx(
        oracles.path_kl(name, (weights, means, variances), grid), rel=1e-10, abs=1e-10
    )


# The marginal law of the sampler's own chain, by Chapman-Kolmogorov on a fine lattice with the kernel's step.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_steps", "expected"),
    [
        ("exponential_euler", 36, 9.6474e-3),
        ("ancestral", 36, 7.9437e-4),
        ("moment_matched", 36, 5.5605e-4),
        ("covariance_matched", 12, 1.72e-3),
        ("covariance_matched", 36, 3.74e-5),
        ("covariance_matched", 72, 3.48e-6),
    ],
)
def test_marginal_kl_on_two_points_is_the_published_number(name, n_steps, expected):
    grid = grids.exponential_then_uniform(3, 0.01, n_steps, n_uniform=n_steps // 3)
    law = targets.point_masses([[-1.0], [1.0]])
    kernel = getattr(kernels, name)(law.score, *((law.mmse,) if name == "moment_matched" else ()))
    lattice = np.linspace(-7, 7, 3501)
    cell, x = lattice[1] - lattice[0], jnp.asarray(lattice)[:, None]
    density = np.exp(-(lattice**2) / 2) / np.sqrt(2 * np.pi)
    table = kernel.coefficients(grid)
    for k in range(n_steps):
        row = jax.tree.map(lambda column, k=k: jnp.asarray(column[k]), table)
        means = np.asarray(kernel.step(kernel.score, x, row, jnp.zeros_like(x)))[:, 0]
        spread = np.asarray(kernel.step(kernel.score, x, row, jnp.ones_like(x)))[:, 0] - means
        weighted = density * cell / (np.sqrt(2 * np.pi) * spread)
        density = sum(
            np.exp(-((lattice[:, None] - means[part]) ** 2) / (2 * spread[part] ** 2)) @ weighted[part]
            for part in np.array_split(np.arange(len(lattice)), 20)
        )
    exact = oracles.mixture_density((np.array([0.5, 0.5]), np.array([-1.0, 1.0]), np.zeros(2)), lattice, 0.01)
    inside = exact > 1e-300
    kl = cell * np.sum(exact[inside] * np.log(exact[inside] / density[inside]))
    assert kl == pytest.approx(expected, rel=1e-3 if name != "covariance_matched" else 2e-3)  # printed to three digits
    assert kl <= path_kl(name, law.mmse, grid)


# Held-out losses of a wrong denoiser: what they say of the path KL must be what paired forward samples say.
def wrong_denoiser(x, t):
    return 0.8 * ou.alpha(t) * x + 0.1 * jnp.sin(x)


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """A Gaussian mixture by NumPy alone: weights (K,), means (K, d), variances (K, d)."""

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    @property
    def dim(self):
        return self.means.shape[1]

    def parts(self, x, t):
        total = np.exp(-2 * np.asarray(t))[..., None] * self.variances - np.expm1(-2 * np.asarray(t))[..., None]
        residual = x[:, None] - np.exp(-np.asarray(t))[..., None] * self.means
        return np.log(self.weights) - 0.5 * np.sum(
            residual**2 / total + np.log(2 * np.pi * total), -1
        ), -residual / total

    def log_density(self, x, t):
        return special.logsumexp(self.parts(x, t)[0], axis=1)

    def score(self, x, t):
        log_parts, pulls = self.parts(x, t)
        return np.einsum("nk,nkd->nd", special.softmax(log_parts, axis=1), pulls)

    def sample(self, rng, n):
        label = rng.choice(len(self.weights), n, p=self.weights)
        return self.means[label] + np.sqrt(self.variances[label]) * rng.standard_normal((n, self.dim))


RNG = np.random.default_rng(7)
PAIRED_LAWS = {
    "gaussian in d = 3": Mixture(np.ones(1), np.zeros((1, 3)), np.linspace(0.5, 1.5, 3)[None]),
    "mixture in d = 16": Mixture(
        np.array([0.5, 0.3, 0.2]), 0.7 * RNG.standard_normal((3, 16)), RNG.uniform(0.1, 0.6, (3, 16))
    ),
}
# Rows of the curve, rows where their log det is measured too, and pairs. The path KL of the Gaussian is smaller beside
# the noise of its rows, so that it takes more of them.
DRAWS = {"gaussian in d = 3": (30_000, 4096, 50_000), "mixture in d = 16": (8000, 1024, 20_000)}


PATHS = (*NAMES, "per direction", "covariance_matched")
IN_16 = [pytest.param("mixture in d = 16", name, marks=pytest.mark.slow) for name in PATHS if name != "ancestral"]


@pytest.mark.parametrize(
    ("law", "name"), [*(("gaussian in d = 3", name) for name in PATHS), ("mixture in d = 16", "ancestral"), *IN_16]
)
def test_measured_path_kl_of_a_wrong_denoiser_agrees_with_paired_forward_samples(law, name):
    (n, n_log_det, n_pairs), law, grid, rng = (
        DRAWS[law],
        PAIRED_LAWS[law],
        np.array([1.5, 0.8, 0.4, 0.25]),
        np.random.default_rng(0),
    )
    ends = {"horizon": 1.5, "early_stop": 0.25, "n_nodes": 31}
    basis = np.linalg.qr(rng.standard_normal((law.dim, law.dim)))[0] if name == "per direction" else None
    products, n = (law.dim, n_log_det) if name == "covariance_matched" else (None, n)
    curve = loss_curve(
        wrong_denoiser, law.sample(rng, n), jax.random.key(2), **ends, basis=basis, products=products, n_noises=1
    )
    one = lambda snr: 0.7 / (1 + 0.7 * snr) * np.linspace(0.5, 1.5, law.dim).reshape(-1, *(1,) * np.ndim(snr))
    tau = Curve(lambda snr: one(snr).sum(0), law.dim, directions=lambda snr: np.moveaxis(one(snr), 0, -1), basis=basis)
    kernel = "moment_matched" if basis is not None else name
    options = {"matched": tau, "basis": basis}
    samples = path_kl_samples(kernel, curve, grid, **options)
    levels = level_samples(curve, grid)
    levels = np.array([levels[g :: len(samples)].mean() for g in range(len(samples))])
    gains = _gains(law)
    absolute = path_kl(kernel, curve, grid, **options) + level_samples(curve, grid).mean() - np.mean(gains)
    paired, paired_error = _paired(name, law, grid, tau, basis, n_pairs)
    error = np.sqrt(standard_error(samples + levels) ** 2 + standard_error(gains) ** 2 + paired_error**2)
    assert abs(absolute - paired) < 5 * error
    assert error < (0.25 if products else 0.1) * paired  # log det is of fewer rows


@functools.cache
def _gains(law):
    told = targets.mixture(law.weights, law.means, law.variances).mmse
    return [information.information_gain(one, 1.5, 0.25) for one in told.replicates or (told,)]


def _paired(name, law, grid, tau, basis, n):
    """Path KL and its standard error from independent draws of (X_v, X_u) and the true score, one time a step."""
    rng, dim, terms = np.random.default_rng(1), law.dim, []
    for u, low in itertools.pairwise(grid):
        v = rng.uniform(low, u, (n, 1)) if name == "exponential_euler" else np.full((n, 1), low)
        xv = np.exp(-v) * law.sample(rng, n) + ou.sigma(v) * rng.standard_normal((n, dim))
        xu = np.exp(v - u) * xv + ou.sigma(u - v) * rng.standard_normal((n, dim))
        m = np.asarray(wrong_denoiser(jnp.asarray(xu), u))
        if name == "exponential_euler":
            learned = (ou.alpha(u) * m - xu) / ou.sigma(u) ** 2
            terms.append((u - low) * np.sum((law.score(xv, v) - learned) ** 2, axis=1))
            continue
        # KL(q(x_low | x_u) || N(mean, v0 (I + h C))) by the log ratio of densities along the draw
        g, h = u - low, ou.snr(low) - ou.snr(u)
        share = ou.sigma(g) ** 2 / ou.sigma(u) ** 2
        mean = np.exp(-g) * ou.sigma(low) ** 2 / ou.sigma(u) ** 2 * xu + np.exp(-low) * share * m
        residual, v0 = xv - mean, ou.sigma(low) ** 2 * share
        variance = np.zeros((1, dim))
        if name == "moment_matched":
            variance = np.full((1, dim), tau(ou.snr(u)) / dim)
        elif name == "per direction":
            residual, variance = residual @ basis, tau.directions(ou.snr(u))[None]
        elif name == "covariance_matched":  # this denoiser's Jacobian is diagonal
            variance = (0.8 * ou.alpha(u) + 0.1 * np.cos(xu)) * ou.sigma(u) ** 2 / ou.alpha(u)
        spread = v0 * (1 + h * variance)
        ours = -0.5 * np.sum(residual**2 / spread + np.log(2 * np.pi * spread), axis=1)
        back, noised = xu - np.exp(-g) * xv, ou.sigma(g) ** 2
        forward = -0.5 * np.sum(back**2 / noised + np.log(2 * np.pi * noised), axis=1)
        terms.append(law.log_density(xv, low) + forward - law.log_density(xu, u) - ours)
    return sum(t.mean() for t in terms), np.sqrt(sum(t.var() / n for t in terms))


def test_excess_of_the_exact_denoiser_is_the_exact_path_kl_within_its_error():
    law = targets.mixture([0.3, 0.7], [[0.0, 1.0], [1.0, -1.0]], [[0.1, 0.2], [0.3, 0.1]])
    data = law.sample(jax.random.key(1), 3000)
    curve = loss_curve(denoiser_from_score(law.score), data, jax.random.key(2), horizon=3, early_stop=0.02)
    grid = grids.exponential_then_uniform(3, 0.02, 12)
    for name in NAMES:
        exact, error = path_kl(name, law.mmse, grid), path_kl_error(name, curve, grid, matched=law.mmse)
        assert abs(path_kl(name, curve, grid, matched=law.mmse) - exact) < 5 * error
        assert 0 < error < 0.1 * exact


def test_standard_error_is_the_spread_over_repeated_data():
    law, grid = targets.gaussian([0.0], [0.8]), np.array([2.0, 0.9, 0.3])
    denoiser = denoiser_from_score(law.score)
    curves = [
        loss_curve(
            denoiser,
            law.sample(jax.random.key(i), 200),
            jax.random.key(500 + i),
            horizon=2,
            early_stop=0.3,
            n_nodes=25,
            n_noises=1,
        )
        for i in range(60)
    ]
    for name in NAMES:
        values = [path_kl(name, curve, grid, matched=law.mmse) for curve in curves]
        predicted = np.sqrt(np.mean([path_kl_error(name, curve, grid, matched=law.mmse) ** 2 for curve in curves]))
        ratio = np.std(values, ddof=1) / predicted
        assert abs(ratio - 1) < 5 * np.sqrt(1 / (2 * 59))


def test_moment_matching_with_its_own_curve_is_best_among_curves():
    law = targets.gaussian([0.0, 0.0], [0.5, 2.0])
    best = path_kl("moment_matched", law.mmse, G)
    for factor in (0.5, 0.9, 1.1, 2.0):
        other = lambda snr, factor=factor: factor * law.mmse(snr)
        assert path_kl("moment_matched", law.mmse, G, matched=other, dim=2) > best


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(1e-6, 9.0), min_size=1, max_size=4),
    st.lists(st.floats(0.01, 0.6), min_size=2, max_size=8),
    st.floats(0.01, 0.5),
)
def test_moment_matching_is_never_worse_and_steps_never_cost_less_than_nothing(variances, gaps, early_stop):
    grid = early_stop + np.cumsum([0.0, *gaps])[::-1]
    curve = targets.gaussian(np.zeros(len(variances)), variances).mmse
    euler, ancestral, matched = (path_kl(name, curve, grid) for name in NAMES)
    assert matched <= min(euler, ancestral) + 1e-12
    for name in NAMES:
        assert step_cost(name, curve)(grid[:-1], grid[1:]).min() >= -1e-12


def along_directions(snr_times_losses, **fields):
    """A curve in d directions whose snr times loss are numbers (d,) or a function of snr; integrals are left out."""
    scaled = snr_times_losses if callable(snr_times_losses) else lambda snr: snr_times_losses + 0 * snr[..., None]
    directions = lambda snr: scaled(np.asarray(snr)) / np.asarray(snr)[..., None]
    total = lambda snr: directions(snr).sum(-1)
    dim = np.shape(scaled(np.ones(())))[-1]
    return Curve(total, dim, integral=np.zeros_like, directions=directions, basis="coordinates", **fields)


def widened(h, losses):
    """(1/2)(log w + h min(L, 0)), w = 1 + h max(L, 0), of every step and direction, one logarithm each."""
    return (np.log1p(h[:, None] * np.maximum(losses, 0)) + h[:, None] * np.minimum(losses, 0)) / 2


SNR = lambda t: 1 / np.expm1(2 * np.asarray(t))
STEPS = np.array([3.0, 1.1, 0.4, 0.02]), np.array([1.1, 1.0, 1e-3, 1e-6])
SIZES = ["tiny", "small", "of order one", "large", "nearly too large", "too large", "far too large", "of every size"]


# h L of the longest step is 2e4 times these; the largest h and L of different steps make 2e8 times these.
def numbers_of(size, d):
    """snr L (d,) of the directions, positive."""
    rng = np.random.default_rng(d)
    most = dict(zip(SIZES, (1e-18, 1e-7, 1.0, 1e6, 1e25, 1e36, 1e60, 1.0), strict=True))[size]
    spread = rng.uniform(-25, 25, d) if size == "of every size" else rng.uniform(-0.3, 0.3, d)
    return most * 10.0**spread


@pytest.mark.parametrize("d", [1, 7, 8, 9, 24, 67])
@pytest.mark.parametrize("size", SIZES)
def test_the_variance_of_every_direction_costs_a_sum_of_logarithms(size, d):
    numbers = numbers_of(size, d)
    curve, (t, t_next) = along_directions(numbers), STEPS
    h = SNR(t_next) - SNR(t)
    want = [math.fsum(row) for row in widened(h, numbers / SNR(t)[:, None])]
    np.testing.assert_allclose(step_cost("moment_matched", curve, basis="coordinates")(t, t_next), want, rtol=4e-14)


# The largest h L are 1e-6 from -1, above it and below, where log(1 + h L) would be -14 or not a number.
@pytest.mark.parametrize("d", [1, 5, 8, 19])
def test_negative_losses_set_no_variance_and_count_as_they_are(d):
    t, t_next = STEPS
    ratio = (SNR(t_next) - SNR(t)) / SNR(t)
    for numbers in (
        -np.full(d, 1e-18),
        -np.full(d, 0.999999 / ratio[-1]),
        -np.full(d, 1.000001 / ratio[-1]),
        np.random.default_rng(d).standard_normal(d),
        np.where(np.arange(d) % 2, 1e40, -0.3),
    ):
        each = widened(ratio * SNR(t), numbers / SNR(t)[:, None])
        found = step_cost("moment_matched", along_directions(numbers), basis="coordinates")(t, t_next)
        assert (np.abs(found - each.sum(1)) <= 1e-13 * np.abs(each).sum(1)).all()


# The KL of Gaussians of variances w_i and 1, means apart: (1/2)(log w + 1/w - 1 + h L/w), w = 1 + h max(T, 0).
def test_many_steps_in_any_shape_cost_what_each_does_alone(monkeypatch):
    monkeypatch.setattr("jaxdiff.guarantees.step_cost.ELEMENTS_AT_ONCE", 50)  # five steps at once, and some are left
    scaled = lambda snr: np.sin(np.log(snr)[..., None] + np.arange(9)) + np.linspace(-0.5, 2, 9)
    other = lambda snr: 1 + np.cos(np.log(snr)[..., None] * np.arange(9))
    curve, matched = along_directions(scaled), along_directions(other)
    t, t_next = np.array([[2.5], [1.0], [0.9], [2.4]]), np.array([0.8, 0.3, 0.31, 0.01, 0.02, 0.8, 1e-4])
    assert (scaled(SNR(t)) < 0).any()
    for tau, options in ((curve, {}), (curve, {"matched": along_directions(scaled)}), (matched, {"matched": matched})):
        found = step_cost("moment_matched", curve, basis="coordinates", **options)(t, t_next)
        assert found.shape == (4, 7)
        for i, j in np.ndindex(4, 7):
            start, h = SNR(t[i]), SNR(t_next[j]) - SNR(t[i])
            w = 1 + h * np.maximum(tau.directions(start), 0)
            want = np.sum(np.log(w) + 1 / w - 1 + h * curve.directions(start) / w) / 2
            assert found[i, j] == pytest.approx(want, rel=1e-11)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_directions_of_fewer_bits_cost_what_their_numbers_do(array, dtype):
    losses = np.array([3, 100_000, 7, 1, 0, 2, 20_000, 5, 4])
    curve = Curve(
        lambda snr: np.full(np.shape(snr), losses.sum()),
        9,
        integral=np.zeros_like,
        directions=lambda snr: array(np.broadcast_to(losses, (*np.shape(snr), 9)), dtype=dtype),
        basis="coordinates",
    )
    t, t_next = np.array([1.0, 1e-3]), np.array([0.9, 1e-6])
    want = widened(SNR(t_next) - SNR(t), np.stack([losses, losses])).sum(1)
    found = step_cost("moment_matched", curve, basis="coordinates")(t, t_next)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, want, rtol=1e-13)


def test_losses_that_are_not_numbers_are_not_hidden_in_a_product():
    t, t_next = STEPS
    for bad in (np.nan, np.inf):
        numbers = np.ones(11)
        numbers[4] = bad
        with np.errstate(invalid="ignore"):
            found = step_cost("moment_matched", along_directions(numbers), basis="coordinates")(t, t_next)
        assert not np.isfinite(found).any()


def test_samples_by_directions_are_the_path_kl_of_replicates_which_must_know_them_in_the_same_basis():
    rng, grid = np.random.default_rng(0), np.array([2.0, 0.7, 0.1, 0.03])
    each = rng.uniform(0.1, 2, (3, 5))
    replicates = tuple(along_directions(numbers) for numbers in each)
    curve = along_directions(each.mean(0), replicates=replicates)
    h, start = np.diff(SNR(grid)), SNR(grid[:-1])[:, None]
    w = 1 + h[:, None] * each.mean(0) / start  # the variances are those of the mean curve
    want = [np.sum(np.log(w) + 1 / w - 1 + h[:, None] * own / start / w) / 2 for own in each]
    np.testing.assert_allclose(path_kl_samples("moment_matched", curve, grid, basis="coordinates"), want, rtol=1e-12)
    for changes, message in (
        ({"directions": None, "basis": None}, "has no errors along directions"),
        ({"basis": np.eye(5)[::-1]}, "the one that the curve was measured in"),
    ):
        odd = dataclasses.replace(curve, replicates=(*replicates, dataclasses.replace(replicates[0], **changes)))
        with pytest.raises(ValueError, match=message):
            path_kl_samples("moment_matched", odd, grid, basis="coordinates")


def test_plain_callables_need_their_dimension_and_odes_have_no_path_kl():
    plain = lambda snr: 1 / (1 + snr)
    expected = path_kl("ancestral", targets.gaussian([0.0], [1.0]).mmse, G)
    assert path_kl("ancestral", plain, G, dim=1) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(TypeError, match="dim=d"):
        path_kl("ancestral", plain, G)
    with pytest.raises(ValueError, match="ddim"):
        step_cost("ddim", COIN)
    with pytest.raises(ValueError, match="grid must decrease"):
        path_kl("ancestral", COIN, G[::-1])


def binary_information(snr):
    """I(X_0; X_t) of +-1, snr - E log cosh(snr + sqrt(snr) Z) in nats (Guo, Shamai and Verdu 2005)."""
    log_cosh = lambda x: np.abs(x) + np.log1p(np.exp(-2 * np.abs(x))) - np.log(2)
    inside = lambda z: np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * log_cosh(snr + np.sqrt(snr) * z)
    kink = [-np.sqrt(snr)] if snr < 200 else None
    return snr - integrate.quad(inside, -14, 14, points=kink, epsabs=1e-13, epsrel=1e-13, limit=400)[0]


@pytest.mark.parametrize("t", [3.0, 1.0, 0.3, 0.05, 0.005])
def test_mutual_information_of_two_points_is_that_of_binary_signalling(t):
    want = binary_information(1 / np.expm1(2 * t))
    assert information.mutual_information(COIN, t) == pytest.approx(want, abs=1e-10)
    assert want <= np.log(2)
    if t == 0.005:
        assert information.mutual_information(COIN, t) == pytest.approx(np.log(2), abs=1e-10)  # all there is to tell
    assert information.information_gain(COIN, 3.0, 0.3) == pytest.approx(
        binary_information(1 / np.expm1(0.6)) - binary_information(1 / np.expm1(6.0)), abs=1e-10
    )


@pytest.mark.parametrize("size", [1e-4, 1e5, 1e8])
def test_mutual_information_of_two_points_does_not_depend_on_their_unit(size):
    points = targets.point_masses([[-size], [size]]).mmse
    for snr in (1e-3, 0.5, 4.0):
        want = binary_information(snr)
        assert information.mutual_information(points, ou.time(snr / size**2)) == pytest.approx(want, abs=1e-9)


def test_a_rare_part_far_away_is_in_the_mutual_information():
    rare = 1e-4
    law = targets.mixture([1 - rare, rare], [[0.0], [1000.0]], [[0.0], [0.0]]).mmse
    want = -(1 - rare) * np.log1p(-rare) - rare * np.log(rare)  # told entirely long before t = 1
    assert information.mutual_information(law, 1.0) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("variances", [[1.0], [0.0], [9.0, 1e-4, 0.0], [0.3, 0.3], [400.0], [1e15] + [1.0] * 30])
@pytest.mark.parametrize("t", [6.0, 0.4, 1e-3])
def test_mutual_information_and_entropy_of_gaussians_are_the_closed_forms(variances, t):
    snr, s = 1 / np.expm1(2 * t), np.array(variances)
    law = targets.gaussian(np.ones(len(s)), s).mmse
    want = 0.5 * np.sum(np.log1p(snr * s))
    assert information.mutual_information(law, t) == pytest.approx(want, rel=1e-10, abs=1e-14)
    assert information.mutual_information(Curve(law.value, law.dim), t) == pytest.approx(want, rel=1e-9, abs=1e-14)
    noised = np.exp(-2 * t) * s - np.expm1(-2 * t)
    assert information.entropy(law, t) == pytest.approx(0.5 * np.sum(np.log(2 * np.pi * np.e * noised)), abs=1e-10)


@pytest.mark.parametrize("law", ["two points", "unequal points", "two modes", "atom in a cloud"])
@pytest.mark.parametrize("t", [1.5, 0.2, 0.02])
def test_entropy_of_a_noised_mixture_is_the_integral_of_its_log_density(law, t):
    weights, means, variances = (np.array(part) for part in LAWS[law])
    curve = targets.mixture(weights, means[:, None], variances[:, None]).mmse
    x = np.linspace(-12, 12, 240_001)
    q = oracles.mixture_density((weights, means, variances), x, t)
    want = integrate.trapezoid(-q * np.log(np.maximum(q, 1e-300)), x)
    assert information.entropy(curve, t) == pytest.approx(want, abs=1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(0, 9.0), min_size=1, max_size=4),
    st.lists(st.floats(0.003, 0.8), min_size=1, max_size=8),
    st.floats(0.01, 0.5),
)
def test_information_bounds_enclose_what_a_grid_of_gaussians_gains(variances, gaps, early_stop):
    grid, s = early_stop + np.cumsum([0.0, *gaps])[::-1], np.array(variances)
    low, high = information.information_bounds(targets.gaussian(np.zeros(len(s)), s).mmse, grid)
    first, last = 1 / np.expm1(2 * grid[[0, -1]])
    gain = 0.5 * np.sum(np.log1p(last * s) - np.log1p(first * s))
    assert low <= gain + 1e-11
    assert gain <= high + 1e-11
    one = information.information_bounds(targets.gaussian([0.0] * 3, [s[0]] * 3).mmse, grid)
    want = 1.5 * (np.log1p(last * s[0]) - np.log1p(first * s[0]))
    np.testing.assert_allclose(one, want, rtol=1e-10, atol=1e-12)  # both are attained


def test_information_bounds_enclose_what_two_points_tell():
    low, high = information.information_bounds(COIN, G)
    gain = binary_information(1 / np.expm1(0.02)) - binary_information(1 / np.expm1(6.0))
    assert low < gain < high
    assert high - low < 0.2 * gain


@pytest.mark.parametrize("variance", [1e-3, 0.1, 1.0, 9.0, 1e4])
@pytest.mark.parametrize(("t", "t_next"), [(5.0, 1e-3), (3.0, 0.01), (1.0, 0.5)])
def test_information_error_is_no_less_than_the_error_of_a_quadrature(variance, t, t_next):
    curve = Curve(lambda snr: 2 * variance / (1 + snr * variance), 2)
    exact = np.log1p(variance / np.expm1(2 * t_next)) - np.log1p(variance / np.expm1(2 * t))
    miss = abs(information.information_gain(curve, t, t_next) - exact)
    told = information.information_error(curve, t, t_next)
    assert miss <= told + 4e-16 * max(1, exact)  # rounding
    assert told < 1e-12
    law = targets.gaussian([0.0], [variance]).mmse
    assert information.information_error(law, t, t_next) == 0
    of_coin = information.information_error(COIN, t, t_next)
    assert 0 < of_coin < 1e-10
    coins = targets.product([targets.point_masses([[-1.0], [1.0]])] * 3)
    of_product = information.information_error(coins.mmse, t, t_next)
    assert of_product == pytest.approx(3 * of_coin, rel=1e-12)


def test_information_error_tells_of_a_curve_that_is_not_smooth():
    curve = Curve(lambda snr: np.minimum(0.4, 1 / (1 + snr)), 1)  # a kink at snr 1.5
    exact = 0.5 * (0.4 * (1.5 - 0.1) + np.log((1 + 7.0) / 2.5))
    t, t_next = ou.time(0.1), ou.time(7.0)
    miss = abs(information.information_gain(curve, t, t_next) - exact)
    assert miss > 1e-6
    assert miss <= information.information_error(curve, t, t_next)


# Node values that an mmse can have: V = d e/(1 + snr e) with e not increasing.
@st.composite
def node_values(draw):
    dim = draw(st.integers(1, 4))
    gaps = draw(st.lists(st.floats(0.05, 3.0), min_size=1, max_size=8))
    snr = np.exp(draw(st.floats(-6.0, 2.0)) + np.cumsum([0.0, *gaps]))
    fall = draw(
        st.lists(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(1e-6, 1.0)), min_size=len(gaps), max_size=len(gaps))
    )
    e = draw(st.floats(1e-3, 5.0)) * np.cumprod([1.0, *fall])
    return snr, dim * e / (1 + snr * e), dim, e


@settings(max_examples=100, deadline=None, derandomize=True)
@given(node_values())
def test_a_curve_through_nodes_obeys_what_every_mmse_curve_obeys(case):
    snr, values, dim, e = case
    curve = information.mmse_from_nodes(snr, values, dim, total_variance=dim * e[0])
    np.testing.assert_allclose(curve(snr), values, rtol=1e-9, atol=1e-13)
    fine = np.sort(np.concatenate([np.geomspace(snr[0] / 30, 30 * snr[-1], 400), snr]))
    value = curve(fine)
    assert (value >= 0).all()
    assert (value <= dim / fine * (1 + 1e-12)).all()
    assert (value <= dim * e[0] * (1 + 1e-9)).all()
    assert (np.diff(value) <= 1e-12 * value[:-1] + 1e-15).all()
    most = value[:-1] / (1 + np.diff(fine) * value[:-1] / dim)  # d/V - snr does not decrease
    assert (value[1:] <= most * (1 + 1e-11) + 1e-15).all()
    assert information.violations(curve) == ()


def test_a_curve_through_nodes_of_an_isotropic_gaussian_is_its_own():
    snr, variance, dim = np.array([0.02, 0.5, 3.0, 40.0]), 0.7, 5
    curve = information.mmse_from_nodes(snr, dim * variance / (1 + snr * variance), dim)
    fine = np.geomspace(1e-4, 1e4, 60)  # beyond the nodes as well
    np.testing.assert_allclose(curve(fine), dim * variance / (1 + fine * variance), rtol=1e-12)
    np.testing.assert_allclose(np.diff(curve.integral(fine)), dim * np.diff(np.log1p(fine * variance)), rtol=1e-11)
    assert information.information_gain(curve, 3.0, 0.01) == pytest.approx(
        dim / 2 * np.log((1 + variance / np.expm1(0.02)) / (1 + variance / np.expm1(6.0))), rel=1e-12
    )


@pytest.mark.parametrize(
    ("snr", "values", "message"),
    [
        ([0.5, 1.0, 2.0], [0.5, 0.3, 0.4], r"at snr 2 .* more than the 0\.3 at the smaller snr 1"),
        ([0.5, 1.0, 2.0], [0.5, 0.3, -0.1], "at snr 2 .* negative"),
        ([0.5, 1.0, 2.0], [0.5, 0.4, 0.6], r"at snr 2 .* above d/snr = 0\.5"),
        ([0.5, 1.0, 2.0], [0.5, 0.5, 0.2], r"at snr 1 .* the value before allows"),
        ([0.5, 1.0, 2.0], [np.nan, 0.5, 0.2], r"at snr 0\.5 .* nan"),
        ([1.0, 0.5], [0.1, 0.2], "increasing"),
        ([0.0, 0.5], [0.1, 0.1], "positive"),
        ([0.5], [0.1], "two"),
        ([0.5, 1.0], [0.1], r"\(2,\) and \(1,\)"),
    ],
)
def test_node_values_of_no_mmse_are_refused_and_the_message_says_where(snr, values, message):
    with pytest.raises(ValueError, match=message):
        information.mmse_from_nodes(snr, values, 1)


@pytest.mark.parametrize(("snr", "first"), [(0.1, 0.5), (1.0, 0.6)])
def test_node_values_above_what_the_total_variance_leaves_are_refused(snr, first):
    total = 0.4 if first == 0.5 else 1.0  # V <= M/(1 + snr M): .3846 and .5
    with pytest.raises(ValueError, match=rf"at snr {snr:g} it is {first:g}, .* total_variance = {total:g}"):
        information.mmse_from_nodes([snr, 3.0], [first, 0.1], 1, total_variance=total)


@pytest.mark.parametrize("name", LAWS)
def test_mmse_curves_of_laws_break_no_constraint(name):
    weights, means, variances = (np.array(part) for part in LAWS[name])
    assert information.violations(targets.mixture(weights, means[:, None], variances[:, None]).mmse) == ()
    for law in (targets.gaussian([0.0] * 3, [0.0, 1e-6, 9.0]), targets.product([targets.gaussian([0.0], [0.0])] * 2)):
        assert information.violations(law.mmse) == ()


@pytest.mark.parametrize("t", [1e-3, 0.1, 2.0])
@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (3.0, 0.25), (-1.0, 0.0), (0.0, 9.0)])
def test_early_stopping_w2_is_no_less_than_that_of_gaussians(mean, variance, t):
    moved = (1 - np.exp(-t)) * mean
    widths = np.sqrt(variance), np.sqrt(np.exp(-2 * t) * variance - np.expm1(-2 * t))
    exact = np.hypot(moved, widths[1] - widths[0])
    bound = information.early_stopping_w2(mean**2 + variance, 1, t)
    assert exact <= bound * (1 + 1e-12)
    if variance == 0:
        assert bound == pytest.approx(exact, rel=1e-12)  # attained by a point mass


def _missing(law, snr):
    """1 - snr V of a law on the line, without cancellation: E|score|^2/snr of X_0 + Z/sqrt(snr), by quadrature."""
    weights, means, variances = map(np.asarray, law)
    total = variances + 1 / snr
    nodes, share = np.polynomial.legendre.leggauss(8)
    edges = np.unique(means + np.sqrt(total) * np.linspace(-11, 11, 111)[:, None])
    half = np.diff(edges)[:, None] / 2
    y = (edges[:-1, None] + half * (1 + nodes))[..., None]
    each = weights * np.exp(-((y - means) ** 2) / total / 2) / np.sqrt(2 * np.pi * total)
    density = each.sum(-1)
    slope = np.sum(each * (means - y) / total, axis=-1)
    return np.sum(half * share * slope**2 / np.maximum(density, 1e-300)) / snr


# With 1 - snr V = r a step of exponential Euler costs (1 + snr)(g - 2(1 - e^-g)) r + (1/2) int r dlog snr.
@pytest.mark.parametrize("scale", [1e6, 1e10])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_exponential_euler_of_laws_in_huge_units_keeps_its_digits_and_its_bounds(scale, mean):
    law = [0.3, 0.7], scale * (mean + np.array([-1.0, 1.0])), scale**2 * np.array([0.25, 0.2])
    grid = grids.exponential_then_uniform(5.0, 1e-3, 6)
    nodes, share = np.polynomial.legendre.leggauss(8)
    want = 0.0
    for t, t_next in itertools.pairwise(grid):
        g, low, high = t - t_next, *np.log(1 / np.expm1(2 * np.array([t, t_next])))
        levels = np.exp(low + (high - low) * (1 + nodes) / 2)
        inner = sum(w * _missing(law, level) for level, w in zip(levels, share, strict=True))
        want += (1 + np.exp(low)) * (g + 2 * np.expm1(-g)) * _missing(law, np.exp(low)) + (high - low) / 4 * inner
    curve = targets.mixture(law[0], law[1][:, None], law[2][:, None]).mmse
    rounding = 1e-13 * np.log(np.expm1(10) / np.expm1(2e-3))  # what path_kl promises
    got = information.path_kl("exponential_euler", curve, grid)
    assert abs(got - want) < rounding
    assert want < 1e-7
    sides = from_nodes.lower, from_nodes.upper
    low, high = (side("exponential_euler", curve, grid)["discretisation"].value for side in sides)
    assert low - rounding <= got <= high + rounding


@pytest.mark.parametrize("unit", [1e-6, 1e6, 1e9])
def test_the_curve_of_a_law_in_other_units_is_that_of_the_law(unit):
    snr, h = np.exp(np.linspace(-6, 5, 5)), 3.0
    cov = np.array([[1.0, 0.6], [0.6, 0.5]])
    flat = np.array([[1.0, 2.0], [2.0, 4.0]])
    laws = lambda c: {
        "gaussian": targets.gaussian([c, 0.0], c**2 * cov),
        "low rank": targets.gaussian([c, 0.0], c**2 * flat),
        "line": targets.mixture([0.3, 0.7], [[-c], [2 * c]], [[0.3 * c**2], [0.01 * c**2]]),
        "points": targets.point_masses([[-c], [c], [3 * c]]),
        "product": targets.product([targets.gaussian([c], [c**2]), *[targets.point_masses([[-c], [c]])] * 2]),
    }
    for name, law in laws(unit).items():
        mine, due = law.mmse, laws(1.0)[name].mmse
        close = lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-13 * np.max(want))
        close(mine(snr / unit**2) / unit**2, due(snr))
        close(mine.directions(snr / unit**2).sum(-1) / unit**2, due.directions(snr).sum(-1))
        close(np.diff(mine.integral(snr / unit**2)), np.diff(due.integral(snr)))
        close(mine.log_det(snr / unit**2, h / unit**2), due.log_det(snr, h))
