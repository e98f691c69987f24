"""Kernels down grids of different lengths by one compiled program: tables are padded to the longest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import noise

BUDGETS = (5, 8, 10, 15, 20, 30, 50, 100, 200)


@functools.partial(jax.jit, static_argnames="draw")
def walk(kernel, table, n_steps, x, key, draw):
    """Positions after n_steps of a padded table, one compilation for all; draw(key, kernel, k, x) is the noise."""

    def body(k, state):
        return kernel.step(kernel.score, state, jax.tree.map(lambda column: column[k], table), draw(key, kernel, k, x))

    return kernel.position(jax.lax.fori_loop(0, n_steps, body, kernel.init(x)))


def run(kernel, grid, x, *, key=None, draw, most=BUDGETS[-1]):
    """`walk` down a grid of at most `most` steps."""
    pad = lambda column: jnp.asarray(np.concatenate([column, np.zeros((most + 1 - len(grid), *column.shape[1:]))]))
    return walk(kernel, jax.tree.map(pad, kernel.coefficients(grid)), len(grid) - 1, x, key, draw)


def silence(key, kernel, k, x):
    """No noise, for kernels of the ODE."""


def fresh(key, kernel, k, x):
    """Independent draws for every particle."""
    m, particle = kernel.noises_per_step, jnp.arange(len(x), dtype=jnp.uint32)
    z = [noise.normal(key, particle, k, x.shape[1], x.dtype, slot=slot, slots=m) for slot in range(m)]
    return z[0] if m == 1 else jnp.stack(z)


def impulses(key, kernel, k, x):
    """In particle 1 + i increment i of the run is 1; all others are 0."""
    m = kernel.noises_per_step
    z = [jnp.zeros_like(x).at[1 + k * m + i].set(1.0) for i in range(m)]
    return z[0] if m == 1 else jnp.stack(z)
