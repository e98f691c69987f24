"""The cipher against published vectors and JAX's own, its counters, and the normal law of what comes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from jaxdiff import noise

ONES, MANY = 0xFFFFFFFF, 2**17
PARTICLES = jnp.arange(MANY, dtype=jnp.uint32)
normal = jax.jit(noise.normal, static_argnames=("dim", "dtype", "slot", "slots"))
# Random123 (Salmon et al. 2011), tests/kat_vectors, "threefry2x32 20": counter, key, result.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def words(*values):
    return tuple(jnp.asarray(value, jnp.uint32) for value in values)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_the_cipher_gives_the_published_vectors(counter, key, result):
    assert tuple(int(word) for word in noise.threefry2x32(words(*key), words(*counter))) == result


def test_the_cipher_is_the_one_of_jax():
    key, counter = np.random.default_rng(0).integers(0, 2**32, (2, 2, 50), np.uint32)
    ours = noise.threefry2x32(words(*key), words(*counter))
    theirs = [threefry_2x32(jnp.asarray(key[:, i]), jnp.asarray(counter[:, i])) for i in range(50)]
    np.testing.assert_array_equal(np.stack(ours, axis=-1), theirs)


def test_an_increment_is_the_cipher_of_its_particle_step_slot_and_pair():
    particle, step, slot, slots = 2**32 + 5, 7, 1, 3
    keyed = threefry_2x32(jax.random.key_data(jax.random.key(11)), jnp.array([1, 5], jnp.uint32))
    pairs = [threefry_2x32(keyed, jnp.array([step * slots + slot, pair], jnp.uint32)) for pair in range(2)]
    a, b = np.array(pairs, np.float64).T / 2**32
    radius = np.sqrt(-2 * np.log(a + 2.0**-33))
    want = np.stack([radius * np.cos(2 * np.pi * b), radius * np.sin(2 * np.pi * b)], -1).ravel()[:3]
    got = normal(jax.random.key(11), jnp.asarray(particle), step, 3, jnp.float64, slot=slot, slots=slots)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_coordinate_does_not_depend_on_the_dimension(key):
    draws = normal(key, jnp.arange(4), 0, 7)
    for dim in (1, 4):
        np.testing.assert_array_equal(normal(key, jnp.arange(4), 0, dim), draws[:, :dim])


def test_a_particle_does_not_depend_on_batch_order_or_index_type(key):
    draws = normal(key, jnp.arange(100), 5, 3)
    order = np.random.default_rng(0).permutation(100)
    np.testing.assert_array_equal(normal(key, jnp.asarray(order), 5, 3), draws[order])
    np.testing.assert_array_equal(normal(key, jnp.asarray(order[:6].reshape(2, 3)), 5, 3)[1, 2], draws[order[5]])
    np.testing.assert_array_equal(normal(key, np.uint32(41), np.int32(5), 3), draws[41])


def test_no_two_keys_particles_steps_or_slots_share_an_increment():
    draws = [
        normal(jax.random.key(seed), jnp.array([0, 1, 2**32, 2**32 + 1]), step, 4, slot=slot, slots=3)
        for seed in (0, 1, 2**32)
        for step in range(4)
        for slot in range(3)
    ]
    assert len(np.unique(np.ravel(draws))) == np.size(draws)


@pytest.mark.parametrize("bad", [0, np.array(3), jax.random.split(jax.random.key(0), 2)])
def test_what_is_not_one_key_is_refused(bad):
    with pytest.raises(TypeError, match="key must be one JAX key"):
        noise.normal(bad, jnp.arange(3), 0, 2)


def test_no_particles_have_no_noise(key):
    assert noise.normal(key, jnp.arange(0), 0, 5).shape == (0, 5)


def test_old_and_new_keys_agree_and_other_ciphers_are_hashed():
    draw = lambda key: np.asarray(normal(key, jnp.arange(3), 1, 2))
    np.testing.assert_array_equal(draw(jax.random.PRNGKey(9)), draw(jax.random.key(9)))
    hashed = [draw(jax.random.key(seed, impl="rbg")) for seed in (0, 1)] + [draw(jax.random.key(0))]
    assert np.isfinite(hashed).all()
    assert len(np.unique(hashed)) == np.size(hashed)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_shape_and_dtype_are_those_asked_for(key, dtype):
    draws = normal(key, jnp.zeros((2, 3), jnp.int32), 0, 5, dtype)
    assert (draws.shape, draws.dtype) == ((2, 3, 5), dtype)
    reference = normal(key, jnp.zeros((2, 3), jnp.int32), 0, 5, jnp.float64)
    np.testing.assert_allclose(np.asarray(draws, np.float64), reference, rtol=0, atol=4 * jnp.finfo(dtype).eps ** 0.5)
    if dtype == jnp.bfloat16:
        np.testing.assert_array_equal(draws, normal(key, jnp.zeros((2, 3), jnp.int32), 0, 5).astype(dtype))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_extreme_words_give_finite_numbers_and_the_stated_reach(dtype):
    a, b = (jnp.asarray(value, jnp.uint32) for value in np.meshgrid([0, ONES], [0, 2**30, 2**31, ONES]))
    x, y = noise.box_muller(a, b, dtype)
    assert x.dtype == y.dtype == dtype
    radius = np.array([6.7637, 2.0**-16])  # sqrt(2 log 2^33); sqrt(-2 log(1 - 2^-33))
    angle = 2 * np.pi * np.array([[0], [0.25], [0.5], [ONES / 2**32]])
    atol = 1e-4 if dtype == jnp.float32 else 2e-5  # the first radius above is rounded to 4 digits
    np.testing.assert_allclose(x, radius * np.cos(angle), rtol=0, atol=atol)
    np.testing.assert_allclose(y, radius * np.sin(angle), rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_million_draws_follow_the_normal_law(key, dtype):
    z = np.asarray(normal(key, PARTICLES, 3, 8, dtype), np.float64).ravel()
    for k in range(1, 7):
        mean, square = stats.norm.moment(k), stats.norm.moment(2 * k)
        assert abs((z**k).mean() - mean) < 5 * np.sqrt((square - mean**2) / z.size)
    for reach in (2.0, 3.0, 4.0, 4.5):
        for tail in (z > reach, z < -reach):
            assert abs(tail.sum() - z.size * stats.norm.sf(reach)) < 5 * np.sqrt(z.size * stats.norm.sf(reach))
    assert stats.kstest(z, "norm").pvalue > 5.7e-7  # five standard errors, two-sided


def test_pairs_steps_slots_and_particles_are_uncorrelated(key):
    draws = [np.asarray(normal(key, PARTICLES, step, 4, jnp.float64, slot=s, slots=2)).T for step, s in
             ((0, 0), (0, 1), (1, 0))]  # fmt: skip
    columns = np.concatenate([*draws, np.roll(draws[0], 1, axis=1)])  # 4 coordinates each; then the next particle's
    for values in (columns, columns**2, columns**3):
        correlation = np.corrcoef(values) - np.eye(len(columns))
        assert np.abs(correlation).max() < 5 / np.sqrt(MANY)
