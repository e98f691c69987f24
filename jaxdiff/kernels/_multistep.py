"""Exponential multistep methods: polynomials in log(alpha/sigma) through model outputs at earlier nodes.

With l = log(alpha/sigma), y = x/alpha and m the denoiser the eta family dY = (Y + (1 + eta^2) s) du + eta sqrt(2) dB is
  y' = e^(-a h) y + int_l^l' a e^(-a (l' - u)) m du + noise,   a = 1 + eta^2, h = l' - l,
and its ODE in the noise e = (x - alpha m)/sigma is y' = y - int_l^l' e^-u e du. Each method replaces m or e by a
polynomial. Integrals are Gauss sums of 64 nodes, which are exact to rounding and have no cancellation for small h.

A polynomial through close nodes grows fast beyond them. A step that is much longer than the steps before it therefore
uses fewer nodes: see `bounded`. "Output" in this file is what the polynomial interpolates, the denoiser m or the noise
e that the model predicts.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxdiff.arrays import namespace, read_often, root, rounded_product
from jaxdiff.kernels._lagrange import lagrange
from jaxdiff.legendre import gauss
from jaxdiff.processes import denoiser_from_score, noise_from_score, ou
from jaxdiff.types import Nodes, Particles, ScoreFn

Table = Float[Any, "steps depth"]  # NumPy on the host, or traced, as all coefficients
Known = Bool[Any, "steps depth"]
# A step that is at most LONGER times as long as each of the steps before it keeps its order. So every grid whose steps
# change slowly keeps its coefficients (ratios of Karras' and Benton's grids stay below 1.7). The last digit allows for
# rounding.
LONGER = 2.000001
# A longer step uses a node only while an error in the denoisers (or noises) moves y by at most AMPLIFIED times that
# error. Two equally spaced nodes reach 3 in a very long step, and never more. Of 2, 3, 4 and 5, the value 3 is the
# largest at which every method here was stable on grids of alternating steps (1 : 4 to 1 : 10, eta from 0 to 2).
AMPLIFIED = 3.0


class Row(NamedTuple):
    """Coefficients of every step, arrays whose first axis is the step: x' = keep x + weights . outputs + spread z.

    weights (n_steps, order): of the outputs at t, at the node before, and so on; 0 where there is no such node.
    """

    t: Any
    keep: Any
    weights: Any
    spread: Any


class CorrectedRow(NamedTuple):
    """A Row, and the coefficients that correct the position at t once the output there is known.

    A step ends at keep x + spread z, its `base`, plus a sum of outputs. With the outputs at t, at the node before, and
    so on, the corrected position at t is the base of the step before plus weights_before . outputs.
    """

    t: Any
    keep: Any
    weights: Any
    spread: Any
    weights_before: Any


class State(NamedTuple):
    """A position, and the outputs at earlier nodes, newest first; zeros where there is none yet."""

    x: Any
    past: tuple[Any, ...]


class CorrectedState(NamedTuple):
    """A State with the base of the step to x: keep times the corrected position before it, plus its noise."""

    x: Any
    past: tuple[Any, ...]
    base: Any


@dataclasses.dataclass(frozen=True)
class Init:
    """x -> the State at the start, without earlier outputs."""

    past: int

    def __call__(self, x: Particles) -> State:
        """The state at the start."""
        return State(x, (jnp.zeros_like(x),) * self.past)


@dataclasses.dataclass(frozen=True)
class CorrectedInit:
    """x -> the CorrectedState at the start, without earlier outputs."""

    past: int

    def __call__(self, x: Particles) -> CorrectedState:
        """The state at the start."""
        return CorrectedState(x, (jnp.zeros_like(x),) * self.past, x)


def position(state: State | CorrectedState) -> Particles:
    """Where the particles are."""
    return state.x


def denoised(score: ScoreFn, x: Particles, t: Any) -> Particles:
    """E[X_0 | X_t = x]."""
    return denoiser_from_score(score)(x, t)


def noise_in(score: ScoreFn, x: Particles, t: Any) -> Particles:
    """E[Z | X_t = x]."""
    return noise_from_score(score)(x, t)


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a method that interpolates output(score, x, t)."""

    output: Callable[..., Any]

    def __call__(self, score: ScoreFn, state: State, row: Row, z: Particles | None) -> State:
        """One step; z None for an ODE."""
        outputs = (read_often(score, self.output(score, state.x, row.t)), *state.past)
        x = _with_outputs(rounded_product(row.keep, state.x, row.t), row.weights, outputs)
        return State(x if z is None else x + row.spread * z, outputs[:-1])


@dataclasses.dataclass(frozen=True)
class CorrectedStep:
    """One step of such a method that first corrects the predicted position."""

    output: Callable[..., Any]

    def __call__(self, score: ScoreFn, state: CorrectedState, row: CorrectedRow, z: Particles | None) -> CorrectedState:
        """One step; z None for an ODE."""
        outputs = (read_often(score, self.output(score, state.x, row.t)), *state.past)
        here = _with_outputs(state.base, row.weights_before, outputs)
        base = rounded_product(row.keep, here, row.t)
        base = read_often(score, base if z is None else base + row.spread * z)
        return CorrectedState(_with_outputs(base, row.weights, outputs), outputs[:-1], base)


def _with_outputs(total, weights, outputs):
    for weight, one in zip(weights, outputs, strict=False):  # a step may use fewer outputs than the state keeps
        total = total + weight * one
    return total


