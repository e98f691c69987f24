"""sample: the law of its output, one compilation, batch invariance, gradients, and what it refuses."""

import functools
import inspect
import warnings

import chex
import family
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.tree_util import Partial

from jaxdiff import grids, information, kernels, noise, processes, targets
from jaxdiff.planning.plan import plan
from jaxdiff.sampling.compiled import recent
from jaxdiff.sampling.run_checks import warn_of_wrong_jax
from jaxdiff.sampling.sample import sample, sample_in_turn, trajectory

GRID = grids.exponential_then_uniform(3, 0.05, 8)
REVERSE = ["ancestral", "ddim", "exponential_euler", "moment_matched"]


def make(name, law):
    extra = {"moment_matched": (law.mmse,), "langevin": (0.7,)}.get(name, ())
    return getattr(kernels, name)(law.score, *extra)


def grid_of(name):
    return np.linspace(0.8, 0, 9) if name == "langevin" else GRID


@pytest.mark.parametrize(("dim", "dtype"), [(1, np.float64), (64, np.float32)])
@pytest.mark.parametrize("name", ["exponential_euler", "ancestral", "ddim", "langevin"])
def test_output_on_a_diagonal_gaussian_has_the_closed_form_law(name, dim, dtype, key):
    n, mean, variances = 20_000, np.linspace(-0.5, 1.5, dim), np.linspace(1.4, 0.2, dim)
    law, grid = targets.gaussian(mean, variances), grid_of(name)
    key_start, key_run = jax.random.split(key)
    out = np.asarray(sample(make(name, law), jax.random.normal(key_start, (n, dim), dtype), grid, key_run))
    assert out.dtype == dtype
    for i in range(dim):
        expected, variance = oracles.chain_law(name, grid, mean[i], variances[i], 0.0, 1.0, time=0.7)
        assert abs(out[:, i].mean() - expected) < 5 * np.sqrt(variance / n)
        assert abs(out[:, i].var() - variance) < 5 * variance * np.sqrt(2 / n)


@pytest.mark.parametrize("dim", [1, 64])
def test_moment_matched_output_on_an_isotropic_gaussian_has_the_closed_form_law(dim, key):
    n, law = 20_000, targets.gaussian(np.full(dim, 0.3), np.full(dim, 0.5))
    key_start, key_run = jax.random.split(key)
    out = np.asarray(sample(make("moment_matched", law), jax.random.normal(key_start, (n, dim)), GRID, key_run))
    expected, variance = oracles.chain_law("moment_matched", GRID, 0.3, 0.5, 0.0, 1.0)
    assert np.abs(out.mean(0) - expected).max() < 5 * np.sqrt(variance / n)
    assert np.abs(out.var(0) - variance).max() < 5 * variance * np.sqrt(2 / n)


@pytest.mark.parametrize("name", family.BY_STATE)
def test_sample_is_the_loop_of_steps_with_the_documented_noise(name, key):
    kernel, x = family.make(name), jnp.array([[0.1, -2.0], [1.0, 0.3], [0.0, 0.5]])
    grid, m = family.grid_of(kernel), kernel.noises_per_step
    got, table, state = sample(kernel, x, grid, key), kernel.coefficients(grid), kernel.init(x)
    step = jax.jit(kernel.step)
    for k in range(len(grid) - 1):
        row = jax.tree.map(lambda column, k=k: jnp.asarray(column[k]), table)
        increments = [noise.normal(key, np.arange(3, dtype=np.uint32), k * m + i, 2, x.dtype) for i in range(m)]
        state = step(kernel.score, state, row, (*increments, None)[0] if m < 2 else jnp.stack(increments))
    np.testing.assert_allclose(got, kernel.position(state), rtol=1e-11)


@pytest.mark.parametrize("name", family.BY_STATE)
def test_a_particle_does_not_depend_on_its_batch(name, key):
    kernel = family.make(name, targets.gaussian([0.0, 1.0], [0.5, 2.0]).score)
    grid, x = family.grid_of(kernel), jax.random.normal(jax.random.key(9), (700, 2), jnp.float64)
    whole = sample(kernel, x, grid, key)
    np.testing.assert_allclose(whole[:3], sample(kernel, x[:3], grid, key), rtol=0, atol=1e-13)


