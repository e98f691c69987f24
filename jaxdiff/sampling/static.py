"""The static part of a run, by which its compiled program is found again."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff import noise


class Program(NamedTuple):
    """All that is static: runs with equal programs, shapes and trees share a compilation.

    init, step, position, noises: the kernel's. source: "counter" or "jax". chunk: particles at a time, None chooses.
    mesh, axes: what the particles are spread over, None and () for one device. platform: "cpu", "gpu" or "tpu".
    stored: dtype of the particles that come in and go out; a run computes in noise.computed_in(stored).
    """

    init: Callable
    step: Callable
    position: Callable
    noises: int
    source: str
    chunk: int | None
    mesh: jax.sharding.Mesh | None
    axes: tuple[str, ...]
    platform: str
    stored: jnp.dtype

    @property
    def dtype(self):
        """What the steps compute in."""
        return noise.computed_in(self.stored)

    @property
    def shares(self):
        """Devices that the particles are spread over."""
        return 1 if self.mesh is None else math.prod(self.mesh.shape[axis] for axis in self.axes)


def compiler_options(platform):
    """For the outermost jit: unless told otherwise XLA uses half of a 512-bit vector unit, where there is one."""
    return {"xla_cpu_prefer_vector_width": 512} if platform == "cpu" else None
