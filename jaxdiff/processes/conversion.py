"""Conversion of times between a process and the Ornstein-Uhlenbeck process with the same snr."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdiff.arrays import float_time, namespace
from jaxdiff.processes.default_times import EARLIEST, LATEST
from jaxdiff.processes.ou import ou
from jaxdiff.processes.process import Process
from jaxdiff.types import Numbers

# Rounding of float32 times through a process's functions moves a row of a table by less than SAME_ROW, an end by less
# than SAME_END of itself, and a time of 0 by less than SAME_ZERO.
SAME_ROW, SAME_END, SAME_ZERO = 2e-3, 1e-3, 1e-6


def whole_row(row: Any) -> Any:
    """The nearest whole row, where a row differs from it by rounding only; other rows as they are."""
    nearest = namespace(row).round(row)
    return namespace(row).where(abs(row - nearest) < SAME_ROW, nearest, row)


def to_ou(process: Process, t: Numbers) -> Any:
    """The OU time at which the signal-to-noise ratio is that of a process at its time t; in [EARLIEST, LATEST].

    Args:
      process: a Process.
      t: times of the process, any shape, floats or whole numbers. Concrete times must lie between the process's ends,
        up to rounding; traced times are not checked.

    Returns:
      OU times of the shape of t, float64 unless t is a JAX array. Pure noise (flow's time 1) has no finite OU time and
      gives LATEST. `sample` refuses the long step that would follow; grids.from_process makes a grid that avoids it.

    Raises:
      ValueError: a concrete time lies outside the ends.
    """
    t = float_time(t) if isinstance(t, jax.Array) else np.asarray(t, np.float64)[()]
    if not isinstance(t, Tracer):
        t = _within_ends(process, t)
    with np.errstate(divide="ignore"):  # pure data or pure noise
        same = ou.time(process.snr(t))  # traced where the process has traced parameters
    return namespace(same).clip(same, EARLIEST, LATEST)


def _within_ends(process, t):
    """Concrete times of a process; a time that rounding has moved across an end becomes the end."""
    first, last = sorted(process.ends)
    slack = [max(min(SAME_END * abs(end), SAME_ROW), SAME_ZERO) for end in (first, last)]
    times = np.asarray(t)
    outside = ~((first - slack[0] <= times) & (times <= last + slack[1]))
    if outside.any():
        raise ValueError(
            f"the process {process.name!r} has times from {first:g} to {last:g}: t = {times[outside].flat[0]:.6g}. "
            f"Take times between process.ends."
        )
    return namespace(t).clip(t, first, last)


def from_ou(process: Process, t: Numbers) -> Any:
    """The process's time at which the signal-to-noise ratio is that of OU time t; any shape, whole numbers too.

    Raises:
      ValueError: a concrete OU time lies outside `ou_ends(process)` by more than rounding. Traced times, and times of a
        process with traced parameters, are not checked.
    """
    if not any(isinstance(time, Tracer) for time in (t, *_ou_times_of_ends(process))):
        check_ou_times(process, t, "from_ou is asked for the time at")
    return process.time(ou.snr(t))


def ou_ends(process: Process) -> tuple[float, float]:
    """(horizon, early_stop): the OU times of a process's noisiest and cleanest time, in whichever order its ends come.

    A model of the process can be evaluated between them; they are the ends of its longest grid.
    """
    first, last = map(float, _ou_times_of_ends(process))
    return max(first, last), min(first, last)


def _ou_times_of_ends(process):
    """The OU times of a process's ends: numbers also inside a jax.jit, unless the process has traced parameters."""
    with jax.ensure_compile_time_eval():  # for a process that is written in jax.numpy
        return [to_ou(process, end) for end in process.ends]


def inside(process: Process, t: Any, rounding: float) -> Any:
    """Whether OU times lie between a process's ends, up to a relative rounding."""
    horizon, early_stop = ou_ends(process)
    return (early_stop * (1 - rounding) <= t) & (t <= horizon * (1 + rounding))


def check_ou_times(process: Process, times: Numbers, asked: str) -> None:
    """Raise ValueError where a concrete OU time lies outside the process's by more than rounding."""
    horizon, early_stop = ou_ends(process)
    rounding, times = max(SAME_END, rounding_of(times)), np.asarray(times, np.float64)
    outside = ~inside(process, times, rounding)
    if outside.any():
        raise ValueError(
            f"{asked} OU time {times[outside].flat[0]:.6g}, but the process {process.name!r} has OU times from "
            f"{early_stop:.6g} to {horizon:.6g} alone, its own times {min(process.ends):g} to {max(process.ends):g}. "
            f"Stay between horizon, early_stop = processes.ou_ends(process)."
        )


def rounding_of(value: Any) -> float:
    """The machine epsilon of an array's float dtype; 0 for values that are not float arrays."""
    dtype = getattr(value, "dtype", np.dtype(int))
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.floating) else 0.0
