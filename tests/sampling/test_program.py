"""The compiled program: the same noise and the same path in any chunk, layout, length and call."""

import dataclasses
import functools

import family
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, kernels, noise, targets
from jaxdiff.sampling import layout
from jaxdiff.sampling.sample import sample, trajectory
from jaxdiff.types import Kernel


def identity(x):
    return x


def adding(score, x, row, z):
    """A kernel's step that adds its noise and nothing else."""
    return (
        x + score(x, row[0]) + (0 if z is None else z if z.ndim == x.ndim else jnp.tensordot(WEIGHTS[: len(z)], z, 1))
    )


WEIGHTS = np.array([1.0, 10.0, 100.0, 1000.0])
SCORES = {
    "arithmetic": lambda x, t: 0 * x,
    "elementwise": lambda x, t: 0 * jnp.tanh(x),
    "sums": lambda x, t: 0 * x * jnp.sum(jnp.cos(x), axis=-1, keepdims=True),
    "products": lambda x, t: 0 * (x @ jnp.eye(x.shape[-1], dtype=x.dtype)),
}


def adder(score, noises):
    return Kernel(
        "adder", jax.tree_util.Partial(score), lambda grid: (grid[:-1],), identity, adding, identity, 1, noises
    )


def summed_noise(key, particles, n_steps, d, noises, dtype=np.float64):
    """What an adder comes to, from noise.normal alone."""
    z = [
        WEIGHTS[slot] ** (noises > 1)
        * np.asarray(noise.normal(key, particles, step, d, dtype, slot=slot, slots=noises))
        for step in range(n_steps)
        for slot in range(noises)
    ]
    return np.sum(z, axis=0)


