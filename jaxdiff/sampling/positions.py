"""Does a score depend on the row that a particle has in x? The answer is read from its jaxpr.

A chunk counts its rows from 0 again. A score that depends on row numbers would therefore give a particle of a later
chunk the value of another particle.

A score may compute a value with a row for each particle without reading x. If all rows are equal, as those of
t * jnp.ones(len(x)), chunks change nothing. If they differ, as those of jnp.arange(len(x)), table[: len(x)] and random
numbers of x.shape, the value depends on the rows. It also does where the score treats some rows of x differently from
others, or accumulates from row to row.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

# How the rows of a value depend on row numbers: not at all, as the row numbers themselves, or in any other way. The
# larger number wins where two values are combined.
INDEPENDENT, ROW_NUMBER, BY_ROW = 0, 1, 2
# Primitives that read or write their first operand at indices, and the operand that they write there (None: they only
# read). Row numbers may index an array with a row for every particle, as in logits[jnp.arange(len(x)), label]: each
# particle then gets its own row, in any chunk.
INDEXING = {"gather": None, "dynamic_slice": None, "dynamic_update_slice": 1}
INDEXING |= dict.fromkeys(("scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max"), 2)
# Primitives that make different rows from equal ones.
RUNNING = frozenset({"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})
# What JAX applies to row numbers before they index an array: it joins them to other indices and counts negative ones
# from the end.
NUMBERING = frozenset({"add", "broadcast_in_dim", "concatenate", "convert_element_type", "reshape", "select_n"})


def matter(closed, n) -> bool:
    """Can the score of a particle depend on its row in x?

    Args:
      closed: the score's ClosedJaxpr; its last two inputs are x and t.
      n: the number of particles it was traced with, from layout.mark_for.
    """
    given = [(False, INDEPENDENT)] * len(closed.jaxpr.invars)
    given[-2] = (True, INDEPENDENT)
    return any(by_row for _, by_row in _of_jaxpr(closed.jaxpr, closed.consts, given, n))


# Each value has a pair (from_x, by_row): is it computed from x, and how do its rows depend on row numbers?
def _of_jaxpr(jaxpr, consts, given, n):
    """The pairs of a jaxpr's results, from those of its inputs."""
    known = {v: (False, BY_ROW if _has_particles(v, n) else INDEPENDENT) for v in jaxpr.constvars}
    known |= dict(zip(jaxpr.constvars, [_constant(value, n) for value in consts], strict=False))
    known |= dict(zip(jaxpr.invars, given, strict=True))
    read = lambda v: _constant(v.val, n) if isinstance(v, core.Literal) else known[v]
    for equation in jaxpr.eqns:
        known |= dict(zip(equation.outvars, _of_equation(equation, [read(v) for v in equation.invars], n), strict=True))
    return [read(v) for v in jaxpr.outvars]


def _constant(value, n):
    """The pair of a constant: BY_ROW if it differs along an axis of n rows, or of a multiple of n."""
    along = [axis for axis, size in enumerate(np.shape(value)) if _is_particle_axis(size, n)]
    if not along or isinstance(value, Tracer) or jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return False, BY_ROW if along else INDEPENDENT
    array = np.asarray(value)
    return False, INDEPENDENT if all(_equal_rows(array, axis, n) for axis in along) else BY_ROW


def _equal_rows(array, axis, n):
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    times = array.reshape(*before, -1, n, *after)
    return (times == times.take([0], axis + 1)).all()


def _is_particle_axis(size, n):
    return size > 0 and size % n == 0


def _has_particles(v, n):
    return any(_is_particle_axis(size, n) for size in getattr(v.aval, "shape", ()))


def _of_equation(equation, given, n):
    """The pairs of an equation's results."""
    name, params, results = equation.primitive.name, equation.params, len(equation.outvars)
    if name == "scan":
        return _of_scan(params, given, n)
    if name == "while":
        return _of_while(params, given, n)
    if name == "cond":
        return _combined([given[:1] * results, *(_of_call(one, given[1:], n) for one in params["branches"])])
    inner = [] if name in INDEXING else [one for value in params.values() for one in _jaxprs(value)]
    calls = [one for one in inner if _sizes(one) == (len(given), results)]
    if calls:  # jit, custom_jvp and the like
        return _combined([_of_call(one, given, n) for one in calls])
    own = _of_primitive(equation, given, n)
    every = _combined_pair(given)  # the inputs of inner jaxprs cannot be matched to those of the equation
    found = [pair for one in inner for pair in _of_call(one, [every] * _sizes(one)[0], n)]
    return _combined([[own], *([pair] for pair in found)]) * results


