"""Shapes and records shared by every module: what a score, a grid, a kernel, a curve and a certificate are."""

import dataclasses
import inspect
import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float64

from jaxdiff.certificates import Certificate
from jaxdiff.certificates import Term as Term

Particles = Float[Array | np.ndarray, "*particles d"]
Grid = Float64[np.ndarray, " nodes"]

Basis = Any  # (d, d) with orthonormal columns, "coordinates" for the unit vectors, or None: not told apart

ScoreFn = Callable[..., Any]  # s(x, t): x (..., d), t () OU time -> (..., d), the gradient of log q_t at x
DenoiserFn = Callable[..., Any]  # m(x, t): same shapes, E[X_0 | X_t = x]

ALIKE = 0.05  # relative difference between two functions of a Process that a table of few rows may leave, not a mistake


def float_time(t):
    """A time, an snr or an array of them as floats of at least 32 bits: whole numbers and 16 bits round no table.

    JAX's whole numbers become JAX's default float, those of NumPy and Python float64; 16 bits become float32.
    """
    if not isinstance(t, jax.Array):
        t = np.asarray(t)
    if not jnp.issubdtype(t.dtype, jnp.floating):
        return t.astype(float) if isinstance(t, jax.Array) else t.astype(np.float64)[()]
    t = t if t.dtype.itemsize >= 4 else t.astype(np.float32)
    return t if isinstance(t, jax.Array) else t[()]


@dataclasses.dataclass(frozen=True)
class OfTime:
    """A function of a time that is handed to it by float_time; equal where the functions are."""

    function: Callable[..., Any]

    def __call__(self, t):
        """The function's value."""
        return self.function(float_time(t))


@dataclasses.dataclass(frozen=True)
class Process:
    """A forward noising X_t = alpha(t) X_0 + sigma(t) Z.

    Attributes:
      name: how messages call the process.
      alpha, sigma: functions of the process's own time, a NumPy float or a traced one. Whole numbers and 16-bit floats
        are converted first (`float_time`).
      snr: the function alpha^2/sigma^2, which falls or rises from one end to the other.
      time: the inverse of snr.
      ends: the first and the last time, in either order: the times that a model of the process can be asked. A process
        that runs from the data to the noise has its data at the first, one from the noise to the data at the last.

    Raises:
      TypeError: one of the functions cannot be called.
      ValueError: the ends are not two different numbers, or the functions contradict one another at three times between
        the ends. Functions that return traced values are not compared.
    """

    name: str
    alpha: Callable[..., Any]
    sigma: Callable[..., Any]
    snr: Callable[..., Any]
    time: Callable[..., Any]
    ends: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self):
        """Hand every function its time as a float, and compare the functions."""
        for field in ("alpha", "sigma", "snr", "time"):
            function = getattr(self, field)
            if not callable(function):
                raise TypeError(
                    f"{field} of the process {self.name!r} must be a function of a time: it is {function!r}."
                )
            object.__setattr__(self, field, function if isinstance(function, OfTime) else OfTime(function))
        object.__setattr__(self, "ends", _two_ends(self))
        _check_functions(self)


def _two_ends(process):
    ends = np.asarray(process.ends, np.float64)
    if ends.shape != (2,) or np.isnan(ends).any() or ends[0] == ends[1] or np.isinf(ends.min()):
        raise ValueError(
            f"ends of the process {process.name!r} are its first and its last time, two different numbers, (0.0, 1.0) "
            f"say: ends = {process.ends!r}."
        )
    return float(ends[0]), float(ends[1])


def _check_functions(process):
    """Raise ValueError unless snr is alpha^2/sigma^2, runs one way, and time is its inverse."""
    first, last = sorted(process.ends)
    span = last - first if math.isfinite(last) else 2.0
    times = first + span * np.array([0.25, 0.5, 0.75])
    with np.errstate(all="ignore"):
        found = [(process.alpha(t), process.sigma(t), process.snr(t), process.time(process.snr(t))) for t in times]
    if any(isinstance(value, Tracer) for row in found for value in row):
        return
    alpha, sigma, snr, back = np.array(found, np.float64).T
    ordinary = (snr > 0) & (snr < math.inf)  # a process without a last time may be past all snr at these three
    failed = {
        "snr must be positive": ~(snr >= 0),
        "snr must be alpha^2/sigma^2": ordinary & ~(np.abs(snr * sigma**2 - alpha**2) <= ALIKE * alpha**2),
        "time must be the inverse of snr": ordinary & ~(np.abs(back - times) <= ALIKE * span),
    }
    for rule, where in failed.items():
        if where.any():
            k = int(np.argmax(where))
            raise ValueError(
                f"{rule}: at the time {times[k]:g} of the process {process.name!r} alpha = {alpha[k]:.4g}, sigma = "
                f"{sigma[k]:.4g}, snr = {snr[k]:.4g} and time(snr) = {back[k]:.4g}."
            )
    if len(set(np.sign(np.diff(snr)))) > 1:
        raise ValueError(
            f"snr must fall or rise all the way: at the times {times} of the process {process.name!r} it is {snr}."
        )


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


