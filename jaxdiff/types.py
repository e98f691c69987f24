"""Types that every module shares: particles, grids, scores and the kernel record."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float64

from jaxdiff.checks import described

Particles = Float[Array | np.ndarray, "*particles d"]
Grid = Float64[np.ndarray, " nodes"]
Basis = Any  # (d, d) with orthonormal columns, "coordinates" for the unit vectors, or None: not told apart
ScoreFn = Callable[..., Any]  # s(x, t): x (..., d), t () OU time -> (..., d), the gradient of log q_t at x
DenoiserFn = Callable[..., Any]  # m(x, t): same shapes, E[X_0 | X_t = x]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One transition x_t -> x_{t_next}, as a value.

    Attributes:
      name: name of its constructor.
      score: a pytree callable, s(x, t); the only traced field.
      coefficients: grid (n_steps + 1,) -> a NamedTuple of float64 arrays, one row a step; host or trace.
      init: x -> state, every leaf of which has the particles in front.
      step: (score, state, row, z) -> state; deterministic. z has the shape of x, is stacked in front when
        noises_per_step > 1 and None when it is 0.
      position: state -> x.
      evals_per_step: score evaluations a step.
      noises_per_step: Gaussian increments a step; 0 for an ODE.
      own_clock: True when the grid is the kernel's own running time down to 0 (Langevin), not OU times.
    """

    name: str
    score: ScoreFn
    coefficients: Callable[[Any], Any]
    init: Callable[[Any], Any]
    step: Callable[..., Any]
    position: Callable[[Any], Any]
    evals_per_step: int
    noises_per_step: int
    own_clock: bool = False


jax.tree_util.register_dataclass(
    Kernel,
    data_fields=["score"],
    meta_fields=[f.name for f in dataclasses.fields(Kernel) if f.name != "score"],
)


def as_score(score, name="score"):
    """A score as a pytree: a plain function is wrapped in Partial, a callable pytree passes as it is.

    Raises:
      TypeError: it is no function of x and t, or has no hash, by which a compiled program is found again.
    """
    if not callable(score):
        raise TypeError(f"{name} must be a function of x and t, as lambda x, t: -x is: it is {described(score)}.")
    if not _takes_two(score):
        raise TypeError(f"{name} must take two arguments, x and t: {described(score)} does not.")
    if not jax.tree_util.all_leaves([score]):
        return score
    try:
        hash(score)
    except TypeError:
        raise TypeError(
            f"{name} must have a hash, by which its compiled program is found again: {described(score)} has none. "
            f"Give its class a __hash__, or pass one of its methods in a function: lambda x, t: score(x, t)."
        ) from None
    return Partial(score)


def _takes_two(function):
    code = getattr(function, "__code__", None)
    if code is not None and code.co_argcount == 2 and not code.co_kwonlyargcount:
        return True
    try:
        inspect.signature(function).bind(None, None)
    except ValueError:  # of a function of C, say, nothing is known
        return True
    except TypeError:
        return False
    return True
