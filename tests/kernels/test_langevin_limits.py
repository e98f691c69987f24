"""How long a Langevin step may be: against linear maps of the kernels' own steps and matrix exponentials."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.linalg import expm

from jaxdiff import kernels, sample, targets
from jaxdiff.kernels.langevin_limits import default_step, longest_step, stationary_variance


def pull(curvature, x, t):
    """The score of N(0, 1/curvature)."""
    return -curvature * x


def langevin(curvature, time=0.5, **options):
    return kernels.langevin(Partial(pull, curvature), time, **options)


def sigma2(t):
    return -np.expm1(-2 * t)


def linear_map(kernel, h):
    """The matrix of a step that is not the first, and the covariance of its noise, by driving it with unit vectors."""
    row = jax.tree.map(lambda column: jnp.asarray(column[1]), kernel.coefficients(np.array([2 * h, h, 0.0])))
    state, still = jax.tree.flatten(kernel.init(jnp.zeros((1, 1))))
    units = jnp.eye(len(state))
    state = still.unflatten([units[:, i : i + 1] for i in range(len(state))])
    silence = np.zeros((2, len(units), 1)) if kernel.noises_per_step == 2 else np.zeros((len(units), 1))
    step = np.hstack(jax.tree.leaves(kernel.step(kernel.score, state, row, jnp.asarray(silence)))).T
    rest = jax.tree.map(jnp.zeros_like, state)
    noise = np.eye(2)[:, :, None] if kernel.noises_per_step == 2 else np.ones((1, 1))
    root = np.hstack(jax.tree.leaves(kernel.step(kernel.score, rest, row, jnp.asarray(noise)))).T
    return step, root @ root.T


def radius(kernel, h):
    """The spectral radius of a step."""
    return np.abs(np.linalg.eigvals(linear_map(kernel, h)[0])).max()


def numerical_limit(kernel, start):
    """The step at which the spectral radius reaches one: doubled until it does, then halved down."""
    low, high = 0.0, start
    while radius(kernel, high) < 1:
        low, high = high, 2 * high
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if radius(kernel, middle) < 1 else (low, middle)
    return (low + high) / 2


CURVED = [  # time, curvature (None: the default, 1/sigma^2), options
    *((time, None, {}) for time in (0.05, 0.7, 4.0)),
    (0.7, 0.1, {}),
    (0.7, 25.0, {}),
    *((0.5, curvature, {"scheme": "exponential"}) for curvature in (3.5, 20.0)),
    *((0.5, 4.0, {"scheme": "exponential", "variance": v}) for v in (0.51, 1.0, 30.0)),
    *((time, None, {"scheme": "underdamped"}) for time in (0.05, 0.7, 4.0)),
    *((0.7, 3.0, {"scheme": "underdamped", "friction": g}) for g in (0.01, 0.5, 2.0, 5.0, 12.0)),
    *((0.7, c, {"scheme": "underdamped", "friction": 1.5}) for c in (0.05, 400.0)),
]


@pytest.mark.parametrize(("time", "curvature", "options"), CURVED)
def test_the_longest_step_is_where_the_spectral_radius_of_a_step_reaches_one(time, curvature, options):
    kernel = langevin(1 / sigma2(time) if curvature is None else curvature, time, **options)
    limit = longest_step(kernel, lipschitz=curvature)
    assert limit == pytest.approx(numerical_limit(kernel, 1e-3 * limit), rel=1e-9)
    assert all(radius(kernel, share * limit) < 1 for share in (1e-3, 0.03, 0.2, 0.5, 0.9, 0.999))
    assert all(radius(kernel, share * limit) > 1 for share in (1.001, 1.1, 2.0, 8.0))


# A curvature that is smaller than the largest one pulls less: its own limit is longer.
@pytest.mark.parametrize("scheme", ["plain", "exponential", "underdamped"])
def test_shorter_steps_are_stable_in_every_direction_that_pulls_less(scheme):
    h = 0.999 * longest_step(langevin(4.0, scheme=scheme), lipschitz=4.0)
    assert all(radius(langevin(share * 4.0, scheme=scheme), h) < 1 for share in np.geomspace(1e-4, 1, 60))


@pytest.mark.parametrize("variance", [None, 0.01, 2 * sigma2(0.5)])
def test_exponential_langevin_never_diverges_where_its_variance_is_at_most_twice_that_of_the_law(variance):
    kernel = langevin(1 / sigma2(0.5), scheme="exponential", variance=variance)
    assert longest_step(kernel) == np.inf
    assert all(radius(kernel, h) <= 1 for h in np.geomspace(1e-3, 1e5, 30))


@pytest.mark.parametrize(
    "options",
    [{}, {"scheme": "exponential"}, {"scheme": "underdamped"}, {"scheme": "underdamped", "friction": 12.0}],
)
def test_a_chain_forgets_its_start_just_below_the_limit_and_grows_just_above(options, key):
    kernel = langevin(20.0, 0.7, **options)
    limit, starts = longest_step(kernel, lipschitz=20.0), jnp.array([[0.0], [1.0]])
    n = 100_000

    def apart(h):  # two particles of a linear chain differ by what is left of their start, the noise apart
        one, other = (sample(kernel, starts[i : i + 1], np.arange(n, -1, -1) * h, key)[0, 0] for i in range(2))
        return abs(float(other - one))

    assert apart(0.999 * limit) < 1e-6
    assert not apart(1.001 * limit) < 1e6  # perhaps not even finite


def settled(step, noise):
    """The S with S = A S A^T + Q."""
    n = len(step)
    return np.linalg.solve(np.eye(n * n) - np.kron(step, step), noise.ravel()).reshape(n, n)


@functools.cache
def underdamped_flow(h, friction):
    """Of x, p and the frozen score: the flow over h, and the covariance of the noise, by matrix exponentials alone."""
    drift = np.array([[0.0, 1.0, 0.0], [0.0, -friction, 1.0], [0.0, 0.0, 0.0]])
    lyapunov = np.block([[-drift[:2, :2], np.diag([0.0, 2 * friction])], [np.zeros((2, 2)), drift[:2, :2].T]])
    blocks = expm(h * lyapunov)  # Van Loan
    return expm(h * drift), blocks[2:, 2:].T @ blocks[:2, 2:]


def underdamped_variance(h, variance, friction):
    """Stationary variance of frozen-score underdamped Langevin on N(0, variance)."""
    flow, noise = underdamped_flow(h, friction)
    return settled(flow[:2, :2] + np.outer(flow[:2, 2], [-1 / variance, 0.0]), noise)[0, 0]


def plain_variance(h, variance):
    return variance / (1 - h / (2 * variance))


def exponential_variance(h, variance, v):
    a = v * (1 - np.exp(-h / v))
    return variance**2 * (2 * v - a) / (v * (2 * variance - a))


VARIANCES, STEPS = (0.2, 0.7, 5.0), (1e-3, 0.05, 0.3)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("h", STEPS)
def test_stationary_variances_are_the_closed_forms(h, variance):
    close = functools.partial(pytest.approx, rel=1e-11)
    assert stationary_variance(langevin(1.0), h, variance) == close(plain_variance(h, variance))
    for v in (0.3, 1.1):
        got = stationary_variance(langevin(1.0, scheme="exponential", variance=v), h, variance)
        assert got == close(exponential_variance(h, variance, v))
    got = stationary_variance(langevin(1.0, time=0.4, scheme="exponential"), h, variance)
    assert got == close(exponential_variance(h, variance, sigma2(0.4)))


@pytest.mark.parametrize("friction", [0.3, 2.0, 9.0])
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("h", STEPS)
def test_the_stationary_variance_of_underdamped_langevin_is_that_of_matrix_exponentials(h, variance, friction):
    got = stationary_variance(langevin(1.0, scheme="underdamped", friction=friction), h, variance)
    want = underdamped_variance(h, variance, friction)
    assert got == (pytest.approx(want, rel=1e-9) if 0 < want < 1e3 * variance else np.inf)


# The law S_(k+1) = A S_k A^T + Q of the kernel's own steps: after 2^30 of them by doubling, whatever the start.
@pytest.mark.parametrize("options", [{}, {"scheme": "exponential"}, {"scheme": "underdamped"}])
@pytest.mark.parametrize("variance", VARIANCES)
def test_a_long_run_of_the_kernels_own_steps_settles_at_the_stationary_variance(variance, options):
    kernel = langevin(1 / variance, **options)
    step, noise = linear_map(kernel, 0.15)
    for _ in range(30):
        step, noise = step @ step, step @ noise @ step.T + noise
    assert stationary_variance(kernel, 0.15, variance) == pytest.approx(noise[0, 0], rel=1e-11)


@pytest.mark.parametrize("options", [{}, {"scheme": "exponential", "variance": 2.0}, {"scheme": "underdamped"}])
def test_the_stationary_variance_is_infinite_from_the_limit_on(options):
    kernel = langevin(4.0, **options)
    limit = longest_step(kernel, lipschitz=4.0)
    assert np.isfinite(stationary_variance(kernel, 0.999 * limit, 0.25))
    assert stationary_variance(kernel, 1.001 * limit, 0.25) == np.inf
    assert stationary_variance(kernel, 5 * limit, 0.25) == np.inf


CHOSEN = [
    *((time, None, {}) for time in (0.01, 0.5, 3.0)),
    (0.5, 7.0, {}),
    *((time, None, {"scheme": "exponential"}) for time in (0.01, 0.5, 3.0)),
    *((0.5, 2.0, {"scheme": "exponential", "variance": v}) for v in (0.05, 0.4, 0.9, 2.0)),
    *((time, None, {"scheme": "underdamped"}) for time in (0.01, 0.5, 3.0)),
    *((0.5, 2.0, {"scheme": "underdamped", "friction": g}) for g in (0.1, 0.5, 1.0, 2.0, 4.0, 10.0)),
    *((0.5, c, {"scheme": "underdamped"}) for c in (0.5, 50.0)),
]


@pytest.mark.parametrize(("time", "curvature", "options"), CHOSEN)
def test_the_default_step_leaves_variances_wrong_by_five_per_cent_and_a_longer_one_by_more(time, curvature, options):
    h = default_step(langevin(1.0, time, **options), lipschitz=curvature)
    narrowest = sigma2(time) if curvature is None else 1 / curvature
    variances = narrowest * np.concatenate([1 + np.geomspace(1e-4, 1, 40), np.geomspace(1, 1e6, 160)])

    def wrong(h):
        match options.get("scheme", "plain"):
            case "plain":
                found = plain_variance(h, variances)
            case "exponential":
                found = exponential_variance(h, variances, options.get("variance", sigma2(time)))
            case "underdamped":
                found = [underdamped_variance(h, v, options.get("friction", 2.0)) for v in variances]
        return np.abs(np.asarray(found) / variances - 1).max()

    assert wrong(h) <= 0.05 + 1e-6
    assert wrong(1.02 * h) > 0.05


def test_the_default_curvature_is_that_of_data_without_variance():
    kernel = kernels.langevin(targets.gaussian([0.0], [0.0]).score, 0.3)
    assert longest_step(kernel) == pytest.approx(2 * sigma2(0.3), rel=1e-14)
    assert longest_step(kernel) == pytest.approx(numerical_limit(kernel, 0.01), rel=1e-9)
    assert default_step(kernel) == pytest.approx(2 * sigma2(0.3) * (1 - 1 / 1.05), rel=1e-9)


@pytest.mark.parametrize("lipschitz", [0.0, -1.0, np.inf, np.nan])
@pytest.mark.parametrize("question", [longest_step, default_step])
def test_a_lipschitz_constant_that_is_none_is_refused(question, lipschitz):
    with pytest.raises(ValueError, match="lipschitz is how fast the score falls at most, positive: lipschitz = "):
        question(langevin(1.0), lipschitz=lipschitz)


@pytest.mark.parametrize("question", [longest_step, default_step, lambda kernel: stationary_variance(kernel, 0.1, 1.0)])
def test_another_kernel_is_refused_by_name(question):
    with pytest.raises(ValueError, match=r"these limits are for kernels.langevin: the kernel is ddim"):
        question(kernels.ddim(lambda x, t: -x))