def check_order(order: Any, most: int, *, least: int = 1) -> None:
    """Raise ValueError unless order is a whole number from `least` to `most`."""
    if not hasattr(order, "__index__") or not least <= order <= most:
        raise ValueError(f"order must be a whole number from {least} to {most}: order = {order}.")


def half_log_snr(grid: Nodes) -> Nodes:
    """log(alpha/sigma) at the nodes."""
    return namespace(grid).log(ou.snr(grid)) / 2


def history(values: Nodes, depth: int, *, lower_final: bool = False, beside: int = 0) -> tuple[Table, Known]:
    """For every step k the values at nodes k, k - 1, ..., and which of them are used; both (n_steps, depth).

    With lower_final no more nodes are used than there are steps left, `beside` other ones included. A node that does
    not exist is given the value of node 0 and is not used. values: (n_steps + 1,) at every node.
    """
    step, back = np.arange(len(values) - 1)[:, None], np.arange(depth)
    left = len(values) - 1 - step if lower_final else len(values) + beside
    return values[np.maximum(step - back, 0)], (back <= step) & (back + beside < left)


def denoiser_history(
    grid: Nodes, depth: int, eta: float, *, lower_final: bool = False, beside: int = 0
) -> tuple[Table, Known]:
    """The `history` of log(alpha/sigma), with the nodes that are `bounded` for the eta family in the denoiser."""
    level = half_log_snr(grid)
    nodes, known = history(level, depth, lower_final=lower_final, beside=beside)
    xp, weigh = namespace(grid), lambda known: denoiser_weights(grid, nodes, known, eta)
    return nodes, bounded(level, nodes, known, -xp.expm1(-(1 + eta**2) * xp.diff(level)), weigh)


# Let w_j be the weights of the outputs in y. Errors of size e in the outputs move y by at most e sum_j |w_j|. For the
# denoiser the w_j add up to 1 - e^(-a h), the weight of one node used alone. Common factors of the weights cancel in
# the comparison: alpha' for the denoiser, and also e^-l for the noise.
def bounded(values: Nodes, nodes: Table, known: Known, alone: Float[Any, " steps"], weigh: Callable[..., Any]) -> Known:
    """The `known` nodes that a step may use without amplifying errors.

    Args:
      values: (n_steps + 1,) the variable of the polynomial at every node.
      nodes, known: (n_steps, depth) from `history`.
      alone: (n_steps,) the weight in y of one node alone.
      weigh: known (n_steps, depth) -> (n_steps, depth), the weights of a polynomial through those nodes.

    Returns:
      (n_steps, depth). A node k - j is used where the nodes after it are used, and where the step is at most LONGER
      times the shortest step between node k - j and node k, or the weights amplify errors at most AMPLIFIED times.
    """
    xp, depth = namespace(values), nodes.shape[1]
    if depth < 2:
        return known
    step, behind = abs(xp.diff(values)), xp.where(known[:, 1:], abs(xp.diff(nodes, axis=1)), np.inf)
    shortest = [behind[:, : j + 1].min(axis=1) for j in range(depth - 1)]
    if xp is np and all((step <= LONGER * least).all() for least in shortest):
        return known
    kept = [known[:, 0]]
    for j, least in enumerate(shortest, start=1):
        weights = weigh(known & (np.arange(depth) <= j))
        calm = alone * abs(weights).sum(-1) <= AMPLIFIED * abs(weights.sum(-1))
        kept.append(kept[-1] & known[:, j] & ((step <= LONGER * least) | calm))
    return xp.stack(kept, axis=-1)


# With a = 1 + eta^2:  keep = (alpha'/alpha) e^(-a h) = (sigma'/sigma) e^(-eta^2 h), and the noise has variance
# sigma'^2 (1 - e^(-2 eta^2 h)).
def linear_part(grid: Nodes, eta: float) -> tuple[Float[Any, " steps"], Float[Any, " steps"]]:
    """keep and spread of the eta family with the denoiser integrated, arrays (n_steps,)."""
    xp, sigma = namespace(grid), ou.sigma(grid)
    h = xp.diff(half_log_snr(grid))
    keep = sigma[1:] / sigma[:-1] * xp.exp(-(eta**2) * h)
    return keep, sigma[1:] * root(-xp.expm1(-2 * eta**2 * h))


def denoiser_weights(grid: Nodes, nodes: Table, known: Known, eta: float) -> Table:
    """alpha' int_l^l' a e^(-a (l' - u)) L_j(u) du of every node: (n_steps, p); nodes are log(alpha/sigma)."""
    xp, level = namespace(grid), half_log_snr(grid)
    a, (u, w) = 1 + eta**2, gauss(level[:-1], level[1:])
    mass = ou.alpha(grid[1:])[:, None] * w * a * xp.exp(-a * (level[1:, None] - u))
    return xp.einsum("nq,nqp->np", mass, lagrange(nodes, known, u))


def before(row: Row, weights: Table) -> CorrectedRow:
    """A CorrectedRow from a Row and from the corrector's weights (n_steps, ...) of every step.

    A step's weights begin with that of the output at its end. At node 0 there is nothing to correct.
    """
    xp = namespace(weights)
    return CorrectedRow(**row._asdict(), weights_before=xp.concatenate([xp.zeros_like(weights[:1]), weights[:-1]]))
