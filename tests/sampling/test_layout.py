"""What is read off a score's jaxpr, and what is chosen from it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, kernels, noise, sample, targets
from jaxdiff.sampling import layout
from jaxdiff.sampling.layout import StepTraits, Traits

ARITHMETIC, ELEMENTWISE = Traits(True, True, False), Traits(True, False, False)
PRODUCTS, SUMS = Traits(False, False, True), Traits(False, False, False)
ONE = StepTraits(noises=1, evals=1, leaves=1)


def read(score, d=3):
    x = jax.ShapeDtypeStruct((layout.MARK, d), jnp.float32)
    return layout.traits(jax.make_jaxpr(score)(x, jax.ShapeDtypeStruct((), jnp.float32)).jaxpr, layout.MARK)


def mixture(k, d=3):
    """Means and variances all different."""
    return targets.mixture(
        np.full(k, 1 / k), np.arange(k * d).reshape(k, d) / d, np.linspace(0.1, 1, k * d).reshape(k, d)
    )


@pytest.mark.parametrize(
    ("score", "found"),
    [
        (lambda x, t: -x / (1 + t), ARITHMETIC),
        (targets.gaussian(np.zeros(3), [0.5, 1.0, 2.0]).score, ARITHMETIC),
        (jax.jit(lambda x, t: -x), ARITHMETIC),
        (lambda x, t: jnp.tanh(x) - x, ELEMENTWISE),
        (
            lambda x, t: x * jnp.sin(x) * (jnp.eye(3, dtype=jnp.float32) @ jnp.ones(3, jnp.float32) * t),
            ELEMENTWISE,
        ),  # products of time alone
        (lambda x, t: x @ (-jnp.eye(3, dtype=jnp.float32)), PRODUCTS),
        (lambda x, t: jax.lax.fori_loop(0, 3, lambda i, x: x @ jnp.eye(3, dtype=jnp.float32), x), PRODUCTS),
        (jax.vmap(lambda x, t: jnp.eye(3, dtype=jnp.float32) @ x, (0, None)), PRODUCTS),
        (lambda x, t: -x.reshape(len(x), 3, 1).reshape(x.shape) / (1 + t), ARITHMETIC),  # particles keep their axis
        (lambda x, t: -x.reshape(-1).reshape(x.shape), SUMS),
        (lambda x, t: -x.reshape(3, len(x)).reshape(x.shape), SUMS),
        (lambda x, t: x[:, ::-1], SUMS),
        (lambda x, t: x - jnp.mean(x, axis=-1, keepdims=True), SUMS),
        (lambda x, t: jax.lax.cond(t > 1, lambda: x, lambda: -x), SUMS),
        (mixture(8).score, SUMS),
        (mixture(40).score, PRODUCTS),
        (targets.point_masses(np.arange(120.0).reshape(40, 3)).score, PRODUCTS),
    ],
)
def test_traits_are_read_off_the_jaxpr(score, found):
    assert read(score) == found


def test_the_axis_of_particles_is_told_from_an_equal_dimension():
    assert (
        read(lambda x, t: x * jnp.linalg.norm(jnp.ones((64, 64), jnp.float32) @ jnp.ones(64, jnp.float32)), d=64)
        == ARITHMETIC
    )


def test_the_mark_is_a_prime_of_which_no_size_is_a_multiple():
    marked = lambda score, n, d=3: layout.mark_for(
        jax.make_jaxpr(score)(jax.ShapeDtypeStruct((n, d), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)).jaxpr
    )
    plain = lambda x, t: -x
    assert [marked(plain, n) for n in (0, 1, 1000, 8191, 3 * 8191)] == [8191, 8191, 8191, 8209, 8209]
    assert marked(plain, 8191, 8209) == 8219  # the primes from 8,191 on: 8,209, 8,219, 8,221
    given = lambda n: (jax.ShapeDtypeStruct((n, 3), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32))
    jaxpr = lambda n: jax.make_jaxpr(plain)(*given(n)).jaxpr
    assert [layout.small_mark_for(jaxpr(n), n) for n in (2, 3, 4, 5, 1000)] == [None, 2, None, 2, 997]
    assert layout.round_mark_for(jaxpr(1000)) == layout.ROUND_MARK
    assert layout.round_mark_for(jaxpr(layout.ROUND_MARK)) == 2 * layout.ROUND_MARK
    inside = jax.jit(lambda x, t: x * jnp.sum(jnp.ones((2, 8191), jnp.float32)))
    assert marked(inside, 1000) == 8209


@pytest.mark.parametrize("found", [ARITHMETIC, ELEMENTWISE, PRODUCTS, SUMS])
@pytest.mark.parametrize("n", [1, 2, 127, 1000, 4096, 70_000, 2**20])
@pytest.mark.parametrize("d", [1, 2, 15, 16, 64, 1024, 2**17])
def test_a_chunk_on_a_cpu_is_small_and_cuts_the_particles_evenly(found, n, d):
    chosen = layout.choose(found, ONE, (n, d), 50)
    assert 1 <= chosen.chunk <= n
    assert chosen.chunk * d <= max(1.5 * layout.CHUNK, d) + 32 * d
    chunks = -(-n // chosen.chunk)
    assert chunks * chosen.chunk - n <= 32 * chunks
    assert chosen.chunk == n or chosen.chunk % 1024 != 0
    assert chosen.chunk * d > min(n * d, layout.CHUNK) / 3  # long loops
    assert layout.choose(found, ONE, (n, d), 50, platform="gpu").chunk == n
    assert layout.choose(found, ONE, (n, d), 50, chunk=3).chunk == min(3, n)


def test_rows_of_particles_do_not_lie_a_power_of_two_apart():
    chunk = lambda found, n, d: layout.choose(found, ONE, (n, d), 50).chunk
    assert chunk(SUMS, 2**15, 16) == 2**14 + 16
    assert chunk(SUMS, 2**15 + 8, 16) == 2**15 + 8
    assert chunk(SUMS, 2**14, 16) == 2**14  # halves would be short
    assert chunk(ARITHMETIC, 2**13, 64) == 2**13  # coordinates lie on the fast axis


@pytest.mark.parametrize("n_steps", range(1, 60))
def test_bodies_are_pairs_of_steps_and_a_rest_is_short(n_steps):
    long = layout.choose(ARITHMETIC, ONE, (1000, 64), n_steps).unroll
    assert long % 2 == 0
    assert 2 <= long <= layout.MOST_UNROLLED
    assert n_steps // long + n_steps % long <= n_steps // 2 + n_steps % 2
    assert layout.choose(ELEMENTWISE, ONE, (1000, 64), n_steps).unroll == 2
    assert layout.choose(SUMS, ONE, (1000, 64), n_steps).unroll == 2
    assert [layout.choose(SUMS, ONE._replace(noises=noises), (1000, 64), n_steps).unroll for noises in (0, 2, 3)] == [
        1,
        1,
        1,
    ]


def test_particles_lie_on_the_fast_axis_where_it_pays():
    last = lambda found, n, d: layout.choose(found, ONE, (n, d), 50).particles_last
    assert last(ARITHMETIC, 10_000, 2)
    assert last(PRODUCTS, 10_000, 2)
    assert last(SUMS, 10_000, 64)
    assert not last(ARITHMETIC, 10_000, 64)
    assert not last(PRODUCTS, 10_000, 64)
    assert not last(SUMS, 4, 64)


@pytest.mark.parametrize(
    ("found", "evals", "leaves", "stored"),
    [
        (SUMS, 1, 1, False),
        (SUMS, 2, 1, True),
        (PRODUCTS, 1, 2, True),
        (ARITHMETIC, 4, 1, False),
        (ELEMENTWISE, 1, 2, False),
        (ELEMENTWISE, 1, 3, True),
    ],
)
def test_arrays_that_a_step_reads_several_times_are_stored_on_a_cpu(found, evals, leaves, stored):
    of_step = StepTraits(0, evals, leaves)
    chosen = layout.choose(found, of_step, (100_000, 64), 50)
    assert chosen.stored is stored
    assert chosen.fused is (found.elementwise and not stored)
    assert layout.choose(found, of_step, (100_000, 64), 50, platform="gpu").stored is False
    if stored:
        assert chosen.unroll == 1


@pytest.mark.bits
@pytest.mark.parametrize("event", [(2, 3, 1), (5, 7, 1)])  # particles on the fast axis, coordinates there
def test_an_elementwise_score_of_images_is_fused_and_has_the_bits_of_rows(key, event):
    rng, d = np.random.default_rng(0), math.prod(event)
    mean, variance = rng.normal(size=d).astype(np.float32), rng.uniform(0.1, 1, d).astype(np.float32)

    def score_of(shape):
        m, v = jnp.asarray(mean.reshape(shape)), jnp.asarray(variance.reshape(shape))
        return lambda x, t: -(x - m) / (v + t)

    x = noise.initial(key, jnp.arange(3000), d).astype(jnp.float32)
    grid = grids.log_snr(3.0, 1e-2, 7)
    rows = sample(kernels.exponential_euler(score_of((d,))), x, grid, key)
    images = sample(kernels.exponential_euler(score_of(event)), x.reshape(-1, *event), grid, key)
    np.testing.assert_array_equal(np.asarray(images).reshape(-1, d), rows)
    of_images = lambda x, t: score_of(event)(x.reshape(-1, *event), t).reshape(x.shape)
    assert read(of_images, d) == read(score_of((d,)), d) == ARITHMETIC