@dataclasses.dataclass(frozen=True)
class Target:
    """A law with closed forms.

    Attributes:
      name: of its constructor.
      dim: d.
      second_moment: E|X_0|^2.
      score: s(x, t), exact gradient of log q_t; a pytree callable.
      sample: (key, n) -> (n, d).
      log_density: (x, t=0.0) -> (...,), log q_t; float32 where x has 16 bits.
      mmse: the Curve V(snr) = E|X_0 - E[X_0 | X_t]|^2.
      smoothing_kl: t -> an upper bound on KL(q_0 || q_t) in nats; inf for a law without a density.
      mean: (d,) float64, E X_0; None where it is not known.
      total_variance: E|X_0 - mean|^2; None where it is not known.
    """

    name: str
    dim: int
    second_moment: float
    score: ScoreFn = dataclasses.field(repr=False)
    sample: Callable[..., Any] = dataclasses.field(repr=False)
    log_density: Callable[..., Any] = dataclasses.field(repr=False)
    mmse: "Curve" = dataclasses.field(repr=False)
    smoothing_kl: Callable[[float], float] = dataclasses.field(default=lambda t: math.inf, repr=False)
    mean: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)  # so that laws hash
    total_variance: float | None = dataclasses.field(default=None, repr=False)

    def moment_about(self, point):
        """E|X_0 - point|^2 for a point (d,), without the cancellation of far means.

        Raises:
          ValueError: the target does not tell its mean, or the point is not (d,) and finite.
        """
        if self.mean is None or self.total_variance is None:
            raise ValueError(f"the target {self.name!r} does not tell its mean: give it mean= and total_variance=.")
        point = np.asarray(point, np.float64)
        if point.shape != (self.dim,) or not np.isfinite(point).all():
            raise ValueError(f"a mean to start from is ({self.dim},) and finite: it is {point}.")
        return float(self.total_variance + np.sum((self.mean - point) ** 2))


def aligned(value, x):
    """value with axes of length 1 in front, as many axes as x has, so that the two broadcast.

    JAX does that by itself unless a user forbids it by jax_numpy_rank_promotion="raise". A scalar is returned as it is.
    """
    missing = x.ndim - jnp.ndim(value)
    return jnp.expand_dims(value, tuple(range(missing))) if missing > 0 and jnp.ndim(value) > 0 else value