@pytest.mark.parametrize(
    ("kind", "n_steps"),  # steps are taken in pairs; where the score is arithmetic alone, in longer bodies too
    [("arithmetic", n_steps) for n_steps in (1, 2, 3, 7, 8, 11, 16, 50)]
    + [(kind, n_steps) for kind in ("elementwise", "sums", "products") for n_steps in (1, 2, 7)],
)
def test_every_step_sees_its_own_noise_whatever_the_layout(kind, n_steps, key):
    grid, particles = np.linspace(1, 0.1, n_steps + 1), np.arange(9, dtype=np.uint32)
    got = sample(adder(SCORES[kind], 1), jnp.zeros((9, 3)), grid, key)
    np.testing.assert_allclose(got, summed_noise(key, particles, n_steps, 3, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "noises"),
    [("arithmetic", 2), ("arithmetic", 3), ("arithmetic", 4), ("elementwise", 2), ("sums", 3), ("products", 4)],
)
def test_several_increments_a_step_are_its_slots(kind, noises, key):
    grid, particles = np.linspace(1, 0.1, 6), np.arange(4, dtype=np.uint32)
    got = sample(adder(SCORES[kind], noises), jnp.zeros((4, 2)), grid, key)
    np.testing.assert_allclose(got, summed_noise(key, particles, 5, 2, noises), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("first", [7, 2**32 - 3, 2**40 + 1])
def test_first_particle_moves_the_indices_across_32_bits(first, key):
    indices = jnp.asarray(np.arange(first, first + 9, dtype=np.uint64))
    grid, start = np.linspace(1, 0.1, 4), jnp.zeros((9, 2))
    for chunk in (None, 2):
        got = sample(adder(SCORES["sums"], 1), start, grid, key, first_particle=first, chunk=chunk)
        np.testing.assert_allclose(got, summed_noise(key, indices, 3, 2, 1), rtol=1e-12, atol=1e-12)


def two_points(x, t):
    """Elementwise, with a hyperbolic tangent: the law on the corners of a cube."""
    alpha, variance = jnp.exp(-t), -jnp.expm1(-2 * t)
    return (alpha * jnp.tanh(alpha * x / variance) - x) / variance


GAUSSIAN = lambda d: targets.gaussian(np.linspace(-1, 1, d), np.linspace(0.5, 2, d)).score


@pytest.mark.bits
@pytest.mark.parametrize(
    ("name", "score", "n", "d"),
    [
        ("exponential_euler", "arithmetic", 1000, 1),
        ("exponential_euler", "elementwise", 40, 64),
        ("ddim", "arithmetic", 3, 500),
        ("ddim", "elementwise", 700, 3),
    ],
)
def test_elementwise_scores_give_the_same_bits_in_any_batch_and_chunk(name, score, n, d, key):
    kernel = getattr(kernels, name)(GAUSSIAN(d) if score == "arithmetic" else two_points)
    x, grid = noise.initial(key, jnp.arange(n), d), grids.exponential_then_uniform(3, 0.02, 5)
    whole = sample(kernel, x, grid, key)
    for chunk in (1, n // 2 + 1):
        np.testing.assert_array_equal(sample(kernel, x, grid, key, chunk=chunk), whole)
    fewer = n // 3 + 1
    np.testing.assert_array_equal(sample(kernel, x[:fewer], grid, key), whole[:fewer])
    later = slice(n // 2, n // 2 + fewer)
    np.testing.assert_array_equal(sample(kernel, x[later], grid, key, first_particle=n // 2), whole[later])


# A sum over k terms of a product's rounding differs by at most k eps of its size; a contracting path adds up what its
# steps round. Measured here: 1e-6; the bound allows 64 eps a step, of scores of size 30.
@pytest.mark.parametrize("components", [4, 40])
def test_products_and_sums_agree_to_rounding_in_any_chunk(components, key):
    rng = np.random.default_rng(0)
    law = targets.mixture(
        np.full(components, 1 / components), rng.normal(size=(components, 8)), rng.uniform(0.2, 1, (components, 8))
    )
    kernel, grid = kernels.exponential_euler(law.score), grids.exponential_then_uniform(3, 0.1, 10)
    x = noise.initial(key, jnp.arange(500), 8)
    whole = sample(kernel, x, grid, key, chunk=500)
    for chunk in (1, 333):
        np.testing.assert_allclose(sample(kernel, x, grid, key, chunk=chunk), whole, rtol=0, atol=64 * 10 * 1.2e-7)


@functools.cache
def in_the_chosen_layout():
    """A kernel, where it starts, its grid, its key, and where it leads."""
    kernel, grid, key = kernels.exponential_euler(two_points), grids.log_snr(3, 0.02, 11), jax.random.key(2)
    x = noise.initial(key, jnp.arange(300), 5, jnp.float64)
    return kernel, x, grid, key, sample(kernel, x, grid, key, chunk=300)


@pytest.mark.parametrize(
    ("last", "fused", "unroll"),
    [(False, False, 2), (True, False, 2), (False, True, 2), (True, True, 4), (False, True, 6)],
)
def test_layout_and_length_of_a_body_change_nothing(last, unroll, fused, monkeypatch):
    kernel, x, grid, key, plain = in_the_chosen_layout()
    chosen = lambda *args, **options: layout.Layout(300, last, unroll, fused, stored=False)
    monkeypatch.setattr(layout, "choose", chosen)
    kernel = dataclasses.replace(kernel, score=jax.tree_util.Partial(lambda x, t: two_points(x, t)))  # traced anew
    np.testing.assert_allclose(sample(kernel, x, grid, key), plain, rtol=1e-12)


# Kernels with memory, with several evaluations or noises in a step; 11 steps leave one over after pairs.
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["unipc", "sa_solver", "deis", "heun", "seeds", "dpm_solver"])
def test_writing_states_to_memory_changes_nothing(name, last, monkeypatch):
    _, x, grid, key, _ = in_the_chosen_layout()
    options = {"eta": 1.0} if name == "dpm_solver" else {}
    ends = []
    for stored, unroll in ((False, 1), (True, 1), (True, 2)):
        kernel = getattr(kernels, name)(jax.tree_util.Partial(lambda x, t: two_points(x, t)), **options)
        if unroll == 2 and kernel.noises_per_step != 1:
            continue
        chosen = lambda *args, stored=stored, unroll=unroll, **more: layout.Layout(100, last, unroll, False, stored)
        monkeypatch.setattr(layout, "choose", chosen)
        ends.append(sample(kernel, x, grid, key))
        ends.append(sample(kernel, x, grid, key, progress=True))
    for one in ends[1:]:
        np.testing.assert_allclose(one, ends[0], rtol=1e-11, atol=1e-13)


def test_a_score_that_holds_something_for_every_particle_is_given_them_all(key):
    labels = jnp.linspace(0, 1, 100_000)[:, None]
    kernel = kernels.ancestral(lambda x, t: labels.astype(x.dtype) - x)
    x = noise.initial(key, jnp.arange(len(labels)), 2)
    got = sample(kernel, x, grids.log_snr(3, 0.1, 4), key)
    assert got.shape == x.shape
    with pytest.raises((TypeError, ValueError)):
        sample(kernel, x, grids.log_snr(3, 0.1, 4), key, chunk=1000)


# On a point mass at c the method ddim is exact: x = alpha c + sigma z keeps its z.
def expected_at(c, x, grid):
    alpha, sigma = np.exp(-grid[[0, -1]]), np.sqrt(-np.expm1(-2 * grid[[0, -1]]))
    return alpha[1] * c + sigma[1] / sigma[0] * (np.asarray(x) - alpha[0] * c)


def to_a_point(c, x, t):
    return (jnp.exp(-t) * c - x) / -jnp.expm1(-2 * t)


@pytest.fixture
def short_chunks(monkeypatch):
    """Chunks of 4,369 particles of 15 coordinates on a CPU."""
    monkeypatch.setattr(layout, "CHUNK", 2**16)


# A CPU takes fewer particles at a time. 8,191 and 8,209 are primes, the first that a score is traced with.
@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("n", [layout.MARK, 8209, 2 * layout.MARK, 10_000])
@pytest.mark.parametrize("closed_over", [False, True])
def test_every_number_of_particles_may_have_a_condition_each(n, closed_over, key):
    grid, x = grids.log_snr(3, 0.1, 3), noise.initial(key, jnp.arange(n), 15, jnp.float64)
    conditions = np.linspace(-1, 1, n)[:, None]
    score = jax.tree_util.Partial(to_a_point, jnp.asarray(conditions))
    kernel = kernels.ddim((lambda x, t: to_a_point(jnp.asarray(conditions), x, t)) if closed_over else score)
    np.testing.assert_allclose(sample(kernel, x, grid, key), expected_at(conditions, x, grid), rtol=1e-9, atol=1e-12)


TABLE = np.linspace(-1, 1, 20_000)[:, None]
BY_ROW = {
    "counted": lambda x, t: to_a_point(jnp.asarray(TABLE)[jnp.arange(len(x))], x, t),
    "cut": lambda x, t: to_a_point(jnp.asarray(TABLE)[: len(x)], x, t),
    "counted by NumPy": lambda x, t: to_a_point(jnp.asarray(TABLE[np.arange(len(x))]), x, t),
}


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("kind", BY_ROW)
def test_conditions_by_row_are_right_or_refused(kind, key):
    n, grid, kernel = 10_000, grids.log_snr(3, 0.1, 3), kernels.ddim(BY_ROW[kind])
    x = noise.initial(key, jnp.arange(n), 15, jnp.float64)
    for options in ({}, {"chunk": n}):
        got = sample(kernel, x, grid, key, **options)
        np.testing.assert_allclose(got, expected_at(TABLE[:n], x, grid), rtol=1e-9, atol=1e-12)
    for options in ({}, {"progress": True}):
        with pytest.raises(ValueError, match=r"row in x .* cut into chunks of 1000.*scores.conditioned"):
            sample(kernel, x, grid, key, chunk=1000, **options)


@pytest.mark.usefixtures("short_chunks")
def test_a_table_shorter_than_the_mark_is_taken_by_row(key):
    n, grid = 7000, grids.log_snr(3, 0.1, 3)
    x = noise.initial(key, jnp.arange(n), 15, jnp.float64)
    kernel = kernels.ddim(lambda x, t: to_a_point(jnp.asarray(TABLE[:7000][np.arange(len(x))]), x, t))  # IndexError
    np.testing.assert_allclose(sample(kernel, x, grid, key), expected_at(TABLE[:n], x, grid), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=r"row in x .* cut into chunks of 1000"):
        sample(kernel, x, grid, key, chunk=1000)


# A score may refuse another number of particles with any error, or return as many rows as it holds itself.
@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("refuses", [True, False])
def test_a_score_of_one_number_of_particles_is_given_them_all(refuses, key):
    n, grid = 10_000, grids.log_snr(3, 0.1, 3)
    x, conditions = noise.initial(key, jnp.arange(n), 15, jnp.float64), np.linspace(-1, 1, n)[:, None]

    def score(x, t):
        assert len(x) == n or not refuses
        return to_a_point(jnp.asarray(conditions), x[np.arange(n)], t)

    out = sample(kernels.ddim(score), x, grid, key)
    np.testing.assert_allclose(out, expected_at(conditions, x, grid), rtol=1e-9, atol=1e-12)


def lowered(n, d, n_steps, **options):
    law = targets.gaussian(np.zeros(d), np.linspace(0.5, 2, d))
    kernel, grid = kernels.exponential_euler(law.score), grids.uniform(3, 0.1, n_steps)
    shapes = jax.ShapeDtypeStruct((n, d), jnp.float32)
    call = lambda x, key: sample(kernel, x, grid, key, **options)
    return jax.jit(call).lower(shapes, jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("d", [2, 64])
@pytest.mark.parametrize("n_steps", [10, 1000])
def test_memory_beside_x_and_the_result_grows_with_neither_steps_nor_particles(d, n_steps):
    needed = lowered(2**24 // d, d, n_steps)
    assert needed < 8 * 4 * layout.CHUNK  # eight arrays of a chunk
    assert needed < 1.05 * lowered(2**22 // d, d, 10)


def test_the_path_is_kept_at_the_asked_times_alone(key):
    law = targets.mixture([0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], np.full((2, 2), 0.2))
    kernel, grid = kernels.ancestral(law.score), grids.log_snr(3, 0.02, 13)
    x = noise.initial(key, jnp.arange(400), 2, jnp.float64)
    path, table, step = [x], kernel.coefficients(grid), jax.jit(kernel.step)
    for k in range(13):
        row = jax.tree.map(lambda column, k=k: jnp.asarray(column[k]), table)
        path.append(step(kernel.score, path[k], row, noise.normal(key, np.arange(400), k, 2, x.dtype)))
    for nodes in ([0], [5], [0, 13], [4, 9, 12], [9, 2, 2], []):
        got = trajectory(kernel, x, grid, key, grid[nodes])
        assert got.shape == (len(nodes), 400, 2)
        for one, node in zip(got, nodes, strict=True):
            np.testing.assert_allclose(one, path[node], rtol=1e-11, atol=1e-11)
    chunked = trajectory(kernel, x, grid, key, grid[[4, 9]], chunk=150)
    np.testing.assert_allclose(chunked, jnp.stack([path[4], path[9]]), rtol=1e-11, atol=1e-11)
    with pytest.raises(ValueError, match=r"save_at\[1\] = 1\.5 is not a time of the grid; the nearest is grid\["):
        trajectory(kernel, x, grid, key, [grid[3], 1.5])


def test_noise_of_jax_is_its_own_and_does_not_depend_on_the_chunk(key):
    kernel, grid = adder(SCORES["sums"], 1), np.linspace(1, 0.1, 4)
    got = sample(kernel, jnp.zeros((7, 3)), grid, key, noise="jax")
    for chunk in (1, 3):
        np.testing.assert_array_equal(sample(kernel, jnp.zeros((7, 3)), grid, key, noise="jax", chunk=chunk), got)
    of = lambda i, m: jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, 0), i), m)
    want = [sum(jax.random.normal(of(i, m), (3,), jnp.float64) for m in range(3)) for i in range(7)]
    np.testing.assert_allclose(got, jnp.stack(want), rtol=1e-12)
    with pytest.raises(ValueError, match="'counter'"):
        sample(kernel, jnp.zeros((7, 3)), grid, key, noise="threefry")


@pytest.mark.parametrize(("kind", "source"), [*((kind, "counter") for kind in SCORES), ("sums", "jax")])
def test_half_precision_runs_see_float32_noise_rounded(kind, source, key):
    run = lambda dtype: sample(adder(SCORES[kind], 1), jnp.zeros((200, 3), dtype), [1.0, 0.5], key, noise=source)
    np.testing.assert_array_equal(run(jnp.bfloat16), run(jnp.float32).astype(jnp.bfloat16))


@pytest.mark.parametrize("name", family.ONE_EACH)
def test_every_kernel_lowers_for_accelerators(name, key):
    kernel = family.make(name)
    grid = family.grid_of(kernel, 7)
    call = jax.jit(lambda x: sample(kernel, x, grid, key))
    exported = jax.export.export(call, platforms=("cuda", "tpu"))(jax.ShapeDtypeStruct((300, 2), jnp.float32))
    assert exported.platforms == ("cuda", "tpu")
    assert exported.out_avals[0].shape == (300, 2)