@pytest.mark.bits
@pytest.mark.parametrize("name", ["ancestral", "deis 2", "langevin, underdamped"])
def test_no_bit_of_a_particle_depends_on_its_batch(name, key):
    kernel = family.make(name, targets.gaussian([0.0, 1.0], [0.5, 2.0]).score)
    grid, x = family.grid_of(kernel, 5), jax.random.normal(jax.random.key(9), (7, 2), jnp.float32)
    np.testing.assert_array_equal(sample(kernel, x, grid, key)[:3], sample(kernel, x[:3], grid, key))


def test_no_particles_stay_none(key):
    law = targets.gaussian([0.0, 0.0], [1.0, 0.5])
    assert sample(make("ancestral", law), jnp.ones((0, 2)), GRID, key).shape == (0, 2)


def test_old_style_keys_work_and_progress_changes_nothing(key, capsys):
    kernel, x = make("ancestral", targets.gaussian([0.0], [0.5])), jnp.ones((4, 1))
    grid = grids.log_snr(3, 0.01, 45)
    plain = sample(kernel, x, grid, key)
    np.testing.assert_array_equal(plain, sample(kernel, x, grid, jax.random.key_data(key)))
    np.testing.assert_allclose(plain, sample(kernel, x, grid, key, progress=True), rtol=1e-13)


def test_jit_vmap_and_a_traced_grid_agree_with_the_plain_call(key):
    kernel, x = make("exponential_euler", targets.gaussian([0.0, 0.0], [0.5, 2.0])), jnp.ones((5, 2))
    plain = sample(kernel, x, GRID, key)
    np.testing.assert_allclose(plain, jax.jit(lambda x, key: sample(kernel, x, GRID, key))(x, key), rtol=1e-13)
    np.testing.assert_allclose(plain, jax.jit(lambda grid: sample(kernel, x, grid, key))(GRID), rtol=1e-13)
    np.testing.assert_allclose(plain, jax.jit(sample, static_argnums=())(kernel, x, GRID, key), rtol=1e-13)
    keys = jax.random.split(key, 3)
    many = jax.vmap(lambda key: sample(kernel, x, GRID, key))(keys)
    for one, alone in zip(keys, many, strict=True):
        np.testing.assert_allclose(alone, sample(kernel, x, GRID, one), rtol=1e-13)


def linear(parameters, x, t):
    return -parameters * x


def test_new_parameters_keys_and_grids_do_not_recompile(key):
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(linear, n=2)  # the shape check and the compilation
    compiled = recent.compiled()
    for parameter, horizon in ((0.5, 3.0), (0.7, 2.0), (0.9, 4.0)):
        kernel = kernels.ancestral(Partial(counted, jnp.asarray(parameter)))
        grid = grids.log_snr(horizon, 0.01, 11)
        sample(kernel, jnp.ones((3, 2)), grid, jax.random.fold_in(key, int(10 * horizon)))
    assert recent.compiled() == compiled + 1


def test_gradients_reach_the_parameters_and_the_grid(key):
    x = jnp.ones((50, 1))

    def spread(parameter, grid):
        return jnp.mean(sample(kernels.exponential_euler(Partial(linear, parameter)), x, grid, key) ** 2)

    gradient, along_grid = jax.grad(spread, argnums=(0, 1))(jnp.asarray(0.8), jnp.asarray(GRID))
    h = 1e-6
    difference = (spread(0.8 + h, jnp.asarray(GRID)) - spread(0.8 - h, jnp.asarray(GRID))) / (2 * h)
    assert float(gradient) == pytest.approx(float(difference), rel=1e-6)
    bump = jnp.zeros(len(GRID)).at[3].set(h)
    difference = (spread(0.8, GRID + bump) - spread(0.8, GRID - bump)) / (2 * h)
    assert float(along_grid[3]) == pytest.approx(float(difference), rel=1e-5)


