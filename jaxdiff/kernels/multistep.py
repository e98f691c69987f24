"""What exponential multistep methods share: a polynomial, in log(alpha/sigma), through what was seen at earlier nodes.

With l = log(alpha/sigma), y = x/alpha and m the denoiser the eta family dY = (Y + (1 + eta^2) s) du + eta sqrt(2) dB is
  y' = e^(-a h) y + int_l^l' a e^(-a (l' - u)) m du + noise,   a = 1 + eta^2, h = l' - l,
and its ODE in the noise e = (x - alpha m)/sigma is y' = y - int_l^l' e^-u e du. A method says what polynomial stands
for m or e. Integrals are Gauss sums of 64 nodes, exact to rounding and without a small h's cancellation.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdiff.kernels.integrals import gauss
from jaxdiff.processes import denoiser_from_score, namespace, noise_from_score, ou, root


class Row(NamedTuple):
    """Coefficients of every step, arrays whose first axis is the step: x' = keep x + weights . seen + spread z.

    weights (n_steps, order): of what was seen at t, at the node before, and so on; 0 where there is no such node.
    """

    t: Any
    keep: Any
    weights: Any
    spread: Any


class CorrectedRow(NamedTuple):
    """A Row, and what corrects the position at t once something has been seen there.

    It is keep_before x_before + weights_before . seen + noise_before, seen being that at t, at the node before, ...
    """

    t: Any
    keep: Any
    weights: Any
    spread: Any
    keep_before: Any
    weights_before: Any


class State(NamedTuple):
    """A position, and what was seen at earlier nodes, newest first; zeros where there is none yet."""

    x: Any
    past: tuple[Any, ...]


class CorrectedState(NamedTuple):
    """State, and the corrected position and the noise that led from there to x."""

    x: Any
    past: tuple[Any, ...]
    before: Any
    noise: Any


@dataclasses.dataclass(frozen=True)
class Init:
    """x -> a State without history."""

    past: int

    def __call__(self, x):
        """The state at the start."""
        return State(x, (jnp.zeros_like(x),) * self.past)


@dataclasses.dataclass(frozen=True)
class CorrectedInit:
    """x -> a CorrectedState without history."""

    past: int

    def __call__(self, x):
        """The state at the start."""
        return CorrectedState(x, (jnp.zeros_like(x),) * self.past, x, jnp.zeros_like(x))


def position(state):
    """Where the particles are."""
    return state.x


def denoised(score, x, t):
    """E[X_0 | X_t = x]."""
    return denoiser_from_score(score)(x, t)


def noise_in(score, x, t):
    """E[Z | X_t = x]."""
    return noise_from_score(score)(x, t)


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a method that interpolates `see`(score, x, t)."""

    see: Callable[..., Any]

    def __call__(self, score, state, row, z):
        """One step; z None for an ODE."""
        seen = (self.see(score, state.x, row.t), *state.past)
        x = _combined(row.keep, state.x, row.weights, seen)
        return State(x if z is None else x + row.spread * z, seen[:-1])


@dataclasses.dataclass(frozen=True)
class CorrectedStep:
    """The same, which first corrects the position that was predicted."""

    see: Callable[..., Any]

    def __call__(self, score, state, row, z):
        """One step; z None for an ODE."""
        seen = (self.see(score, state.x, row.t), *state.past)
        here = _combined(row.keep_before, state.before, row.weights_before, seen) + state.noise
        noise = jnp.zeros_like(here) if z is None else row.spread * z
        return CorrectedState(_combined(row.keep, here, row.weights, seen) + noise, seen[:-1], here, noise)


# The first product is made a sum, as in affine.noiseless_step: a compiler can then contract in one way only.
def _combined(keep, x, weights, seen):
    total = keep * x + 0 * weights[0]
    for weight, one in zip(weights, seen, strict=False):  # of history a step may use less than it keeps
        total = total + weight * one
    return total


def check_order(order, most, *, least=1):
    """Raise ValueError unless order is a whole number from `least` to `most`."""
    if not hasattr(order, "__index__") or not least <= order <= most:
        raise ValueError(f"order must be a whole number from {least} to {most}: order = {order}.")


def half_log_snr(grid):
    """log(alpha/sigma) at the nodes."""
    return namespace(grid).log(ou.snr(grid)) / 2


def history(values, depth, *, lower_final=False, beside=0):
    """values (n_steps + 1,) at every node: (n_steps, depth), those at node k, k - 1, ... of step k.

    Returns them and which of them are used, both (n_steps, depth): those that exist and, with lower_final, no more of
    them and of `beside` other nodes than there are steps left. One that does not exist is given node 0's value.
    """
    step, back = np.arange(len(values) - 1)[:, None], np.arange(depth)
    left = len(values) - 1 - step if lower_final else len(values) + beside
    return values[np.maximum(step - back, 0)], (back <= step) & (back + beside < left)


def lagrange(nodes, known, at):
    """Lagrange polynomials through the known ones of `nodes` (n, p) at `at` (n, q): (n, q, p)."""
    xp, p = namespace(nodes), nodes.shape[1]
    other = known[:, None, :] & known[:, :, None] & ~np.eye(p, dtype=bool)
    gap = nodes[:, :, None] - nodes[:, None, :]
    gap = xp.where(other & (gap != 0), gap, 1)
    away = xp.where(other[:, None], at[:, :, None, None] - nodes[:, None, None, :], gap[:, None])
    return xp.where(known[:, None, :], xp.prod(away / gap[:, None], axis=-1), 0)


# With a = 1 + eta^2:  keep = (alpha'/alpha) e^(-a h) = (sigma'/sigma) e^(-eta^2 h), and the noise has variance
# sigma'^2 (1 - e^(-2 eta^2 h)).
def linear_part(grid, eta):
    """keep and spread of the eta family with the denoiser integrated, arrays (n_steps,)."""
    xp, sigma = namespace(grid), ou.sigma(grid)
    h = xp.diff(half_log_snr(grid))
    keep = sigma[1:] / sigma[:-1] * xp.exp(-(eta**2) * h)
    return keep, sigma[1:] * root(-xp.expm1(-2 * eta**2 * h))


def denoiser_weights(grid, nodes, known, eta):
    """alpha' int_l^l' a e^(-a (l' - u)) L_j(u) du of every node: (n_steps, p); nodes are log(alpha/sigma)."""
    xp, level = namespace(grid), half_log_snr(grid)
    a, (u, w) = 1 + eta**2, gauss(level[:-1], level[1:])
    mass = ou.alpha(grid[1:])[:, None] * w * a * xp.exp(-a * (level[1:, None] - u))
    return xp.einsum("nq,nqp->np", mass, lagrange(nodes, known, u))


def before(row, keep, weights):
    """A CorrectedRow: the corrector's keep and weights (n_steps, ...), of the step that leads to the next node.

    Weights begin with that of what is seen at its end. At node 0 there is nothing to correct.
    """
    xp = namespace(keep)
    zeros = xp.zeros_like(weights[:1])
    return CorrectedRow(
        **row._asdict(),
        keep_before=xp.concatenate([xp.ones_like(keep[:1]), keep[:-1]]),
        weights_before=xp.concatenate([zeros, weights[:-1]]),
    )
