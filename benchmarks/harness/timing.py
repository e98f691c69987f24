"""Times functions: the first call, and the median and spread of the later ones.

Functions that are compared take turns, round by round, so that a slow phase of the machine slows all of them.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np


class Timing(NamedTuple):
    """Seconds: the first call, compilation included; the median of the others and their interquartile range."""

    first: float
    median: float
    spread: float


def interleaved(functions: dict[str, Callable], repeats: int, clock=time.perf_counter) -> dict[str, Timing]:
    """Time functions without arguments: each once, then `repeats` rounds of all of them in order."""
    first = {name: _seconds(function, clock) for name, function in functions.items()}
    rounds = [{name: _seconds(function, clock) for name, function in functions.items()} for _ in range(repeats)]
    return {name: _timing(first[name], [one[name] for one in rounds]) for name in functions}


def _seconds(function, clock):
    began = clock()
    jax.block_until_ready(function())
    return clock() - began


def _timing(first, seconds):
    low, median, high = np.percentile(seconds, [25, 50, 75]).tolist()
    return Timing(first, median, high - low)