@pytest.mark.parametrize(
    ("x", "grid", "message"),
    [
        (np.ones(3), GRID, "particles, d"),
        (np.ones((4, 3)), GRID, "width 3"),
        (np.ones((4, 2)), GRID[::-1], r"Pass grid\[::-1\]"),
        (np.ones((4, 2)), [1.0, 0.5, 0.5], r"grid\[1\] = 0.5 <= grid\[2\]"),
        (np.ones((4, 2)), [1.0, 0.0], r"grid\[1\] = 0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(x, grid, message, key):
    with pytest.raises(ValueError, match=message) as caught:
        sample(kernels.ancestral(targets.gaussian([0.0, 0.0], [1.0, 1.0]).score), x, grid, key)
    assert "\n" not in str(caught.value)


def test_what_is_not_a_kernel_a_grid_or_a_key_is_named(key):
    law = targets.gaussian([0.0], [0.5])
    kernel, x = make("ancestral", law), jnp.ones((3, 1))
    with pytest.raises(TypeError, match=r"kernel must come from jaxdiff\.kernels"):
        inspect.unwrap(sample)(law.score, x, GRID, key)  # without jaxtyping's own check
    with pytest.raises(TypeError, match=r"pass plan\.grid"):
        sample(kernel, x, plan(evals=2, target=law), key)
    with pytest.raises(TypeError, match=r"key must be one JAX key.* it is 0"):
        sample(kernel, x, GRID, 0)


def test_integers_and_scores_of_another_shape_are_refused(key):
    with pytest.raises(TypeError, match="float"):
        sample(kernels.ancestral(lambda x, t: -x), np.ones((4, 2), int), GRID, key)
    with pytest.raises(ValueError, match="score returns"):
        sample(kernels.ancestral(lambda x, t: -x[:, :1]), np.ones((4, 2)), GRID, key)


def test_the_wrong_jax_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(jax, "__version__", "0.10.2")
    warn_of_wrong_jax.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"0\.10\.2 .*pip install"):
        warn_of_wrong_jax()
    monkeypatch.setattr(jax, "__version__", "0.10.1")
    warn_of_wrong_jax.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_wrong_jax()
    warn_of_wrong_jax.cache_clear()


def test_a_donated_x_is_deleted_and_no_other(key):
    kernel, x = make("ancestral", targets.gaussian([0.0, 1.0], [0.5, 2.0])), noise.initial(key, jnp.arange(1000), 2)
    kept = sample(kernel, x, GRID, key)
    for watched in (False, True):
        np.testing.assert_array_equal(sample(kernel, x, GRID, key, progress=watched), kept)
        given = jnp.copy(x)
        np.testing.assert_array_equal(sample(kernel, given, GRID, key, progress=watched, donate=True), kept)
        assert given.is_deleted()
        assert not x.is_deleted()


@pytest.mark.bits
@pytest.mark.parametrize(
    ("name", "n_steps"),  # seeds has several increments too
    [(name, 7) for name in family.BY_STATE if name != "predictor_corrector"] + [("sa_solver", 1), ("seeds", 2)],
)
def test_the_bar_changes_no_bit_and_says_how_far_it_is(name, n_steps, key, capsys):
    kernel, x = family.make(name), noise.initial(key, jnp.arange(300), 2)
    grid = family.grid_of(kernel, n_steps)
    plain = sample(kernel, x, grid, key)
    np.testing.assert_array_equal(sample(kernel, x, grid, key, progress=True), plain)
    shown = capsys.readouterr().err
    assert f"{n_steps}/{n_steps}" in shown
    assert kernel.name in shown


@pytest.mark.parametrize("name", ["sa_solver", "langevin, underdamped"])
def test_a_bar_walks_states_of_many_leaves_in_chunks(name, key):
    kernel, x = family.make(name), noise.initial(key, jnp.arange(300), 2, jnp.float64)
    grid = family.grid_of(kernel, 7)
    watched = sample(kernel, x, grid, key, progress=True, chunk=70)
    np.testing.assert_allclose(watched, sample(kernel, x, grid, key), rtol=1e-11, atol=1e-13)


def test_chunks_and_first_particles_of_equal_length_do_not_recompile(key):
    kernel, x = make("ancestral", targets.gaussian([0.0, 1.0], [0.5, 2.0])), jnp.zeros((50, 2))
    sample(kernel, x, GRID, key, chunk=7)
    compiled = recent.compiled()
    sample(kernel, x, GRID, jax.random.key(5), chunk=7, first_particle=2**33)
    assert recent.compiled() == compiled


@pytest.mark.parametrize("name", ["exponential_euler", "ddim"])  # with noise and without
def test_gradients_do_not_depend_on_the_chunk(name, key):
    law = targets.mixture([0.3, 0.7], [[0.0, 1.0], [1.0, -1.0]], [[0.1, 0.2], [0.3, 0.1]])
    x = noise.initial(key, jnp.arange(20), 2, jnp.float64)

    @functools.partial(jax.jit, static_argnums=2)
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(shift, x, chunk):
        kernel = getattr(kernels, name)(Partial(lambda shift, x, t: law.score(x - shift, t), shift))
        return jnp.sum(jnp.cos(sample(kernel, x, GRID, key, chunk=chunk)))

    _, whole = loss(0.1, x, 20)
    h = 1e-6
    difference = (loss(0.1 + h, x, 20)[0] - loss(0.1 - h, x, 20)[0]) / (2 * h)
    assert float(whole[0]) == pytest.approx(float(difference), rel=1e-6)
    for chunk in (1, 6):
        _, parts = loss(0.1, x, chunk)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), parts, whole)


