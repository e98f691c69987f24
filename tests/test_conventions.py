"""Other clocks and other predictions: round trips, the laws they stand for, and models of three frameworks."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import integrate

from jaxdiff import grids, kernels, noise, processes, sample
from jaxdiff.processes import PREDICTIONS, from_ou, model_from_score, ou, score_from_model, to_ou

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
