"""Scores that look at a particle's row, and scores that only seem to: each is read off its jaxpr."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.tree_util import Partial

from jaxdiff.sampling import layout, score_calls, static

TABLE = np.arange(30_000.0, dtype=np.float32).reshape(10_000, 3)
LABELS = np.arange(10_000) % 3
MATRIX = np.arange(9.0, dtype=np.float32).reshape(3, 3)
FIELDS = {"init": lambda x: x, "step": None, "position": None, "noises": 1, "evals": 1, "source": "counter"}
PROGRAM = static.Program(**FIELDS, chunk=2, mesh=None, axes=(), platform="cpu", stored=jnp.dtype("float32"))


def read(score, n=1000):
    """Does a run refuse to cut the particles of this score into chunks?"""
    try:
        score_calls.layout_of(PROGRAM, Partial(score), 3, (n, 3))
    except ValueError as error:
        return "row in x" in str(error) or error
    return False


def rows(x):
    """What belongs to row i of x: row i of a table."""
    return jnp.asarray(TABLE)[jnp.arange(len(x))]


def count(x):
    return jnp.arange(len(x), dtype=x.dtype)[:, None]


BY_ROW = {
    "a gather": lambda x, t: rows(x) - x,
    "take": lambda x, t: jnp.take(jnp.asarray(TABLE), jnp.arange(len(x)), axis=0) - x,
    "a slice": lambda x, t: jnp.asarray(TABLE)[: len(x)] - x,
    "a dynamic slice": lambda x, t: lax.dynamic_slice_in_dim(jnp.asarray(TABLE), 0, len(x)) - x,
    "rows of NumPy": lambda x, t: jnp.asarray(TABLE[np.arange(len(x))]) - x,
    "a remainder": lambda x, t: jnp.asarray(TABLE)[jnp.arange(len(x)) % 7] - x,
    "halves": lambda x, t: jnp.where((jnp.arange(len(x)) < len(x) // 2)[:, None], x, -x),
    "a range": lambda x, t: jnp.linspace(0, 1, len(x), dtype=x.dtype)[:, None] - x,
    "a running sum": lambda x, t: jnp.cumsum(jnp.ones(len(x), x.dtype))[:, None] - x,
    "entries counted": lambda x, t: jnp.arange(x.size, dtype=x.dtype).reshape(x.shape) - x,
    "labels": lambda x, t: jax.nn.one_hot(jnp.arange(len(x)) % 3, 3, dtype=x.dtype) @ MATRIX - x,
    "vmap": lambda x, t: jax.vmap(lambda x, i: jnp.asarray(TABLE)[i] - x)(x, jnp.arange(len(x))),
    "map": lambda x, t: lax.map(lambda xi: jnp.asarray(TABLE)[xi[1]] - xi[0], (x, jnp.arange(len(x)))),
    "random numbers": lambda x, t: jax.random.normal(jax.random.key(0), x.shape, x.dtype) - x,
    "random numbers of an old key": lambda x, t: jax.random.normal(jax.random.PRNGKey(0), x.shape, x.dtype) - x,
    "keys": lambda x, t: jax.vmap(lambda key, x: jax.random.normal(key, x.shape, x.dtype) - x)(
        jax.random.split(jax.random.key(0), len(x)), x
    ),
    "a branch": lambda x, t: lax.cond(t > 1, lambda: rows(x) - x, lambda: -x),
    "a scan": lambda x, t: lax.fori_loop(0, 3, lambda i, y: y + rows(x), x),
    "what a scan carries on": lambda x, t: (
        lax.scan(lambda c, _: ((c[1], c[2], rows(x)), c[0]), (x,) * 3, length=4)[0][0] - x
    ),
    "a while loop": lambda x, t: while_below(lambda c: 3 * t, lambda y: y + rows(x), x),
    "what a while loop takes along": lambda x, t: (
        lambda beside: while_below(lambda c: 3 * t, lambda y: y + beside, x)
    )(rows(x)),
    "the turns of a while loop": lambda x, t: while_below(lambda c: jnp.max(count(x)), jnp.tanh, x),
    "the turns of each": lambda x, t: jax.vmap(lambda x, k: lax.fori_loop(0, k, lambda i, y: y / 2, x))(
        x, jnp.arange(len(x))
    ),
    "halves of x": lambda x, t: jnp.concatenate([x[: len(x) // 2] @ MATRIX, -x[len(x) // 2 :]]),
    "halves beside all": lambda x, t: jnp.subtract(
        *jnp.split(jnp.concatenate([x, x[: len(x) // 2] @ MATRIX, -x[len(x) // 2 :]]), 2)
    ),
    "the gradient of halves": jax.grad(
        lambda x, t: jnp.sum(jnp.cos(x[: len(x) // 2])) - jnp.sum(jnp.sin(x[len(x) // 2 :]))
    ),
    "the first row": lambda x, t: x.at[0].set(0.0),
    "ones and zeros": lambda x, t: x * jnp.zeros(len(x), x.dtype).at[0].set(1.0)[:, None],
    "what a scan counts": lambda x, t: lax.scan(lambda i, xi: (i + 1, jnp.asarray(TABLE)[i] - xi), 0, x)[1],
    "keys from row to row": lambda x, t: lax.scan(
        lambda key, xi: (jax.random.split(key)[0], xi + jax.random.normal(key, xi.shape, xi.dtype)),
        jax.random.key(0),
        x,
    )[1],
    "a running sum of x": lambda x, t: jnp.cumsum(jnp.ones_like(x) * x, axis=0),
    "classes in blocks": lambda x, t: jnp.repeat(jnp.asarray(TABLE[:10]), len(x) // 10, axis=0) - x,
    "repeated labels": lambda x, t: jnp.asarray(TABLE)[jnp.resize(jnp.arange(7), len(x))] - x,
    "a label of a table": lambda x, t: x - x[jnp.arange(len(x)), jnp.asarray(LABELS)[: len(x)]][:, None],
    "a label of a table, its gradient": jax.grad(
        lambda x, t: jnp.sum(jax.nn.log_softmax(x)[jnp.arange(len(x)), jnp.asarray(LABELS)[: len(x)]])
    ),
    "a label that is counted": lambda x, t: jnp.take_along_axis(x, jnp.arange(len(x))[:, None] % 3, axis=-1) - x,
    "a written label": lambda x, t: jnp.zeros_like(x).at[jnp.arange(len(x)), LABELS[: len(x)]].set(1) - x,
    "numbers but the first": lambda x, t: jnp.where(jnp.arange(len(x))[:, None] < 1, x, -x),
    "random rows": lambda x, t: x[jax.random.permutation(jax.random.key(0), len(x))],
    "rows of a linear system": lambda x, t: lax.custom_linear_solve(
        lambda v: t * v * (1 + count(v)), x, lambda _, b: b / (t * (1 + count(b))), symmetric=True
    ),
    "a checkpoint": lambda x, t: jax.checkpoint(lambda x: rows(x) - x)(x),
    "written rows": lambda x, t: jnp.zeros_like(x).at[:, 0].set(jnp.arange(len(x), dtype=x.dtype)) - x,
}


def while_below(end, turn, x):
    return lax.while_loop(lambda c: c[0] < end(c), lambda c: (c[0] + 1, turn(c[1])), (jnp.zeros((), x.dtype), x))[1]


def guided(x, t):
    """Classifier-free guidance: both conditions in one batch."""
    label = jnp.concatenate([jnp.full(len(x), 1), jnp.full(len(x), 0)])
    both = jnp.concatenate([x, x]) @ MATRIX + jnp.asarray(TABLE)[label]
    first, second = jnp.split(both, 2)
    return first + 2 * (first - second)


def with_a_time_for_each(x, t):
    angle = (t * jnp.ones(len(x), x.dtype))[:, None] * jnp.arange(3, dtype=x.dtype)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1) @ jnp.ones((6, 3), x.dtype) - x


def guided_by_numpy(x, t):
    label = np.concatenate([np.full(len(x), 1), np.full(len(x), 0)])
    first, second = jnp.split(jnp.concatenate([x, x]) + jnp.asarray(TABLE)[label], 2)
    return first + 2 * (first - second)


class Network(nnx.Module):
    """Batch norm in evaluation, dropout off, attention over coordinates."""

    def __init__(self, rngs):
        self.enter, self.leave = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, use_running_average=True, rngs=rngs), nnx.Dropout(0.5)

    def __call__(self, x, t):
        tokens = x[..., None, None]
        seen = nnx.dot_product_attention(tokens, tokens, tokens)[..., 0, 0]
        return self.leave(self.dropout(nnx.silu(self.norm(self.enter(seen))), deterministic=True))


def layers(x, t):
    return lax.scan(lambda y, matrix: (jnp.tanh(y @ matrix), None), x, jnp.stack([MATRIX] * 4))[0]


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
    "a map over rows": lambda x, t: lax.map(lambda i: -x[i], jnp.arange(len(x))),
    "own rows in a while loop": lambda x, t: (
        lambda own: while_below(lambda c: 3 * t, lambda y: y - y[own, 0][:, None], x)
    )(jnp.arange(len(x))),
    "a map in batches": lambda x, t: lax.map(lambda x: -x, x, batch_size=100),
    "ones of NumPy": lambda x, t: jnp.asarray(np.ones((len(x), 1), np.float32)) * x,
    "coordinates": lambda x, t: x * jnp.arange(3, dtype=x.dtype),
    "a convolution": lambda x, t: lax.conv_general_dilated(x[:, None], jnp.ones((1, 1, 3), x.dtype), (1,), "SAME")[
        :, 0
    ],
    "a Jacobian": lambda x, t: jnp.diagonal(jax.vmap(jax.jacfwd(jnp.tanh))(x), axis1=-2, axis2=-1),
    "derivatives of its own": lambda x, t: jax.nn.silu(x) + jax.nn.relu(x) + jax.nn.gelu(x),
    "a map in batches, its gradient": jax.grad(
        lambda x, t: jnp.sum(lax.map(lambda x: jnp.sum(jnp.tanh(x @ MATRIX)), x, batch_size=128))
    ),
    "guidance by labels of NumPy": guided_by_numpy,
    "a label for all": lambda x, t: jnp.asarray(TABLE)[jnp.zeros(len(x), int)] - x,
    "a network": Network(nnx.Rngs(0)),
    "layers": layers,
    "layers, their gradient": jax.grad(lambda x, t: jnp.sum(jax.checkpoint(layers)(x, t))),
    "sorted coordinates": lambda x, t: jnp.sort(x, axis=-1) + jnp.roll(x, 1, axis=-1) + jnp.cumsum(x, axis=-1),
    "a projection": lambda x, t: x @ jax.random.normal(jax.random.key(0), (3, 3), x.dtype),
    "one draw for all": lambda x, t: jax.vmap(lambda x: x + jax.random.normal(jax.random.key(0), (3,), x.dtype))(x),
    "a written coordinate": lambda x, t: x.at[:, 0].set(0.0) + jax.vmap(lambda x: x.at[1].add(2.0))(x),
    "halves of the coordinates": lambda x, t: jnp.concatenate([-x[:, 2:], x[:, :2]], axis=-1),
    "a while loop for each": lambda x, t: jax.vmap(
        lambda x: lax.while_loop(lambda y: jnp.sum(y**2) > 1, lambda y: y / 2, x)
    )(x),
    "a branch for each": lambda x, t: jax.vmap(lambda x: lax.switch(jnp.argmax(x), [jnp.sin, jnp.cos, jnp.tanh], x))(x),
    "the nearest of a table": lambda x, t: jnp.asarray(TABLE)[
        jnp.argmin(jnp.sum((x[:, None] - TABLE[:9]) ** 2, -1), -1)
    ],
    "conjugate gradients": lambda x, t: jax.scipy.sparse.linalg.cg(lambda v: 2 * v, x, maxiter=3)[0],
}


@pytest.mark.parametrize("kind", BY_ROW)
def test_a_score_that_depends_on_rows_is_seen(kind):
    assert read(BY_ROW[kind]) is True


@pytest.mark.parametrize("kind", BY_PARTICLE)
def test_a_score_that_acts_on_every_particle_by_itself_is_not_suspected(kind):
    assert read(BY_PARTICLE[kind]) is False


@pytest.mark.parametrize("n", [3, layout.MARK, 3 * layout.MARK, 10_000])
def test_no_number_of_particles_confuses_them(n):
    assert read(BY_ROW["a gather"], n) is True
    assert read(BY_PARTICLE["guidance"], n) is False
    assert read(BY_PARTICLE["coordinates"], n) is False