@pytest.mark.parametrize(("n_steps", "chunk"), [(100, 16_000), (400, 16_000), (400, 1000)])
def test_a_gradient_holds_one_state_for_every_second_step_of_a_chunk(n_steps, chunk, key):
    n, d = 16_000, 8
    tanh = Partial(lambda w, x, t: jnp.tanh(w * x) - x, jnp.float32(0.5))
    kernel, grid = kernels.exponential_euler(tanh), grids.uniform(3, 0.1, n_steps)
    loss = lambda x: jnp.sum(sample(kernel, x, grid, key, chunk=chunk) ** 2)
    compiled = jax.jit(jax.grad(loss)).lower(jax.ShapeDtypeStruct((n, d), jnp.float32)).compile()
    used, state = compiled.memory_analysis().temp_size_in_bytes, 4 * d
    assert used < (n_steps / 2 + 16) * chunk * state + 4 * n * state


@pytest.mark.parametrize(
    ("dtype", "longest"), [(np.float32, 9.03), (np.float64, 29.1), (jnp.bfloat16, 9.03), (jnp.float16, 9.03)]
)
def test_steps_so_long_that_they_amplify_rounding_are_refused(dtype, longest, key):
    kernel, x = make("ancestral", targets.gaussian([0.0], [0.3])), jnp.ones((4, 1), dtype)
    for horizon in (longest - 0.1, longest + 0.1):
        grid = [horizon + 0.5, 0.5, 0.1]
        if horizon < longest:
            assert sample(kernel, x, grid, key).dtype == dtype
        else:
            with pytest.raises(ValueError, match=rf"a step of OU time {horizon:.3g}"):
                sample(kernel, x, grid, key)


def ddpm_score():
    process = processes.ddpm()
    return processes.score_from_model(lambda y, t: 0 * y, process, "denoiser"), *processes.ou_ends(process)


@pytest.mark.parametrize("name", ["heun", "randomized_midpoint"])
def test_a_model_is_not_asked_below_its_first_time(name, key):
    score, horizon, early_stop = ddpm_score()
    kernel, x, grid = getattr(kernels, name)(score), jnp.ones((3, 1)), np.geomspace(horizon, early_stop, 5)
    assert jnp.isfinite(sample(kernel, x, grid, key)).all()
    with pytest.raises(ValueError, match=r"OU time 1e-05, .* 'ddpm' .* own times 0 to 999.*ou_ends"):
        sample(kernel, x, [*grid, 1e-5], key)


