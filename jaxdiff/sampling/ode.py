"""The probability-flow ODE to a tolerance: diffrax's adaptive Runge-Kutta methods in log(alpha/sigma)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Real

from jaxdiff import noise
from jaxdiff.checks import as_array, check_agrees, check_number, value_of
from jaxdiff.convolutions import fast_in_loops
from jaxdiff.processes import ou
from jaxdiff.processes.default_times import EARLIEST, LATEST
from jaxdiff.processes.models import check_times
from jaxdiff.sampling.arguments import ParticlesLike, Scalar
from jaxdiff.sampling.compiled import jitted
from jaxdiff.sampling.score_calls import with_casts
from jaxdiff.types import ScoreFn, as_score

STAGES = 6  # score evaluations a step of Tsit5: the first of its seven is the last one of the step before
MOST_STEPS = 10_000  # a particle that needs more raises an error, so that a bad score does not run forever


class Solution(NamedTuple):
    """Positions (n, d) at the end, and the score evaluations of each particle (n,)."""

    x: Float[Array, "n d"]
    evals: Int[Array, " n"]


def solve(
    score: ScoreFn,
    x: ParticlesLike,
    start: Scalar,
    end: Scalar,
    *,
    rtol: Scalar = 1e-5,
    atol: Scalar = 1e-5,
    forward_mode: bool = False,
) -> Solution:
    """Follow dX/dt = -X - s(X, t) from OU time start to end, up or down, every particle with steps of its own.

    Args:
      score: s(x, t), shapes (..., d), () -> (..., d). It is called with one particle at a time, as x of shape (1, d).
      x: (n, d) positions at `start`. Those of 16 bits are computed in float32, as in `sample`, and rounded at the end.
      start, end: OU times, as those of a grid.
      rtol, atol: relative and absolute error of a step, for diffrax's PIDController.
      forward_mode: False for reverse-mode derivatives (jax.grad, jax.vjp), True for forward-mode ones (jax.jvp,
        jax.jacfwd). Both return the same positions; the other mode raises JAX's own error.

    Returns:
      A Solution. From a late time to an early one this samples, as the kernels of ODEs do; the other way it encodes.

    Raises:
      ValueError: x is not (n, d), start and end are not two different OU times, or the score belongs to a model
        (processes.score_from_model) that has no such times.
      RuntimeError: a particle takes more than 10,000 steps, or its steps shrink to rounding, as they do where the score
        is nan. Inside jit, grad and vmap nothing can be raised; there the position of such a particle is nan.
      ImportError: diffrax is missing; it comes with the extra `ode`.
    Source: Tsitouras 2011 (order 5), as in diffrax; Song et al., ICLR 2021, arXiv:2011.13456 (the ODE).
    """
    check_number(start, "start")
    check_number(end, "end")
    check_tolerances(rtol, atol)
    if not EARLIEST <= min(start, end) < max(start, end) <= LATEST:
        raise ValueError(
            f"start and end must be two different OU times in [{EARLIEST:g}, {LATEST:g}]: start = {start:g}, "
            f"end = {end:g}."
        )
    score, x = as_score(score), checked_positions(x)
    check_times(score, np.array([start, end], np.float64))
    stored, (score, x) = x.dtype, widened(score, x)
    ends, tolerances = jnp.asarray([start, end], x.dtype), jnp.asarray([rtol, atol], x.dtype)
    found, steps = _solved(score, x, ends, tolerances, forward_mode=forward_mode)
    check_finished(found.x, steps)
    return found._replace(x=found.x.astype(stored))


def widened(score: ScoreFn, x: Float[Array, "n d"]) -> tuple[ScoreFn, Float[Array, "n d"]]:
    """The score as the ODE evaluates it, at (1, d), and positions (n, d) in the dtype of the computation."""
    return with_casts(score, (1, x.shape[1]), x.dtype), x.astype(noise.computed_in(x.dtype))


def checked_positions(x: ParticlesLike) -> Float[Array, "n d"]:
    """x as an array; raises unless it is (n, d) of a float dtype."""
    x = as_array(x, "x", "(n, d) of floats")
    if x.ndim != 2:
        raise ValueError(f"x must be (n, d): x has shape {x.shape}. One point is x[None].")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must be of a float dtype: x is {x.dtype}. Use x.astype(jnp.float32).")
    return x


def check_tolerances(rtol: Any, atol: Any) -> None:
    """Raise TypeError unless both are numbers; traced ones are trusted."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not isinstance(value, Tracer):
            check_number(value, name)


def check_finished(values: Float[Array, "n ..."], steps: Int[Array, " n"]) -> None:
    """Raise RuntimeError if the ODE of a particle did not reach its end. Inside a trace this checks nothing.

    Args:
      values: (n, ...) results of the ODE, nan where it did not reach its end.
      steps: (n,) steps taken.
    """
    if isinstance(values, Tracer):
        return
    lost = np.asarray(np.isnan(np.asarray(values)).reshape(len(values), -1).any(-1)).ravel()
    if not lost.any():
        return
    first = int(np.argmax(lost))
    if steps[first] >= MOST_STEPS:
        why = (
            f"it takes more than {MOST_STEPS:,} steps. Allow larger errors with rtol and atol, stop earlier, or check "
            f"that score(x, t) is finite at the start."
        )
    else:
        why = (
            f"its steps shrink to the rounding of {values.dtype}. Either score(x, t) is nan or infinite on the way, or "
            f"x is at the start, or rtol and atol are too small for this dtype."
        )
    raise RuntimeError(
        f"{int(lost.sum())} of {lost.size} particles do not come to the end, the first at index {first}: {why}"
    )


@jitted
def _solved(score, x, ends, tolerances, *, forward_mode):
    def one(x):
        x, steps = integrate(lambda u, x: velocity(score, x, u), x, ends, tolerances, forward_mode)
        return Solution(x, 1 + STAGES * steps), steps

    return jax.vmap(one)(x)


def velocity(score: ScoreFn, x: Float[Array, " d"], u: Real[Array, ""]) -> Float[Array, " d"]:
    """dX/du at u = log(alpha/sigma) for one particle (d,): sigma^2 (X + s), finite at both ends.

    The score gets a batch of one, (1, d), because networks expect batches.
    """
    t = ou.time(jnp.exp(2 * u))
    s = fast_in_loops(value_of)(score, x[None], t)
    check_agrees(s, (1, *x.shape), x.dtype)
    return ou.sigma(t) ** 2 * (x + s[0])


def integrate(
    slope: Callable[..., Any],
    state: Any,
    ends: Float[Array, "2"],
    tolerances: Float[Array, "2"],
    forward_mode: bool = False,
) -> tuple[Any, Int[Array, ""]]:
    """Solve d state/du = slope(u, state) between the OU times `ends`: the final state, and the number of steps.

    The state is nan if MOST_STEPS do not suffice or the steps shrink to rounding. diffrax could raise instead, but by a
    callback to the host, which jax.export refuses.
    """
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
        stepsize_controller=diffrax.PIDController(
            rtol=rtol, atol=atol, dtmin=float(jnp.finfo(ends.dtype).eps), force_dtmin=False
        ),
        max_steps=MOST_STEPS,
        adjoint=diffrax.ForwardMode() if forward_mode else diffrax.RecursiveCheckpointAdjoint(),
        throw=False,
    )
    arrived = found.result == diffrax.RESULTS.successful
    end = jax.tree.map(lambda leaf: jnp.where(arrived, leaf[0], jnp.nan), found.ys)
    return end, found.stats["num_steps"]
