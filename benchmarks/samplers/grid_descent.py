"""Grids by gradient descent: the path KL as a JAX function of the inner nodes, minimised by Optax from named grids.

Gaps in log snr are the softmax of free numbers, so that the nodes stay in order and the ends are fixed. The cost of a
step leaves out its integral term, whose sum is the same for every grid between two ends. The values of a curve at a
node's log snr, snr L and sqrt(snr) K, come from cubic splines through 2,001 levels.
"""

import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.interpolate import CubicSpline

from jaxdiff.grids import check_grid
from jaxdiff.processes import ou

LEVELS = 2001
STEPS = {"adam": 2000, "l-bfgs": 300}
RATE = 0.05  # of Adam, decaying to 0 as a cosine


class Table(NamedTuple):
    """A curve between two times: cubic pieces (4, LEVELS - 1, 2) of snr L and sqrt(snr) K, log snr of the ends, d."""

    pieces: np.ndarray
    ends: np.ndarray
    dim: np.ndarray


def table_of(curve, horizon, early_stop):
    """The Table of a Curve."""
    ends = np.log(ou.snr(np.array([horizon, early_stop], np.float64)))
    u = np.linspace(*ends, LEVELS)
    snr = np.exp(np.clip(u, *ends))
    losses = snr * curve(snr)
    crosses = losses if curve.cross is None else np.sqrt(snr) * curve.cross(snr)  # of the exact score they agree
    return Table(CubicSpline(u, np.stack([losses, crosses], -1)).c, ends, np.float64(curve.dim))


def _at(table, u):
    """snr L and sqrt(snr) K (nodes,) at log snr u, which may be traced."""
    width = (table.ends[1] - table.ends[0]) / (LEVELS - 1)
    piece = jnp.clip(jnp.floor((u - table.ends[0]) / width), 0, LEVELS - 2)
    x = (u - table.ends[0] - piece * width)[:, None]
    a, b, c, e = jnp.asarray(table.pieces)[:, piece.astype(int)]
    return (((a * x + b) * x + c) * x + e).T


def cost(kernel, u, table):
    """Path KL plus (1/2) int L dsnr of a grid with log snr u (nodes,), nats: differentiable in u."""
    losses, crosses = _at(table, u[:-1])
    gap = jnp.diff(u)
    if kernel == "ancestral":
        return jnp.sum(jnp.expm1(gap) * losses) / 2
    if kernel == "moment_matched":
        return jnp.sum(jnp.log1p(jnp.expm1(gap) * losses / table.dim)) * table.dim / 2
    if kernel != "exponential_euler":
        raise ValueError(f"{kernel!r} has no differentiable cost here.")
    t = jnp.log1p(jnp.exp(-u)) / 2
    g, rise = -jnp.diff(t), 1 + jnp.exp(u[:-1])
    a = -jnp.expm1(-g)
    return jnp.sum(table.dim * (rise * (g - 2 * a) + gap / 2) + rise * (g * losses - 2 * (g - a) * crosses))


def logits_of(grid):
    """The numbers whose softmax are a grid's gaps in log snr, up to their sum."""
    return np.log(np.diff(np.log(ou.snr(grid))))


def nodes(logits, ends):
    """Log snr of the nodes, (gaps + 1,)."""
    way = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jax.nn.softmax(logits))])
    return ends[0] + (ends[1] - ends[0]) * way


@functools.cache
def _program(kernel, method, n_starts, n_steps):
    """The compiled descent (starts, table, constant) -> logits, and the seconds it took to compile."""
    pieces = jax.ShapeDtypeStruct((4, LEVELS - 1, 2), np.float64)
    number, pair = (jax.ShapeDtypeStruct(shape, np.float64) for shape in ((), (2,)))
    starts = jax.ShapeDtypeStruct((n_starts, n_steps), np.float64)
    began = time.perf_counter()

    def descend(starts, table, constant):
        path_kl = lambda logits: cost(kernel, nodes(logits, table.ends), table) - constant
        # A logarithm far from the best start, or Adam's memory of a bad start's gradients would bring it to rest; yet
        # defined below 0, where a learned denoiser's excess may lie.
        scale = jnp.min(jnp.abs(jax.vmap(path_kl)(starts)))
        objective = lambda logits: jnp.arcsinh(path_kl(logits) / scale)
        return jax.vmap(lambda start: _descended(method, start, objective))(starts)

    with jax.numpy_dtype_promotion("standard"):  # Optax raises floats to whole numbers
        compiled = jax.jit(descend).lower(starts, Table(pieces, pair, number), number).compile()
    return compiled, time.perf_counter() - began


def _descended(method, start, objective):
    n = STEPS[method]
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, n)) if method == "adam" else optax.lbfgs()
    look = jax.value_and_grad(objective) if method == "adam" else optax.value_and_grad_from_state(objective)

    def step(carry, _):
        logits, state, best, least = carry
        value, gradient = look(logits) if method == "adam" else look(logits, state=state)
        best, least = jnp.where(value < least, logits, best), jnp.minimum(value, least)
        known = {} if method == "adam" else {"value": value, "grad": gradient, "value_fn": objective}
        update, state = optimiser.update(gradient, state, logits, **known)
        return (optax.apply_updates(logits, update), state, best, least), None

    carry = (start, optimiser.init(start), start, jnp.asarray(jnp.inf))
    (last, _, best, least), _ = jax.lax.scan(step, carry, length=n)
    return jnp.where(objective(last) < least, last, best)


def descended(kernel, method, starts, table, constant):
    """The grids that descent reaches from grids of equal length, the seconds it took, and the seconds to compile.

    method: "adam" or "l-bfgs". constant: (1/2) int L dsnr between the ends, which makes the objective the path KL.
    """
    program, compiling = _program(kernel, method, len(starts), len(starts[0]) - 1)
    began = time.perf_counter()
    logits = np.asarray(program(np.stack([logits_of(grid) for grid in starts]), table, np.float64(constant)))
    seconds = time.perf_counter() - began
    return [_grid(one, table.ends, starts[0]) for one in logits], seconds, compiling


def _grid(logits, ends, start):
    grid = ou.time(np.exp(np.asarray(nodes(logits, ends))))
    grid[[0, -1]] = start[[0, -1]]
    return check_grid(grid)
