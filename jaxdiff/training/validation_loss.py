"""The held-out loss that training measures, and how many rows and noise levels it uses."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.convolutions import fast_in_loops
from jaxdiff.training.losses import denoising
from jaxdiff.training.rows import float_rows
from jaxdiff.training.signature import call

CHECKS = 25  # measurements of the held-out loss; more would locate the minimum better, but each with fewer rows
CHECK_TIME = 0.1  # fraction of the training time that all measurements together may take
STEP_COST = 1.5  # time of an optimiser step, in forward passes of a batch: 1.5 measured at 784 columns, 3 in theory
MOST_LEVELS = 64  # limit on the noise levels for each held-out row; it applies if there are few rows
MOST_PASSES = 2**15  # limit on rows times noise levels of a measurement; it applies if training is long


class HeldOutLoss:
    """The denoising loss of held-out rows, with the same rows, times and noise in every measurement.

    It uses as many rows and noise levels as all measurements together can use in about a tenth of the training time.

    Args:
      held_out: (m, *event) rows.
      event: the shape of a training row, or its number of columns.
      steps, batch_size: those of the training.
      options: arguments of losses.denoising.
      labels: (m,) labels, or None.

    Attributes:
      pieces: (k, rows/k, *event), the rows in k pieces of at most batch_size rows each.
      rows: how many rows are used.
      levels: at how many noise levels each row is used.
      labels: (k, rows/k), their labels, or None.
    """

    def __init__(self, held_out, event, steps, batch_size, options, labels=None):
        """Choose the rows at random, because the rows of a file may be sorted."""
        held_out = float_rows(held_out, "held_out")
        event = event if isinstance(event, tuple) else (event,)
        if held_out.shape[1:] != event:
            what = ("columns", held_out.shape[1], event[0])
            if len(event) > 1 or held_out.ndim > 2:
                what = "values a row of shape", held_out.shape[1:], event
            raise ValueError(f"held_out has {what[1]} {what[0]}, data {what[2]}: they must agree.")
        # A measurement takes rows levels forward passes, an optimiser step as long as STEP_COST batch_size of them.
        budget = CHECK_TIME * STEP_COST * steps * batch_size / min(CHECKS, steps)
        budget = int(min(budget, MOST_PASSES))
        at_most = min(len(held_out), max(budget, 1))
        pieces = -(-at_most // batch_size)
        each = at_most // pieces
        self.rows, self.options = pieces * each, options
        self.levels = min(max(budget // self.rows, 1), MOST_LEVELS)
        chosen = np.random.default_rng(0).permutation(len(held_out))[: self.rows]
        self.pieces = jnp.asarray(held_out[chosen].reshape(pieces, each, *event))
        self.labels = None if labels is None else jnp.asarray(labels[chosen].reshape(pieces, each))

    def of(self, denoiser, pieces, labels=None):
        """The denoising loss of a denoiser (x, t), or (x, t, labels), averaged over pieces and levels."""
        keys = jax.random.split(jax.random.key(0), self.levels * len(pieces)).reshape(self.levels, len(pieces))

        def one(given):
            x0, key, own = given
            return denoising(denoiser if own is None else lambda x, t: denoiser(x, t, own), x0, key, **self.options)

        fast = fast_in_loops(one)
        return jnp.mean(jax.lax.map(lambda keys: jax.lax.map(fast, (pieces, keys, labels)), keys))

    def compiled(self, network_of, params, place=lambda tree: tree):
        """A compiled function params -> the loss of network_of(params), for parameters shaped like the given ones."""
        given = place((self.pieces, self.labels))
        of = lambda params, given: self.of(_denoiser(network_of(params)), *given)
        loss = jax.jit(of).lower(params, given).compile()
        return lambda params: float(loss(params, given))


def _denoiser(network):
    """The network as a function of x, t and labels, or x and t, without dropout."""
    return lambda x, t, labels=None: call(network, x, t, labels)


def held_out_loss_of(held_out, labels, event, steps, batch_size, options):
    """The HeldOutLoss of these rows, or None without rows."""
    return None if held_out is None else HeldOutLoss(held_out, event, steps, batch_size, options, labels)
