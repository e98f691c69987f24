"""Does a score look at where a particle stands among the others? Read off its jaxpr.

What a score computes without x may have an axis of particles if all rows of it are equal, as t * jnp.ones(len(x)) has.
Rows that differ without x, as jnp.arange(len(x)), table[: len(x)] and random numbers of x.shape have them, belong to
places: a chunk of the particles, whose places count from 0 again, would be given those of other particles.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

# Primitives whose first operand is read or written at indices. Row numbers that index an array with a row for every
# particle, as in logits[jnp.arange(len(x)), label], pair a particle with its own row. The numbers are the other
# operands that carry values: what is written.
INDEXING = {"gather": (), "dynamic_slice": (), "dynamic_update_slice": (1,)}
INDEXING |= dict.fromkeys(("scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max"), (2,))
REPEATING = frozenset({"broadcast_in_dim", "reshape"})  # an axis of particles that they add has equal rows
RUNNING = frozenset({"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})  # of equal rows, different ones


def matter(closed, n) -> bool:
    """Can what the score returns for a particle depend on where it stands?

    Args:
      closed: the score's ClosedJaxpr; its last two inputs are x and t.
      n: the particles it was traced with, a number from schedule.mark_beside.
    """
    given = [(False, False)] * len(closed.jaxpr.invars)
    given[-2] = (True, False)
    return any(placed for _, placed in _followed(closed.jaxpr, closed.consts, given, n))


# Of every value two things are known: is it made from x, and can its rows differ because of their places?
def _followed(jaxpr, consts, given, n):
    """The pairs (from x, placed) of a jaxpr's results, from those of its inputs."""
    known = dict(zip(jaxpr.constvars, [_constant(value, n) for value in consts], strict=True))
    known |= dict(zip(jaxpr.invars, given, strict=True))
    read = lambda v: _constant(v.val, n) if isinstance(v, core.Literal) else known[v]
    for equation in jaxpr.eqns:
        known |= dict(zip(equation.outvars, _through(equation, [read(v) for v in equation.invars], n), strict=True))
    return [read(v) for v in jaxpr.outvars]


def _constant(value, n):
    """A constant is placed if it has an axis of particles, along which its values differ."""
    along = [axis for axis, size in enumerate(np.shape(value)) if _of_particles(size, n)]
    if not along or isinstance(value, Tracer) or jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return False, bool(along)
    array = np.asarray(value)
    return False, not all((array == array.take([0], axis)).all() for axis in along)


def _of_particles(size, n):
    return size > 0 and size % n == 0


def _has_particles(v, n):
    return any(_of_particles(size, n) for size in getattr(v.aval, "shape", ()))


def _through(equation, given, n):
    """The pairs of an equation's results."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return _loop(params["jaxpr"], given, params["num_consts"], params["num_carry"], n)
    if name == "while":
        return _loop(params["body_jaxpr"], given[params["cond_nconsts"] :], params["body_nconsts"], None, n)
    if name == "cond":
        return _joined([given[:1] * len(equation.outvars), *(_called(one, given[1:], n) for one in params["branches"])])
    for value in params.values():  # a call, compiled or with a derivative of its own
        if isinstance(value, core.ClosedJaxpr | core.Jaxpr) and len(_open(value).invars) == len(given):
            return _called(value, given, n)
    return [_own(equation, given, n)] * len(equation.outvars)


def _open(jaxpr):
    return jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr


def _called(jaxpr, given, n):
    return _followed(_open(jaxpr), getattr(jaxpr, "consts", ()), given, n)


def _joined(several):
    """Pairs that hold whichever of several lists of them does."""
    return [tuple(map(any, zip(*pairs, strict=True))) for pairs in zip(*several, strict=True)]


def _loop(body, given, consts, carried, n):
    """The pairs after any number of turns of a scan or, with carried None, a while loop."""
    end = len(given) if carried is None else consts + carried
    while True:
        out = _called(body, given, n)
        carry = _joined([given[consts:end], out[: end - consts]])
        if carry == given[consts:end]:
            return out
        given = [*given[:consts], *carry, *given[end:]]


def _own(equation, given, n):
    """The pair of the results of an equation without inner jaxprs."""
    name, params, operands = equation.primitive.name, equation.params, equation.invars
    if name in INDEXING and _has_particles(operands[0], n):
        given = [given[i] for i in (0, *INDEXING[name])]
    from_x, placed = any(one for one, _ in given), any(placed for _, placed in given)
    if placed or from_x or not any(_has_particles(v, n) for v in equation.outvars):
        return from_x, placed
    if name == "iota":
        return False, _of_particles(params["shape"][params["dimension"]], n)
    if name in RUNNING:
        return False, _of_particles(operands[0].aval.shape[params["axis"]], n)
    return False, name not in REPEATING and not any(_has_particles(v, n) for v in operands)