def test_kernels_of_one_evaluation_may_end_below_a_models_first_time(key):
    score, horizon, early_stop = ddpm_score()
    grid, x = np.geomspace(horizon, early_stop, 5), jnp.ones((3, 1))
    for kernel in (kernels.ddim(score), kernels.unipc(score)):
        assert jnp.isfinite(sample(kernel, x, [*grid, 1e-5], key)).all()
        with pytest.raises(ValueError, match="asked at OU time 1e-05"):
            sample(kernel, x, [*grid, 1e-5, 1e-6], key)
        with pytest.raises(ValueError, match=f"asked at OU time {1.01 * horizon:.6g}"):
            sample(kernel, x, [1.01 * horizon, *grid[1:]], key)
    traced = jax.jit(lambda grid: sample(kernels.ddim(score), x, grid, key))
    assert jnp.isnan(traced(np.array([*grid, 1e-5, 1e-6]))).all()  # no sentence, but no number either


def test_times_that_stand_in_the_table_alone_are_checked_too(key):
    score, horizon, early_stop = ddpm_score()
    x, grid = jnp.ones((3, 1)), np.geomspace(horizon, early_stop, 5)
    with pytest.raises(ValueError, match="asked at OU time 1e-05"):
        sample(kernels.langevin(score, 1e-5), x, [1e-6, 0.0], key)
    lifted = f"asked at OU time {horizon + np.log(2) / 2:.3f}"  # churn raises sigma/alpha by at most sqrt(2) a step
    with pytest.raises(ValueError, match=lifted):
        sample(kernels.heun(score, churn=2.0), x, grid, key)
    assert jnp.isfinite(sample(kernels.langevin(score, 0.5), x, [0.5, 0.0], key)).all()


SHORT = [jnp.bfloat16, jnp.float16]


def wide(x):
    return x.astype(jnp.float32)


# The velocity of the ODE of N(0, 1) is 0: particles stay where they are, to the rounding of 2,000 float32 steps.
@pytest.mark.parametrize("dtype", SHORT)
def test_thousands_of_small_steps_do_not_round_away_16_bits(dtype, key):
    x = noise.initial(key, jnp.arange(4000), 1, dtype)
    out = sample(kernels.unipc(lambda x, t: -x), x, grids.log_snr(5.0, 1e-3, 2000), key)
    assert out.dtype == dtype
    np.testing.assert_allclose(wide(out), wide(x), rtol=2 * float(jnp.finfo(dtype).eps), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype"), [("ancestral", jnp.bfloat16), ("langevin", jnp.bfloat16), ("ddim", jnp.float16)]
)
def test_16_bits_have_the_closed_form_law(name, dtype, key):
    n, mean, variances = 20_000, np.array([-0.5, 1.5]), np.array([1.4, 0.2])
    law, grid = targets.gaussian(mean, variances), grid_of(name)
    out = sample(make(name, law), noise.initial(key, jnp.arange(n), 2, dtype), grid, key)
    assert out.dtype == dtype
    for i in range(2):
        expected, variance = oracles.chain_law(name, grid, mean[i], variances[i], 0.0, 1.0, time=0.7)
        values = np.asarray(out[:, i], np.float64)
        assert abs(values.mean() - expected) < 5 * np.sqrt(variance / n)
        assert abs(values.var() - variance) < 5 * variance * np.sqrt(2 / n)


STATES = ["moment_matched in a rotation", "unipc 2", "langevin, underdamped", "seeds"]


@pytest.mark.parametrize("name", STATES)  # one kernel of each kind of state
def test_every_state_of_16_bits_is_that_of_float32_and_rounded_once(name, key):
    kernel, x = family.make(name), noise.initial(key, jnp.arange(50), 2, jnp.bfloat16)
    grid = family.grid_of(kernel, 5)
    got = sample(kernel, x, grid, key)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(wide(got), wide(sample(kernel, wide(x), grid, key).astype(jnp.bfloat16)))


