"""The held-out loss that training measures, and how many rows and noise levels it uses."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.training.losses import denoising
from jaxdiff.training.rows import float_rows

CHECKS = 25  # measurements of the held-out loss; more would locate the minimum better, but each with fewer rows
CHECK_TIME = 0.1  # fraction of the training time that all measurements together may take
STEP_COST = 1.5  # time of an optimiser step, in forward passes of a batch: 1.5 measured at 784 columns, 3 in theory
MOST_LEVELS = 64  # limit on the noise levels for each held-out row; it applies if there are few rows
MOST_PASSES = 2**15  # limit on rows times noise levels of a measurement; it applies if training is long


class HeldOutLoss:
    """The denoising loss of held-out rows, with the same rows, times and noise in every measurement.

    It uses as many rows and noise levels as all measurements together can use in about a tenth of the training time.

    Args:
      held_out: (m, dim) rows.
      dim: number of columns of the training rows.
      steps, batch_size: those of the training.
      options: arguments of losses.denoising.

    Attributes:
      pieces: (k, rows/k, d), the rows in k pieces of at most batch_size rows each.
      rows: how many rows are used.
      levels: at how many noise levels each row is used.
    """

    def __init__(self, held_out, dim, steps, batch_size, options):
        """Choose the rows at random, because the rows of a file may be sorted."""
        held_out = float_rows(held_out, "held_out")
        if held_out.shape[1] != dim:
            raise ValueError(f"held_out has {held_out.shape[1]} columns, data {dim}: they must agree.")
        # A measurement takes rows levels forward passes, an optimiser step as long as STEP_COST batch_size of them.
        budget = CHECK_TIME * STEP_COST * steps * batch_size / min(CHECKS, steps)
        budget = int(min(budget, MOST_PASSES))
        at_most = min(len(held_out), max(budget, 1))
        pieces = -(-at_most // batch_size)
        each = at_most // pieces
        self.rows, self.options = pieces * each, options
        self.levels = min(max(budget // self.rows, 1), MOST_LEVELS)
        chosen = np.random.default_rng(0).permutation(len(held_out))[: self.rows]
        self.pieces = jnp.asarray(held_out[chosen].reshape(pieces, each, dim))

    def of(self, denoiser, pieces):
        """The denoising loss of a denoiser, averaged over pieces and levels."""
        keys = jax.random.split(jax.random.key(0), self.levels * len(pieces)).reshape(self.levels, len(pieces))
        one = lambda given: denoising(denoiser, *given, **self.options)
        return jnp.mean(jax.lax.map(lambda keys: jax.lax.map(one, (pieces, keys)), keys))

    def compiled(self, network_of, params):
        """A compiled function params -> the loss of network_of(params), for parameters shaped like the given ones."""
        loss = jax.jit(lambda params, pieces: self.of(network_of(params), pieces)).lower(params, self.pieces).compile()
        return lambda params: float(loss(params, self.pieces))
