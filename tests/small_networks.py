"""Small networks for the tests of training, and checkpoints in memory."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class Labelled(nnx.Module):
    """A denoiser of images that adds a trained image per class; the null class is the last one."""

    def __init__(self, event, n_classes, rngs):
        self.n_classes = n_classes
        self.means = nnx.Param(jnp.zeros((n_classes + 1, *event), jnp.float32))
        self.slope = nnx.Param(jnp.full((), 0.5, jnp.float32))

    def __call__(self, x, t, condition=None, *, key=None):
        if condition is None:
            condition = jnp.full(len(x), self.n_classes, jnp.int32)
        return self.slope[...] * x + self.means[...][condition]


class Plain(nnx.Module):
    """A denoiser with nothing but x and t; dtype is that of its products."""

    def __init__(self, d, rngs, dtype=jnp.float32):
        self.enter = nnx.Linear(d + 1, 16, rngs=rngs, dtype=dtype)
        self.leave = nnx.Linear(16, d, rngs=rngs, dtype=dtype)

    def __call__(self, x, t):
        rows = x.reshape(len(x), -1)
        t = jnp.broadcast_to(t, (len(x),)).astype(rows.dtype)
        hidden = nnx.silu(self.enter(jnp.concatenate([rows, t[:, None]], 1)))
        return self.leave(hidden).astype(x.dtype).reshape(x.shape)


class InMemory:
    """Checkpoints that are kept as NumPy arrays."""

    def __init__(self):
        self.kept = {}

    def save(self, step, state, *, held_out_loss=float("nan"), about=None):
        self.kept[step] = jax.tree.map(np.array, state), about, held_out_loss

    def steps(self):
        return sorted(self.kept)

    def about(self, step):
        return self.kept[step][1]

    def restore(self, like, step=None):
        step = self.steps()[-1] if step is None else step
        state = self.kept[step][0]
        shapes = lambda tree: jax.tree.map(lambda leaf: (np.shape(leaf), np.asarray(leaf).dtype), tree)
        assert shapes(like) == shapes(state)
        return step, jax.tree.map(np.array, state)