# Without noise, which compiles for longest. float16 holds here what bfloat16 does.
def test_every_way_of_running_rounds_16_bits_at_the_ends_alone(key, capsys):
    kernel, grid = make("ddim", targets.gaussian([0.5, -1.0], [1.4, 0.2])), grids.log_snr(3, 0.02, 7)
    x, stages = noise.initial(key, jnp.arange(300), 2, jnp.bfloat16), [(kernel, grid[:4]), (kernel, grid[3:])]
    ways = {
        "at once": lambda x: sample(kernel, x, grid, key),
        "in chunks": lambda x: sample(kernel, x, grid, key, chunk=70),
        "watched": lambda x: sample(kernel, x, grid, key, progress=True),
        "in turn": lambda x: sample_in_turn(stages, x, key),
        "trajectory": lambda x: trajectory(kernel, x, grid, key, grid[[0, 4, 7]]),
    }
    due = {name: run(wide(x)) for name, run in ways.items()}
    for dtype, names in ((jnp.bfloat16, ways), (jnp.float16, ["at once", "trajectory"])):
        for name in names:
            got = ways[name](x.astype(dtype))
            assert got.dtype == dtype
            np.testing.assert_array_equal(wide(got), wide(due[name].astype(dtype)), err_msg=name)
    got = jax.jit(ways["at once"])(x)
    np.testing.assert_array_equal(wide(got), wide(due["at once"].astype(x.dtype)))
    for watched in (False, True):
        given = jnp.copy(x)
        got = sample(kernel, given, grid, key, donate=True, progress=watched)
        np.testing.assert_array_equal(wide(got), wide(due["at once"].astype(x.dtype)))
        assert given.is_deleted()


def test_a_gradient_goes_through_16_bits(key):
    x = noise.initial(key, jnp.arange(50), 2, jnp.bfloat16)
    spread = lambda parameter, x: jnp.mean(
        sample(kernels.ancestral(Partial(linear, parameter)), x, GRID, key).astype(jnp.float32) ** 2
    )
    got, due = (jax.grad(spread)(jnp.float32(0.8), start) for start in (x, wide(x)))
    assert float(got) == pytest.approx(float(due), rel=0.01)


# X_t of N(0, v) given its own noise: E[Z | y] = sigma y/(alpha^2 v + sigma^2).
@pytest.mark.parametrize(
    ("process", "dtype"),
    [
        *((process, jnp.bfloat16) for process in (processes.ddpm(), processes.vp_linear(), processes.flow)),
        *((process, jnp.float16) for process in (processes.ve(), processes.edm)),
    ],
    ids=lambda given: getattr(given, "name", given.__name__ if isinstance(given, type) else None),
)
def test_models_of_other_clocks_run_in_16_bits(process, dtype, key):
    n, v = 400, 0.25

    def model(y, t):
        assert y.dtype == t.dtype == jnp.float32
        alpha, sigma = process.alpha(t), process.sigma(t)
        return sigma * y / (alpha**2 * v + sigma**2)

    horizon, early_stop = processes.ou_ends(process)
    grid = grids.log_snr(min(horizon, 4.0), 2 * early_stop, 20)
    x = noise.initial(key, jnp.arange(n), 1, dtype)
    out = sample(kernels.ddim(processes.score_from_model(model, process, "noise")), x, grid, key)
    _, variance = oracles.chain_law("ddim", grid, 0.0, v, 0.0, float(wide(x).var()))
    assert float(wide(out).std()) == pytest.approx(np.sqrt(variance), rel=2e-3)


def test_the_score_of_16_bits_sees_float32_unless_it_refuses(key):
    seen, x = [], noise.initial(key, jnp.arange(20), 3, jnp.bfloat16)

    def network(x, t):
        seen.append((x.dtype, t.dtype))
        return -x.astype(jnp.bfloat16)

    rounded = sample(kernels.ancestral(network), x, GRID, key)
    assert set(seen) == {(jnp.dtype("float32"), jnp.dtype("float32"))}
    filters = jnp.asarray([[[0.0, -1.0, 0.0]]], jnp.bfloat16)

    def convolution(x, t):  # JAX convolves equal dtypes alone
        return jax.lax.conv_general_dilated(x[:, None], filters, (1,), "SAME")[:, 0]

    for options in ({}, {"progress": True}):
        np.testing.assert_array_equal(
            wide(sample(kernels.ancestral(convolution), x, GRID, key, **options)), wide(rounded)
        )
    with pytest.raises(TypeError, match="float32"):
        sample(kernels.ancestral(convolution), wide(x), GRID, key)
    with pytest.raises(TypeError, match=r"mine, float32"):
        sample(kernels.ancestral(refusing), x, GRID, key)
    with pytest.raises(ValueError, match=r"returns int32.* they must agree"):
        sample(kernels.ancestral(lambda x, t: x.astype(jnp.int32)), x, GRID, key)


