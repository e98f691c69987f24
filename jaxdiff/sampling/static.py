"""The static part of a run, by which its compiled program is found again."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff import noise


class Program(NamedTuple):
    """All that is static: runs with equal programs, shapes and trees share a compilation.

    Attributes:
      init, step, position, noises, evals: those of the kernel.
      source: of the noise, "counter" or "jax".
      chunk: particles that run at a time; None lets `layout.choose` decide.
      mesh, axes: the mesh and its axes over which the particles are distributed; None and () for one device.
      platform: "cpu", "gpu" or "tpu".
      stored: dtype of the particles that come in and go out; a run computes in noise.computed_in(stored).
    """

    init: Callable
    step: Callable
    position: Callable
    noises: int
    evals: int
    source: str
    chunk: int | None
    mesh: jax.sharding.Mesh | None
    axes: tuple[str, ...]
    platform: str
    stored: jnp.dtype

    @property
    def dtype(self):
        """The dtype of the computation."""
        return noise.computed_in(self.stored)

    @property
    def n_devices(self):
        """Devices that the particles are distributed over."""
        return 1 if self.mesh is None else math.prod(self.mesh.shape[axis] for axis in self.axes)


def compiler_options(platform):
    """Options for the outermost jit. Without them XLA uses only half of a 512-bit vector unit of a CPU."""
    return {"xla_cpu_prefer_vector_width": 512} if platform == "cpu" else None
