"""scores.truncated: what it promises at every point, that it is the denoiser pulled back, and radius_of."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from jaxdiff import grids, kernels, sample, scores, targets
from jaxdiff.processes import denoiser_from_score, score_from_denoiser

FEW = settings(max_examples=60, deadline=None, derandomize=True)
seeds, dims, times = st.integers(0, 2**31), st.sampled_from([1, 3, 40]), st.floats(1e-3, 4.0)
sizes = st.floats(-4, 4).map(lambda power: 10.0**power)


def constant(value, x, t):
    """A score that is the same everywhere."""
    return value


def linear(matrix, x, t):
    return -x @ matrix.T


def shrunk(factor, x, t):
    """The score of N(0, I), times a factor."""
    return -factor * x


def ball(x, t, radius):
    """Centre and radius of the ball, from s = (alpha E[X_0 | X_t] - x)/sigma^2 with |E[X_0 | X_t]| <= R."""
    variance = -np.expm1(-2 * t)
    return -x / variance, np.exp(-t) * radius / variance


@jax.jit
def evaluated(score, x, t):
    """A score under jit, as a pytree: values, radii and points of one shape share a program."""
    return score(x, t)


def truncated_values(values, x, t, radius):
    """What truncation makes of given values of a score at the points x, all (n, d)."""
    return np.asarray(evaluated(scores.truncated(Partial(constant, jnp.asarray(values)), radius), jnp.asarray(x), t))


def norms(rows):
    return np.linalg.norm(rows, axis=-1)


def around(rng, centre, reach, n=50):
    """Points at all distances from a centre: some in the ball, some on its edge but for rounding, some far away."""
    directions = rng.normal(size=(n, len(centre)))
    directions /= norms(directions)[:, None]
    return centre + reach * (10.0 ** rng.uniform(-3, 3, n) * np.where(rng.random(n) < 0.2, 0, 1))[:, None] * directions


# Rounding of centre + share (s - centre): some eps of the largest of the three.
def rounding(*arrays):
    return 8 * np.finfo(np.float64).eps * sum(norms(array) for array in arrays)


@FEW
@given(seeds, dims, times, sizes)
def test_truncation_is_1_lipschitz_in_the_value_of_the_score(seed, d, t, radius):
    rng = np.random.default_rng(seed)
    x = np.tile(rng.normal(size=d), (50, 1))
    centre, reach = ball(x, t, radius)
    one, other = around(rng, centre[0], reach), around(rng, centre[0], reach)
    apart = norms(truncated_values(one, x, t, radius) - truncated_values(other, x, t, radius))
    assert (apart <= norms(one - other) + rounding(centre, one, other)).all()


@FEW
@given(seeds, dims, times, sizes)
def test_a_value_in_the_ball_stays_to_the_bit_and_any_other_lands_on_its_edge(seed, d, t, radius):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, d))
    centre, reach = ball(x, t, radius)
    value = centre + around(rng, np.zeros(d), reach)
    got, away = truncated_values(value, x, t, radius), norms(value - centre) / reach
    inside, slack = away < 1 - 1e-9 - rounding(centre) / reach, rounding(centre, value) / reach
    np.testing.assert_array_equal(got[inside], value[inside])
    landed = norms(got - centre) / reach
    assert (landed <= 1 + 1e-12 + slack).all()
    np.testing.assert_allclose(landed[away > 1], 1, rtol=0, atol=1e-12 + slack.max())
    along = centre + (value - centre) / away[:, None].clip(1e-300)  # radially: on the way to the centre
    assert (norms(got - along)[away > 1] <= (1e-12 * reach + rounding(centre, value))[away > 1]).all()


def corners(x, t):
    """The exact score of the law on the 2^d corners of a cube: X_0 has independent signs, |X_0| = sqrt(d)."""
    alpha, variance = jnp.exp(-t), -jnp.expm1(-2 * t)
    return (alpha * jnp.tanh(alpha * x / variance) - x) / variance


@settings(FEW, max_examples=30)
@given(seeds, dims, times, st.sampled_from(["points", "corners"]), sizes, st.floats(1, 3))
def test_no_value_at_any_point_comes_further_from_the_true_score(seed, d, t, law, error, slack):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(7, d))
    true = targets.point_masses(points).score if law == "points" else Partial(corners)
    radius = slack * (norms(points).max() if law == "points" else np.sqrt(d))
    x = rng.normal(size=(50, d)) * 10.0 ** rng.uniform(-2, 1, (50, 1))
    truth = np.asarray(evaluated(true, jnp.asarray(x), t))
    learned = truth + error * rng.normal(size=(50, d))
    before, after = norms(learned - truth), norms(truncated_values(learned, x, t, radius) - truth)
    assert (after <= before + rounding(learned, truth, ball(x, t, radius)[0])).all()


def test_a_useless_score_is_truncated_to_a_better_one_and_never_beyond_twice_the_radius_of_the_ball():
    points = np.array([[1.0, 0.0], [-0.6, 0.8], [0.0, -1.0]])
    x, t = np.random.default_rng(0).normal(size=(100, 2)), 0.3
    truth = np.asarray(targets.point_masses(points).score(jnp.asarray(x), jnp.asarray(t)))
    got = truncated_values(np.full((100, 2), 1e3), x, t, 1.0)
    assert (norms(got - truth) <= 2 * ball(x, t, 1.0)[1] * (1 + 1e-12)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_derivatives_are_finite_in_the_centre_on_the_edge_and_far_away(dtype):
    t, d, radius = dtype(0.5), 3, 1.0
    variance = -np.expm1(-2 * t)
    matrix = jnp.eye(d, dtype=dtype) / variance  # a score that sits in the centre, wherever x is
    centred = scores.truncated(Partial(linear, matrix), radius)
    edge = np.zeros(d, dtype)
    edge[0] = np.exp(-t) * radius / (variance * abs(1 - 1 / variance))  # of the score -x: |x| |1 - 1/sigma^2| = reach
    points = [np.zeros(d), np.ones(d), edge, np.nextafter(edge, dtype(9)), np.full(d, 1e6)]
    x = jnp.asarray(np.stack(points).astype(dtype))

    for score in (centred, scores.truncated(lambda x, t: -x, radius), scores.truncated(lambda x, t: 0 * x, radius)):
        slopes = [jax.jacfwd(score), jax.jacrev(score), jax.jacfwd(score, argnums=1), jax.jacrev(score, argnums=1)]
        for value in jax.jit(lambda x: [jax.vmap(slope, in_axes=(0, None))(x, t) for slope in slopes])(x):  # noqa: B023
            assert value.dtype == dtype
            assert np.isfinite(value).all()


def test_the_derivative_is_that_of_the_score_inside_and_that_of_the_projection_outside():
    t, variance = 0.5, -np.expm1(-1.0)
    score = scores.truncated(lambda x, t: 2 * x, 0.7)
    inside, outside = np.array([0.01, 0.02]), np.array([3.0, -1.0])
    np.testing.assert_array_equal(jax.jacfwd(score)(jnp.asarray(inside), t), 2 * np.eye(2))
    # s - centre = (2 + 1/sigma^2) x points along x: centre + reach x/|x|.
    reach, size = np.exp(-t) * 0.7 / variance, norms(outside)
    want = -np.eye(2) / variance + reach / size * (np.eye(2) - np.outer(outside, outside) / size**2)
    np.testing.assert_allclose(jax.jacrev(score)(jnp.asarray(outside), t), want, rtol=1e-13, atol=1e-14)


@jax.jit
def jacobians(score, x, t):
    return jax.vmap(jax.jacfwd(score), in_axes=(0, None))(x, t)


@pytest.mark.parametrize("t", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("kind", ["any matrix", "a rotation", "a symmetric one"])
def test_the_lipschitz_constant_in_x_is_at_most_the_root_of_l_squared_plus_one_over_sigma_to_the_fourth(kind, t):
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(4, 4))
    matrix = {"any matrix": matrix, "a rotation": 3 * np.linalg.qr(matrix)[0], "a symmetric one": matrix + matrix.T}[
        kind
    ]
    bound = np.hypot(np.linalg.norm(matrix, 2), 1 / -np.expm1(-2 * t))
    x = jnp.asarray(rng.normal(size=(300, 4)) * 10.0 ** rng.uniform(-2, 2, (300, 1)))
    score = scores.truncated(Partial(linear, jnp.asarray(matrix)), 0.9)
    slopes = np.linalg.norm(jacobians(score, x, t), 2, axis=(1, 2))
    assert (slopes <= bound * (1 + 1e-12)).all()


# A quarter turn A, L = |A|, takes the radial direction n to a tangential one: just outside J n = -n/sigma^2 - A n.
def test_the_lipschitz_constant_is_attained_by_a_quarter_turn_just_outside_the_ball():
    t, speed, radius = 0.4, 1.7, 0.8
    variance, turn = -np.expm1(-2 * t), speed * np.array([[0.0, -1.0], [1.0, 0.0]])
    away = np.array([0.6, 0.8]) * np.exp(-t) * radius / variance * (1 + 1e-9)
    x = jnp.asarray(np.linalg.solve(np.eye(2) / variance - turn, away))
    slope = np.linalg.norm(jax.jacfwd(scores.truncated(Partial(linear, jnp.asarray(turn)), radius))(x, t), 2)
    assert slope == pytest.approx(np.hypot(speed, 1 / variance), rel=1e-8)


@jax.jit
def back_in_the_ball(value, x, t, radius):
    """The score of the denoiser of a constant score, pulled back into the ball of the data."""

    def clipped(x, t):
        denoised = denoiser_from_score(Partial(constant, value))(x, t)
        return denoised * jnp.minimum(1, radius / jnp.linalg.norm(denoised, axis=-1, keepdims=True))

    return score_from_denoiser(clipped)(x, t)


@FEW
@given(seeds, dims, times, sizes)
def test_it_is_the_score_of_the_denoiser_pulled_back_into_the_ball_of_the_data(seed, d, t, radius):
    rng = np.random.default_rng(seed)
    x, value = jnp.asarray(rng.normal(size=(50, d))), jnp.asarray(rng.normal(size=(50, d)) * 3)
    got, want = truncated_values(value, x, t, radius), np.asarray(back_in_the_ball(value, x, t, radius))
    centre = ball(np.asarray(x), t, radius)[0]
    assert (norms(got - want) <= 2 * rounding(centre, np.asarray(value), want)).all()


def test_another_radius_or_parameter_compiles_nothing():
    traces = []

    def counted(factor, x, t):
        traces.append(factor)
        return shrunk(factor, x, t)

    run, x = jax.jit(lambda score, x: score(x, 0.5)), jnp.ones((4, 2))
    first = [run(scores.truncated(Partial(counted, 1.0), radius), x) for radius in (0.1, 0.2, 30.0)]
    run(scores.truncated(Partial(counted, 2.0), 0.3), x)
    assert len(traces) == 1
    assert not np.array_equal(first[0], first[1])


def test_runs_of_sample_with_another_radius_share_a_compilation(key):
    traces = []

    def counted(factor, x, t):
        traces.append(factor)
        return shrunk(factor, x, t)

    grid, x = grids.log_snr(2.0, 0.01, 6), jnp.ones((5, 2))
    run = lambda radius: sample(kernels.ddim(scores.truncated(Partial(counted, 1.0), radius)), x, grid, key)
    run(0.4)
    once = len(traces)
    run(0.5)
    run(7.0)
    assert len(traces) == once


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_of_the_particles_stays(dtype, key):
    x = jnp.ones((6, 2), dtype)
    score = scores.truncated(Partial(shrunk, dtype(3)), 0.5)
    assert score(x, jnp.asarray(0.3, dtype)).dtype == dtype
    assert score(x, 0.3).dtype == dtype
    assert sample(kernels.exponential_euler(score), x, grids.log_snr(2.0, 0.1, 4), key).dtype == dtype


# A value inside the ball, one outside, and one whose square no float16 holds.
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("narrow_time", [False, True])
def test_16_bits_are_truncated_in_float32_and_rounded_once(narrow_time, dtype):
    x, radius = jnp.asarray([[0.4, -0.3], [1.1, 0.2], [0.1, 0.1]], dtype), 1.25
    t = jnp.asarray(0.12345, dtype if narrow_time else jnp.float32)
    values = jnp.asarray([[-1.7, 1.4], [9.0, -7.0], [500.0, 300.0]], dtype)
    wide_x, wide, at = np.asarray(x, np.float64), np.asarray(values, np.float64), float(t)
    centre, reach = ball(wide_x, at, radius)
    share = np.minimum(1, reach / norms(wide - centre))[:, None]
    assert (share == 1).tolist() == [[True], [False], [False]]
    for value in (values, values.astype(jnp.float32)):
        got = scores.truncated(Partial(constant, value), radius)(x, t)
        assert got.dtype == dtype
        half = 0.51 * float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(np.asarray(got, np.float64), centre + share * (wide - centre), rtol=half)


# DDIM moves to alpha' m + (sigma'/sigma)(x - alpha m), m the denoiser: of -3x it is (1 - 3 sigma^2) x/alpha, cut off.
def test_sampling_with_it_is_sampling_with_the_denoiser_cut_off(key):
    grid, radius = grids.log_snr(3.0, 0.01, 12), 0.5
    x = np.random.default_rng(0).normal(size=(40, 3))
    got = sample(kernels.ddim(scores.truncated(Partial(shrunk, 3.0), radius)), jnp.asarray(x), grid, key)
    for t, t_next in pairwise(grid):
        variance, variance_next = -np.expm1(-2 * np.array([t, t_next]))
        denoised = (1 - 3 * variance) * x * np.exp(t)
        denoised *= np.minimum(1, radius / norms(denoised))[:, None]
        x = np.exp(-t_next) * denoised + np.sqrt(variance_next / variance) * (x - np.exp(-t) * denoised)
    np.testing.assert_allclose(got, x, rtol=1e-11, atol=1e-12)
    assert norms(x).max() < 1  # else nothing is cut off


@pytest.mark.parametrize("radius", [0.5, 50.0])
def test_gradients_go_through_it_to_the_parameters(radius, key):
    x, grid = jnp.asarray(np.random.default_rng(1).normal(size=(30, 2))), grids.log_snr(2.0, 0.05, 8)

    def spread(factor):
        kernel = kernels.exponential_euler(scores.truncated(Partial(shrunk, factor), radius))
        return jnp.mean(sample(kernel, x, grid, key) ** 2)

    step = 1e-5
    difference = (spread(jnp.asarray(0.8 + step)) - spread(jnp.asarray(0.8 - step))) / (2 * step)
    assert float(jax.grad(spread)(jnp.asarray(0.8))) == pytest.approx(float(difference), rel=1e-6)


def test_the_radius_of_data_is_their_largest_norm_and_a_margin():
    data = np.array([[3, 4], [0, -1], [2, 2]])
    assert scores.radius_of(data) == pytest.approx(5.25, rel=1e-15)
    assert scores.radius_of(data, margin=0) == 5
    assert scores.radius_of(jnp.asarray(data, jnp.float32), margin=1) == 10
    assert scores.radius_of(data[1:2], margin=0.5) == 1.5


@pytest.mark.parametrize(
    "data", [np.ones(3), np.ones((2, 2, 2)), np.zeros((4, 2)), np.ones((0, 2)), [[1.0, np.nan]], [[np.inf, 1.0]]]
)
def test_data_without_a_radius_are_refused(data):
    with pytest.raises(ValueError, match=r"data are finite rows \(n, d\), not all of them 0") as caught:
        scores.radius_of(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("margin", [-0.01, np.inf, np.nan])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(ValueError, match="margin"):
        scores.radius_of(np.ones((2, 2)), margin=margin)


@pytest.mark.parametrize("radius", [0.0, -1.0, np.inf, np.nan])
def test_a_radius_that_bounds_nothing_is_refused(radius):
    with pytest.raises(ValueError, match="radius bounds the norm of the data, positive and finite: radius = "):
        scores.truncated(lambda x, t: -x, radius)


@pytest.mark.parametrize("size", [1e15, 1e20, 1e37])
def test_what_is_far_out_comes_onto_the_sphere_in_float32(size):
    x, t, radius = jnp.asarray([[0.3, -0.2]], jnp.float32), 0.5, 1.0
    found = np.asarray(scores.truncated(lambda x, t: jnp.full_like(x, size), radius)(x, t), np.float64)
    sigma2 = -np.expm1(-2 * t)
    expected = -np.asarray(x, np.float64) / sigma2 + np.exp(-t) / sigma2 / np.sqrt(2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
