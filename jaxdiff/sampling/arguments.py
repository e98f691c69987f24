"""Types of the arguments of runs, where they are wider than an array with a shape."""

from typing import Any

from jax.typing import ArrayLike
from jaxtyping import Integer, Real

Scalar = Real[ArrayLike, ""]  # one real number of Python, NumPy or JAX; also a traced one
WholeNumber = Integer[ArrayLike, ""]
# Arguments that the functions check themselves, with messages of their own: the annotation accepts anything.
ParticlesLike = Any  # (particles, d) floats, an array or nested lists
GridLike = Any  # (n_steps + 1,) decreasing times, an array, a list or a traced array
