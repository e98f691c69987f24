"""The probability-flow ODE to a tolerance: diffrax's adaptive Runge-Kutta methods in log(alpha/sigma)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff.processes import EARLIEST, LATEST, ou
from jaxdiff.types import ScoreFn, as_score

STAGES = 6  # new evaluations of a step of Tsit5, whose first is the last of the step before
MOST_STEPS = 10_000


class Solution(NamedTuple):
    """Positions (n, d) at the end, and the score evaluations of each particle (n,)."""

    x: Any
    evals: Any


def solve(score: ScoreFn, x, start, end, *, rtol=1e-5, atol=1e-5) -> Solution:
    """Follow dX/dt = -X - s(X, t) from OU time start to end, up or down, every particle with steps of its own.

    Args:
      score: s(x, t), shapes (..., d), () -> (..., d).
      x: (n, d) positions at `start`.
      start, end: OU times, as those of a grid.
      rtol, atol: of diffrax's PIDController: error of a step, relative and absolute.

    Returns:
      A Solution. Down the grid it samples as the kernels of ODEs do, to the tolerance; up it encodes.

    Raises:
      ValueError: x is not (n, d), or start and end are not two OU times.
      RuntimeError: a particle takes more than 10,000 steps: ask for less, or stop earlier.
      ImportError: diffrax is missing; it comes with the extra `ode`.
    Source: Tsitouras 2011 (order 5), as in diffrax; Song et al., ICLR 2021, arXiv:2011.13456 (the ODE).
    """
    if not EARLIEST <= min(start, end) < max(start, end) <= LATEST:
        raise ValueError(
            f"start and end are two OU times in [{EARLIEST:g}, {LATEST:g}]: start = {start:g}, end = {end:g}."
        )
    x = checked_positions(x)
    return _solved(as_score(score), x, jnp.asarray([start, end], x.dtype), jnp.asarray([rtol, atol], x.dtype))


def checked_positions(x):
    """x as an array, once it is known to be (n, d) of a float dtype."""
    x = jnp.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"x must be (n, d): x has shape {x.shape}. One point is x[None].")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must be of a float dtype: x is {x.dtype}. Use x.astype(jnp.float32).")
    return x


@jax.jit
def _solved(score, x, ends, tolerances):
    def one(x):
        x, steps = integrate(lambda u, x: velocity(score, x, u), x, ends, tolerances)
        return Solution(x, 1 + STAGES * steps)

    return jax.vmap(one)(x)


def velocity(score, x, u):
    """dX/du at u = log(alpha/sigma): sigma^2 (X + s), finite at both ends."""
    t = ou.time(jnp.exp(2 * u))
    return ou.sigma(t) ** 2 * (x + score(x, t))


def integrate(slope, state, ends, tolerances):
    """The state where d state/du = slope(u, state) leads between OU times `ends`, by diffrax, and the steps it took."""
    import diffrax

    first, last = jnp.log(ou.snr(ends)) / 2
    rtol, atol = tolerances
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda u, state, args: slope(u, state)),
        diffrax.Tsit5(),
        t0=first,
        t1=last,
        dt0=None,
        y0=state,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=MOST_STEPS,
    )
    return jax.tree.map(lambda leaf: leaf[0], found.ys), found.stats["num_steps"]
