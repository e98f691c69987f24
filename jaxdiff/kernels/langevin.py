"""Langevin at one fixed noise time, plain, exponential or underdamped, with an exact or a learned score."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.arrays import namespace, root, rounded_product
from jaxdiff.checks import check_number, described
from jaxdiff.kernels import _affine
from jaxdiff.kernels._affine import identity
from jaxdiff.legendre import gauss
from jaxdiff.processes import ou
from jaxdiff.processes.default_times import EARLIEST, LATEST
from jaxdiff.types import Kernel, Nodes, Number, Particles, ScoreFn, as_score

SCHEMES = ("plain", "exponential", "underdamped")


def langevin(
    score: ScoreFn, time: Number, *, scheme: str = "plain", variance: Number | None = None, friction: Number = 2.0
) -> Kernel:
    """Kernel that moves particles towards q_time, with the score frozen over a step.

    Args:
      score: s(x, t), exact or not; shapes (..., d), () -> (..., d).
      time: the fixed OU time of the law to sample, > 0.
      scheme: "plain" is dX = s(X, time) du + sqrt(2) dB by Euler-Maruyama. "exponential" is the same SDE with the drift
        -x/variance solved exactly and the remaining score frozen. "underdamped" is dX = P du,
        dP = (s - friction P) du + sqrt(2 friction) dB, solved exactly for a frozen score.
      variance: v > 0 of "exponential"; default sigma_time^2, for which every step is stable.
      friction: > 0, of "underdamped".

    Returns:
      A Kernel. Its grid is its own running time, down to 0: np.linspace(langevin_time, 0, n_steps + 1). "underdamped"
      takes two increments a step and draws P from N(0, I) in the first.

    Raises:
      ValueError: variance or friction is not positive, time is not an OU time, or scheme is not one of the three.

    Accuracy: on N(0, V) the stationary variance of "plain" is V/(1 - h/(2V)); it diverges for h >= 2V. That of
      "exponential" is V^2 (2v - a)/(v (2V - a)), a = v (1 - e^(-h/v)), which is stable for every h if v <= 2V. The
      stationary law of all three schemes tends to N(0, V) as h goes to 0, with an error of order h.
    Source: Pedrotti, Maas, Mondelli, arXiv:2305.14164, section 4.1 (the scheme; T_2 is langevin_time); Cheng et al.
      2018, arXiv:1707.03663 (underdamped).
    """
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise ValueError(f"scheme is one of {SCHEMES}: scheme = {described(scheme)}.")
    check_number(time, "time")
    if not EARLIEST <= time <= LATEST:
        raise ValueError(
            f"time, the OU time whose law is sampled, must lie in [{EARLIEST:g}, {LATEST:g}]: time = {time:g}."
        )
    for name, value in (("variance", 1.0 if variance is None else variance), ("friction", friction)):
        check_number(value, name)
        if not 0 < value < np.inf:
            raise ValueError(f"{name} must be positive and finite: {name} = {value:g}.")
    variance = None if variance is None else float(variance)
    coefficients = Coefficients(float(time), scheme, variance, float(friction))
    moving = scheme == "underdamped"
    return Kernel(
        "langevin",
        as_score(score),
        coefficients,
        without_momentum if moving else identity,
        underdamped_step if moving else _affine.step,
        position if moving else identity,
        1,
        2 if moving else 1,
        own_clock=True,
    )


class UnderdampedRow(NamedTuple):
    """Coefficients of every step, arrays of shape (n_steps,): of score and momentum in x and p, and of the increments.

    x' = x + pull s + drift p + spread z_0,  p' = keep p + drift s + shared z_0 + own z_1.
    """

    t: Any
    pull: Any
    drift: Any
    spread: Any
    keep: Any
    shared: Any
    own: Any


class Moving(NamedTuple):
    """Position and momentum."""

    x: Any
    p: Any


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The table of a running-time grid at one OU time; variance None is sigma^2 of that time."""

    time: float
    scheme: str = "plain"
    variance: float | None = None
    friction: float = 2.0

    def __call__(self, grid: Nodes) -> Any:
        """The table of a grid, float64 on the host."""
        h = grid[:-1] - grid[1:]
        return self.rows(namespace(grid).full_like(h, self.time), h, np.arange(len(h)) == 0)

    def rows(self, time: Any, h: Any, first: Any) -> Any:
        """The rows of steps of running time h at OU times `time`, both (n_steps,); `first` marks the first of a run."""
        xp = namespace(h)
        if self.scheme == "underdamped":
            return _underdamped(time, h, self.friction, first)
        if self.scheme == "plain":
            return _affine.Row(time, xp.ones_like(h), h, xp.sqrt(2 * h))
        v = ou.sigma(time) ** 2 if self.variance is None else self.variance
        a = -v * xp.expm1(-h / v)
        return _affine.Row(time, xp.ones_like(h), a, xp.sqrt(a * (2 - a / v)))


# Exponential: write s = -x/v + f and freeze f. Then x' = e^(-h/v) x + a f + noise = x + a s + noise, because e^(-h/v) =
# 1 - a/v. The noise has variance v (1 - e^(-2h/v)) = 2a - a^2/v.
#
# Underdamped, g the friction: a unit impulse on p at time 0 has, at time u, moved x by E(u) = (1 - e^-gu)/g, and e^-gu
# of it remains in p. So
#   pull = int_0^h E,  drift = E(h),  Var xi_x = 2g int E^2,  Cov = 2g int E e^-gu = E(h)^2 g,  Var xi_p = 1 - e^-2gh.
# A momentum from N(0, 1) at the start adds the products of its effects E(h) and e^-gh to these. The first step's noise
# contains it, so the state can start with momentum 0.
def _underdamped(time, h, g, first):
    xp = namespace(h)
    u, w = gauss(0 * h, h)
    moved, drift, keep = -xp.expm1(-g * u) / g, -xp.expm1(-g * h) / g, xp.exp(-g * h)
    spread = xp.sqrt(2 * g * (w * moved**2).sum(-1) + xp.where(first, drift, 0) ** 2)
    shared = drift * (g * drift + xp.where(first, keep, 0)) / xp.where(h > 0, spread, 1)
    own = root(xp.maximum(xp.where(first, 1, -xp.expm1(-2 * g * h)) - shared**2, 0))
    return UnderdampedRow(time, (w * moved).sum(-1), drift, spread, keep, shared, own)


def without_momentum(x: Particles) -> Moving:
    """The state at the start."""
    return Moving(x, jnp.zeros_like(x))


def position(state: Moving) -> Particles:
    """Where the particles are."""
    return state.x


def underdamped_step(score: ScoreFn, state: Moving, row: UnderdampedRow, z: Float[Array, "2 *particles d"]) -> Moving:
    """One step with two increments, z (2, ..., d)."""
    s = score(state.x, row.t)
    x = (state.x + row.pull * s) + row.drift * state.p + row.spread * z[0]
    return Moving(x, rounded_product(row.keep, state.p, row.t) + row.drift * s + row.shared * z[0] + row.own * z[1])
