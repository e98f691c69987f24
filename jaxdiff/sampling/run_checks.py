"""Checks of the arguments of a run."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdiff.checks import check_whole
from jaxdiff.grids import longest_step
from jaxdiff.processes.models import check_times


def check_particles(x, first):
    """Raise unless x is (particles, *event) of a float dtype, and all indices from `first` on are below 2^64."""
    if x.ndim < 2:
        raise ValueError(f"x must be (particles, d), or (particles, *event): x has shape {x.shape}. One is x[None].")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must be of a float dtype, like the result: x is {x.dtype}. Use x.astype(jnp.float32).")
    check_whole(first, "first_particle", 0)
    if not first < 2**64 - len(x):
        raise ValueError(f"first_particle must be an index below 2^64: first_particle = {first}.")


def check_steps(grid, dtype, own_clock):
    """Raise ValueError if a step in OU time is so long that it amplifies the rounding of a dtype too much."""
    longest = -np.diff(grid).min()
    if not own_clock and longest > longest_step(dtype):
        eps = float(jnp.finfo(dtype).eps)
        raise ValueError(
            f"a step of OU time {longest:.3g} amplifies the rounding error {eps:.1g} by e^{longest:.3g}: add nodes, or "
            f"start at OU time 5, where data of mean 0 and variance 1 are noise to within e^-5. For a model's schedule "
            f"that starts in pure noise, grids.from_process(process, times) makes such a grid."
        )


def check_asked(kernel, grid, table):
    """Raise ValueError if a concrete time of the run is one that the model behind its score does not have."""
    columns = [
        column for path, column in jax.tree_util.tree_leaves_with_path(table) if getattr(path[-1], "name", "") == "t"
    ]
    if not kernel.own_clock:
        columns += [grid[:-1]] if kernel.evals_per_step == 1 else [grid[:-1], grid[1:]]
    for column in columns:
        if not isinstance(column, Tracer):
            check_times(kernel.score, np.asarray(column, np.float64))


@functools.cache
def warn_of_wrong_jax():
    """Warn once under the version of JAX that returns wrong numbers on CPU."""
    if jax.__version__ == "0.10.2" and jax.default_backend() == "cpu":
        warnings.warn(
            "jax 0.10.2 returns wrong numbers on CPU (vmapped matvec with a reduction, jax-ml/jax issue 39103): "
            "pip install 'jax!=0.10.2'.",
            RuntimeWarning,
            stacklevel=4,
        )
