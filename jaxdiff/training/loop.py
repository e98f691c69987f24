"""Blocks of optimiser steps, run until training ends, is interrupted, or a loss is not finite."""

import time

import jax
import numpy as np

from jaxdiff import interrupts
from jaxdiff.progress import counter
from jaxdiff.training.batches import Prefetch, Resident, batch_rows
from jaxdiff.training.optimiser import optimiser_step

BLOCK_SECONDS = 0.5  # duration of a compiled block of steps; the bar moves, and Ctrl-C has an effect, between blocks
# A block has at most this factor more steps than the block before, because one timing may be too short by chance. A
# larger factor may make a block last far longer than BLOCK_SECONDS.
GROWTH = 4
SAVE_SECONDS = 60.0  # time between two checkpoints


class Exploded(ValueError):
    """A training loss is not finite.

    Attributes:
      step: the index of the optimiser step, from 0. jaxdiff.training.batches.batch_rows(key, step, n, size) has the
        rows of the batch.
    """

    def __init__(self, message, step):
        """Keep the step."""
        super().__init__(message)
        self.step = step


def run(blocks, carried, history, saving, *, done, steps, size, progress):
    """Do the steps from `done` on, and measure after every `size` of them.

    Returns the number of the signal that interrupted training, or None, and the number of steps done.
    """
    several = jax.process_count() > 1  # then every process must do the same steps in a block
    with interrupts.deferred(terminations=True) as pressed, counter(steps, "train", enabled=progress) as moved:
        if done:
            moved(done)
        length = steps if several else 1
        while done < steps and not pressed():
            first = done // size * size
            last = min(first + size, steps)
            length = min(length, last - done)
            began, span = time.perf_counter(), (np.int32(done), np.int32(done + length))
            carried = jax.block_until_ready(blocks(carried, np.int32(first), span))
            took, done = time.perf_counter() - began, done + length
            losses = np.asarray(carried[1], np.float64)[: done - first]
            moved(length, f"loss {losses[-length:].mean():.4g}")
            saving.check(losses, first)
            length = steps if several else max(1, round(length * min(BLOCK_SECONDS / took, GROWTH)))
            if done == last:
                history.add(carried[0].average, losses, done)
            if pressed() or done == steps or (saving.is_due() and (done == last or not several)):
                saving.save(done, carried, history)
        if pressed() and done % size and done < steps:
            history.add(carried[0].average, losses_since(carried, done, size), done)
        return pressed(), done


def losses_since(carried, done, size):
    """The training losses since the last measurement."""
    return np.asarray(carried[1], np.float64)[: done - done // size * size]


def blocks_of(optimiser, network_of, key, source, labels, settings, carried):
    """A function (carried, first, span) that does the steps span[0], ..., span[1] - 1, and a function that ends it.

    `carried` is (state, losses), where the loss of step i is written into losses[i - first]. It is donated.
    """
    layout = settings.layout
    step = optimiser_step(optimiser, network_of, key, settings, gathered=not isinstance(source, Resident))
    if isinstance(source, Resident):
        data = layout.place((source.rows, labels))
        compiled = compiled_block(step, carried, data, layout)
        return lambda carried, first, span: compiled(carried, data, first, span), lambda: None
    size = settings.batch_size * settings.accumulate
    rows_at = jax.jit(lambda step: batch_rows(key, step, source.n, size))
    prefetch = Prefetch(source, labels, rows_at)
    compiled = compiled_block(step, carried, layout.place(prefetch(0)), layout)

    def blocks(carried, first, span):
        for index in range(*span):
            one = np.int32(index), np.int32(index + 1)
            carried = compiled(carried, layout.place(prefetch(index)), first, one)
        return carried

    return blocks, prefetch.close


def compiled_block(step, carried, data, layout):
    """Compile a function (carried, data, first, span) that does the steps span[0], ..., span[1] - 1.

    The span is traced, so that blocks of all lengths use one program.
    """

    def block(carried, data, first, span):
        def body(index, carried):
            state, values = carried
            state, value = step(data, index, state)
            return state, values.at[index - first].set(value.astype(values.dtype))

        return jax.lax.fori_loop(span[0], span[1], body, carried)

    span = np.int32(0), np.int32(0)
    compiled = jax.jit(block, donate_argnums=0, **layout.options(carried))
    return compiled.lower(carried, data, np.int32(0), span).compile()
