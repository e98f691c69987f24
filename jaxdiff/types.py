"""Types that every module uses: numbers, rows, grids, scores, kernels and samplers."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jaxtyping
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float64, Num, UInt32

from jaxdiff.arrays import Scalar
from jaxdiff.arrays import Whole as Whole
from jaxdiff.checks import described

# Rows (n, d), and the times (n_steps + 1,) of a grid, before they are checked. The types allow any shape, because the
# functions that take rows or times raise an error of their own.
Rows = Times = Num[Array | np.ndarray, "..."] | list | tuple
Particles = Float[Array | np.ndarray, "*particles d"]
Grid = Float64[np.ndarray, " nodes"]  # decreasing times, checked
Key = jaxtyping.Key[Array, ""] | UInt32[Array | np.ndarray, " words"]  # of JAX, new style or old
ErrorCurve = Callable[..., Any]  # a Curve, or a function snr -> total squared error of a denoiser, shape of snr
Nodes = Float[Array | np.ndarray, " nodes"]  # a grid on the host, or a traced one
Number = Scalar  # one number of Python, NumPy or JAX
if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Numbers = ArrayLike  # a number, a list of numbers, or an array of NumPy or JAX
else:  # functions check these themselves, and their messages say what came
    Numbers = Any
Basis = Any  # (d, d) with orthonormal columns; "coordinates" for the unit vectors; None: one number for all directions
ScoreFn = Callable[..., Any]  # s(x, t): x (..., d), t () OU time -> (..., d), the gradient of log q_t at x
DenoiserFn = Callable[..., Any]  # D(x, t): x (..., d), t () OU time -> (..., d), an estimate of E[X_0 | X_t = x]


class StepTerms(NamedTuple):
    """The path KL of each step is constant + loss L + cross K - (1/2) int L dsnr, in nats: the three coefficients.

    L is the squared error of the denoiser at the step's first time, and K = E<D - X_0, Z> there. Each field has shape
    (steps,). Where every direction has a variance of its own, `loss` has shape (steps, d).
    """

    constant: np.ndarray
    loss: np.ndarray
    cross: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class PathCost:
    """The path KL of a kernel's steps as a function of an error curve. `guarantees.step_cost` evaluates it.

    Attributes:
      kernel: name of the kernel's constructor.
      terms: (t, t_next, tau, curve) -> StepTerms. The kernel's variance is set from the error tau at t, of shape
        (steps,) or (steps, d). Kernels whose variance needs no curve ignore tau.
      uses: what the terms read from the curve: "loss" (L alone), "cross" (L and K) or "log_det".
      matches: True for kernels that set their variance from a curve, as moment matching does.
      variance: the curve that the variance is set from. None: the curve that the cost is evaluated on.
      basis: the directions, each with its own variance; None where all have the same.
      of_own_losses: (h, loss, start, parts) -> costs (steps,). A faster form of the terms for the case that every
        direction's variance is set from the curve that the cost is evaluated on; see `guarantees.step_cost`. None: the
        kernel has no such form.
    """

    kernel: str
    terms: Callable[..., StepTerms]
    uses: str = "loss"
    matches: bool = False
    variance: Any = None
    basis: Basis = None
    of_own_losses: Callable[..., Any] | None = None

    def with_variance(self, curve: ErrorCurve | None) -> "PathCost":
        """The same cost with the variance set from another curve; unchanged where `matches` is False."""
        return dataclasses.replace(self, variance=curve) if self.matches else self

    def _key(self):
        basis = self.basis if isinstance(self.basis, str | None) else id(self.basis)
        return self.kernel, self.terms, self.variance, basis

    def __eq__(self, other):
        """Costs are equal if kernel, curve and basis are the same objects, so rebuilt kernels do not recompile."""
        return isinstance(other, PathCost) and self._key() == other._key()

    def __hash__(self):
        """The hash of the kernel's name, its terms, and the identities of curve and basis."""
        return hash(self._key())


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One transition x_t -> x_{t_next}: the functions that compute it, and what is known of it.

    Attributes:
      name: name of its constructor.
      score: s(x, t), a pytree callable; the only traced field.
      coefficients: grid (n_steps + 1,) -> a NamedTuple of float64 arrays with one row for each step. It runs on the
        host, and inside jit for a traced grid.
      init: x -> state. The first axes of every leaf are those of the particles.
      step: (score, state, row, z) -> state; deterministic. z has the shape of x. It has one axis more in front where
        noises_per_step > 1, and is None where noises_per_step is 0.
      position: state -> x.
      evals_per_step: score evaluations in a step.
      noises_per_step: Gaussian increments in a step; 0 for an ODE.
      own_clock: True where the grid is the kernel's own running time down to 0 (Langevin), not OU times.
      path_cost: the path KL of its steps; None where a path KL is not defined, as for an ODE.
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
    """A kernel and the grid that it runs down. `Plan.sampler` makes it; `sample` and `certify` take it.

    A pytree in which the kernel's score is traced. A concrete grid is static, because the host computes the table of
    steps from it. A traced grid is a child.

    Attributes:
      kernel: from jaxdiff.kernels.
      grid: (n_steps + 1,) decreasing times; NumPy, JAX or a list.
    """

    kernel: Kernel
    grid: Any

    @property
    def n_steps(self) -> int:
        """Number of steps of the grid."""
        return len(self.grid) - 1

    @property
    def evals(self) -> int:
        """Score evaluations for each sample."""
        return self.kernel.evals_per_step * self.n_steps

    def __iter__(self) -> Iterator[Any]:
        """Unpacks as a pair: kernel, grid = sampler."""
        return iter((self.kernel, self.grid))

    def tree_flatten(self):
        """Kernel and traced grid are children; a concrete grid is static data."""
        if isinstance(self.grid, jax.Array):
            return (self.kernel, self.grid), None
        return (self.kernel, None), tuple(np.asarray(self.grid, np.float64).tolist())

    @classmethod
    def tree_unflatten(cls, grid, children):
        """The sampler of `tree_flatten`."""
        return cls(children[0], children[1] if grid is None else np.array(grid))


def as_score(score: Any, name: str = "score") -> ScoreFn:
    """A score as a pytree: a plain function is wrapped in Partial, a callable pytree is returned unchanged.

    Raises:
      TypeError: the score is not a function of x and t, or it has no hash. JAX finds compiled programs by that hash.
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
            f"{name} must have a hash, by which JAX finds its compiled program: {described(score)} has none. "
            f"Give its class a __hash__, or pass one of its methods in a function: lambda x, t: score(x, t)."
        ) from None
    return Partial(score)


def _takes_two(function):
    """Whether function(x, t) is a valid call; True where the signature is unknown, as for a function written in C."""
    code = getattr(function, "__code__", None)
    if code is not None and code.co_argcount == 2 and not code.co_kwonlyargcount:
        return True
    try:
        inspect.signature(function).bind(None, None)
    except ValueError:
        return True
    except TypeError:
        return False
    return True
