"""Scores that look at a particle's row, and scores that only seem to: each is read off its jaxpr."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import positions, schedule

TABLE = np.arange(30_000.0, dtype=np.float32).reshape(10_000, 3)
MATRIX = np.arange(9.0, dtype=np.float32).reshape(3, 3)


def read(score, n=1000):
    given = lambda n: (jax.ShapeDtypeStruct((n, 3), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32))
    mark = schedule.mark_beside(jax.make_jaxpr(score)(*given(n)).jaxpr)
    return positions.matter(jax.make_jaxpr(jax.jit(score))(*given(mark)), mark)


def rows(x):
    """What belongs to row i of x: row i of a table."""
    return jnp.asarray(TABLE)[jnp.arange(len(x))]


def count(x):
    return jnp.arange(len(x), dtype=x.dtype)[:, None]


BY_ROW = {
    "a gather": lambda x, t: rows(x) - x,
    "take": lambda x, t: jnp.take(jnp.asarray(TABLE), jnp.arange(len(x)), axis=0) - x,
    "a slice": lambda x, t: jnp.asarray(TABLE)[: len(x)] - x,
    "a dynamic slice": lambda x, t: jax.lax.dynamic_slice_in_dim(jnp.asarray(TABLE), 0, len(x)) - x,
    "rows of NumPy": lambda x, t: jnp.asarray(TABLE[np.arange(len(x))]) - x,
    "a remainder": lambda x, t: jnp.asarray(TABLE)[jnp.arange(len(x)) % 7] - x,
    "halves": lambda x, t: jnp.where((jnp.arange(len(x)) < len(x) // 2)[:, None], x, -x),
    "a range": lambda x, t: jnp.linspace(0, 1, len(x), dtype=x.dtype)[:, None] - x,
    "a running sum": lambda x, t: jnp.cumsum(jnp.ones(len(x), x.dtype))[:, None] - x,
    "entries counted": lambda x, t: jnp.arange(x.size, dtype=x.dtype).reshape(x.shape) - x,
    "labels": lambda x, t: jax.nn.one_hot(jnp.arange(len(x)) % 3, 3, dtype=x.dtype) @ MATRIX - x,
    "vmap": lambda x, t: jax.vmap(lambda x, i: jnp.asarray(TABLE)[i] - x)(x, jnp.arange(len(x))),
    "map": lambda x, t: jax.lax.map(lambda xi: jnp.asarray(TABLE)[xi[1]] - xi[0], (x, jnp.arange(len(x)))),
    "random numbers": lambda x, t: jax.random.normal(jax.random.key(0), x.shape, x.dtype) - x,
    "random numbers of an old key": lambda x, t: jax.random.normal(jax.random.PRNGKey(0), x.shape, x.dtype) - x,
    "keys": lambda x, t: jax.vmap(lambda key, x: jax.random.normal(key, x.shape, x.dtype) - x)(
        jax.random.split(jax.random.key(0), len(x)), x
    ),
    "a branch": lambda x, t: jax.lax.cond(t > 1, lambda: rows(x) - x, lambda: -x),
    "a scan": lambda x, t: jax.lax.fori_loop(0, 3, lambda i, y: y + rows(x), x),
    "what a scan carries on": lambda x, t: (
        jax.lax.scan(lambda c, _: ((c[1], c[2], rows(x)), c[0]), (x,) * 3, length=4)[0][0] - x
    ),
    "a while loop": lambda x, t: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + rows(x)), (0, x))[
        1
    ],
    "a checkpoint": lambda x, t: jax.checkpoint(lambda x: rows(x) - x)(x),
    "written rows": lambda x, t: jnp.zeros_like(x).at[:, 0].set(count(x)[:, 0]) - x,
}


def guided(x, t):
    """Classifier-free guidance: both conditions in one batch."""
    label = jnp.concatenate([jnp.full(len(x), 1), jnp.full(len(x), 0)])
    both = jnp.concatenate([x, x]) @ MATRIX + jnp.asarray(TABLE)[label]
    first, second = jnp.split(both, 2)
    return first + 2 * (first - second)


def with_a_time_for_each(x, t):
    angle = (t * jnp.ones(len(x), x.dtype))[:, None] * jnp.arange(3, dtype=x.dtype)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1) @ jnp.ones((6, 3), x.dtype) - x


def outer(x):
    return jnp.eye(3, dtype=x.dtype) + x[:, :, None] * x[:, None]


def largest(x):
    return jnp.argmax(x, axis=-1)


BY_PARTICLE = {
    "guidance": guided,
    "a time for each": with_a_time_for_each,
    "its own row of a result": lambda x, t: x - x[jnp.arange(len(x)), largest(x)][:, None],
    "its own row, written": lambda x, t: jnp.zeros_like(x).at[jnp.arange(len(x)), largest(x)].set(1) - x,
    "along an axis": lambda x, t: x - jnp.take_along_axis(x, largest(x)[:, None], axis=-1),
    "a row of a table by x": lambda x, t: jnp.asarray(TABLE)[largest(x)] - x,
    "an energy's gradient": jax.grad(lambda x, t: jnp.sum(jnp.max(x, -1)) - jnp.sum(jax.nn.logsumexp(x @ MATRIX, -1))),
    "a sort's gradient": jax.grad(lambda x, t: jnp.sum(jnp.sort(x, axis=-1)[:, 0])),
    "a tangent": lambda x, t: jax.jvp(lambda x: jnp.tanh(x @ MATRIX), (x,), (jnp.ones_like(x),))[1],
    "linear systems": lambda x, t: jnp.linalg.solve(outer(x), x[:, :, None])[..., 0],
    "one system for all": lambda x, t: jnp.linalg.solve(jnp.broadcast_to(MATRIX, (len(x), 3, 3)), x[..., None])[..., 0],
    "determinants": jax.grad(lambda x, t: jnp.sum(jnp.linalg.slogdet(outer(x))[1])),
    "a map over rows": lambda x, t: jax.lax.map(lambda i: -x[i], jnp.arange(len(x))),
    "a map in batches": lambda x, t: jax.lax.map(lambda x: -x, x, batch_size=100),
    "ones of NumPy": lambda x, t: jnp.asarray(np.ones((len(x), 1), np.float32)) * x,
    "coordinates": lambda x, t: x * jnp.arange(3, dtype=x.dtype),
    "a convolution": lambda x, t: jax.lax.conv_general_dilated(x[:, None], jnp.ones((1, 1, 3), x.dtype), (1,), "SAME")[
        :, 0
    ],
    "a Jacobian": lambda x, t: jnp.diagonal(jax.vmap(jax.jacfwd(jnp.tanh))(x), axis1=-2, axis2=-1),
    "derivatives of its own": lambda x, t: jax.nn.silu(x) + jax.nn.relu(x) + jax.nn.gelu(x),
}


@pytest.mark.parametrize("kind", BY_ROW)
def test_a_score_that_depends_on_rows_is_seen(kind):
    assert read(BY_ROW[kind])


@pytest.mark.parametrize("kind", BY_PARTICLE)
def test_a_score_that_acts_on_every_particle_by_itself_is_not_suspected(kind):
    assert not read(BY_PARTICLE[kind])


@pytest.mark.parametrize("n", [3, schedule.MARK, 3 * schedule.MARK, 10_000])
def test_no_number_of_particles_confuses_them(n):
    assert read(BY_ROW["a gather"], n)
    assert not read(BY_PARTICLE["guidance"], n)
    assert not read(BY_PARTICLE["coordinates"], n)