def _jaxprs(value):
    several = value if isinstance(value, tuple | list) else (value,)
    return [one for one in several if isinstance(one, core.ClosedJaxpr | core.Jaxpr)]


def _open(jaxpr):
    return jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr


def _sizes(jaxpr):
    return len(_open(jaxpr).invars), len(_open(jaxpr).outvars)


def _of_call(jaxpr, given, n):
    return _of_jaxpr(_open(jaxpr), getattr(jaxpr, "consts", ()), given, n)


def _combined(several):
    """Several lists of pairs, combined place by place."""
    return [_combined_pair(pairs) for pairs in zip(*several, strict=True)]


def _combined_pair(pairs):
    """The pair of a value that is computed from several others."""
    return tuple(map(max, zip((False, INDEPENDENT), *pairs, strict=True)))


def _of_scan(params, given, n):
    """The pairs of a scan. A scan over the particles carries values from row to row, which makes them BY_ROW."""
    consts, carried = params["num_consts"], params["num_carry"]
    if _is_particle_axis(params["length"], n):
        carry = [(from_x, BY_ROW) for from_x, _ in given[consts : consts + carried]]
        given = [*given[:consts], *carry, *given[consts + carried :]]
    return _of_loop(params["jaxpr"], given, consts, carried, n)


def _of_while(params, given, n):
    """The pairs of a while loop, all of them BY_ROW if the number of its iterations is."""
    first = params["cond_nconsts"]
    out = _of_loop(params["body_jaxpr"], given[first:], params["body_nconsts"], None, n)
    carry = _combined([given[first + params["body_nconsts"] :], out])
    iterations = _of_call(params["cond_jaxpr"], [*given[:first], *carry], n)
    return _combined([carry, iterations * len(carry)])


def _of_loop(body, given, consts, carried, n):
    """The pairs after any number of iterations of a scan or, with carried None, a while loop."""
    end = len(given) if carried is None else consts + carried
    while True:
        out = _of_call(body, given, n)
        carry = _combined([given[consts:end], out[: end - consts]])
        if carry == given[consts:end]:
            return out
        given = [*given[:consts], *carry, *given[end:]]


def _of_primitive(equation, given, n):
    """The pair of the results of an equation without inner jaxprs."""
    name, operands = equation.primitive.name, equation.invars
    from_x, by_row = _combined_pair(given)
    if by_row == ROW_NUMBER:
        by_row = _of_row_numbers(name, operands, given, n)
    elif _makes_rows_differ(name, equation.params, operands, equation.outvars, from_x, n):
        by_row = ROW_NUMBER if name == "iota" else BY_ROW
    return from_x, by_row


def _of_row_numbers(name, operands, given, n):
    """How the result depends on row numbers, where the operands are row numbers and independent values."""
    if name in INDEXING and _has_particles(operands[0], n):
        values = [given[i][1] for i in (0, INDEXING[name]) if i is not None]
        return BY_ROW if any(values) else INDEPENDENT
    if name == "lt" and isinstance(operands[1], core.Literal) and operands[1].val == 0:
        return INDEPENDENT  # "number < 0" is false in every row
    others = [v for v, (_, by_row) in zip(operands, given, strict=True) if by_row == INDEPENDENT]
    numbers = name in NUMBERING and (name != "add" or not any(_has_particles(v, n) for v in others))
    return ROW_NUMBER if numbers else BY_ROW


def _writes_some_rows(name, operands, n):
    written = INDEXING.get(name)
    return written is not None and _has_particles(operands[0], n) and not _has_particles(operands[written], n)


def _makes_rows_differ(name, params, operands, results, from_x, n):
    """Does a primitive make rows that depend on row numbers from operands whose rows do not?"""
    if not any(_has_particles(v, n) for v in results):
        return False
    if name == "iota":
        return _is_particle_axis(params["shape"][params["dimension"]], n)
    if name in RUNNING:
        return _is_particle_axis(operands[0].aval.shape[params["axis"]], n)
    if name == "concatenate":  # it joins parts that are not all particles each
        sizes = [v.aval.shape[params["dimension"]] for v in operands]
        return _is_particle_axis(sum(sizes), n) and not all(_is_particle_axis(size, n) for size in sizes if size)
    if name == "broadcast_in_dim" or any(_has_particles(v, n) for v in operands):
        return _writes_some_rows(name, operands, n)
    return name != "reshape" or not from_x
