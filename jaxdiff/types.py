"""Shapes and records shared by every module: what a score, a grid, a kernel, a curve and a certificate are."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float64

from jaxdiff.certificates import Certificate
from jaxdiff.certificates import Term as Term

Particles = Float[Array | np.ndarray, "*particles d"]
Grid = Float64[np.ndarray, " nodes"]

Basis = Any  # (d, d) with orthonormal columns, "coordinates" for the unit vectors, or None: not told apart

ScoreFn = Callable[..., Any]  # s(x, t): x (..., d), t () OU time -> (..., d), the gradient of log q_t at x
DenoiserFn = Callable[..., Any]  # m(x, t): same shapes, E[X_0 | X_t = x]


@dataclasses.dataclass(frozen=True)
class Process:
    """A forward noising X_t = alpha(t) X_0 + sigma(t) Z; functions of a NumPy float64 or traced time.

    `ends` are the first and the last of its times: what a model of it can be asked.
    """

    name: str
    alpha: Callable[..., Any]
    sigma: Callable[..., Any]
    snr: Callable[..., Any]
    time: Callable[..., Any]  # inverse of snr
    ends: tuple[float, float] = (0.0, math.inf)


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
      log_density: (x, t=0.0) -> (...,), log q_t.
      mmse: the Curve V(snr) = E|X_0 - E[X_0 | X_t]|^2.
      smoothing_kl: t -> an upper bound on KL(q_0 || q_t) in nats; inf for a law without a density.
    """

    name: str
    dim: int
    second_moment: float
    score: ScoreFn = dataclasses.field(repr=False)
    sample: Callable[..., Any] = dataclasses.field(repr=False)
    log_density: Callable[..., Any] = dataclasses.field(repr=False)
    mmse: "Curve" = dataclasses.field(repr=False)
    smoothing_kl: Callable[[float], float] = dataclasses.field(default=lambda t: math.inf, repr=False)


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

    basis: of the moment-matched kernel, the curve's own, where it matches every direction; else None.
    """

    horizon: float
    grid: np.ndarray = dataclasses.field(repr=False)
    kernel: str
    evals: int
    certificate: Certificate = dataclasses.field(repr=False)
    alternatives: tuple[dict, ...] = dataclasses.field(default=(), repr=False)
    basis: Basis = dataclasses.field(default=None, repr=False)

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
            "predicted_kl": self.predicted_kl,
            "certificate": self.certificate.to_dict(),
            "alternatives": list(self.alternatives),
        }


def as_score(score):
    """A score as a pytree: a plain function is wrapped in Partial, a callable pytree passes as it is."""
    return Partial(score) if jax.tree_util.all_leaves([score]) else score


def dim_of(curve, dim=None):
    """The dimension of an error curve: its own, or `dim` where the curve is a plain callable."""
    own = getattr(curve, "dim", dim)
    if own is None:
        raise TypeError(f"the error curve {curve!r} carries no dimension: pass a Curve, or dim=d beside the callable.")
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
