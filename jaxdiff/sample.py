"""The one scan: particles down a grid."""

import functools
import warnings

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxdiff import noise
from jaxdiff.grids import check_grid
from jaxdiff.progress import bar
from jaxdiff.types import Kernel

BLOCKS = 20  # with progress=True the bar moves this often


def sample(kernel: Kernel, x, grid, key, *, progress=False):
    """Run particles down a grid with a kernel.

    Args:
      kernel: from jaxdiff.kernels.
      x: (particles, d), where they start: at an OU horizon, draws of N(0, I) from another key. Its dtype, a float, is
        the dtype of the run.
      grid: (n_steps + 1,) decreasing times, checked here; a traced array is trusted.
      key: a JAX key, new style or old. Particle i sees noise.normal(key, i, step, d): the same in any batch.
      progress: show a bar; the scan is then compiled in blocks of steps, with the same result.

    Returns:
      (particles, d) at the last time of the grid.

    Raises:
      ValueError: the grid is not one, x is not (particles, d), or the score returns another shape than x.
      TypeError: x is not of a float dtype, or kernel, grid or key is another kind of thing.

    Compiled once per shape, kernel method and score function; new parameters, keys and grids of equal length reuse it.
    Works inside jit, vmap and grad.
    """
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel must come from jaxdiff.kernels, as kernels.ancestral(score) does: it is {kernel!r}.")
    noise.check_key(key)
    x = jnp.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"x must be (particles, d): x has shape {x.shape}. One particle is x[None].")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must be of a float dtype, which the run keeps: x is {x.dtype}. Use x.astype(jnp.float32).")
    _warn_of_wrong_jax()
    if not isinstance(grid, Tracer):
        grid = check_grid(grid, own_clock=kernel.own_clock)
    # A table of arrays, never constants: some GPU compilers fold a constant step size wrongly (jax 36958, 39336).
    table = jax.tree.map(lambda column: jnp.asarray(column, x.dtype), kernel.coefficients(grid))
    run = functools.partial(_run, kernel.step, kernel.noises_per_step)
    state, n_steps = kernel.init(x), len(grid) - 1
    if not progress:
        return kernel.position(run(kernel.score, table, state, key, jnp.uint32(0)))
    size = -(-n_steps // BLOCKS)
    for first in bar(range(0, n_steps, size), kernel.name):
        block = jax.tree.map(lambda column, first=first: column[first : first + size], table)
        state = jax.block_until_ready(run(kernel.score, block, state, key, jnp.uint32(first)))
    return kernel.position(state)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(step, noises, score, table, state, key, first):
    """The state after the steps of a table, the first of which is step `first` of the run."""
    particles = jax.tree.leaves(state)[0]
    n, d, dtype = *particles.shape, particles.dtype
    _check_score(score, particles)
    keys = noise.particle_keys(key, jnp.arange(n, dtype=jnp.uint32))

    def increments(k):
        draws = [noise.from_particle_keys(keys, k, d, dtype, slot=i, slots=noises) for i in range(noises)]
        return None if noises == 0 else draws[0] if noises == 1 else jnp.stack(draws)

    def body(state, row_and_step):
        row, k = row_and_step
        return step(score, state, row, increments(k)), None

    steps = first + jnp.arange(len(jax.tree.leaves(table)[0]), dtype=jnp.uint32)
    return jax.lax.scan(body, state, (table, steps))[0]


def _check_score(score, x):
    """Runs while tracing, once a compilation."""
    given = jax.eval_shape(score, x, jax.ShapeDtypeStruct((), x.dtype))
    if given.shape != x.shape or given.dtype != x.dtype:
        raise ValueError(
            f"the score returns {given.dtype}{list(given.shape)} for x {x.dtype}{list(x.shape)}: they must agree."
        )


@functools.cache
def _warn_of_wrong_jax():
    if jax.__version__ == "0.10.2" and jax.default_backend() == "cpu":
        warnings.warn(
            "jax 0.10.2 returns wrong numbers on CPU (vmapped matvec with a reduction, jax-ml/jax issue 39103): "
            "pip install 'jax!=0.10.2', 0.10.1 say.",
            RuntimeWarning,
            stacklevel=3,
        )
