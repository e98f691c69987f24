"""Types that every module shares: particles, grids, scores, the kernel and the sampler."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float64

from jaxdiff.checks import described

Particles = Float[Array | np.ndarray, "*particles d"]
Grid = Float64[np.ndarray, " nodes"]
Basis = Any  # (d, d) with orthonormal columns; "coordinates" for the unit vectors; None: one number for all directions
ScoreFn = Callable[..., Any]  # s(x, t): x (..., d), t () OU time -> (..., d), the gradient of log q_t at x
DenoiserFn = Callable[..., Any]  # m(x, t): same shapes, E[X_0 | X_t = x]


class StepTerms(NamedTuple):
    """What a step costs in path KL before the integral of the loss: constant + loss L + cross K, in nats.

    L is the squared error of the denoiser at the step's first time and K = E<D - X_0, Z> there. Each field is an array
    of shape (steps,); `loss` is (steps, d) where every direction has a variance of its own.
    """

    constant: np.ndarray
    loss: np.ndarray
    cross: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class PathCost:
    """What the steps of a kernel cost in path KL, by an error curve. `guarantees.step_cost` evaluates it.

    Attributes:
      kernel: name of the kernel's constructor.
      terms: (t, t_next, tau, curve) -> StepTerms. tau, (steps,) or (steps, d), is the error at t that the kernel's
        variance is set from; kernels with a variance of their own ignore it.
      uses: what the terms read from the curve: "loss" (L alone), "cross" (L and K) or "log_det".
      matches: the kernel sets its variance from a curve, as moment matching does.
      variance: the curve that the variance is set from. None: the curve that the cost is evaluated on.
      basis: the directions that have a variance each; None where all have the same.
      of_own_losses: (h, loss, start, parts) -> costs (steps,), a faster form of the terms where the variance of every
        direction is set from the curve that the cost is evaluated on; see `guarantees.step_cost`. None: there is none.
    """

    kernel: str
    terms: Callable[..., StepTerms]
    uses: str = "loss"
    matches: bool = False
    variance: Any = None
    basis: Basis = None
    of_own_losses: Callable[..., Any] | None = None

    def with_variance(self, curve):
        """The same cost with the variance set from another curve; unchanged for kernels that set none from a curve."""
        return dataclasses.replace(self, variance=curve) if self.matches else self

    def _key(self):
        basis = self.basis if isinstance(self.basis, str | None) else id(self.basis)
        return self.kernel, self.terms, self.variance, basis

    def __eq__(self, other):
        """Costs of one kernel, with the very same curve and basis, are equal: a rebuilt kernel recompiles nothing."""
        return isinstance(other, PathCost) and self._key() == other._key()

    def __hash__(self):
        """Of kernel, curve and basis, the last two as objects."""
        return hash(self._key())


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
      path_cost: what its steps cost in path KL; None where a path KL is not defined, as for an ODE.
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
    path_cost: PathCost | None = None


jax.tree_util.register_dataclass(
    Kernel,
    data_fields=["score"],
    meta_fields=[f.name for f in dataclasses.fields(Kernel) if f.name != "score"],
)


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """A kernel down a grid: what `sample` runs, what `certify` judges and what `Plan.sampler` makes.

    A pytree in which the kernel's score is traced. A concrete grid is static, as the table of steps is computed from it
    on the host.

    Attributes:
      kernel: from jaxdiff.kernels.
      grid: (n_steps + 1,) decreasing times.
    """

    kernel: Kernel
    grid: Any

    @property
    def n_steps(self):
        """Steps of the grid."""
        return len(self.grid) - 1

    @property
    def evals(self):
        """Score evaluations for each sample."""
        return self.kernel.evals_per_step * self.n_steps

    def __iter__(self):
        """Unpack as a pair: kernel, grid = sampler."""
        return iter((self.kernel, self.grid))

    def tree_flatten(self):
        """Kernel and traced grid as children; a concrete grid as static data."""
        if isinstance(self.grid, jax.Array):
            return (self.kernel, self.grid), None
        return (self.kernel, None), tuple(np.asarray(self.grid, np.float64).tolist())

    @classmethod
    def tree_unflatten(cls, grid, children):
        """The sampler of `tree_flatten`."""
        return cls(children[0], children[1] if grid is None else np.array(grid))


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