def _zero(snr):
    return np.zeros_like(np.asarray(snr, np.float64))


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """snr -> squared error of a denoiser, total over the d coordinates: the mmse V, or a model's loss L.

    Attributes:
      value: snr > 0 -> float64, same shape.
      dim: d.
      standard_error: snr -> standard error of value; zero for a curve known exactly.
      cross: snr -> K = E<D(X_t) - X_0, Z>, which exponential Euler also needs. None: the exact denoiser's,
        K = sqrt(snr) V.
      integral: snr -> an antiderivative of value. None: integrated through interpolation.Panels.
      integral_error: snr (n,) -> how wrong an integral between the least and the largest of them can be. None: not at
        all, where there is an integral.
      log_det: (snr, h) -> E log det(I + h Cov(X_0 | X_t)), which covariance matching needs. None: unknown.
      directions: snr -> (*shape of snr, d), the squared error along each column of `basis`; they add up to value. None:
        unknown.
      basis: (d, d) with orthonormal columns, or "coordinates" for the unit vectors; None where directions is None.
      replicates: independent unbiased estimates of the curve, of which it is the mean; () for a curve known exactly.
    """

    value: Callable[..., Any] = dataclasses.field(repr=False)
    dim: int
    standard_error: Callable[..., Any] = dataclasses.field(default=_zero, repr=False)
    cross: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    integral: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    integral_error: Callable[..., float] | None = dataclasses.field(default=None, repr=False)
    log_det: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    directions: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    basis: Basis = dataclasses.field(default=None, repr=False)
    replicates: tuple["Curve", ...] = dataclasses.field(default=(), repr=False)

    def __call__(self, snr):
        """The squared error at an snr, float64."""
        return self.value(snr)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What to run for an accuracy: `kernel` names a constructor of jaxdiff.kernels.

    Attributes:
      basis: of the moment-matched kernel, the curve's own, where it matches every direction; else None.
      start_mean: (d,) where the plan was made with center=True: the run starts from N(start_mean, I), start_mean =
        alpha(horizon) times the law's mean. None: from N(0, I). `start` makes either from draws of N(0, I).
    """

    horizon: float
    grid: np.ndarray = dataclasses.field(repr=False)
    kernel: str
    evals: int
    certificate: Certificate = dataclasses.field(repr=False)
    alternatives: tuple[dict, ...] = dataclasses.field(default=(), repr=False)
    basis: Basis = dataclasses.field(default=None, repr=False)
    start_mean: np.ndarray | None = dataclasses.field(default=None, repr=False)

    def start(self, x):
        """Where particles of this plan start, from draws x (particles, d) of N(0, I), as noise.initial makes them.

        Returns:
          x + start_mean in the dtype of x; x itself where the plan starts from N(0, I).

        Raises:
          ValueError: x is not (particles, d) for the d of the plan.
        """
        if self.start_mean is None:
            return x
        if x.ndim != 2 or x.shape[1] != len(self.start_mean):
            raise ValueError(f"x must be (particles, {len(self.start_mean)}) for this plan: its shape is {x.shape}.")
        return x + np.asarray(self.start_mean, x.dtype)[None]

    @property
    def predicted_kl(self):
        """The sum of the terms that are known: initialisation and discretisation, in nats."""
        return self.certificate.known

    def to_dict(self):
        """Plain JSON data."""
        return {
            "horizon": self.horizon,
            "grid": [float(t) for t in self.grid],
            "kernel": self.kernel,
            "evals": self.evals,
            "per_direction": self.basis is not None,
            "start_mean": None if self.start_mean is None else [float(m) for m in self.start_mean],
            "predicted_kl": self.predicted_kl,
            "certificate": self.certificate.to_dict(),
            "alternatives": list(self.alternatives),
        }


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


def described(value):
    """A value as a message calls it: short, whatever it holds."""
    if value is None or isinstance(value, bool | int | float | complex | str):
        return repr(value) if len(repr(value)) <= 60 else f"a {type(value).__name__} of length {len(str(value))}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    name = getattr(value, "__name__", None)
    if callable(value) and isinstance(name, str):
        return f"the function {name}"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}" + (
        f" of {len(value)}" if isinstance(value, list | tuple | dict | set) else ""
    )


def as_array(x, name, what):
    """x as an array of JAX. TypeError where it is none: a pytree, text, None; `what` says what it should be."""
    try:
        if not isinstance(x, str | bytes | dict | set | None) and not callable(x):
            return jnp.asarray(x)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name} must be an array {what}: it is {described(x)}.")


def as_host(values, name, what):
    """Rows, times and the like as an array of NumPy; TypeError where they are not `what` says they are."""
    try:
        found = np.asarray(values)
        if found.dtype.kind == "O":
            found = found.astype(np.float64)
        if found.dtype.kind not in "USMmc" and values is not None:
            return found
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name} must be {what}: it is {described(values)}.")


def as_numbers(values, name, what):
    """As `as_host`, float64."""
    return np.asarray(as_host(values, name, what), np.float64)


def check_number(value, name, what="a number"):
    """Raise TypeError unless value is one number, known now."""
    if isinstance(value, Tracer):
        raise TypeError(f"{name} must be {what} that is known when the function is called: it is traced.")
    if getattr(value, "shape", ()) == () and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {what}: it is {described(value)}.")


def check_whole(value, name, least=1):
    """Raise TypeError or ValueError unless value is a whole number, at least so large."""
    check_number(value, name, "a whole number")
    if value < least or value != int(value):
        raise ValueError(f"{name} must be a whole number, at least {least}: {name} = {value}.")


def value_of(function, x, t, name="score"):
    """function(x, t); TypeError where it is not one array, or where the function calls NumPy on what is traced."""
    try:
        out = function(x, t)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(f"the {name} must be written in jax.numpy: it makes a NumPy array of x or t.") from error
    if not hasattr(out, "shape") or not hasattr(out, "dtype"):
        raise TypeError(f"the {name} must return one array, of the shape of x: it returns {described(out)}.")
    return out


def check_agrees(out, shape, dtype):
    """Raise ValueError unless a score's value has the shape and the dtype of its x."""
    if out.shape != shape or out.dtype != dtype:
        came, due = f"{out.dtype}{list(out.shape)}", f"{jnp.dtype(dtype)}{list(shape)}"
        raise ValueError(f"the score returns {came} for x {due}: they must agree.")


def dim_of(curve, dim=None):
    """The dimension of an error curve: its own, or `dim` where the curve is a plain callable."""
    own = getattr(curve, "dim", dim)
    if own is None:
        raise TypeError(f"the error curve {curve!r} carries no dimension: pass a Curve, or dim=d beside the callable.")
    check_whole(own, "dim")
    if dim not in (None, own):
        raise ValueError(f"the error curve has dimension {own}, dim = {dim}: leave dim= out.")
    return int(own)


def as_curve(curve, dim=None):
    """A Curve, from one or from a plain callable snr -> total squared error with dim= beside it."""
    dim = dim_of(curve, dim)
    return curve if isinstance(curve, Curve) else Curve(curve, dim)


def check_basis(basis, curve):
    """Raise ValueError unless the curve tells its error apart in this very basis."""
    own = getattr(curve, "basis", None)
    if own is None:
        raise ValueError("the curve does not tell directions apart: measure it with loss_curve(..., basis='pca').")
    if not (basis is own or (np.shape(basis) == np.shape(own) and np.all(basis == own))):
        raise ValueError("basis must be the one the curve was measured in: pass basis=curve.basis.")
