"""The cipher against published vectors and JAX's own, its counters, and the normal law of what comes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from jaxdiff import noise

ONES, MANY, EPS = 0xFFFFFFFF, 2**17, np.finfo(np.float32).eps
PARTICLES = jnp.arange(MANY, dtype=jnp.uint32)
normal = noise.normal
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


def exact_box_muller(a, b, dtype):
    """The transform as documented, in extended precision, of words a and b: (upper, lower) uint64 of 32 bits each."""
    wide, (high, low), (turn, finer) = np.longdouble, a, b
    half = wide(0.5) if dtype == np.float32 else (low.astype(wide) + wide(0.5)) / 2**32
    u = ((high & 0x7FFFFFFF).astype(wide) + half) / 2**31
    rest = (2**31 - (high & 0x7FFFFFFF).astype(wide) - half) / 2**31
    radius = np.where(high >> 31, -1, 1) * np.sqrt(-2 * np.where(u < 0.5, np.log(u), np.log1p(-rest)))
    centre = wide(0.5) if dtype == np.float32 else (finer.astype(wide) + wide(0.5)) / 2**32
    signed = (turn & 0x7FFFFFFF).astype(np.int64) - np.where(turn & 0x40000000, 2**31, 0)
    angle = np.arctan2(wide(0), wide(-1)) * ((signed + centre) / 2**32)
    sine, cosine = np.sin(angle), np.cos(angle)
    return radius * np.where(turn >> 31, sine, cosine), radius * np.where(turn >> 31, cosine, sine)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_increment_is_the_cipher_of_its_particle_step_slot_and_coordinate(dtype):
    particle, step, slot, slots = 2**32 + 5, 7, 1, 3
    m = step * slots + slot
    keyed = threefry_2x32(jax.random.key_data(jax.random.key(11)), jnp.array([1, 5], jnp.uint32))
    block = lambda domain, i: threefry_2x32(keyed, jnp.array([m // 2, domain * 2**29 + i], jnp.uint32))
    first, beyond = (np.array([block(domain, i) for i in range(3)], np.uint64).T for domain in (1, 4))
    want = exact_box_muller((first[0], beyond[0]), (first[1], beyond[1]), dtype)[m % 2]
    got = normal(jax.random.key(11), jnp.asarray(particle), step, 3, dtype, slot=slot, slots=slots)
    np.testing.assert_allclose(got, want, rtol=5 * np.finfo(dtype).eps)
    start = np.array([threefry_2x32(keyed, jnp.array([0, 2 * 2**29 + i], jnp.uint32)) for i in range(3)], np.uint64).T
    want = exact_box_muller((start[0], start[0]), (start[1], start[1]), np.float32)[0]
    np.testing.assert_allclose(noise.initial(jax.random.key(11), np.uint64(particle), 3), want, rtol=5 * EPS)


def test_the_cipher_keys_of_one_seed_are_no_streams_of_jax(key):
    """split gives the particle keys themselves: what jax.random draws with them must be other words."""
    split = jax.random.key_data(jax.random.split(key, 3))
    np.testing.assert_array_equal(np.stack(noise.particle_keys(key, jnp.arange(3)), -1), split)
    theirs = {int(word) for one in split for word in np.ravel(jax.random.bits(one, (4096,), jnp.uint32))}
    for domain in (1, 2, 4, 5):
        counter = jnp.uint32(0), jnp.arange(64, dtype=jnp.uint32) + jnp.uint32(domain * 2**29)
        ours = noise.threefry2x32(tuple(split.T[:, :, None]), jnp.broadcast_arrays(*counter))
        assert theirs.isdisjoint(np.ravel(ours).tolist())


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


def words_everywhere(n=2**20):
    """Words in the bulk, in both tails of the radius, and at the edges."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**32, (2, n), np.uint64)
    small = (2.0 ** rng.uniform(0, 31, n // 4)).astype(np.uint64)
    a[: n // 4], a[n // 4 : n // 2] = small, ONES - small
    edges = np.array([0, 1, 2**30, 2**31 - 1, 2**31, 2**31 + 1, ONES], np.uint64)
    a[:49], b[:49] = np.ravel(np.meshgrid(edges, edges)).reshape(2, -1)
    return a, b


def test_the_transform_is_within_5_ulp_of_the_exact_one_everywhere():
    a, b = words_everywhere()
    got = jax.jit(lambda *words: noise.box_muller(words, dtype=jnp.float32))(*words(a, b))
    for mine, exact in zip(got, exact_box_muller((a, a), (b, b), np.float32), strict=True):
        ulp = np.spacing(np.abs(exact).astype(np.float32))
        error = np.abs(np.asarray(mine, np.longdouble) - exact) / ulp
        assert error.max() < 5
        assert error.mean() < 1


def test_the_float64_transform_is_exact_to_100_ulp_and_refines_the_float32_one():
    (a, b), (c, d) = words_everywhere(), words_everywhere()[::-1]
    narrow = words(a, b, c, d)
    got = jax.jit(lambda a, b, c, d: noise.box_muller((a, b), (c, d), dtype=jnp.float64))(*narrow)
    short = jax.jit(lambda a, b: noise.box_muller((a, b), dtype=jnp.float32))(*narrow[:2])
    for mine, exact, rough in zip(got, exact_box_muller((a, c), (b, d), np.float64), short, strict=True):
        np.testing.assert_allclose(mine, exact.astype(np.float64), rtol=100 * np.finfo(np.float64).eps)
        inner = lambda word, least: (word & 0x7FFFFFFF > least) & (word & 0x7FFFFFFF < 2**31 - least)
        bulk = inner(a, 2**24) & inner(b, 2**20) & (np.abs((b & 0x7FFFFFFF).astype(np.int64) - 2**30) < 2**30 - 2**20)
        np.testing.assert_allclose(rough[bulk], mine[bulk], rtol=2e-6)


@pytest.mark.parametrize(
    ("dtype", "reach"), [(jnp.float32, np.sqrt(64 * np.log(2))), (jnp.float64, np.sqrt(128 * np.log(2)))]
)
def test_the_reach_is_the_stated_one(dtype, reach):
    zero = jnp.zeros((), jnp.uint32)
    far, near = noise.box_muller((zero, zero), (zero, zero), dtype=dtype)
    assert float(jnp.hypot(far, near)) == pytest.approx(reach, rel=1e-6)
    assert dtype == jnp.float32 or reach > 8


@pytest.fixture(
    scope="module",
    params=[
        (jnp.float32, 2**13),
        (jnp.float64, 2**13),
        pytest.param((jnp.float32, 2**16), marks=pytest.mark.slow),
        pytest.param((jnp.float64, 2**16), marks=pytest.mark.slow),
    ],
    ids=["float32", "float64", "float32, ten million", "float64, ten million"],
)
def many(request):
    """A million draws, in the slow tests ten: particles x steps x coordinates."""
    dtype, particles = request.param
    steps = [normal(jax.random.key(5), jnp.arange(particles), step, 32, dtype) for step in range(5)]
    return np.concatenate([np.asarray(z, np.float64).ravel() for z in steps])


def test_draws_have_the_moments_of_the_normal_law(many):
    assert many.size > 10**6
    power = np.ones_like(many)
    for k in range(1, 9):
        power *= many
        mean, square = stats.norm.moment(k), stats.norm.moment(2 * k)
        assert abs(power.mean() - mean) < 5 * np.sqrt((square - mean**2) / many.size)


def test_draws_pass_kolmogorov_smirnov_and_have_its_tails(many):
    assert stats.kstest(many, "norm").pvalue > 5.7e-7  # five standard errors, two-sided
    for reach in (2.0, 3.0, 4.0, 4.5, 5.0):
        expected = many.size * stats.norm.sf(reach)
        for tail in (many > reach, many < -reach):
            assert abs(tail.sum() - expected) < 5 * np.sqrt(expected)


def test_steps_slots_particles_and_coordinates_are_uncorrelated(key):
    draws = [np.asarray(normal(key, PARTICLES, step, 4, jnp.float64, slot=s, slots=2)).T for step, s in
             ((0, 0), (0, 1), (1, 0), (1, 1))]  # fmt: skip
    start = np.asarray(noise.initial(key, PARTICLES, 4, jnp.float64)).T
    columns = np.concatenate(
        [*draws, start, np.roll(draws[0], 1, axis=1)]
    )  # 4 coordinates each; then the next particle's
    for values in (columns, columns**2, columns**3):
        correlation = np.corrcoef(values) - np.eye(len(columns))
        assert np.abs(correlation).max() < 5 / np.sqrt(MANY)


@pytest.mark.parametrize("lag", [1, 2, 3, 32, 64])
def test_neighbours_in_the_order_of_counters_are_uncorrelated(many, lag):
    for power in (1, 2):
        z = many**power - stats.norm.moment(power)
        variance = stats.norm.moment(2 * power) - stats.norm.moment(power) ** 2
        assert abs(np.mean(z[lag:] * z[:-lag]) / variance) < 5 / np.sqrt(len(z) - lag)
