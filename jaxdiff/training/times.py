"""The noise levels of a training batch: uniform in log snr, of low discrepancy, or drawn where the loss is large."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.arrays import Whole
from jaxdiff.noise import KeyLike
from jaxdiff.processes import ou
from jaxdiff.sampling.arguments import Scalar

BINS = 64  # cells of equal length in log snr, in which the importance sampler measures the loss
FLOOR = 0.1  # share of the times that the importance sampler draws uniformly; no row's weight exceeds 1/FLOOR
MEMORY = 0.99  # decay of the measured loss, per batch that has rows in the cell


class Times(NamedTuple):
    """How `fit` draws the times of its batches.

    Attributes:
      start: the state before training, a pytree of arrays.
      draw: (state, key, n) -> times (n,), and the factors (n,) by which row losses are multiplied, or None for 1.
      learn: (state, times (n,), row losses (n,)) -> state.
    """

    start: Any
    draw: Callable[..., Any]
    learn: Callable[..., Any]


def stratified_times(key: KeyLike, n: Whole, horizon: Scalar, early_stop: Scalar) -> Float[Array, " {n}"]:
    """(n,) times in random order, one in each of n cells of equal length in log snr, from the horizon to early_stop."""
    return _at(_stratified(key, int(n)), horizon, early_stop)


def low_discrepancy_times(key: KeyLike, n: Whole, horizon: Scalar, early_stop: Scalar) -> Float[Array, " {n}"]:
    """(n,) times of equal spacing in log snr, all shifted by one uniform offset and wrapped around.

    Source: Kingma, Salimans, Poole, Ho 2021, arXiv:2107.00630, appendix I.1.
    """
    n = int(n)
    offset = jax.random.uniform(key)
    return _at((offset + jnp.arange(n, dtype=offset.dtype) / n) % 1, horizon, early_stop)


def times_of(times: str | Callable[..., Any], horizon: Scalar, early_stop: Scalar) -> Times:
    """The Times of a name, "log_snr", "low_discrepancy" or "importance", or of a function (key, n) -> times (n,).

    Raises:
      ValueError: no times have this name.
    """
    if times == "importance":
        return _importance(horizon, early_stop)
    named = {"log_snr": stratified_times, "low_discrepancy": low_discrepancy_times}
    if isinstance(times, str) and times not in named:
        raise ValueError(
            f"times must be log_snr, low_discrepancy, importance or a function (key, n) -> times: times = {times!r}."
        )
    drawn = (lambda key, n: named[times](key, n, horizon, early_stop)) if isinstance(times, str) else times
    return Times((), lambda state, key, n: (drawn(key, n), None), lambda state, t, losses: state)


# A cell's share of the times is proportional to the root of the mean square of its row losses, which is the choice of
# Nichol, Dhariwal 2021, arXiv:2102.09672, section 3.3. The factor 1/(BINS p) makes the expected loss and gradient those
# of uniform times, whatever the state is, because the state does not depend on the batch that it draws.
def _importance(horizon, early_stop):
    """Times drawn in proportion to the measured size of the loss. The state has the mean squares, and counts."""

    def draw(state, key, n):
        chances = probabilities(state)
        ends = jnp.concatenate([jnp.zeros(1, chances.dtype), jnp.cumsum(chances)])
        u = _stratified(key, n).astype(chances.dtype) * ends[-1]
        cell = jnp.clip(jnp.searchsorted(ends, u, side="right") - 1, 0, BINS - 1)
        inside = jnp.clip((u - ends[cell]) / chances[cell], 0.0, 1.0)
        fraction = (cell.astype(chances.dtype) + inside) / BINS
        return _at(fraction, horizon, early_stop), 1 / (BINS * chances[cell])

    def learn(state, t, losses):
        squares, seen = state
        low, high = _ends(horizon, early_stop)
        fraction = (jnp.log(ou.snr(t)) - low.astype(t.dtype)) / (high - low).astype(t.dtype)
        cell = jnp.clip((fraction * BINS).astype(jnp.int32), 0, BINS - 1)
        count = jnp.zeros(BINS, jnp.float32).at[cell].add(1.0)
        total = jnp.zeros(BINS, jnp.float32).at[cell].add((losses**2).astype(jnp.float32))
        rate = jnp.maximum(1 - MEMORY, 1 / (seen + 1)).astype(jnp.float32)  # a plain mean of the first batches
        moved = squares + rate * (total / jnp.maximum(count, 1.0) - squares)
        return jnp.where(count > 0, moved, squares), seen + (count > 0).astype(jnp.float32)

    return Times((jnp.zeros(BINS, jnp.float32), jnp.zeros(BINS, jnp.float32)), draw, learn)


def probabilities(state: Any) -> Float[Array, " bins"]:
    """The chance of every cell of log snr, for a state of the importance sampler. A cell without rows has the mean."""
    squares, seen = state
    known = seen > 0
    roots = jnp.sqrt(squares)
    mean = jnp.sum(jnp.where(known, roots, 0.0)) / jnp.maximum(jnp.sum(known), 1).astype(roots.dtype)
    sizes = jnp.where(known, roots, mean)
    total = jnp.sum(sizes)
    share = jnp.where(total > 0, sizes / jnp.where(total > 0, total, 1.0), 1 / BINS)
    return (FLOOR / BINS + (1 - FLOOR) * share).astype(jnp.float32)


def _stratified(key, n):
    """(n,) numbers in [0, 1), one in each of n equal cells, in random order."""
    key_order, key_jitter = jax.random.split(key)
    jitter = jax.random.uniform(key_jitter, (n,))
    cell = jax.random.permutation(key_order, n)  # otherwise row i of a batch would always get noise level i
    return (cell.astype(jitter.dtype) + jitter) / n


def _ends(horizon, early_stop):
    """log snr at the horizon and at the early stop."""
    return jnp.log(ou.snr(jnp.asarray(horizon))), jnp.log(ou.snr(jnp.asarray(early_stop)))


def _at(fraction, horizon, early_stop):
    """The times at these fractions of the way in log snr from the horizon to the early stop."""
    low, high = _ends(horizon, early_stop)
    fraction = fraction.astype(low.dtype)
    return ou.time(jnp.exp(low + (high - low) * fraction))