def refusing(x, t):
    raise TypeError(f"mine, {x.dtype}")


# The denoiser of N(m, v): with a = e^-t and s^2 = 1 - a^2 it is m + a v (x - a m)/(a^2 v + s^2).
def gaussian_denoiser(x, t, mean, variance):
    a, s2 = np.exp(-t), -np.expm1(-2 * t)
    return mean + a * variance * (np.asarray(x, np.float64) - a * mean) / (a * a * variance + s2)


MEAN, VARIANCE = np.array([0.3, -1.0, 2.0]), np.array([0.5, 1.7, 0.0])


WAYS = {}, {"chunk": 3}, {"progress": True}, {"donate": True}


@pytest.mark.parametrize(
    ("name", "ways"),
    [("ancestral", WAYS), ("unipc 2", WAYS[:2]), ("heun", WAYS[:1]), ("randomized_midpoint", WAYS[:1])],
)
def test_denoising_is_the_posterior_mean_at_the_last_time(name, ways, key):
    kernel = family.make(name, targets.gaussian(MEAN, VARIANCE).score)
    x = noise.initial(key, jnp.arange(7), 3)
    plain = np.asarray(sample(kernel, x, GRID, key))
    expected = gaussian_denoiser(plain, GRID[-1], MEAN, VARIANCE)
    assert np.abs(expected - plain).max() > 0.1
    for options in ways:
        given = jnp.copy(x)
        np.testing.assert_allclose(sample(kernel, given, GRID, key, denoise=True, **options), expected, atol=3e-6)
    if ways is WAYS:
        traced = jax.jit(lambda g: sample(kernel, x, g, key, denoise=True))
        np.testing.assert_allclose(traced(GRID), expected, atol=3e-6)
    assert np.abs(np.asarray(sample(kernel, x, GRID, key, denoise=True))[:, 2] - 2.0).max() < 1e-6  # a constant


def test_denoising_16_bits_rounds_once(key):
    kernel = kernels.ancestral(targets.gaussian(MEAN, VARIANCE).score)
    x = noise.initial(key, jnp.arange(7), 3, jnp.bfloat16)
    exact = sample(kernel, wide(x), GRID, key, denoise=True).astype(jnp.bfloat16)
    for options in ({}, {"progress": True}):
        np.testing.assert_array_equal(wide(sample(kernel, x, GRID, key, denoise=True, **options)), wide(exact))


def test_denoised_samples_are_as_close_to_the_data_as_said():
    # D(X_t) is N(m, c^2 v) with c^2 = a^2 v/(a^2 v + s^2), and W2 to N(m, v) is sqrt(v) (1 - c) a coordinate.
    law, t = targets.gaussian(MEAN, VARIANCE), 0.05
    a2, s2 = np.exp(-2 * t), -np.expm1(-2 * t)
    distance = np.sqrt(np.sum(VARIANCE * (1 - np.sqrt(a2 * VARIANCE / (a2 * VARIANCE + s2))) ** 2))
    bound = information.denoised_w2(law.mmse, t)
    assert bound == pytest.approx(np.sqrt(np.sum(VARIANCE * s2 / (a2 * VARIANCE + s2))))
    assert distance < bound < information.early_stopping_w2(law.second_moment, 3, t)


def test_denoising_needs_a_grid_in_ou_time_at_which_the_score_is_known(key):
    law, x = targets.gaussian(MEAN, VARIANCE + 1), jnp.ones((2, 3))
    with pytest.raises(ValueError, match="the grid of langevin is its own running time"):
        sample(kernels.langevin(law.score, 0.7), x, [1.0, 0.0], key, denoise=True)
    score, horizon, early_stop = ddpm_score()
    below = [*np.geomspace(horizon, early_stop, 5), 1e-5]
    sample(kernels.ancestral(score), x, below, key)
    with pytest.raises(ValueError, match="asked at OU time 1e-05"):
        sample(kernels.ancestral(score), x, below, key, denoise=True)
