"""Types of the arguments of runs, where they are wider than an array with a shape."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Array, Integer

from jaxdiff.arrays import Scalar as Scalar

# A whole number, also a traced one; `arrays.Whole` is one that must be known while tracing.
WholeNumber = int | np.integer | Integer[Array | np.ndarray, ""]
# Arguments that the functions check themselves, with messages of their own: the annotation accepts anything.
ParticlesLike = Any  # (particles, d) floats, an array or nested lists
GridLike = Any  # (n_steps + 1,) decreasing times, an array, a list or a traced array
if TYPE_CHECKING:
    NoiseSource = Literal["counter", "jax"]
else:
    NoiseSource = Any
