"""Other clocks and other predictions: round trips, the laws they stand for, and models of three frameworks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import integrate

from jaxdiff import grids, kernels, noise, processes, sample, scores
from jaxdiff.processes import PREDICTIONS, Process, from_ou, model_from_score, ou, score_from_model, to_ou

# Signal and noise of every process at some of its times, from the defining equations: d log alpha/dt = -beta/2 for VP.
BETA = lambda t: 0.1 + 19.9 * t
BETAS = np.linspace(1e-4, 0.02, 1000)
KEPT = np.array([np.prod([1 - b for b in BETAS[: n + 1]]) for n in range(1000)])


def vp_linear(t):
    kept = np.exp(-integrate.quad(BETA, 0, t, epsabs=1e-15)[0])
    return np.sqrt(kept), np.sqrt(1 - kept)


def vp_cosine(t):
    kept = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    return np.sqrt(kept), np.sqrt(1 - kept)


CLOCKS = {
    "vp_linear": (processes.vp_linear(), vp_linear, (0.02, 0.4, 0.9)),
    "vp_cosine": (processes.vp_cosine(), vp_cosine, (0.02, 0.4, 0.9)),
    "ve": (processes.ve(), lambda t: (1.0, 0.01 * 5000**t), (0.1, 0.6, 0.8)),
    "edm": (processes.edm, lambda t: (1.0, t), (0.02, 1.0, 30.0)),
    "flow": (processes.flow, lambda t: (1 - t, t), (0.02, 0.5, 0.95)),
    "ddpm": (processes.ddpm(), lambda n: (np.sqrt(KEPT[int(n)]), np.sqrt(1 - KEPT[int(n)])), (3.0, 200.0, 900.0)),
}
LAW = np.array([0.3, 0.7]), np.array([-1.0, 0.5]), np.array([0.05, 0.2])
every_clock = pytest.mark.parametrize("name", CLOCKS)


@every_clock
def test_a_process_is_that_of_its_definition_and_its_time_is_the_inverse_of_its_snr(name):
    process, definition, times = CLOCKS[name]
    for t in times:
        alpha, sigma = definition(t)
        assert process.alpha(t) == pytest.approx(alpha, rel=1e-10)
        assert process.sigma(t) == pytest.approx(sigma, rel=1e-10)
        assert process.snr(t) == pytest.approx((alpha / sigma) ** 2, rel=1e-9)
        assert process.time(process.snr(t)) == pytest.approx(t, rel=1e-9)
        assert ou.snr(to_ou(process, t)) == pytest.approx(process.snr(t), rel=1e-9)
        assert from_ou(process, to_ou(process, t)) == pytest.approx(t, rel=1e-9)


# What an exact model of the process predicts for mixture data, by Bayes over the components at its own alpha and sigma.
def predicted(definition, t, y, kind):
    alpha, sigma = definition(t)
    weights, means, variances = (part[:, None] for part in LAW)
    total = alpha**2 * variances + sigma**2
    share = weights * np.exp(-((y - alpha * means) ** 2) / (2 * total)) / np.sqrt(total)
    share /= share.sum(0)
    denoiser = np.sum(share * (means + alpha * variances / total * (y - alpha * means)), axis=0)
    noise = (y - alpha * denoiser) / sigma
    return {
        "denoiser": denoiser,
        "noise": noise,
        "score": -np.sum(share * (y - alpha * means) / total, axis=0),
        "v": alpha * noise - sigma * denoiser,
        "flow": noise - denoiser,
    }[kind]


@every_clock
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_an_exact_model_of_a_process_has_the_score_of_the_ou_law_and_back(name, kind):
    process, definition, times = CLOCKS[name]
    y = np.linspace(-1.5, 1.5, 7)
    for own in times:
        t = to_ou(process, own)
        x = ou.sigma(t) / definition(own)[1] * y
        model = lambda y, at, own=own: jnp.asarray(predicted(definition, own, np.asarray(y)[:, 0], kind))[:, None]
        got = score_from_model(model, process, kind)(jnp.asarray(x)[:, None], t)
        np.testing.assert_allclose(got[:, 0], oracles.mixture_score(LAW, x, t), rtol=1e-7, atol=1e-8)
        score = lambda x, at, t=t: jnp.asarray(oracles.mixture_score(LAW, np.asarray(x)[:, 0], t))[:, None]
        back = model_from_score(score, process, kind)(jnp.asarray(y)[:, None], own)
        np.testing.assert_allclose(back[:, 0], predicted(definition, own, y, kind), rtol=1e-7, atol=1e-8)


@every_clock
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_model_in_float32_is_asked_in_float32_and_gives_its_score(name, kind):
    process, definition, times = CLOCKS[name]
    own = times[1]
    t, asked = to_ou(process, own), []

    def model(y, at):
        asked.append((y.dtype, at.dtype))
        return jnp.asarray(predicted(definition, own, np.asarray(y, np.float64)[:, 0], kind), jnp.float32)[:, None]

    x = np.linspace(-1, 1, 5)
    got = score_from_model(model, process, kind)(jnp.asarray(x, jnp.float32)[:, None], jnp.float32(t))
    assert asked == [(jnp.float32, jnp.float32)]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got[:, 0], oracles.mixture_score(LAW, x, t), rtol=1e-3, atol=1e-3)


@every_clock
def test_a_model_is_not_asked_beyond_its_times(name):
    process = CLOCKS[name][0]
    horizon, early_stop = processes.ou_ends(process)
    score = score_from_model(lambda y, t: 0 * y, process, "denoiser")
    at = lambda t: bool(jnp.isnan(score(jnp.ones((1, 2)), t)).any())
    assert not at(horizon)
    assert not at(early_stop)
    if horizon < processes.LATEST:
        assert at(1.01 * horizon)
    if early_stop > processes.EARLIEST:
        assert at(0.99 * early_stop)


def test_the_ends_of_the_clocks():
    ends = lambda process: processes.ou_ends(process)
    assert ends(processes.vp_linear()) == (pytest.approx(20.1 / 4), processes.EARLIEST)  # alpha = e^-(20.1/4)
    assert ends(processes.ve()) == pytest.approx((np.log1p(2500) / 2, np.log1p(1e-4) / 2))
    assert ends(processes.flow) == (processes.LATEST, processes.EARLIEST)
    assert ends(processes.edm) == (processes.LATEST, processes.EARLIEST)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_ddpms_table_come_back_whole(dtype):
    process, rows = processes.ddpm(), np.arange(1000)
    back = jax.vmap(lambda t: from_ou(process, t))(jnp.asarray(to_ou(process, rows), dtype))
    np.testing.assert_array_equal(np.asarray(back).astype(int), rows)
    np.testing.assert_array_equal(back, rows)
    assert from_ou(process, to_ou(process, 3.5)) == pytest.approx(3.5)


# A flow model's sampler starts at its time 1, pure noise, and may end at 0, pure data.
@pytest.mark.parametrize("kind", ["noise", "denoiser", "v", "flow"])
def test_models_made_of_scores_are_finite_at_both_ends(kind):
    score = lambda x, t: oracles.mixture_score(LAW, x, t)
    model = model_from_score(lambda x, t: -x / (1 + t), processes.flow, kind)
    y = jnp.array([[0.5], [-1.0]])
    assert bool(jnp.isfinite(model(y, 1.0)).all())
    assert bool(jnp.isfinite(model(y, 0.0)).all())
    exact = model_from_score(
        lambda x, t: jnp.asarray(score(np.asarray(x)[:, 0], float(t)))[:, None], processes.flow, kind
    )
    mean = LAW[0] @ LAW[1]  # at time 1 nothing is known of the data
    np.testing.assert_allclose(
        exact(y, 1.0)[:, 0],
        {"noise": y, "denoiser": mean + 0 * y, "v": -mean + 0 * y, "flow": y - mean}[kind][:, 0],
        atol=1e-6,
    )


def test_what_no_model_predicts_is_refused():
    with pytest.raises(ValueError, match="predicts = 'epsilon'"):
        score_from_model(lambda y, t: y, processes.edm, "epsilon")
    with pytest.raises(ValueError, match="decreases inside"):
        processes.ddpm([0.5, 0.6])
    with pytest.raises(TypeError, match="must be a Process"):
        score_from_model(lambda y, t: y, processes.vp_linear, "noise")


def test_a_rebuilt_process_is_the_same_object_so_that_nothing_recompiles():
    assert processes.vp_linear() is processes.vp_linear()
    assert processes.ddpm() is processes.ddpm(KEPT)


# Times that every dtype here can hold, so that the definition is asked at the very number.
WHOLE = {"vp_linear": [1], "vp_cosine": [0], "ve": [0, 1], "edm": [2, 30], "flow": [1], "ddpm": [200, 300, 999]}
SHORT = {"ddpm": [3.0, 200.0, 448.0]}  # the others at .25 and .5
INTEGERS = [np.int64, np.int32, np.uint16, jnp.int32, jnp.uint16, int]
NARROW = [jnp.bfloat16, jnp.float16]


def in_dtype(times, dtype):
    """The times one by one and as an array, NumPy's and JAX's."""
    if dtype is int:
        return [*((t, t) for t in times), (list(times), times)]
    scalars = [(make(t, dtype), t) for t in times for make in (lambda t, dtype: np.asarray(t, dtype)[()], jnp.asarray)]
    return [*scalars, (np.asarray(times, dtype), times), (jnp.asarray(times, dtype), times)]


def check_clock(name, times, rel):
    """Every function of a clock at times (as given, as numbers) against the definition."""
    process, definition, _ = CLOCKS[name]
    for given, number in times:
        alpha, sigma = np.transpose([definition(t) for t in np.atleast_1d(number)])
        close = {"rtol": rel, "atol": 1e-12}
        np.testing.assert_allclose(np.atleast_1d(process.alpha(given)), alpha, **close)
        np.testing.assert_allclose(np.atleast_1d(process.sigma(given)), sigma, **close)
        if (np.array(sigma) > 0).all():
            np.testing.assert_allclose(
                np.atleast_1d(process.snr(given)), (alpha / sigma) ** 2, rtol=4 * rel, atol=1e-12
            )
        if (np.array(alpha) > 1e-12).all() and (np.array(sigma) > 0).all():
            want = np.log1p((sigma / alpha) ** 2) / 2
            np.testing.assert_allclose(np.atleast_1d(to_ou(process, given)), want, rtol=4 * rel)


@every_clock
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_whole_numbers_are_times_like_any_other(name, dtype):
    check_clock(name, in_dtype(WHOLE[name], dtype), 2e-6)


@every_clock
@pytest.mark.parametrize("dtype", NARROW)
def test_16_bit_times_are_read_in_a_clock_of_at_least_32(name, dtype):
    times = in_dtype(SHORT.get(name, [0.25, 0.5]), dtype)
    check_clock(name, times, 3e-6)
    assert all(CLOCKS[name][0].alpha(given).dtype.itemsize >= 4 for given, _ in times)


def test_the_table_at_whole_times_has_its_published_values():
    process = processes.ddpm()
    for rows in (np.array([200, 300]), jnp.array([200, 300])):
        np.testing.assert_allclose(process.alpha(rows), [0.8102, 0.6277], atol=5e-5)
        np.testing.assert_allclose(to_ou(process, rows), [0.2105, 0.4657], atol=5e-5)
    jitted = jax.jit(lambda rows: to_ou(process, rows))
    np.testing.assert_allclose(jitted(jnp.array([200, 300])), [0.2105, 0.4657], atol=5e-5)


@every_clock
def test_whole_ou_times_and_whole_snrs_are_floats_too(name):
    process, definition, _ = CLOCKS[name]
    for one, t in ((1, 1.0), (np.int32(1), 1.0), (jnp.int32(1), 1.0), (np.array([1, 2]), [1.0, 2.0])):
        np.testing.assert_allclose(from_ou(process, one), from_ou(process, np.array(t)), rtol=1e-6)
    if name != "ddpm":
        alpha, sigma = definition(float(process.time(3)))
        assert (alpha / sigma) ** 2 == pytest.approx(3, rel=1e-9)
    model = score_from_model(lambda y, t: 0 * y, process, "noise")
    np.testing.assert_array_equal(model(jnp.ones((2, 1)), 1), model(jnp.ones((2, 1)), 1.0))


VARIANCE = 0.25


def exact_model(definition, own, kind, asked=None):
    """A model of N(0, 1/4) at one time, computed in float64 and returned in the dtype of y."""
    alpha, sigma = definition(own)

    def model(y, at):
        if asked is not None:
            asked.append((y.dtype, at.dtype))
        wide = y.astype(jnp.float64)
        total = alpha**2 * VARIANCE + sigma**2
        noise, denoiser = sigma * wide / total, alpha * VARIANCE * wide / total
        out = {
            "denoiser": denoiser,
            "noise": noise,
            "score": -wide / total,
            "v": alpha * noise - sigma * denoiser,
            "flow": noise - denoiser,
        }[kind]
        return out.astype(y.dtype)

    return model


# Late times, where sigma^2 of ve (50^2) and edm (500^2) is more than float16 holds: 65,504.
LATE = {"ve": 0.999, "edm": 500.0, "ddpm": 999.0, "vp_linear": 0.99, "vp_cosine": 0.99, "flow": 0.99}


@every_clock
@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("dtype", NARROW)
def test_models_in_16_bits_and_back(name, kind, dtype):
    process, definition, times = CLOCKS[name]
    for own in (times[1], LATE[name]):
        t, asked = to_ou(process, own), []
        variance = np.exp(-2 * t) * VARIANCE - np.expm1(-2 * t)
        x, eps = jnp.linspace(-3, 3, 7, dtype=dtype)[:, None], float(jnp.finfo(dtype).eps)
        got = score_from_model(exact_model(definition, own, kind, asked), process, kind)(x, jnp.float32(t))
        assert asked == [(dtype, jnp.float32)]
        assert got.dtype == dtype
        wide = np.asarray(x, np.float64)
        amplified = 1 / -np.expm1(-2 * t)  # of the rounding of x and of the prediction
        np.testing.assert_allclose(np.asarray(got, np.float64), -wide / variance, atol=8 * eps * amplified)
        alpha, sigma = definition(own)
        y = (x.astype(jnp.float64) * np.hypot(alpha, sigma)).astype(dtype)
        score = lambda x, at: (-x.astype(at.dtype) / (jnp.exp(-2 * at) * VARIANCE - jnp.expm1(-2 * at))).astype(x.dtype)
        back = model_from_score(score, process, kind)(y, jnp.float32(own))
        assert back.dtype == dtype
        want = exact_model(definition, own, kind)(y.astype(jnp.float64), jnp.float64(own))
        lost = 8 * np.sqrt(eps) * max(1, sigma if kind == "v" else 1)  # the denoiser's, late: see _FromScore
        np.testing.assert_allclose(np.asarray(back, np.float64), want, rtol=8 * eps, atol=lost)


# A flow from noise to data: X_t = t X_0 + (1 - t) Z, its data at time 1.
def rising(ends=(0.0, 1.0)):
    time = lambda snr: snr**0.5 / (1 + snr**0.5)
    return Process("rising", lambda t: t, lambda t: 1 - t, lambda t: (t / (1 - t)) ** 2, time, ends)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.1, 0.95)])
def test_a_process_may_run_from_noise_to_data(ends, key):
    process = rising(ends)
    noisy, clean = min(ends), max(ends)
    horizon, early_stop = processes.ou_ends(process)
    assert horizon == pytest.approx(min(np.log1p(((1 - noisy) / max(noisy, 1e-30)) ** 2) / 2, processes.LATEST))
    assert early_stop == pytest.approx(max(np.log1p(((1 - clean) / clean) ** 2) / 2, processes.EARLIEST))
    velocity = lambda y, t: (1 - t - VARIANCE * t) * y / (t**2 * VARIANCE + (1 - t) ** 2)  # noise - data
    score = score_from_model(velocity, process, "flow")
    x = jnp.linspace(-2, 2, 5)[:, None]
    for t in (0.06, 0.5, 2.0):
        total = np.exp(-2 * t) * VARIANCE - np.expm1(-2 * t)
        np.testing.assert_allclose(score(x, t), -x / total, rtol=1e-9)
        own = from_ou(process, t)
        exact = lambda x, at: -x / (jnp.exp(-2 * at) * VARIANCE - jnp.expm1(-2 * at))
        np.testing.assert_allclose(model_from_score(exact, process, "flow")(x, own), velocity(x, own), rtol=1e-9)
    grid = grids.log_snr(2.0, 0.06, 200)
    ratio = sample(kernels.heun(score), x, grid, key) / x  # of the law's deviations, by the ODE
    total = np.exp(-2 * grid) * VARIANCE - np.expm1(-2 * grid)
    np.testing.assert_allclose(ratio[np.array([0, 1, 3, 4])], np.sqrt(total[-1] / total[0]), rtol=1e-4)


FUNCTIONS = {"alpha": np.cos, "sigma": np.sin, "snr": lambda t: np.tan(t) ** -2, "time": lambda s: np.arctan(s**-0.5)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snr": lambda t: 1 / np.tan(t)}, r"snr must be alpha\^2/sigma\^2"),
        ({"time": lambda s: np.arctan(s**0.5)}, "time must be the inverse of snr"),
        ({"snr": lambda t: 0 * t - 1}, "snr must be positive"),
        ({"ends": (1.0, 1.0)}, r"two different numbers.*ends = \(1.0, 1.0\)"),
        ({"ends": (0.0, np.nan)}, "two different numbers"),
        ({"ends": (-np.inf, 0.0)}, "two different numbers"),
    ],
)
def test_a_process_that_contradicts_itself_is_refused(change, message):
    Process("angle", **FUNCTIONS, ends=(0.0, 1.5))
    with pytest.raises(ValueError, match=message):
        Process("angle", **{**FUNCTIONS, "ends": (0.0, 1.5), **change})


def test_what_is_no_function_of_a_time_is_refused_and_a_copy_is_equal():
    with pytest.raises(TypeError, match="sigma"):
        Process("angle", **{**FUNCTIONS, "sigma": 1.0})
    process = Process("angle", **FUNCTIONS, ends=(0.0, 1.5))
    again = Process("angle", **FUNCTIONS, ends=(0.0, 1.5))
    assert process == again == dataclasses.replace(process)
    assert hash(process) == hash(again)


def test_a_process_may_be_made_under_a_trace():
    def at(scale):
        process = Process(
            "scaled", lambda t: 0 * t + 1, lambda t: scale * t, lambda t: (scale * t) ** -2, lambda s: s**-0.5 / scale
        )
        return to_ou(process, 0.5)

    assert jax.jit(at)(3.0) == pytest.approx(np.log1p(2.25) / 2)


@pytest.mark.parametrize(
    ("process", "t", "message"),
    [
        (processes.edm, -1.0, "'edm' has times from 0 to inf: t = -1"),
        (processes.vp_linear(), 2.0, "'vp_linear' has times from 0 to 1: t = 2"),
        (processes.ddpm(), np.array([3, 1000]), "'ddpm' has times from 0 to 999: t = 1000"),
        (processes.ddpm(), -1, "t = -1"),
        (processes.flow, jnp.array([0.5, 1.01], jnp.float32), "t = 1.01"),
        (processes.flow, np.nan, "t = nan"),
    ],
)
def test_times_that_a_process_does_not_have_are_refused(process, t, message):
    with pytest.raises(ValueError, match=message):
        to_ou(process, t)


@pytest.mark.parametrize(
    ("process", "t", "message"),
    [
        (processes.vp_linear(), 5.1, r"OU time 5.1.* 'vp_linear' has OU times from 1e-12 to 5.025.*own times 0 to 1"),
        (processes.ve(), np.array([1.0, 1e-6]), "OU time 1e-06.* 've' has OU times from 4.99975e-05"),
        (processes.ddpm(), jnp.asarray(9.0), "OU time 9.* 'ddpm'"),
        (processes.edm, np.nan, "OU time nan"),
    ],
)
def test_ou_times_that_a_process_does_not_have_are_refused(process, t, message):
    with pytest.raises(ValueError, match=message):
        from_ou(process, t)


def test_ou_times_across_an_end_by_rounding_and_traced_ones_are_trusted():
    process = processes.vp_linear()
    horizon, _ = processes.ou_ends(process)
    for t in (jnp.float32(horizon), jnp.asarray(horizon, jnp.bfloat16), horizon * (1 + 1e-6)):
        assert from_ou(process, t) == pytest.approx(1, rel=1e-2)
    assert jax.jit(lambda t: from_ou(process, t))(6.0) == pytest.approx((-0.1 + np.sqrt(0.01 + 4 * 19.9 * 6)) / 19.9)

    def own(scale):  # sigma = scale t, so that t = sqrt(e^2 - 1)/scale at OU time 1
        scaled = Process(
            "scaled", lambda t: 0 * t + 1, lambda t: scale * t, lambda t: (scale * t) ** -2, lambda s: s**-0.5 / scale
        )
        return from_ou(scaled, 1.0)

    assert jax.jit(own)(3.0) == pytest.approx(np.sqrt(np.expm1(2)) / 3)


# sigma = sin, alpha = cos, in jax.numpy: under a trace its values are traced, even of numbers.
def test_a_process_in_jax_numpy_is_asked_under_a_trace(key):
    process = Process(
        "angle", jnp.cos, jnp.sin, lambda t: jnp.tan(t) ** -2, lambda s: jnp.arctan(s**-0.5), ends=(0.1, 1.4)
    )
    ends = np.log1p(np.tan([1.4, 0.1]) ** 2) / 2
    assert processes.ou_ends(process) == pytest.approx(tuple(ends), rel=1e-6)
    score = score_from_model(lambda y, t: -y, process, "score")  # of N(0, 1): sigma^2 + alpha^2 = 1
    x = jnp.asarray([[0.5], [-2.0]])
    np.testing.assert_allclose(jax.jit(score)(x, 0.5), -x, rtol=1e-6)
    assert jnp.isnan(jax.jit(score)(x, 1.01 * ends[0])).all()
    grid = grids.log_snr(1.5, 0.01, 4)
    alpha, sigma = np.exp(-grid), np.sqrt(-np.expm1(-2 * grid))
    factor = np.prod(alpha[1:] * alpha[:-1] + sigma[1:] * sigma[:-1])  # of DDIM on N(0, 1)
    np.testing.assert_allclose(jax.jit(lambda x: sample(kernels.ddim(score), x, grid, key))(x), factor * x, rtol=1e-6)
    assert jax.jit(lambda x: x * processes.ou_ends(process)[0])(1.0) == pytest.approx(ends[0])
    with pytest.raises(ValueError, match="'angle' has OU times"):
        jax.jit(lambda x: sample(kernels.ddim(score), x, [3.0, 1.0], key))(x)


# The time of a process is DEIS's variable alone. On a constant predicted noise every order is exact: with z kept in
# x = alpha m + sigma z, a step's weights add up to sigma' - sigma alpha'/alpha.
def test_deis_goes_beyond_the_ends_of_the_process_in_whose_time_it_interpolates():
    process, grid = processes.vp_linear(), grids.log_snr(7.0, 1e-3, 8)
    assert grid[0] > processes.ou_ends(process)[0]
    row = kernels.deis(lambda x, t: -x, 3, process=process).coefficients(grid)
    sigma, alpha = np.sqrt(-np.expm1(-2 * grid)), np.exp(-grid)
    due = sigma[1:] - sigma[:-1] * alpha[1:] / alpha[:-1]
    np.testing.assert_allclose(row.weights.sum(-1), due, rtol=1e-9)


def test_rounding_across_an_end_is_the_end_and_traced_times_are_trusted():
    assert to_ou(processes.vp_linear(), 1 + 1e-7) == to_ou(processes.vp_linear(), 1.0)
    assert to_ou(processes.edm, -1e-9) == processes.EARLIEST
    assert to_ou(processes.flow, np.float32(1 + 1e-6)) == processes.LATEST
    beyond = jax.jit(lambda t: to_ou(processes.vp_linear(), t))(2.0)
    assert beyond == pytest.approx((0.1 * 2 + 19.9 * 2) / 2)


def test_the_range_of_a_score_is_seen_through_the_packages_own_wrappers():
    process = processes.ddpm()
    score = score_from_model(lambda y, t: y, process, "noise")
    ends = processes.ou_ends(process)
    denoiser = processes.denoiser_from_score(score)
    wrapped = [
        *(score, denoiser, processes.noise_from_score(score), scores.truncated(score, 2.0)),
        processes.score_from_denoiser(processes.clipped(denoiser, 2.0)),
    ]
    assert [processes.range_of(one) for one in wrapped] == [ends] * len(wrapped)
    inner = model_from_score(score, processes.flow, "flow")  # a model in another time: the outer process counts
    assert processes.range_of(score_from_model(inner, processes.vp_linear(), "flow")) == processes.ou_ends(
        processes.vp_linear()
    )
    for other in (inner, lambda x, t: score(x, t), jax.tree_util.Partial(lambda x, t: -x), processes.edm):
        assert processes.range_of(other) is None


# Lin et al. 2023, algorithm 1: the table's sqrt(alpha^2) shifted and scaled so that it ends at 0 and begins as before.
def zero_terminal():
    root = np.sqrt(KEPT)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_table_that_ends_in_pure_noise_keeps_its_rows(dtype):
    table = zero_terminal()
    assert table[-1] == 0
    process, rows = processes.ddpm(table.astype(dtype)), np.arange(1000)
    np.testing.assert_allclose(process.alpha(rows[:-1]) ** 2, table[:-1], rtol=1e-4 if dtype == np.float32 else 1e-9)
    assert process.alpha(999) ** 2 == pytest.approx(table[-2] / 4, rel=1e-4)
    back = jax.vmap(lambda t: from_ou(process, t))(jnp.asarray(to_ou(process, rows), dtype))
    np.testing.assert_array_equal(back, rows)
    assert processes.ddpm([0.9, 0.1, 0.0]).alpha(2) ** 2 == pytest.approx(2.0**-24)
    for wrong in ([0.9, 0.0, 0.0], [0.9, -0.1], [1.0, 0.5], [0.5, np.nan]):
        with pytest.raises(ValueError, match="decreases inside"):
            processes.ddpm(wrong)


def schedule(name):
    """A process that begins in pure noise, its schedule from there to the data, and alpha, sigma along it."""
    if name == "flow":
        own = np.linspace(1, 0, 11)
        return processes.flow, own, 1 - own, own
    own, kept = np.arange(999, -1, -111), zero_terminal()
    return processes.ddpm(kept), own, np.sqrt(kept[own]), np.sqrt(1 - kept[own])


# DDIM in NumPy from pure noise itself, alpha = 0: y' = alpha' m + sigma' n, of N(MEAN, 1/4). For flow this is Euler's.
MEAN = 1.5


@pytest.mark.parametrize("name", ["flow", "ddpm"])
@pytest.mark.parametrize("kind", ["denoiser", "v", "flow"])
def test_a_schedule_from_pure_noise_samples_as_from_there(name, kind, key):
    process, own, alphas, sigmas = schedule(name)

    def model(y, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        total = alpha**2 * VARIANCE + sigma**2
        denoiser = MEAN + alpha * VARIANCE / total * (y - alpha * MEAN)
        noise = sigma / total * (y - alpha * MEAN)
        return {"denoiser": denoiser, "v": alpha * noise - sigma * denoiser, "flow": noise - denoiser}[kind]

    x = jnp.linspace(-3, 3, 7, dtype=jnp.float32)[:, None]
    y = np.asarray(x, np.float64)
    for k in range(len(own) - 1):
        total = alphas[k] ** 2 * VARIANCE + sigmas[k] ** 2
        noise = sigmas[k] / total * (y - alphas[k] * MEAN)
        denoiser = MEAN + alphas[k] * VARIANCE / total * (y - alphas[k] * MEAN)
        y = alphas[k + 1] * denoiser + sigmas[k + 1] * noise
    grid = grids.from_process(process, own)
    assert len(grid) == len(own)
    got = sample(kernels.ddim(score_from_model(model, process, kind)), x, grid, key)
    np.testing.assert_allclose(got, y, atol=2e-3)  # e^-8.3 = 2.4e-4 times the slope of the map


@pytest.mark.parametrize("name", ["flow", "ddpm"])
def test_pure_noise_itself_is_refused_with_the_remedy(name, key):
    process, own, _, _ = schedule("flow") if name == "flow" else (processes.ddpm([0.9, 0.5, 0.2, 0.0]), [3, 0], 0, 0)
    score, x = score_from_model(lambda y, t: 0 * y, process, "flow"), jnp.ones((2, 1), jnp.float32)
    if name == "flow":
        with pytest.raises(ValueError, match=r"grids\.from_process\(process, times\)"):
            sample(kernels.ddim(score), x, to_ou(process, own), key)
    assert jnp.isfinite(sample(kernels.ddim(score), x, grids.from_process(process, own), key)).all()


# Models of N(0, 4 I) in three frameworks, each exact: the noise of EDM's process is y t/(4 + t^2).
def _linen():
    from flax import linen

    class Noise(linen.Module):
        @linen.compact
        def __call__(self, y, t):
            return self.param("gain", lambda key: jnp.ones((), jnp.float32)) * y * t / (4 + t**2)

    module, y = Noise(), jnp.ones((1, 2), jnp.float32)
    return jax.tree_util.Partial(module.apply, module.init(jax.random.key(0), y, jnp.float32(1)))


def _nnx():
    from flax import nnx

    class Noise(nnx.Module):
        def __init__(self):
            self.gain = nnx.Param(jnp.ones((), jnp.float32))

        def __call__(self, y, t):
            return self.gain[...] * y * t / (4 + t**2)

    graph, state = nnx.split(Noise())
    return jax.tree_util.Partial(lambda state, y, t: nnx.merge(graph, state)(y, t), state)


def _equinox():
    import equinox

    class Noise(equinox.Module):
        gain: jax.Array

        def __call__(self, y, t):
            return self.gain * y * t / (4 + t**2)

    return Noise(jnp.ones((), jnp.float32))


@pytest.mark.parametrize("framework", [_linen, _nnx, _equinox])
def test_a_model_of_another_framework_is_sampled_from_in_five_lines(framework):
    model = framework()
    score = score_from_model(model, processes.edm, "noise")
    grid = grids.log_snr(to_ou(processes.edm, 40.0), to_ou(processes.edm, 0.02), 40)
    x = noise.initial(jax.random.key(0), jnp.arange(20_000), 2)
    x = sample(kernels.unipc(score), x, grid, jax.random.key(1)) / float(ou.alpha(grid[-1]))
    n = x.size
    assert abs(float(jnp.mean(x**2)) - 4.0004) < 5 * 4 * np.sqrt(2 / n)
